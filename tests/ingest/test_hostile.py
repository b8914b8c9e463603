"""Hostile senders over real sockets: each gets a clean answer or a closed connection; nobody else waits."""

from __future__ import annotations

import re
import socket
import threading
from collections.abc import Iterator
from contextlib import closing

import msgspec
import pytest

from towpath.ingest import IngestLimits
from towpath.ingest.protocol import BoundedHttp

from .conftest import Serve
from .support import Hub, basic

EVENT = b'{"type":"track","userId":"u1"}'
AUTH = b"Authorization: " + basic("wk_web")["authorization"].encode()


@pytest.fixture
def bounded(monkeypatch: pytest.MonkeyPatch) -> Hub:
    """A hub with short deadlines and low limits."""
    monkeypatch.setattr(BoundedHttp, "head_s", 0.2)
    return Hub(limits=IngestLimits(body_s=0.2, request_bytes=10_000))


def talk(port: int, *pieces: bytes, end: bool = False) -> bytes:
    """Send pieces, then read until the other side closes (or, with `end`, after we did)."""
    with closing(socket.create_connection(("127.0.0.1", port), timeout=10)) as connection:
        try:
            for piece in pieces:
                connection.sendall(piece)
            if end:
                connection.shutdown(socket.SHUT_WR)
        except (BrokenPipeError, ConnectionResetError):
            pass
        return b"".join(received(connection))


def received(connection: socket.socket) -> Iterator[bytes]:
    try:
        while part := connection.recv(65536):
            yield part
    except ConnectionResetError:
        return


def statuses(answer: bytes) -> list[int]:
    return [int(status) for status in re.findall(rb"HTTP/1\.1 (\d{3}) ", answer)]


def head(*lines: bytes, path: bytes = b"/v1/batch") -> bytes:
    return b"\r\n".join(
        [b"POST " + path + b" HTTP/1.1", b"Host: x", AUTH, b"Connection: close", *lines, b"", b""]
    )


SMUGGLED = b"POST /v1/track?writeKey=wk_web HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n\r\n"

SMUGGLING = [
    head(b"Content-Length: 6", b"Transfer-Encoding: chunked") + b"0\r\n\r\n" + SMUGGLED,
    head(b"Transfer-Encoding: chunked", b"Content-Length: 6") + b"0\r\n\r\n" + SMUGGLED,
    head(b"Content-Length: 5", b"Content-Length: 6") + b"0\r\n\r\n" + SMUGGLED,
    head(b"Content-Length: 5, 6") + b"0\r\n\r\n" + SMUGGLED,
    head(b"Content-Length: +5") + b"hello" + SMUGGLED,
    head(b"Content-Length: -5") + b"hello" + SMUGGLED,
    head(b"Content-Length: 0x5") + b"hello" + SMUGGLED,
    head(b"Content-Length: 5 5") + b"hello" + SMUGGLED,
    head(b"Content-Length: 99999999999999999999999") + b"hello",
    head(b"Content-Length : 5") + b"hello" + SMUGGLED,
    head(b"Transfer-Encoding: xchunked") + b"0\r\n\r\n" + SMUGGLED,
    head(b"Transfer-Encoding: chunked, identity") + b"0\r\n\r\n" + SMUGGLED,
    head(b"Transfer-Encoding: identity", b"Transfer-Encoding: chunked", b"Content-Length: 5")
    + b"0\r\n\r\n"
    + SMUGGLED,
    head(b"Transfer-Encoding : chunked") + b"0\r\n\r\n" + SMUGGLED,
    head(b"Transfer-Encoding:\x0bchunked") + b"0\r\n\r\n" + SMUGGLED,
    head(b"Transfer-Encoding: chunked") + b"-1\r\n\r\n" + SMUGGLED,
    head(b"Transfer-Encoding: chunked") + b"5;\nhello\r\n0\r\n\r\n" + SMUGGLED,
    head(b"Transfer-Encoding: chunked") + b"fffffffffffffffff\r\nhello" + SMUGGLED,
    head(b"Transfer-Encoding: chunked") + b"5\r\nhelloXX0\r\n\r\n" + SMUGGLED,
    head(b" folded: x", b"Content-Length: 5") + b"hello" + SMUGGLED,
    head(b"X: a\x00b", b"Content-Length: 5") + b"hello" + SMUGGLED,
    head(b"No colon", b"Content-Length: 5") + b"hello" + SMUGGLED,
    b"POST /v1/batch HTTP/1.1\nHost: x\nContent-Length: 5\n\nhello",
    b"POST /v1/b\xffatch HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST http:// HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST /v1/batch HTTP/9.9\r\nHost: x\r\n\r\n",
    b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"NOPE /v1/batch HTTP/1.1\r\n\r\n",
]


@pytest.mark.spec("E030", "E038")
def test_smuggling_gets_an_error_and_the_connection_closed(bounded: Hub, serve: Serve) -> None:
    port = serve(bounded.ingest)
    for attempt in SMUGGLING:
        answer = talk(port, attempt)
        assert len(statuses(answer)) <= 1, attempt
        assert all(400 <= status < 500 for status in statuses(answer)), (attempt, answer)
    assert bounded.log.records == []
    assert b" 200 " in talk(port, head(b"Content-Length: %d" % len(EVENT), path=b"/v1/track"), EVENT)


