// Drives one of the two Node SDKs as a program would: the plan comes as JSON on stdin, the report leaves on stdout.
"use strict";

const plan = JSON.parse(require("node:fs").readFileSync(0, "utf8"));
const errors = [];
const note = (error) => errors.push(String(error?.message ?? error));
// A call's timestamp is a Date in both SDKs.
const revived = (call) => (call.timestamp ? { ...call, timestamp: new Date(call.timestamp) } : call);

const drivers = {
  async segment() {
    const { Analytics } = require("@segment/analytics-node");
    const analytics = new Analytics({ writeKey: plan.key, host: plan.url, ...plan.options });
    analytics.on("error", (error) => note(error.reason ?? error));
    for (const { type, ...call } of plan.calls) analytics[type](revived(call));
    await analytics.closeAndFlush({ timeout: 20000 });
  },

  async rudder() {
    const Analytics = require("@rudderstack/rudder-sdk-node");
    const analytics = new Analytics(plan.key, { dataPlaneUrl: plan.url, errorHandler: note, ...plan.options });
    const ended = plan.calls.map(
      ({ type, ...call }) => new Promise((resolve) => analytics[type](revived(call), resolve)),
    );
    while (analytics.queue.length) await analytics.flush();
    await Promise.all(ended);
  },
};

drivers[plan.sdk]().then(
  () => process.stdout.write(JSON.stringify(errors)),
  (error) => {
    console.error(error);
    process.exitCode = 1;
  },
);
