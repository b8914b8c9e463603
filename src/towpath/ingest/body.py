"""Request bodies: read within a deadline, inflated within the limits, counted while they are held."""

from __future__ import annotations

import asyncio
import zlib
from collections.abc import Awaitable, Callable, Mapping, MutableMapping
from types import TracebackType
from typing import Any, Self, TypeAlias

from .answers import stop
from .limits import IngestLimits

Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]

# An honest sender of a somewhat too large body is read to its end, so that it sees the 413 and not a reset.
_DISCARD = 4
# Each member copies the rest of the input; without a bound, a body of empty members takes quadratic time.
_MEMBERS = 64


class Bodies:
    """All bodies in memory at this moment."""

    def __init__(self, limits: IngestLimits) -> None:
        self.limits = limits
        self.held_bytes = 0


class Body:
    """One request's body; use as a context, and it counts as held until the context ends.

    Set `trusted` once the sender has shown a key. Strangers find room only while half of it is free, so that
    they cannot crowd out those with a key.
    """

    __slots__ = ("_bodies", "_bytes", "trusted")

    def __init__(self, bodies: Bodies) -> None:
        self._bodies = bodies
        self._bytes = 0
        self.trusted = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None
    ) -> None:
        self._bodies.held_bytes -= self._bytes

    def _hold(self, size: int) -> None:
        self._bytes += size
        self._bodies.held_bytes += size
        room = self._bodies.limits.held_bytes
        if self._bodies.held_bytes > (room if self.trusted else room // 2):
            raise stop(
                503, "service unavailable: too many request bodies at once", retry_after_s=1, close=True
            )

    async def read(self, receive: Receive, headers: Mapping[bytes, bytes]) -> bytes:
        """Return the body, inflated. Raises `Unacceptable`: 408, 413, 400 for a wrong encoding, 503."""
        try:
            async with asyncio.timeout(self._bodies.limits.body_s):
                sent = await self._sent(receive)
        except TimeoutError as error:
            raise stop(408, "request body did not arrive in time", close=True) from error
        encoding = headers.get(b"content-encoding", b"").strip().lower()
        if encoding in (b"", b"identity"):
            return sent
        inflated = inflate(sent, encoding, self._bodies.limits.request_bytes)
        self._hold(len(inflated))
        return inflated

    async def skip(self, receive: Receive) -> bool:
        """Let a body go by that nobody wants; whether it ended within the limits.

        A sender that is refused before its body sees the answer, and not a reset while it still sends.
        """
        most, size, more = _DISCARD * self._bodies.limits.request_bytes, 0, True
        try:
            async with asyncio.timeout(self._bodies.limits.body_s):
                while more and size <= most:
                    message = await receive()
                    size, more = size + len(message.get("body", b"")), message.get("more_body", False)
        except TimeoutError:
            return False
        return not more

    async def _sent(self, receive: Receive) -> bytes:
        limit = self._bodies.limits.request_bytes
        parts: list[bytes] = []
        size, more = 0, True
        while more:
            message = await receive()
            if message["type"] == "http.disconnect":
                raise stop(400, "request body is incomplete", close=True)
            part, more = message.get("body", b""), message.get("more_body", False)
            size += len(part)
            if size <= limit:
                self._hold(len(part))
                parts.append(part)
            elif size > _DISCARD * limit:
                raise stop(413, "request size exceeds max limit", close=True)
        if size > limit:
            raise stop(413, "request size exceeds max limit")
        return parts[0] if len(parts) == 1 else b"".join(parts)


def inflate(body: bytes, encoding: bytes, limit: int) -> bytes:
    """Inflate gzip (one or more members) or deflate (zlib or raw), stopping at `limit` bytes of output."""
    if encoding not in (b"gzip", b"x-gzip", b"deflate"):
        raise stop(400, "Content-Encoding must be gzip, deflate or identity")
    parts: list[bytes] = []
    size = 0
    for _ in range(_MEMBERS):
        part, body = _member(body, _window(body, encoding), limit - size + 1, encoding)
        parts.append(part)
        if (size := size + len(part)) > limit:
            raise stop(413, "request size exceeds max limit")
        if not (body := body.lstrip(b"\0")):
            return b"".join(parts)
    raise stop(400, f"the body has more than {_MEMBERS} compressed members")


def _window(body: bytes, encoding: bytes) -> int:
    if encoding != b"deflate":
        return 16 + zlib.MAX_WBITS
    # "deflate" means zlib (RFC 9110), but many clients send the raw stream: the header's checksum tells.
    wrapped = len(body) > 1 and body[0] & 15 == 8 and (body[0] * 256 + body[1]) % 31 == 0
    return zlib.MAX_WBITS if wrapped else -zlib.MAX_WBITS


def _member(body: bytes, window: int, room: int, encoding: bytes) -> tuple[bytes, bytes]:
    stream = zlib.decompressobj(window)
    try:
        part = stream.decompress(body, room)
    except zlib.error as error:
        raise stop(400, f"Content-Encoding says {encoding.decode()}, but the body is not: {error}") from error
    if not stream.eof and len(part) < room:
        raise stop(400, f"the {encoding.decode()} body ends too early")
    return part, stream.unused_data
