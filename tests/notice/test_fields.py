"""Every field that Google's own library writes is known here."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest
from firebase_admin import _messaging_encoder, messaging  # type: ignore[import-untyped]

from towpath.notice import fields


def written() -> dict[str, Any]:
    """A message with every field of the library but its target."""
    lights = messaging.LightSettings("#11223344", 100, 200)
    notification = messaging.AndroidNotification(
        "title", "body", "icon", "#12aBef", "sound", "tag", "click", "body_key", ["a"], "title_key", ["b"],
        "channel", "https://a.example/a.png", "ticker", sticky=True, event_timestamp=datetime.now(UTC),
        local_only=True, priority="high", vibrate_timings_millis=[100, 200], default_vibrate_timings=True,
        default_sound=True, light_settings=lights, default_light_settings=True, visibility="public",
        notification_count=3, proxy="allow",
    )  # fmt: skip
    android = messaging.AndroidConfig(
        "key", "high", 3.5, "com.example", {"a": "b"}, notification, messaging.AndroidFCMOptions("label"),
        direct_boot_ok=True, bandwidth_constrained_ok=True, restricted_satellite_ok=True,
    )  # fmt: skip
    alert = messaging.ApsAlert(
        "title", "subtitle", "body", "key", ["a"], "title_key", ["b"], "action", "image"
    )
    sound = messaging.CriticalSound("name", critical=True, volume=0.5)
    aps = messaging.Aps(alert, 3, sound, True, "category", "thread", True, {"own": 1})
    options = messaging.APNSFCMOptions("label", "https://a.example/a.png")
    apns = messaging.APNSConfig(
        {"apns-priority": "10"}, messaging.APNSPayload(aps, own="x"), options, live_activity_token="token"
    )
    browser = messaging.WebpushNotification(
        "title", "body", "icon", [messaging.WebpushNotificationAction("a", "A", "icon")], "badge", {"a": 1},
        "auto", "image", "de", True, True, True, "tag", 5, [1, 2], {"own": 1},
    )  # fmt: skip
    webpush = messaging.WebpushConfig(
        {"TTL": "5"}, {"a": "b"}, browser, messaging.WebpushFCMOptions("https://a.example/")
    )
    message = messaging.Message(
        {"a": "b"}, messaging.Notification("title", "body", "https://a.example/a.png"), android, webpush,
        apns, messaging.FCMOptions("label"), fid="fid",
    )  # fmt: skip
    made: dict[str, Any] = _messaging_encoder.MessageEncoder().default(message)
    del made["fid"]
    return made


def names(table: Mapping[str, Any], place: str = "") -> set[str]:
    """Every field of a table, dotted."""
    found = set()
    for name, inner in table.items():
        found |= {f"{place}{name}"} | (
            names(inner, f"{place}{name}.") if isinstance(inner, Mapping) else set()
        )
    return found


@pytest.mark.spec("P051")
def test_what_googles_library_writes_is_taken() -> None:
    assert list(fields.faults(written(), fields.MESSAGE)) == []


@pytest.mark.spec("P051")
def test_no_field_is_known_that_googles_library_does_not_write() -> None:
    free = {"webpush.fcm_options.analytics_label"}  # of the API's reference; the library has no name for it
    assert names(fields.MESSAGE) - free <= names(written())
