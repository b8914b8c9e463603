"""The default transport against what only a client of its own has to think of: reuse, bounds, addresses."""

from __future__ import annotations

import asyncio
import gc
import weakref
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import suppress
from typing import Any

import pytest

from towpath import transport_http1
from towpath.http import READ_LIMIT_BYTES, Request, TransportError, Unsendable
from towpath.transport_http1 import Http1Transport

from .wire import OK, serve

pytestmark = pytest.mark.spec("D03", "D12")
LONG_S = 20.0


@pytest.fixture
async def transport() -> AsyncIterator[Http1Transport]:
    opened = Http1Transport()
    yield opened
    await opened.close()


def post(url: str, headers: dict[str, str] | None = None) -> Request:
    return Request("POST", url, headers or {}, b"{}")


@pytest.mark.parametrize(
    "answer",
    [
        OK + OK,  # an answer to a question nobody asked
        OK + b"HTTP/1.1 2",
        b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 2\r\n\r\nok",
        b"HTTP/1.0 200 OK\r\ncontent-length: 2\r\n\r\nok",
    ],
)
async def test_a_connection_in_doubt_is_not_used_again(transport: Http1Transport, answer: bytes) -> None:
    async with serve(answer) as wire:
        for _ in range(2):
            reply = await transport.send(post(wire.url), timeout_s=LONG_S)
            assert (reply.status, reply.body) == (200, b"ok")
    assert wire.connections == 2


async def test_an_answer_to_a_head_request_has_no_body(transport: Http1Transport) -> None:
    async with serve(b"HTTP/1.1 200 OK\r\ncontent-length: 900\r\n\r\n") as wire:
        for _ in range(2):
            reply = await transport.send(Request("HEAD", wire.url), timeout_s=LONG_S)
            assert (reply.status, reply.body) == (200, b"")


async def test_an_answer_may_end_with_its_connection(transport: Http1Transport) -> None:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\nall of it")
        await writer.drain()
        writer.close()

    async with serve(answer) as wire:
        assert (await transport.send(post(wire.url), timeout_s=LONG_S)).body == b"all of it"


async def test_a_chunked_answer_may_not_end_with_its_connection(transport: Http1Transport) -> None:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n3\r\nabc\r\n")
        await writer.drain()
        writer.close()

    async with serve(answer) as wire:
        with pytest.raises(TransportError) as raised:
            await transport.send(post(wire.url), timeout_s=LONG_S)
    assert raised.value.sent


def endless(start: bytes, piece: bytes) -> Callable[[asyncio.StreamWriter], Awaitable[None]]:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(start)
        while True:
            writer.write(piece)
            await writer.drain()

    return answer


@pytest.mark.parametrize("piece", [b"x-a: " + b"b" * 1000 + b"\r\n", b"a" * 1000])
async def test_a_head_without_end_is_given_up(transport: Http1Transport, piece: bytes) -> None:
    async with serve(endless(b"HTTP/1.1 200 OK\r\nx: ", piece)) as wire:
        with pytest.raises(TransportError, match="head"):
            await transport.send(post(wire.url), timeout_s=LONG_S)
        await asyncio.wait_for(wire.gone.wait(), LONG_S)


