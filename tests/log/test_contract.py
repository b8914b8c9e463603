"""SqliteStore keeps the contracts of log, ledger and store, with its writer thread and inline."""

from __future__ import annotations

from pathlib import Path

from towpath.clock import Clock
from towpath.log import Store
from towpath.log.sqlite import SqliteStore
from towpath.testing.ledger import LedgerContract, StoreContract
from towpath.testing.log import LogContract


class Threaded:
    async def begin(self, directory: Path, clock: Clock) -> Store:
        return await SqliteStore.begin(directory, clock)


class Inline:
    async def begin(self, directory: Path, clock: Clock) -> Store:
        return await SqliteStore.begin(directory, clock, inline=True, durable=False)


class TestLog(Threaded, LogContract):
    pass


class TestLedger(Threaded, LedgerContract):
    pass


class TestStore(Threaded, StoreContract):
    pass


class TestLogInline(Inline, LogContract):
    pass


class TestLedgerInline(Inline, LedgerContract):
    pass


class TestStoreInline(Inline, StoreContract):
    pass
