"""The door that readings ask through: a few requests at once, what may be retried retried, all counted."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from ..clock import Clock
from ..http import Reply, Undelivered
from ..outcome import Paused, Rejected, Retry
from ..vendors.customerio import AppApi, Id
from .gate import Gate
from .reading import Ask, Declined, Denied, Missing, Unreachable

ATTEMPTS = 8
FIRST_PAUSE_S, LONGEST_PAUSE_S = 1.0, 60.0
LONGEST_WISH_S = 15 * 60.0
"""A vendor who asks for a longer wait than this ends the read: the next run goes on."""
THROTTLED_AT_MOST = 100
ASIDE = 1_000_000
LARGEST_PIECE_BYTES = 8 * 1024 * 1024
NOT_FOUND, OUT_OF_RANGE = 404, 416


class AppDoor:
    """One table's door to the App API. `requests` counts answers; `left` is how many chains it has to read.

    What is read in few chains goes through the gate before what is read in many.
    """

    def __init__(self, api: AppApi, clock: Clock, gate: Gate, *, attempts: int = ATTEMPTS) -> None:
        self.api = api
        self.requests = 0
        self.left = 1
        self._outstanding = 0
        self._clock = clock
        self._gate = gate
        self._attempts = attempts

    async def ask(self, ask: Ask, *values: Id, **query: Any) -> Reply:
        """One request; a 404 is `Missing`, however the method takes it."""
        return await self._asked(max(self._outstanding, self.left), ask, *values, **query)

    async def ask_aside(self, ask: Ask, *values: Id, **query: Any) -> Reply:
        """One request that others go before."""
        return await self._asked(ASIDE + self._outstanding, ask, *values, **query)

    async def _asked(self, rank: int, ask: Ask, *values: Id, **query: Any) -> Reply:
        reply = await self._insisting(rank, lambda: ask(self.api, *values, **query))
        if reply.status == NOT_FOUND:
            raise Missing
        return reply

    async def fetch(self, url: str, headers: Mapping[str, str]) -> Reply:
        """GET a link that the vendor gave."""
        http = self.api.http
        given: dict[str, Any] = {
            "headers": headers,
            "allow": (OUT_OF_RANGE,),
            "limit_bytes": LARGEST_PIECE_BYTES,
        }
        return await self._insisting(self.left, lambda: http.request("GET", url, **given))

    async def rest(self, seconds: float) -> None:
        """Wait, while others ask."""
        await self._clock.sleep(seconds)

    async def _insisting(self, rank: int, request: Callable[[], Awaitable[Reply]]) -> Reply:
        failed = throttled = 0
        while True:
            try:
                reply = await self._passing(rank, request)
            except Undelivered as undelivered:
                retry = _judged(undelivered)
                throttled += retry.throttled
                failed += not retry.throttled
                if failed >= self._attempts or throttled > THROTTLED_AT_MOST:
                    raise Unreachable(retry.reason) from undelivered
            else:
                self.requests += 1
                return reply
            await self._clock.sleep(self._pause_s(retry, failed))

    async def _passing(self, rank: int, request: Callable[[], Awaitable[Reply]]) -> Reply:
        self._outstanding += 1
        try:
            async with self._gate.through(rank):
                return await request()
        finally:
            self._outstanding -= 1

    def _pause_s(self, retry: Retry, failed: int) -> float:
        """How long to wait; for a vendor's rate limit the account's budget waits as well."""
        if retry.after_s is not None and retry.after_s > LONGEST_WISH_S:
            raise Unreachable(f"Customer.io asks to wait {retry.after_s:.0f} s: {retry.reason}")
        if retry.throttled:
            return max(retry.after_s or 0.0, FIRST_PAUSE_S)
        grown = min(FIRST_PAUSE_S * 2 ** (failed - 1), LONGEST_PAUSE_S)
        return max(retry.after_s or 0.0, self._clock.uniform(grown / 2, grown))


def _judged(undelivered: Undelivered) -> Retry:
    """Return what may be retried; raise what may not."""
    outcome = undelivered.outcome
    if isinstance(outcome, Retry):
        return outcome
    if isinstance(outcome, Paused):
        raise Denied(outcome.reason) from undelivered
    if isinstance(outcome, Rejected):
        if outcome.code == NOT_FOUND:
            raise Missing from undelivered
        raise Declined(outcome.reason, outcome.code) from undelivered
    raise undelivered
