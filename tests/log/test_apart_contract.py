"""A log in SQLite with a ledger in PostgreSQL keeps every contract, in threads and inline."""

from __future__ import annotations

from pathlib import Path

from towpath.clock import Clock
from towpath.log import Store
from towpath.testing.ledger import LedgerContract, StoreContract
from towpath.testing.log import LogContract

from .postgres import begin


class Threaded:
    async def begin(self, directory: Path, clock: Clock) -> Store:
        return await begin(directory, clock)


class Inline:
    async def begin(self, directory: Path, clock: Clock) -> Store:
        return await begin(directory, clock, inline=True, durable=False)


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
