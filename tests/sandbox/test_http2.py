"""The sandbox over HTTP/2 and TLS: streams, windows, resets, GOAWAY, the fallback to HTTP/1.1."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import aiohttp
import pytest
from h2.config import H2Configuration
from h2.connection import ConnectionState, H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    PingAckReceived,
    RemoteSettingsChanged,
    ResponseReceived,
    StreamEnded,
    StreamReset,
)
from h2.settings import SettingCodes, Settings
from hyperframe.frame import GoAwayFrame, HeadersFrame, PingFrame
from pyreqwest.client import ClientBuilder
from pyreqwest.exceptions import RequestError

from towpath.sandbox.exchange import Answer, Incoming
from towpath.sandbox.faults import Faults
from towpath.sandbox.fcm import FcmSimulator
from towpath.sandbox.firebase import PROJECT
from towpath.sandbox.front import Front
from towpath.sandbox.http2 import BODY_LIMIT_BYTES, LINGER_S, Http2Server, serve_http2
from towpath.sandbox.http2_certificate import Certificate

from .conftest import SetClock, until
from .fcm_calls import MESSAGING

pytestmark = pytest.mark.spec("P060", "D12")

SEND = f"/v1/projects/{PROJECT}/messages:send"
REFUSED, CALM, INTERNAL = 7, 11, 2


class Peer:
    """A client of bare frames: what it got of each stream, and what ended."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, window: int) -> None:
        self.h2 = H2Connection(H2Configuration(header_encoding="utf-8"))
        values = {SettingCodes.INITIAL_WINDOW_SIZE: window, SettingCodes.ENABLE_PUSH: 0}
        self.h2.local_settings = Settings(client=True, initial_values=values)
        self.h2.initiate_connection()
        self.streams_limit: int | None = None
        self.bodies: dict[int, bytes] = {}
        self.statuses: dict[int, int] = {}
        self.ended: set[int] = set()
        self.resets: dict[int, int] = {}
        self.last: int | None = None
        self.pongs = 0
        self.closed = asyncio.Event()
        self.acknowledging = True
        self._reader = reader
        self._writer = writer
        self._reading = asyncio.ensure_future(self._read())
        self.flush()

    def request(self, path: str, body: bytes = b"", *, token: str = "", end: bool = True) -> int:
        stream = self.h2.get_next_available_stream_id()
        fields = {":method": "POST", ":scheme": "https", ":authority": "localhost", ":path": path}
        headers = [*fields.items(), ("authorization", f"Bearer {token}")]
        self.h2.send_headers(stream, headers, end_stream=end and not body)
        if body:
            self.h2.send_data(stream, body, end_stream=end)
        return stream

    def request_anyway(self, stream: int, path: str) -> None:
        """Send a request that h2 would not."""
        block = self.h2.encoder.encode([(":method", "GET"), (":path", path), (":scheme", "https")])
        self.write(HeadersFrame(stream, block, flags=["END_HEADERS", "END_STREAM"]).serialize())

    def flush(self) -> None:
        self.write(self.h2.data_to_send())

    def write(self, data: bytes) -> None:
        self._writer.write(data)

    async def gone(self) -> None:
        """Wait until the connection is closed."""
        await until(self.closed.is_set)

    async def end(self) -> None:
        self._reading.cancel()
        await asyncio.gather(self._reading, return_exceptions=True)
        self._writer.transport.abort()

    async def _read(self) -> None:
        try:
            while True:
                head = await self._reader.readexactly(9)
                frame = head + await self._reader.readexactly(int.from_bytes(head[:3], "big"))
                for event in self.h2.receive_data(frame):
                    self._take(event)
                self.flush()
        except (ConnectionError, ssl.SSLError, asyncio.IncompleteReadError):
            pass
        finally:
            self.closed.set()

    def _take(self, event: Any) -> None:
        if isinstance(event, RemoteSettingsChanged):
            changed = event.changed_settings.get(SettingCodes.MAX_CONCURRENT_STREAMS)
            self.streams_limit = changed.new_value if changed else self.streams_limit
        elif isinstance(event, ResponseReceived):
            self.statuses[event.stream_id] = int(next(iter(event.headers or []))[1])
        elif isinstance(event, DataReceived):
            self.bodies[event.stream_id] = self.bodies.get(event.stream_id, b"") + (event.data or b"")
            if self.acknowledging:
                self.h2.acknowledge_received_data(event.flow_controlled_length or 0, event.stream_id)
        elif isinstance(event, StreamEnded):
            self.ended.add(event.stream_id)
        elif isinstance(event, StreamReset):
            self.resets[event.stream_id] = int(event.error_code or 0)
        elif isinstance(event, ConnectionTerminated):
            self.last = event.last_stream_id
            # h2 takes this for the end; the streams before it go on.
            self.h2.state_machine.state = ConnectionState.CLIENT_OPEN
        elif isinstance(event, PingAckReceived):
            self.pongs += 1


