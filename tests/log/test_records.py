"""The record format, and that every released version of it can still be read."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path

import pytest

from towpath.http import Exchange
from towpath.log import DeadFilter, Done, Entry, Group, Pause, Refused, Settlement
from towpath.log.append import BLOB_BYTES
from towpath.log.blob import Blob, Codec, Damaged
from towpath.log.sqlite import SqliteStore
from towpath.message import Envelope
from towpath.testing import FakeClock
from towpath.testing.ledger import bury, lease_of, park
from towpath.testing.log import ids_of

FIXTURES = Path(__file__).parent / "fixtures"
WEB = Envelope("web", 10.5, "server", "track", "192.0.2.1", "key", "2026-01-01T00:00:00Z", b'{"a":1}', b"{}")
APP = Envelope("app", 11.5)
RAWS = [b'{"userId":"ann","messageId":"a"}', '{"userId":"bo\u00e9"}'.encode(), b"[]\xff"]


async def write_fixture(directory: Path) -> None:
    """Make a data directory of the current version: run this once for each version that is released."""
    async with SqliteStore.open(directory, FakeClock(20.0)) as store:
        await store.connect("out", ["web", "app"], "earliest")
        groups = [Group(WEB, [Entry("a", RAWS[0]), Entry("b", RAWS[1])]), Group(APP, [Entry("c", RAWS[2])])]
        await store.append(groups, [Refused("web", 4, "E1301", "long", b"{", 12.5)], ("app", {"page": 2}))
        records = await store.read(0, 9)
        done = [Done(1, 0, "delivered", "", 200, 1, 25, 30.125), Done(3, 0, "dead", "no", 400, 3, 9, 31.0)]
        await store.settle(await lease_of(store), Settlement(3, done, [bury(records[2])], [park(records[1])]))
        await store.pause(Pause("out", "*", "by hand", 40.0))
        await store.suppress(["eve"])
        await store.link("a:x", 2, "u:ann")


@pytest.mark.spec("D19")
async def test_a_directory_of_format_1_is_read(tmp_path: Path) -> None:
    shutil.copytree(FIXTURES / "format-1", tmp_path / "data")
    async with SqliteStore.open(tmp_path / "data", FakeClock(20.0)) as store:
        records = await store.read(0, 9)
        assert [(r.position, r.message_id, r.raw) for r in records] == [
            (1, "a", RAWS[0]),
            (2, "b", RAWS[1]),
            (3, "c", RAWS[2]),
        ]
        assert [r.envelope for r in records] == [WEB, WEB, APP]
        assert [r.raw for r in await store.refusals()] == [b"{"]
        assert await store.source_state("app") == {"page": 2}
        assert await store.waiting("out", 9) == [("out", park(records[1]))]
        (letter,) = await store.dead(DeadFilter())
        assert letter.record == records[2]
        assert letter.exchange == Exchange("POST", "https://example.com/x", '{"a":1}', 400, "no")
        assert [done.position for _, done in await store.deliveries(None, None, 9)] == [3, 1]
        assert await store.pauses() == [Pause("out", "*", "by hand", 40.0)]
        assert await store.suppressed() == {"eve"}
        assert await store.links("a:x") == [(2, "u:ann")]
        assert (await store.append([Group(WEB, [Entry("b", b"{}")])])).duplicates == 1
        for recount in (False, True):
            (balance,) = await store.balance(recount=recount)
            assert (balance.accepted, balance.delivered, balance.dead, balance.waiting) == (3, 1, 1, 1)


def test_a_blob_is_read_as_written() -> None:
    blob = Blob(7, [(WEB, [("a", b"1"), None]), (APP, [("b", b"")])])
    codec = Codec()
    assert codec.decode(7, 3, codec.encode(blob)) == blob
    assert [(r.position, r.message_id) for r in blob.records()] == [(7, "a"), (9, "b")]
    assert blob.sources() == {"web": 1, "app": 1}


def test_what_nobody_needs_leaves_with_the_last_record() -> None:
    rest = Blob(7, [(WEB, [("a", b"1"), ("b", b"2")]), (WEB, [("c", b"3")])]).without(frozenset({7, 8}))
    assert [envelope for envelope, _ in rest.pieces] == [Envelope("web", 10.5), WEB]
    assert [(r.position, r.raw) for r in rest.records()] == [(9, b"3")]
    assert rest.count == 3


@pytest.mark.spec("D05")
def test_every_flipped_bit_is_noticed() -> None:
    codec = Codec()
    body = codec.encode(Blob(7, [(WEB, [("a", RAWS[0]), ("b", RAWS[1])])]))
    for at in range(len(body)):
        for bit in range(8):
            damaged = bytearray(body)
            damaged[at] ^= 1 << bit
            with pytest.raises(Damaged):
                codec.decode(7, 2, bytes(damaged))


@pytest.mark.parametrize(("position", "count"), [(8, 2), (7, 3)])
def test_a_body_in_the_wrong_row_is_noticed(position: int, count: int) -> None:
    codec = Codec()
    body = codec.encode(Blob(7, [(WEB, [("a", b"1"), ("b", b"2")])]))
    with pytest.raises(Damaged, match=f"position {position}"):
        codec.decode(position, count, body)


async def test_large_requests_are_cut_into_blobs(tmp_path: Path) -> None:
    async with SqliteStore.open(tmp_path, FakeClock()) as store:
        raw = b'"' + b"x" * (BLOB_BYTES // 3) + b'"'
        sizes = [7, 1, 1]
        groups = [
            Group(Envelope("web", float(i)), [Entry(f"{i}-{j}", raw) for j in range(n)])
            for i, n in enumerate(sizes)
        ]
        await store.append(groups)
        counts = list(store._database.reader.execute("SELECT count FROM blob ORDER BY position"))
        assert len(counts) >= 3
        records = await store.read(0, 20)
        assert ids_of(records) == [f"{i}-{j}" for i, n in enumerate(sizes) for j in range(n)]
        assert [r.envelope.received_at for r in records] == [0.0] * 7 + [1.0, 2.0]


async def test_concurrent_appends_share_a_blob(tmp_path: Path) -> None:
    async with SqliteStore.open(tmp_path, FakeClock()) as store:
        await asyncio.gather(*[store.append([Group(APP, [Entry(str(i), b"{}")])]) for i in range(200)])
        (blobs,) = store._database.reader.execute("SELECT count(*) FROM blob").fetchone() or (0,)
        assert blobs < 20
