"""The default transport: HTTP/1.1 on the loop's own thread, parsed by llhttp (httptools)."""

from __future__ import annotations

import asyncio
import functools
import re
import socket
import ssl
from collections import deque
from collections.abc import Callable, Coroutine, Mapping, Sequence
from itertools import zip_longest
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

from msgspec import Struct

from .http import Reply, Request, TransportError, Unsendable, Untrusted
from .http1 import Connection, Unanswered, encode
from .url import Origin, read_url

if TYPE_CHECKING:
    from .guard import Pin

IDLE_CONNECTIONS_PER_HOST = 128
IDLE_S = 4.0
"""How long a connection is kept for where the server does not say: many servers close after 5 s (Node)."""
LONGEST_IDLE_S = 60.0
CLOSING_S = 1.0
"""How much earlier than the server said a connection is given up: a request takes time to arrive."""
HEAD_START_S = 0.25
"""How long one address of a name is tried before the next one is tried beside it (RFC 8305)."""
CLOSED = "the client was closed meanwhile"
_READING = frozenset({"GET", "HEAD", "OPTIONS", "TRACE"})
_MARKS = frozenset({"idempotency-key", "x-idempotency-key", "webhook-id"})
_KEPT_S = re.compile(r"(?i)(?:^|[,;\s])timeout\s*=\s*\"?([0-9]{1,9})").search


P = TypeVar("P", bound=asyncio.BaseProtocol)
_Opened: TypeAlias = tuple[asyncio.Transport, P]


class Dialer:
    """Opens connections, TLS ≥ 1.2 where the origin has it, and offers `alpn` over TLS.

    `pin` fixes the address of a host; `root_certificate` (PEM) is trusted besides the system's.
    """

    def __init__(self, alpn: str, *, pin: Pin | None = None, root_certificate: bytes | None = None) -> None:
        self._alpn = alpn
        self._pin = pin
        self._root_certificate = root_certificate
        self._connecting: set[asyncio.Task[Any]] = set()
        self._looking_up: dict[Origin, asyncio.Task[Sequence[str]]] = {}
        self._closed = False

    async def connect(
        self,
        origin: Origin,
        protocol: Callable[[], P],
        opened: Callable[[P], None],
        *,
        deadline_s: float,
        timeout_s: float,
    ) -> P:
        """Connect until a time of the loop's, `timeout_s` from now. Raises `TransportError`, nothing sent.

        `protocol` makes what reads a connection; `opened` hears of each that stands, also of one that is too
        late and will be dropped.
        """
        attempt = functools.partial(self._connect, origin, self._context(origin), protocol, opened)
        try:
            async with asyncio.timeout_at(deadline_s):
                _, made = await self._race(attempt, await self._addresses(origin))
        except TimeoutError as error:
            raise TransportError(f"no connection within {timeout_s:g} s", sent=False) from error
        except ssl.SSLCertVerificationError as error:
            raise Untrusted(origin.host, error.verify_message) from error
        except OSError as error:
            raise TransportError(f"no connection: {type(error).__name__}: {error}", sent=False) from error
        return made

    async def close(self) -> None:
        """End what is being opened, and open no more."""
        self._closed = True
        for task in (connecting := [*self._connecting]):
            task.cancel()
        await asyncio.gather(*connecting, return_exceptions=True)

    def _context(self, origin: Origin) -> ssl.SSLContext | None:
        if not origin.tls:
            return None
        try:
            return _tls(self._alpn, self._root_certificate)
        except (ssl.SSLError, ValueError) as error:
            raise Unsendable("refused: the root certificates cannot be read; see SSL_CERT_FILE") from error

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

    async def _race(
        self, attempt: Callable[[str], Coroutine[Any, Any, _Opened[P]]], addresses: Sequence[str]
    ) -> _Opened[P]:
        """The first connection that stands; each address gets a head start over the next one."""
        waiting = deque(addresses)
        running: set[asyncio.Task[_Opened[P]]] = set()
        failure: BaseException = OSError("the name has no address")
        try:
            while waiting or running:
                if waiting:
                    running.add(self._begin(attempt(waiting.popleft())))
                head_start_s = HEAD_START_S if waiting else None
                await asyncio.wait(running, timeout=head_start_s, return_when=asyncio.FIRST_COMPLETED)
                for task in [task for task in running if task.done()]:
                    running.discard(task)
                    if (error := _failure(task)) is None:
                        return task.result()
                    failure = error
            raise failure
        finally:
            for task in running:
                task.add_done_callback(_drop)
                task.cancel()

    def _begin(self, attempt: Coroutine[Any, Any, _Opened[P]]) -> asyncio.Task[_Opened[P]]:
        if self._closed:
            attempt.close()
            raise OSError(CLOSED)
        task = asyncio.create_task(attempt)
        self._connecting.add(task)
        task.add_done_callback(self._connecting.discard)
        return task

    async def _connect(
        self,
        origin: Origin,
        context: ssl.SSLContext | None,
        protocol: Callable[[], P],
        opened: Callable[[P], None],
        address: str,
    ) -> _Opened[P]:
        name = origin.host if context else None
        transport, made = await asyncio.get_running_loop().create_connection(
            protocol, address, origin.port, ssl=context, server_hostname=name
        )
        opened(made)
        return transport, made


