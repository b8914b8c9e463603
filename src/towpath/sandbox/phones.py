"""Sample apps: phones that register for push, people who sign in on them, and one that changes hands."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from msgspec import Struct

from towpath.message import format_time

from .scenarios import Call

REGISTER = "Register Push"
STEP_S = 1.0
OWNERS: Mapping[str, str] = {
    "browser-1": "linus",
    "phone-1": "grace",
    "phone-2": "phone-2",
    "tablet-1": "linus",
}
"""Who has which device in the end; on the second phone nobody has signed in."""
GONE = "old-phone"
"""The device whose app was deleted: only FCM knows."""


class Act(Struct, frozen=True):
    """What happens before anybody looks: a line for people, and the calls in order."""

    about: str
    calls: Sequence[Call]


def acts(at: float) -> Sequence[Act]:
    """The story in three acts, from Unix seconds `at` on. Its message ids are the same every time."""
    return [
        Act("two phones, on which nobody has signed in", _timed("new", at, _new_phones())),
        Act("grace signs in on one, and has two more devices", _timed("grace", at + 20, _grace())),
        Act("linus signs in on her tablet, and in a browser", _timed("linus", at + 40, _linus())),
    ]


def register(device: str, kind: str, person: str, *, token: str = "") -> Call:
    """The call with which an app reports its token. `kind` is iOS, Android or Web."""
    properties = {"deviceId": device, "fcmToken": token or f"ok-{device}", "deviceType": kind}
    return {"type": "track", "event": REGISTER, "userId": person, "properties": properties}


def _new_phones() -> list[Call]:
    return [
        register("phone-1", "iOS", "phone-1"),
        register("phone-2", "Android", "phone-2"),
        {"type": "screen", "userId": "phone-1", "name": "Home"},
    ]


def _grace() -> list[Call]:
    return [
        {"type": "identify", "userId": "grace", "traits": {"first_name": "Grace"}},
        register("phone-1", "iOS", "grace"),
        register("tablet-1", "Android", "grace"),
        register(GONE, "Android", "grace", token=f"gone-{GONE}"),
    ]


def _linus() -> list[Call]:
    return [
        {"type": "identify", "userId": "linus", "traits": {"first_name": "Linus"}},
        register("tablet-1", "Android", "linus"),
        register("browser-1", "Web", "linus"),
    ]


def _timed(name: str, at: float, calls: Sequence[Call]) -> list[Call]:
    """Calls with their ids and moments, one after another."""
    return [
        {
            **call,
            "messageId": f"phones-{name}-{number}",
            "timestamp": format_time(datetime.fromtimestamp(at + STEP_S * number, UTC)),
        }
        for number, call in enumerate(calls)
    ]
