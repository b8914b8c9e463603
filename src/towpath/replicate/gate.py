"""Which request goes next: few at once, and first those of tables that can be asked little at a time."""

from __future__ import annotations

import asyncio
import heapq
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager

from ..clock import Clock

ENOUGH_PER_S = 9.3
"""So many requests a second are all that the API takes, but for what measuring makes of them."""
FEWEST = 3
FEWER_AFTER_S = 5.0
WEIGHT = 0.25


class Gate:
    """Lets so few requests be under way as keep the API busy while answers travel, at most `most`.

    A list whose pages follow one another can only be asked one request at a time: it goes before what can be
    asked in any order, or it would be left over at the end, with nothing to fill the time that answers take.
    More requests than needed would stand in line for the account's budget, where the first to come is served.
    """

    def __init__(self, clock: Clock, most: int) -> None:
        self._clock = clock
        self._most = most
        self._places = min(most, FEWEST)
        self._inside = self._order = 0
        self._held_s: float | None = None
        self._changed_at = clock.monotonic()
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []

    @asynccontextmanager
    async def through(self, rank: int) -> AsyncGenerator[None]:
        """Wait for a place, the lowest rank first, and hold it."""
        await self._enter(rank)
        began = self._clock.monotonic()
        try:
            yield
            self._learn(began)
        finally:
            self._inside -= 1
            self._admit()

    async def _enter(self, rank: int) -> None:
        self._order += 1
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        heapq.heappush(self._waiting, (rank, self._order, place))
        self._admit()
        try:
            await place
        except asyncio.CancelledError:
            if place.done() and not place.cancelled():
                self._inside -= 1
            place.cancel()
            self._admit()
            raise

    def _admit(self) -> None:
        while self._waiting and self._inside < self._places:
            _, _, place = heapq.heappop(self._waiting)
            if not place.done():
                place.set_result(None)
                self._inside += 1

    def _learn(self, began: float) -> None:
        """One place more where all are taken and it is not enough; one less, to see whether that is."""
        now = self._clock.monotonic()
        if began < self._changed_at or not self._waiting:
            return
        held_s = now - began
        self._held_s = held_s if self._held_s is None else self._held_s + WEIGHT * (held_s - self._held_s)
        if self._places < self._held_s * ENOUGH_PER_S:
            self._change(min(self._most, self._places + 1))
        elif now - self._changed_at >= FEWER_AFTER_S:
            self._change(max(min(FEWEST, self._most), self._places - 1))

    def _change(self, places: int) -> None:
        self._places = places
        self._held_s = None
        self._changed_at = self._clock.monotonic()
