"""Connections kept for the next request: how long, what happens when one had ended, and closing them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import pytest

from towpath import transport_http1
from towpath.http import Request, TransportError
from towpath.transport_http1 import IDLE_S, LONGEST_IDLE_S, Http1Transport, idle_s

from .wire import OK, serve

pytestmark = pytest.mark.spec("D03", "D12")
LONG_S = 20.0
MARKED = {"idempotency-key": "m-1"}
Ending = Callable[[Any], Awaitable[None]]


@pytest.fixture
async def transport() -> AsyncIterator[Http1Transport]:
    opened = Http1Transport()
    yield opened
    await opened.close()


def asking(url: str, method: str = "POST", headers: dict[str, str] | None = None) -> Request:
    return Request(method, url, headers or {}, b"" if method == "GET" else b"{}")


def answering(*answers: bytes) -> Callable[[asyncio.StreamWriter], Awaitable[None]]:
    """One answer to each request in turn; after any but a whole one, the connection ends."""
    left = iter(answers)

    async def answer(writer: asyncio.StreamWriter) -> None:
        said = next(left)
        writer.write(said)
        if said != OK:
            await writer.drain()
            writer.close()

    return answer


async def ended(connection: Any) -> None:
    connection.drop()
    await connection.lost


async def ending(connection: Any) -> None:
    connection._transport.abort()  # without `drop`, as when the other side resets it


@pytest.mark.parametrize("how", [ended, ending])
async def test_a_connection_that_ended_before_the_request_was_not_used(
    transport: Http1Transport, monkeypatch: pytest.MonkeyPatch, how: Ending
) -> None:
    connected = transport._connected

    async def died(asked: Any) -> Any:
        connection = await connected(asked)
        await how(connection)
        return connection

    monkeypatch.setattr(transport, "_connected", died)
    async with serve(OK) as wire:
        with pytest.raises(TransportError, match="before the request") as raised:
            await asyncio.wait_for(transport.send(asking(wire.url), timeout_s=LONG_S), LONG_S / 2)
    assert not raised.value.sent
    assert wire.heads == []


@pytest.mark.parametrize(
    ("told", "reason"), [(True, "ended before the request$"), (False, "handler is closed$")]
)
async def test_a_closed_transport_that_only_fails_to_write_is_a_transport_error(
    transport: Http1Transport,
    monkeypatch: pytest.MonkeyPatch,
    told: bool,
    reason: str,
) -> None:
    connected = transport._connected

    class Closed:
        """A transport whose end only `write` tells, as uvloop's can."""

        def is_closing(self) -> bool:
            return False

        def write(self, data: bytes) -> None:
            raise RuntimeError("unable to perform operation; the handler is closed")

        def abort(self) -> None:
            """It is closed."""

    async def died(asked: Any) -> Any:
        connection: Any = await connected(asked)
        connection._transport.abort()
        await connection.lost
        if not told:
            connection.lost = asyncio.get_running_loop().create_future()
        connection._transport = Closed()
        return connection

    monkeypatch.setattr(transport, "_connected", died)
    async with serve(OK) as wire:
        with pytest.raises(TransportError, match=reason) as raised:
            await transport.send(asking(wire.url), timeout_s=LONG_S)
    assert not raised.value.sent


@pytest.mark.parametrize("how", [ended, ending])
async def test_a_kept_connection_that_ended_is_replaced(transport: Http1Transport, how: Ending) -> None:
    async with serve(OK) as wire:
        await transport.send(asking(wire.url), timeout_s=LONG_S)
        [connection] = transport._open
        await how(connection)
        await transport.send(asking(wire.url), timeout_s=LONG_S)
    assert (wire.connections, len(wire.heads)) == (2, 2)


async def test_another_kept_connection_takes_the_place_of_one_that_closes(transport: Http1Transport) -> None:
    async with serve(OK) as wire:
        await asyncio.gather(*[transport.send(asking(wire.url), timeout_s=LONG_S) for _ in range(2)])
        [kept] = transport._idle.values()
        kept[-1]._transport.abort()
        await transport.send(asking(wire.url), timeout_s=LONG_S)
    assert wire.connections == 2


@pytest.mark.parametrize(
    ("method", "headers"),
    [("GET", {}), ("POST", MARKED), ("POST", {"x-idempotency-key": "1"}), ("PUT", {"webhook-id": "msg_1"})],
)
async def test_what_can_be_repeated_is_where_a_kept_connection_ends(
    transport: Http1Transport, method: str, headers: dict[str, str]
) -> None:
    async with serve(answering(OK, b"", OK)) as wire:
        request = asking(wire.url, method, headers)
        replies = [await transport.send(request, timeout_s=LONG_S) for _ in range(2)]
    assert [reply.body for reply in replies] == [b"ok", b"ok"]
    assert (wire.connections, len(wire.heads)) == (2, 3)


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
async def test_what_cannot_be_repeated_is_not(transport: Http1Transport, method: str) -> None:
    async with serve(answering(OK, b"", OK)) as wire:
        await transport.send(asking(wire.url, method), timeout_s=LONG_S)
        with pytest.raises(TransportError, match="closed by the other side") as raised:
            await transport.send(asking(wire.url, method), timeout_s=LONG_S)
    assert raised.value.sent
    assert len(wire.heads) == 2