def trusting(server: Http2Server, *protocols: str) -> ssl.SSLContext:
    context = ssl.create_default_context(cadata=server.authority)
    context.set_alpn_protocols(list(protocols))
    return context


@asynccontextmanager
async def peer(server: Http2Server, window: int = 65535) -> AsyncIterator[Peer]:
    port = int(server.url.rpartition(":")[2])
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trusting(server, "h2"))
    connected = Peer(reader, writer, window)
    try:
        yield connected
    finally:
        await connected.end()


class Echo:
    """Answers with the body; paths that begin with /wait wait until they are let go."""

    def __init__(self) -> None:
        self.seen: list[str] = []
        self.gate = asyncio.Event()
        self.left: list[str] = []

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        request = await receive()
        self.seen.append(scope["path"])
        if scope["path"].startswith("/wait"):
            await self.gate.wait()
        if scope["path"] == "/leave":
            self.left.append((await receive())["type"])
            return
        ended = scope.get("extensions", {}).get("towpath.stream", {})
        if scope["path"].startswith("/away"):
            ended["go_away"]()
            return
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": request["body"]})


@pytest.fixture
def app() -> Echo:
    return Echo()


@pytest.fixture
async def server(app: Echo) -> AsyncIterator[Http2Server]:
    async with serve_http2(app, linger_s=0.0) as running:
        yield running


# -- requests ------------------------------------------------------------------------------------------


async def test_a_client_that_asks_for_http2_gets_it(server: Http2Server) -> None:
    builder = ClientBuilder().add_root_certificate_pem(server.authority.encode()).http2(enable=True)
    async with builder.build() as client:
        got = await client.post(f"{server.url}/a%2Fb?c=d").body_bytes(b"hello").build().send()
        assert (got.version, bytes(await got.bytes())) == ("HTTP/2.0", b"hello")
    assert (server.opened, server.streams) == (1, 1)


async def test_a_client_that_does_not_gets_http_1(server: Http2Server, app: Echo) -> None:
    connector = aiohttp.TCPConnector(ssl=trusting(server, "http/1.1"))
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.post(f"{server.url}/x", data=b"hello") as got,
    ):
        assert (got.version, await got.read()) == (aiohttp.HttpVersion11, b"hello")
    assert app.seen == ["/x"]


async def test_the_certificate_names_localhost_and_must_be_trusted(server: Http2Server) -> None:
    connector = aiohttp.TCPConnector(ssl=trusting(server, "http/1.1"))
    async with (
        aiohttp.ClientSession(connector=connector) as session,
        session.get(server.url.replace("127.0.0.1", "localhost")) as got,
    ):
        assert got.status == 200
    async with aiohttp.ClientSession() as distrustful:
        with pytest.raises(aiohttp.ClientConnectorCertificateError):
            await distrustful.get(server.url)


async def test_a_certificate_can_name_other_hosts(app: Echo) -> None:
    certificate = Certificate.fresh("fcm.googleapis.com")
    async with serve_http2(app, certificate=certificate) as running:
        port = int(running.url.rpartition(":")[2])
        trusted = trusting(running, "http/1.1")
        connected = asyncio.open_connection(
            "127.0.0.1", port, ssl=trusted, server_hostname="fcm.googleapis.com"
        )
        _, writer = await connected
        writer.transport.abort()