class Http1Transport:
    """Requests over HTTP/1.1 with keep-alive, TLS ≥ 1.2.

    On the loop's own thread, because a client with threads of its own passes the interpreter's lock back and
    forth at each request; see `bench/deliver.py`. No redirects, no proxy from the environment, no
    decompression, no cookies. `pin` fixes the address of a host; `root_certificate` (PEM) is trusted besides
    the system's. A kept connection that ends before a byte of the answer is replaced once, where the request
    did not leave or can be repeated (see `is_repeatable`).
    """

    def __init__(self, *, pin: Pin | None = None, root_certificate: bytes | None = None) -> None:
        self._dialer = Dialer("http/1.1", pin=pin, root_certificate=root_certificate)
        self._idle: dict[Origin, deque[Connection]] = {}
        self._open: set[Connection] = set()
        self._sweeper: asyncio.TimerHandle | None = None
        self._closed = False

    async def send(self, request: Request, *, timeout_s: float) -> Reply:
        """Do one exchange within a total deadline. Raises `TransportError`, `Unsendable` for a bad URL."""
        target = read_url(request.url)
        message = encode(request, target)
        deadline_s = asyncio.get_running_loop().time() + timeout_s
        asked = _Asked(target.origin, request, message, timeout_s, deadline_s)
        if (kept := self._waiting(target.origin)) is None:
            return await self._exchange(asked, await self._connected(asked))
        try:
            return await self._exchange(asked, kept)
        except Unanswered as error:
            if self._closed or (error.sent and not is_repeatable(request)):
                raise
            return await self._again(asked, sent=error.sent)

    async def close(self) -> None:
        """Close all connections, those being made too; requests under way end with `TransportError`."""
        self._closed = True
        if self._sweeper is not None:
            self._sweeper.cancel()
        await self._dialer.close()
        open_ = [*self._open]
        for connection in open_:
            connection.drop()
        await asyncio.gather(*[connection.lost for connection in open_])

    # -- one exchange ----------------------------------------------------------------------------------

    async def _exchange(self, asked: _Asked, connection: Connection) -> Reply:
        request = asked.request
        answer = connection.ask(
            asked.message, bodyless=request.method == "HEAD", limit_bytes=request.limit_bytes
        )
        timer = asyncio.get_running_loop().call_at(asked.deadline_s, connection.expire, asked.timeout_s)
        try:
            reply = await answer
        except BaseException:
            connection.drop()
            raise
        finally:
            timer.cancel()
        self._keep(asked.origin, connection, idle_s(reply.headers))
        return reply

    async def _again(self, asked: _Asked, *, sent: bool) -> Reply:
        """Once more, on a connection of its own. `sent` says whether the first time may have arrived."""
        try:
            return await self._exchange(asked, await self._connected(asked))
        except TransportError as error:
            error.sent = error.sent or sent
            raise

    # -- keeping connections ---------------------------------------------------------------------------

    def _waiting(self, origin: Origin) -> Connection | None:
        """A connection that waits for work, the one used last; None when there is none."""
        idle, now_s = self._idle.get(origin), asyncio.get_running_loop().time()
        while idle:
            connection = idle.pop()
            if connection.reusable and connection.stands and now_s < connection.idle_until_s:
                return connection
            connection.drop()
        return None

    def _keep(self, origin: Origin, connection: Connection, for_s: float) -> None:
        """Let a connection wait for the next request, where there may be one."""
        idle = self._idle.get(origin, ())
        if not connection.reusable or self._closed or len(idle) >= IDLE_CONNECTIONS_PER_HOST:
            connection.drop()
            return
        loop = asyncio.get_running_loop()
        connection.idle_until_s = loop.time() + for_s
        self._idle.setdefault(origin, deque()).append(connection)
        if self._sweeper is None:
            self._sweeper = loop.call_later(IDLE_S, self._sweep)

    def _sweep(self) -> None:
        """Close what has not been used for long."""
        loop = asyncio.get_running_loop()
        now_s = loop.time()
        for idle in self._idle.values():
            while idle and (not idle[0].reusable or idle[0].idle_until_s <= now_s):
                idle.popleft().drop()
        self._idle = {origin: idle for origin, idle in self._idle.items() if idle}
        self._sweeper = loop.call_later(IDLE_S / 2, self._sweep) if self._idle else None

    async def _connected(self, asked: _Asked) -> Connection:
        if self._closed:
            raise TransportError("the client is closed", sent=False)
        return await self._dialer.connect(
            asked.origin, Connection, self._opened, deadline_s=asked.deadline_s, timeout_s=asked.timeout_s
        )

    def _opened(self, connection: Connection) -> None:
        self._open.add(connection)
        connection.lost.add_done_callback(lambda _: self._open.discard(connection))


class _Asked(Struct, frozen=True):
    """A request on its way: its bytes, its deadline by the loop's clock, and how long that was from now."""

    origin: Origin
    request: Request
    message: bytes
    timeout_s: float
    deadline_s: float


def is_repeatable(request: Request) -> bool:
    """Whether it may arrive twice: it reads, or a mark lets the receiver tell (as Go's client has it).

    The marks are `idempotency-key`, `x-idempotency-key`, and `webhook-id` of Standard Webhooks.
    """
    return request.method in _READING or not _MARKS.isdisjoint(request.headers)


def idle_s(headers: Mapping[str, str]) -> float:
    """How long the connection may wait for the next request, by `keep-alive: timeout=…` of the server."""
    said = headers.get("keep-alive")
    if said is None or (found := _KEPT_S(said)) is None:
        return IDLE_S
    return min(float(found[1]) - CLOSING_S, LONGEST_IDLE_S)


def _failure(task: asyncio.Task[Any]) -> BaseException | None:
    return OSError(CLOSED) if task.cancelled() else task.exception()


def _drop(loser: asyncio.Task[Any]) -> None:
    if not loser.cancelled() and loser.exception() is None:
        loser.result()[0].abort()


@functools.cache
def _tls(alpn: str, root_certificate: bytes | None) -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.set_alpn_protocols([alpn])
    if root_certificate is not None:
        context.load_verify_locations(cadata=root_certificate.decode())
    return context
