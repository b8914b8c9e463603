// The page's own script: starts one of the two browser SDKs as its documentation says, as window.analytics.
"use strict";

function script(src) {
  return new Promise((loaded, failed) => {
    const element = Object.assign(document.createElement("script"), { src, onload: loaded, onerror: failed });
    document.head.append(element);
  });
}

const start = {
  // cdnURL is where the project's settings come from; they name the place to send to.
  async segment(key, url, options) {
    await script("/segment.js");
    const analytics = AnalyticsNext.AnalyticsBrowser.load({ writeKey: key, cdnURL: url }, options);
    await analytics; // it is a thenable itself, so it cannot be what this function gives
    window.analytics = analytics;
  },

  async rudder(key, url, options) {
    await script("/rudder.js");
    const analytics = new rudderanalytics.RudderAnalytics();
    analytics.load(key, url, { configUrl: url, ...options });
    await new Promise((ready) => analytics.ready(ready));
    window.analytics = analytics;
  },
};
