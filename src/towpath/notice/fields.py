"""The fields of an FCM message and what each may hold: android, apns and webpush of HTTP v1.

Source: the API's discovery document (fcm/v1) and Google's reference of `projects.messages`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from difflib import get_close_matches
from typing import Any, TypeAlias
from urllib.parse import urlsplit

Rule: TypeAlias = Callable[[Any], str]
"""Says what a value has to be; empty when it is that."""
Fields: TypeAlias = Mapping[str, "Rule | Fields"]
Fault: TypeAlias = tuple[str, str]
"""The dotted name of a field, and what is wrong with it."""

LARGEST_BYTES = 4096
LONGEST_TTL_S = 28 * 86_400
LONGEST_COLLAPSE_BYTES = 64
RESERVED_DATA = frozenset({"from", "message_type"})
RESERVED_PREFIXES = ("google.", "gcm.")
_LABEL = re.compile(r"[a-zA-Z0-9\-_.~%]{1,50}").fullmatch
_COLOR = re.compile(r"#[0-9a-fA-F]{6}").fullmatch
_DURATION = re.compile(r"\d{1,12}(?:\.\d{1,9})?s").fullmatch
_HEADER_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+").fullmatch
_HEADER_VALUE = re.compile(r"[\t\x20-\x7e]*").fullmatch
_HUMP = re.compile(r"(?<=[a-z0-9])[A-Z]")


def is_label(text: str) -> bool:
    """Whether FCM takes it as `analytics_label`."""
    return _LABEL(text) is not None


def https(value: Any) -> str:
    """An address with https and a host."""
    try:
        parts = urlsplit(value) if isinstance(value, str) else None
        good = parts is not None and parts.scheme == "https" and bool(parts.hostname)
    except ValueError:
        good = False
    return "" if good and not any(map(str.isspace, value)) else "has to be an https address"


def text(value: Any) -> str:
    """Text."""
    return "" if isinstance(value, str) else "has to be text"


def flag(value: Any) -> str:
    """True or false."""
    return "" if isinstance(value, bool) else "has to be true or false"


def whole(value: Any) -> str:
    """A whole number, from 0."""
    return "" if type(value) is int and 0 <= value < 2**31 else "has to be a whole number, 0 or more"


def texts(value: Any) -> str:
    """A list of text."""
    good = isinstance(value, list | tuple) and all(isinstance(each, str) for each in value)
    return "" if good else "has to be a list of text"


def strings(value: Any) -> str:
    """An object whose values are text."""
    good = isinstance(value, dict) and all(isinstance(each, str) for each in value.values())
    return "" if good else 'has to be an object whose values are all text: write "5", not 5'


def color(value: Any) -> str:
    """A color as #RRGGBB."""
    return "" if isinstance(value, str) and _COLOR(value) else "has to be a color like #12aBef"


def lasting(value: Any) -> str:
    """A duration as Google writes it."""
    good = isinstance(value, str) and _DURATION(value)
    return "" if good else 'has to be seconds with an s, like "3.5s"'


def ttl(value: Any) -> str:
    """A duration of at most four weeks."""
    if lasting(value) or float(value[:-1]) > LONGEST_TTL_S:
        return f'has to be seconds with an s, from "0s" to "{LONGEST_TTL_S}s" (four weeks)'
    return ""


def label(value: Any) -> str:
    """What FCM's statistics are told apart by."""
    good = isinstance(value, str) and is_label(value)
    return "" if good else "has to be 1 to 50 of the characters a-z, A-Z, 0-9, - _ . ~ %"


def moment(value: Any) -> str:
    """A time with a zone, RFC 3339."""
    good = isinstance(value, str) and re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+(Z|[+-]\d\d:\d\d)", value)
    return "" if good else 'has to be a time like "2026-01-31T09:00:00Z"'


def share(value: Any) -> str:
    """A part of one."""
    good = type(value) in (int, float) and 0 <= value <= 1
    return "" if good else "has to be a number from 0 to 1"


def durations(value: Any) -> str:
    """A list of durations."""
    good = isinstance(value, list | tuple) and not any(map(lasting, value))
    return "" if good else 'has to be a list of seconds with an s, like ["0.2s", "1s"]'


def one_of(*words: str) -> Rule:
    """One of these words, in any case."""

    def rule(value: Any) -> str:
        good = isinstance(value, str) and value.upper() in words
        return "" if good else f"has to be one of {', '.join(words)}"

    return rule


def data(value: Any) -> str:
    """What an app gets beside or in place of a notification."""
    if fault := strings(value):
        return fault
    taken = [key for key in value if not key or key in RESERVED_DATA or key.startswith(RESERVED_PREFIXES)]
    if not taken:
        return ""
    return (
        f"cannot have the key {taken[0]!r}: FCM keeps from, message_type, google.… and gcm.… for itself"
        if taken[0]
        else "cannot have an empty key"
    )


def headers(value: Any) -> str:
    """Headers for Apple's or the browser's push service."""
    if fault := strings(value):
        return fault
    for name, each in value.items():
        if not (_HEADER_NAME(name) and _HEADER_VALUE(each)):
            return f"{name!r} cannot be sent as a header: only printable ASCII without line breaks can"
    return ""


