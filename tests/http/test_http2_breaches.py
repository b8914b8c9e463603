"""What a server may not do on an HTTP/2 connection: some of it ends the connection, some a stream alone."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

import pytest
from hyperframe.frame import Frame, RstStreamFrame

from towpath.http import Reply, TransportError
from towpath.http2.connection import OUR_CONNECTION_BYTES, OUR_STREAM_BYTES, UNREAD_FRAMES
from towpath.http2.frames import LARGEST, Code
from towpath.http2.stream import Unprocessed
from towpath.testing.loop import virtual

from .http2_peer import Peer, data, goodbyes, outcome, raw, reset, widen

pytestmark = pytest.mark.spec("P051", "P059")
Say: TypeAlias = Callable[[Peer], Frame | bytes]
OK = Reply(200, {}, b"ok")
PADDED_TOO_MUCH = bytes((200,)) + b"short"
BREACHES: dict[str, tuple[Say, Code]] = {
    "an answer to nothing": (lambda peer: peer.answer(99), Code.PROTOCOL_ERROR),
    "a stream of the server's": (lambda peer: peer.answer(2), Code.PROTOCOL_ERROR),
    "a head of no stream": (lambda peer: raw(1, 5, 0, b"\x88"), Code.PROTOCOL_ERROR),
    "data of no stream": (lambda peer: raw(0, 0, 0, b"x"), Code.PROTOCOL_ERROR),
    "a reset of nothing": (lambda peer: reset(99, 0), Code.PROTOCOL_ERROR),
    "a window of nothing": (lambda peer: widen(99, 1), Code.PROTOCOL_ERROR),
    "a push": (lambda peer: raw(5, 4, 1, b"\x00\x00\x00\x02\x88"), Code.PROTOCOL_ERROR),
    "settings of a stream": (lambda peer: raw(4, 0, 1), Code.PROTOCOL_ERROR),
    "settings cut off": (lambda peer: raw(4, 0, 0, bytes(5)), Code.FRAME_SIZE_ERROR),
    "an acknowledgement that says something": (lambda peer: raw(4, 1, 0, bytes(6)), Code.FRAME_SIZE_ERROR),
    "a server that takes pushes": (lambda peer: peer.settings(enable_push=1), Code.PROTOCOL_ERROR),
    "a window setting too large": (
        lambda peer: raw(4, 0, 0, b"\x00\x04\x80\x00\x00\x00"),
        Code.FLOW_CONTROL_ERROR,
    ),
    "a window setting too large for a stream": (
        lambda peer: (
            widen(1, LARGEST - 65_535).serialize() + peer.settings(initial_window_size=65_600).serialize()
        ),
        Code.FLOW_CONTROL_ERROR,
    ),
    "a frame setting too small": (lambda peer: peer.settings(max_frame_size=16_383), Code.PROTOCOL_ERROR),
    "a frame setting too large": (lambda peer: peer.settings(max_frame_size=2**24), Code.PROTOCOL_ERROR),
    "a short ping": (lambda peer: raw(6, 0, 0, bytes(7)), Code.FRAME_SIZE_ERROR),
    "a ping of a stream": (lambda peer: raw(6, 0, 1, bytes(8)), Code.PROTOCOL_ERROR),
    "a goaway of a stream": (lambda peer: raw(7, 0, 1, bytes(8)), Code.PROTOCOL_ERROR),
    "a short goaway": (lambda peer: raw(7, 0, 0, bytes(7)), Code.FRAME_SIZE_ERROR),
    "a short reset": (lambda peer: raw(3, 0, 1, bytes(3)), Code.FRAME_SIZE_ERROR),
    "a priority of no stream": (lambda peer: raw(2, 0, 0, bytes(5)), Code.PROTOCOL_ERROR),
    "a window by nothing": (lambda peer: raw(8, 0, 0, bytes(4)), Code.PROTOCOL_ERROR),
    "a window too large": (lambda peer: widen(0, LARGEST), Code.FLOW_CONTROL_ERROR),
    "a short window": (lambda peer: raw(8, 0, 0, bytes(3)), Code.FRAME_SIZE_ERROR),
    "a frame too large": (lambda peer: raw(0, 0, 1, bytes(16_385)), Code.FRAME_SIZE_ERROR),
    "more padding than data": (lambda peer: raw(0, 8, 1, PADDED_TOO_MUCH), Code.PROTOCOL_ERROR),
    "padding without its length": (lambda peer: raw(0, 8, 1), Code.PROTOCOL_ERROR),
    "more padding than head": (lambda peer: raw(1, 12, 1, PADDED_TOO_MUCH), Code.PROTOCOL_ERROR),
    "a priority that is cut off": (lambda peer: raw(1, 0x24, 1, bytes(4)), Code.PROTOCOL_ERROR),
    "the rest of nothing": (lambda peer: raw(9, 4, 1, b"\x88"), Code.PROTOCOL_ERROR),
    "a head that does not go on": (
        lambda peer: raw(1, 0, 1, b"\x88") + raw(6, 0, 0, bytes(8)),
        Code.PROTOCOL_ERROR,
    ),
    "a head that another goes on": (
        lambda peer: raw(1, 0, 1, b"\x88") + raw(9, 4, 3, b""),
        Code.PROTOCOL_ERROR,
    ),
    "a head that an unknown frame cuts": (
        lambda peer: raw(1, 0, 1, b"\x88") + raw(0xB, 0, 1, b""),
        Code.PROTOCOL_ERROR,
    ),
    "a head without end": (
        lambda peer: raw(1, 0, 1, b"\x88") + raw(9, 0, 1, b"") * 100,
        Code.ENHANCE_YOUR_CALM,
    ),
    "a head of megabytes": (
        lambda peer: raw(1, 0, 1, b"\x88") + raw(9, 0, 1, bytes(16_384)) * 5,
        Code.ENHANCE_YOUR_CALM,
    ),
    "headers that are none": (lambda peer: raw(1, 4, 1, b"\x88\xff\xff\xff"), Code.COMPRESSION_ERROR),
    "a table that we do not have": (lambda peer: raw(1, 4, 1, b"\x3f\xe1\x1f\x88"), Code.COMPRESSION_ERROR),
    "an entry of it": (lambda peer: raw(1, 4, 1, b"\x88\xbe"), Code.COMPRESSION_ERROR),
    "pings without end": (lambda peer: raw(6, 0, 0, bytes(8)) * (UNREAD_FRAMES + 5), Code.ENHANCE_YOUR_CALM),
}


class TestBreaches:
    @pytest.mark.parametrize("name", BREACHES)
    @virtual
    async def test_a_breach_ends_the_connection_and_says_why(self, name: str) -> None:
        say, code = BREACHES[name]
        peer = Peer()
        stream = peer.ask(limit_bytes=OUR_CONNECTION_BYTES)
        await peer.said()
        peer.say(say(peer))
        error = await outcome(stream)
        assert isinstance(error, TransportError)
        assert (error.sent, peer.tls.closing, peer.connection.limit) == (True, True, 0)
        assert peer.owner.has_left
        assert [each.error_code for each in goodbyes(peer)] == [code]

    @virtual
    async def test_what_was_not_written_yet_can_go_elsewhere(self) -> None:
        peer = Peer()
        written = peer.ask()
        await peer.said()
        waiting = peer.ask()
        peer.say(raw(5, 4, 1))
        error = await outcome(written)
        assert isinstance(error, TransportError)
        assert error.sent
        assert isinstance(await outcome(waiting), Unprocessed)
        assert [each.stream_id for each in await peer.said()] == [0]


BROKEN: dict[str, tuple[Say, Code]] = {
    "a body without a head": (lambda peer: data(1, b"x"), Code.PROTOCOL_ERROR),
    "no status": (lambda peer: peer.block(1, [("x-a", "b")]), Code.PROTOCOL_ERROR),
    "two": (lambda peer: peer.block(1, [(":status", "200"), (":status", "200")]), Code.PROTOCOL_ERROR),
    "one too late": (lambda peer: peer.block(1, [("x-a", "b"), (":status", "200")]), Code.PROTOCOL_ERROR),
    "no number": (lambda peer: peer.head(1, status="20x"), Code.PROTOCOL_ERROR),
    "a status of none": (lambda peer: peer.head(1, status="099"), Code.PROTOCOL_ERROR),
    "switching protocols": (lambda peer: peer.head(1, status="101"), Code.PROTOCOL_ERROR),
    "an interim end": (lambda peer: peer.head(1, status="103", end=True), Code.PROTOCOL_ERROR),
    "a request's": (lambda peer: peer.head(1, (":path", "/")), Code.PROTOCOL_ERROR),
    "capitals": (lambda peer: raw(1, 4, 1, b"\x88\x00\x01A\x01b"), Code.PROTOCOL_ERROR),
    "a line break": (lambda peer: peer.head(1, ("x-a", "b\r\nx-c: d")), Code.PROTOCOL_ERROR),
    "a connection's header": (
        lambda peer: peer.head(1, ("transfer-encoding", "chunked")),
        Code.PROTOCOL_ERROR,
    ),
    "a length of words": (lambda peer: peer.head(1, ("content-length", "many")), Code.PROTOCOL_ERROR),
    "a shorter body": (lambda peer: peer.answer(1, b"ok", ("content-length", "3")), Code.PROTOCOL_ERROR),
    "a longer body": (lambda peer: peer.answer(1, b"ok", ("content-length", "1")), Code.PROTOCOL_ERROR),
    "no body": (lambda peer: peer.head(1, ("content-length", "3"), end=True), Code.PROTOCOL_ERROR),
    "trailers that go on": (
        lambda peer: peer.head(1).serialize() + peer.block(1, [("x-a", "b")]).serialize(),
        Code.PROTOCOL_ERROR,
    ),
    "trailers with a status": (
        lambda peer: peer.head(1).serialize() + peer.head(1, end=True).serialize(),
        Code.PROTOCOL_ERROR,
    ),
    "a window by nothing": (lambda peer: raw(8, 0, 1, bytes(4)), Code.PROTOCOL_ERROR),
    "a window too large": (lambda peer: widen(1, LARGEST), Code.FLOW_CONTROL_ERROR),
}


class TestBroken:
    @pytest.mark.parametrize("name", BROKEN)
    @virtual
    async def test_an_answer_that_is_none_ends_its_stream_alone(self, name: str) -> None:
        say, code = BROKEN[name]
        peer = Peer()
        stream, other = peer.ask(limit_bytes=4 * OUR_STREAM_BYTES), peer.ask()
        await peer.said()
        peer.say(say(peer))
        error = await outcome(stream)
        assert isinstance(error, TransportError)
        assert error.sent
        assert [(each.stream_id, each.error_code) for each in await peer.told(RstStreamFrame)] == [(1, code)]
        peer.say(peer.answer(3))
        assert await outcome(other) == OK
        assert not peer.tls.closing
