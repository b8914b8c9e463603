"""Bodies: encodings, sizes, deadlines and memory."""

from __future__ import annotations

import asyncio
import gzip
import threading
import time
import tracemalloc
import zlib
from collections.abc import Callable, MutableMapping
from typing import Any

import msgspec
import pytest

from towpath.ingest import IngestLimits, split
from towpath.sources.segment import SegmentSource

from .support import KEY, Hub, basic, source

EVENT = msgspec.json.encode({"userId": "u1", "type": "track", "event": "x" * 300})
BATCH = b'{"batch":[' + EVENT + b"]}"


def raw_deflate(data: bytes) -> bytes:
    stream = zlib.compressobj(wbits=-15)
    return stream.compress(data) + stream.flush()


@pytest.mark.spec("E032")
@pytest.mark.parametrize(
    ("encoding", "encode"),
    [
        ("gzip", gzip.compress),
        ("GZIP ", gzip.compress),
        ("x-gzip", gzip.compress),
        ("deflate", zlib.compress),
        ("deflate", raw_deflate),
        ("identity", bytes),
        ("", bytes),
    ],
)
async def test_encodings(hub: Hub, encoding: str, encode: Any) -> None:
    for path, body in (("/v1/track", EVENT), ("/v1/batch", BATCH), ("/beacon/v1/batch", BATCH)):
        assert (await hub.post(path, encode(body), {"content-encoding": encoding})).status == 200
    assert {record.raw for record in hub.log.records} == {EVENT}


@pytest.mark.spec("E032")
async def test_gzip_members_are_joined(hub: Hub) -> None:
    body = gzip.compress(BATCH[:40]) + gzip.compress(BATCH[40:]) + b"\0\0\0"
    assert (await hub.post("/v1/batch", body, {"content-encoding": "gzip"})).status == 200
    assert hub.log.records[0].raw == EVENT


@pytest.mark.spec("E032", "E034")
@pytest.mark.parametrize(
    ("encoding", "body", "said"),
    [
        ("gzip", BATCH, "but the body is not"),
        ("gzip", gzip.compress(BATCH)[:-9], "ends too early"),
        ("gzip", b"", "ends too early"),
        ("gzip", gzip.compress(BATCH) + b"rest", "but the body is not"),
        ("gzip", gzip.compress(b"") * 100_000, "more than 64 compressed members"),
        ("deflate", b"x", "ends too early"),
        ("deflate", b"\xff\xff\xff", "but the body is not"),
        ("br", BATCH, "must be gzip, deflate or identity"),
        ("gzip, gzip", BATCH, "must be gzip, deflate or identity"),
    ],
    ids=["plain", "cut", "empty", "trailing", "many members", "short", "no deflate", "brotli", "twice"],
)
async def test_a_body_that_is_not_what_it_says(hub: Hub, encoding: str, body: bytes, said: str) -> None:
    reply = await hub.post("/v1/batch", body, {"content-encoding": encoding})
    assert reply.status == 400
    assert said in reply.text()


@pytest.mark.spec("E032")
@pytest.mark.parametrize(
    "kind",
    [
        "text/plain",
        "application/x-www-form-urlencoded",
        "application/json;charset=UTF-8",
        "image/gif",
        "\xff",
    ],
)
async def test_content_type_decides_nothing(hub: Hub, kind: str) -> None:
    assert (await hub.post("/v1/batch", BATCH, {"content-type": kind})).status == 200
    assert (await hub.post("/v1/t", EVENT, {"content-type": kind})).status == 200
    assert hub.log.messages()[1].type == "track"


@pytest.mark.spec("E033")
async def test_a_request_over_the_limit_is_413() -> None:
    hub = Hub(limits=IngestLimits(request_bytes=2000))
    assert (await hub.post("/v1/batch", BATCH.ljust(2000))).status == 200
    reply = await hub.post("/v1/batch", BATCH.ljust(2001))
    assert (reply.status, reply.text()) == (413, "request size exceeds max limit\n")
    reply = await hub.post("/v1/batch", gzip.compress(BATCH.ljust(2001)), {"content-encoding": "gzip"})
    assert (reply.status, reply.text()) == (413, "request size exceeds max limit\n")