@pytest.mark.parametrize(
    ("answers", "requests"),
    [
        ((OK, b"", b"", OK), 3),  # once more, not for ever
        ((OK, b"HTTP/1.1 2", OK), 2),  # it began to answer, so it had it
    ],
)
async def test_it_is_repeated_once_and_only_without_a_byte(
    transport: Http1Transport, answers: tuple[bytes, ...], requests: int
) -> None:
    async with serve(answering(*answers)) as wire:
        await transport.send(asking(wire.url, "GET"), timeout_s=LONG_S)
        with pytest.raises(TransportError) as raised:
            await transport.send(asking(wire.url, "GET"), timeout_s=LONG_S)
    assert raised.value.sent
    assert len(wire.heads) == requests


async def test_a_new_connection_that_ends_is_not_replaced(transport: Http1Transport) -> None:
    async with serve(answering(b"", OK)) as wire:
        with pytest.raises(TransportError):
            await transport.send(asking(wire.url, "GET"), timeout_s=LONG_S)
    assert len(wire.heads) == 1


async def test_a_second_try_that_cannot_connect_may_still_have_been_sent(
    transport: Http1Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(asked: Any) -> Any:
        raise TransportError("no connection", sent=False)

    async with serve(answering(OK, b"")) as wire:
        await transport.send(asking(wire.url, "GET"), timeout_s=LONG_S)
        monkeypatch.setattr(transport, "_connected", refuse)
        with pytest.raises(TransportError, match="no connection") as raised:
            await transport.send(asking(wire.url, "GET"), timeout_s=LONG_S)
    assert raised.value.sent


@pytest.mark.parametrize(
    ("said", "expected_s"),
    [
        (None, IDLE_S),
        ("", IDLE_S),
        ("max=100", IDLE_S),
        ("timeout=soon", IDLE_S),
        ("mytimeout=9", IDLE_S),
        ("timeout=5", 4.0),
        ("timeout=5, max=1000", 4.0),
        ("max=5,Timeout = 20", 19.0),
        ('timeout="15"', 14.0),
        ("timeout=1", 0.0),
        ("timeout=999999999", LONGEST_IDLE_S),
    ],
)
def test_a_connection_is_kept_a_second_less_than_the_server_says(said: str | None, expected_s: float) -> None:
    assert idle_s({} if said is None else {"keep-alive": said}) == expected_s
    assert IDLE_S <= 4.0  # Node's servers close after 5 s, and do not always say so


@pytest.mark.parametrize(("said", "connections"), [(b"timeout=1", 2), (b"timeout=9", 1)])
async def test_the_server_s_word_is_heeded(transport: Http1Transport, said: bytes, connections: int) -> None:
    async with serve(b"HTTP/1.1 200 OK\r\nkeep-alive: %s\r\ncontent-length: 0\r\n\r\n" % said) as wire:
        for _ in range(2):
            await transport.send(asking(wire.url), timeout_s=LONG_S)
    assert wire.connections == connections


async def test_a_connection_past_its_time_is_not_used_before_the_sweep_either(
    transport: Http1Transport,
) -> None:
    async with serve(OK) as wire:
        await transport.send(asking(wire.url), timeout_s=LONG_S)
        [connection] = transport._open
        connection.idle_until_s = asyncio.get_running_loop().time()
        await transport.send(asking(wire.url), timeout_s=LONG_S)
        await asyncio.wait_for(wire.gone.wait(), LONG_S)
    assert wire.connections == 2


async def test_nothing_is_kept_of_a_host_without_a_connection(transport: Http1Transport) -> None:
    async with serve(b"HTTP/1.1 200 OK\r\nconnection: close\r\ncontent-length: 0\r\n\r\n") as wire:
        await transport.send(asking(wire.url), timeout_s=LONG_S)
    assert transport._idle == {}


async def test_closing_ends_a_connection_that_is_being_made(transport: Http1Transport) -> None:
    accepted, gone = asyncio.Event(), asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        accepted.set()
        while await reader.read(1000):
            pass
        gone.set()
        writer.close()

    async with await asyncio.start_server(say_nothing, "127.0.0.1", 0) as server:
        url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
        task = asyncio.ensure_future(transport.send(asking(url), timeout_s=LONG_S))
        await asyncio.wait_for(accepted.wait(), LONG_S)
        await transport.close()
        with pytest.raises(TransportError, match="closed") as raised:
            await task
        await asyncio.wait_for(gone.wait(), LONG_S)
    assert not raised.value.sent


async def test_no_connection_is_begun_after_closing(
    transport: Http1Transport, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked, answered = asyncio.Event(), asyncio.Event()

    async def look_up(origin: Any) -> list[str]:
        asked.set()
        await answered.wait()
        return ["127.0.0.1"]

    monkeypatch.setattr(transport._dialer, "_look_up", look_up)
    async with serve(OK) as wire:
        task = asyncio.ensure_future(transport.send(asking(wire.url), timeout_s=LONG_S))
        await asked.wait()
        await transport.close()
        answered.set()
        with pytest.raises(TransportError, match=transport_http1.CLOSED) as raised:
            await task
    assert not raised.value.sent
    assert wire.connections == 0
