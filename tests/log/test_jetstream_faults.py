"""Servers that forget, die or lose answers: nothing acknowledged is lost, nothing is kept twice."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from random import Random

import pytest

from towpath.errors import TowpathError
from towpath.log import PARTITION, Group, LogFull, Refused
from towpath.log.blob import Damaged
from towpath.log.jetstream import JetStreamLog
from towpath.log.jetstream.durability import Durability, NotDurable
from towpath.log.jetstream.parts import POSITIONS
from towpath.message import Envelope
from towpath.testing import FakeClock
from towpath.testing.log import entry, ids_of

from .jetstream_server import NatsServer, Proxy, running


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    with running(tmp_path / "nats") as started:
        yield started


def group(*ids: str, person: str = "ann") -> Group:
    return Group(Envelope("web", FakeClock().now()), [entry(i, person) for i in ids])


def spread(*ids: str) -> Group:
    """Each message another person's, so that one append reaches several partitions."""
    return Group(Envelope("web", FakeClock().now()), [entry(i, f"person of {i}") for i in ids])


async def kept(log: JetStreamLog, partitions: int = 1) -> list[str]:
    return sorted([i for n in range(partitions) for i in ids_of(await log.read(0, 1_000_000, n))])


# Durability


@pytest.mark.spec("D05")
async def test_a_server_that_acknowledges_before_it_is_on_disk_is_refused(tmp_path: Path) -> None:
    with running(tmp_path, sync_interval="2m") as lazy:
        with pytest.raises(NotDurable) as caught:
            await lazy.log("log", FakeClock())
        assert caught.value.code == "E5040"
        assert "sync_interval is 120 s" in caught.value.why
        assert "sync_interval: always" in caught.value.fix
        log = await lazy.log("log", FakeClock(), durability="relaxed")
        assert (await log.append([group("a")])).stored == 1
        await log.close()


@pytest.mark.spec("D05")
async def test_what_no_monitoring_port_confirms_is_refused(server: NatsServer, tmp_path: Path) -> None:
    with pytest.raises(NotDurable) as caught:
        await JetStreamLog.begin([server.url], FakeClock())
    assert caught.value.code == "E5041"
    with running(tmp_path / "other") as other, pytest.raises(NotDurable) as caught:
        await JetStreamLog.begin([server.url], FakeClock(), monitors=[other.monitor])
    assert "another server" in caught.value.why
    with pytest.raises(NotDurable) as caught:
        await JetStreamLog.begin([server.url], FakeClock(), monitors=["http://127.0.0.1:1"])
    assert "127.0.0.1:1" in caught.value.why


@pytest.mark.spec("D05")
async def test_a_server_that_comes_back_lazy_gets_no_more_appends(server: NatsServer) -> None:
    log = await server.log("log", FakeClock())
    await log.append([group("a")])
    server.kill()
    server.sync_interval = "2m"
    server.start()
    for message_id in ("b", "c"):
        with pytest.raises(LogFull, match="before they are on disk"):
            await log.append([group(message_id)])
    server.kill()
    server.sync_interval = "always"
    server.start()
    assert await _eventually(log, group("b", "c")) == (2, 0)
    assert await kept(log) == ["a", "b", "c"]
    await log.close()


async def test_a_server_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(TowpathError) as caught:
        await JetStreamLog.begin(["nats://127.0.0.1:1"], FakeClock(), patience_s=0.2)
    assert caught.value.code == "E5043"
    assert "nats://127.0.0.1:1" in caught.value.why


# Lost answers


