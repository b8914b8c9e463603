"""HTTP/2 by many connections: how many there are, what is sent again, and what may have been taken."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

import pytest
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import StreamEnded
from hyperframe.frame import GoAwayFrame

from towpath.guard import Pin
from towpath.http import BODY_LIMIT_BYTES, Reply, Request, TransportError, Unsendable, Untrusted
from towpath.http2.connection import STREAMS
from towpath.http2.pool import Pool
from towpath.http2.stream import Stream, Unprocessed
from towpath.sandbox.http2 import Http2Server, serve_http2
from towpath.sandbox.http2_certificate import Certificate
from towpath.sandbox.http2_stream import REFUSED_STREAM, STREAM
from towpath.transport_http2 import TRIES, Http2Transport, connections_for

from .wire import OK, certificate, serve

pytestmark = pytest.mark.spec("P051")
Turn: TypeAlias = Callable[["Service", Any, Any], Awaitable[None]]
LONG_S = 20.0
SHORT_S = 0.3
RATE = 10_000.0
CERTIFICATE = Certificate.fresh("towpath.test")


class Service:
    """An app that answers 200, but for its first requests, which take their turns by script."""

    def __init__(self, *turns: Turn) -> None:
        self.turns = list(turns)
        self.scopes: list[Any] = []
        self.bodies: list[bytes] = []
        self.held = asyncio.Event()
        self.held.set()
        self.server: Http2Server

    @property
    def seen(self) -> int:
        return len(self.scopes)

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        self.bodies.append((await receive())["body"])
        self.scopes.append(scope)
        turn = self.turns.pop(0) if self.turns else respond
        await turn(self, scope, send)


async def respond(service: Service, scope: Any, send: Any) -> None:
    await service.held.wait()
    await answer(send, 200, b"ok")


async def hang(service: Service, scope: Any, send: Any) -> None:
    await asyncio.Event().wait()


async def go_away(service: Service, scope: Any, send: Any) -> None:
    scope["extensions"][STREAM]["go_away"]()


async def sever(service: Service, scope: Any, send: Any) -> None:
    service.server.connections.copy().pop().sever()


def reset(code: int) -> Turn:
    async def turn(service: Service, scope: Any, send: Any) -> None:
        scope["extensions"][STREAM]["reset"](code)

    return turn


async def reset_after_the_head(service: Service, scope: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": []})
    await send({"type": "http.response.body", "body": b"o", "more_body": True})
    scope["extensions"][STREAM]["reset"](REFUSED_STREAM)


async def answer(send: Any, status: int, body: bytes, *headers: tuple[bytes, bytes]) -> None:
    await send({"type": "http.response.start", "status": status, "headers": list(headers)})
    await send({"type": "http.response.body", "body": body})


class World:
    """A service over TLS and HTTP/2, and a transport that trusts it."""

    def __init__(self, service: Service, transport: Http2Transport, url: str) -> None:
        self.service = service
        self.transport = transport
        self.url = url

    async def send(self, body: bytes = b"{}", timeout_s: float = LONG_S) -> Reply:
        headers = {"authorization": "Bearer x", "content-type": "application/json"}
        request = Request("POST", f"{self.url}/v1/a%2Fb:send", headers, body, BODY_LIMIT_BYTES)
        return await self.transport.send(request, timeout_s=timeout_s)

    async def fail(self, timeout_s: float = LONG_S) -> TransportError:
        with pytest.raises(TransportError) as raised:
            await self.send(timeout_s=timeout_s)
        return raised.value

    async def until_seen(self, count: int) -> None:
        async with asyncio.timeout(LONG_S):
            while self.service.seen < count:  # noqa: ASYNC110 - the service counts, nothing else
                await asyncio.sleep(0.002)


@asynccontextmanager
async def world(*turns: Turn, rate_per_s: float = RATE) -> AsyncIterator[World]:
    service = Service(*turns)
    async with serve_http2(service, certificate=CERTIFICATE) as service.server:
        transport = Http2Transport(rate_per_s, root_certificate=CERTIFICATE.authority.encode())
        try:
            yield World(service, transport, service.server.url)
        finally:
            await transport.close()


async def test_a_request_arrives_over_http2_as_it_is() -> None:
    async with world() as there:
        reply = await there.send(b'{"a":1}')
        scope = there.service.scopes[0]
    assert (reply.status, reply.body) == (200, b"ok")
    assert (scope["http_version"], scope["method"], scope["raw_path"]) == ("2", "POST", b"/v1/a%2Fb:send")
    assert (b"authorization", b"Bearer x") in scope["headers"]
    assert there.service.bodies == [b'{"a":1}']


class TestConnections:
    """K = ceil(1.3 × rate × RTT / 100), where rate × RTT is what is under way."""

    @pytest.mark.parametrize(
        ("rate", "rtt_s", "count"),
        [(10_000, 0.06, 8), (10_000, 0.1, 13), (10_000, 0.001, 1), (1, 0.06, 1), (600, 0.5, 4)],
    )
    def test_the_formula(self, rate: float, rtt_s: float, count: int) -> None:
        assert connections_for(rate, rtt_s) == count

    async def test_many_at_a_time_share_one_and_none_is_opened_twice(self) -> None:
        async with world() as there:
            for _ in range(3):
                await asyncio.gather(*(there.send() for _ in range(60)))
            assert (there.service.server.opened, there.transport.connections) == (1, 1)

    async def test_as_many_as_what_is_under_way_needs(self) -> None:
        async with world() as there:
            there.service.held.clear()
            sends = [asyncio.create_task(there.send()) for _ in range(300)]
            await there.until_seen(300)
            assert there.transport.connections == 4
            there.service.held.set()
            assert {reply.status for reply in await asyncio.gather(*sends)} == {200}
            assert there.service.server.opened == 4
            assert there.service.server.peak <= STREAMS

    async def test_never_more_than_the_rate_needs_and_never_over_a_hundred_each(self) -> None:
        async with world(rate_per_s=200) as there:
            assert there.transport.most == 2
            there.service.held.clear()
            sends = [asyncio.create_task(there.send()) for _ in range(260)]
            await there.until_seen(200)
            for _ in range(50):
                await asyncio.sleep(0)
            assert there.service.seen == 200
            there.service.held.set()
            await asyncio.gather(*sends)
            assert (there.service.server.opened, there.service.server.peak) == (2, 100)

    async def test_who_finds_no_room_until_the_deadline_was_not_sent(self) -> None:
        async with world(*[hang] * 100, rate_per_s=1) as there:
            held = [asyncio.create_task(there.fail()) for _ in range(100)]
            await there.until_seen(100)
            error = await there.fail(SHORT_S)
            assert not error.sent
            assert "busy" in str(error)
            await there.transport.close()
            await asyncio.gather(*held)

    async def test_one_that_died_is_replaced(self) -> None:
        async with world(respond, sever) as there:
            await there.send()
            assert (await there.fail()).sent
            assert (await there.send()).status == 200


class TestSentAgain:
    """What surely was not processed is sent again at once; anything else may have been."""

    async def test_a_refused_stream(self) -> None:
        async with world(*[reset(REFUSED_STREAM)] * 4) as there:
            assert (await there.send()).status == 200
            assert there.service.seen == 5

    @pytest.mark.parametrize(
        ("error", "tries"),
        [
            (Unprocessed("refused"), TRIES),
            (TransportError("connection refused", sent=False), 1),
            (TransportError("reset", sent=True), 1),
            (Untrusted("towpath.test", "UnknownIssuer"), 1),
            (Unsendable("no URL"), 1),
        ],
    )
    async def test_only_what_surely_was_not_processed(
        self, error: TransportError, tries: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        tried = list[Stream]()

        async def failing(pool: Pool, stream: Stream) -> Reply:
            tried.append(stream)
            raise error

        monkeypatch.setattr(Pool, "exchange", failing)
        assert await failed("https://towpath.test/") is error
        assert len(tried) == tries
        assert len({stream.deadline_s for stream in tried}) == 1

    async def test_a_goaway_that_leaves_it_out(self) -> None:
        async with world(respond, go_away) as there:
            replies = [await there.send() for _ in range(3)]
            assert {reply.status for reply in replies} == {200}
            assert there.service.seen == 4

    async def test_a_goaway_in_the_middle_of_many(self) -> None:
        async with world(*[respond] * 30, go_away, *[respond] * 30, go_away) as there:
            replies = await asyncio.gather(*(there.send() for _ in range(120)))
            assert {reply.status for reply in replies} == {200}

    async def test_a_graceful_end_between_requests(self) -> None:
        async with world() as there:
            await there.send()
            there.service.server.go_away()
            assert (await there.send()).status == 200
            assert there.service.server.opened == 2

    async def test_a_service_that_always_refuses_is_left_alone_in_the_end(self) -> None:
        async with world(*[reset(REFUSED_STREAM)] * 50) as there:
            error = await there.fail()
            assert not error.sent
            assert there.service.seen <= 6

    @pytest.mark.parametrize("code", [0, 1, 2, 8, 11])
    async def test_another_reset_may_have_been_taken(self, code: int) -> None:
        async with world(reset(code)) as there:
            assert (await there.fail()).sent
            assert there.service.seen == 1

    @pytest.mark.parametrize("turn", [sever, reset_after_the_head])
    async def test_a_half_answer_may_have_been_taken(self, turn: Turn) -> None:
        async with world(turn) as there:
            assert (await there.fail()).sent
            assert there.service.seen == 1

    async def test_no_answer_ends_at_the_deadline_and_harms_nobody_else(self) -> None:
        async with world(hang) as there:
            silent = asyncio.create_task(there.fail(SHORT_S))
            await there.until_seen(1)
            assert (await there.send()).status == 200
            error = await silent
            assert error.sent
            assert "no complete answer within 0." in str(error)
            assert there.service.server.opened == 1

    @pytest.mark.parametrize("code", [0, 2, 11])
    async def test_any_goaway_that_leaves_it_out_was_not_processed(self, code: int) -> None:
        async with leaving(last=0, code=code) as url:
            assert not (await failed(url)).sent

    @pytest.mark.parametrize("code", [0, 2, 11])
    async def test_a_goaway_that_includes_it_may_have_been_taken(self, code: int) -> None:
        async with leaving(last=1, code=code) as url:
            assert (await failed(url)).sent

    async def test_a_refused_connection_was_not_sent(self) -> None:
        with socket.socket() as taken:
            taken.bind(("127.0.0.1", 0))  # bound, not listening
            error = await failed(f"https://127.0.0.1:{taken.getsockname()[1]}/")
        assert not error.sent

    async def test_an_answer_that_is_no_http2(self, tmp_path: Path) -> None:
        context, root = certificate(tmp_path)
        async with serve(OK, context) as wire:
            url = wire.url.replace("127.0.0.1", "towpath.test")
            error = await failed(url, pin=Pin("towpath.test", "127.0.0.1"), root_certificate=root)
        assert not error.sent
        assert "does not speak HTTP/2" in str(error)
        assert wire.heads == []

    async def test_a_service_that_says_nothing_is_not_waited_for_longer(
        self, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("towpath.transport_http2.CONNECT_S", SHORT_S)
        async with silent() as url:
            error = await failed(url)
        assert (error.sent, str(error)) == (False, "no HTTP/2 connection within 0.3 s")

    async def test_a_pin_is_for_its_host_alone(self) -> None:
        error = await failed("https://other.test/", pin=Pin("towpath.test", "127.0.0.1"))
        assert (error.sent, "not the pinned host" in str(error)) == (False, True)

    async def test_after_closing_nothing_is_sent(self) -> None:
        async with world() as there:
            await there.send()
            await there.transport.close()
            assert not (await there.fail()).sent
            assert there.service.seen == 1
        transport = Http2Transport(RATE)
        await transport.close()
        with pytest.raises(TransportError):
            await transport.send(Request("POST", there.url), timeout_s=LONG_S)


class TestLimits:
    """The same as of every transport."""

    async def test_redirects_are_not_followed(self) -> None:
        async def redirect(service: Service, scope: Any, send: Any) -> None:
            await answer(send, 307, b"", (b"location", service.server.url.encode() + b"/elsewhere"))

        async with world(redirect) as there:
            assert (await there.send()).status == 307
            assert there.service.seen == 1

    @pytest.mark.parametrize("beyond", [0, 1, 1_000_000])
    async def test_at_most_the_limit_of_a_body_is_read(self, beyond: int) -> None:
        async def long(service: Service, scope: Any, send: Any) -> None:
            await answer(send, 200, b"x" * (BODY_LIMIT_BYTES + beyond))

        async with world(long) as there:
            reply = await there.send()
            assert (len(reply.body), reply.cut) == (BODY_LIMIT_BYTES, beyond > 0)
            assert (await there.send()).body == b"ok"

    async def test_the_environment_names_no_proxy(self, monkeypatch: pytest.MonkeyPatch) -> None:
        async with serve(OK) as proxy:
            for name in ("https_proxy", "HTTPS_PROXY", "all_proxy", "ALL_PROXY"):
                monkeypatch.setenv(name, proxy.url)
            async with world() as there:
                assert (await there.send()).status == 200
        assert proxy.heads == []

    @pytest.mark.spec("D18")
    async def test_a_certificate_of_nobody_known_is_not_believed(self) -> None:
        service = Service()
        async with serve_http2(service, certificate=CERTIFICATE) as server:
            error = await failed(server.url, root_certificate=None)
        assert isinstance(error, Untrusted)
        assert service.seen == 0

    @pytest.mark.parametrize(
        "url", ["http://192.0.2.1/", "http://fcm.googleapis.com/", "file:///x", "no url"]
    )
    async def test_only_this_machine_is_called_without_tls(self, url: str) -> None:
        assert isinstance(await failed(url), Unsendable)

    async def test_root_certificates_that_are_none_are_named(self) -> None:
        broken = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"
        error = await failed("https://towpath.test/", root_certificate=broken)
        assert isinstance(error, Unsendable)
        assert "root certificates" in str(error)

    async def test_this_machine_is_called_over_http1(self) -> None:
        transport = Http2Transport(RATE)
        async with serve(OK) as wire:
            for url in (wire.url, wire.url.replace("127.0.0.1", "localhost")):
                assert (await transport.send(Request("POST", url, {}, b"{}"), timeout_s=LONG_S)).body == b"ok"
        await transport.close()
        assert "http/1.1" in wire.heads[0]

    async def test_closing_ends_what_is_under_way(self) -> None:
        async with world(hang) as there:
            sending = asyncio.create_task(there.fail())
            await there.until_seen(1)
            await there.transport.close()
            assert (await sending).sent

    async def test_a_cancelled_request_leaves_its_place_at_once(self) -> None:
        async with world(*[hang] * 100, rate_per_s=1) as there:
            held = [asyncio.create_task(there.send()) for _ in range(100)]
            await there.until_seen(100)
            for task in held:
                task.cancel()
            await asyncio.gather(*held, return_exceptions=True)
            assert (await there.send()).status == 200
            assert (there.service.server.peak, there.service.server.opened) == (100, 1)


async def failed(url: str, timeout_s: float = LONG_S, **options: Any) -> TransportError:
    """Send one request that fails, by a transport of its own."""
    transport = Http2Transport(RATE, **{"root_certificate": CERTIFICATE.authority.encode(), **options})
    try:
        with pytest.raises(TransportError) as raised:
            await transport.send(Request("POST", url, {}, b"{}"), timeout_s=timeout_s)
    finally:
        await transport.close()
    return raised.value


@asynccontextmanager
async def leaving(last: int, code: int) -> AsyncIterator[str]:
    """A server that answers every request by a GOAWAY which names `last`, and closes."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        peer = H2Connection(H2Configuration(client_side=False))
        peer.initiate_connection()
        asked = False
        while not asked and (data := await reader.read(65_536)):
            asked = any(isinstance(event, StreamEnded) for event in peer.receive_data(data))
            writer.write(peer.data_to_send())
        frame = GoAwayFrame(0, last_stream_id=last)
        frame.error_code = code
        writer.write(frame.serialize())
        await writer.drain()
        writer.transport.close()

    context = CERTIFICATE.context()
    context.set_alpn_protocols(["h2"])
    server = await asyncio.start_server(talk, "127.0.0.1", 0, ssl=context)
    try:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    finally:
        server.close()
        await server.wait_closed()


@asynccontextmanager
async def silent() -> AsyncIterator[str]:
    """A server that agrees to HTTP/2, and then says nothing."""

    async def talk(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.read()
        writer.transport.abort()

    context = CERTIFICATE.context()
    context.set_alpn_protocols(["h2"])
    server = await asyncio.start_server(talk, "127.0.0.1", 0, ssl=context)
    try:
        yield f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    finally:
        server.close()
        await server.wait_closed()
