"""Durations, sizes, rates and shares as people write them: `30s`, `64KB`, `500/s`, `20%`."""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any, TypeAlias

from pydantic import BeforeValidator, Field, PlainSerializer, WithJsonSchema

_DURATION = re.compile(r"(\d{1,7}(?:\.\d{1,6})?)\s*(ms|s|m|h|d)")
_DURATION_S = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(r"(\d{1,12}(?:\.\d{1,6})?)\s*(B|KB|MB|GB)?", re.IGNORECASE)
_SIZE_BYTES = {"": 1, "B": 1, "KB": 1024, "MB": 1024**2, "GB": 1024**3}
_RATE = re.compile(r"(\d{1,9}(?:\.\d{1,6})?)\s*/\s*(s|m|min|h)")
_SHARE = re.compile(r"(\d{1,3}(?:\.\d{1,6})?)\s*%")
_RATE_S = {"s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0}


def duration(text: Any) -> timedelta:
    """`30s`, `5m`, `2h`, `7d`, `250ms` as a timedelta; a bare 0 is no time. Raises `ValueError`."""
    if isinstance(text, timedelta):
        return text
    if str(text).strip() == "0":
        return timedelta(0)
    match = _DURATION.fullmatch(str(text).strip())
    if match is None:
        raise ValueError("is not a duration; write a number and a unit, like 30s, 5m, 2h or 7d")
    return timedelta(seconds=float(match[1]) * _DURATION_S[match[2]])


def size(text: Any) -> int:
    """`64KB`, `4MB`, `1GB` (1 KB is 1024 bytes), or a plain number of bytes. Raises `ValueError`."""
    match = _SIZE.fullmatch(str(text).strip())
    if match is None or isinstance(text, bool):
        raise ValueError("is not a size; write a number and a unit, like 64KB, 4MB or 1GB")
    return int(float(match[1]) * _SIZE_BYTES[(match[2] or "").upper()])


def rate(text: Any) -> float:
    """`500/s`, `300/min`, `1000/h` as a number per second. Raises `ValueError`."""
    if isinstance(text, float):
        return text
    match = _RATE.fullmatch(str(text).strip())
    if match is None or float(match[1]) == 0:
        raise ValueError("is not a rate; write a number per s, min or h, like 500/s or 300/min")
    return float(match[1]) / _RATE_S[match[2]]


def share(text: Any) -> float:
    """`20%` as a part of one, from 0 to 1. Raises `ValueError`."""
    if isinstance(text, float) and 0 <= text <= 1:
        return text
    match = _SHARE.fullmatch(str(text).strip())
    if match is None or float(match[1]) > 100:
        raise ValueError("is not a share; write a percentage from 0% to 100%, like 20%")
    return float(match[1]) / 100


def format_duration(value: timedelta) -> str:
    """A timedelta as it is written in the file."""
    seconds = value.total_seconds()
    for unit in ("d", "h", "m"):
        if seconds and seconds % _DURATION_S[unit] == 0:
            return f"{int(seconds / _DURATION_S[unit])}{unit}"
    return f"{seconds:g}s"


def format_size(value: int) -> str:
    """A number of bytes as it is written in the file."""
    for unit in ("GB", "MB", "KB"):
        if value and value % _SIZE_BYTES[unit] == 0:
            return f"{value // _SIZE_BYTES[unit]}{unit}"
    return f"{value}B"


def format_share(value: float) -> str:
    """A part of one as it is written in the file."""
    return f"{100 * value:g}%"


def _written(title: str, pattern: str, example: str) -> WithJsonSchema:
    """How editors check it; `title` is what the reference calls it."""
    kinds = ["string", "integer"]
    return WithJsonSchema({"title": title, "type": kinds, "pattern": f"^({pattern})$", "examples": [example]})


Duration: TypeAlias = Annotated[
    timedelta,
    BeforeValidator(duration),
    PlainSerializer(format_duration, when_used="json"),
    _written("duration", f"0|{_DURATION.pattern}", "30s"),
]
Size: TypeAlias = Annotated[
    int,
    BeforeValidator(size),
    Field(gt=0),
    _written("size", r"[\d.]+\s*([kKmMgG]?[bB])?", "64KB"),
]
Share: TypeAlias = Annotated[float, BeforeValidator(share), _written("share", _SHARE.pattern, "20%")]
Rate: TypeAlias = Annotated[float, BeforeValidator(rate), _written("rate", _RATE.pattern, "500/s")]