@pytest.mark.spec("D05", "D07")
@pytest.mark.parametrize("partitions", [1, 4])
async def test_an_append_whose_answer_was_lost_is_kept_once(server: NatsServer, partitions: int) -> None:
    async with Proxy(server) as proxy:
        log = await server.log("log", FakeClock(), proxy.url, partitions=partitions)
        await log.append([spread("a", "b", "c")])
        for round_ in range(5):
            proxy.swallow_answer_with(b'{"stream":"towpath_log"')  # that of a stored message or batch
            ids = [f"{round_}-{i}" for i in range(8)]
            appended = await log.append([spread(*ids)], [Refused("web", 0, "E1", "no", b"", 1.0)])
            assert (appended.stored, appended.duplicates) == (8, 0)
            assert (await log.append([spread(*ids)])).duplicates == 8
        assert proxy.cuts == 5
        expected = sorted(["a", "b", "c", *[f"{r}-{i}" for r in range(5) for i in range(8)]])
        assert await kept(log, partitions) == expected
        await log.close()
    log = await server.log("log", FakeClock(), partitions=partitions)
    assert await kept(log, partitions) == expected
    assert dict((await log.counts())["web"]) == {"accepted": 43, "duplicates": 40, "refused": 5}
    await log.close()


@pytest.mark.spec("D05", "D07")
async def test_an_append_in_doubt_says_so_and_is_kept_once_when_it_is_sent_again(server: NatsServer) -> None:
    async with Proxy(server) as proxy:
        log = await server.log("log", FakeClock(), proxy.url, patience_s=0.3)
        await log.append([group("a")])
        proxy.swallow_answer_with(b'{"stream":"towpath_log"')
        proxy.shut()  # after the cut nobody gets through any more
        with pytest.raises(LogFull, match="sending them again is safe"):
            await log.append([group("b")], state=("poll", {"page": 2}))
        with pytest.raises(LogFull):
            await log.append([group("c")])
        await proxy.reopen()
        assert await _eventually(log, group("b")) == (0, 1)
        assert (await log.append([group("c")])).stored == 1
        assert ids_of(await log.read(0, 99)) == ["a", "b", "c"]
        assert await log.source_state("poll") == {"page": 2}
        await log.close()


async def _eventually(log: JetStreamLog, again: Group) -> tuple[int, int]:
    async with asyncio.timeout(20):
        while True:
            try:
                appended = await log.append([again])
            except LogFull:
                await asyncio.sleep(0.02)
            else:
                return appended.stored, appended.duplicates


@pytest.mark.spec("D05")
async def test_a_second_writer_is_noticed(server: NatsServer) -> None:
    first = await server.log("log", FakeClock())
    await first.append([group("a")])
    second = await server.log("log", FakeClock())
    await second.append([group("b")])
    with pytest.raises(LogFull, match="another process writes"):
        await first.append([group("c")])
    assert ids_of(await second.read(0, 99)) == ["a", "b"]
    await first.close()
    await second.close()


# A server that dies


@pytest.mark.spec("D05", "D07")
async def test_kill_and_restart_in_the_middle_lose_nothing_acknowledged(server: NatsServer) -> None:
    chance, partitions = Random(5), 3
    log = await server.log("log", FakeClock(), partitions=partitions)
    acknowledged: list[str] = []
    calls: dict[str, list[str]] = {}
    running_ = True

    async def caller(number: int) -> None:
        i = 0
        while running_:
            i += 1
            ids = [f"{number}-{i}-{k}" for k in range(6)]
            calls[f"{number}-{i}"] = ids
            try:
                await log.append([spread(*ids)], state=(f"poll{number}", {"page": i}))
            except LogFull:
                continue
            acknowledged.extend(ids)
            pages[number] = i

    pages: dict[int, int] = {}
    callers = [asyncio.ensure_future(caller(number)) for number in range(4)]
    for _ in range(4):
        before = len(acknowledged)
        goal = before + chance.randrange(60, 300)
        while len(acknowledged) < goal:
            await log.wait(log.last())
        server.kill()
        assert (await log.read(log.last() - 3, 2))[0].position == log.last() - 2  # from memory
        server.start()
    running_ = False
    await asyncio.gather(*callers)
    await log.close()
    log = await server.log("log", FakeClock(), partitions=partitions)
    found = await kept(log, partitions)
    assert len(found) == len(set(found))
    assert set(found) >= set(acknowledged)
    for ids in calls.values():  # an append is kept whole or not at all
        assert len(set(ids) & set(found)) in (0, 6)
    for number, page in pages.items():
        state = (await log.source_state(f"poll{number}"))["page"]
        assert isinstance(state, int)
        assert state >= page
        assert set(calls[f"{number}-{state}"]) <= set(found)
    assert sum([(await log.standing(n)).accepted["web"] for n in range(partitions)]) == len(found)
    await log.close()


