"""All transports under one contract, against a server that misbehaves."""

from __future__ import annotations

import asyncio
import gzip
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from towpath.guard import Pin
from towpath.http import (
    BODY_LIMIT_BYTES,
    LARGEST_READ_BYTES,
    READ_LIMIT_BYTES,
    Reply,
    Request,
    Transport,
    TransportError,
    Unsendable,
    Untrusted,
)
from towpath.transport import PyreqwestTransport
from towpath.transport_aiohttp import AiohttpTransport
from towpath.transport_http1 import Http1Transport

from .wire import OK, certificate, serve

pytestmark = pytest.mark.spec("D03", "D12")
Make = Callable[..., Transport]
LONG_S = 20.0
SHORT_S = 0.25


@pytest.fixture(params=[Http1Transport, PyreqwestTransport, AiohttpTransport])
async def make(request: pytest.FixtureRequest) -> AsyncIterator[Make]:
    made: list[Transport] = []

    def opened(**options: Any) -> Transport:
        made.append(request.param(**options))
        return made[-1]

    yield opened
    for transport in made:
        await transport.close()


async def fail(transport: Transport, url: str, timeout_s: float = LONG_S) -> TransportError:
    with pytest.raises(TransportError) as raised:
        await transport.send(Request("POST", url, {}, b"{}"), timeout_s=timeout_s)
    return raised.value


async def test_a_request_arrives_as_it_is_and_the_answer_comes_back(make: Make) -> None:
    answer = b"HTTP/1.1 418 Teapot\r\nX-Rate: 5\r\nx-rate: 6\r\ncontent-length: 3\r\n\r\nabc"
    async with serve(answer) as wire:
        headers = {"authorization": "Bearer x", "user-agent": "towpath/1", "content-type": "application/json"}
        request = Request("PUT", wire.url + "/a%2Fb%3Fc?q=%C3%A9", headers, b'{"a":1}')
        reply = await make().send(request, timeout_s=LONG_S)
    assert (reply.status, reply.body) == (418, b"abc")
    assert reply.headers["x-rate"] == "5"
    assert wire.heads[0].startswith("put /path/a%2fb%3fc?q=%c3%a9 http/1.1\r\n")
    assert all(f"{name}: {value.lower()}\r\n" in wire.heads[0] for name, value in headers.items())
    assert wire.bodies == [b'{"a":1}']


async def test_connections_are_kept_alive(make: Make) -> None:
    async with serve(OK) as wire:
        transport = make()
        for _ in range(5):
            await transport.send(Request("POST", wire.url, {}, b"{}"), timeout_s=LONG_S)
    assert wire.connections == 1


@pytest.mark.parametrize(("method", "length"), [("GET", ""), ("HEAD", ""), ("POST", "content-length: 0\r\n")])
async def test_an_empty_body_is_announced_only_where_one_is_expected(
    make: Make, method: str, length: str
) -> None:
    async with serve(b"HTTP/1.1 204 No Content\r\n\r\n") as wire:
        reply = await make().send(Request(method, wire.url), timeout_s=LONG_S)
    assert reply == Reply(204, reply.headers, b"")
    assert length in wire.heads[0]
    assert ("content-length" in wire.heads[0]) is bool(length)


async def test_redirects_are_not_followed(make: Make) -> None:
    async with serve(OK) as elsewhere:
        answer = f"HTTP/1.1 307 T\r\nlocation: {elsewhere.url}\r\ncontent-length: 0\r\n\r\n".encode()
        async with serve(answer) as wire:
            reply = await make().send(Request("POST", wire.url), timeout_s=LONG_S)
    assert reply.status == 307
    assert elsewhere.heads == []


