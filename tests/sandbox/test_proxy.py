"""The fault proxy: what it does to bytes on their way, against a plain TCP upstream."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable

import aiohttp
import pytest

from towpath.sandbox.kustomer import KustomerSimulator
from towpath.sandbox.proxy import FaultProxy, Mode
from towpath.sandbox.serve import serve

from .conftest import Client, SetClock, until

pytestmark = pytest.mark.spec("D12")

ANSWER = bytes(range(256)) * 4


class Upstream:
    """Answers each line it gets with ANSWER, and remembers the lines."""

    def __init__(self) -> None:
        self.lines: list[bytes] = []

    async def __call__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while line := await reader.readline():
                self.lines.append(line)
                writer.write(ANSWER)
                await writer.drain()
        except ConnectionError:
            pass
        finally:
            writer.close()


@pytest.fixture
async def upstream() -> AsyncIterator[tuple[Upstream, int]]:
    answering = Upstream()
    server = await asyncio.start_server(answering, "127.0.0.1", 0)
    yield answering, server.sockets[0].getsockname()[1]
    server.close()
    await server.wait_closed()


@pytest.fixture
async def proxy(upstream: tuple[Upstream, int], clock: SetClock) -> AsyncIterator[FaultProxy]:
    async with FaultProxy("127.0.0.1", upstream[1], clock=clock) as opened:
        yield opened


@pytest.fixture
async def dial(
    proxy: FaultProxy,
) -> AsyncIterator[Callable[[], asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]]:
    writers: list[asyncio.StreamWriter] = []

    async def opened() -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        writers.append(writer)
        return reader, writer

    yield lambda: asyncio.ensure_future(opened())
    for writer in writers:
        writer.transport.abort()


Dial = Callable[[], "asyncio.Future[tuple[asyncio.StreamReader, asyncio.StreamWriter]]"]


async def test_by_default_everything_passes(dial: Dial, upstream: tuple[Upstream, int]) -> None:
    reader, writer = await dial()
    for _ in range(3):
        writer.write(b"ask\n")
        assert await reader.readexactly(len(ANSWER)) == ANSWER
    writer.write_eof()
    assert await reader.read() == b""
    assert upstream[0].lines == [b"ask\n"] * 3


async def test_latency_and_jitter_go_by_the_clock(dial: Dial, proxy: FaultProxy, clock: SetClock) -> None:
    proxy.mode = Mode(latency_s=2.0, jitter_s=1.0)
    reader, writer = await dial()
    writer.write(b"ask\n")
    assert await reader.readexactly(len(ANSWER)) == ANSWER
    assert len(clock.slept) >= 2
    assert all(2.0 <= delay <= 3.0 for delay in clock.slept)
    assert len(set(clock.slept)) > 1


async def test_bandwidth_takes_its_time(dial: Dial, proxy: FaultProxy, clock: SetClock) -> None:
    proxy.mode = Mode(bytes_per_s=1000.0)
    reader, writer = await dial()
    writer.write(b"ask\n")
    assert await reader.readexactly(len(ANSWER)) == ANSWER
    assert sum(clock.slept) == pytest.approx((len(ANSWER) + 4) / 1000)


async def test_reset_cuts_before_the_request_passes(
    dial: Dial, proxy: FaultProxy, upstream: tuple[Upstream, int]
) -> None:
    proxy.mode = Mode(reset=True, times=1)
    reader, writer = await dial()
    writer.write(b"ask\n")
    with pytest.raises(ConnectionResetError):
        await reader.read()
    assert upstream[0].lines == []
    reader, writer = await dial()
    writer.write(b"again\n")
    assert await reader.readexactly(len(ANSWER)) == ANSWER
    assert proxy.struck == {"reset": 1}


async def test_drop_answer_cuts_after_the_request_went_through(
    dial: Dial, proxy: FaultProxy, upstream: tuple[Upstream, int]
) -> None:
    proxy.mode = Mode(drop_answer=True)
    reader, writer = await dial()
    writer.write(b"ask\n")
    with pytest.raises(ConnectionResetError):
        await reader.read()
    assert upstream[0].lines == [b"ask\n"]


async def test_a_blackhole_swallows_until_it_is_lifted(
    dial: Dial, proxy: FaultProxy, upstream: tuple[Upstream, int]
) -> None:
    proxy.mode = Mode(blackhole=True)
    reader, writer = await dial()
    writer.write(b"lost\n")
    await until(lambda: proxy.struck)
    proxy.mode = Mode()
    writer.write(b"ask\n")
    assert await reader.readexactly(len(ANSWER)) == ANSWER
    assert upstream[0].lines == [b"ask\n"]


@pytest.mark.parametrize("size", [0, 1, 300, len(ANSWER) - 1])
async def test_truncate_ends_an_answer_early(dial: Dial, proxy: FaultProxy, size: int) -> None:
    reader, writer = await dial()
    writer.write(b"ask\n")
    assert await reader.readexactly(len(ANSWER)) == ANSWER
    proxy.mode = Mode(truncate_after=size)
    writer.write(b"ask\n")
    assert await reader.read() == ANSWER[:size]


@pytest.mark.parametrize("place", [0, 5, len(ANSWER) - 1])
async def test_corrupt_damages_one_byte_of_each_answer(dial: Dial, proxy: FaultProxy, place: int) -> None:
    proxy.mode = Mode(corrupt_at=place)
    reader, writer = await dial()
    for _ in range(2):
        writer.write(b"ask\n")
        got = await reader.readexactly(len(ANSWER))
        assert [index for index in range(len(got)) if got[index] != ANSWER[index]] == [place]


async def test_times_bounds_the_strikes(dial: Dial, proxy: FaultProxy) -> None:
    proxy.mode = Mode(corrupt_at=0, times=2)
    reader, writer = await dial()
    damaged = []
    for _ in range(4):
        writer.write(b"ask\n")
        damaged.append(await reader.readexactly(len(ANSWER)) != ANSWER)
    assert damaged == [True, True, False, False]


async def test_a_slow_close_waits_before_the_end_passes(
    dial: Dial, proxy: FaultProxy, clock: SetClock
) -> None:
    proxy.mode = Mode(close_delay_s=7.0)
    reader, writer = await dial()
    writer.write_eof()
    assert await reader.read() == b""
    assert clock.slept == [7.0, 7.0]


async def test_down_refuses_and_cuts_and_up_takes_the_same_port(dial: Dial, proxy: FaultProxy) -> None:
    port = proxy.port
    reader, writer = await dial()
    writer.write(b"ask\n")
    await reader.readexactly(len(ANSWER))
    await proxy.down()
    with pytest.raises(ConnectionResetError):
        await reader.read()
    with pytest.raises(ConnectionRefusedError):
        await dial()
    await proxy.up()
    assert proxy.port == port
    reader, writer = await dial()
    writer.write(b"ask\n")
    assert await reader.readexactly(len(ANSWER)) == ANSWER


async def test_too_many_connections_are_cut(upstream: tuple[Upstream, int]) -> None:
    async with FaultProxy("127.0.0.1", upstream[1], connections_limit=1) as proxy:
        first, first_writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        first_writer.write(b"ask\n")
        assert await first.readexactly(len(ANSWER)) == ANSWER
        second, second_writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        with pytest.raises(ConnectionResetError):
            await second.read()
        for writer in (first_writer, second_writer):
            writer.transport.abort()


async def test_an_upstream_that_is_gone_is_a_reset() -> None:
    async with FaultProxy("127.0.0.1", 1) as proxy:
        reader, writer = await asyncio.open_connection("127.0.0.1", proxy.port)
        with pytest.raises(ConnectionResetError):
            await reader.read()
        writer.transport.abort()


async def test_an_answer_lost_on_the_way_doubles_the_event(
    kustomer: KustomerSimulator, session: aiohttp.ClientSession
) -> None:
    async with serve(kustomer) as url, FaultProxy("127.0.0.1", int(url.rpartition(":")[2])) as proxy:
        client = Client(session, proxy.url)
        proxy.mode = Mode(drop_answer=True, times=1)
        with pytest.raises(aiohttp.ClientOSError):
            await client.track({"externalId": "u-1"}, "E1")
        assert (await client.track({"externalId": "u-1"}, "E1")).status == 201
    assert (kustomer.state.event_count, kustomer.state.duplicates) == (2, 1)
