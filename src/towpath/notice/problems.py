"""What FCM would refuse, found before anything is sent: every refused message costs the project's quota."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from ..device import Platform
from . import fields
from .content import PLATFORMS, Content
from .fields import LARGEST_BYTES
from .links import fault_of_filled

BLOCKS: Mapping[Platform, str] = {"ios": "apns", "android": "android", "web": "webpush"}


class Problem(Struct, frozen=True):
    """One thing FCM would refuse: on which platform, in which field, and what is wrong."""

    platform: Platform
    field: str
    what: str

    def __str__(self) -> str:
        return f"{self.platform}: {self.field} {self.what}"


def problems(
    content: Content, platforms: Sequence[Platform] = PLATFORMS, collapse_id: str | None = None
) -> Sequence[Problem]:
    """Everything that keeps a content from being sent to these platforms; nothing, when all is well."""
    tag = content.code if collapse_id is None else collapse_id
    found: list[Problem] = []
    for platform in platforms:
        found += problems_of(content, content.message(platform, tag), platform)
    return found


def problems_of(content: Content, message: Mapping[str, Any], platform: Platform | None) -> Sequence[Problem]:
    """The same for the one message that a content became; of every platform where it is not known."""
    return [
        Problem(each, field, what)
        for each in (PLATFORMS if platform is None else (platform,))
        for field, what in _faults(content, message, each)
    ]


def counted_bytes(message: Mapping[str, Any], platform: Platform) -> int:
    """What FCM's limit of 4,096 bytes is about: keys and values of data, notification and payload.

    Text counts as its UTF-8 bytes without quotes, everything else as its JSON. Headers, options and the
    address are not of the payload. What Apple gets is JSON, which its own limit of 4,096 bytes is about: for
    ios the larger of the two counts. Where a block of the platform repeats something, both are counted.
    Source: ErrorCode INVALID_ARGUMENT names 4,096 bytes; how exactly FCM counts is not published.
    """
    block = message.get(BLOCKS[platform], {})
    data = {**message.get("data", {}), **_object(block.get("data"))}
    notification, shown = message.get("notification", {}), block.get("notification", {})
    payload = block.get("payload", {})
    size = _weight(data) + _weight(notification) + _weight(shown) + _weight(payload)
    return max(size, _size_for_apple(message)) if platform == "ios" else size


def _size_for_apple(message: Mapping[str, Any]) -> int:
    """Bytes of the payload as FCM makes it for APNs: the data beside `aps`, the notification as its alert."""
    payload = {**message.get("data", {}), **_object(message.get("apns", {}).get("payload"))}
    alert = {name: text for name, text in message.get("notification", {}).items() if name != "image"}
    if alert:
        payload["aps"] = {"alert": alert, **_object(payload.get("aps"))}
    return len(msgspec.json.encode(payload))


def _object(value: Any) -> Mapping[str, Any]:
    """An object; what is none, and therefore wrong, is told elsewhere."""
    return value if isinstance(value, dict) else {}


def _faults(content: Content, message: Mapping[str, Any], platform: Platform) -> Iterator[fields.Fault]:
    yield from fields.faults(message, fields.MESSAGE)
    if content.link and (fault := fault_of_filled(content.link)):
        yield "link", fault
    if platform == "ios":
        yield from _refused_by_apple(message)
    if not content.silent and not _shows(message, platform):
        yield "title", "and the body are empty: there is nothing to show"
    size = counted_bytes(message, platform)
    if size > LARGEST_BYTES:
        yield "message", f"has {size:,} bytes of text and data; FCM takes {LARGEST_BYTES:,}"


def _refused_by_apple(message: Mapping[str, Any]) -> Iterator[fields.Fault]:
    apns = message.get("apns", {})
    headers, aps = _object(apns.get("headers")), _object(_object(apns.get("payload")).get("aps"))
    if "aps" in message.get("data", {}):
        yield "data", "cannot have the key 'aps': Apple's own fields are there"
    hidden = "notification" not in message and not {"alert", "badge", "sound"} & aps.keys()
    if hidden and aps.get("content-available"):
        given = {name.lower(): value for name, value in headers.items()}
        if given.get("apns-priority") != "5":
            yield "apns.headers", 'needs apns-priority "5" where nothing is shown'


def _shows(message: Mapping[str, Any], platform: Platform) -> bool:
    """Whether a notification has a title or a body, in FCM's own fields or the platform's."""
    block = message.get(BLOCKS[platform], {})
    places = [_object(message.get("notification")), _object(block.get("notification"))]
    places.append({"title": _object(_object(block.get("payload")).get("aps")).get("alert")})
    words = ("title", "body", "title_loc_key", "body_loc_key")
    return any(place.get(word) for place in places for word in words)


def _weight(value: Any) -> int:
    if isinstance(value, str):
        return len(value) if value.isascii() else len(value.encode("utf-8", "replace"))
    if isinstance(value, Mapping):
        return sum(_weight(name) + _weight(each) for name, each in value.items())
    if isinstance(value, list | tuple):
        return sum(map(_weight, value))
    return len(msgspec.json.encode(value))
