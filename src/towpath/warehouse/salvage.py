"""Records out of JSON that is not quite JSON: NaN, lone surrogates, bytes that are no UTF-8, depth."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator
from typing import Any

import msgspec
from msgspec import Raw

_TOKEN = re.compile(rb'"(?:\\.|[^"\\])*"|[\[\]{},]', re.DOTALL)
_records = msgspec.json.Decoder(list[Raw]).decode
_fields = msgspec.json.Decoder(dict[str, Raw]).decode
_anything = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class Unreadable(Exception):
    """A record that cannot be read at all; says why."""


def split(array: bytes) -> list[bytes]:
    """The records of a JSON array as they came, whatever they hold. No array at all is one record."""
    try:
        return [bytes(raw) for raw in _records(array)]
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return list(_cut(array))


def _cut(array: bytes) -> Iterator[bytes]:
    """Cut at the commas that stand in the outer array itself."""
    if not array.lstrip().startswith(b"["):
        yield array
        return
    depth, begun = 0, -1
    for token in _TOKEN.finditer(array):
        sign = token.group()
        depth += (sign in b"[{") - (sign in b"]}")
        if depth == 1 and begun < 0:
            begun = token.end()
        elif (depth == 1 and sign == b",") or (depth == 0 and begun >= 0):
            yield array[begun : token.start()].strip()
            begun = token.end()
            if depth == 0:
                return
    yield array[max(begun, 0) :].strip()


def fields(record: bytes) -> dict[str, Raw]:
    """The keys of a record, each with the JSON of its value. Raises `Unreadable`."""
    try:
        found = _fields(record)
    except msgspec.ValidationError:
        raise Unreadable("a record is no JSON object") from None
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return _mended(record)
    return found


def value(raw: Raw) -> Any:
    """The value of a piece of JSON; a part that is not quite JSON is mended."""
    try:
        return _anything(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError):
        return _mend(_loaded(bytes(raw)))


def sound(raw: Raw) -> Raw:
    """The same JSON, mended where a target could not take it."""
    try:
        _anything(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, ValueError):
        return Raw(_encode(_mend(_loaded(bytes(raw)))))
    return raw


def _mended(record: bytes) -> dict[str, Raw]:
    found = _loaded(record)
    if not isinstance(found, dict):
        raise Unreadable("a record is no JSON object")
    try:
        return {_mend(key): Raw(_encode(_mend(each))) for key, each in found.items()}
    except RecursionError:
        raise Unreadable("it is nested too deeply") from None


def _loaded(record: bytes) -> Any:
    try:
        return json.loads(
            record.decode(errors="replace"), parse_float=_number, parse_constant=lambda word: word
        )
    except RecursionError:
        raise Unreadable("it is nested too deeply") from None
    except ValueError:
        raise Unreadable("it is not JSON") from None


def _number(text: str) -> float | str:
    """A number, or its text where no float is as large."""
    number = float(text)
    return number if math.isfinite(number) else text


def _mend(found: Any) -> Any:
    """A value that JSON can hold: what it cannot stands there as text one can see."""
    match found:
        case dict():
            return {_mend(key): _mend(each) for key, each in found.items()}
        case list():
            return [_mend(each) for each in found]
        case str():
            return found.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        case _:
            return found
