"""Pages on their way to the warehouse: gathered per table, loaded while the next ones are read."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence
from types import TracebackType

from msgspec import Struct, field

from ..clock import Clock
from ..warehouse import Load, Page, Warehouse, Wrote

ROWS = 10_000
BYTES = 8 * 1024 * 1024
SECONDS = 2.0
HELD_BYTES = 32 * 1024 * 1024
"""When all tables together hold this much, whoever brings more loads first; as much again may be loading."""


class Held:
    """How much all tables of a run hold."""

    def __init__(self) -> None:
        self.bytes = 0


class Tally(Struct):
    """What became of the records of a table so far; `newest` is their largest cursor, Unix seconds."""

    read: int = 0
    written: int = 0
    unchanged: int = 0
    passed: int = 0
    refused: int = 0
    newest: float | None = None
    drift: dict[str, int] = field(default_factory=dict)

    def add(self, wrote: Wrote) -> None:
        """Count what a load did."""
        self.read += wrote.read
        self.written += wrote.written
        self.unchanged += wrote.unchanged
        self.passed += wrote.passed
        self.refused += wrote.refused
        if wrote.newest is not None:
            self.newest = wrote.newest if self.newest is None else max(self.newest, wrote.newest)
        for name, count in wrote.drift.items():
            self.drift[name] = self.drift.get(name, 0) + count


class _Gathered(Struct):
    pages: list[Page] = field(default_factory=list)
    rows: int = 0
    bytes: int = 0
    moved: bool = False


class Gathering:
    """One table's pages. `made` makes a load of pages, and of the state that holds once they are in.

    `state` is asked for that at the moment when a load is made: it says where things are after the last pages
    that were added. One load is under way while the next is gathered; who brings more than that waits. Use it
    as a context.
    """

    def __init__(
        self,
        warehouse: Warehouse,
        clock: Clock,
        held: Held,
        made: Callable[[tuple[Page, ...], Mapping[str, str | None]], Load],
        state: Callable[[Tally], Mapping[str, str | None]],
    ) -> None:
        self.tally = Tally()
        self._warehouse = warehouse
        self._clock = clock
        self._held = held
        self._made = made
        self._state = state
        self._gathered = _Gathered()
        self._loading: asyncio.Task[None] | None = None
        self._ticking: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Gathering:
        """Begin to load every two seconds what there is."""
        self._ticking = asyncio.create_task(self._tick())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Leave nothing running; what is not loaded by now will be read again."""
        tasks = [task for task in (self._ticking, self._loading) if task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._held.bytes -= self._gathered.bytes

    async def add(self, pages: Sequence[Page], records: int) -> None:
        """Take pages, maybe none where only the state moved. Raises what an earlier load raised."""
        size = sum(len(page.records) for page in pages)
        gathered = self._gathered
        gathered.pages += pages
        gathered.moved = True
        gathered.rows += records
        gathered.bytes += size
        self._held.bytes += size
        while self._full():
            await self._join()
            if self._full():
                self._begin()

    async def settle(self) -> None:
        """Load what there is, and wait until all is in."""
        await self._join()
        self._begin()
        await self._join()

    def _full(self) -> bool:
        mine = self._gathered
        crowded = self._held.bytes >= HELD_BYTES and mine.bytes > 0
        return mine.rows >= ROWS or mine.bytes >= BYTES or crowded

    async def _tick(self) -> None:
        while True:
            await self._clock.sleep(SECONDS)
            if self._loading is None or self._loading.done():
                self._begin()

    async def _join(self) -> None:
        """Wait until no load is under way; raise what the last one raised."""
        while (loading := self._loading) is not None and not loading.done():
            await asyncio.wait([loading])  # meanwhile, somebody else may begin another
        if loading is not None:
            loading.result()

    def _begin(self) -> None:
        if self._failed():
            return  # whoever comes next is told by `_join`
        gathered, self._gathered = self._gathered, _Gathered()
        if gathered.moved:
            self._loading = asyncio.create_task(self._load(gathered, self._state(self.tally)))

    def _failed(self) -> bool:
        loading = self._loading
        return loading is not None and loading.done() and loading.exception() is not None

    async def _load(self, gathered: _Gathered, state: Mapping[str, str | None]) -> None:
        try:
            if gathered.pages:
                self.tally.add(await self._warehouse.load(self._made(tuple(gathered.pages), state)))
            else:
                await self._warehouse.keep(state)
        finally:
            self._held.bytes -= gathered.bytes
