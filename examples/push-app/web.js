// A web app that registers for push. Call registerPush after the person clicked something that says so:
// browsers ask only then. Call it again after sign-in, after sign-out (userId null) and at each start.
import { initializeApp } from "firebase/app";
import { getId, getInstallations } from "firebase/installations";
import { deleteToken, getMessaging, getToken, isSupported } from "firebase/messaging";

const HUB = "https://hub.example.com";
const WRITE_KEY = "WRITE_KEY";
const VAPID_KEY = "the key pair's public key of the Web Push certificate";

const app = initializeApp({ /* the configuration object of the Firebase console */ });

async function track(event, userId, properties) {
  const answer = await fetch(`${HUB}/v1/track`, {
    method: "POST",
    keepalive: true,
    headers: { "content-type": "application/json", authorization: `Basic ${btoa(`${WRITE_KEY}:`)}` },
    body: JSON.stringify({
      type: "track",
      event,
      userId,
      properties,
      messageId: crypto.randomUUID(),
      timestamp: new Date().toISOString(),
      context: { timezone: Intl.DateTimeFormat().resolvedOptions().timeZone, locale: navigator.language },
    }),
  });
  if (!answer.ok) throw new Error(`${event}: ${answer.status} ${await answer.text()}`);
}

export async function registerPush(userId) {
  if (!(await isSupported()) || (await Notification.requestPermission()) !== "granted") return;
  const deviceId = await getId(getInstallations(app));
  const fcmToken = await getToken(getMessaging(app), { vapidKey: VAPID_KEY });
  await track("Register Push", userId ?? deviceId, { deviceId, fcmToken, deviceType: "Web" });
}

export async function unregisterPush(userId) {
  const deviceId = await getId(getInstallations(app));
  await deleteToken(getMessaging(app));
  await track("Unregister Push", userId ?? deviceId, { deviceId });
}
