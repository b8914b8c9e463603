"""Settlements with more rows than one statement takes, and keys that come again."""

from __future__ import annotations

from pathlib import Path

import pytest

from towpath.log import Done, Entry, Group, Settlement
from towpath.log.settle import ROWS_AT_ONCE
from towpath.log.sqlite import SqliteStore
from towpath.message import Envelope
from towpath.testing import FakeClock
from towpath.testing.ledger import lease_of


@pytest.mark.spec("P2", "P3")
@pytest.mark.parametrize("size", [1, ROWS_AT_ONCE - 1, ROWS_AT_ONCE, ROWS_AT_ONCE + 1, 5 * ROWS_AT_ONCE])
async def test_every_key_ends_once_however_many_come_together(tmp_path: Path, size: int) -> None:
    async with SqliteStore.open(tmp_path, FakeClock(20.0)) as store:
        await store.connect("out", ["web"], "earliest")
        entries = [Entry(f"m{number}", b"{}") for number in range(size)]
        await store.append([Group(Envelope("web", 10.0), entries)])
        lease = await lease_of(store)
        early = [Done(number, 0, "delivered", "", 200) for number in range(1, size + 1, 3)]
        again = [Done(number, 0, "skipped", "late") for number in range(1, size + 1)]
        await store.settle(lease, Settlement(0, early))
        await store.settle(lease, Settlement(size, [*again, *again]))
        [balance] = await store.balance()
        assert balance == (await store.balance(recount=True))[0]
        rows = {row.position: row for _, row in await store.deliveries(None, None, size + 1)}
    assert balance.delivered == len(early)
    assert balance.skipped == ({"late": size - len(early)} if size > len(early) else {})
    assert sorted(rows) == list(range(1, size + 1))
    assert {row.code for row in rows.values() if row.state == "delivered"} == {200}
