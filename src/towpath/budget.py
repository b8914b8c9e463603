"""Budget: a vendor account's rate allowance for one bucket, shared by everything that calls it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import TYPE_CHECKING

from .http import has_allowance_left, rate_limit, retry_after, until_reset
from .outcome import LONGEST_WISH_S

if TYPE_CHECKING:
    from .clock import Clock

PACE = 0.97  # of the allowance: what is left makes room for the burst in every window
LOWERED = 0.7  # the rate after a 429, times this
BLOCKED_STEP_S = 1.0
LOWEST = 0.05  # never slower than this part of the allowance
RECOVERY_PER_S = 0.05 / 10  # back to the allowance: 5 % of it every 10 s
BACK_OFF_S = 2.0  # after a 429 that names no moment
PATIENCE_S = 5.0  # what can wait takes its turn like everybody after this
SHORTEST_BLOCK_S = 1.0  # one 429 often comes with its siblings in flight: they count as one


class Budget:
    """`per_minute` requests, smoothly: first come, first served, never more in any 60 seconds.

    `per_minute` stays the allowance as given; `rate_in_force` is what the vendor made of it.
    A token bucket that fills at 97 % of the allowance. It holds `burst` tokens, at most the remaining 3 %, so
    that a full bucket and a minute's flow together stay within `per_minute`; without `burst` it holds what
    keeps one second within `per_minute / 60` as well, for vendors that count by the second. It learns from
    replies: see `learn`. Where the allowance has a fraction, that counts as one request more.
    """

    def __init__(self, clock: Clock, per_minute: float, burst: float | None = None) -> None:
        if per_minute <= 0:
            raise ValueError(f"a budget needs a positive allowance per minute, not {per_minute:g}")
        self.clock = clock
        self.per_minute = per_minute
        self._burst = burst
        self._ceiling = per_minute
        self._factor = 1.0
        self._blocked_until = 0.0
        self._filled_at = clock.monotonic()
        self._tokens = self._capacity
        self._turn = asyncio.Lock()
        self._queued = 0

    @property
    def rate_in_force(self) -> float:
        """Requests per minute at this moment: the allowance, or what the vendor and its 429s made of it."""
        self._fill()
        return self._ceiling * self._factor

    @property
    def blocked_s(self) -> float:
        """Seconds until the vendor takes requests again; 0 when it does."""
        return max(0.0, self._blocked_until - self.clock.monotonic())

    def change(self, per_minute: float) -> None:
        """Give another allowance; a wait that the vendor asked for stays in force."""
        if per_minute != self.per_minute:
            self._fill()
            self.per_minute = self._ceiling = per_minute

    async def acquire(self, cost: float = 1.0) -> None:
        """Wait for a turn, then for `cost` tokens. Cancelling takes nothing and gives the turn away."""
        self._queued += 1
        try:
            async with self._turn:  # first in, first out; only the head of the queue ever sleeps
                while (wait_s := self._wait_s(cost)) > 0:
                    # In steps while the vendor blocks us: `lift` must not wait for a whole day to be noticed.
                    await self.clock.sleep(min(wait_s, BLOCKED_STEP_S) if self.blocked_s else wait_s)
                self._tokens -= cost
        finally:
            self._queued -= 1

    def take(self) -> float:
        """Take a token if there is one and nobody queues for it: 0, or the seconds after which to ask."""
        wait_s = self._wait_s(1.0)
        if self._queued:
            return max(wait_s, 1 / self._per_second)
        if wait_s <= 0:
            self._tokens -= 1.0
        return max(wait_s, 0.0)

    def lift(self) -> None:
        """Forget how long the vendor asked us to wait: somebody says it works again."""
        self._blocked_until = 0.0

    def learn(self, status: int, headers: Mapping[str, str]) -> None:
        """Adapt to what the vendor said, by `x-ratelimit-limit`, `-remaining`, `-reset` and 429.

        A limit per minute below ours becomes ours. Nothing remaining blocks until the reset (epoch seconds).
        A 429 blocks until Retry-After, else the reset, else shortly, and lowers the rate to 70 %, which
        recovers by 5 % of the allowance every 10 s; but a 429 with requests remaining concerns one object
        and changes nothing (Kustomer).
        """
        limit = rate_limit(headers, "limit")
        if limit:
            self._fill()
            self._ceiling = min(self.per_minute, limit)
        if status == 429:
            if not has_allowance_left(headers):
                self._refused(headers)
        elif rate_limit(headers, "remaining") == 0:
            self._block(until_reset(headers, self.clock.now()) or 0.0)

    @property
    def _capacity(self) -> float:
        by_second = (1 - PACE) * self._ceiling / 60  # with a second's flow: what the vendor allows in one
        wanted = by_second if self._burst is None else self._burst
        return max(1.0, min(wanted, (1 - PACE) * self._ceiling))

    @property
    def _per_second(self) -> float:
        return self._ceiling * self._factor * PACE / 60

    def _fill(self) -> None:
        now = self.clock.monotonic()
        passed_s = max(0.0, now - self._filled_at)
        self._filled_at = now
        self._tokens = min(self._capacity, self._tokens + passed_s * self._per_second)
        self._factor = min(1.0, self._factor + passed_s * RECOVERY_PER_S)

    def _wait_s(self, cost: float) -> float:
        """Seconds until `cost` tokens may be there; more than a full bucket is taken on credit."""
        self._fill()
        missing = min(cost, self._capacity) - self._tokens
        # A microsecond more, so that no rounding error leads to a sleep too short to move the clock.
        flow_s = missing / self._per_second + 1e-6 if missing > 0 else 0.0
        return max(self.blocked_s, flow_s)

    def _refused(self, headers: Mapping[str, str]) -> None:
        first = self.blocked_s == 0
        now = self.clock.now()
        wish = retry_after(headers.get("retry-after"), now)
        block_s = until_reset(headers, now) if wish is None else wish
        self._block(max(SHORTEST_BLOCK_S, BACK_OFF_S if block_s is None else block_s))
        if first:
            self._fill()
            self._factor = max(LOWEST, self._factor * LOWERED)

    def _block(self, seconds: float) -> None:
        self._blocked_until = max(self._blocked_until, self.clock.monotonic() + min(seconds, LONGEST_WISH_S))


class Patient:
    """A budget's allowance for work that can wait: everybody else goes first, for a while (R045).

    Whoever waits here takes a token only while nobody queues at the budget itself; after `PATIENCE_S` it
    queues there too, so that it never stands still.
    """

    def __init__(self, budget: Budget) -> None:
        self._budget = budget
        self._turn = asyncio.Lock()

    async def acquire(self) -> None:
        """Wait for a place in the allowance that nobody else wants."""
        clock = self._budget.clock
        async with self._turn:
            patient_until = clock.monotonic() + PATIENCE_S
            while (wait_s := self._budget.take()) > 0:
                if clock.monotonic() >= patient_until and not self._budget.blocked_s:
                    await self._budget.acquire()
                    return
                await clock.sleep(min(wait_s, BLOCKED_STEP_S))

    def learn(self, status: int, headers: Mapping[str, str]) -> None:
        """Adapt to what the vendor said."""
        self._budget.learn(status, headers)

    def lift(self) -> None:
        """Forget how long the vendor asked us to wait."""
        self._budget.lift()

    @property
    def blocked_s(self) -> float:
        """Seconds until the vendor takes requests again; 0 when it does."""
        return self._budget.blocked_s
