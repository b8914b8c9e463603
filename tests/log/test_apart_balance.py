"""P2 with log and ledger apart: random work, cut off anywhere between the two, and several partitions."""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random
from typing import Any

import apsw
import pytest

from towpath.clock import SystemClock
from towpath.log import Balance, Done, Group, Settlement, Standing, Store
from towpath.log.apart import ApartStore
from towpath.log.sqlite import SqliteStore, _standing
from towpath.message import Envelope
from towpath.testing import FakeClock
from towpath.testing.ledger import lease_of
from towpath.testing.log import entry

from .cut import Cut, cut_ledger, cut_log
from .postgres import begin
from .test_balance import Work


async def agreed(store: Store) -> list[Balance]:
    """The balances, which must be even, and the same from the counters as counted again."""
    counted, again = await store.balance(), await store.balance(recount=True)
    assert counted == again
    assert all(balance.difference == 0 and balance.waiting >= 0 for balance in counted)
    return list(counted)


class Growing:
    """A connection to a log to which something is appended after every statement."""

    def __init__(self, file: Path) -> None:
        self._file = apsw.Connection(str(file))

    def execute(self, statement: str) -> list[Any]:
        rows = list(self._file.execute(statement))
        self._file.execute("UPDATE log SET last = last + 1")
        self._file.execute("UPDATE source SET accepted = accepted + 1")
        return rows

    def close(self) -> None:
        self._file.close()


@pytest.mark.spec("D05")
async def test_where_a_log_stands_is_told_of_one_instant(tmp_path: Path) -> None:
    async with SqliteStore.open(tmp_path, FakeClock(), inline=True, durable=False) as store:
        assert await store.standing() == Standing(0, {})
        await store.append([Group(Envelope("web", 1.0), [entry("a"), entry("b")])])
        growing = Growing(tmp_path / "log.db")
        found = _standing(growing)  # type: ignore[arg-type]
        growing.close()
        assert found == Standing(2, {"web": 2})


@pytest.mark.spec("D05", "D10", "D19")
@pytest.mark.parametrize("seed", range(4))
async def test_both_counts_agree_after_every_step(tmp_path: Path, seed: int) -> None:
    clock = FakeClock()
    store = await begin(tmp_path, clock, inline=True, durable=False)
    await store.connect("out", ["web"], "earliest")
    await store.connect("all", ["web", "app"], "earliest")
    work = Work(store, Random(seed), clock)
    for number in range(80):
        await work.step()
        balances = await agreed(store)
        if number % 40 == 39:
            await store.close()
            work.store = store = await begin(tmp_path, clock, inline=True, durable=False)
    assert sum(balance.accepted for balance in balances) > 50
    await store.close()


@pytest.mark.spec("D05")
async def test_the_balance_is_exact_while_everything_goes_on(tmp_path: Path) -> None:
    store = await begin(tmp_path, SystemClock())
    await store.connect("out", ["web"], "earliest")
    lease = await lease_of(store)

    async def appending(caller: int) -> None:
        for i in range(30):
            entries = [entry(f"{caller}-{i}-{j}", f"p{j}") for j in range(5)]
            await store.append([Group(Envelope("web", 1.0), entries)])

    async def settling() -> None:
        after = 0
        while after < 4 * 30 * 5:
            await store.wait(after)
            after = min(after + 37, store.last())
            done = [Done(position, 0, "delivered") for position in range(1, after + 1)][-37:]
            await store.settle(lease, Settlement(after, done))

    async def trimming() -> None:
        for _ in range(4):
            await store.trim(2.0)

    async def erasing() -> None:
        await asyncio.gather(store.erase(["p0"]), store.trim(2.0), appending(4))
        await store.erase(["p1"])

    callers = [appending(caller) for caller in range(4)]
    working = asyncio.gather(settling(), trimming(), erasing(), *callers)
    checks = 0
    while not working.done():
        for recount in (False, True):
            (balance,) = await store.balance(recount=recount)
            assert balance.difference == 0
            checks += 1
    await working
    assert checks
    (balance,) = await agreed(store)
    assert balance.accepted == 750
    await store.close()


@pytest.mark.spec("D05", "D10", "D19")
@pytest.mark.parametrize("seed", range(8))
async def test_a_process_cut_off_between_log_and_ledger_loses_nothing(tmp_path: Path, seed: int) -> None:
    """At every few calls to either half the process dies, before or after the call took effect."""
    clock, random = FakeClock(), Random(seed)
    whole = await begin(tmp_path, clock, inline=True, durable=False)
    await whole.connect("out", ["web"], "earliest")
    await whole.connect("all", ["web", "app"], "earliest")
    work = Work(whole, random, clock)
    cuts = 0
    for _ in range(50):
        step = random.choice([work.append, work.settle, work.settle, work.erase, work.trim, work.change])
        fragile = ApartStore(cut_log(whole, random), cut_ledger(whole, random))
        work.store = fragile if step in (work.erase, work.trim, work.change) else whole
        try:
            await step()
        except Cut:
            cuts += 1
            await agreed(whole)  # as it stands, half done
            if random.random() < 0.5:
                await whole.close()
                whole = await begin(tmp_path, clock, inline=True, durable=False)
            if step == work.change:
                await whole.connect("out", work.current, "now")
        work.store = whole
        await agreed(whole)
        await clock.advance(20)
    await whole.repair()
    await agreed(whole)
    assert cuts > 0
    await whole.close()
