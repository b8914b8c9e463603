"""Pace: how fast a Firebase project may send, and when what was refused may be sent again."""

from __future__ import annotations

import asyncio
from collections import deque
from typing import TYPE_CHECKING

from ..http import Stopping

if TYPE_CHECKING:
    from ..clock import Clock

RATE_PER_S = 10_000.0
"""FCM's default quota, 600,000 messages a minute and project. Source: "Throttling and quotas"."""
HEADROOM = 0.1
RAMP_S = 60.0
"""From nothing to full speed. Source: "Best practices when sending FCM messages at scale", as all below."""
THROTTLED_S = 60.0
"""How long a 429 without Retry-After pauses a project."""
SHORTEST_PAUSE_S = 1.0
FIRST_RETRY_S = 10.0
LONGEST_RETRY_S = 600.0
RETRY_JITTER = 0.5
QUARTER_S = 900.0
AROUND_QUARTER_S = 120.0

LOWEST_PER_S = 10.0
BATCH_S = 0.01
BURST_S = 0.1
IDLE_S = 5.0
STEP_S = 1.0


def quarter_hour(now: float) -> float:
    """Seconds until the two minutes around :00, :15, :30 and :45 are over; 0 outside of them.

    `now` is Unix seconds. FCM's traffic doubles then: what can wait should.
    """
    into_s = (now + AROUND_QUARTER_S) % QUARTER_S
    return max(0.0, 2 * AROUND_QUARTER_S - into_s)


def retry_s(attempt: int, chance: float) -> float:
    """Seconds from failed attempt number `attempt` to the next: 10 to 15, doubling. `chance` is in [0, 1]."""
    doublings = min(max(attempt, 1) - 1, 10)
    return min(FIRST_RETRY_S * 2.0**doublings, LONGEST_RETRY_S) * (1.0 + RETRY_JITTER * chance)


class Pace:
    """Places to send for one project: first come, first served, evenly, at most `rate_per_s`.

    What is urgent, as a push that an event asked for, goes before what is not, as a campaign's thousands.

    A token bucket that holds a tenth of a second, so nothing is front-loaded. Speed follows demand: while
    somebody waits it rises, from nothing to all in `ramp_s`; while nobody does for over 5 s, or FCM has
    paused the project, it falls as it rose. It never falls below a 60th of `rate_per_s`, or 10 a second
    where that is more; with a `ramp_s` of 0, never at all. Waiting costs one timer for all, which serves in
    batches of 10 ms.
    """

    def __init__(self, clock: Clock, rate_per_s: float, *, ramp_s: float = RAMP_S) -> None:
        if rate_per_s <= 0:
            raise ValueError(f"a pace needs a positive rate per second, not {rate_per_s:g}")
        self.clock = clock
        self.rate_per_s = rate_per_s
        self._rise = rate_per_s / ramp_s if ramp_s > 0 else 0.0
        lowest = max(rate_per_s / RAMP_S, LOWEST_PER_S) if ramp_s > 0 else rate_per_s
        self._level = self._lowest = min(rate_per_s, lowest)
        self._tokens = 1.0
        self._blocked_until = 0.0
        self._closed = False
        self._filled_at = self._wanted_at = clock.monotonic()
        self._urgent: deque[asyncio.Future[None]] = deque()
        self._patient: deque[asyncio.Future[None]] = deque()
        self._serving: asyncio.Task[None] | None = None

    @property
    def level_per_s(self) -> float:
        """The speed at this moment."""
        self._fill()
        return self._level

    @property
    def paused_s(self) -> float:
        """Seconds until the project sends again after a 429; 0 when it does."""
        return max(0.0, self._blocked_until - self.clock.monotonic())

    async def admit(self, *, urgent: bool = False) -> None:
        """Wait for a place. Cancelling takes none. Raises `Stopping` once closed."""
        if self._closed:
            raise Stopping
        self._fill()
        waiting = self._urgent if urgent else self._patient
        if not self._urgent and (urgent or not self._patient) and self._open:
            self._tokens -= 1.0
            return
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        waiting.append(place)
        if self._serving is None:
            self._serving = asyncio.create_task(self._serve())
        try:
            await place
        except asyncio.CancelledError:
            if not place.cancelled():
                self._tokens += 1.0
            raise

    def pause(self, seconds: float) -> None:
        """Let nobody pass for so long: FCM said that it is too much (429)."""
        self._fill()
        until = self.clock.monotonic() + max(seconds, SHORTEST_PAUSE_S)
        self._blocked_until = max(self._blocked_until, until)

    def lift(self) -> None:
        """Forget a pause: somebody says it works again."""
        self._fill()
        self._blocked_until = 0.0

    async def close(self) -> None:
        """Send everybody away who waits, with `Stopping`."""
        self._closed = True
        serving, self._serving = self._serving, None
        if serving is not None:
            serving.cancel()
            await asyncio.gather(serving, return_exceptions=True)
        while self._waiting:
            place = self._next()
            if not place.done():
                place.set_exception(Stopping())

    async def _serve(self) -> None:
        """Let those pass who wait, until nobody does."""
        while self._waiting:
            self._fill()
            while self._waiting and self._open:
                place = self._next()
                if not place.done():
                    place.set_result(None)
                    self._tokens -= 1.0
            if self._waiting:
                await self.clock.sleep(self._next_s())
        self._serving = None

    @property
    def _waiting(self) -> int:
        return len(self._urgent) + len(self._patient)

    def _next(self) -> asyncio.Future[None]:
        return (self._urgent or self._patient).popleft()

    def _next_s(self) -> float:
        """Seconds until those who wait can go on, or a batch of them can; pauses are looked at in steps."""
        if (paused_s := self.paused_s) > 0:
            return min(paused_s, STEP_S)
        wanted = min(self._waiting, max(1.0, self._level * BATCH_S))
        # A microsecond more, so that no rounding error leads to a sleep too short to move the clock.
        return max(0.0, wanted - self._tokens) / self._level + 1e-6

    @property
    def _open(self) -> bool:
        return self._tokens >= 1.0 and self.paused_s == 0

    def _fill(self) -> None:
        """Bring speed and tokens up to now."""
        now, since = self.clock.monotonic(), self._filled_at
        passed_s, self._filled_at = now - since, now
        if self._blocked_until > since:
            self._fall(passed_s)
            return
        if self._waiting:
            self._wanted_at = now
            before, self._level = self._level, min(self.rate_per_s, self._level + self._rise * passed_s)
            flow = (before + self._level) / 2 * passed_s
        else:
            self._fall(now - max(since, self._wanted_at + IDLE_S))
            flow = self._level * passed_s
        self._tokens = min(self._tokens + flow, max(1.0, self._level * BURST_S))

    def _fall(self, seconds: float) -> None:
        self._level = max(self._lowest, self._level - self._rise * max(0.0, seconds))
