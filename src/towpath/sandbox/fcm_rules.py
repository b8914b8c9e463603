"""The rules of FCM that its schema does not say: targets, sizes, keys, times, labels, headers."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal, TypeAlias

import msgspec

from .fcm_errors import bad_condition, invalid, too_large
from .fcm_schema import TARGETS

Platform: TypeAlias = Literal["android", "ios", "web"]
Message: TypeAlias = Mapping[str, Any]

PAYLOAD_LIMIT_BYTES = 4096
TOPIC_LIMIT_BYTES = 2048
TTL_LIMIT_S = 2_419_200
COLLAPSE_ID_LIMIT_BYTES = 64
CONDITION_TOPICS_LIMIT = 5
ADDRESSES = frozenset({"fid", "token"})
"""The targets that are one device."""

_LABEL = re.compile(r"[a-zA-Z0-9\-_.~%]{1,50}")
_TOPIC = re.compile(r"[a-zA-Z0-9\-_.~%]{1,900}")
_COLOR = re.compile(r"#[0-9a-fA-F]{6}")
_OPERAND = r"(?:'[a-zA-Z0-9\-_.~%]+' in topics)"
_IN_TOPICS = re.compile(_OPERAND)
_RESERVED = frozenset({"from", "message_type"})
_RESERVED_PREFIXES = ("google.", "gcm.notification")
_APNS_PRIORITIES = frozenset({"1", "5", "10"})
_WEB_URGENCIES = frozenset({"very-low", "low", "normal", "high"})
_NOTHING: Mapping[str, Any] = {}


def target(message: Message) -> tuple[str, str]:
    """Return the kind and value of the target. Raises `Refusal` where there is none."""
    for kind in TARGETS:
        if message.get(kind):
            return kind, message[kind]
    raise invalid("message", "Recipient of the message is not set.")


def check(message: Message, kind: str, value: str, platform: Platform | None, size: int) -> None:
    """Check a message for its target, on its platform (None: any), `size` bytes of JSON. Raises `Refusal`."""
    if kind == "topic" and not _TOPIC.fullmatch(value):
        raise invalid("message", "Topic name contains invalid characters.")
    if kind == "condition":
        _check_condition(value)
    _check_data(message, "message")
    _check_label(message, "message")
    if (android := message.get("android")) is not None:
        _check_android(android)
    if (apns := message.get("apns")) is not None:
        _check_apns(apns, message)
    if (webpush := message.get("webpush")) is not None:
        _check_webpush(webpush)
    limit = PAYLOAD_LIMIT_BYTES if kind in ADDRESSES else TOPIC_LIMIT_BYTES
    # A payload is never larger than the JSON that it came in, and that is quicker to know.
    if size > limit and payload_size(message, platform) > limit:
        raise too_large(limit)


def payload_size(message: Message, platform: Platform | None) -> int:
    """Return the bytes that count for a platform; of the largest where it is not known."""
    sizes = {"android": _android_size, "ios": _apns_size, "web": _webpush_size}
    if platform is not None:
        return sizes[platform](message)
    return max(measure(message) for measure in sizes.values())


def _check_condition(condition: str) -> None:
    """Check the form `'a' in topics && ('b' in topics || !('c' in topics))`, five topics at most."""
    count = len(_IN_TOPICS.findall(condition))
    rest = _IN_TOPICS.sub("1", condition)
    well_formed = re.fullmatch(r"[1()!&| ]+", rest) and _balanced(rest) and not re.search(r"1\s*1", rest)
    if not well_formed or not 1 <= count <= CONDITION_TOPICS_LIMIT:
        raise bad_condition()


def _balanced(text: str) -> bool:
    depth = 0
    for sign in text:
        depth += {"(": 1, ")": -1}.get(sign, 0)
        if depth < 0:
            return False
    return depth == 0


def _check_data(part: Message, path: str) -> None:
    for key in part.get("data", _NOTHING):
        if key in _RESERVED or key.startswith(_RESERVED_PREFIXES):
            raise invalid(f"{path}.data", f"Invalid data payload key: {key}")


def _check_label(part: Message, path: str) -> None:
    label = part.get("fcm_options", _NOTHING).get("analytics_label", "")
    if label and not _LABEL.fullmatch(label):
        raise invalid(f"{path}.fcm_options.analytics_label", "Invalid analytics label.")


def _check_android(android: Message) -> None:
    _check_data(android, "message.android")
    _check_label(android, "message.android")
    ttl = android.get("ttl")
    if ttl is not None and not 0 <= ttl <= TTL_LIMIT_S:
        said = f"Invalid ttl: it must be between 0 and {TTL_LIMIT_S} seconds."
        raise invalid("message.android.ttl", said)
    color = android.get("notification", _NOTHING).get("color", "")
    if color and not _COLOR.fullmatch(color):
        raise invalid("message.android.notification.color", "Invalid color: it must be in the form #RRGGBB.")


def _check_apns(apns: Message, message: Message) -> None:
    _check_label(apns, "message.apns")
    headers = {name.lower(): value for name, value in apns.get("headers", _NOTHING).items()}
    priority = headers.get("apns-priority", "")
    if priority and priority not in _APNS_PRIORITIES:
        raise invalid("message.apns.headers", f"Invalid apns-priority: {priority}")
    expiration = headers.get("apns-expiration", "0")
    if not (expiration.isascii() and expiration.isdecimal()):
        raise invalid("message.apns.headers", f"Invalid apns-expiration: {expiration}")
    if len(headers.get("apns-collapse-id", "").encode()) > COLLAPSE_ID_LIMIT_BYTES:
        raise invalid("message.apns.headers", "Invalid apns-collapse-id: at most 64 bytes.")
    aps = apns.get("payload", _NOTHING).get("aps", _NOTHING)
    if not isinstance(aps, dict):
        raise invalid("message.apns.payload", "Invalid APNs payload: aps must be an object.")
    if priority == "10" and _is_silent(aps, message):
        raise invalid("message.apns.headers", "Invalid apns-priority: a background push needs 5.")


def _is_silent(aps: Message, message: Message) -> bool:
    """Tell whether there is nothing to show, play or count (Apple: such pushes must not have priority 10)."""
    shown = message.get("notification") or any(
        aps.get(name) is not None for name in ("alert", "sound", "badge")
    )
    return bool(aps.get("content-available")) and not shown


def _check_webpush(webpush: Message) -> None:
    _check_data(webpush, "message.webpush")
    _check_label(webpush, "message.webpush")
    headers = {name.lower(): (name, value) for name, value in webpush.get("headers", _NOTHING).items()}
    name, ttl = headers.get("ttl", ("TTL", "0"))
    if not (ttl.isascii() and ttl.isdecimal()):
        raise invalid(f"message.webpush.headers.{name}", "TTL must be a non-negative integer.")
    name, urgency = headers.get("urgency", ("Urgency", "normal"))
    if urgency not in _WEB_URGENCIES:
        raise invalid(f"message.webpush.headers.{name}", f"Invalid urgency: {urgency}")
    link = webpush.get("fcm_options", _NOTHING).get("link", "")
    if link and not link.startswith("https://"):
        raise invalid("message.webpush.fcm_options.link", "Invalid link: it must be an HTTPS URL.")


# -- sizes ---------------------------------------------------------------------------------------------


def _android_size(message: Message) -> int:
    """Keys and values of the data, and of the notification as Android gets it."""
    android = message.get("android", _NOTHING)
    notification = {**message.get("notification", _NOTHING), **android.get("notification", _NOTHING)}
    data = android.get("data") or message.get("data", _NOTHING)
    return _weight(data) + _weight(notification)


def _apns_size(message: Message) -> int:
    """Size of the JSON for APNs: the payload, the notification as its alert, the data as custom keys."""
    payload = {**message.get("data", _NOTHING), **message.get("apns", _NOTHING).get("payload", _NOTHING)}
    notification = {
        name: value for name, value in message.get("notification", _NOTHING).items() if name != "image"
    }
    if notification:
        payload["aps"] = {"alert": notification, **payload.get("aps", {})}
    return len(msgspec.json.encode(payload))


def _webpush_size(message: Message) -> int:
    webpush = message.get("webpush", _NOTHING)
    notification = {**message.get("notification", _NOTHING), **webpush.get("notification", _NOTHING)}
    return _weight({**message.get("data", _NOTHING), **webpush.get("data", _NOTHING)}) + _weight(notification)


def _weight(fields: Mapping[str, Any]) -> int:
    return sum(len(key.encode()) + _length(value) for key, value in fields.items())


def _length(value: Any) -> int:
    return len(value.encode()) if isinstance(value, str) else len(msgspec.json.encode(value))