@pytest.mark.spec("E033")
async def test_an_endless_body_ends_with_413_and_the_connection() -> None:
    hub = Hub(limits=IngestLimits(request_bytes=2000))
    parts = [b"x" * 1000] * 10_000
    reply = await hub.post("/v1/batch", parts)
    assert (reply.status, reply.headers["connection"]) == (413, "close")
    reply = await hub.post("/v1/batch", [b"x" * 1000] * 5)
    assert reply.status == 413
    assert "connection" not in reply.headers, "an honest sender is read to its end"


@pytest.mark.spec("E033")
@pytest.mark.parametrize("encoding", ["gzip", "deflate"])
async def test_a_zip_bomb_stops_at_the_limit(hub: Hub, encoding: str) -> None:
    squeeze = gzip.compress if encoding == "gzip" else zlib.compress
    bomb = squeeze(b" " * (64 << 20))
    tracemalloc.start()
    before = time.process_time()
    reply = await hub.post("/v1/batch", bomb, {"content-encoding": encoding})
    spent, peak = time.process_time() - before, tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert reply.status == 413
    assert peak < 3 * IngestLimits().request_bytes
    assert spent < 2


@pytest.mark.spec("E033")
async def test_events_over_the_limit_are_items_refused(hub: Hub) -> None:
    large = msgspec.json.encode({"userId": "u", "type": "track", "properties": {"x": "y" * 65536}})
    deep = b'{"userId":"u","type":"track","x":' + b"[" * 200 + b"]" * 200 + b"}"
    reply = await hub.batch(EVENT, large, EVENT, deep)
    assert reply.status == 200
    found = reply.json()
    assert found["accepted"] == 2
    assert [(item["index"], item["code"]) for item in found["refused"]] == [(1, "too_large"), (3, "too_deep")]
    assert [refused.raw for refused in hub.log.refused] == [large, deep], "the log cuts what it keeps"
    reply = await hub.post("/v1/track", large)
    assert reply.status == 400
    assert "more than 65536" in reply.text()


@pytest.mark.spec("E033")
async def test_nesting_up_to_the_limit_is_taken(hub: Hub) -> None:
    just = b'{"userId":"u","type":"track","x":' + b"[" * 199 + b"]" * 199 + b"}"
    shallow = msgspec.json.encode({"userId": "u", "type": "track", "text": "[{" * 500, "list": [{}] * 500})
    reply = await hub.batch(just, shallow)
    assert reply.body == b'{"success":true}'


@pytest.mark.spec("E033")
async def test_too_many_events_are_413() -> None:
    hub = Hub(limits=IngestLimits(request_events=3))
    assert (await hub.batch(*[EVENT] * 3)).status == 200
    reply = await hub.batch(*[EVENT] * 4)
    assert reply.status == 413
    assert "more than 3 events" in reply.text()
    assert len(hub.log.records) == 3


@pytest.mark.spec("E033")
async def test_a_body_that_stays_away_is_408() -> None:
    hub = Hub(limits=IngestLimits(body_s=0.01))
    sent: list[MutableMapping[str, Any]] = []
    pieces = [{"type": "http.request", "body": b"{", "more_body": True}]

    async def receive() -> MutableMapping[str, Any]:
        if pieces:
            return pieces.pop()
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    headers = [(name.encode(), value.encode()) for name, value in basic("wk_web").items()]
    scope = {"type": "http", "method": "POST", "path": "/v1/batch", "query_string": b"", "headers": headers}
    await hub.ingest(scope, receive, send)
    assert sent[0]["status"] == 408
    assert (b"connection", b"close") in sent[0]["headers"]
    assert hub.ingest._bodies.held_bytes == 0


