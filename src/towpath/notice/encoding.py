"""Bodies of requests to FCM: encoded once, with only the address put in for each device."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from ..device import Address, Platform
from .content import PLATFORMS, Content
from .problems import Problem, counted_bytes, problems_of

_encode = msgspec.json.Encoder().encode


class Encoded(Struct, frozen=True):
    """A body but for the address: `before` has, by the address's kind, the bytes up to it."""

    before: Mapping[str, bytes]
    after: bytes

    def body(self, address: Address) -> bytes:
        """The body for one device."""
        return self.before[address.kind] + _encode(address.value) + self.after


class Preview(Struct, frozen=True):
    """What one platform's devices get: the request, the bytes that FCM counts, what it would refuse."""

    platform: Platform
    json: dict[str, Any]
    size_bytes: int
    problems: Sequence[Problem] = ()


def encoded(message: Mapping[str, Any], *, validate_only: bool = False) -> Encoded:
    """Encode a message for any number of devices; `validate_only` has FCM check it and send nothing."""
    start = b'{"validate_only":true,"message":{' if validate_only else b'{"message":{'
    rest = _encode(message)
    after = b"}}" if rest == b"{}" else b"," + rest[1:] + b"}"
    return Encoded({"token": start + b'"token":', "fid": start + b'"fid":'}, after)


def preview(
    content: Content,
    *,
    device: str = "<each device>",
    collapse_id: str | None = None,
    now: float = 0.0,
    platforms: Sequence[Platform] = PLATFORMS,
) -> Sequence[Preview]:
    """What each platform's devices would get; `device` stands in place of the address."""
    tag = content.code if collapse_id is None else collapse_id
    found = list[Preview]()
    for platform in platforms:
        message = content.message(platform, tag, now)
        wrong = problems_of(content, message, platform)
        body = {"message": {"token": device, **message}}
        found.append(Preview(platform, body, counted_bytes(message, platform), wrong))
    return found
