"""Serve a sandbox app over TLS on loopback: HTTP/2 for those who ask for it by ALPN, HTTP/1.1 for others."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Callable, Iterable
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import uvicorn
from h2.config import H2Configuration
from h2.connection import H2Connection
from h2.events import (
    ConnectionTerminated,
    DataReceived,
    Event,
    RemoteSettingsChanged,
    RequestReceived,
    StreamEnded,
    StreamReset,
    WindowUpdated,
)
from h2.exceptions import ProtocolError
from h2.settings import SettingCodes, Settings
from hpack import Decoder
from hpack.struct import HeaderTuple
from hyperframe.frame import GoAwayFrame
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol
from uvicorn.server import ServerState

from .exchange import SEVER, reset
from .http2_certificate import Certificate
from .http2_stream import REFUSED_STREAM, Stream

STREAMS_LIMIT = 100
"""Concurrent streams of one connection, as most servers allow; FCM's own number is not published."""
LINGER_S = 2.0
"""How long after a GOAWAY and the last answer a caller has to close; then the connection is closed."""
BODY_LIMIT_BYTES = 8 * 1024 * 1024
_WINDOW_BYTES = 1024 * 1024
_ENHANCE_YOUR_CALM = 11
_BLOCKS_KEPT = 1000

App: TypeAlias = Any
"""An ASGI app."""


