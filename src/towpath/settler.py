"""The settler: gathers what ended, and writes it in one fenced transaction at a time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec
import structlog

from .clock import Clock
from .lanes import Cursor, Lane
from .log import Dead, Done, Key, Lease, Ledger, Parked, Settlement

CURSOR_STEP = 512
RETRY_S = 1.0

log = structlog.get_logger("towpath.settle")


class Fenced(Exception):
    """Another owner holds the lease now; this loop must stop at once."""


class Gathered:
    """What waits for the next transaction, and who waits for it."""

    def __init__(self) -> None:
        self.done: list[Done] = []
        self.dead: list[Dead] = []
        self.parked: dict[Key, Parked] = {}
        self.parked_bytes = 0
        self.merges: list[tuple[str, str]] = []
        self.lanes: list[Lane] = []
        self.waiters: list[asyncio.Future[None]] = []

    def __bool__(self) -> bool:
        return bool(self.done or self.parked or self.merges or self.lanes)

    def settlement(self, cursor: int) -> Settlement:
        """Put the transaction together."""
        return Settlement(cursor, self.done, self.dead, list(self.parked.values()), self.merges)


class Settler:
    """Owns the cursor of one connection. `release` is called with lanes once their ends are on disk."""

    def __init__(self, ledger: Ledger, clock: Clock, release: Callable[[list[Lane]], None]) -> None:
        self._ledger = ledger
        self._clock = clock
        self._release = release
        self._dirty = asyncio.Event()
        self._next = Gathered()
        self._writing: Gathered | None = None
        self._saved = 0
        self.lease: Lease | None = None
        self.cursor = Cursor(0)

    def begin(self, lease: Lease, position: int) -> None:
        """Start from the ledger's cursor, under this lease."""
        self.lease, self.cursor, self._saved = lease, Cursor(position), position

    def held(self) -> Lease:
        """The lease this loop works under. Raises `Fenced` before there is one."""
        if self.lease is None:
            raise Fenced
        return self.lease

    @property
    def backlog(self) -> int:
        """How many rows wait for the next transaction."""
        return len(self._next.done) + len(self._next.parked)

    @property
    def backlog_bytes(self) -> int:
        """How large the records are that were parked since the last transaction."""
        return self._next.parked_bytes

    def end(self, done: Done, dead: Dead | None = None) -> None:
        """A delivery ended."""
        self._next.parked.pop((done.position, done.index), None)
        self._next.done.append(done)
        if dead is not None:
            self._next.dead.append(dead)
        self.cursor.closed(done.position)
        self._dirty.set()

    def park(self, row: Parked, *, known: bool) -> None:
        """A delivery becomes a row, or its row changes; `known` when the ledger has the row already."""
        self._next.parked[row.position, row.index] = row
        self._next.parked_bytes += len(row.record.raw)
        if not known:
            self.cursor.closed(row.position)
        self._dirty.set()

    def merge(self, old: str, new: str) -> None:
        """Parked rows of one person belong to another from now on."""
        self._next.merges.append((old, new))
        for key, row in self._next.parked.items():
            if row.person == old:
                self._next.parked[key] = msgspec.structs.replace(row, person=new)
        self._dirty.set()

    def release_after(self, lane: Lane) -> None:
        """Release this lane once everything gathered so far is on disk."""
        self._next.lanes.append(lane)
        self._dirty.set()

    def read_to(self, position: int) -> None:
        """Everything up to here was read; worth a write once the cursor has come far."""
        self.cursor.read_to(position)
        if self.cursor.advance() - self._saved >= CURSOR_STEP:
            self._dirty.set()

    async def flush(self) -> None:
        """Return once everything gathered so far is on disk."""
        if self._next or self._writing is not None:
            await self._written()

    async def finish(self) -> None:
        """Write what is left and where the cursor stands, at a graceful stop."""
        if self._next or self._writing is not None or self.cursor.advance() > self._saved:
            await self._written()

    async def _written(self) -> None:
        waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._next.waiters.append(waiter)
        self._dirty.set()
        await waiter

    async def run(self) -> None:
        """Write settlements, one after the other, for ever. Raises `Fenced`."""
        try:
            while True:
                await self._dirty.wait()
                self._dirty.clear()
                await self._write()
        finally:
            for waiter in self._next.waiters + (self._writing.waiters if self._writing else []):
                waiter.cancel()

    async def _write(self) -> None:
        if self.lease is None:
            return
        writing, self._next = self._next, Gathered()
        self._writing = writing
        cursor = self.cursor.advance()
        if writing or cursor > self._saved:
            while not await self._settled(self.lease, writing.settlement(cursor)):
                await self._clock.sleep(RETRY_S)
        self._saved, self._writing = cursor, None
        for waiter in writing.waiters:
            if not waiter.done():
                waiter.set_result(None)
        self._release(writing.lanes)

    async def _settled(self, lease: Lease, settlement: Settlement) -> bool:
        """Whether it was written. When the disk is full or fails nothing was, and the same goes again."""
        try:
            kept = await self._ledger.settle(lease, settlement)
        except Exception as error:
            log.warning("settling failed; trying again", connection=lease.connection, error=repr(error))
            return False
        if not kept:
            raise Fenced(lease.connection)
        return True
