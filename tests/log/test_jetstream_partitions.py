"""Several partitions: a person stays in one, in order; an append is whole; what is counted is exact."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine, Iterator
from random import Random
from typing import Any

import pytest

from towpath.errors import TowpathError
from towpath.log import PARTITION, Appended, Entry, Group, partition_of
from towpath.log.jetstream import JetStreamLog
from towpath.message import Envelope, Record
from towpath.testing import FakeClock
from towpath.testing.log import entry, ids_of

from .jetstream_server import NatsServer, running

PARTITIONS = 4


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    with running(tmp_path_factory.mktemp("nats")) as started:
        yield started


def group(*entries: Entry, source: str = "web", at: float = 0.0) -> Group:
    return Group(Envelope(source, at or FakeClock().now()), entries)


async def everything(log: JetStreamLog) -> dict[int, list[Record]]:
    return {n: list(await log.read(0, 1_000_000, n)) for n in range(PARTITIONS)}


@pytest.mark.spec("D04")
async def test_a_person_stays_in_one_partition_and_in_order_among_many_callers(server: NatsServer) -> None:
    log = await server.log("order", FakeClock(), partitions=PARTITIONS)

    async def caller(number: int) -> None:
        for i in range(10):
            persons = [f"p{number * 3 + k}" for k in range(3)]
            await log.append([group(*[entry(f"{p}-{i:02d}-{k}", p) for k in range(2) for p in persons])])

    await asyncio.gather(*[caller(number) for number in range(20)])
    kept = await everything(log)
    homes: dict[str, set[int]] = {}
    for partition, records in kept.items():
        assert [r.position for r in records] == [partition * PARTITION + 1 + i for i in range(len(records))]
        for record in records:
            homes.setdefault(record.message_id.split("-")[0], set()).add(partition)
    assert len(homes) == 60
    assert {len(partitions) for partitions in homes.values()} == {1}
    assert {partition for partitions in homes.values() for partition in partitions} == set(range(PARTITIONS))
    for person in homes:
        ids = [i for records in kept.values() for i in ids_of(records) if i.startswith(f"{person}-")]
        assert ids == sorted(ids)
        assert len(ids) == 20
    assert sum(map(len, kept.values())) == 1200
    await log.close()


@pytest.mark.spec("D04")
async def test_the_partition_follows_the_user_id_and_else_the_anonymous_id(server: NatsServer) -> None:
    log = await server.log("keys", FakeClock(), partitions=PARTITIONS)
    raws = [
        b'{"userId":"ann"}',
        b'{"userId":" ann ","anonymousId":"x1"}',
        b'{"anonymousId":"x2","userId":"ann"}',
        b'{"anonymousId":"ann"}',
        b'{"userId":"","anonymousId":"ann"}',
        b'{"userId":null,"anonymousId":"ann"}',
    ]
    await log.append([group(*[Entry(str(i), raw) for i, raw in enumerate(raws)])])
    kept = [n for n, records in (await everything(log)).items() if records]
    assert len(kept) == 1
    await log.close()


async def test_reads_waits_and_standings_are_those_of_the_partition(server: NatsServer) -> None:
    log = await server.log("reads", FakeClock(), partitions=PARTITIONS)
    waiting = {n: asyncio.ensure_future(log.wait(0, n)) for n in range(PARTITIONS)}
    await asyncio.sleep(0)
    await log.append([group(entry("a", "ann"))])
    (home,) = [n for n in range(PARTITIONS) if log.last(n)]
    await asyncio.wait_for(waiting.pop(home), 10)
    assert not any(task.done() for task in waiting.values())
    for task in waiting.values():
        task.cancel()
    position = home * PARTITION + 1
    assert [r.position for r in await log.read(0, 10, home)] == [position]
    assert [r.position for r in await log.read(position - 1, 10, home)] == [position]
    assert await log.read(position, 10, home) == []
    assert dict((await log.standing(home)).accepted) == {"web": 1}
    assert await log.positions("web", 0, home) == [position]
    other = (home + 1) % PARTITIONS
    assert (await log.standing(other)).last == 0
    assert dict((await log.standing(other)).accepted) == {}
    assert await log.count("web", 0, other) == 0
    await log.close()


async def test_latest_and_find_go_through_all_partitions_by_the_order_of_appending(
    server: NatsServer,
) -> None:
    log = await server.log("latest", FakeClock(), partitions=PARTITIONS)
    persons = [f"p{i}" for i in range(12)]
    for i, person in enumerate(persons):
        await log.append([group(entry(f"m{i:02d}", person), entry(f"m{i:02d}b", person))])
    newest = await log.latest(5)
    assert ids_of(newest) == ["m11b", "m11", "m10b", "m10", "m09b"]
    assert ids_of(await log.latest(3, before=newest[2].position)) == ["m10", "m09b", "m09"]
    (found,) = await log.find("m03")
    assert found.message_id == "m03"
    await log.close()


@pytest.mark.spec("D07", "D05")
async def test_any_mix_of_appends_keeps_each_id_once_and_counts_exactly(server: NatsServer) -> None:
    for seed in range(2):
        chance, clock = Random(seed), FakeClock()
        settings: dict[str, Any] = {"partitions": PARTITIONS, "window_s": 1000.0}
        log = await server.log(f"mix{seed}", clock, **settings)
        wanted: set[tuple[str, str]] = set()
        stored, duplicates = Counter[str](), Counter[str]()
        for _ in range(6):
            calls = [await _call(log, chance, wanted) for _ in range(12)]
            for source, appended in await asyncio.gather(*calls):
                stored[source] += appended.stored
                duplicates[source] += appended.duplicates
            if chance.random() < 0.5:
                await log.close()
                log = await server.log(f"mix{seed}", clock, **settings)
        kept = [(r.source, r.message_id) for records in (await everything(log)).values() for r in records]
        assert len(kept) == len(set(kept))
        assert set(kept) == wanted
        counts = await log.counts()
        assert (
            {s: c["accepted"] for s, c in counts.items()} == dict(stored) == dict(Counter(s for s, _ in kept))
        )
        assert {s: c["duplicates"] for s, c in counts.items()} == {s: duplicates[s] for s in counts}
        sums = Counter[str]()
        for partition in range(PARTITIONS):
            sums.update((await log.standing(partition)).accepted)
        assert sums == stored
        await log.close()


async def _call(
    log: JetStreamLog, chance: Random, wanted: set[tuple[str, str]]
) -> Coroutine[None, None, tuple[str, Appended]]:
    source = chance.choice(("web", "app"))
    numbers = [chance.randrange(300) for _ in range(chance.randrange(1, 20))]
    wanted |= {(source, f"m{n}") for n in numbers}
    entries = [entry(f"m{n}", f"p{n % 40}") for n in numbers]

    async def call() -> tuple[str, Appended]:
        return source, await log.append([group(*entries, source=source)])

    return call()


@pytest.mark.spec("D19", "D07")
async def test_trim_keeps_to_the_position_of_each_partition(server: NatsServer) -> None:
    clock = FakeClock()
    log = await server.log("trim", clock, partitions=2)
    for i in range(20):
        await log.append([group(entry(f"m{i}", f"p{i}"), at=clock.now())])
    await clock.advance(60)
    lasts = {n: log.last(n) for n in range(2)}
    upto = {0: lasts[0] - 1, 1: PARTITION}
    assert await log.trim(clock.now(), upto) == lasts[0] - 1
    assert [r.position for r in await log.read(0, 99, 0)] == [lasts[0]]
    assert len(await log.read(0, 99, 1)) == lasts[1] - PARTITION
    assert await log.trim(clock.now(), {1: lasts[1]}) == lasts[1] - PARTITION
    await log.close()
    log = await server.log("trim", clock, partitions=2)
    assert await log.read(0, 99, 1) == []
    assert (await log.standing(1)).last == lasts[1]
    assert (await log.append([group(*[entry(f"m{i}", f"p{i}") for i in range(20)])])).duplicates == 20
    assert {n: log.last(n) for n in range(2)} == lasts
    await log.append([group(*[entry(f"n{i}", f"p{i}") for i in range(20)])])
    assert [r.position for r in await log.read(0, 99, 1)] == [
        lasts[1] + 1 + i for i in range(log.last(1) - lasts[1])
    ]
    assert partition_of(log.last(1)) == 1
    await log.close()


async def test_the_number_of_partitions_cannot_change(server: NatsServer) -> None:
    await (await server.log("fixed", FakeClock(), partitions=2)).close()
    with pytest.raises(TowpathError) as caught:
        await server.log("fixed", FakeClock(), partitions=3)
    assert caught.value.code == "E5045"
    assert "set partitions to 2" in caught.value.fix
