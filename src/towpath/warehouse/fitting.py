"""Whether a JSON value fits a column, in any of the forms that sensibly mean the same; text of a value."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime
from typing import Any

import msgspec

from .table import Kind

LEAST_INTEGER, MOST_INTEGER = -(2**63), 2**63 - 1
LONGEST_NUMBER = 400  # characters; what is longer is no number anybody meant
EARLIEST, LATEST = -62_135_596_800.0, 253_402_300_800.0  # the years 1 to 9999
MILLISECONDS = 1e11  # Unix seconds of the year 5138: above it a time is counted in smaller units
YES = frozenset({"true", "t", "yes", "1"})
NO = frozenset({"false", "f", "no", "0"})

_encode = msgspec.json.Encoder().encode


class Misfit(Exception):
    """A value that does not fit its column; says what it is."""


def fit(kind: Kind, value: Any) -> Any:
    """Bring a value, not null, to the form of its column. Raises `Misfit`.

    Texts, integers, floats and booleans are themselves, a `time` is Unix seconds, a `date` a date, `json` its
    JSON as bytes.
    """
    return FORMS[kind](value)


def named(value: Any) -> str:
    """What JSON calls this value."""
    match value:
        case None:
            return "null"
        case bool():
            return "boolean"
        case int():
            return "integer"
        case float():
            return "number"
        case str():
            return "text"
        case list():
            return "list"
        case _:
            return "object"


def spelt(value: Any) -> str:
    """A value as text: a text is itself, anything else its compact JSON."""
    return value if isinstance(value, str) else _encode(_whole(value)).decode()


def _whole(value: Any) -> Any:
    """12.0 as 12: JSON knows one kind of number, and who wrote it chose no form."""
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 1e15 else value


def _text(value: Any) -> str:
    if isinstance(value, dict | list):
        raise Misfit(named(value))
    return spelt(value)


def _integer(value: Any) -> int:
    number = value if isinstance(value, int) and not isinstance(value, bool) else _number_of(value, int)
    if isinstance(number, float):
        if not number.is_integer():
            raise Misfit("number")
        number = int(number)
    if not LEAST_INTEGER <= number <= MOST_INTEGER:
        raise Misfit("integer out of range")
    return int(number)


def _number(value: Any) -> float:
    number = float(_number_of(value, float))
    if not math.isfinite(number):
        raise Misfit("number out of range")
    return number


def _number_of(value: Any, read: Callable[[str], int | float]) -> int | float:
    """The number that a value is or spells. A huge integer that no float can hold is out of range."""
    if isinstance(value, str) and len(value) <= LONGEST_NUMBER and value.isascii() and "_" not in value:
        try:
            return read(value)
        except ValueError:
            raise Misfit("text") from None
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Misfit(named(value))
    if isinstance(value, int) and abs(value) > 10**308:
        raise Misfit("number out of range")
    return value


def _boolean(value: Any) -> bool:
    if isinstance(value, bool):
        return value
    if isinstance(value, str) and (word := value.strip().lower()) in YES | NO:
        return word in YES
    if isinstance(value, int | float) and value in (0, 1):
        return bool(value)
    raise Misfit(named(value))


def _time(value: Any) -> float:
    if isinstance(value, str):
        return _moment(value)
    return seconds(_number(value))


def seconds(at: float) -> float:
    """Unix seconds of a time in seconds or in a smaller unit, told by its size. Raises `Misfit`."""
    if not math.isfinite(at):
        raise Misfit("time out of range")
    scaled = at
    for _ in range(3):  # milli, micro, nano
        if abs(scaled) <= MILLISECONDS:
            return scaled
        scaled /= 1000
    if abs(scaled) > MILLISECONDS:
        raise Misfit("time out of range")
    return scaled


def _moment(text: str) -> float:
    try:
        found = datetime.fromisoformat(text.strip())
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).timestamp()
    except (ValueError, OverflowError):
        pass
    try:
        return seconds(_number(text))
    except Misfit:
        raise Misfit("text") from None


def _date(value: Any) -> date:
    if isinstance(value, str):
        try:
            return datetime.fromisoformat(value.strip()).date()
        except ValueError:
            raise Misfit("text") from None
    return datetime.fromtimestamp(_time(value), UTC).date()


def _json(value: Any) -> bytes:
    return bytes(value) if isinstance(value, msgspec.Raw) else _encode(value)


FORMS: Mapping[Kind, Callable[[Any], Any]] = {
    "text": _text,
    "integer": _integer,
    "number": _number,
    "boolean": _boolean,
    "time": _time,
    "date": _date,
    "json": _json,
}
