"""People: suppressed and erased by exact ids, here and in everything held in memory (D10, D15)."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence
from typing import Any

from msgspec import Struct

from ..clock import Clock
from ..deliver import DeliveryLoop
from ..inspection import flying
from ..log import DeadFilter
from ..log.blob import Damaged
from ..log.sqlite import SqliteStore
from ..message import Message, Record, Unreadable, read
from ..state import State

PAGE = 1000
EVERYTHING = 10_000_000
LANDING_S = 45.0


class Mentions(Struct):
    """How much is kept that names one id: messages, parked copies, dead letters."""

    id: str
    records: int = 0
    waiting: int = 0
    dead: int = 0


class People:
    """What is done to people by their exact ids. `loops` are the delivery loops at work.

    `prepare` has everything that still carries something of these ids into the log let go of it.
    """

    def __init__(
        self,
        store: SqliteStore,
        state: State,
        clock: Clock,
        loops: Callable[[], Iterable[DeliveryLoop]],
        prepare: Callable[[frozenset[str]], Awaitable[None]],
    ) -> None:
        self._store = store
        self._prepare = prepare
        self._state = state
        self._clock = clock
        self._loops = loops
        self._suppressed: frozenset[str] = frozenset()
        self._erasing: dict[str, float] = {}

    async def load(self) -> None:
        """Read the suppressed ids."""
        self._suppressed = await self._store.suppressed()

    def suppressed(self, message: Message, position: int) -> bool:
        """Whether a message concerns a suppressed person, or one who is being erased since it came.

        By its position: a clock that was put back since then would let it go.
        """
        if not self._suppressed and not self._erasing:
            return False
        named = (message.user_id, message.anonymous_id)
        return any(known in self._suppressed for known in named if known) or any(
            position <= self._erasing.get(known, 0)
            for known in (*named, message.previous_id)  # an alias that names the person is erased as well
            if known
        )

    def holds_back(self, person: str) -> bool:
        """Whether a person is suppressed or being erased: nobody is to be told anything of or to them."""
        return person in self._suppressed or person in self._erasing

    async def suppress(self, ids: frozenset[str], *, on: bool) -> None:
        """Deliver nothing more of these ids, or deliver again; effective with the next call."""
        await (self._store.suppress(ids) if on else self._store.unsuppress(ids))
        await self.load()

    async def mentions(self, ids: frozenset[str]) -> list[Mentions]:
        """Count what an erase of these ids would remove, id by id; a message may name several."""
        found = {one: Mentions(one) for one in sorted(ids)}
        await self._count_records(found)
        for _, row in await self._store.waiting(None, EVERYTHING):
            for one in _named(row.record, found):
                found[one].waiting += 1
        for letter in await self._store.dead(DeadFilter(limit=EVERYTHING)):
            for one in _named(letter.record, found):
                found[one].dead += 1
        return list(found.values())

    async def _count_records(self, found: Mapping[str, Mentions]) -> None:
        after: int | None = 0
        while after is not None:
            records, after = await self._page(after)
            for record in records:
                for one in _named(record, found):
                    found[one].records += 1
            await asyncio.sleep(0)

    async def _page(self, after: int) -> tuple[Sequence[Record], int | None]:
        """The records behind a position, and where to go on; damaged ones are passed over."""
        try:
            records = await self._store.read(after, PAGE)
        except Damaged as damaged:
            return [], damaged.last
        return records, records[-1].position if records else None

    async def erase(self, ids: frozenset[str]) -> Mapping[str, int]:
        """Remove every trace of these ids here. Calls under way end first; meanwhile no other one starts."""
        self._erasing |= dict.fromkeys(ids, math.inf)
        try:
            await self._landed(ids)
            # What comes from here on may outlive the erase, and is then delivered like any other.
            self._erasing |= dict.fromkeys(ids, self._store.last())
            await self._prepare(ids)
            erased = await self._store.erase(ids)
            for loop in self._loops():
                loop.forget(ids, erased)
            await asyncio.to_thread(self._state.forget_people, ids)
        finally:
            self._erasing = {one: at for one, at in self._erasing.items() if one not in ids}
        return {"records": erased.records, "copies": erased.copies}

    async def _landed(self, ids: frozenset[str]) -> None:
        """Wait until no call for these persons is under way; what takes longer is not tried again."""
        deadline_s = self._clock.monotonic() + LANDING_S
        while any(flying(loop, ids) for loop in self._loops()) and self._clock.monotonic() < deadline_s:
            await self._clock.sleep(0.02)


def _named(record: Record, ids: Mapping[str, Any]) -> set[str]:
    try:
        message = read(record)
    except Unreadable:
        return {one for one in ids if one.encode() in record.raw}
    given = (message.user_id, message.anonymous_id, message.previous_id)
    return {one for one in given if one is not None and one in ids}
