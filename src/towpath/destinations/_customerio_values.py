"""Customer.io's values and limits: identifiers, names, times, dedup ids."""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from hashlib import blake2b
from typing import Any

from towpath.message import Message, parse_time

IDENTIFIER_BYTES = 150
NAME_BYTES = 150
VALUE_BYTES = 1000
EVENT_NAME_BYTES = 100
MOST_ATTRIBUTES = 300
ITEM_BYTES = 32_000
EVENT_DATA_BYTES = 100_000
"""Of an anonymous event, which is no v2 item. All limits: Customer.io's Track OpenAPI document."""
MILLISECONDS_FROM = 1e11  # as seconds that would be the year 5138
_FAR = 1e15
_EARLIEST_S, _LATEST_S = -62_135_596_800, 253_402_300_799  # years 1 and 9999
_is_number = re.compile(r"-?\d{9,}(\.\d+)?").fullmatch
_CROCKFORD = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
_PAIRS = [high + low for high in _CROCKFORD for low in _CROCKFORD]


class Unfit(ValueError):
    """The message can never be sent as it is; says which field and why."""


def bytes_over(text: str, limit: int) -> int:
    """Bytes of a text where they are more than the limit, else 0."""
    if len(text) * 4 <= limit:
        return 0
    size = len(text.encode("utf-8", "replace"))
    return size if size > limit else 0


def person(user_id: str) -> dict[str, str]:
    """Return the one identifier of a userId: an e-mail has an `@`, `cio_` leads a cio_id, all else is an id.

    Raises `Unfit` for one that is longer than Customer.io takes.
    """
    if size := bytes_over(user_id, IDENTIFIER_BYTES):
        raise Unfit(f"the userId has {size} bytes; Customer.io takes {IDENTIFIER_BYTES}")
    if "@" in user_id:
        return {"email": user_id}
    if user_id.startswith("cio_") and len(user_id) > len("cio_"):
        return {"cio_id": user_id.removeprefix("cio_")}
    return {"id": user_id}


def email_of(traits: Mapping[str, Any]) -> str | None:
    """Return the e-mail among traits, None where there is none that could be one."""
    email = traits.get("email")
    if not isinstance(email, str) or "@" not in email:
        return None
    return None if bytes_over(email := email.strip(), IDENTIFIER_BYTES) else email


def fitting_name(name: Any, what: str) -> str:
    """Return the trimmed name of an event. Raises `Unfit`: it is never cut."""
    if not isinstance(name, str) or not (trimmed := name.strip()):
        raise Unfit(f"{what} must be a text that is not empty")
    if size := bytes_over(trimmed, EVENT_NAME_BYTES):
        raise Unfit(f"{what} has {size} bytes; Customer.io takes {EVENT_NAME_BYTES}, and it is not cut")
    return trimmed


def occurred_s(message: Message) -> float:
    """When it happened, in Unix seconds."""
    return message.occurred_at.timestamp()


def event_id(message: Message, at_s: float) -> str:
    """Return the ULID by which Customer.io knows a repeated event, made of the source and the messageId.

    Its time part is when the event happened, so a retry, a replay and a restart make the same one.
    """
    named = f"{message.source}\0{message.message_id}".encode("utf-8", "replace")
    at_ms = min(max(int(at_s * 1000), 0), (1 << 48) - 1)
    number = (at_ms << 80) | int.from_bytes(blake2b(named, digest_size=10).digest(), "big")
    pairs = _PAIRS
    return "".join([pairs[(number >> shift) & 1023] for shift in range(120, -1, -10)])


def unix_seconds(value: Any) -> int | None:
    """Read a time in Unix seconds, milliseconds or ISO 8601 as whole Unix seconds; None when it is none."""
    if isinstance(value, str):
        text = value.strip()
        if not _is_number(text):
            moment = parse_time(text)
            return None if moment is None else math.floor(moment.timestamp())
        value = float(text)
    if isinstance(value, bool) or not isinstance(value, int | float) or not abs(value) < _FAR:
        return None  # NaN as well
    seconds = value / 1000 if abs(value) >= MILLISECONDS_FROM else value
    return math.floor(seconds) if _EARLIEST_S <= seconds <= _LATEST_S else None
