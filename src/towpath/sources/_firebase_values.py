"""Firestore's typed values: from JSON and protobuf, and as what a person's attribute can hold."""

from __future__ import annotations

import base64
import struct
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any, Final, TypeAlias

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
DEEPEST: Final = 40
"""Nesting above Firestore's own limit of 20 levels."""
NS: Final = 1_000_000_000
LAST_NS: Final = (1 << 63) - 1
MICROSECONDS: Final = len("2026-11-20T10:00:00.123456Z")
"""A time that is longer has nanoseconds, which datetime cuts off."""


class Unreadable(ValueError):
    """No value of Firestore's; says which kind of thing is wrong, never the value."""


class _Dropped:
    """What bytes become: no attribute can hold them."""


DROPPED: Final = _Dropped()


def attribute(value: Any, *, iso: bool = False) -> Any:
    """A typed value (REST v1) as JSON for an attribute, or `DROPPED` (F040). Raises `Unreadable`.

    Timestamps become Unix seconds, with `iso` RFC 3339; geo points `lat,lng`; references the path within
    their database; NaN and infinities null; vectors lists. Bytes are left out, from lists and maps as well.
    """
    try:
        ((kind, held),) = value.items()
        return held if kind == "stringValue" else _KINDS[kind](held, iso)
    except (AttributeError, KeyError, TypeError, ValueError, OverflowError, RecursionError) as error:
        if isinstance(error, Unreadable):
            raise
        raise Unreadable("a value that is no typed value of Firestore") from error


def instant(text: Any) -> int:
    """RFC 3339 as nanoseconds since 1970, so that no two versions look alike. Raises `Unreadable`."""
    try:
        past = datetime.fromisoformat(text) - EPOCH
        whole = (past.days * 86_400 + past.seconds) * NS + past.microseconds * 1000
        if len(text) > MICROSECONDS and text[-1] == "Z":
            whole += int(text[26:-1].ljust(3, "0"))
    except (TypeError, ValueError, OverflowError) as error:
        raise Unreadable("a time that is not RFC 3339") from error
    return whole


def version_time(text: Any) -> int:
    """The same of a version of something: no such time is before 1970 or after 2262. Raises `Unreadable`."""
    found = instant(text)
    if not 0 <= found <= LAST_NS:
        raise Unreadable("a time before 1970 or after 2262")
    return found


