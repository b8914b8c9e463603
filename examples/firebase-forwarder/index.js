// Tells towpath, signed, of every user that Firebase Authentication creates or deletes.
const { createHmac } = require("node:crypto");
const { defineSecret, defineString } = require("firebase-functions/params");
const functions = require("firebase-functions/v1");

const url = defineString("TOWPATH_URL", { description: "https://your-towpath/webhooks/firebase" });
const key = defineSecret("TOWPATH_SIGNING_KEY");

const forward = (kind) => async (record, { eventId, eventType, timestamp, resource }) => {
  const { passwordHash, passwordSalt, ...user } = record.toJSON();
  const body = JSON.stringify({ kind, user, context: { eventId, eventType, timestamp, resource } });
  const t = Math.floor(Date.now() / 1000);
  const v1 = createHmac("sha256", key.value().trim()).update(`${t}.${body}`).digest("hex");
  const headers = { "content-type": "application/json", "x-towpath-signature": `t=${t},v1=${v1}` };
  const sent = { method: "POST", headers, body, signal: AbortSignal.timeout(30_000) };
  const answer = await fetch(url.value(), sent);
  if (!answer.ok) throw new Error(`towpath answered ${answer.status}`); // Google tries again, for days.
};

const users = functions.runWith({ secrets: [key], failurePolicy: true }).auth.user();
exports.userCreated = users.onCreate(forward("created"));
exports.userDeleted = users.onDelete(forward("deleted"));
