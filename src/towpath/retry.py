"""When a failed delivery is tried again, and when it dies (D06, P7)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

from msgspec import Struct

SCHEDULE_S = (5, 30, 120, 600, 1800, 3600, 7200, 18000, 36000, 50400, 72000, 86400)
SHORT_SCHEDULE_S = (5, 30, 120, 600, 1800, 2700, 3600, 3600, 5400)


class Attempts(Struct, frozen=True):
    """What has been tried of one delivery: how often, since when, and whether it follows a dead one.

    `alone` counts the failures with 5xx while the destination was healthy for others.
    """

    count: int
    first_at: float
    received_at: float
    alone: int = 0
    follower: bool = False


class RetryPolicy(Struct, frozen=True, dict=True):
    """A schedule in seconds between attempts; jitter adds 0…`jitter` of each wait."""

    schedule_s: Sequence[float] = SCHEDULE_S
    short_schedule_s: Sequence[float] = SHORT_SCHEDULE_S
    jitter: float = 0.2

    @cached_property
    def lasts_s(self) -> float:
        """How long a delivery is retried before it dies: 76 hours by default."""
        return float(sum(self.schedule_s))

    def wait_s(self, attempts: int) -> float:
        """The longest wait before attempt number `attempts` + 1."""
        if attempts < 1 or not self.schedule_s:
            return 0.0
        return self.schedule_s[min(attempts, len(self.schedule_s)) - 1] * (1.0 + self.jitter)

    def delay_s(self, tried: Attempts, now: float, *, alone: bool, chance: float) -> float | None:
        """Seconds until the next attempt, or None when this was the last one. `chance` is in [0, 1)."""
        if self._spent(tried, now, alone=alone):
            return None
        schedule, step = (self.short_schedule_s, tried.alone) if alone else (self.schedule_s, tried.count)
        if not schedule:
            return None
        wait = schedule[min(max(step, 1), len(schedule)) - 1]
        return wait * (1.0 + self.jitter * chance)

    def _spent(self, tried: Attempts, now: float, *, alone: bool) -> bool:
        if alone and tried.alone > len(self.short_schedule_s):
            return True
        if tried.follower and now - tried.received_at >= self.lasts_s:
            return True
        # A second less: the waits between the attempts add up to the same only within a float's precision.
        return tried.count > len(self.schedule_s) and now - tried.first_at >= self.lasts_s - 1.0
