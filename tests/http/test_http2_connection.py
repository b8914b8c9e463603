"""One HTTP/2 connection beside a scripted server: every rule of RFC 9113 that concerns a client."""

from __future__ import annotations

import asyncio

import pytest
from hyperframe.frame import (
    ContinuationFrame,
    DataFrame,
    GoAwayFrame,
    HeadersFrame,
    PingFrame,
    RstStreamFrame,
    SettingsFrame,
    WindowUpdateFrame,
)
from hypothesis import given
from hypothesis import strategies as st

from towpath.http import Reply, TransportError
from towpath.http2.connection import (
    IDLE_S,
    OUR_CONNECTION_BYTES,
    OUR_STREAM_BYTES,
    QUIET_S,
    STREAMS,
)
from towpath.http2.frames import LARGEST, PREFACE, Code
from towpath.http2.stream import Unprocessed
from towpath.testing.loop import run_virtual, virtual

from .http2_peer import Peer, body_of, data, fields_of, flags, goodbyes, outcome, raw, reset, widen

pytestmark = pytest.mark.spec("P051", "P059")
OK = Reply(200, {}, b"ok")


class TestOpening:
    @virtual
    async def test_it_begins_with_the_preface_and_settings_that_need_no_memory(self) -> None:
        peer = Peer(ready=False)
        assert peer.tls.written.startswith(PREFACE)
        settings, window = await peer.said()
        assert isinstance(settings, SettingsFrame)
        assert settings.settings[SettingsFrame.HEADER_TABLE_SIZE] == 0
        assert settings.settings[SettingsFrame.ENABLE_PUSH] == 0
        assert settings.settings[SettingsFrame.INITIAL_WINDOW_SIZE] == OUR_STREAM_BYTES
        assert isinstance(window, WindowUpdateFrame)
        assert 65_535 + window.window_increment == OUR_CONNECTION_BYTES

    @virtual
    async def test_it_takes_requests_when_the_settings_are_told(self) -> None:
        peer = Peer(ready=False)
        assert (peer.connection.limit, peer.connection.ready.done()) == (0, False)
        peer.say(peer.settings())
        assert (peer.connection.limit, peer.connection.ready.done()) == (STREAMS, True)
        assert [flags(each) for each in await peer.told(SettingsFrame)] == [set(), {"ACK"}]

    @pytest.mark.parametrize("alpn", [None, "http/1.1"])
    @virtual
    async def test_a_server_that_does_not_speak_it(self, alpn: str | None) -> None:
        peer = Peer(ready=False, alpn=alpn)
        error = peer.connection.ready.exception()
        assert isinstance(error, TransportError)
        assert (error.sent, "does not speak HTTP/2" in str(error)) == (False, True)
        assert (peer.tls.closing, peer.tls.written) == (True, b"")

    @virtual
    async def test_a_server_that_says_something_else(self) -> None:
        peer = Peer(ready=False)
        peer.hear(b"HTTP/1.1 400 Bad Request\r\n\r\n")
        assert peer.connection.ready.exception() is not None
        assert peer.tls.closing

    @virtual
    async def test_one_that_ends_before_it_is_ready(self) -> None:
        peer = Peer(ready=False)
        peer.connection.connection_lost(ConnectionResetError("reset by peer"))
        error = peer.connection.ready.exception()
        assert isinstance(error, TransportError)
        assert not error.sent


