"""One HTTP/2 connection as a client has it: many requests at a time, each with its stream."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, Protocol

from ..http import TransportError
from .blocks import LIST_BYTES, OUR_TABLE, HeadReader
from .frames import (
    ACK,
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    FRAME_BYTES,
    LARGEST,
    LARGEST_FRAME_BYTES,
    PADDED,
    PING,
    PREFACE,
    RST_STREAM,
    SETTINGS,
    WINDOW_BYTES,
    WINDOW_UPDATE,
    Breach,
    Code,
    Frames,
    Setting,
    frame,
    go_away,
    header_frames,
    named,
    number_frame,
    read_settings,
    settings,
    unpadded,
    whole_request,
)
from .stream import Alarm, Stream, Unprocessed

if TYPE_CHECKING:
    from .blocks import Head

STREAMS = 100
"""Requests at a time on one connection: what servers allow as a rule."""
QUIET_S = 5.0
"""A connection with requests on which nothing came for so long is asked whether it is alive (PING)."""
IDLE_S = 30.0
"""A connection without requests for so long is closed: something in between may have forgotten it."""
OUR_STREAM_BYTES = 1024 * 1024
"""How much of an answer may be on its way; of all answers of a connection: sixteen times as much."""
OUR_CONNECTION_BYTES = 16 * OUR_STREAM_BYTES
CONTINUATIONS = 64
UNREAD_FRAMES = 10_000
"""How many frames wait for a server that reads nothing: it asks for answers (PING, SETTINGS) without end."""

_OUR_SETTINGS = settings({**OUR_TABLE, Setting.ENABLE_PUSH: 0, Setting.INITIAL_WINDOW_SIZE: OUR_STREAM_BYTES})
_OPENING = PREFACE + _OUR_SETTINGS + number_frame(WINDOW_UPDATE, 0, OUR_CONNECTION_BYTES - WINDOW_BYTES)


class Owner(Protocol):
    """Who has the connection, and is told what becomes of it."""

    def freed(self) -> None:
        """There may be room for more requests."""
        ...

    def left(self, connection: Connection) -> None:
        """It takes no more requests; those it has go on. May come more than once."""
        ...


class Connection(asyncio.Protocol):
    """A connection. `ready` ends when the other side has said its settings, or with `TransportError`.

    `streams` are the requests under way, `limit` how many there may be at this moment: none before it is
    ready, while its life is in doubt, and after either side said GOAWAY.
    """

    def __init__(self, owner: Owner) -> None:
        self.streams: dict[int, Stream] = {}
        self.limit = 0
        self._owner = owner
        self._loop = asyncio.get_running_loop()
        self.ready: asyncio.Future[None] = self._loop.create_future()
        self.ready.add_done_callback(_heed)
        self.lost: asyncio.Future[None] = self._loop.create_future()
        self._frames = Frames()
        self._heads = HeadReader()
        self._alarm = Alarm(self._expire)
        self._transport: asyncio.Transport
        # What is said to us: a header block that goes on, and what was not yet acknowledged.
        self._block: _Block | None = None
        self._received = 0
        self._heard_s = self._loop.time()
        # What the other side allows.
        self._streams_allowed = STREAMS
        self._stream_window = WINDOW_BYTES
        self._window = WINDOW_BYTES
        self._frame_bytes = FRAME_BYTES
        # What we say: `_next` is the number of the next stream, those from `_unwritten` on were not written.
        self._next = self._unwritten = 1
        self._out: list[bytes] = []
        self._flushing = self._held = False
        self._blocked: dict[int, Stream] = {}
        self._leaving = self._doubted = False

    @property
    def stands(self) -> bool:
        """Whether it may take requests, now or in a while."""
        return self.ready.done() and not (self._leaving or self._doubted)

    @property
    def served(self) -> bool:
        """Whether a request was ever sent on it."""
        return self._next > 1

    def begin(self, stream: Stream) -> None:
        """Send a request; there has to be room."""
        number = self._next
        self._next = number + 2
        if not self.streams:
            self._heard_s = self._loop.time()
        self.streams[number] = stream
        stream.number, stream.connection, stream.window = number, self, self._stream_window
        self._alarm.by(stream.deadline_s)
        size, room = len(stream.unsent), min(self._window, self._stream_window, self._frame_bytes)
        if 0 < size <= room and len(stream.block) <= self._frame_bytes:
            self._window -= size
            stream.window -= size
            self._write(whole_request(number, stream.block, stream.unsent))
            stream.unsent = b""
        else:
            self._begin_large(stream)
        if self._next > LARGEST:
            self.leave()

    def abandon(self, stream: Stream) -> None:
        """Nobody waits for this answer any more."""
        if self.streams.get(stream.number) is stream:
            self._reset(stream, Code.CANCEL)
            self._go_on()

    def leave(self) -> None:
        """Take no more requests, and close when those under way are answered."""
        self._leaving = True
        self._limit()
        self._owner.left(self)
        self._go_on()

    def check(self, now_s: float) -> None:
        """Close what is idle, ask what is quiet, give up what is silent: to be called every `QUIET_S`."""
        quiet_s = now_s - self._heard_s
        if self._doubted and quiet_s >= 2 * QUIET_S:
            self.drop(f"the other side has gone: silence for {quiet_s:.0f} s")
        elif not self.streams:
            if quiet_s >= IDLE_S:
                self.leave()
        elif quiet_s >= QUIET_S and not self._doubted:
            self._doubted = True
            self._limit()
            self._write(frame(PING, 0, 0, b"towpath?"))

    def drop(self, reason: str = "closed meanwhile") -> None:
        """Close at once; requests under way end with `TransportError`."""
        self._give_up(reason)
        self._transport.abort()

    # -- what asyncio calls ----------------------------------------------------------------------------

    def connection_made(self, transport: Any) -> None:
        """It stands; say our settings."""
        self._transport = transport
        if transport.get_extra_info("ssl_object").selected_alpn_protocol() == "h2":
            transport.write(_OPENING)
        else:
            self.drop("the other side does not speak HTTP/2")

    def data_received(self, data: bytes) -> None:
        """Read on."""
        self._heard_s = self._loop.time()
        try:
            for kind, flags, number, payload in self._frames.cut(data):
                if self._block is not None and (kind != CONTINUATION or number != self._block.number):
                    raise Breach(Code.PROTOCOL_ERROR, "a header block that does not go on")
                if kind < len(self._TAKE):
                    self._TAKE[kind](self, flags, number, payload)
            if len(self._out) > UNREAD_FRAMES:
                raise Breach(Code.ENHANCE_YOUR_CALM, "answers to nothing are asked for without end")
        except Breach as breach:
            self._breach(breach)
            return
        if self._doubted:
            self._doubted = False
            self._limit()
        self._go_on()

    def pause_writing(self) -> None:
        """The other side does not read."""
        self._held = True

    def resume_writing(self) -> None:
        """It does again."""
        self._held = False
        self._flush_soon()

    def connection_lost(self, error: Exception | None) -> None:
        """It is closed."""
        self._give_up(f"the connection ended before the answer: {error or 'closed by the other side'}")
        if not self.lost.done():
            self.lost.set_result(None)

    # -- frames, by type -------------------------------------------------------------------------------

    def _data(self, flags: int, number: int, payload: bytes) -> None:
        size = len(payload)
        self._received += size
        if self._received > OUR_CONNECTION_BYTES // 2:
            self._write(number_frame(WINDOW_UPDATE, 0, self._received))
            self._received = 0
        stream = self.streams.get(number)
        if stream is None:
            self._late(number)
            return
        stream.received += size
        if flags & ~END_STREAM:
            payload = unpadded(flags & PADDED, payload)
        stream.parts.append(payload)
        stream.size += len(payload)
        if stream.head is None:
            self._broken(stream, "a body without a head")
        elif stream.size > stream.limit_bytes or flags & END_STREAM:
            self._finish(stream, whole=flags & END_STREAM)
        elif stream.received > OUR_STREAM_BYTES // 2:
            self._write(number_frame(WINDOW_UPDATE, number, stream.received))
            stream.received = 0

    def _headers(self, flags: int, number: int, payload: bytes) -> None:
        if flags & ~(END_STREAM | END_HEADERS):
            payload = unpadded(flags, payload)
        if flags & END_HEADERS:
            self._headed(number, flags & END_STREAM, payload)
        else:
            self._block = _Block(number, flags & END_STREAM, payload)

    def _continued(self, flags: int, number: int, payload: bytes) -> None:
        block = self._block
        if block is None:
            raise Breach(Code.PROTOCOL_ERROR, "the rest of headers that did not begin")
        block.add(payload)
        if flags & END_HEADERS:
            self._block = None
            self._headed(number, block.end, b"".join(block.parts))

    def _headed(self, number: int, end: int, block: bytes) -> None:
        found = self._heads.read(block)
        stream = self.streams.get(number)
        if stream is None:
            self._late(number)
        elif stream.head is None:
            self._begun(stream, found, end)
        elif found.status or found.fault or not end:
            self._broken(stream, found.fault or "trailers that are none")
        else:
            self._finish(stream, whole=end)

    def _begun(self, stream: Stream, found: Head, end: int) -> None:
        """Take the head of an answer; that of an interim one says nothing."""
        if not found.status or found.status == 101 or (found.status < 200 and end):
            self._broken(stream, found.fault or "a head without a status")
        elif found.status >= 200:
            stream.head = found
            if end:
                self._finish(stream, whole=end)

    def _priority(self, flags: int, number: int, payload: bytes) -> None:
        if not number:
            raise Breach(Code.PROTOCOL_ERROR, "a priority of no stream")

    def _was_reset(self, flags: int, number: int, payload: bytes) -> None:
        code = _number(payload, 4, RST_STREAM)
        stream = self.streams.pop(number, None)
        if stream is None:
            self._late(number)
            return
        self._blocked.pop(number, None)
        if code == Code.REFUSED_STREAM and stream.head is None:
            stream.fail(Unprocessed("the other side refused the request for now"))
        else:
            stream.fail(TransportError(f"the other side broke the answer off: {named(code)}", sent=True))

    def _settings(self, flags: int, number: int, payload: bytes) -> None:
        if number:
            raise Breach(Code.PROTOCOL_ERROR, "settings of a stream")
        if flags & ACK:
            if payload:
                raise Breach(Code.FRAME_SIZE_ERROR, "an acknowledgement that says something")
            return
        for name, value in read_settings(payload):
            if (take := self._ALLOW.get(name)) is not None:
                take(self, value)
        self._write(frame(SETTINGS, ACK, 0))
        self._send_blocked()
        if not self.ready.done():
            self.ready.set_result(None)
        self._limit()
        self._owner.freed()

    def _push(self, flags: int, number: int, payload: bytes) -> None:
        raise Breach(Code.PROTOCOL_ERROR, "a push that nobody asked for")

    def _ping(self, flags: int, number: int, payload: bytes) -> None:
        if number:
            raise Breach(Code.PROTOCOL_ERROR, "a ping of a stream")
        _number(payload, 8, PING)
        if not flags & ACK:
            self._write(frame(PING, ACK, 0, payload))

    def _went_away(self, flags: int, number: int, payload: bytes) -> None:
        """Give back what the other side will not look at; the rest goes on."""
        if number or len(payload) < 8:
            raise Breach(Code.PROTOCOL_ERROR if number else Code.FRAME_SIZE_ERROR, "a GOAWAY that is none")
        last, code = int.from_bytes(payload[:4], "big") & LARGEST, int.from_bytes(payload[4:8], "big")
        for stream in [stream for stream in self.streams.values() if stream.number > last]:
            self._forget(stream)
            reason = f"the other side ended the connection: {named(code)}"
            stream.fail(TransportError(reason, sent=True) if stream.head else Unprocessed(reason))
        self.leave()

    def _widened(self, flags: int, number: int, payload: bytes) -> None:
        more = _number(payload, 4, WINDOW_UPDATE) & LARGEST
        if not number:
            self._window += more
            if not more or self._window > LARGEST:
                raise Breach(Code.FLOW_CONTROL_ERROR if more else Code.PROTOCOL_ERROR, "a wrong window")
        elif (stream := self.streams.get(number)) is None:
            self._late(number)
        else:
            stream.window += more
            if not more or stream.window > LARGEST:
                self._broken(
                    stream, "a wrong window", Code.FLOW_CONTROL_ERROR if more else Code.PROTOCOL_ERROR
                )
        self._send_blocked()

    # -- settings of the other side --------------------------------------------------------------------

    def _allow_push(self, value: int) -> None:
        if value:
            raise Breach(Code.PROTOCOL_ERROR, "a server that takes pushes")

    def _allow_streams(self, value: int) -> None:
        self._streams_allowed = value

    def _allow_window(self, value: int) -> None:
        if value > LARGEST:
            raise Breach(Code.FLOW_CONTROL_ERROR, "a window too large")
        more, self._stream_window = value - self._stream_window, value
        for stream in self.streams.values():
            stream.window += more
            if stream.window > LARGEST:
                raise Breach(Code.FLOW_CONTROL_ERROR, "a window too large")

    def _allow_frames(self, value: int) -> None:
        if not FRAME_BYTES <= value <= LARGEST_FRAME_BYTES:
            raise Breach(Code.PROTOCOL_ERROR, "a frame size that is none")
        self._frame_bytes = value

    # -- how streams go on and end ---------------------------------------------------------------------

    def _begin_large(self, stream: Stream) -> None:
        """Send a head and, as the windows allow, the body."""
        flags = 0 if stream.unsent else END_STREAM
        self._write(header_frames(stream.block, flags, stream.number, self._frame_bytes))
        if stream.unsent:
            stream.unsent = memoryview(stream.unsent)
            self._blocked[stream.number] = stream
            self._send_blocked()

    def _send_blocked(self) -> None:
        """Send as much of the bodies that wait as the windows allow."""
        for stream in [*self._blocked.values()]:
            while stream.unsent and (room := min(self._window, stream.window, self._frame_bytes)) > 0:
                part, stream.unsent = stream.unsent[:room], stream.unsent[room:]
                self._window -= len(part)
                stream.window -= len(part)
                self._write(frame(DATA, 0 if stream.unsent else END_STREAM, stream.number, part))
            if not stream.unsent:
                del self._blocked[stream.number]

    def _finish(self, stream: Stream, *, whole: int) -> None:
        """It is answered, as far as anybody wants to know; what is not `whole` goes on at the other side."""
        if fault := stream.finish():
            self._broken(stream, fault)
        elif whole and not stream.unsent:
            del self.streams[stream.number]
        else:
            self._reset(stream, Code.NO_ERROR if whole else Code.CANCEL)

    def _broken(self, stream: Stream, reason: str, code: Code = Code.PROTOCOL_ERROR) -> None:
        """The answer is none."""
        self._reset(stream, code)
        stream.fail(TransportError(f"not an HTTP answer: {reason}", sent=True))

    def _reset(self, stream: Stream, code: Code) -> None:
        self._forget(stream)
        self._write(number_frame(RST_STREAM, stream.number, code))

    def _forget(self, stream: Stream) -> None:
        del self.streams[stream.number]
        self._blocked.pop(stream.number, None)

    def _late(self, number: int) -> None:
        """Something for a stream that is over; for one that never was, it ends the connection."""
        if not number & 1 or number >= self._next:
            raise Breach(Code.PROTOCOL_ERROR, "a frame of a stream that nobody opened")

    def _expire(self, now_s: float) -> float:
        for stream in [stream for stream in self.streams.values() if stream.deadline_s <= now_s]:
            stream.expire()
            self._reset(stream, Code.CANCEL)
        self._go_on()
        return min((stream.deadline_s for stream in self.streams.values()), default=math.inf)

    def _go_on(self) -> None:
        if not self._leaving:
            self._owner.freed()
        elif not self.streams and not self._transport.is_closing():
            self._say_goodbye(Code.NO_ERROR)

    # -- how it ends -----------------------------------------------------------------------------------

    def _limit(self) -> None:
        self.limit = min(STREAMS, self._streams_allowed) if self.stands else 0

    def _breach(self, breach: Breach) -> None:
        self._give_up(f"the other side does not speak HTTP/2 as it should: {breach}")
        self._out.clear()  # what was not written goes elsewhere
        self._say_goodbye(breach.code)

    def _say_goodbye(self, code: Code) -> None:
        self._out.append(go_away(code))
        self._flush()
        self._transport.close()

    def _give_up(self, reason: str) -> None:
        """End all requests; of what was not written, the other side knows nothing."""
        self._leaving = True
        self._limit()
        self._alarm.cancel()
        streams, self.streams = [*self.streams.values()], {}
        self._blocked.clear()
        for stream in streams:
            written = stream.number < self._unwritten
            stream.fail(TransportError(reason, sent=True) if written else Unprocessed(reason))
        if not self.ready.done():
            self.ready.set_exception(TransportError(reason, sent=False))
        self._owner.left(self)

    # -- writing, once per turn of the loop ------------------------------------------------------------

    def _write(self, data: bytes) -> None:
        self._out.append(data)
        if not self._flushing:
            self._flush_soon()

    def _flush_soon(self) -> None:
        self._flushing = True
        self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        if self._held or self._transport.is_closing():
            return
        self._flushing = False
        written, self._out = b"".join(self._out), []
        try:
            self._transport.write(written)
        except RuntimeError as error:  # how uvloop says that its side is closed
            self.drop(f"the connection ended before the answer: {error}")
        else:
            self._unwritten = self._next

    # By type of frame, and by setting.
    _TAKE: ClassVar[tuple[Callable[[Connection, int, int, bytes], None], ...]] = (
        _data,
        _headers,
        _priority,
        _was_reset,
        _settings,
        _push,
        _ping,
        _went_away,
        _widened,
        _continued,
    )
    _ALLOW: ClassVar[Mapping[int, Callable[[Connection, int], None]]] = {
        Setting.ENABLE_PUSH: _allow_push,
        Setting.MAX_CONCURRENT_STREAMS: _allow_streams,
        Setting.INITIAL_WINDOW_SIZE: _allow_window,
        Setting.MAX_FRAME_SIZE: _allow_frames,
    }


class _Block:
    """A header block that comes in several frames."""

    __slots__ = ("end", "number", "parts", "size")

    def __init__(self, number: int, end: int, payload: bytes) -> None:
        self.number = number
        self.end = end
        self.parts = [payload]
        self.size = len(payload)

    def add(self, payload: bytes) -> None:
        """The next part. Raises `Breach` where there is no end to it."""
        self.parts.append(payload)
        self.size += len(payload)
        if self.size > LIST_BYTES or len(self.parts) > CONTINUATIONS:
            raise Breach(Code.ENHANCE_YOUR_CALM, "headers without end")


def _number(payload: bytes, size: int, kind: int) -> int:
    if len(payload) != size:
        raise Breach(Code.FRAME_SIZE_ERROR, f"a frame of type {kind} of a wrong size")
    return int.from_bytes(payload, "big")


def _heed(ready: asyncio.Future[None]) -> None:
    """Look at the error: perhaps nobody waits any more."""
    if not ready.cancelled():
        ready.exception()
