"""One loop's way to log and ledger, and the disk below: cut, slow, full, or answering too late."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from random import Random
from typing import Any, Protocol

from towpath.log import Appended, Group, Lease, LogFull, Pause, Settlement, Store
from towpath.message import Record

CHUNK = 256  # records that a wire which is not slow brings at once
READ_S = 0.1


class Disk:
    """What the disk allows at the moment; `lost` is the share of settlements whose answer gets lost."""

    def __init__(self) -> None:
        self.appends_full = False
        self.settles_full = False
        self.lost = 0.0

    async def append(self, store: Store, groups: Sequence[Group]) -> Appended:
        """Append, unless the disk is full. Raises `LogFull`."""
        if self.appends_full:
            raise LogFull("no space left")
        return await store.append(groups)


class Watcher(Protocol):
    """Who hears what a loop does to the ledger."""

    def leased(self, lease: Lease | None) -> None:
        """The lease was taken, renewed or refused."""

    def settled(self, settlement: Settlement) -> None:
        """A settlement was kept."""

    def paused(self, capability: str) -> None:
        """A capability stands still."""

    def resumed(self, capability: str) -> None:
        """A capability may go on."""


class Wire:
    """While it is cut, no lease is renewed, and settlements arrive late.

    A slow one brings only a `page` of records at a time.
    """

    def __init__(self, store: Store, watcher: Watcher, disk: Disk, chance: Random, page: int) -> None:
        self.page = page
        self._store = store
        self._watcher = watcher
        self._disk = disk
        self._chance = chance
        self.through = asyncio.Event()
        self.through.set()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def read(self, after: int, limit: int, partition: int = 0) -> Sequence[Record]:
        """Read; a slow wire brings few records at a time."""
        if self.page < CHUNK:
            await asyncio.sleep(READ_S)
        return await self._store.read(after, min(limit, self.page), partition)

    async def lease(self, connection: str, owner: str, ttl_s: float, partition: int = 0) -> Lease | None:
        """Take or renew the lease, if the ledger can be reached."""
        if not self.through.is_set():
            raise OSError("the ledger cannot be reached")
        lease = await self._store.lease(connection, owner, ttl_s, partition)
        self._watcher.leased(lease)
        return lease

    async def settle(self, lease: Lease, settlement: Settlement) -> bool:
        """Settle, once the wire is through; the answer may get lost, then the same comes again."""
        await self.through.wait()
        if self._disk.settles_full:
            raise LogFull("no space left")
        kept = await self._store.settle(lease, settlement)
        if kept:
            self._watcher.settled(settlement)
        if self._disk.lost and self._chance.random() < self._disk.lost:
            raise OSError("the connection to the ledger was lost")
        return kept

    async def pause(self, pause: Pause) -> None:
        """Keep a pause."""
        self._watcher.paused(pause.capability)
        await self._store.pause(pause)

    async def resume(self, connection: str, capability: str = "*") -> None:
        """Lift a pause."""
        await self._store.resume(connection, capability)
        self._watcher.resumed(capability)
