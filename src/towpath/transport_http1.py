"""The default transport: HTTP/1.1 on the loop's own thread, parsed by llhttp (httptools)."""

from __future__ import annotations

import asyncio
import functools
import socket
import ssl
from collections import deque
from collections.abc import Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING

from .http import Reply, Request, TransportError
from .http1 import Connection, encode
from .url import Origin, read_url

if TYPE_CHECKING:
    from .guard import Pin

IDLE_CONNECTIONS_PER_HOST = 128
IDLE_S = 60.0
HEAD_START_S = 0.25
"""How long one address of a name is tried before the next one is tried beside it (RFC 8305)."""


class Http1Transport:
    """Requests over HTTP/1.1 with keep-alive, TLS ≥ 1.2.

    On the loop's own thread, because a client with threads of its own passes the interpreter's lock back and
    forth at each request; see `bench/deliver.py`. No redirects, no proxy from the environment, no
    decompression, no cookies, at most 64 KiB of an answer. `pin` fixes the address of a host;
    `root_certificate` (PEM) is trusted besides the system's.
    """

    def __init__(self, *, pin: Pin | None = None, root_certificate: bytes | None = None) -> None:
        self._pin = pin
        self._root_certificate = root_certificate
        self._idle: dict[Origin, deque[Connection]] = {}
        self._open: set[Connection] = set()
        self._looking_up: dict[Origin, asyncio.Task[Sequence[str]]] = {}
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False

    async def send(self, request: Request, *, timeout_s: float) -> Reply:
        """Do one exchange within a total deadline. Raises `TransportError`, `Unsendable` for a bad URL."""
        target = read_url(request.url)
        message = encode(request, target)
        loop = asyncio.get_running_loop()
        deadline_s = loop.time() + timeout_s
        connection = self._waiting(target.origin) or await self._connected(target.origin, timeout_s)
        answer = connection.ask(message, bodyless=request.method == "HEAD")
        timer = loop.call_at(deadline_s, connection.expire, timeout_s)
        try:
            return await answer
        finally:
            timer.cancel()
            self._release(target.origin, connection)

    async def close(self) -> None:
        """Close all connections; requests under way end with `TransportError`."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        open_ = [*self._open]
        for connection in open_:
            connection.drop()
        await asyncio.gather(*[connection.lost for connection in open_])

    # -- keeping connections ---------------------------------------------------------------------------

    def _waiting(self, origin: Origin) -> Connection | None:
        """A connection that waits for work, the one used last; None when there is none."""
        idle = self._idle.get(origin)
        while idle:
            connection = idle.pop()
            if connection.reusable:
                return connection
        return None

    def _release(self, origin: Origin, connection: Connection) -> None:
        idle = self._idle.setdefault(origin, deque())
        if not connection.reusable or self._closed or len(idle) >= IDLE_CONNECTIONS_PER_HOST:
            connection.drop()
            return
        loop = asyncio.get_running_loop()
        connection.idle_since_s = loop.time()
        idle.append(connection)
        if self._sweeper is None:
            self._sweeper = loop.call_later(IDLE_S, self._sweep)

    def _sweep(self) -> None:
        """Close what has not been used for long."""
        loop = asyncio.get_running_loop()
        before_s = loop.time() - IDLE_S
        for idle in self._idle.values():
            while idle and (not idle[0].reusable or idle[0].idle_since_s <= before_s):
                idle.popleft().drop()
        self._idle = {origin: idle for origin, idle in self._idle.items() if idle}
        self._sweeper = loop.call_later(IDLE_S / 2, self._sweep) if self._idle else None

    # -- making connections ----------------------------------------------------------------------------

    async def _connected(self, origin: Origin, timeout_s: float) -> Connection:
        if self._closed:
            raise TransportError("the client is closed", sent=False)
        try:
            async with asyncio.timeout(timeout_s):
                return await self._race(origin, await self._addresses(origin))
        except TimeoutError as error:
            raise TransportError(f"no connection within {timeout_s:g} s", sent=False) from error
        except (OSError, UnicodeError) as error:
            raise TransportError(f"no connection: {type(error).__name__}: {error}", sent=False) from error

    async def _addresses(self, origin: Origin) -> Sequence[str]:
        """The host's addresses; all who ask at the same time share one look-up, which blocks a thread."""
        task = self._looking_up.get(origin)
        if task is None:
            task = self._looking_up[origin] = asyncio.create_task(self._look_up(origin))
            task.add_done_callback(lambda done: self._looked_up(origin, done))
        return await asyncio.shield(task)

    def _looked_up(self, origin: Origin, task: asyncio.Task[Sequence[str]]) -> None:
        del self._looking_up[origin]
        if not task.cancelled():
            task.exception()  # perhaps nobody waits for it any more

    async def _look_up(self, origin: Origin) -> Sequence[str]:
        """The host's addresses, IPv6 and IPv4 taking turns."""
        if self._pin is not None:
            if origin.host != self._pin.host:
                raise OSError(f"{origin.host} is not the pinned host")
            return [self._pin.address]
        loop = asyncio.get_running_loop()
        found = await loop.getaddrinfo(origin.host, origin.port, type=socket.SOCK_STREAM)
        families: dict[int, list[str]] = {}
        for family, *_, address in found:
            families.setdefault(family, []).append(str(address[0]))
        return [address for turn in zip_longest(*families.values()) for address in turn if address]

    async def _race(self, origin: Origin, addresses: Sequence[str]) -> Connection:
        """The first connection that stands; each address gets a head start over the next one."""
        waiting = deque(addresses)
        running: set[asyncio.Task[Connection]] = set()
        failure: BaseException = OSError("the name has no address")
        try:
            while waiting or running:
                if waiting:
                    running.add(asyncio.create_task(self._connect(origin, waiting.popleft())))
                head_start_s = HEAD_START_S if waiting else None
                await asyncio.wait(running, timeout=head_start_s, return_when=asyncio.FIRST_COMPLETED)
                for task in [task for task in running if task.done()]:
                    running.discard(task)
                    if (error := task.exception()) is None:
                        return task.result()
                    failure = error
            raise failure
        finally:
            for task in running:
                task.add_done_callback(_drop)
                task.cancel()

    async def _connect(self, origin: Origin, address: str) -> Connection:
        context = _tls(self._root_certificate) if origin.tls else None
        name = origin.host if origin.tls else None
        _, connection = await asyncio.get_running_loop().create_connection(
            Connection, address, origin.port, ssl=context, server_hostname=name
        )
        if self._closed:
            connection.drop()
            raise OSError("the client was closed meanwhile")
        self._open.add(connection)
        connection.lost.add_done_callback(lambda _: self._open.discard(connection))
        return connection


def _drop(loser: asyncio.Task[Connection]) -> None:
    if not loser.cancelled() and loser.exception() is None:
        loser.result().drop()


@functools.cache
def _tls(root_certificate: bytes | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols(["http/1.1"])
    if root_certificate is not None:
        context.load_verify_locations(cadata=root_certificate.decode())
    return context
