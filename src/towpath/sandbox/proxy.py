"""A TCP proxy that disturbs what passes: slow, cut, swallowed, shortened, damaged, or not there at all."""

from __future__ import annotations

import asyncio
from types import TracebackType

from msgspec import Struct

from towpath.clock import Clock, SystemClock

from .exchange import reset

_CHUNK_BYTES = 65536


class Mode(Struct, frozen=True, kw_only=True):
    """What happens to traffic; the default is nothing.

    `latency_s` and up to `jitter_s` more before each piece, both ways; `bytes_per_s` caps each direction of a
    connection (0: no cap). `reset`: cut when the next bytes of a request come, before they are passed on.
    `drop_answer`: the request passes, **the connection is cut when its answer comes**. `blackhole`: bytes are
    swallowed both ways. `truncate_after`: so many bytes of an answer pass, then the end. `corrupt_at`: the
    bits of this byte of an answer are flipped. `close_delay_s`: an end of stream is passed on so late.
    An answer is what comes back between two pieces of requests. `times` bounds how often anything but the
    slowness strikes (None: always).
    """

    latency_s: float = 0.0
    jitter_s: float = 0.0
    bytes_per_s: float = 0.0
    reset: bool = False
    drop_answer: bool = False
    blackhole: bool = False
    truncate_after: int | None = None
    corrupt_at: int | None = None
    close_delay_s: float = 0.0
    times: int | None = None


class _Connection:
    """One client and its upstream. `answered` counts the bytes of the answer that is passing."""

    def __init__(self, client: asyncio.StreamWriter, upstream: asyncio.StreamWriter) -> None:
        self.client = client
        self.upstream = upstream
        self.answered = 0

    def cut(self) -> None:
        """Reset the client, drop the upstream."""
        reset(self.client.transport)
        self.upstream.transport.abort()


class FaultProxy:
    """A proxy before one upstream, on a loopback port of its own; `async with` opens and closes it.

    `mode` may be changed at any time and holds for the next piece of every connection. `struck` counts what
    happened, by the name of the mode's field. More than `connections_limit` clients at once are cut.
    """

    def __init__(
        self,
        upstream_host: str,
        upstream_port: int,
        *,
        clock: Clock | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
        connections_limit: int = 1000,
    ) -> None:
        self.mode = Mode()
        self.struck: dict[str, int] = {}
        self.host = host
        self.port = port
        self._upstream = (upstream_host, upstream_port)
        self._clock = clock or SystemClock()
        self._connections_limit = connections_limit
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._strikes = 0
        self._struck_mode = self.mode

    @property
    def url(self) -> str:
        """The address to use in place of the upstream's."""
        return f"http://{self.host}:{self.port}"

    async def __aenter__(self) -> FaultProxy:
        """Open the port."""
        await self.up()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close the port and every connection."""
        await self.down()

    async def up(self) -> None:
        """Accept connections, on the same port as before. Raises `OSError` when it is taken."""
        if self._server is None:
            self._server = await asyncio.start_server(self._accept, self.host, self.port, limit=_CHUNK_BYTES)
            self.port = self._server.sockets[0].getsockname()[1]

    async def down(self) -> None:
        """Refuse connections, and cut those that are open."""
        server, self._server = self._server, None
        if server is None:
            return
        server.close()
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await server.wait_closed()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        if task is None or self._server is None or len(self._tasks) >= self._connections_limit:
            reset(writer.transport)
            return
        self._tasks.add(task)
        try:
            await self._carry(reader, writer)
            writer.close()
            await writer.wait_closed()
        except (ConnectionError, asyncio.CancelledError):
            """One side is gone or the proxy went down; a task of asyncio's streams must not end cancelled."""
        finally:
            self._tasks.discard(task)
            reset(writer.transport)

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            answers, upstream = await asyncio.open_connection(*self._upstream, limit=_CHUNK_BYTES)
        except OSError:
            reset(writer.transport)
            return
        connection = _Connection(writer, upstream)
        pumps = [
            asyncio.ensure_future(self._requests(reader, connection)),
            asyncio.ensure_future(self._answers(answers, connection)),
        ]
        try:
            await asyncio.gather(*pumps)
        finally:
            upstream.transport.abort()  # before an await, where a cancellation could come in between
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)

    async def _requests(self, reader: asyncio.StreamReader, connection: _Connection) -> None:
        while data := await reader.read(self._piece()):
            if self._strikes_now("reset", wanted=self.mode.reset):
                connection.cut()
                return
            if self._strikes_now("blackhole", wanted=self.mode.blackhole):
                continue
            await self._slow(len(data))
            connection.answered = 0
            connection.upstream.write(data)
            await connection.upstream.drain()
        await self._end(connection.upstream)

    async def _answers(self, reader: asyncio.StreamReader, connection: _Connection) -> None:
        while data := await reader.read(self._piece()):
            if self._strikes_now("drop_answer", wanted=self.mode.drop_answer):
                connection.cut()
                return
            if self._strikes_now("blackhole", wanted=self.mode.blackhole):
                continue
            await self._slow(len(data))
            if not await self._pass_on(data, connection):
                return
        await self._end(connection.client)

    async def _pass_on(self, data: bytes, connection: _Connection) -> bool:
        """Pass a piece of an answer on, damaged or shortened; False when that was its end."""
        start, mode = connection.answered, self.mode
        connection.answered += len(data)
        if mode.corrupt_at is not None and start <= mode.corrupt_at < connection.answered:
            data = self._corrupted(data, mode.corrupt_at - start)
        last = mode.truncate_after is not None and connection.answered > mode.truncate_after
        if last and self._strikes_now("truncate_after", wanted=True):
            data = data[: max(0, (mode.truncate_after or 0) - start)]
            connection.client.write(data)
            await connection.client.drain()
            connection.client.close()
            connection.upstream.transport.abort()
            return False
        connection.client.write(data)
        await connection.client.drain()
        return True

    def _corrupted(self, data: bytes, offset: int) -> bytes:
        if not self._strikes_now("corrupt_at", wanted=True):
            return data
        return data[:offset] + bytes([data[offset] ^ 0xFF]) + data[offset + 1 :]

    def _strikes_now(self, name: str, *, wanted: bool) -> bool:
        """Decide whether a fault strikes, and count it against the mode's `times`."""
        if not wanted:
            return False
        if self._struck_mode is not self.mode:
            self._struck_mode, self._strikes = self.mode, 0
        if self.mode.times is not None and self._strikes >= self.mode.times:
            return False
        self._strikes += 1
        self.struck[name] = self.struck.get(name, 0) + 1
        return True

    def _piece(self) -> int:
        """Return how much to read at once: a tenth of a second of the cap."""
        cap = self.mode.bytes_per_s
        return max(1, min(_CHUNK_BYTES, int(cap / 10))) if cap else _CHUNK_BYTES

    async def _slow(self, size: int) -> None:
        mode = self.mode
        delay_s = mode.latency_s + (size / mode.bytes_per_s if mode.bytes_per_s else 0.0)
        if mode.jitter_s:
            delay_s += self._clock.uniform(0.0, mode.jitter_s)
        if delay_s:
            await self._clock.sleep(delay_s)

    async def _end(self, writer: asyncio.StreamWriter) -> None:
        """Pass an end of stream on."""
        if self.mode.close_delay_s:
            await self._clock.sleep(self.mode.close_delay_s)
        if writer.can_write_eof() and not writer.is_closing():
            writer.write_eof()