class Http2Server:
    """A running server. `url` is its https address, `authority` the CA certificate (PEM) clients must trust.

    `refusing` streams to come are refused with REFUSED_STREAM. `opened` counts connections, `streams` all
    streams, `peak` is the largest number of streams that one connection had at a time.
    """

    def __init__(self, app: App, authority: str, streams_limit: int, linger_s: float) -> None:
        self.app = app
        self.url = ""
        self.authority = authority
        self.streams_limit = streams_limit
        self.linger_s = linger_s
        self.refusing = 0
        self.opened = 0
        self.streams = 0
        self.peak = 0
        self.connections: set[Connection] = set()
        self.state = ServerState()
        self._config = uvicorn.Config(
            app, lifespan="off", ws="none", access_log=False, log_config=None, proxy_headers=False
        )
        self._config.load()

    def go_away(self) -> None:
        """End every connection gracefully: GOAWAY, then closed once its streams are answered."""
        for connection in list(self.connections):
            connection.drain()

    def http1(self) -> asyncio.Protocol:
        """Make the protocol of a client that did not ask for HTTP/2."""
        loop = asyncio.get_running_loop()
        return _Http1(config=self._config, server_state=self.state, app_state={}, _loop=loop)

    async def end(self) -> None:
        """Cut every connection and cancel what is running."""
        for connection in [*self.connections, *self.state.connections]:
            connection.transport.abort()
        tasks = list(self.state.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@asynccontextmanager
async def serve_http2(
    app: App,
    *,
    host: str = "127.0.0.1",
    port: int = 0,
    certificate: Certificate | None = None,
    streams_limit: int = STREAMS_LIMIT,
    linger_s: float = LINGER_S,
) -> AsyncIterator[Http2Server]:
    """Serve an ASGI app on the running loop; port 0 takes a free one. Raises `OSError` when it is taken.

    At the end connections are cut and running requests cancelled.
    """
    certificate = certificate or Certificate.fresh()
    server = Http2Server(app, certificate.authority, streams_limit, linger_s)
    context = certificate.context()
    context.set_alpn_protocols(["h2", "http/1.1"])
    loop = asyncio.get_running_loop()
    listening = await loop.create_server(lambda: Connection(server), host, port, ssl=context, backlog=2048)
    server.url = f"https://{host}:{listening.sockets[0].getsockname()[1]}"
    try:
        yield server
    finally:
        listening.close()
        await server.end()
        await listening.wait_closed()


class Connection(asyncio.Protocol):
    """One TLS connection: frames in, tasks of the app, frames out once per turn of the loop."""

    transport: asyncio.Transport

    def __init__(self, server: Http2Server) -> None:
        self._server = server
        self._loop = asyncio.get_running_loop()
        self._h2 = H2Connection(
            H2Configuration(
                client_side=False,
                header_encoding=None,
                validate_inbound_headers=False,  # half of h2's time; what is tested here is the caller
                normalize_inbound_headers=False,
                validate_outbound_headers=False,
                normalize_outbound_headers=False,
            )
        )
        self._streams: dict[int, Stream] = {}
        self._processed = 0
        self._last: int | None = None  # announced by a GOAWAY: later streams are ignored
        self._lingering: asyncio.TimerHandle | None = None
        self._room = asyncio.Event()
        self._writable = True
        self._flushing = False
        self._acts: dict[type[Event], Callable[[Any], None]] = {
            RequestReceived: self._opened,
            DataReceived: self._body,
            StreamEnded: self._complete,
            StreamReset: self._abandoned,
            WindowUpdated: self._widened,
            RemoteSettingsChanged: self._widened,
            ConnectionTerminated: self._terminated,
        }

    # -- asyncio.Protocol ------------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        """Speak what ALPN settled."""
        secured: ssl.SSLObject = transport.get_extra_info("ssl_object")
        self._server.opened += 1
        if secured.selected_alpn_protocol() != "h2":
            plain = self._server.http1()
            transport.set_protocol(plain)
            plain.connection_made(transport)
            return
        self.transport = transport
        self._server.connections.add(self)
        values = {
            SettingCodes.MAX_CONCURRENT_STREAMS: self._server.streams_limit,
            SettingCodes.INITIAL_WINDOW_SIZE: _WINDOW_BYTES,
            SettingCodes.HEADER_TABLE_SIZE: 0,  # what a header block means then depends on nothing before it
        }
        self._h2.local_settings = Settings(client=False, initial_values=values)
        self._h2.decoder = _Decoder()
        self._h2.initiate_connection()
        self._h2.increment_flow_control_window(_WINDOW_BYTES)
        self._flush()

    def data_received(self, data: bytes) -> None:
        """Take what came; a breach of the protocol ends the connection with the GOAWAY that names it."""
        try:
            events = self._h2.receive_data(data)
        except ProtocolError:
            self._flush()
            self.transport.close()
            return
        for event in events:
            act = self._acts.get(type(event))
            if act is not None:
                act(event)
        self._flush_soon()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell the apps that nobody waits for them any more."""
        self._server.connections.discard(self)
        if self._lingering is not None:
            self._lingering.cancel()
        for stream in self._streams.values():
            stream.close()
        self._streams.clear()
        self._room.set()

    def pause_writing(self) -> None:
        """Hold answers back: the caller does not read."""
        self._writable = False

    def resume_writing(self) -> None:
        """Go on."""
        self._writable = True
        self._room.set()

    # -- events ----------------------------------------------------------------------------------------

    def _opened(self, event: RequestReceived) -> None:
        number = event.stream_id or 0
        if self._last is not None and number > self._last:
            return
        server = self._server
        if server.refusing > 0:
            server.refusing -= 1
            self._h2.reset_stream(number, REFUSED_STREAM)
            return
        self._streams[number] = Stream(self, number, event.headers or [])
        server.streams += 1
        server.peak = max(server.peak, len(self._streams))

    def _body(self, event: DataReceived) -> None:
        number = event.stream_id or 0
        self._h2.acknowledge_received_data(event.flow_controlled_length or 0, number)
        stream = self._streams.get(number)
        if stream is None or event.data is None:
            return
        stream.parts.append(event.data)
        stream.size += len(event.data)
        if stream.size > BODY_LIMIT_BYTES:
            self.reset(stream, _ENHANCE_YOUR_CALM)

    def _complete(self, event: StreamEnded) -> None:
        stream = self._streams.get(event.stream_id or 0)
        if stream is None:
            return
        task = self._loop.create_task(self._serve(stream))
        self._server.state.tasks.add(task)
        task.add_done_callback(self._server.state.tasks.discard)

    def _abandoned(self, event: StreamReset) -> None:
        stream = self._streams.get(event.stream_id or 0)
        if stream is not None:
            self._finish(stream)

    def _widened(self, event: WindowUpdated | RemoteSettingsChanged) -> None:
        self._room.set()

    def _terminated(self, event: ConnectionTerminated) -> None:
        for stream in list(self._streams.values()):
            self._finish(stream)
        self.transport.close()

    # -- answers ---------------------------------------------------------------------------------------

    async def _serve(self, stream: Stream) -> None:
        if not stream.closed:
            await self._server.app(stream.scope(), stream.receive, stream.send)

    async def deliver(self, stream: Stream, body: bytes, *, end: bool) -> None:
        """Send a part of an answer as the caller's windows allow."""
        number, head = stream.number, stream.head
        if head is not None:
            stream.head = None
            self._h2.send_headers(number, head, end_stream=end and not body)
        elif end and not body:
            self._h2.end_stream(number)
        while body:
            if not (room := await self._room_for(stream)):
                return
            part, body = body[:room], body[room:]
            self._h2.send_data(number, part, end_stream=end and not body)
        self._flush_soon()
        if end:
            self._finish(stream)

    async def _room_for(self, stream: Stream) -> int:
        """Wait for room; how many bytes there is room for, 0 when the stream is over."""
        while not stream.closed:
            window = self._h2.local_flow_control_window(stream.number)
            if window > 0 and self._writable:
                return min(window, self._h2.max_outbound_frame_size)
            self._flush_soon()
            self._room.clear()
            await self._room.wait()
        return 0

    def sever(self) -> None:
        """Cut the connection with a TCP reset: every stream of it ends."""
        reset(self.transport)

    def reset(self, stream: Stream, code: int) -> None:
        """End a stream with RST_STREAM."""
        if not stream.closed:
            self._h2.reset_stream(stream.number, code)
            self._finish(stream)
            self._flush_soon()

    def go_away(self, stream: Stream) -> None:
        """Give a stream and those nobody began with back; close once the others are answered.

        The caller may send again what it gets back: a stream after the last one that GOAWAY names was not
        processed, nor was one reset with REFUSED_STREAM.
        """
        begun = [other.number for other in self._streams.values() if other.read and other is not stream]
        last = max(self._processed, *begun, 0)
        for other in list(self._streams.values()):
            if other.number > last:
                self._finish(other)
        self.reset(stream, REFUSED_STREAM)
        for other in list(self._streams.values()):
            if not other.read:
                self.reset(other, REFUSED_STREAM)
        self._announce(last)

    def drain(self) -> None:
        """Take no more streams; close once those at hand are answered."""
        self._announce(max(self._processed, *self._streams, 0))

    def _announce(self, last: int) -> None:
        self._last = last
        self._flush()
        # Not h2's own: after it, it refuses to answer the streams that are still open.
        self.transport.write(GoAwayFrame(0, last_stream_id=last).serialize())
        self._close_when_idle()

    def _finish(self, stream: Stream) -> None:
        stream.close()
        self._streams.pop(stream.number, None)
        if stream.read:
            self._processed = max(self._processed, stream.number)
        self._room.set()
        self._close_when_idle()

    def _close_when_idle(self) -> None:
        """Leave the closing to the caller for a while.

        What it sent before it read the GOAWAY would make our close a TCP reset, which takes back answers that
        it has not read yet.
        """
        if self._last is not None and not self._streams and self._lingering is None:
            self._flush()
            self._lingering = self._loop.call_later(self._server.linger_s, self.transport.close)

    def _flush_soon(self) -> None:
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        data = self._h2.data_to_send()
        if data and not self.transport.is_closing():
            self.transport.write(data)


class _Decoder(Decoder):
    """HPACK that remembers the blocks it has read: callers repeat themselves, and reading them is slow."""

    def __init__(self) -> None:
        super().__init__()
        self._seen: dict[bytes, Iterable[HeaderTuple]] = {}

    def decode(self, data: bytes, raw: bool = False) -> Iterable[HeaderTuple]:  # noqa: FBT001, FBT002 - hpack's
        found = self._seen.get(data)
        if found is not None:
            return found
        entries = self.header_table.dynamic_entries
        before = len(entries)
        headers = super().decode(data, raw)
        # Only what neither used nor filled the table means the same for ever.
        if not before and not entries and len(self._seen) < _BLOCKS_KEPT:
            self._seen[bytes(data)] = headers
        return headers


class _Http1(HttpToolsProtocol):
    """uvicorn's protocol, plus the ASGI extension that resets the connection."""

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.scope["extensions"] = {SEVER: {"sever": self._sever}}

    def _sever(self) -> None:
        reset(self.transport)