class TestRequests:
    @virtual
    async def test_a_request_is_its_headers_and_its_body(self) -> None:
        peer = Peer()
        await peer.said()
        peer.ask(
            b'{"a":1}', headers={"authorization": "Bearer secret", "x-own": "\xe9", "host": "other.test"}
        )
        head, body = await peer.said()
        assert fields_of(head) == [
            (":method", "POST"),
            (":scheme", "https"),
            (":authority", "other.test"),
            (":path", "/v1/projects/p/messages:send"),
            ("accept", "*/*"),
            ("authorization", "Bearer secret"),
            ("x-own", "\xe9"),
            ("content-length", "7"),
        ]
        assert (head.stream_id, flags(head)) == (1, {"END_HEADERS"})
        assert isinstance(body, DataFrame)
        assert (body.stream_id, body.data, flags(body)) == (1, b'{"a":1}', {"END_STREAM"})

    @virtual
    async def test_one_without_a_body_ends_with_its_headers(self) -> None:
        peer = Peer()
        await peer.said()
        peer.ask(b"", method="GET")
        peer.ask(b"", method="POST")
        reading, posting = await peer.said()
        assert flags(reading) == flags(posting) == {"END_HEADERS", "END_STREAM"}
        assert "content-length" not in dict(fields_of(reading))
        assert dict(fields_of(posting))["content-length"] == "0"

    @virtual
    async def test_large_headers_go_on_in_further_frames(self) -> None:
        peer = Peer()
        await peer.said()
        peer.ask(b"x", headers={"x-large": "\u00ff" * 40_000})
        first, *rest, body = await peer.said()
        assert isinstance(first, HeadersFrame)
        assert isinstance(body, DataFrame)
        assert len(rest) > 1
        assert all(isinstance(each, ContinuationFrame) for each in rest)
        assert [flags(each) for each in [first, *rest]] == [set() for _ in rest] + [{"END_HEADERS"}]
        assert dict(fields_of(first, *rest))["x-large"] == "\u00ff" * 40_000

    @virtual
    async def test_all_of_one_turn_are_written_at_once(self) -> None:
        peer = Peer()
        await peer.said()
        before = peer.tls.writes
        for _ in range(50):
            peer.ask()
        assert len(await peer.said()) == 100
        assert peer.tls.writes == before + 1
        assert peer.connection.served

    @virtual
    async def test_nothing_is_written_while_the_other_side_does_not_read(self) -> None:
        peer = Peer()
        await peer.said()
        peer.connection.pause_writing()
        peer.ask()
        assert await peer.said() == []
        peer.connection.resume_writing()
        assert len(await peer.said()) == 2

    @virtual
    async def test_after_the_last_number_it_takes_no_more(self) -> None:
        peer = Peer()
        peer.connection._next = LARGEST
        stream = peer.ask()
        assert (stream.number, peer.connection.limit, peer.owner.has_left) == (LARGEST, 0, True)
        peer.say(peer.answer(LARGEST))
        assert await outcome(stream) == OK
        assert peer.tls.closing