async def test_a_sender_that_leaves_is_forgotten(hub: Hub) -> None:
    reply = await hub.post("/v1/batch", [])
    assert reply.status == 400
    assert hub.ingest._bodies.held_bytes == 0


@pytest.mark.spec("E033", "E036")
async def test_a_stranger_is_refused_before_its_body_costs_anything(hub: Hub) -> None:
    body = gzip.compress(b'{"batch":[' + b"0," * 2_000_000 + b"0]}")
    tracemalloc.start()
    for key, query in (("nope", ""), (None, "?writeKey=nope")):
        reply = await hub.post("/v1/batch" + query, body, {"content-encoding": "gzip"}, key=key)
        assert (reply.status, reply.text()) == (401, "invalid write key\n")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 1024 * 1024
    assert "connection" not in reply.headers, "an honest sender is read to its end"


@pytest.mark.spec("E030", "E036")
async def test_a_key_over_its_rate_is_refused_before_its_body_is_inflated() -> None:
    hub = Hub({"web": source(rate="1/s")})
    assert (await hub.post("/v1/batch", BATCH)).status == 200
    assert (await hub.post("/v1/batch", b"no gzip", {"content-encoding": "gzip"})).status == 429


@pytest.mark.spec("E031", "E036")
async def test_keys_revoked_and_rates_used_up_while_a_body_comes_count(hub: Hub) -> None:
    for change, status in ((source(write_keys=["other"]), 401), (source(enabled=False), 404)):
        hub.ingest.replace({"web": source()})
        pieces = [BATCH[20:], BATCH[:20]]

        def revoke(pieces: list[bytes] = pieces, change: SegmentSource = change) -> bytes:
            hub.ingest.replace({"web": change})
            return pieces.pop()

        assert (await posted(hub, pieces, revoke))[0] == status
    assert hub.log.records == []


async def posted(hub: Hub, pieces: list[bytes], take: Callable[[], bytes], key: str = KEY) -> tuple[int, Any]:
    """Post a body in pieces as `take` gives them; the status and the headers."""
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        return {"type": "http.request", "body": take(), "more_body": bool(pieces)}

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    headers = [(name.encode(), value.encode()) for name, value in basic(key).items()]
    scope = {"type": "http", "method": "POST", "path": "/v1/batch", "query_string": b"", "headers": headers}
    await hub.ingest(scope, receive, send)
    return sent[0]["status"], sent[0]["headers"]


@pytest.mark.spec("E033", "E036")
async def test_a_strangers_body_is_held_nowhere() -> None:
    hub = Hub(limits=IngestLimits(request_bytes=2000))
    held: list[int] = []
    pieces = [b"x" * 1000] * 3

    def take() -> bytes:
        held.append(hub.ingest._bodies.held_bytes)
        return pieces.pop()

    status, headers = await posted(hub, pieces, take, "nope")
    assert (status, held) == (401, [0, 0, 0])
    assert (b"connection", b"close") not in headers
    endless = [b"x" * 1000] * 20
    status, headers = await posted(hub, endless, endless.pop, "nope")
    assert (status, len(endless)) == (401, 11), "read for a while, and no further"
    assert (b"connection", b"close") in headers


@pytest.mark.spec("E033")
async def test_a_strangers_body_that_stays_away_is_not_waited_for() -> None:
    hub = Hub(limits=IngestLimits(body_s=0.01))
    sent: list[MutableMapping[str, Any]] = []

    async def receive() -> MutableMapping[str, Any]:
        await asyncio.Event().wait()
        raise AssertionError

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    headers = [(name.encode(), value.encode()) for name, value in basic("nope").items()]
    scope = {"type": "http", "method": "POST", "path": "/v1/batch", "query_string": b"", "headers": headers}
    await hub.ingest(scope, receive, send)
    assert sent[0]["status"] == 401
    assert (b"connection", b"close") in sent[0]["headers"]