@pytest.mark.spec("D05")
async def test_reads_wait_for_a_server_that_restarts(server: NatsServer) -> None:
    log = await server.log("log", FakeClock())
    await log.append([group(*"abc")])
    await log.close()
    log = await server.log("log", FakeClock())
    server.kill()
    reading = asyncio.ensure_future(log.read(0, 10))
    finding = asyncio.ensure_future(log.find("b"))
    await asyncio.sleep(0)
    server.start()
    assert ids_of(await reading) == ["a", "b", "c"]
    assert ids_of(await finding) == ["b"]
    await log.close()


@pytest.mark.spec("D05")
async def test_without_a_server_an_append_fails_in_time_and_keeps_nothing(server: NatsServer) -> None:
    log = await server.log("log", FakeClock(), patience_s=0.3)
    await log.append([group("a")])
    server.kill()
    with pytest.raises(LogFull, match="cannot be reached"):
        await log.append([group("b")])
    server.start()
    assert await _eventually(log, group("c")) == (1, 0)
    assert await kept(log) == ["a", "c"]
    await log.close()


async def test_a_message_the_server_cannot_hold_is_refused_alone(server: NatsServer) -> None:
    log = await server.log("log", FakeClock())
    huge = Group(Envelope("web", 1.0), [entry("x", "p" * (1 << 20))])
    with pytest.raises(LogFull, match="max_payload"):
        await log.append([huge])
    assert (await log.append([group("a")])).last == 1
    await log.close()


# Damage


@pytest.mark.spec("D05")
async def test_a_message_that_somebody_deleted_is_named_and_not_passed_over(server: NatsServer) -> None:
    log = await server.log("log", FakeClock())
    for i in range(4):
        await log.append([group(f"{i}a", f"{i}b")])
    await log._stream.delete(2)
    await log.close()
    log = await server.log("log", FakeClock())
    assert [r.position for r in await log.read(0, 99)] == [1, 2]
    with pytest.raises(Damaged) as caught:
        await log.read(2, 99)
    assert (caught.value.position, caught.value.last) == (3, 4)
    assert [r.position for r in await log.read(4, 99)] == [5, 6, 7, 8]
    assert log.last() == 8 < PARTITION
    await log.close()


@pytest.mark.spec("D05")
async def test_a_message_that_is_not_what_was_written_is_named_and_can_be_passed(server: NatsServer) -> None:
    log = await server.log("log", FakeClock())
    await log.append([group("a", "b")])
    await log._wire.client.publish("towpath.log.log.0", b"\x01oops", headers={POSITIONS: "3-4"})
    await log._wire.client.flush()
    await log.close()
    log = await server.log("log", FakeClock())
    assert (await log.append([group("c", "d")])).last == 6
    assert ids_of(await log.read(0, 99)) == ["a", "b"]
    with pytest.raises(Damaged, match="position 3") as caught:
        await log.read(2, 99)
    assert caught.value.last == 4
    assert ids_of(await log.read(4, 99)) == ["c", "d"]
    await log.close()


# Callers


@pytest.mark.spec("D07", "D05")
async def test_a_caller_that_goes_away_changes_nothing(server: NatsServer) -> None:
    log = await server.log("log", FakeClock())
    for i in range(5):
        going = asyncio.ensure_future(log.append([group(f"{i}")]))
        for _ in range(i):
            await asyncio.sleep(0)
        going.cancel()
        with pytest.raises(asyncio.CancelledError):
            await going
        await log.append([group(f"{i}")])
    assert ids_of(await log.read(0, 99)) == [*"01234"]
    await log.close()


async def test_an_old_server_is_refused() -> None:
    for version in ("2.9.10", "2.12.1", "2.13.0-beta.1"):
        with pytest.raises(TowpathError) as caught:
            await Durability("relaxed", ()).confirm({"server_id": version, "version": version})
        assert caught.value.code == "E5042"
    for version in ("2.14.0", "2.15.1", "3.0.0"):
        await Durability("relaxed", ()).confirm({"server_id": version, "version": version})
