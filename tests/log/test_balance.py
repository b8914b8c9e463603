"""P2 under everything at once: random work, retention, erasure, changing sources, reopening."""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random

import pytest

from towpath.clock import SystemClock
from towpath.log import DeadFilter, Done, DoneState, Group, Parked, Settlement, Store
from towpath.log.sqlite import SqliteStore
from towpath.message import Envelope, Record
from towpath.testing import FakeClock
from towpath.testing.ledger import bury, lease_of, park
from towpath.testing.log import entry

STATES: list[DoneState] = ["delivered", "skipped", "dead"]


class Work:
    """Random but valid work on two connections, one of which changes its sources."""

    def __init__(self, store: Store, random: Random, clock: FakeClock) -> None:
        self.store, self.random, self.clock = store, random, clock
        self.number = 0
        self.handled: list[Record] = []  # of "out"

    async def step(self) -> None:
        choices = [self.append, self.settle, self.settle, self.settle, self.replay, self.late, self.drop]
        rare = [self.erase, self.trim, self.change]
        await self.random.choice(choices * 4 + rare)()
        await self.clock.advance(self.random.choice([0, 1, 60]))

    async def append(self) -> None:
        for source in self.random.sample(["web", "app"], 2):
            entries = []
            for _ in range(self.random.randrange(1, 8)):
                self.number += 1
                entries.append(entry(f"m{self.number}", f"p{self.random.randrange(4)}"))
            await self.store.append([Group(Envelope(source, self.clock.now()), entries)])

    async def settle(self) -> None:
        """Go on from the cursor as the loop does: end or park what is new, sometimes out of order."""
        name = self.random.choice(["out", "all"])
        lease = await lease_of(self.store, connection=name)
        progress = await self.store.progress(lease)
        known = progress.settled | progress.parked
        records = [r for r in await self.store.read(progress.cursor, 12) if r.source in self.sources(name)]
        skip_from = self.random.randrange(0, len(records) + 1)
        settlement = self.settlement(
            [r for r in records if (r.position, 0) not in known][: skip_from + 3], skip_from
        )
        for row in await self.store.parked(lease, f"p{self.random.randrange(4)}", 2):
            settlement.done.append(self.ended(row.record, row.index))  # type: ignore[attr-defined]
        handled = known | {(done.position, done.index) for done in settlement.done}
        handled |= {(row.position, row.index) for row in settlement.parked}
        open_ = [r.position for r in records if (r.position, 0) not in handled]
        read = await self.store.read(progress.cursor, 12)
        cursor = min(open_) - 1 if open_ else (read[-1].position if read else progress.cursor)
        dead = [
            bury(r, index=d.index)
            for d in settlement.done
            if d.state == "dead"
            for r in await self.store.read(d.position - 1, 1)
        ]
        final = Settlement(cursor, settlement.done, dead, settlement.parked)
        for _ in range(self.random.choice([1, 1, 2])):
            assert await self.store.settle(lease, final)
        if name == "out":
            ended = {done.position for done in settlement.done}
            self.handled += [record for record in records if record.position in ended]

    def sources(self, name: str) -> frozenset[str]:
        return self.current if name == "out" else frozenset({"web", "app"})

    current = frozenset({"web"})

    def settlement(self, records: list[Record], hole: int) -> Settlement:
        done: list[Done] = []
        parked: list[Parked] = []
        for i, record in enumerate(records):
            if i == hole:
                continue  # still in flight
            for index in range(self.random.choice([1, 1, 1, 3])):
                if self.random.random() < 0.3:
                    parked.append(park(record, index=index, person=f"p{record.position % 4}"))
                else:
                    done.append(self.ended(record, index))
        return Settlement(0, done, (), parked)

    def ended(self, record: Record, index: int) -> Done:
        state = self.random.choice(STATES)
        reason = "" if state == "delivered" else self.random.choice(["filtered", "stale"])
        return Done(record.position, index, state, reason)

    async def late(self) -> None:
        """Settle and park again what was handled at some time; only what is open may change."""
        if self.handled:
            records = [self.random.choice(self.handled) for _ in range(3)]
            done = [Done(record.position, 0, "delivered") for record in records]
            lease = await lease_of(self.store)
            await self.store.settle(lease, Settlement(0, done, parked=[park(records[0])]))

    async def replay(self) -> None:
        newest = await self.store.dead(DeadFilter(limit=self.random.randrange(1, 4)))
        await self.store.replay(DeadFilter(ids=[letter.id for letter in newest]), self.clock.now())

    async def drop(self) -> None:
        newest = await self.store.dead(DeadFilter(limit=1))
        await self.store.drop(DeadFilter(ids=[letter.id for letter in newest]))

    async def erase(self) -> None:
        await self.store.erase([f"p{self.random.randrange(4)}"])

    async def trim(self) -> None:
        await self.store.trim(self.clock.now() - 30)

    async def change(self) -> None:
        self.current = frozenset(self.random.choice([["web"], ["app"], ["web", "app"]]))
        await self.store.connect("out", self.current, "now")


@pytest.mark.spec("D05", "D10", "D19")
@pytest.mark.parametrize("seed", range(10))
async def test_both_counts_agree_after_every_step(tmp_path: Path, seed: int) -> None:
    clock = FakeClock()
    store = await SqliteStore.begin(tmp_path, clock, inline=True, durable=False)
    await store.connect("out", ["web"], "earliest")
    await store.connect("all", ["web", "app"], "earliest")
    work = Work(store, Random(seed), clock)
    for number in range(120):
        await work.step()
        counted, again = await store.balance(), await store.balance(recount=True)
        assert counted == again
        assert [balance.difference for balance in counted] == [0, 0]
        assert all(balance.waiting >= 0 for balance in counted)
        if number % 40 == 39:
            await store.close()
            work.store = store = await SqliteStore.begin(tmp_path, clock, inline=True, durable=False)
    assert sum(balance.accepted for balance in counted) > 50
    await store.close()


@pytest.mark.spec("D05")
async def test_the_balance_is_exact_between_commits(tmp_path: Path) -> None:
    async with SqliteStore.open(tmp_path, SystemClock()) as store:
        await store.connect("out", ["web"], "earliest")
        lease = await lease_of(store)

        async def appending(caller: int) -> None:
            for i in range(60):
                entries = [entry(f"{caller}-{i}-{j}") for j in range(5)]
                await store.append([Group(Envelope("web", 1.0), entries)])

        async def settling() -> None:
            after = 0
            while after < 4 * 60 * 5:
                await store.wait(after)
                records = await store.read(after, 37)
                after = records[-1].position
                await store.settle(
                    lease, Settlement(after, [Done(r.position, 0, "delivered") for r in records])
                )

        working = asyncio.gather(settling(), *[appending(caller) for caller in range(4)])
        checks = 0
        while not working.done():
            for recount in (False, True):
                (balance,) = await store.balance(recount=recount)
                assert balance.difference == 0
                checks += 1
        await working
        assert checks > 10
        assert (await store.balance())[0].delivered == 1200
