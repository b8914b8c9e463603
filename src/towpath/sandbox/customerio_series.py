"""Metrics of the simulated App API by time: the buckets between two times, and what was counted in each."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import TypeAlias

from .customerio_exchange import Call, app_error

HOUR_S, DAY_S = 3600, 86_400
TEN_YEARS_S = 3653 * DAY_S
RESOLUTIONS: Mapping[str, str] = {
    "hours": "hours",
    "hourly": "hours",
    "days": "days",
    "daily": "days",
    "weeks": "weeks",
    "weekly": "weeks",
    "months": "months",
    "monthly": "months",
}
Starts: TypeAlias = Sequence[int]
"""When each bucket begins, and last, when the last one ends; Unix seconds."""


def buckets(call: Call, now: int, days: int) -> Starts:
    """Return the buckets a call asks for by start, end and `res` (or `resolution`), in UTC.

    Without a start as many days are told as there are. Raises `Refusal` for what cannot be.
    """
    named = call.query("res") or call.query("resolution", "days")
    if named not in RESOLUTIONS:
        raise app_error(400, f"res must be one of {', '.join(sorted(RESOLUTIONS))}")
    end = int(call.query("end") or now)
    start = int(call.query("start") or end - (days - 1) * DAY_S)
    if end - start > TEN_YEARS_S:
        raise app_error(400, "end is limited to 10 years from start")
    resolution = RESOLUTIONS[named]
    starts = [_floor(start, resolution)]
    while starts[-1] <= end:
        starts.append(_following(starts[-1], resolution))
    return starts


def counted(daily: Sequence[int], starts: Starts, now: int) -> list[int]:
    """Sum what was counted, a number a day of which the last is today's, in each bucket."""
    today, last = _floor(now, "days"), len(daily) - 1

    def on(day: int) -> int:
        index = last - (today - day) // DAY_S
        return daily[index] if 0 <= index <= last else 0

    return [
        sum(on(day) for day in range(-(-start // DAY_S) * DAY_S, end, DAY_S))
        for start, end in pairwise(starts)
    ]


def _floor(at: int, resolution: str) -> int:
    """When the bucket begins that a time lies in; weeks begin on Mondays."""
    if resolution == "hours":
        return at - at % HOUR_S
    day = datetime.fromtimestamp(at - at % DAY_S, UTC)
    if resolution == "weeks":
        day -= timedelta(days=day.weekday())
    elif resolution == "months":
        day = day.replace(day=1)
    return int(day.timestamp())


def _following(start: int, resolution: str) -> int:
    if resolution == "months":
        return _floor(start + 32 * DAY_S, "months")
    return start + {"hours": HOUR_S, "days": DAY_S, "weeks": 7 * DAY_S}[resolution]