@pytest.mark.spec("E030", "E033")
@pytest.mark.parametrize("items", [b"{}", b"0"])
@pytest.mark.parametrize("key", ["", ',"writeKey":"nope"', ',"writeKey":NaN'])
async def test_a_body_with_no_known_key_is_not_cut_up(
    hub: Hub, monkeypatch: pytest.MonkeyPatch, items: bytes, key: str
) -> None:
    def cut(*_: object) -> None:
        raise AssertionError

    monkeypatch.setattr(split, "sound", cut)
    monkeypatch.setattr(split, "salvaged", cut)
    body = b'{"batch":[%s]%s}' % (b",".join([items] * 100_000), key.encode())
    reply = await hub.post("/v1/batch", body, key=None)
    assert (reply.status, hub.log.refused) == (401, [])


@pytest.mark.spec("E033")
async def test_too_many_events_are_counted_before_they_are_made(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut(*_: object) -> None:
        raise AssertionError

    body = b'{"batch":[' + b",".join([b"{}"] * 1_300_000) + b"]}"
    monkeypatch.setattr(split, "sound", cut)
    tracemalloc.start()
    reply = await hub.post("/v1/batch", body)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert (reply.status, "more than 25000 events" in reply.text()) == (413, True)
    assert peak < 4 * 1024 * 1024


@pytest.mark.spec("E033")
async def test_counting_stops_at_one_too_many() -> None:
    hub = Hub(limits=IngestLimits(request_events=30))
    event = EVENT[:-1] + b',"x":[' + b"1," * 50 + b"1]}"
    assert (await hub.batch(*[event] * 30)).status == 200
    assert (await hub.batch(*[event] * 31)).status == 413
    assert (await hub.batch(*[event] * 29, b"5")).status == 200
    assert (await hub.batch(*[event] * 30, b"5")).status == 413
    assert len(hub.log.records) == 59


@pytest.mark.spec("E033")
async def test_a_large_batch_lets_others_have_their_turn(hub: Hub) -> None:
    turns = 0

    async def others() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    task = asyncio.create_task(others())
    assert (await hub.batch(*[b"{}"] * 20_000, EVENT)).json()["accepted"] == 1
    task.cancel()
    assert turns > 30


@pytest.mark.spec("E033", "E038")
async def test_slow_work_is_done_beside_the_loop(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    threads: list[threading.Thread] = []
    salvaged = split.salvaged

    def noted(body: bytes, most: int) -> split.Batch:
        threads.append(threading.current_thread())
        return salvaged(body, most)

    monkeypatch.setattr(split, "salvaged", noted)
    assert (await hub.batch(EVENT, b"NaN")).status == 200
    assert (await hub.batch(*[EVENT] * 300, b"NaN")).status == 200
    assert [thread is threading.main_thread() for thread in threads] == [True, False]


@pytest.mark.spec("E036")
async def test_what_a_body_inflates_to_is_counted() -> None:
    hub = Hub(limits=IngestLimits(held_bytes=1024 * 1024))
    for size, status in ((1024 * 1024 - 5000, 200), (1024 * 1024 + 1, 503)):
        body = gzip.compress(BATCH.ljust(size))
        assert (await hub.post("/v1/batch", body, {"content-encoding": "gzip"})).status == status
        assert hub.ingest._bodies.held_bytes == 0


@pytest.mark.spec("E036")
async def test_strangers_leave_room_for_those_with_a_key() -> None:
    hub = Hub(limits=IngestLimits(held_bytes=1024 * 1024))
    body = BATCH.ljust(600 * 1024)
    assert (await hub.post("/v1/batch", body, key=None)).status == 503
    assert (await hub.post("/v1/batch", body)).status == 200


@pytest.mark.spec("E036")
async def test_all_bodies_together_are_bounded() -> None:
    hub = Hub(limits=IngestLimits(held_bytes=1024 * 1024))
    reply = await hub.post("/v1/batch", b" " * (1024 * 1024 + 1))
    assert (reply.status, reply.headers["retry-after"]) == (503, "1")
    assert hub.ingest._bodies.held_bytes == 0
    assert (await hub.post("/v1/batch", BATCH)).status == 200
