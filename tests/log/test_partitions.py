"""A store of several partitions: each has its cursor, its lease and its lanes; the balance is of all."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from random import Random

import pytest

from towpath.log import PARTITION, DeadFilter, Done, Group, Lease, Settlement
from towpath.log.apart import ApartStore
from towpath.message import Envelope
from towpath.testing import FakeClock
from towpath.testing.ledger import bury, keys, park
from towpath.testing.log import entry

from .partitioned import Partitioned
from .postgres import begin_ledger
from .test_apart_balance import agreed

PARTITIONS = (0, 1)


async def begin(directory: Path, clock: FakeClock, partitions: int = 2) -> ApartStore:
    log = await Partitioned.begin(directory, clock)
    ledger = await begin_ledger(directory, clock, inline=True, durable=False)
    return await ApartStore.begin(log, ledger, partitions=partitions)


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[ApartStore]:
    found = await begin(tmp_path, FakeClock())
    await found.connect("out", ["web"], "earliest")
    yield found
    await found.close()


async def keep(store: ApartStore, *persons: str, source: str = "web") -> None:
    known = sum([(await store.standing(partition)).accepted.get(source, 0) for partition in PARTITIONS])
    entries = [entry(f"{source}-{known + i}", person) for i, person in enumerate(persons)]
    await store.append([Group(Envelope(source, 1.0), entries)])


async def lease_of(store: ApartStore, partition: int, owner: str = "one") -> Lease:
    lease = await store.lease("out", owner, 30.0, partition)
    assert lease is not None
    return lease


@pytest.mark.spec("D05")
async def test_each_partition_has_its_own_cursor_and_lease(store: ApartStore) -> None:
    await keep(store, "p0", "p1", "p2", "p3", "p5")
    even, odd = await lease_of(store, 0), await lease_of(store, 1, "two")
    assert await store.lease("out", "two", 30.0, 0) is None
    assert await store.settle(odd, Settlement(PARTITION + 2, [Done(PARTITION + 1, 0, "delivered")]))
    done = [Done(PARTITION + 2, 0, "delivered")]
    assert not await store.settle(Lease("out", 1, "one", even.epoch), Settlement(PARTITION + 3, done))
    assert await store.settle(odd, Settlement(PARTITION + 2, done))
    assert await store.settle(even, Settlement(1, [Done(1, 0, "skipped", "stale")]))
    assert [(await store.progress(lease)).cursor for lease in (even, odd)] == [1, PARTITION + 2]
    (balance,) = await agreed(store)
    assert (balance.accepted, balance.delivered, balance.waiting) == (5, 2, 2)


async def test_lanes_and_merges_stay_in_their_partition(store: ApartStore) -> None:
    await keep(store, "p0", "p1", "p2", "p3")
    even, odd = await lease_of(store, 0), await lease_of(store, 1)
    for lease in (even, odd):
        first = (await store.progress(lease)).cursor
        records = await store.read(first, 2, lease.partition)
        rows = [park(record, 70.0 + 9 * lease.partition) for record in records]
        await store.settle(lease, Settlement(first + 2, parked=rows))
    assert keys(await store.parked(odd, "ann")) == [(PARTITION + 1, 0), (PARTITION + 2, 0)]
    await store.settle(odd, Settlement(0, merges=[("ann", "bob")]))
    assert await store.due(even, 100.0) == [("ann", 70.0)]
    assert await store.due(odd, 100.0) == [("bob", 79.0)]
    assert [len(await store.parked(lease, "ann")) for lease in (even, odd)] == [2, 0]
    assert await store.hurry("out", 50.0) == 4
    assert (await store.progress(odd)).waiting == {"bob": 50.0}


async def test_a_new_connection_starts_now_in_every_partition(store: ApartStore) -> None:
    await keep(store, "p1", "p3")
    await store.connect("late", ["web"], "now")
    await keep(store, "p0", "p1")
    cursors = [(await store.progress(Lease("late", p, "", 0))).cursor for p in PARTITIONS]
    assert cursors == [0, PARTITION + 2]
    assert [balance.waiting for balance in await agreed(store)] == [2, 4]


async def test_a_partition_that_is_new_is_read_from_its_first_record(tmp_path: Path) -> None:
    clock = FakeClock()
    small = await begin(tmp_path, clock, partitions=1)
    await small.connect("out", ["web"], "now")
    await keep(small, "p0", "p1")
    with pytest.raises(KeyError):
        await small.lease("out", "one", 30.0, 1)
    await small.close()
    large = await begin(tmp_path, clock)
    await large.connect("out", ["web"], "now")
    assert (await large.progress(await lease_of(large, 1))).cursor == PARTITION
    assert [(b.accepted, b.waiting) for b in await agreed(large)] == [(2, 2)]
    await large.close()


@pytest.mark.spec("D05", "D10", "D19")
@pytest.mark.parametrize("seed", range(3))
async def test_random_work_on_two_partitions_stays_even(tmp_path: Path, seed: int) -> None:
    clock, random = FakeClock(), Random(seed)
    store = await begin(tmp_path, clock)
    await store.connect("out", ["web"], "earliest")
    await store.connect("all", ["web", "app"], "earliest")
    for step in range(40):
        for source in ("web", "app"):
            await keep(store, *[f"p{random.randrange(9)}" for _ in range(random.randrange(4))], source=source)
        for name, sources in (("out", {"web"}), ("all", {"web", "app"})):
            await settle(store, name, sources, random.choice(PARTITIONS), random)
        if step % 5 == 4:
            await store.erase([f"p{random.randrange(9)}"])
            await store.trim(2.0)
            await store.replay(DeadFilter(limit=3), clock.now())
        if step % 9 == 8:
            await store.connect("all", random.choice([["app"], ["web"]]), "now")
            await store.connect("all", ["app", "web"], "now")
        await agreed(store)
    await store.close()


async def settle(store: ApartStore, name: str, sources: set[str], partition: int, random: Random) -> None:
    lease = await store.lease(name, "one", 30.0, partition)
    assert lease is not None
    progress = await store.progress(lease)
    known = progress.settled | progress.parked
    read = await store.read(progress.cursor, 6, partition)
    mine = [r for r in read if r.source in sources and (r.position, 0) not in known]
    by_fate: dict[str, list[int]] = {"done": [], "dead": [], "park": []}
    for number, _ in enumerate(mine):
        by_fate[random.choice(["done", "done", "dead", "park"])].append(number)
    done = [Done(mine[number].position, 0, "delivered") for number in by_fate["done"]]
    done += [Done(mine[number].position, 0, "dead", "no") for number in by_fate["dead"]]
    done += [Done(*key, "delivered") for key in sorted(progress.parked)[:1]]
    letters = [bury(mine[number]) for number in by_fate["dead"]]
    parked = [park(mine[number]) for number in by_fate["park"]]
    cursor = read[-1].position if read else progress.cursor
    assert await store.settle(lease, Settlement(cursor, done, letters, parked))
