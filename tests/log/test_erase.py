"""Erasing: the bytes are in no file afterwards, in no spelling; what runs meanwhile is not disturbed."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from towpath.clock import SystemClock
from towpath.log import DeadFilter, Done, Entry, Group, Refused, Settlement
from towpath.log.erase import Person
from towpath.log.sqlite import SqliteStore
from towpath.message import Envelope
from towpath.testing import FakeClock
from towpath.testing.ledger import bury, lease_of, park
from towpath.testing.log import entry, ids_of

CANARY = "canary-jürgen-4711"
SPELLINGS = [
    CANARY.encode(),
    json.dumps(CANARY)[1:-1].encode(),
    "".join(f"\\u{ord(letter):04x}" for letter in CANARY).encode(),
    b"secret-of-the-canary",
]


def of_canary(message_id: str, key: str = "userId", spelling: int = 0) -> Entry:
    raw = b'{"%s":"%s","traits":{"x":"secret-of-the-canary"}}' % (key.encode(), SPELLINGS[spelling])
    return Entry(message_id, raw)


def found_in(directory: Path) -> list[tuple[str, bytes]]:
    return [
        (path.name, spelling)
        for path in directory.rglob("*")
        if path.is_file()
        for spelling in SPELLINGS
        if spelling in path.read_bytes()
    ]


@pytest.mark.spec("D10")
async def test_the_bytes_are_in_no_file_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Uncompressed, so that the raw search can see what is there.
    monkeypatch.setattr("towpath.log.blob.zstandard.ZstdCompressor", lambda **_: Stored())
    envelope = Envelope("web", FakeClock().now(), context=b'{"traits":{"own":"secret-of-the-canary"}}')
    canaries = [of_canary("c1"), of_canary("c2", "anonymousId", 1), of_canary("c3", "previousId", 2)]
    async with SqliteStore.open(tmp_path, FakeClock()) as store:
        await store.connect("out", ["web"], "earliest")
        await store.append([Group(Envelope("web", 1.0), [entry("b1"), *canaries, entry("b2")])])
        refused = [
            Refused("web", i, "E1", "long", b'{"userId":"' + s, 1.0) for i, s in enumerate(SPELLINGS[:3])
        ]
        await store.append([Group(envelope, [of_canary("c4"), of_canary("c5")])], refused)
        records = await store.read(0, 99)
        lane = f"u:{CANARY}"
        letters = [bury(records[2]), bury(records[4])]
        parked = [park(records[1], person=lane), park(records[3]), park(records[0], person=lane)]
        done = [Done(3, 0, "dead", CANARY), Done(5, 0, "dead", "no")]
        await store.settle(await lease_of(store), Settlement(5, done, letters, parked))
        await store.link("a:1", 1, lane)
        await store.link(lane, 2, "u:other")
        assert {name for name, _ in found_in(tmp_path)} == {"log.db-wal"}
        erased = await store.erase([CANARY])
        assert (erased.records, erased.copies) == (5, 3)
        assert found_in(tmp_path) == []
        assert ids_of(await store.read(0, 99)) == ["b1", "b2"]
        assert [row.position for row in await store.parked(await lease_of(store), "erased:1")] == [1]
        assert await store.due(await lease_of(store), 1e12) == [("erased:1", 100.0)]
        assert [letter.record.message_id for letter in await store.dead(DeadFilter())] == ["b2"]
        assert await store.refusals() == []
        assert await store.links("a:1") == []
        counted, again = await store.balance(), await store.balance(recount=True)
        assert counted == again
        assert counted[0].difference == 0
    assert found_in(tmp_path) == []


@pytest.mark.spec("D10", "D07")
async def test_an_erased_message_that_comes_again_stays_away(tmp_path: Path) -> None:
    async with SqliteStore.open(tmp_path, FakeClock()) as store:
        again = [Group(Envelope("web", FakeClock().now()), [of_canary("c1")])]
        await store.append(again)
        await store.erase([CANARY])
    async with SqliteStore.open(tmp_path, FakeClock()) as store:
        assert (await store.append(again)).duplicates == 1


@pytest.mark.spec("D10", "D05")
async def test_appends_and_settlements_go_on_during_an_erase(tmp_path: Path) -> None:
    async with SqliteStore.open(tmp_path, SystemClock()) as store:
        await store.connect("out", ["web"], "earliest")
        lease = await lease_of(store)
        for i in range(200):
            await store.append([Group(Envelope("web", 1.0), [of_canary(f"c{i}"), entry(f"b{i}")])])

        async def settling() -> None:
            for position in range(1, 401):
                await store.settle(lease, Settlement(position, [Done(position, 0, "delivered")]))

        async def appending() -> None:
            for i in range(50):
                await store.append([Group(Envelope("web", 1.0), [entry(f"new{i}"), of_canary(f"newc{i}")])])

        async def balancing() -> None:
            for _ in range(20):
                for recount in (False, True):
                    assert [b.difference for b in await store.balance(recount=recount)] == [0]

        erased, *_ = await asyncio.gather(store.erase([CANARY]), settling(), appending(), balancing())
        assert erased.records >= 200
        counted, again = await store.balance(), await store.balance(recount=True)
        assert counted == again
        assert counted[0].accepted == 500
        assert counted[0].delivered + counted[0].erased >= 400


@pytest.mark.parametrize(
    ("ids", "raw", "expected"),
    [
        (["ann"], b'{"userId":"ann"}', True),
        (["ann"], b'{"userId":"annx"}', False),
        (["ann"], b'{"userId":"\\u0061nn"}', True),
        (["ann"], b'{"traits":{"userId":"ann"}}', False),
        (["a/b"], b'{"anonymousId":"a\\/b"}', True),
        (["100.0"], b'{"userId":1e2}', True),
        (["7"], b'{"userId":7}', True),
        (["true"], b'{"previousId":true}', True),
        (["ann"], b'{"userId":"ann"', True),
        (["ann"], b'{"userId":"\\u0061nn"', True),
        (["ann"], b'{"userId":"bob"', False),
        (["ann"], b'["ann"]', True),
        (["ann"], b"\xff\xfe", False),
        ([], b'{"userId":"ann"}', False),
    ],
)
def test_whose_a_message_is(ids: list[str], raw: bytes, expected: bool) -> None:
    person = Person(ids)
    assert (person.perhaps(raw) and person.owns(raw)) is expected


class Stored:
    """A compressor that only stores."""

    def compress(self, data: bytes) -> bytes:
        """A zstd frame of raw blocks: magic, 8-byte size, blocks of at most 128 KiB."""
        header = b"\x28\xb5\x2f\xfd" + b"\xe0" + len(data).to_bytes(8, "little")
        pieces = [data[i : i + 100_000] for i in range(0, len(data), 100_000)] or [b""]
        blocks = [
            (len(piece) << 3 | (i == len(pieces) - 1)).to_bytes(3, "little") + piece
            for i, piece in enumerate(pieces)
        ]
        return header + b"".join(blocks)