def apns_headers(value: Any) -> str:
    """Headers for Apple's push service, whose values it is particular about."""
    if fault := headers(value):
        return fault
    given = {name.lower(): each for name, each in value.items()}
    if len(given.get("apns-collapse-id", "").encode()) > LONGEST_COLLAPSE_BYTES:
        return f"apns-collapse-id has more than {LONGEST_COLLAPSE_BYTES} bytes"
    if given.get("apns-priority", "10") not in ("1", "5", "10"):
        return 'apns-priority has to be "10", "5" or "1"'
    if not re.fullmatch(r"\d{1,12}", given.get("apns-expiration", "0")):
        return 'apns-expiration has to be a time in Unix seconds, or "0" for now or never'
    return ""


def webpush_headers(value: Any) -> str:
    """Headers for the browsers' push services (RFC 8030)."""
    if fault := headers(value):
        return fault
    given = {name.lower(): each for name, each in value.items()}
    if not re.fullmatch(r"\d{1,12}", given.get("ttl", "0")):
        return "TTL has to be a whole number of seconds"
    if given.get("urgency", "normal") not in ("very-low", "low", "normal", "high"):
        return "Urgency has to be very-low, low, normal or high"
    return ""


def payload(value: Any) -> str:
    """What Apple hands to the app: `aps`, and fields of the app's own."""
    if not isinstance(value, dict):
        return "has to be an object"
    aps = value.get("aps", {})
    if not isinstance(aps, dict):
        return "aps has to be an object"
    if "alert" in aps and not isinstance(aps["alert"], str | dict):
        return "aps.alert has to be text or an object"
    if "badge" in aps and whole(aps["badge"]):
        return f"aps.badge {whole(aps['badge'])}"
    return ""


def shown(value: Any) -> str:
    """The options of a notification in a browser."""
    if not isinstance(value, dict):
        return "has to be an object"
    wrong = [name for name in ("title", "body", "icon", "image", "badge", "tag") if name in value]
    wrong = [name for name in wrong if not isinstance(value[name], str)]
    return f"{wrong[0]} has to be text" if wrong else ""


NOTIFICATION: Fields = {"title": text, "body": text, "image": https}
ANDROID: Fields = {
    "collapse_key": text,
    "priority": one_of("NORMAL", "HIGH"),
    "ttl": ttl,
    "restricted_package_name": text,
    "data": data,
    "notification": {
        **NOTIFICATION,
        "icon": text,
        "color": color,
        "sound": text,
        "tag": text,
        "click_action": text,
        "body_loc_key": text,
        "body_loc_args": texts,
        "title_loc_key": text,
        "title_loc_args": texts,
        "channel_id": text,
        "ticker": text,
        "sticky": flag,
        "event_time": moment,
        "local_only": flag,
        "notification_priority": one_of(
            "PRIORITY_MIN", "PRIORITY_LOW", "PRIORITY_DEFAULT", "PRIORITY_HIGH", "PRIORITY_MAX"
        ),
        "default_sound": flag,
        "default_vibrate_timings": flag,
        "default_light_settings": flag,
        "vibrate_timings": durations,
        "visibility": one_of("PRIVATE", "PUBLIC", "SECRET"),
        "notification_count": whole,
        "light_settings": {
            "color": {"red": share, "green": share, "blue": share, "alpha": share},
            "light_on_duration": lasting,
            "light_off_duration": lasting,
        },
        "proxy": one_of("ALLOW", "DENY", "IF_PRIORITY_LOWERED"),
    },
    "fcm_options": {"analytics_label": label},
    "direct_boot_ok": flag,
    "bandwidth_constrained_ok": flag,
    "restricted_satellite_ok": flag,
}
APNS: Fields = {
    "headers": apns_headers,
    "payload": payload,
    "fcm_options": {"analytics_label": label, "image": https},
    "live_activity_token": text,
}
WEBPUSH: Fields = {
    "headers": webpush_headers,
    "data": data,
    "notification": shown,
    "fcm_options": {"link": https, "analytics_label": label},
}
MESSAGE: Fields = {
    "data": data,
    "notification": NOTIFICATION,
    "android": ANDROID,
    "apns": APNS,
    "webpush": WEBPUSH,
    "fcm_options": {"analytics_label": label},
}


def respelled(block: Mapping[str, Any], fields: Fields) -> dict[str, Any]:
    """A block with `channelId` as `channel_id`: Google takes both. Raises `ValueError` for unknown fields."""
    found: dict[str, Any] = {}
    for given, value in block.items():
        name = given if given in fields else _HUMP.sub(lambda hump: f"_{hump[0].lower()}", given)
        if name not in fields:
            raise ValueError(_unknown(given, fields))
        if name in found:
            raise ValueError(f"{name} is there twice, as {given} too")
        inner = fields[name]
        if isinstance(inner, Mapping) and isinstance(value, Mapping):
            try:
                value = respelled(value, inner)
            except ValueError as error:
                raise ValueError(f"{name}: {error}") from None
        found[name] = value
    return found


def faults(block: Mapping[str, Any], fields: Fields, place: str = "") -> Iterator[Fault]:
    """What FCM would refuse in a block."""
    for name, value in block.items():
        rule, where = fields.get(name), f"{place}{name}"
        if rule is None:
            yield where, _unknown(name, fields)
        elif isinstance(rule, Mapping):
            if isinstance(value, Mapping):
                yield from faults(value, rule, f"{where}.")
            else:
                yield where, "has to be an object"
        elif said := rule(value):
            yield where, said


def _unknown(name: str, fields: Collection[str]) -> str:
    near = get_close_matches(name, fields, n=1)
    known = f'did you mean "{near[0]}"?' if near else f"known: {', '.join(fields)}"
    return f"FCM has no {name!r} here; {known}"