async def test_an_app_sees_what_was_asked(server: Http2Server) -> None:
    seen: list[Incoming] = []

    def answer(request: Incoming) -> Answer:
        seen.append(request)
        return Answer(204)

    faults = Faults(SetClock())
    server.app = Front(
        answer, faults, names=lambda _request, _person: False, met=lambda _request, _status: None
    )
    async with peer(server) as client:
        client.request("/a%2Fb?c=d%20e", b"body", token="t")
        client.flush()
        await until(lambda: client.ended)
        assert client.statuses == {1: 204}
    (request,) = seen
    assert (request.method, request.path, request.query) == ("POST", "/a%2Fb", "c=d%20e")
    assert (request.header(b"host"), request.header(b"authorization")) == ("localhost", "Bearer t")
    assert request.body == b"body"


# -- streams -------------------------------------------------------------------------------------------


async def test_streams_do_not_wait_for_each_other(server: Http2Server, app: Echo) -> None:
    async with peer(server) as client:
        first, second = client.request("/wait", b"1"), client.request("/x", b"2")
        client.flush()
        await until(lambda: second in client.ended)
        assert first not in client.ended
        app.gate.set()
        await until(lambda: first in client.ended)
        assert client.bodies == {first: b"1", second: b"2"}
    assert server.peak == 2


async def test_a_hundred_streams_and_no_more(server: Http2Server, app: Echo) -> None:
    async with peer(server) as client:
        await until(lambda: client.streams_limit is not None)
        assert client.streams_limit == 100
        for _ in range(100):
            client.request("/wait", b"x")
        client.flush()
        await until(lambda: server.peak == 100)
        client.request_anyway(201, "/wait")
        await client.gone()


async def test_windows_hold_an_answer_back(server: Http2Server) -> None:
    body = bytes(200_000)
    async with peer(server, window=1000) as client:
        client.acknowledging = False
        await until(lambda: client.streams_limit is not None)
        stream = client.request("/x", end=False)
        for at in range(0, len(body), 10_000):
            client.h2.send_data(stream, body[at : at + 10_000], end_stream=at + 10_000 == len(body))
        client.flush()
        await until(lambda: len(client.bodies.get(stream, b"")) == 1000)
        assert stream not in client.ended
        client.h2.increment_flow_control_window(2**20)
        client.h2.increment_flow_control_window(2**20, stream)
        client.flush()
        await until(lambda: stream in client.ended)
        assert client.bodies[stream] == body


async def test_a_caller_that_gives_up_one_stream(server: Http2Server, app: Echo) -> None:
    async with peer(server) as client:
        leaving = client.request("/leave", b"x")
        client.flush()
        await until(lambda: app.seen)
        client.h2.reset_stream(leaving)
        staying = client.request("/x", b"y")
        client.flush()
        await until(lambda: staying in client.ended)
        assert app.left == ["http.disconnect"]


