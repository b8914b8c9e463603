// Drives Customer.io's own Node client: steps come as JSON on stdin, what each of them gave leaves on stdout.
"use strict";

const vendor = require("customerio-node");

const plan = JSON.parse(require("node:fs").readFileSync(0, "utf8"));
const retry = { minTimeoutMs: 1, maxTimeoutMs: 5, retryAfterMaxSeconds: 1 };
const clients = {
  track: new vendor.TrackClient(plan.site_id, plan.api_key, { url: `${plan.url}/api/v1`, retry }),
  app: new vendor.APIClient(plan.app_api_key, { url: `${plan.url}/v1`, retry }),
  pipelines: new vendor.PipelinesClient(plan.write_key, { url: `${plan.url}/v1`, strictMode: true, retry }),
  webhooks: { verify: async (given) => vendor.verifyRequestSignature(given) },
};
const requests = {
  sendEmail: vendor.SendEmailRequest,
  sendPush: vendor.SendPushRequest,
};

async function made({ client, method, args }) {
  const given = requests[method] ? [new requests[method](...args)] : args;
  try {
    return { gave: (await clients[client][method](...given)) ?? null };
  } catch (error) {
    return { status: error.statusCode ?? 0, error: String(error.message) };
  }
}

(async () => {
  const results = [];
  for (const step of plan.steps) results.push(await made(step));
  process.stdout.write(JSON.stringify(results));
})();
