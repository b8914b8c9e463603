"""The ledger on PostgreSQL: for several processes, beside a log that is kept elsewhere."""

from __future__ import annotations

from .ledger import PostgresLedger
from .sessions import LedgerLost

__all__ = ["LedgerLost", "PostgresLedger"]
