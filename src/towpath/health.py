"""Whether a destination is down for everybody: an outage is not an exception (design decision 5)."""

from __future__ import annotations

import asyncio

PROBES_S = (1.0, 2.0, 5.0, 10.0, 30.0, 60.0)
STALL_PERSONS = 5
HEALTHY_S = 60.0


class Health:
    """Counts the persons that failed since the last success; enough of them, and the connection is stalled.

    Times are monotonic seconds. `working` is set while the connection is not stalled; `reason` is what the
    last failure said, until somebody succeeds.
    """

    def __init__(self, stall_persons: int = STALL_PERSONS) -> None:
        self.stall_persons = stall_persons
        self.stalled_at: float | None = None
        self.succeeded_at: float | None = None
        self.recovered_at: float | None = None
        self.reason = ""
        self.working = asyncio.Event()
        self.working.set()
        self._failing: set[str] = set()
        self._probes = 0

    @property
    def stalled(self) -> bool:
        """Whether many persons fail and none succeeds."""
        return self.stalled_at is not None

    def succeeded(self, now: float) -> bool:
        """Count an answer that means the destination works; whether that ends a stall."""
        ended = self.stalled
        if ended:
            self.recovered_at = now
        self.succeeded_at, self.stalled_at, self._probes, self.reason = now, None, 0, ""
        self.working.set()
        self._failing.clear()
        return ended

    def failed(self, person: str, now: float, reason: str = "") -> bool:
        """Count a failure; whether it begins a stall."""
        self._failing.add(person)
        self.reason = reason
        if self.stalled or len(self._failing) < self.stall_persons:
            return False
        self.stalled_at = now
        self.working.clear()
        return True

    def healthy_within(self, span_s: float, now: float) -> bool:
        """Whether no stall just ended, and somebody succeeded in the last `span_s` (at least 60) seconds."""
        if self.stalled or (self.recovered_at is not None and now - self.recovered_at < HEALTHY_S):
            return False
        return self.succeeded_at is not None and now - self.succeeded_at <= max(span_s, HEALTHY_S)

    def stalled_for_s(self, now: float) -> float:
        """How long the stall lasts by now."""
        return 0.0 if self.stalled_at is None else now - self.stalled_at

    def probe_delay_s(self) -> float:
        """Seconds until the next probe of a stalled destination: at most a minute."""
        wait = PROBES_S[min(self._probes, len(PROBES_S) - 1)]
        self._probes += 1
        return wait
