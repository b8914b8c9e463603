"""Senders that only want to do harm, many at once, against a real server: the honest are served as before."""

from __future__ import annotations

import asyncio
import gzip
import re
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from ..app.support import KEY, Hub
from .support import (
    accept,
    balances,
    memory_mb,
    numbered,
    scenario,
    settled,
    sink,
    size,
    started,
    until,
    write,
)

SLOW = size(50, 500)
RUDE = size(50, 500)
BOMBS = size(3, 20)
IDLE = size(300, 9_000)
BOMB_BYTES = 200 << 20
EVENT = b'{"type":"track","userId":"evil","event":"Never kept"}'
HEAD = f"POST /v1/track?writeKey={KEY} HTTP/1.1\r\nHost: x\r\n".encode()
GROWTH_MB = 32 + IDLE * 0.02  # a connection costs about 10 KiB of parser, transport and timer


class Sender:
    """One connection to the server, on which nothing happens but what is told."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def connect(cls, address: str) -> Sender:
        host, _, port = address.rpartition(":")
        return cls(*await asyncio.open_connection(host, int(port)))

    async def send(self, data: bytes) -> None:
        self._writer.write(data)
        await self._writer.drain()

    def send_no_more(self) -> None:
        """Close our half of the connection."""
        self._writer.write_eof()

    def reset(self) -> None:
        """Break off with a RST."""
        connection = self._writer.get_extra_info("socket")
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._writer.transport.abort()

    async def answer(self) -> int:
        """The status the server answered with before it closed; 0 when it just closed."""
        try:
            said = await self._reader.read(65536)
        except ConnectionResetError:
            return 0
        found = re.match(rb"HTTP/1\.1 (\d{3})", said)
        return int(found[1]) if found else 0

    async def close(self) -> None:
        self._writer.transport.abort()


@asynccontextmanager
async def connected(address: str, count: int) -> AsyncIterator[list[Sender]]:
    """Many connections at once."""
    senders: list[Sender] = []
    try:
        while len(senders) < count:
            wanted = min(100, count - len(senders))
            senders += await asyncio.gather(*(Sender.connect(address) for _ in range(wanted)))
        yield senders
    finally:
        for sender in senders:
            await sender.close()


async def drip_heads(senders: list[Sender]) -> set[int]:
    """Slowloris: a byte of the head now and then, until the server ends it; the answers."""

    async def drip(sender: Sender) -> int:
        answer = asyncio.ensure_future(sender.answer())
        try:
            for index in range(len(HEAD)):
                if answer.done():
                    break
                await sender.send(HEAD[index : index + 1])
                await asyncio.wait([answer], timeout=1.0)
        except ConnectionError:
            """The server has closed it; what it said before is in the answer."""
        return await answer

    return set(await asyncio.gather(*map(drip, senders)))


async def leave_half_way(running: Hub) -> set[int]:
    """Bodies that end before their length: by a closed half, and by a reset; the answers to the former."""
    begun = HEAD + b"Content-Length: 1000\r\n\r\n" + EVENT
    async with connected(running.address, RUDE) as halves, connected(running.address, RUDE) as resets:
        for sender in halves + resets:
            await sender.send(begun)
        for sender in resets:
            sender.reset()
        for sender in halves:
            sender.send_no_more()
        return set(await asyncio.gather(*(sender.answer() for sender in halves)))


async def bomb(running: Hub) -> set[int]:
    """Small bodies that inflate to 200 MiB; the answers."""
    body = gzip.compress(b'{"batch":[' + b" " * BOMB_BYTES, 9)
    head = HEAD + b"Content-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body)
    async with connected(running.address, BOMBS) as senders:
        for sender in senders:
            await sender.send(head + body)
        return set(await asyncio.gather(*(sender.answer() for sender in senders)))


def sockets(pid: int) -> int:
    """How many sockets a process holds open."""
    found = 0
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        try:
            found += str(entry.readlink()).startswith("socket:")
        except FileNotFoundError:
            """Closed while we looked."""
    return found


@pytest.mark.spec("E033", "E032", "E036", "P1")
async def test_the_honest_are_served_and_nothing_of_the_hostile_is_kept(tmp_path: Path) -> None:
    target = f"honest requests 200, nothing hostile kept, bombs 413, RSS + ≤ {GROWTH_MB:.0f} MiB, all closed"
    honest = [f"p{number}" for number in range(10)]
    with scenario("hostile senders", target, __file__) as row:
        async with sink() as (receiver, url):
            file = write(tmp_path, {"hook": url})
            async with started(file) as running:
                await accept(running.address, numbered(honest, range(20)), batch=10)
                open_before, before_mb = sockets(running.pid), memory_mb(running.pid, "VmHWM")
                async with (
                    connected(running.address, IDLE),
                    connected(running.address, SLOW) as slow,
                ):
                    dripping = asyncio.create_task(drip_heads(slow))
                    cut_short, bombed = await leave_half_way(running), await bomb(running)
                    await accept(running.address, numbered(honest, range(20, 40)), batch=10)
                    at_once = sockets(running.pid)
                    dripped = await dripping
                    await until(lambda: sockets(running.pid) <= open_before + 5)
                await accept(running.address, numbered(honest, range(40, 60)), batch=10)
                grown_mb = memory_mb(running.pid, "VmHWM") - before_mb
                await settled(file, ["hook"])
                balance = (await balances(file))["hook"]
        row.injected = (
            f"{IDLE:,} idle connections, {SLOW} slow heads, {RUDE} half-closed and {RUDE} reset bodies, "
            f"{BOMBS} gzip bombs of 200 MiB"
        )
        row.measured = (
            f"60 of 60 honest requests 200 beside {at_once:,} open sockets; slow heads {codes(dripped)}, "
            f"short bodies {codes(cut_short)}, bombs {codes(bombed)}; "
            f"{balance['accepted'] - 600} hostile events kept; RSS + {grown_mb:.0f} MiB; all closed"
        )
        assert dripped <= {408, 0}
        assert cut_short <= {400, 408, 0}
        assert bombed == {413}
        assert balance["accepted"] == balance["delivered"] == len(receiver.received) == 600
        assert grown_mb <= GROWTH_MB


def codes(seen: set[int]) -> str:
    """Statuses as text; 0 is a connection that was just closed."""
    return "/".join(str(status) if status else "closed" for status in sorted(seen))