async def test_the_environment_names_no_proxy(make: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    async with serve(OK) as proxy, serve(OK) as wire:
        for name in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY", "https_proxy", "HTTPS_PROXY"):
            monkeypatch.setenv(name, proxy.url)
        await make().send(Request("POST", wire.url), timeout_s=LONG_S)
    assert (len(wire.heads), len(proxy.heads)) == (1, 0)


async def test_cookies_are_not_kept(make: Make) -> None:
    async with serve(b"HTTP/1.1 200 OK\r\nset-cookie: a=b\r\ncontent-length: 0\r\n\r\n") as wire:
        transport = make()
        for _ in range(2):
            await transport.send(Request("POST", wire.url), timeout_s=LONG_S)
    assert "cookie" not in wire.heads[1]


@pytest.mark.parametrize("framing", ["content-length", "chunked"])
@pytest.mark.parametrize("limit", [BODY_LIMIT_BYTES, READ_LIMIT_BYTES])
@pytest.mark.parametrize("beyond", [-1, 0, 1, 10**6])
async def test_at_most_the_limit_of_a_body_is_read(make: Make, limit: int, beyond: int, framing: str) -> None:
    size = limit + beyond
    answer = f"HTTP/1.1 200 OK\r\ncontent-length: {size}\r\n\r\n".encode() + b"x" * size
    if framing == "chunked":
        answer = b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n" + b"%x\r\n" % size
        answer += b"x" * size + b"\r\n0\r\n\r\n"
    async with serve(answer) as wire:
        transport = make()
        for _ in range(2):
            reply = await transport.send(Request("POST", wire.url, limit_bytes=limit), timeout_s=LONG_S)
            assert (len(reply.body), reply.cut) == (min(size, limit), beyond > 0)


async def test_the_largest_answer_that_may_be_asked_for_is_read(make: Make) -> None:
    json = b'"' + b"x" * (LARGEST_READ_BYTES - 2) + b'"'
    head = f"HTTP/1.1 200 OK\r\ncontent-length: {len(json)}\r\n\r\n".encode()
    async with serve(head + json) as wire:
        request = Request("GET", wire.url, limit_bytes=LARGEST_READ_BYTES)
        reply = await make().send(request, timeout_s=LONG_S)
    assert (reply.cut, len(reply.json())) == (False, LARGEST_READ_BYTES - 2)


async def test_an_endless_body_is_dropped_at_the_limit(make: Make) -> None:
    async def endless(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        while True:
            writer.write(b"1000\r\n" + b"x" * 4096 + b"\r\n")
            await writer.drain()

    async with serve(endless) as wire:
        reply = await make().send(Request("POST", wire.url), timeout_s=LONG_S)
        await asyncio.wait_for(wire.gone.wait(), LONG_S)
    assert (len(reply.body), reply.cut) == (READ_LIMIT_BYTES, True)


async def test_a_body_in_pieces_is_put_together(make: Make) -> None:
    async def pieces(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        for piece in b"abcdef":
            writer.write(b"1\r\n%c\r\n" % piece)
            await writer.drain()
        writer.write(b"0\r\n\r\n")

    async with serve(pieces) as wire:
        assert (await make().send(Request("GET", wire.url), timeout_s=LONG_S)).body == b"abcdef"


async def test_a_gzip_bomb_does_not_inflate(make: Make) -> None:
    bomb = gzip.compress(b"\0" * 20_000_000)
    answer = (
        f"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: {len(bomb)}\r\n\r\n".encode() + bomb
    )
    async with serve(answer) as wire:
        reply = await make().send(Request("POST", wire.url), timeout_s=LONG_S)
    assert reply.body == bomb
    assert reply.json() is None
    assert "accept-encoding" not in wire.heads[0]


async def test_a_slow_drip_ends_at_the_deadline(make: Make) -> None:
    async def drip(writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 100000\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(SHORT_S / 5)

    async with serve(drip) as wire:
        error = await fail(make(), wire.url, SHORT_S)
        await asyncio.wait_for(wire.gone.wait(), LONG_S)
    assert error.sent
    assert "0.25 s" in str(error)


async def test_no_answer_ends_at_the_deadline(make: Make) -> None:
    async def silence(writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with serve(silence) as wire:
        assert (await fail(make(), wire.url, SHORT_S)).sent


@pytest.mark.parametrize(
    "answer", [b"what?\r\n\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nabc", b"HTTP/1.1 200", b""]
)
async def test_garbage_and_half_answers_may_have_been_sent(make: Make, answer: bytes) -> None:
    async def partial(writer: asyncio.StreamWriter) -> None:
        writer.write(answer)
        await writer.drain()
        writer.close()

    async with serve(partial) as wire:
        assert (await fail(make(), wire.url)).sent


async def test_a_reset_may_have_been_sent(make: Make) -> None:
    async def reset(writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async with serve(reset) as wire:
        assert (await fail(make(), wire.url)).sent


async def test_a_refused_connection_was_not_sent(make: Make) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # bound, not listening
        error = await fail(make(), f"http://127.0.0.1:{taken.getsockname()[1]}/")
    assert not error.sent


async def test_bytes_that_are_no_text_in_a_header_do_no_harm(make: Make) -> None:
    answer = b"HTTP/1.1 200 OK\r\nx-odd: \xff\xfe\r\nretry-after: 5\r\ncontent-length: 2\r\n\r\nok"
    async with serve(answer) as wire:
        reply = await make().send(Request("POST", wire.url), timeout_s=LONG_S)
    assert (reply.status, reply.headers["retry-after"], reply.body) == (200, "5", b"ok")


@pytest.mark.parametrize("url", ["ht!tp://x", "file:///etc/passwd", "gopher://x/", "no url", "", "http://"])
async def test_what_is_no_url_can_never_be_sent(make: Make, url: str) -> None:
    assert isinstance(await fail(make(), url), Unsendable)


@pytest.mark.parametrize("host", ["a" * 64 + ".test", "a..test", ".test"])
async def test_what_is_no_name_can_never_be_called(make: Make, host: str) -> None:
    assert isinstance(await fail(make(), f"http://{host}/"), Unsendable)


async def test_a_cancelled_request_drops_its_connection(make: Make) -> None:
    async def silence(writer: asyncio.StreamWriter) -> None:
        await asyncio.Event().wait()

    async with serve(silence) as wire:
        task = asyncio.ensure_future(make().send(Request("POST", wire.url), timeout_s=LONG_S))
        await asyncio.wait_for(wire.asked.wait(), LONG_S)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task


@pytest.mark.spec("D12")
async def test_a_pinned_host_is_reached_at_its_address(make: Make) -> None:
    async with serve(OK) as wire:
        url = wire.url.replace("127.0.0.1", "towpath.test")
        await make(pin=Pin("towpath.test", "127.0.0.1")).send(Request("POST", url), timeout_s=LONG_S)
    assert "host: towpath.test:" in wire.heads[0]


async def test_tls_is_verified_against_the_name(make: Make, tmp_path: Path) -> None:
    context, root = certificate(tmp_path)
    pin, other = Pin("towpath.test", "127.0.0.1"), Pin("other.test", "127.0.0.1")
    async with serve(OK, context) as wire:
        url = wire.url.replace("127.0.0.1", "towpath.test")
        trusting = make(pin=pin, root_certificate=root)
        assert (await trusting.send(Request("POST", url), timeout_s=LONG_S)).status == 200
        strange = await fail(make(pin=pin), url)
        wrong = await fail(make(pin=other, root_certificate=root), url.replace("towpath", "other"))
    for error, host in ((strange, "towpath.test"), (wrong, "other.test")):
        assert isinstance(error, Untrusted), error
        assert not error.sent
        assert f"certificate of {host} cannot be trusted" in str(error)
        assert "SSL_CERT_FILE" in str(error)


@pytest.mark.filterwarnings("ignore:ssl.TLSVersion:DeprecationWarning")
async def test_old_tls_is_refused(make: Make, tmp_path: Path) -> None:
    context, root = certificate(tmp_path)
    context.minimum_version = ssl.TLSVersion.TLSv1
    context.maximum_version = ssl.TLSVersion.TLSv1_1
    context.set_ciphers("ALL:@SECLEVEL=0")
    async with serve(OK, context) as wire:
        transport = make(pin=Pin("towpath.test", "127.0.0.1"), root_certificate=root)
        assert not (await fail(transport, wire.url.replace("127.0.0.1", "towpath.test"))).sent
