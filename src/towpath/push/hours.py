"""When a push may reach a device: its own time of day, local sending, quiet hours."""

from __future__ import annotations

from datetime import UTC, datetime, time, timedelta, tzinfo
from functools import lru_cache
from zoneinfo import ZoneInfo

from msgspec import Struct

EARLIEST_ZONE_S = 14 * 3600.0
"""The first place on earth has a local time this many seconds before UTC does (UTC+14)."""


class Quiet(Struct, frozen=True):
    """A part of the day, `begins` to `ends`, over midnight where it ends earlier than it begins."""

    begins: time
    ends: time

    def holds(self, moment: time) -> bool:
        """Whether a time of day is in it; its end is not."""
        if self.begins <= self.ends:
            return self.begins <= moment < self.ends
        return moment >= self.begins or moment < self.ends


@lru_cache(1024)
def zone(name: str | None, otherwise: str = "UTC") -> tzinfo:
    """The time zone that a device tells, like `Europe/Vienna`; another's where it tells none that exists."""
    for candidate in (name, otherwise):
        if candidate:
            try:
                return ZoneInfo(candidate)
            except (KeyError, ValueError, OSError):  # no such zone, a bad key, a directory
                continue
    return UTC


def local_moment(wall: datetime, place: tzinfo) -> float:
    """When a wall clock in `place` shows `wall` (naive), in Unix seconds.

    A time that a change to summer time leaves out comes as much later; one that is there twice, the first.
    """
    return wall.replace(tzinfo=place, fold=0).timestamp()


def end_of_quiet(now: float, place: tzinfo, quiet: Quiet | None) -> float | None:
    """When the quiet hours in force at `now` in `place` are over, in Unix seconds; None outside of them."""
    if quiet is None:
        return None
    local = datetime.fromtimestamp(now, place)
    if not quiet.holds(local.time()):
        return None
    # `local` keeps its fold: in an hour that is there twice, the end is in the same of the two.
    ending = local.replace(
        hour=quiet.ends.hour, minute=quiet.ends.minute, second=quiet.ends.second, microsecond=0
    )
    if ending <= local:
        ending = (ending.replace(tzinfo=None) + timedelta(days=1)).replace(tzinfo=place)
    return max(ending.timestamp(), now)
