"""Bodies: encodings, sizes, deadlines and memory."""

from __future__ import annotations

import asyncio
import gzip
import time
import tracemalloc
import zlib
from collections.abc import MutableMapping
from typing import Any

import msgspec
import pytest

from towpath.ingest import IngestLimits

from .support import Hub, basic

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
    assert [len(refused.raw) for refused in hub.log.refused] == [65536, len(deep)]
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


@pytest.mark.spec("E036")
async def test_all_bodies_together_are_bounded() -> None:
    hub = Hub(limits=IngestLimits(held_bytes=1024 * 1024))
    reply = await hub.post("/v1/batch", b" " * (1024 * 1024 + 1))
    assert (reply.status, reply.headers["retry-after"]) == (503, "1")
    assert hub.ingest._bodies.held_bytes == 0
    assert (await hub.post("/v1/batch", BATCH)).status == 200
