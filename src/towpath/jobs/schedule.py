"""When a job runs by itself: by cron in a time zone, or every so often; each with some jitter."""

from __future__ import annotations

import math
from datetime import UTC, datetime, tzinfo
from zoneinfo import ZoneInfo

from cronsim import CronSim, CronSimError
from msgspec import Struct

from ..errors import TowpathError

BAD_SCHEDULE = "E5204"
CRON_FIELDS = 5
SHORTEST_S = 1.0
_UNITS_S = (("d", 86400.0), ("h", 3600.0), ("m", 60.0), ("s", 1.0))


class Schedule(Struct, frozen=True):
    """Either `cron` (five fields, read in `timezone`) or `every_s`; `jitter_s` delays each time by 0…that.

    Where clocks change, cron does as Debian's: a time that is skipped runs right after the gap, one that
    comes twice runs once, and `*` in minute or hour means every one that passes. Raises `TowpathError` E5204.
    """

    cron: str = ""
    every_s: float = 0.0
    timezone: str = "UTC"
    jitter_s: float = 0.0

    def __post_init__(self) -> None:
        if bool(self.cron) == bool(self.every_s):
            raise _bad("a schedule is either cron or every", "give one of the two")
        if not 0 <= self.jitter_s < math.inf:
            raise _bad("jitter must be zero or more", "leave it out, or write a duration like 30s")
        if self.cron:
            self.after(0.0, 0.0)
        elif not SHORTEST_S <= self.every_s < math.inf:
            raise _bad("every must be a second or more", "write a duration like 15m")
        elif self.jitter_s >= self.every_s:
            raise _bad("jitter must be shorter than every", f"write less than {_spelled(self.every_s)}")

    def after(self, at: float, anchor: float) -> float:
        """The first planned time after `at`, without jitter; `every` counts from `anchor` (Unix seconds)."""
        if self.cron:
            return self._cron_after(at)
        steps = math.floor((at - anchor) / self.every_s) + 1
        planned = anchor + steps * self.every_s
        return planned if planned > at else planned + self.every_s

    def _cron_after(self, at: float) -> float:
        zone = _zone(self.timezone)
        if len(self.cron.split()) != CRON_FIELDS:
            raise _bad(f"{self.cron!r} is not a cron expression", "write five fields, like 17 3 * * *")
        try:
            # In an hour that comes twice, the next wall time may lie before `at`.
            times = CronSim(self.cron, datetime.fromtimestamp(at, zone))
            return next(stamp for stamp in (time.timestamp() for time in times) if stamp > at)
        except CronSimError as error:
            fix = "write minute, hour, day, month, weekday, like 17 3 * * *"
            raise _bad(f"{self.cron!r} is not a cron expression: {error}", fix) from None
        except (StopIteration, OverflowError, ValueError):
            raise _bad(f"{self.cron!r} never comes", "name a day that exists") from None

    @property
    def text(self) -> str:
        """As people write it."""
        when = f"{self.cron} {self.timezone}" if self.cron else f"every {_spelled(self.every_s)}"
        return f"{when}, jitter {_spelled(self.jitter_s)}" if self.jitter_s else when


def _zone(name: str) -> tzinfo:
    if name == "UTC":
        return UTC  # needs no time zone files
    try:
        return ZoneInfo(name)
    except (OSError, ValueError, KeyError):
        fix = "write one like Europe/Berlin; if it is one, install the system's tzdata"
        raise _bad(f"there is no time zone {name!r}", fix) from None


def _spelled(seconds: float) -> str:
    unit, size = next((unit, size) for unit, size in _UNITS_S if seconds % size == 0 or unit == "s")
    return f"{seconds / size:g}{unit}"


def _bad(title: str, fix: str) -> TowpathError:
    return TowpathError(title, code=BAD_SCHEDULE, fix=fix, data="No schedule was changed.")