def rfc3339(seconds: int, nanos: int = 0) -> str:
    """The text of a protobuf Timestamp, with six or nine digits where it has a fraction."""
    try:
        whole = (EPOCH + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%S").rjust(19, "0")
    except OverflowError as error:
        raise Unreadable("a time outside the years 1 to 9999") from error
    if not nanos:
        return f"{whole}Z"
    return f"{whole}.{nanos:09d}Z" if nanos % 1000 else f"{whole}.{nanos // 1000:06d}Z"


def _timestamp(held: Any, iso: bool) -> int | str:  # noqa: FBT001 - all kinds are called alike
    seconds = instant(held) // NS
    return str(held) if iso else seconds


def _double(held: Any, iso: bool) -> float | int | None:  # noqa: FBT001
    if isinstance(held, str):
        if held not in ("NaN", "Infinity", "-Infinity"):
            raise Unreadable("a double that is no number")
        return None
    number = float(held)
    if number != number or number in (float("inf"), float("-inf")):
        return None
    return int(held) if isinstance(held, int) and not isinstance(held, bool) else number


def _integer(held: Any, iso: bool) -> int:  # noqa: FBT001
    number = int(held)
    if not -LAST_NS - 1 <= number <= LAST_NS:
        raise Unreadable("an integer of more than 64 bits")
    return number


def _boolean(held: Any, iso: bool) -> bool:  # noqa: FBT001
    if not isinstance(held, bool):
        raise Unreadable("a boolean that is none")
    return held


def _point(held: Any, iso: bool) -> str:  # noqa: FBT001
    latitude, longitude = held.get("latitude") or 0.0, held.get("longitude") or 0.0
    return f"{float(latitude):.15g},{float(longitude):.15g}"


def _reference(held: Any, iso: bool) -> str:  # noqa: FBT001
    return str(held).partition("/documents/")[2] or str(held)


def _list(held: Any, iso: bool) -> list[Any]:  # noqa: FBT001
    decoded = (attribute(item, iso=iso) for item in held.get("values") or ())
    return [item for item in decoded if item is not DROPPED]


def _map(held: Any, iso: bool) -> Any:  # noqa: FBT001
    fields = held.get("fields") or {}
    decoded = {name: attribute(item, iso=iso) for name, item in fields.items()}
    if "__type__" in decoded and "value" in decoded:
        return decoded["value"]
    return {name: item for name, item in decoded.items() if item is not DROPPED}


_KINDS: Mapping[str, Callable[[Any, bool], Any]] = {
    "stringValue": lambda held, iso: held,
    "integerValue": _integer,
    "doubleValue": _double,
    "booleanValue": _boolean,
    "nullValue": lambda held, iso: None,
    "timestampValue": _timestamp,
    "geoPointValue": _point,
    "referenceValue": _reference,
    "bytesValue": lambda held, iso: DROPPED,
    "arrayValue": _list,
    "mapValue": _map,
}


Wire: TypeAlias = Iterator[tuple[int, Any]]
"""Fields of a protobuf message as (number, value): int for varints, bytes for the other wire types."""


def wire(data: bytes) -> Wire:
    """Split a protobuf message. Raises `Unreadable`."""
    at, end = 0, len(data)
    while at < end:
        tag, at = _varint(data, at)
        number, kind = tag >> 3, tag & 7
        if kind == 0:
            value, at = _varint(data, at)
            yield number, value
            continue
        if kind == 2:
            size, at = _varint(data, at)
        elif kind in (1, 5):
            size = 8 if kind == 1 else 4
        else:
            raise Unreadable("a protobuf message of an unknown form")
        if at + size > end or not number:
            raise Unreadable("a protobuf message that is cut short")
        yield number, data[at : at + size]
        at += size


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = 0
    for shift in range(0, 70, 7):
        if at >= len(data):
            raise Unreadable("a protobuf message that is cut short")
        byte = data[at]
        value |= (byte & 0x7F) << shift
        at += 1
        if byte < 0x80:
            return value & 0xFFFF_FFFF_FFFF_FFFF, at
    raise Unreadable("a protobuf number that is too long")


def document(data: bytes) -> dict[str, Any]:
    """Firestore's protobuf Document as its typed JSON: name, fields, createTime, updateTime."""
    found: dict[str, Any] = {"name": "", "fields": {}}
    for number, value in wire(data):
        if number == 1:
            found["name"] = _text(value)
        elif number == 2:
            found["fields"].update([_entry(value, 0)])
        elif number in (3, 4):
            found["createTime" if number == 3 else "updateTime"] = _moment(value)
    return found


def _entry(data: bytes, depth: int) -> tuple[str, dict[str, Any]]:
    name, value = "", dict[str, Any]()
    for number, held in wire(_bytes(data)):
        if number == 1:
            name = _text(held)
        elif number == 2:
            value = _value(held, depth)
    return name, value


def _value(data: Any, depth: int) -> dict[str, Any]:
    """The typed JSON of a protobuf Value; the field numbers are those of google.firestore.v1.Value."""
    if depth > DEEPEST:
        raise Unreadable("a value that is nested too deeply")
    found: dict[str, Any] = {}
    for number, held in wire(_bytes(data)):
        if number in (6, 9):
            found = _nested(number, held, depth)
        elif number in _SCALARS:
            kind, read = _SCALARS[number]
            found = {kind: read(held)}
    return found


def _nested(number: int, held: Any, depth: int) -> dict[str, Any]:
    inside = [item for inner, item in wire(_bytes(held)) if inner == 1]
    if number == 6:
        return {"mapValue": {"fields": dict(_entry(item, depth + 1) for item in inside)}}
    return {"arrayValue": {"values": [_value(item, depth + 1) for item in inside]}}


def _signed(value: int) -> int:
    return value - (1 << 64) if value >= 1 << 63 else value


def _moment(data: Any) -> str:
    fields = dict(wire(_bytes(data)))
    return rfc3339(_signed(fields.get(1, 0)), fields.get(2, 0))


def _place(data: Any) -> dict[str, float]:
    sides = {1: "latitude", 2: "longitude"}
    return {sides[number]: _float(held) for number, held in wire(_bytes(data)) if number in sides}


def _float(data: Any) -> float:
    (number,) = struct.unpack("<d", _bytes(data)[:8].ljust(8, b"\0"))
    return float(number)


def _text(data: Any) -> str:
    try:
        return _bytes(data).decode()
    except UnicodeDecodeError as error:
        raise Unreadable("a text that is not UTF-8") from error


def _bytes(data: Any) -> bytes:
    if not isinstance(data, bytes):
        raise Unreadable("a protobuf field of another type")
    return data


_SCALARS: Mapping[int, tuple[str, Callable[[Any], Any]]] = {
    1: ("booleanValue", bool),
    2: ("integerValue", lambda held: str(_signed(held))),
    3: ("doubleValue", _float),
    5: ("referenceValue", _text),
    8: ("geoPointValue", _place),
    10: ("timestampValue", _moment),
    11: ("nullValue", lambda held: None),
    17: ("stringValue", _text),
    18: ("bytesValue", lambda held: base64.b64encode(_bytes(held)).decode()),
}
