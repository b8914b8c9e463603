"""Erasing where nothing can be rewritten: no plain byte in the store, and no key to open a sealed one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from towpath.clock import Clock
from towpath.log import Entry, Group, LogFull, Refused
from towpath.log.jetstream import JetStreamLog
from towpath.log.jetstream.keys import Key
from towpath.log.jetstream.vault import Broken, Cipher, name_of
from towpath.message import Envelope
from towpath.testing import FakeClock
from towpath.testing.log import entry, ids_of

from .jetstream_server import NatsServer, running
from .test_erase import CANARY, SPELLINGS, Stored, of_canary

SECRET = b"secret-of-the-canary"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[NatsServer]:
    with running(tmp_path / "nats") as started:
        yield started


def found_in(directory: Path, *needles: bytes) -> set[bytes]:
    contents = [path.read_bytes() for path in directory.rglob("*") if path.is_file()]
    return {needle for needle in needles if any(needle in content for content in contents)}


def of_both(message_id: str, *pairs: tuple[str, str]) -> Entry:
    ids = ",".join(f'"{key}":"{value}"' for key, value in pairs)
    return Entry(message_id, f"{{{ids}}}".encode())


def group(*entries: Entry, at: float = 0.0) -> Group:
    return Group(Envelope("web", at or FakeClock().now()), entries)


async def secrets_of(log: JetStreamLog, *ids: str) -> list[bytes]:
    return [key.secret for key in (await log._retention._vault.known([name_of(i) for i in ids])).values()]


@pytest.mark.spec("D10")
async def test_neither_plain_bytes_nor_keys_are_in_the_store_afterwards(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Uncompressed, so that the raw search can see what is there.
    monkeypatch.setattr("towpath.log.blob.zstandard.ZstdCompressor", lambda **_: Stored())
    log = await server.log("log", FakeClock())
    context = Envelope("web", FakeClock().now(), context=b'{"traits":{"own":"secret-of-the-canary"}}')
    canaries = [of_canary("c1"), of_canary("c2", "anonymousId", 1), of_canary("c3", "previousId", 2)]
    torn = Entry("c6", of_canary("c6").raw[:-1])
    await log.append([group(entry("b1"), *canaries, entry("b2"), torn)])
    refused = [Refused("web", i, "E1", "long", b'{"userId":"' + s, 1.0) for i, s in enumerate(SPELLINGS[:3])]
    refused.append(Refused("web", 3, "E1", "long", b'{"userId":"bob"', 1.0))
    await log.append([Group(context, [of_canary("c4"), of_canary("c5")])], refused)
    keys = await secrets_of(log, CANARY)
    assert len(keys) == 1
    # sealed from the start: only what was refused, whose ids nobody knows, is there in clear
    assert found_in(server.store, *SPELLINGS, *keys) == {*SPELLINGS[:3], *keys}
    assert not found_in(server.store, SECRET)
    sealed = [row async for row in log._reader.rows(0, 0)]
    erased = await log.erase([CANARY])
    assert erased.records == 6
    assert sorted(erased.gone) == [(p, "web") for p in (2, 3, 4, 6, 7, 8)]
    assert ids_of(await log.read(0, 99)) == ["b1", "b2"]
    assert ids_of(await log.latest(99)) == ["b2", "b1"]
    assert await log.find("c1") == []
    assert await log.positions("web", 0) == [1, 5]
    assert [item.index for item in await log.refusals()] == [3]
    await log.close()
    assert not found_in(server.store, *SPELLINGS, *keys)
    assert not found_in(server.store, sealed[6].sealed, sealed[7].sealed)  # a message of nobody else
    server.kill()
    assert not found_in(server.directory, *SPELLINGS, *keys)
    server.start()
    log = await server.log("log", FakeClock())
    assert ids_of(await log.read(0, 99)) == ["b1", "b2"]
    assert (await log.standing()).accepted == {"web": 8}
    assert dict((await log.counts())["web"]) == {"accepted": 8, "duplicates": 0, "refused": 4}
    assert (await log.erase([CANARY])).records == 0
    await log.close()


@pytest.mark.spec("D10")
async def test_what_was_refused_goes_also_where_an_id_stands_deep_in_it(server: NatsServer) -> None:
    ann = b'{"message":{"data":{"document":"users/ann","owner":{"uid":"ann"}}}}'
    path = b'["projects/p/documents/users/ann"]'
    other = b'{"message":{"data":{"document":"users/annette","owner":{"uid":"joann"}}}}'
    refused = [Refused("crm", index, "E1", "no", raw, 1.0) for index, raw in enumerate([ann, path, other])]
    log = await server.log("log", FakeClock())
    await log.append([], refused)
    await log.erase(["ann"])
    assert [item.index for item in await log.refusals()] == [2]
    await log.close()


@pytest.mark.spec("D10")
async def test_any_one_id_of_a_record_makes_it_unreadable(server: NatsServer) -> None:
    log = await server.log("log", FakeClock())
    await log.append(
        [
            group(
                of_both("1", ("userId", "ann"), ("anonymousId", "x")),
                of_both("2", ("userId", "ann"), ("previousId", "old")),
                of_both("3", ("anonymousId", "x")),
                of_both("4", ("userId", "bob"), ("anonymousId", "y")),
                of_both("5", ("userId", "old")),
                of_both("6"),
            )
        ]
    )
    assert sorted(log_position for log_position, _ in (await log.erase(["x"])).gone) == [1, 3]
    assert ids_of(await log.read(0, 99)) == ["2", "4", "5", "6"]
    assert (await log.erase(["old"])).records == 2
    assert ids_of(await log.read(0, 99)) == ["4", "6"]
    await log.close()


@pytest.mark.spec("D10", "D07")
async def test_an_erased_person_who_comes_back_gets_a_new_key(server: NatsServer) -> None:
    log = await server.log("log", FakeClock())
    await log.append([group(entry("a", "ann"), entry("b", "bob"))])
    (before,) = await secrets_of(log, "ann")
    await log.erase(["ann"])
    assert await secrets_of(log, "ann") == []
    appended = await log.append([group(entry("a", "ann"), entry("c", "ann"))])
    assert (appended.stored, appended.duplicates) == (1, 1)
    (after,) = await secrets_of(log, "ann")
    assert after != before
    await log.close()
    log = await server.log("log", FakeClock())
    assert ids_of(await log.read(0, 99)) == ["b", "c"]
    await log.close()


@pytest.mark.spec("D10", "D05")
async def test_appends_and_reads_go_on_during_an_erase(server: NatsServer) -> None:
    log = await server.log("log", FakeClock(), partitions=2)
    for i in range(40):
        await log.append([group(of_canary(f"c{i}"), entry(f"b{i}", f"p{i}"))])

    async def appending() -> None:
        for i in range(30):
            await log.append([group(entry(f"n{i}", f"p{i}"), of_canary(f"nc{i}"))])

    async def reading() -> None:
        for _ in range(20):
            for partition in range(2):
                await log.read(0, 999, partition)

    erased, *_ = await asyncio.gather(log.erase([CANARY]), appending(), reading())
    gone = {position for position, _ in erased.gone}
    assert erased.records == len(gone) >= 40
    kept = [r for n in range(2) for r in await log.read(0, 999, n)]
    assert not gone & {record.position for record in kept}
    assert len(kept) == 140 - len(gone)
    assert sum([await log.count("web", 0, n) for n in range(2)]) == len(kept)
    await log.close()


@pytest.mark.spec("D10")
async def test_an_erase_that_was_cut_off_is_finished_at_the_next_start(
    server: NatsServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = await server.log("log", FakeClock())
    await log.append(
        [group(of_canary("c1"), entry("b1"))], [Refused("web", 0, "E1", "no", SPELLINGS[0], 1.0)]
    )
    keys = await secrets_of(log, CANARY)

    async def cut_off(_: object) -> None:
        raise LogFull("the process ends here")

    with monkeypatch.context() as patched:
        patched.setattr(log._retention, "finish", cut_off)
        with pytest.raises(LogFull):
            await log.erase([CANARY])
    assert found_in(server.store, *keys, SPELLINGS[0])
    await log.close()
    log = await server.log("log", FakeClock())
    assert not found_in(server.store, *keys, SPELLINGS[0])
    assert ids_of(await log.read(0, 99)) == ["b1"]
    assert await log.refusals() == []
    await log.close()


@pytest.mark.spec("D19", "D10")
async def test_what_retention_drops_takes_its_bookkeeping_along(server: NatsServer) -> None:
    clock: Clock = FakeClock()
    assert isinstance(clock, FakeClock)
    log = await server.log("log", clock, window_s=1000.0)
    for i in range(5):
        await log.append(
            [group(of_canary(f"c{i}"), entry(f"b{i}"), at=clock.now())], state=("poll", {"i": i})
        )
    await log.erase([CANARY])
    await clock.advance(3000)
    assert await log.trim(clock.now()) == 5
    await clock.advance(3000)
    await log.append([group(entry("z"), at=clock.now())])
    assert await log.trim(clock.now() - 10) == 0
    information = await log._wire.api("STREAM.INFO.towpath_log")
    assert information["state"]["messages"] <= 4  # z, its block; the totals; one state; perhaps ids
    await log.close()
    log = await server.log("log", clock, window_s=1000.0)
    assert (await log.standing()).accepted == {"web": 11}
    assert await log.source_state("poll") == {"i": 4}
    assert [r.position for r in await log.read(0, 99)] == [11]
    await log.close()


def test_a_seal_holds_only_under_all_of_its_keys() -> None:
    ann, tab = Key(1, b"a" * 32), Key(2, b"b" * 32)
    sealed = Cipher([ann, tab]).seal(b"hello")
    assert sealed[:1] == b"\x01"
    assert Cipher([ann, tab]).open(sealed) == b"hello"
    for keys in ([ann], [tab], [tab, ann], [ann, Key(2, b"c" * 32)]):
        with pytest.raises(Broken):
            Cipher(keys).open(sealed)
    for spoiled in (sealed[:-1], sealed[:-1] + b"x", b"\x02" + sealed[1:], b""):
        with pytest.raises(Broken):
            Cipher([ann, tab]).open(spoiled)
    assert Cipher([ann]).seal(b"hello") != Cipher([ann]).seal(b"hello")