class TestAnswers:
    @virtual
    async def test_each_gets_its_own_in_any_order(self) -> None:
        peer = Peer()
        first, second = peer.ask(), peer.ask()
        peer.say(peer.head(3, ("x-a", "1"), ("x-a", "2")), peer.head(1, status="404"))
        peer.say(data(3, b"sec"), data(1, b"first", end=True), data(3, b"ond", end=True))
        assert await outcome(first) == Reply(404, {}, b"first")
        assert await outcome(second) == Reply(200, {"x-a": "1"}, b"second")
        assert not peer.connection.streams

    @pytest.mark.parametrize("padding", [0, 1, 255])
    @virtual
    async def test_padding_is_left_out(self, padding: int) -> None:
        peer = Peer()
        stream = peer.ask()
        head = peer.head(1)
        head.flags |= {"PADDED", "PRIORITY"}
        head.pad_length = padding
        peer.say(head, data(1, b"ok", end=True, padding=padding))
        assert await outcome(stream) == OK

    @virtual
    async def test_what_says_nothing_to_a_client_is_passed_over(self) -> None:
        peer = Peer(max_header_list_size=1)
        stream = peer.ask()
        peer.say(peer.block(1, [(":status", "103"), ("link", "x")]), peer.block(1, [(":status", "100")]))
        peer.say(raw(2, 0, 1, bytes(5)), raw(0xB, 0xFF, 7, b"unknown"), raw(4, 0, 0, b"\x00\x99" + bytes(4)))
        peer.say(peer.head(1), data(1, b""), data(1, b"ok"), peer.block(1, [("x-sum", "1")], end=True))
        assert await outcome(stream) == OK

    @virtual
    async def test_headers_in_several_frames(self) -> None:
        peer = Peer()
        stream = peer.ask()
        block = peer.head(1, ("x-a", "b" * 300)).data
        peer.say(raw(1, 1, 1, block[:1]), raw(9, 0, 1, block[1:50]), raw(9, 0, 1), raw(9, 4, 1, block[50:]))
        assert await outcome(stream) == Reply(200, {"x-a": "b" * 300}, b"")

    @pytest.mark.parametrize("method", ["HEAD", "GET"])
    @virtual
    async def test_a_length_without_a_body(self, method: str) -> None:
        peer = Peer()
        head, unchanged = peer.ask(b"", method="HEAD"), peer.ask(b"", method=method)
        peer.say(peer.head(1, ("content-length", "5"), end=True))
        peer.say(peer.head(3, ("content-length", "5"), status="304", end=True))
        assert await outcome(head) == Reply(200, {"content-length": "5"}, b"")
        assert await outcome(unchanged) == Reply(304, {"content-length": "5"}, b"")

    @pytest.mark.parametrize("beyond", [0, 1, 5000])
    @virtual
    async def test_at_most_the_limit_is_read(self, beyond: int) -> None:
        peer = Peer()
        stream = peer.ask(limit_bytes=1000)
        await peer.said()
        peer.say(peer.head(1), data(1, b"x" * 1000), data(1, b"y" * beyond, end=not beyond))
        assert await outcome(stream) == Reply(200, {}, b"x" * 1000, cut=beyond > 0)
        assert [each.error_code for each in await peer.told(RstStreamFrame)] == [Code.CANCEL] * bool(beyond)

    @virtual
    async def test_an_answer_before_the_request_is_whole_ends_it(self) -> None:
        peer = Peer(initial_window_size=10)
        stream = peer.ask(b"x" * 100)
        await peer.said()
        peer.say(peer.head(1, status="413", end=True))
        assert await outcome(stream) == Reply(413, {}, b"")
        assert [each.error_code for each in await peer.told(RstStreamFrame)] == [Code.NO_ERROR]
        peer.say(peer.settings(initial_window_size=1000))
        assert body_of(await peer.said(), 1) == b""

    @virtual
    async def test_a_ping_is_answered_and_an_answer_is_not(self) -> None:
        peer = Peer()
        await peer.said()
        peer.say(PingFrame(0, b"12345678"), PingFrame(0, b"87654321", flags=["ACK"]))
        assert [(each.opaque_data, flags(each)) for each in await peer.told(PingFrame)] == [
            (b"12345678", {"ACK"})
        ]

    @virtual
    async def test_what_comes_for_a_stream_that_is_over_harms_nobody(self) -> None:
        peer = Peer()
        gone, stream = peer.ask(timeout_s=1.0), peer.ask()
        await asyncio.sleep(2.0)
        assert gone.answer.exception() is not None
        peer.say(peer.answer(1), widen(1, 5), reset(1, 0), peer.answer(3))
        assert await outcome(stream) == OK


class TestSplits:
    @given(st.lists(st.integers(1, 60), min_size=1, max_size=200))
    def test_any_cut_of_what_arrives_means_the_same(self, sizes: list[int]) -> None:
        async def check() -> None:
            peer = Peer(ready=False)
            whole = peer.settings(max_frame_size=20_000).serialize()
            whole += peer.answer(1, b"one", ("x-a", "b")) + peer.answer(5, b"three" * 20)
            whole += PingFrame(0, b"12345678").serialize() + reset(3, Code.REFUSED_STREAM).serialize()
            peer.say(peer.settings())
            streams = [peer.ask() for _ in range(3)]
            at, turn = 0, 0
            while at < len(whole):
                size = sizes[turn % len(sizes)]
                peer.hear(whole[at : at + size])
                at, turn = at + size, turn + 1
            assert await outcome(streams[0]) == Reply(200, {"x-a": "b"}, b"one")
            assert isinstance(await outcome(streams[1]), Unprocessed)
            assert await outcome(streams[2]) == Reply(200, {}, b"three" * 20)
            assert len(await peer.told(PingFrame)) == 1

        run_virtual(check())

    @given(st.binary(max_size=400))
    def test_no_nonsense_breaks_it(self, nonsense: bytes) -> None:
        async def check() -> None:
            peer = Peer()
            stream = peer.ask()
            peer.hear(nonsense)
            peer.connection.connection_lost(None)
            assert stream.answer.done()

        run_virtual(check())


