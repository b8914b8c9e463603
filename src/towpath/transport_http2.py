"""A transport of many requests at a time to one service: HTTP/2 over as many connections as they need."""

from __future__ import annotations

import asyncio
import ipaddress
import math
import time
from datetime import timedelta
from operator import attrgetter
from typing import TYPE_CHECKING

from pyreqwest.client import Client
from pyreqwest.exceptions import BuilderError

from .http import Reply, Request, TransportError, Unsendable, Untrusted
from .transport import PyreqwestTransport, client_builder, exchange
from .url import Origin, read_url

if TYPE_CHECKING:
    from .guard import Pin

STREAMS = 100
"""Requests at a time on one connection: what servers allow as a rule, and hyper opens only one to a host."""
HEADROOM = 1.3
LONGEST_RTT_S = 0.5
"""Round trips longer than this are an outage, for which no more connections are opened."""
SPAN_S = 10.0
"""A connection is closed when so long the others would have done."""
CONNECT_S = 5.0
TIMEOUT_S = 15.0
"""A client's own deadline (FCM asks for at least 10); a shorter one is set for each request that has it."""
QUIET_S = 10.0
"""A connection on which nothing came for so long is asked whether it is alive (PING)."""


def connections_for(rate_per_s: float, rtt_s: float) -> int:
    """Return K = ceil(1.3 × rate × RTT / 100): the connections that such a rate needs."""
    return max(1, math.ceil(HEADROOM * rate_per_s * rtt_s / STREAMS))


class Http2Transport:
    """Requests over HTTP/2 and TLS ≥ 1.2 by pyreqwest; over HTTP/1.1 to a plain http address of this machine.

    No redirects, no proxy from the environment, no decompression. Connections are opened as needed: rate ×
    RTT, measured, is the number of requests under way (Little's law), so K follows it, up to what
    `rate_per_s` needs at the longest round trip. Each carries at most 100 requests, a new one goes to the
    least loaded. A request that surely was not processed (connect failure, REFUSED_STREAM, a GOAWAY that
    leaves it out) is sent once more at once; for any other failure `sent` is true. No exchange takes longer
    than 15 s. The headers of a 200 are left out.
    """

    def __init__(
        self, rate_per_s: float, *, pin: Pin | None = None, root_certificate: bytes | None = None
    ) -> None:
        self.most = connections_for(rate_per_s, LONGEST_RTT_S)
        self._pin = pin
        self._root_certificate = root_certificate
        self._room = asyncio.Semaphore(self.most * STREAMS)
        self._connections: list[_Connection] = []
        self._under_way = 0
        self._peak = 0
        self._span_began = 0.0
        self._plain: PyreqwestTransport | None = None

    @property
    def connections(self) -> int:
        """How many are open, or opened with the next request."""
        return len(self._connections)

    async def send(self, request: Request, *, timeout_s: float) -> Reply:
        """Do one exchange within a total deadline. Raises `TransportError`, `Unsendable` for a bad URL."""
        origin = read_url(request.url).origin
        if not origin.tls:
            return await self._local(origin).send(request, timeout_s=timeout_s)
        deadline = _now() + timeout_s
        try:
            return await self._once(request, deadline)
        except (Unsendable, Untrusted):
            raise
        except TransportError as error:
            if error.sent or _now() >= deadline:
                raise
        return await self._once(request, deadline)

    async def close(self) -> None:
        """Close all connections; requests under way end with `TransportError`."""
        closing, self._connections = self._connections, []
        if self._plain is not None:
            await self._plain.close()
        for connection in closing:
            await connection.client.close()

    async def _once(self, request: Request, deadline: float) -> Reply:
        await self._place(deadline)
        try:
            connection = self._chosen()
        except BuilderError as error:
            self._room.release()
            raise Unsendable("refused: the root certificates cannot be read; see SSL_CERT_FILE") from error
        connection.streams += 1
        self._under_way += 1
        try:
            left_s = max(deadline - _now(), 0.001)
            reply = await exchange(connection.client, request, left_s, bare=left_s > TIMEOUT_S - 1.0)
        except asyncio.CancelledError:
            # pyreqwest goes on with a request that nobody waits for any more: its place stays taken.
            asyncio.get_running_loop().call_later(max(deadline - _now(), 0.0), self._leave, connection)
            raise
        except BaseException:
            self._leave(connection)
            raise
        self._leave(connection)
        return reply

    def _leave(self, connection: _Connection) -> None:
        connection.streams -= 1
        self._under_way -= 1
        self._room.release()

    async def _place(self, deadline: float) -> None:
        """Wait until one more may be under way. Raises `TransportError` at the deadline."""
        if not self._room.locked():
            await self._room.acquire()
            return
        try:
            async with asyncio.timeout(deadline - _now()):
                await self._room.acquire()
        except TimeoutError as error:
            raise TransportError(
                "not sent: all connections were busy until the deadline", sent=False
            ) from error

    def _chosen(self) -> _Connection:
        """Choose the least loaded connection; a new one where those there are get crowded."""
        self._peak = max(self._peak, self._under_way + 1)
        if self._needed(self._under_way + 1) > len(self._connections):
            # Reading the system's certificates holds everything up for 30 ms: one at a time, when needed.
            self._connections.append(_Connection(self._client()))
            return self._connections[-1]
        if _now() - self._span_began > SPAN_S:
            # Whatever is still under way on the surplus ends as it would; then nobody holds it any more.
            del self._connections[self._needed(self._peak) :]
            self._peak, self._span_began = self._under_way + 1, _now()
        return min(self._connections, key=_streams)

    def _needed(self, under_way: int) -> int:
        return min(self.most, math.ceil(HEADROOM * under_way / STREAMS))

    def _client(self) -> Client:
        builder = client_builder(self._pin, self._root_certificate)
        # Not negotiated: while it does not know that it is HTTP/2, hyper opens a connection per request.
        builder = builder.http2_prior_knowledge().connect_timeout(timedelta(seconds=CONNECT_S))
        builder = builder.timeout(timedelta(seconds=TIMEOUT_S))
        builder = builder.http2_keep_alive_interval(timedelta(seconds=QUIET_S))
        return builder.http2_keep_alive_timeout(timedelta(seconds=QUIET_S)).build()

    def _local(self, origin: Origin) -> PyreqwestTransport:
        if not _is_local(origin.host):
            raise Unsendable(f"refused: {origin.host} is called over https only")
        if self._plain is None:
            self._plain = PyreqwestTransport()
        return self._plain


class _Connection:
    """One client of pyreqwest's, which keeps one connection to a host, and its requests under way."""

    __slots__ = ("client", "streams")

    def __init__(self, client: Client) -> None:
        self.client = client
        self.streams = 0


_streams = attrgetter("streams")
_now = time.monotonic


def _is_local(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
