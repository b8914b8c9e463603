"""Retention: what trim may drop, and that the file shrinks."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from towpath.log import Done, Entry, Group, Settlement, trim
from towpath.log.sqlite import SqliteStore
from towpath.message import Envelope
from towpath.testing import FakeClock
from towpath.testing.ledger import lease_of, park

COUNT = 300


def group(first: int, at: float, source: str = "web") -> Group:
    entries = [Entry(str(i), os.urandom(900)) for i in range(first, first + 10)]
    return Group(Envelope(source, at), entries)


async def filled(store: SqliteStore, clock: FakeClock) -> None:
    await store.connect("fast", ["web"], "earliest")
    await store.connect("slow", ["web", "app"], "earliest")
    for first in range(0, COUNT, 10):
        await store.append([group(first, clock.now())])
        await clock.advance(1.0)


async def settle(store: SqliteStore, name: str, to: int) -> None:
    lease = await lease_of(store, connection=name)
    done = [Done(position, 0, "delivered") for position in range(1, to + 1)]
    assert await store.settle(lease, Settlement(to, done))


@pytest.mark.spec("D19")
async def test_trim_waits_for_the_slowest_connection(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(trim, "STEP_RECORDS", 45)
    clock = FakeClock()
    async with SqliteStore.open(tmp_path, clock) as store:
        await filled(store, clock)
        await settle(store, "fast", COUNT)
        await settle(store, "slow", 125)
        assert await store.trim(clock.now()) == 120
        assert (await store.read(0, 1))[0].position == 121
        await settle(store, "slow", COUNT)
        assert await store.trim(clock.now() - 10.0) == COUNT - 120 - 100
        assert await store.trim(clock.now()) == 100
        assert (store.last(), await store.read(0, 9)) == (COUNT, [])
        counted, again = await store.balance(), await store.balance(recount=True)
        assert counted == again
        assert [(b.accepted, b.delivered, b.difference) for b in counted] == [(COUNT, COUNT, 0)] * 2
    async with SqliteStore.open(tmp_path, clock) as store:
        assert (await store.append([group(COUNT, clock.now())])).last == COUNT + 10


@pytest.mark.spec("D19")
async def test_the_file_shrinks(tmp_path: Path) -> None:
    clock = FakeClock()
    async with SqliteStore.open(tmp_path, clock) as store:
        await filled(store, clock)
        for name in ("fast", "slow"):
            await settle(store, name, COUNT)
        await store._database.truncate()
        before = (tmp_path / "log.db").stat().st_size
        await store.trim(clock.now())
        await store._database.truncate()
        assert (tmp_path / "log.db").stat().st_size < before / 2


@pytest.mark.spec("D19", "D06")
async def test_a_parked_delivery_keeps_its_own_copy(tmp_path: Path) -> None:
    clock = FakeClock()
    async with SqliteStore.open(tmp_path, clock) as store:
        await store.connect("out", ["web"], "earliest")
        await store.append([group(0, clock.now())])
        records = await store.read(0, 10)
        done = [Done(position, 0, "delivered") for position in range(2, 11)]
        await store.settle(await lease_of(store), Settlement(10, done, parked=[park(records[0])]))
        await clock.advance(1.0)
        assert await store.trim(clock.now()) == 10
        assert [row.record for row in await store.parked(await lease_of(store), "ann")] == [records[0]]
        await store.settle(await lease_of(store), Settlement(10, [Done(1, 0, "delivered")]))
        for recount in (False, True):
            (balance,) = await store.balance(recount=recount)
            assert (balance.delivered, balance.waiting, balance.difference) == (10, 0, 0)


async def test_a_log_without_connections_may_be_trimmed(tmp_path: Path) -> None:
    clock = FakeClock()
    async with SqliteStore.open(tmp_path, clock) as store:
        await store.append([group(0, clock.now())])
        await clock.advance(1.0)
        assert await store.trim(clock.now()) == 10
