"""A transport of many requests at a time to one service: HTTP/2 over as many connections as they need."""

from __future__ import annotations

import asyncio
import functools
import ipaddress
import math
from typing import TYPE_CHECKING

from .http import Reply, Request, TransportError, Unsendable
from .http2.blocks import HeadWriter
from .http2.connection import STREAMS, Connection
from .http2.pool import HEADROOM, Pool
from .http2.stream import Stream, Unprocessed
from .transport_http1 import Dialer, Http1Transport
from .url import Origin, read_url

if TYPE_CHECKING:
    from .guard import Pin

LONGEST_RTT_S = 0.5
"""Round trips longer than this are an outage, for which no more connections are opened."""
CONNECT_S = 5.0
TRIES = 5
"""How often a request is sent that the other side surely did nothing with."""


def connections_for(rate_per_s: float, rtt_s: float) -> int:
    """Return K = ceil(1.3 × rate × RTT / 100): the connections that such a rate needs."""
    return max(1, math.ceil(HEADROOM * rate_per_s * rtt_s / STREAMS))


class Http2Transport:
    """Requests over HTTP/2 and TLS ≥ 1.2; over HTTP/1.1 to a plain http address of this machine.

    On the loop's own thread, because passing each request to another one and back costs several times what
    writing it does; see `bench/fcm.py`. No redirects, no proxy from the environment, no decompression. `pin`
    fixes the address of a host; `root_certificate` (PEM) is trusted besides the system's. Connections are
    opened as needed: rate × RTT, measured, is the number of requests under way (Little's law), so K follows
    it, up to what `rate_per_s` needs at the longest round trip. A request that surely was not processed
    (REFUSED_STREAM, a GOAWAY that leaves it out, a connection that ended before it was written) is sent again
    at once, up to five times in all; for any other failure once it was written, `sent` is true.
    """

    def __init__(
        self, rate_per_s: float, *, pin: Pin | None = None, root_certificate: bytes | None = None
    ) -> None:
        self.most = connections_for(rate_per_s, LONGEST_RTT_S)
        self._dialer = Dialer("h2", pin=pin, root_certificate=root_certificate)
        self._heads = HeadWriter()
        self._pools: dict[Origin, Pool] = {}
        self._plain: Http1Transport | None = None
        self._closed = False

    @property
    def connections(self) -> int:
        """How many are open, or being opened."""
        return sum(pool.connections for pool in self._pools.values())

    async def send(self, request: Request, *, timeout_s: float) -> Reply:
        """Do one exchange within a total deadline. Raises `TransportError`, `Unsendable` for a bad URL."""
        target = read_url(request.url)
        if not target.origin.tls:
            return await self._local(target.origin).send(request, timeout_s=timeout_s)
        pool = self._pools.get(target.origin) or self._pool(target.origin)
        loop = asyncio.get_running_loop()
        block, deadline_s, tries = self._heads.write(request, target), loop.time() + timeout_s, 0
        while True:
            answer: asyncio.Future[Reply] = loop.create_future()
            stream = Stream(
                block,
                request.body,
                request.limit_bytes,
                timeout_s,
                deadline_s,
                answer,
                request.method == "HEAD",
            )
            try:
                return await pool.exchange(stream)
            except Unprocessed:
                tries += 1
                if tries == TRIES or loop.time() >= deadline_s:
                    raise

    async def close(self) -> None:
        """Close all connections; requests under way end with `TransportError`."""
        self._closed = True
        if self._plain is not None:
            await self._plain.close()
        await self._dialer.close()
        await asyncio.gather(*[pool.close() for pool in self._pools.values()])

    def _pool(self, origin: Origin) -> Pool:
        if self._closed:
            raise TransportError("the client is closed", sent=False)
        return self._pools.setdefault(origin, Pool(functools.partial(self._dial, origin), self.most))

    async def _dial(self, origin: Origin, pool: Pool) -> Connection:
        """Open a connection, and wait for the settings of the other side."""
        deadline_s = asyncio.get_running_loop().time() + CONNECT_S
        connection = await self._dialer.connect(
            origin, lambda: Connection(pool), pool.opened, deadline_s=deadline_s, timeout_s=CONNECT_S
        )
        try:
            async with asyncio.timeout_at(deadline_s):
                await connection.ready
        except BaseException as error:
            connection.drop()
            if isinstance(error, TimeoutError):
                raise TransportError(f"no HTTP/2 connection within {CONNECT_S:g} s", sent=False) from error
            raise
        return connection

    def _local(self, origin: Origin) -> Http1Transport:
        if not _is_local(origin.host):
            raise Unsendable(f"refused: {origin.host} is called over https only")
        if self._plain is None:
            self._plain = Http1Transport()
        return self._plain


def _is_local(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
