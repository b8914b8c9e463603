"""A scripted HTTP/2 server beside a connection: it says any frames, and reads what was written to it.

Frames are made and read by hyperframe and hpack, so that the product's own writing is not its own judge.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from typing import Any, TypeVar, cast

from hpack import Decoder, Encoder
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    Frame,
    GoAwayFrame,
    HeadersFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)

from towpath.http import Reply, Request
from towpath.http2.blocks import HeadWriter
from towpath.http2.connection import Connection
from towpath.http2.connection import Owner as ConnectionOwner
from towpath.http2.frames import PREFACE
from towpath.http2.stream import Stream
from towpath.url import read_url

URL = "https://fcm.test/v1/projects/p/messages:send"
F = TypeVar("F", bound=Frame)


class Owner:
    """Counts what a connection tells."""

    def __init__(self) -> None:
        self.freed_times = 0
        self.has_left = False

    def freed(self) -> None:
        self.freed_times += 1

    def left(self, connection: Connection) -> None:
        self.has_left = True


class Tls:
    """A transport that keeps what is written; `alpn` is what the other side chose."""

    def __init__(self, connection: Connection, alpn: str | None) -> None:
        self.connection = connection
        self.alpn = alpn
        self.written = b""
        self.writes = 0
        self.closing = False
        self.broken = False

    def get_extra_info(self, name: str) -> Any:
        assert name == "ssl_object"
        return self

    def selected_alpn_protocol(self) -> str | None:
        return self.alpn

    def write(self, data: bytes) -> None:
        if self.broken:
            raise RuntimeError("unable to perform operation; the handler is closed")
        self.written += data
        self.writes += 1

    def is_closing(self) -> bool:
        return self.closing

    def close(self) -> None:
        self.closing = True
        asyncio.get_running_loop().call_soon(self.connection.connection_lost, None)

    abort = close


class Peer:
    """A connection and its server. `ready=False`: the server has not said its settings yet."""

    def __init__(
        self,
        *,
        ready: bool = True,
        alpn: str | None = "h2",
        owner: ConnectionOwner | None = None,
        **settings: int,
    ) -> None:
        self.owner = Owner()
        self.connection = Connection(owner or self.owner)
        self.tls = Tls(self.connection, alpn)
        self.read = 0
        self.encoder = Encoder()
        self.encoder.header_table_size = 0
        self.connection.connection_made(cast("asyncio.Transport", self.tls))
        if ready:
            self.say(self.settings(**settings))

    # -- what the server says ----------------------------------------------------------------------

    def say(self, *frames: Frame | bytes) -> None:
        self.hear(b"".join(each if isinstance(each, bytes) else each.serialize() for each in frames))

    def hear(self, data: bytes) -> None:
        self.connection.data_received(data)

    @staticmethod
    def settings(**values: int) -> SettingsFrame:
        return SettingsFrame(0, {getattr(SettingsFrame, name.upper()): each for name, each in values.items()})

    def head(
        self, number: int, *fields: tuple[str, str], end: bool = False, status: str = "200"
    ) -> HeadersFrame:
        return self.block(number, [(":status", status), *fields], end=end)

    def block(self, number: int, fields: Iterable[tuple[str, str]], *, end: bool = False) -> HeadersFrame:
        flags = ["END_HEADERS", *(["END_STREAM"] if end else [])]
        return HeadersFrame(number, self.encoder.encode(list(fields)), flags=flags)

    def answer(self, number: int, body: bytes = b"ok", *fields: tuple[str, str]) -> bytes:
        return self.head(number, *fields).serialize() + data(number, body, end=True).serialize()

    # -- what it is asked ----------------------------------------------------------------------------

    def ask(
        self,
        body: bytes = b"{}",
        *,
        method: str = "POST",
        limit_bytes: int = 65_536,
        timeout_s: float = 15.0,
        headers: dict[str, str] | None = None,
    ) -> Stream:
        request = Request(method, URL, headers or {}, body, limit_bytes)
        loop = asyncio.get_running_loop()
        stream = Stream(
            HeadWriter().write(request, read_url(URL)),
            body,
            limit_bytes,
            timeout_s,
            loop.time() + timeout_s,
            loop.create_future(),
            method == "HEAD",
        )
        self.connection.begin(stream)
        return stream

    async def said(self) -> list[Frame]:
        """The frames that came since the last time."""
        for _ in range(3):
            await asyncio.sleep(0)
        fresh = self.tls.written[self.read :]
        self.read = len(self.tls.written)
        return frames_in(fresh)

    async def told(self, kind: type[F]) -> list[F]:
        """Those of one type among them."""
        return [each for each in await self.said() if isinstance(each, kind)]


def data(number: int, body: bytes, *, end: bool = False, padding: int | None = None) -> DataFrame:
    flags = [*(["END_STREAM"] if end else []), *([] if padding is None else ["PADDED"])]
    return DataFrame(number, body, pad_length=padding or 0, flags=flags)


def reset(number: int, code: int) -> RstStreamFrame:
    return RstStreamFrame(number, error_code=code)


def widen(number: int, more: int) -> WindowUpdateFrame:
    return WindowUpdateFrame(number, window_increment=more)


def raw(kind: int, flags: int, number: int, payload: bytes = b"") -> bytes:
    """A frame that hyperframe would not make."""
    return len(payload).to_bytes(3, "big") + bytes((kind, flags)) + number.to_bytes(4, "big") + payload


def frames_in(written: bytes) -> list[Frame]:
    """Read what a client wrote."""
    written, found = written.removeprefix(PREFACE), list[Frame]()
    while written:
        frame, size = Frame.parse_frame_header(memoryview(written[:9]))
        frame.parse_body(memoryview(written[9 : 9 + size]))
        found.append(frame)
        written = written[9 + size :]
    return found


def fields_of(*frames: Frame) -> list[tuple[str, str]]:
    """The header fields of HEADERS and CONTINUATION."""
    block = b"".join(each.data for each in frames if isinstance(each, HeadersFrame | ContinuationFrame))
    decoded = Decoder().decode(block, raw=True)
    return [(bytes(name).decode("latin-1"), bytes(value).decode("latin-1")) for name, value in decoded]


def body_of(frames: Iterable[Frame], number: int) -> bytes:
    """The body that DATA frames carried on a stream."""
    return b"".join(each.data for each in frames if isinstance(each, DataFrame) and each.stream_id == number)


async def outcome(stream: Stream) -> Reply | BaseException:
    """The reply, or the error, which has to be there already."""
    await asyncio.sleep(0)
    assert stream.answer.done()
    return stream.answer.exception() or stream.answer.result()


def flags(frame: Frame) -> set[str]:
    """The names of a frame's flags."""
    return {str(each) for each in frame.flags}


def goodbyes(peer: Peer) -> list[GoAwayFrame]:
    """The GOAWAY frames that were written, since the beginning."""
    return [each for each in frames_in(peer.tls.written) if isinstance(each, GoAwayFrame)]