async def test_a_body_without_end_is_stopped(server: Http2Server) -> None:
    async with peer(server) as client:
        stream = client.request("/x", end=False)
        for _ in range(BODY_LIMIT_BYTES // 16_000 + 1):
            await until(lambda: client.h2.local_flow_control_window(stream) >= 16_000)
            client.h2.send_data(stream, bytes(16_000))
            client.flush()
        await until(lambda: client.resets)
        assert client.resets == {stream: CALM}


async def test_equal_header_blocks_can_mean_different_things(server: Http2Server, app: Echo) -> None:
    async with peer(server) as client:
        # Until the caller knows our settings it shortens what it sent before: the second and the fourth
        # block are the same byte, the newest path.
        for stream, path in ((1, "/a"), (3, "/a"), (5, "/b"), (7, "/b")):
            client.request_anyway(stream, path)
        await until(lambda: len(app.seen) == 4)
    assert app.seen == ["/a", "/a", "/b", "/b"]


# -- endings -------------------------------------------------------------------------------------------


async def test_streams_can_be_refused(server: Http2Server, app: Echo) -> None:
    server.refusing = 2
    async with peer(server) as client:
        streams = [client.request("/x", b"x") for _ in range(3)]
        client.flush()
        await until(lambda: streams[2] in client.ended)
        assert client.resets == {streams[0]: REFUSED, streams[1]: REFUSED}
    assert app.seen == ["/x"]


async def test_going_away_answers_what_began_and_takes_no_more(server: Http2Server, app: Echo) -> None:
    async with peer(server) as client:
        begun = client.request("/wait", b"x")
        client.flush()
        await until(lambda: app.seen)
        server.go_away()
        await until(lambda: client.last is not None)
        assert client.last == begun
        client.request_anyway(begun + 2, "/late")  # sent before the caller read that
        client.write(PingFrame(0, b"12345678").serialize())
        await until(lambda: client.pongs)
        app.gate.set()
        await client.gone()
        assert client.bodies == {begun: b"x"}
    assert app.seen == ["/wait"]
    await until(lambda: not server.connections)


async def test_a_stream_given_back_was_not_processed(server: Http2Server, app: Echo) -> None:
    async with peer(server) as client:
        before = client.request("/wait", b"1")
        client.flush()
        await until(lambda: app.seen)
        given_back, after = client.request("/away", b"2"), client.request("/x", b"3")
        client.flush()
        await until(lambda: client.last is not None)
        assert client.last == before, "both later ones may be sent again"
        app.gate.set()
        await client.gone()
        assert client.bodies == {before: b"1"}
        assert {given_back, after}.isdisjoint(client.ended)
    assert app.seen == ["/wait", "/away"]


async def test_after_going_away_the_caller_may_close_first(server: Http2Server, app: Echo) -> None:
    server.linger_s = 3600.0
    async with peer(server) as client:
        client.request("/wait", b"x")
        client.flush()
        await until(lambda: app.seen)
        server.go_away()
        app.gate.set()
        await until(lambda: client.ended)
        # Closed now, this would be a reset, and the answer lost to a caller that had not read it.
        client.request_anyway(3, "/late")
        client.write(PingFrame(0, b"12345678").serialize())
        await until(lambda: client.pongs)
        assert server.connections
    await until(lambda: not server.connections)


async def test_what_did_not_begin_is_given_back_too(server: Http2Server, app: Echo) -> None:
    async with peer(server) as client:
        unfinished, begun = client.request("/x", end=False), client.request("/wait", b"1")
        client.flush()
        await until(lambda: app.seen)
        client.request("/away", b"2")
        client.flush()
        await until(lambda: client.last is not None)
        assert (client.resets, client.last) == ({unfinished: REFUSED}, begun)
        app.gate.set()
        await client.gone()
        assert client.bodies == {begun: b"1"}


async def test_a_breach_of_the_protocol_ends_the_connection(server: Http2Server) -> None:
    async with peer(server) as client:
        await until(lambda: client.streams_limit is not None)
        client.write(b"\x00\x00\x00\x03\x00\x00\x00\x00\x09")
        await client.gone()
        assert client.last is not None


async def test_a_caller_that_goes_away_is_let_go(server: Http2Server) -> None:
    async with peer(server) as client:
        client.write(GoAwayFrame(0, last_stream_id=0).serialize())
        await client.gone()
    await until(lambda: not server.connections)


# -- FCM over HTTP/2 -----------------------------------------------------------------------------------


@asynccontextmanager
async def fcm(
    linger_s: float = LINGER_S, **settings: Any
) -> AsyncIterator[tuple[FcmSimulator, Http2Server, str]]:
    simulator = FcmSimulator(**settings)
    async with serve_http2(simulator, linger_s=linger_s) as running:
        yield simulator, running, simulator.tokens.give(PROJECT, MESSAGING)


def message(address: str) -> bytes:
    return b'{"message": {"token": "%s"}}' % address.encode()


@pytest.mark.parametrize(("address", "code"), [("reset-1", INTERNAL), ("refused-1", REFUSED)])
async def test_a_fate_resets_one_stream_alone(address: str, code: int) -> None:
    async with fcm() as (simulator, running, token), peer(running) as client:
        struck = client.request(SEND, message(address), token=token)
        spared = client.request(SEND, message("ok"), token=token)
        again = client.request(SEND, message(address), token=token)
        client.flush()
        await until(lambda: {spared, again} <= client.ended)
        assert client.resets == {struck: code}
        assert [entry.address for entry in simulator.state.accepted] == ["ok", address]


async def test_a_fate_goes_away_in_mid_flight() -> None:
    async with fcm(linger_s=0.0) as (simulator, running, token), peer(running) as client:
        streams = [client.request(SEND, message(each), token=token) for each in ("ok-1", "away-1", "ok-2")]
        client.flush()
        await client.gone()
        answered = {stream for stream in streams if stream in client.ended}
        assert client.last is not None
        kept = {stream for stream in streams if stream <= client.last and stream not in client.resets}
        assert answered == kept == {streams[0]}
        assert [entry.address for entry in simulator.state.accepted] == ["ok-1"]


async def test_a_hanging_stream_leaves_the_others_alone() -> None:
    async with fcm() as (simulator, running, token), peer(running) as client:
        hanging = client.request(SEND, message("hang"), token=token)
        other = client.request(SEND, message("ok"), token=token)
        client.flush()
        await until(lambda: other in client.ended)
        assert hanging not in client.ended
        client.h2.reset_stream(hanging)
        client.flush()
        await until(lambda: len(simulator.requests) == 2)


@pytest.mark.parametrize("kind", ["reset", "drop_answer"])
async def test_a_fault_cuts_the_connection(kind: Any) -> None:
    async with fcm() as (simulator, running, token), peer(running) as client:
        simulator.faults.add(kind, count=1)
        client.request(SEND, message("ok"), token=token)
        client.flush()
        await client.gone()
        assert client.statuses == {}
        assert len(simulator.state.accepted) == (kind == "drop_answer")


async def test_a_fault_drips() -> None:
    async with fcm(clock=SetClock()) as (simulator, running, token), peer(running) as client:
        simulator.faults.add("drip", delay_s=0.5)
        stream = client.request(SEND, message("ok"), token=token)
        client.flush()
        await until(lambda: stream in client.ended)
        assert client.bodies[stream].startswith(b'{"name":"projects/')


async def test_an_endless_answer_ends_with_the_caller() -> None:
    async with fcm() as (simulator, running, token), peer(running) as client:
        simulator.faults.add("endless")
        stream = client.request(SEND, message("ok"), token=token)
        client.flush()
        await until(lambda: len(client.bodies.get(stream, b"")) > 300_000)
        client.h2.reset_stream(stream)
        client.flush()
        simulator.faults.clear()
        other = client.request(SEND, message("ok"), token=token)
        client.flush()
        await until(lambda: other in client.ended)


async def test_latency_is_per_stream_not_in_a_row() -> None:
    clock = SetClock()
    async with fcm(clock=clock, latency_s=5.0) as (_simulator, running, token), peer(running) as client:
        streams = {client.request(SEND, message("ok"), token=token) for _ in range(20)}
        client.flush()
        await until(lambda: streams <= client.ended)
    assert clock.slept == [5.0] * 20


# -- as our own client sees it -------------------------------------------------------------------------


@asynccontextmanager
async def sender(server: Http2Server, token: str) -> AsyncIterator[Callable[[str], Awaitable[int]]]:
    """A pyreqwest client; what it is called with is sent to that address, and gives the status."""
    builder = ClientBuilder().add_root_certificate_pem(server.authority.encode()).http2(enable=True)

    async def send(address: str) -> int:
        request = client.post(server.url + SEND).bearer_auth(token).body_bytes(message(address)).build()
        return (await request.send()).status

    async with builder.build() as client:
        yield send


@pytest.mark.parametrize("fate", ["refused", "away"])
async def test_what_was_not_processed_is_sent_again_by_the_client_itself(fate: str) -> None:
    async with fcm() as (simulator, running, token), sender(running, token) as send:
        assert await send(f"{fate}-1") == 200
        assert [seen.status for seen in simulator.requests] == [0, 200]
        with pytest.raises(RequestError):
            await send(f"{fate}9-1")
        assert simulator.state.repeated() == {}


async def test_what_may_have_been_processed_is_not() -> None:
    async with fcm() as (simulator, running, token), sender(running, token) as send:
        with pytest.raises(RequestError):
            await send("reset9-1")
        simulator.faults.add("drop_answer", count=1)
        with pytest.raises(RequestError):
            await send("ok-1")
        assert [seen.status for seen in simulator.requests] == [0, 200]


async def test_going_away_under_load_loses_and_repeats_nothing() -> None:
    async with fcm() as (simulator, running, token), sender(running, token) as send:
        addresses = iter([f"ok-{n}" for n in range(400)])
        statuses: list[int] = []

        async def work() -> None:
            for address in addresses:
                statuses.append(await send(address))
                if len(statuses) % 100 == 50:
                    running.go_away()

        await asyncio.gather(*(work() for _ in range(20)))
        assert statuses == [200] * 400
        assert len(simulator.state.accepted) == 400
        assert simulator.state.repeated() == {}
        assert running.opened > 4