async def test_interim_answers_without_end_are_given_up(transport: Http1Transport) -> None:
    async with serve(endless(b"", b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n")) as wire:
        with pytest.raises(TransportError, match="head"):
            await transport.send(post(wire.url), timeout_s=LONG_S)
        await asyncio.wait_for(wire.gone.wait(), LONG_S)


@pytest.mark.parametrize("trailer", [b"1;" + b"a" * 1000 + b"\r\nx\r\n", b"0\r\nx: " + b"a" * 1000])
async def test_framing_without_end_is_cut(transport: Http1Transport, trailer: bytes) -> None:
    head = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n"
    async with serve(endless(head + trailer, b"a" * 1000)) as wire:
        with suppress(TransportError):
            await transport.send(post(wire.url), timeout_s=LONG_S)
        await asyncio.wait_for(wire.gone.wait(), LONG_S)


async def test_what_came_of_an_answer_without_end_is_let_go_at_once(transport: Http1Transport) -> None:
    piece = b"%x\r\n%s\r\n" % (1 << 18, bytes(1 << 18))
    async with serve(endless(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n", piece)) as wire:
        gc.disable()
        try:
            sending = asyncio.ensure_future(transport.send(post(wire.url), timeout_s=LONG_S))
            await wire.asked.wait()
            connections = [weakref.ref(connection) for connection in transport._open]
            reply = await sending
            await transport.close()
            await asyncio.sleep(0)
            assert [connection() for connection in connections] == [None], "the collector has to find it"
        finally:
            gc.enable()
    assert len(reply.body) == READ_LIMIT_BYTES


async def test_trailers_are_no_headers(transport: Http1Transport) -> None:
    answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n1\r\na\r\n0\r\nretry-after: 9\r\n\r\n"
    async with serve(answer) as wire:
        reply = await transport.send(post(wire.url), timeout_s=LONG_S)
    assert (reply.body, reply.headers) == (b"a", {"transfer-encoding": "chunked"})


@pytest.mark.parametrize("value", ["a\r\nx-injected: 1", "a\nb", "a\rb", "\u20ac"])
async def test_no_header_can_hold_a_line(transport: Http1Transport, value: str) -> None:
    async with serve(OK) as wire:
        with pytest.raises(Unsendable):
            await transport.send(post(wire.url, {"x-given": value}), timeout_s=LONG_S)
    assert wire.heads == []


async def test_framing_is_not_the_callers(transport: Http1Transport) -> None:
    async with serve(OK) as wire:
        given = {"content-length": "900", "transfer-encoding": "chunked", "host": "other"}
        await transport.send(post(wire.url, given), timeout_s=LONG_S)
    assert "content-length: 2\r\n" in wire.heads[0]
    assert "transfer-encoding" not in wire.heads[0]
    assert "host: other\r\n" in wire.heads[0]


async def test_a_name_and_password_in_the_url_are_sent_as_basic(transport: Http1Transport) -> None:
    async with serve(OK) as wire:
        url = wire.url.replace("http://", "http://me:p%40ss@")
        await transport.send(post(url), timeout_s=LONG_S)
    assert "authorization: basic bwu6cebzcw==\r\n" in wire.heads[0]


async def test_closing_ends_what_is_under_way_and_lets_nothing_in(transport: Http1Transport) -> None:
    async def silence(writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with serve(silence) as wire:
        task = asyncio.ensure_future(transport.send(post(wire.url), timeout_s=LONG_S))
        await asyncio.wait_for(wire.asked.wait(), LONG_S)
        await transport.close()
        with pytest.raises(TransportError):
            await task
        with pytest.raises(TransportError) as raised:
            await transport.send(post(wire.url), timeout_s=LONG_S)
    assert not raised.value.sent


async def test_connections_that_rest_for_long_are_closed(
    transport: Http1Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(transport_http1, "IDLE_S", 0.01)
    async with serve(OK) as wire:
        await transport.send(post(wire.url), timeout_s=LONG_S)
        await asyncio.wait_for(wire.gone.wait(), LONG_S)


@pytest.mark.parametrize("first", ["refuses", "hangs"])
async def test_the_next_address_of_a_name_is_tried(
    transport: Http1Transport, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    loop, looked_up = asyncio.get_running_loop(), []
    create_connection = loop.create_connection
    monkeypatch.setattr(transport_http1, "HEAD_START_S", 0.01)

    async def look_up(host: str, port: int, **_: Any) -> list[Any]:
        looked_up.append(host)
        await asyncio.sleep(0)
        return [(10, 1, 6, "", ("::2", port, 0, 0)), (2, 1, 6, "", ("127.0.0.1", port))]

    async def connect(factory: Any, host: str, port: int, **options: Any) -> Any:
        if host != "127.0.0.1":
            if first == "refuses":
                raise ConnectionRefusedError(host)
            await asyncio.Event().wait()
        return await create_connection(factory, host, port, **options)

    monkeypatch.setattr(loop, "getaddrinfo", look_up)
    monkeypatch.setattr(loop, "create_connection", connect)
    async with serve(OK) as wire:
        request = post(wire.url.replace("127.0.0.1", "two.test"))
        replies = await asyncio.gather(*[transport.send(request, timeout_s=LONG_S) for _ in range(4)])
    assert {reply.status for reply in replies} == {200}
    assert looked_up == ["two.test"]


async def test_a_name_that_does_not_exist_was_not_sent(transport: Http1Transport) -> None:
    with pytest.raises(TransportError) as raised:
        await transport.send(post("http://nowhere.invalid/"), timeout_s=LONG_S)
    assert not raised.value.sent