@pytest.mark.spec("E033")
def test_endless_bodies_and_lying_lengths_end(bounded: Hub, serve: Serve) -> None:
    port = serve(bounded.ingest)
    chunk = b"1000\r\n" + b"x" * 4096 + b"\r\n"
    endless = [head(b"Transfer-Encoding: chunked"), *[chunk] * 200]
    assert statuses(talk(port, *endless)) in ([413], []), "the answer, or a reset while we still sent"
    assert statuses(talk(port, head(b"Content-Length: 100"), b"short", end=True)) in ([400], [408], [])
    assert statuses(talk(port, head(b"Content-Length: 100"), b"short")) == [408]
    honest = talk(port, head(b"Content-Length: 20000"), b"x" * 20000)
    assert statuses(honest) == [413]
    assert bounded.ingest._bodies.held_bytes == 0


@pytest.mark.spec("E033")
@pytest.mark.parametrize("beginning", [b"", b"P", b"POST /v1/batch HTTP/1.1\r\nHost: x\r\nX-Slow: "])
def test_a_slow_head_is_ended(bounded: Hub, serve: Serve, beginning: bytes) -> None:
    assert statuses(talk(serve(bounded.ingest), beginning)) == [408]


@pytest.mark.spec("E033")
def test_a_slow_second_head_is_ended_too(bounded: Hub, serve: Serve) -> None:
    first = (
        head(b"Content-Length: %d" % len(EVENT), path=b"/v1/track").replace(b"Connection: close\r\n", b"")
        + EVENT
    )
    assert statuses(talk(serve(bounded.ingest), first + b"POST /v1")) == [200, 408]


@pytest.mark.spec("E033")
@pytest.mark.parametrize("many", [True, False])
def test_an_endless_head_is_ended(
    bounded: Hub, serve: Serve, monkeypatch: pytest.MonkeyPatch, *, many: bool
) -> None:
    monkeypatch.setattr(BoundedHttp, "head_s", 60.0)
    piece = b"X-Y: " + b"z" * 1000 + b"\r\n" if many else b"z" * 1000
    pieces = [b"POST /v1/batch HTTP/1.1\r\nX: ", *[piece] * 2000]
    assert statuses(talk(serve(bounded.ingest), *pieces)) in ([431], [])


@pytest.mark.spec("E033")
def test_idle_connections_do_not_hold_others_up(hub: Hub, serve: Serve) -> None:
    port = serve(hub.ingest)
    idle = [socket.create_connection(("127.0.0.1", port), timeout=10) for _ in range(200)]
    for each in idle:
        each.sendall(b"POST /v1/batch HTTP/1.1\r\nContent-Le")
    answer = talk(port, head(b"Content-Length: %d" % len(EVENT), path=b"/v1/track"), EVENT)
    assert statuses(answer) == [200]
    for each in idle:
        each.close()


def test_requests_in_one_piece_are_each_answered(hub: Hub, serve: Serve) -> None:
    one = head(b"Content-Length: %d" % len(EVENT), path=b"/v1/track")
    keep = one.replace(b"Connection: close\r\n", b"") + EVENT
    assert statuses(talk(serve(hub.ingest), keep * 5 + one + EVENT)) == [200] * 6
    assert len(hub.log.records) == 6


@pytest.mark.spec("E036", "P1")
def test_many_senders_at_once(hub: Hub, serve: Serve) -> None:
    port = serve(hub.ingest)
    seen: list[list[int]] = []

    def send(sender: int) -> None:
        body = [
            msgspec.json.encode({"batch": [{"type": "track", "userId": f"{sender}", "event": i}]})
            for i in range(20)
        ]
        requests = [
            head(b"Content-Length: %d" % len(each)).replace(b"Connection: close\r\n", b"") + each
            for each in body
        ]
        last = head(b"Content-Length: 0", path=b"/v1/track")
        seen.append(statuses(talk(port, b"".join(requests) + last)))

    threads = [threading.Thread(target=send, args=(sender,)) for sender in range(16)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert seen == [[200] * 20 + [400]] * 16
    by_sender: dict[str | None, list[int]] = {}
    for message in hub.log.messages():
        by_sender.setdefault(message.user_id, []).append(message.event)
    assert len(by_sender) == 16
    assert all(events == list(range(20)) for events in by_sender.values()), "each sender's order is kept"


@pytest.mark.spec("E033", "E038")
@pytest.mark.parametrize(
    "body",
    [
        b'{"batch":[{"userId":"u","type":"track","x":{'
        + b",".join(b'"k%d":0' % i for i in range(300_000))
        + b"}}]}",
        b'{"batch":[' + b"[" * 2_000_000 + b"]" * 2_000_000 + b"]}",
        b'{"batch":[' + b"[" * 4_000_000,
        b'{"batch":[' + b"0," * 2_000_000 + b"0]}",
        b'{"batch":["' + b"\\\\" * 2_000_000 + b'"]}',
        b'{"batch":[' + b'"",' * 1_300_000 + b"NaN]}",
        b'"' * 4_000_000,
        b"," * 4_000_000,
    ],
    ids=["many keys", "deep", "open", "many items", "escapes", "many strings", "quotes", "commas"],
)
async def test_bodies_made_to_be_slow(hub: Hub, body: bytes) -> None:
    reply = await hub.post("/v1/batch", body)
    assert 400 <= reply.status < 500
    assert hub.log.records == []
