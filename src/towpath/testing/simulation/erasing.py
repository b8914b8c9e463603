"""An erase under way: it takes a while between its steps, in which everything else goes on."""

from __future__ import annotations

import asyncio
import copy
import math
from collections.abc import Awaitable, Callable, Collection
from random import Random
from typing import TYPE_CHECKING, Any, TypeVar

from towpath.inspection import flying
from towpath.log import DeadFilter, Store
from towpath.log.database import Database
from towpath.log.sqlite import SqliteStore

from .book import SOURCES

if TYPE_CHECKING:
    from .world import World

T = TypeVar("T")
STEPS_S = (0.0, 0.0, 0.05, 0.4, 3.0)  # between two steps
EVERYTHING = 1_000_000


class Erasure:
    """Removes every trace of some ids, in the order in which the app does it.

    Calls under way have `landing_s` to end; what takes longer must not be tried again. What the store has
    let go of is marked in the books at once, so that their sums hold at any instant.
    """

    def __init__(self, world: World, ids: frozenset[str], landing_s: float, chance: Random) -> None:
        self._world = world
        self._ids = ids
        self._chance = chance
        self._gone: set[int] = set()
        self.task = asyncio.ensure_future(self._run(landing_s))

    async def _run(self, landing_s: float) -> None:
        world, ids = self._world, self._ids
        world.messages.once_suppressed |= ids
        world.messages.erasing |= dict.fromkeys(ids, math.inf)
        try:
            await self._landed(landing_s)
            upto = world.store.last()
            world.messages.erasing |= dict.fromkeys(ids, upto)
            self._part(self._concerned(upto))
            erased = await stepwise(world.store, self._step).erase(ids)
            await self._mark()
            for run in world.runs.values():
                run.loop.forget(ids, erased)
        finally:
            self._part(self._gone)
            kept = {known: at for known, at in world.messages.erasing.items() if known not in ids}
            world.messages.erasing = kept
        world.trace.note("erased", sorted(ids), erased)
        count = len(self._gone)
        world.trace.expect(erased.records == count, f"{erased} were erased, not {count} records")
        left = self._concerned(erased.upto[0])
        world.trace.expect(not left, f"{left} outlived the erase of {sorted(ids)}")

    async def _landed(self, landing_s: float) -> None:
        world, deadline_s = self._world, self._world.clock.monotonic() + landing_s
        world.trace.saw("erased: flying", self._flies())
        while world.clock.monotonic() < deadline_s and self._flies():
            await world.clock.sleep(0.02)

    def _flies(self) -> bool:
        return any(flying(run.loop, self._ids) for run in self._world.runs.values())

    def _concerned(self, upto: int) -> list[int]:
        """The positions of the log, as far as that, that name one of the ids."""
        kept = self._world.messages.kept
        return [n for n in self._world.in_log() if n <= upto and kept[n].concerns(self._ids)]

    def _part(self, positions: Collection[int]) -> None:
        """Expect no order any more of people whose links are in these messages, or were."""
        kept = self._world.messages.kept
        named = [known for position in sorted(positions) for known in kept[position].linking]
        self._world.messages.people.erase(self._ids, named)

    async def _step(self) -> None:
        await self._mark()
        if pause_s := self._chance.choice(STEPS_S):
            self._world.trace.saw("erased in steps")
            await asyncio.sleep(pause_s)

    async def _mark(self) -> None:
        """Write down what is gone by now: records, and copies in rows and letters."""
        world, store = self._world, self._world.store
        left = {n for source in SOURCES for n in await store.positions(source, 0)}
        gone = set(world.in_log()) - left
        others = [n for n in sorted(gone) if not world.messages.kept[n].concerns(self._ids)]
        world.trace.expect(not others, f"{others} went in the erase of {sorted(self._ids)}")
        world.messages.gone |= gone
        self._gone |= gone
        rows = {(name, row.position) for name, row in await store.waiting(None, EVERYTHING)}
        letters = {(one.connection, one.position) for one in await store.dead(DeadFilter(limit=EVERYTHING))}
        for book in world.books.values():
            mine = [{n for name, n in keys if name == book.name} for keys in (rows, letters)]
            for kind, count in book.erased(self._ids, gone, *mine).items():
                world.trace.saw(f"erased: {kind}", count)


class Steps:
    """The database as an erase meets it: after each of its steps others have their turn."""

    def __init__(self, database: Database, step: Callable[[], Awaitable[None]]) -> None:
        self._database = database
        self._step = step

    def __getattr__(self, name: str) -> Any:
        return getattr(self._database, name)

    async def scan(self, read: Callable[..., T]) -> T:
        """Read, and wait."""
        found = await self._database.scan(read)
        await self._step()
        return found

    async def write(self, apply: Callable[..., T]) -> T:
        """Write, and wait."""
        result = await self._database.write(apply)
        await self._step()
        return result


def stepwise(store: Store, step: Callable[[], Awaitable[None]]) -> Store:
    """The same store for an erase; one that is not the embedded engine does all at once."""
    if not isinstance(store, SqliteStore):
        return store
    slow = copy.copy(store)
    within = Steps(store._database, step)  # noqa: SLF001 - no user of a store may come between its steps
    slow._database = within  # type: ignore[assignment]  # noqa: SLF001
    return slow