class TestFlowControl:
    @virtual
    async def test_a_body_waits_for_the_window_of_its_stream(self) -> None:
        peer = Peer(initial_window_size=10)
        stream = peer.ask(b"0123456789abcdefghij")
        small = peer.ask(b"tiny")
        said = await peer.said()
        assert (body_of(said, 1), body_of(said, 3)) == (b"0123456789", b"tiny")
        peer.say(widen(1, 4))
        assert body_of(await peer.said(), 1) == b"abcd"
        peer.say(widen(1, 100))
        [rest] = await peer.told(DataFrame)
        assert (rest.data, flags(rest)) == (b"efghij", {"END_STREAM"})
        peer.say(peer.answer(1), peer.answer(3))
        assert await outcome(stream) == await outcome(small) == OK

    @virtual
    async def test_bodies_wait_for_the_window_of_the_connection(self) -> None:
        peer = Peer(initial_window_size=1_000_000)
        peer.ask(b"x" * 65_000)
        peer.ask(b"y" * 1000)
        said = await peer.said()
        assert (len(body_of(said, 1)), len(body_of(said, 3))) == (65_000, 535)
        peer.say(widen(0, 10_000))
        assert len(body_of(await peer.said(), 3)) == 465

    @virtual
    async def test_a_window_made_smaller_can_be_less_than_nothing(self) -> None:
        peer = Peer(initial_window_size=100)
        peer.ask(b"x" * 150)
        assert len(body_of(await peer.said(), 1)) == 100
        peer.say(peer.settings(initial_window_size=20))
        peer.say(widen(1, 80))
        assert body_of(await peer.said(), 1) == b""
        peer.say(peer.settings(initial_window_size=60))
        assert len(body_of(await peer.said(), 1)) == 40
        peer.say(widen(1, 40))
        assert len(body_of(await peer.said(), 1)) == 10

    @virtual
    async def test_a_body_comes_in_frames_as_large_as_allowed(self) -> None:
        peer = Peer(initial_window_size=1_000_000)
        peer.say(widen(0, 1_000_000))
        peer.ask(b"x" * 40_000)
        assert [len(each.data) for each in await peer.told(DataFrame)] == [16_384, 16_384, 7232]
        peer.say(peer.settings(max_frame_size=30_000))
        peer.ask(b"x" * 40_000)
        assert [len(each.data) for each in await peer.told(DataFrame)] == [30_000, 10_000]

    @virtual
    async def test_a_large_answer_is_acknowledged_as_it_comes(self) -> None:
        peer = Peer()
        stream = peer.ask(limit_bytes=8 * 1024 * 1024)
        await peer.said()
        whole = 20 * OUR_CONNECTION_BYTES // 64
        peer.say(peer.head(1, ("content-length", str(whole))))
        stream_window, connection_window = OUR_STREAM_BYTES, OUR_CONNECTION_BYTES
        for start in range(0, whole, 16_384):
            size = min(16_384, whole - start)
            peer.say(data(1, b"x" * size, end=start + size == whole))
            stream_window, connection_window = stream_window - size, connection_window - size
            for each in await peer.told(WindowUpdateFrame):
                if each.stream_id:
                    stream_window += each.window_increment
                else:
                    connection_window += each.window_increment
            assert stream_window > 0
            assert connection_window > 0
        reply = await outcome(stream)
        assert isinstance(reply, Reply)
        assert (len(reply.body), reply.cut) == (whole, False)

    @virtual
    async def test_answers_that_nobody_waits_for_are_acknowledged_too(self) -> None:
        peer = Peer()
        stream = peer.ask()
        peer.connection.abandon(stream)
        await peer.said()
        for _ in range(OUR_CONNECTION_BYTES // 2 // 16_384 + 1):
            peer.say(data(1, b"x" * 16_384))
        [update] = await peer.told(WindowUpdateFrame)
        assert (update.stream_id, update.window_increment) == (0, OUR_CONNECTION_BYTES // 2 + 16_384)


class TestRoom:
    @pytest.mark.parametrize(("said", "limit"), [(10, 10), (0, 0), (250, STREAMS), (STREAMS, STREAMS)])
    @virtual
    async def test_as_many_as_the_other_side_allows_and_never_over_a_hundred(
        self, said: int, limit: int
    ) -> None:
        peer = Peer(max_concurrent_streams=said)
        assert (peer.connection.limit, peer.connection.stands) == (limit, True)
        peer.say(peer.settings(max_concurrent_streams=7))
        assert peer.connection.limit == 7

    @virtual
    async def test_who_leaves_is_told_to_the_other_side_and_frees_a_place(self) -> None:
        peer = Peer()
        stream = peer.ask()
        await peer.said()
        freed = peer.owner.freed_times
        peer.connection.abandon(stream)
        peer.connection.abandon(stream)
        assert [(each.stream_id, each.error_code) for each in await peer.told(RstStreamFrame)] == [
            (1, Code.CANCEL)
        ]
        assert (peer.owner.freed_times, len(peer.connection.streams)) == (freed + 1, 0)


class TestDeadlines:
    @virtual
    async def test_each_has_its_own(self) -> None:
        peer = Peer()
        long, short, longer = peer.ask(timeout_s=10.0), peer.ask(timeout_s=1.25), peer.ask(timeout_s=20.0)
        await peer.said()
        await asyncio.sleep(1.3)
        error = short.answer.exception()
        assert isinstance(error, TransportError)
        assert (str(error), error.sent) == ("no complete answer within 1.25 s", True)
        assert [(each.stream_id, each.error_code) for each in await peer.told(RstStreamFrame)] == [
            (3, Code.CANCEL)
        ]
        assert not long.answer.done()
        await asyncio.sleep(9.0)
        assert (long.answer.done(), longer.answer.done()) == (True, False)
        peer.say(peer.answer(5))
        assert await outcome(longer) == OK

    @virtual
    async def test_an_alarm_of_one_that_is_over_rings_for_nobody(self) -> None:
        peer = Peer()
        stream = peer.ask(timeout_s=1.0)
        peer.say(peer.answer(1))
        assert await outcome(stream) == OK
        await asyncio.sleep(2.0)
        later = peer.ask(timeout_s=1.0)
        await asyncio.sleep(0.9)
        assert not later.answer.done()
        await asyncio.sleep(0.2)
        assert later.answer.done()


class TestEnds:
    @pytest.mark.parametrize(("code", "processed"), [(0, True), (2, True), (8, True), (11, True), (7, False)])
    @virtual
    async def test_a_reset_may_have_been_processed_unless_refused(self, code: int, processed: bool) -> None:
        peer = Peer()
        stream, other = peer.ask(), peer.ask()
        peer.say(reset(1, code), peer.answer(3))
        error = await outcome(stream)
        assert isinstance(error, TransportError)
        assert (error.sent, isinstance(error, Unprocessed)) == (processed, not processed)
        assert await outcome(other) == OK

    @virtual
    async def test_nothing_more_of_the_body_follows_a_reset(self) -> None:
        peer = Peer(initial_window_size=100_000)
        peer.ask(b"x" * 70_000)
        peer.say(reset(1, Code.NO_ERROR))
        await peer.said()
        peer.say(widen(0, 100_000))
        assert await peer.told(DataFrame) == []

    @virtual
    async def test_a_refusal_after_the_head_is_none(self) -> None:
        peer = Peer()
        stream = peer.ask()
        peer.say(peer.head(1), reset(1, Code.REFUSED_STREAM))
        error = await outcome(stream)
        assert isinstance(error, TransportError)
        assert error.sent

    @pytest.mark.parametrize("code", [0, 2, 11, 99])
    @virtual
    async def test_a_goaway_gives_back_what_it_leaves_out_and_the_rest_ends_well(self, code: int) -> None:
        peer = Peer()
        kept, left = peer.ask(), peer.ask()
        peer.say(GoAwayFrame(0, last_stream_id=1, error_code=code, additional_data=b"why"))
        assert isinstance(await outcome(left), Unprocessed)
        assert (peer.connection.limit, peer.owner.has_left, peer.tls.closing) == (0, True, False)
        peer.say(peer.answer(1))
        assert await outcome(kept) == OK
        assert peer.tls.closing

    @virtual
    async def test_a_goaway_in_two_steps(self) -> None:
        peer = Peer()
        kept, left = peer.ask(), peer.ask()
        peer.say(GoAwayFrame(0, last_stream_id=LARGEST))
        assert (peer.connection.limit, left.answer.done()) == (0, False)
        peer.say(GoAwayFrame(0, last_stream_id=1))
        assert isinstance(await outcome(left), Unprocessed)
        peer.say(peer.answer(1))
        assert await outcome(kept) == OK

    @virtual
    async def test_a_goaway_cannot_give_back_what_was_answered_in_part(self) -> None:
        peer = Peer()
        stream = peer.ask()
        peer.say(peer.head(1), GoAwayFrame(0, last_stream_id=0))
        error = await outcome(stream)
        assert isinstance(error, TransportError)
        assert error.sent

    @virtual
    async def test_an_end_gives_back_what_was_not_written(self) -> None:
        peer = Peer()
        written = peer.ask()
        await peer.said()
        waiting = peer.ask()
        peer.connection.connection_lost(None)
        error = await outcome(written)
        assert isinstance(error, TransportError)
        assert error.sent
        assert isinstance(await outcome(waiting), Unprocessed)
        assert peer.connection.lost.done()

    @virtual
    async def test_so_does_a_transport_that_is_closed_already(self) -> None:
        peer = Peer()
        await peer.said()
        peer.tls.broken = True
        stream = peer.ask()
        for _ in range(3):
            await asyncio.sleep(0)
        assert isinstance(await outcome(stream), Unprocessed)

    @virtual
    async def test_leaving_waits_for_what_is_under_way(self) -> None:
        peer = Peer()
        stream = peer.ask()
        await peer.said()
        peer.connection.leave()
        assert (peer.connection.limit, peer.tls.closing) == (0, False)
        peer.say(peer.answer(1))
        assert await outcome(stream) == OK
        assert [each.error_code for each in goodbyes(peer)] == [Code.NO_ERROR]
        assert peer.tls.closing


class TestLife:
    @virtual
    async def test_one_without_requests_is_closed_after_a_while(self) -> None:
        peer = Peer()
        peer.connection.check(IDLE_S - 1)
        assert not peer.tls.closing
        peer.connection.check(IDLE_S)
        assert (peer.tls.closing, peer.owner.has_left) == (True, True)
        assert await peer.told(PingFrame) == []

    @virtual
    async def test_a_quiet_one_is_asked_and_gets_nothing_new_until_it_answers(self) -> None:
        peer = Peer()
        peer.ask()
        peer.connection.check(QUIET_S - 1)
        assert await peer.told(PingFrame) == []
        peer.connection.check(QUIET_S)
        [ping] = await peer.told(PingFrame)
        assert (peer.connection.limit, peer.connection.stands) == (0, False)
        peer.say(PingFrame(0, ping.opaque_data, flags=["ACK"]))
        assert (peer.connection.limit, peer.connection.stands) == (STREAMS, True)

    @virtual
    async def test_a_silent_one_is_given_up(self) -> None:
        peer = Peer()
        stream = peer.ask(timeout_s=60.0)
        await peer.said()
        peer.connection.check(QUIET_S)
        peer.connection.check(2 * QUIET_S)
        error = await outcome(stream)
        assert isinstance(error, TransportError)
        assert (error.sent, "silence" in str(error), peer.tls.closing) == (True, True, True)

    @virtual
    async def test_a_request_after_a_long_rest_is_not_taken_for_silence(self) -> None:
        peer = Peer()
        await asyncio.sleep(20.0)
        peer.ask()
        peer.connection.check(21.0)
        assert peer.connection.limit == STREAMS
