"""One HTTP/2 stream as an ASGI app sees it, and what an app may do to its stream and connection."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, MutableMapping, Sequence
from typing import Any, Protocol
from urllib.parse import unquote

from .exchange import SEVER, ASGIScope

STREAM = "towpath.stream"
"""The ASGI extension of HTTP/2 servers: `reset(code)` ends the stream alone with RST_STREAM, `go_away()`
gives the stream back unprocessed and ends the connection with GOAWAY once the streams before it are answered.
"""

REFUSED_STREAM = 7
INTERNAL_ERROR = 2

_ANSWERED_HEADERS = frozenset({b"connection", b"transfer-encoding"})


class Wire(Protocol):
    """What a stream needs of its connection."""

    def sever(self) -> None:
        """Cut the connection with a TCP reset."""

    def reset(self, stream: Stream, code: int) -> None:
        """End a stream with RST_STREAM."""

    def go_away(self, stream: Stream) -> None:
        """Give a stream back unprocessed and end the connection after the others."""

    async def deliver(self, stream: Stream, body: bytes, *, end: bool) -> None:
        """Send a part of the answer, the head before the first."""


class Stream:
    """A request whose answer is under way. `read` tells whether the app has begun to handle it."""

    def __init__(self, wire: Wire, number: int, headers: Sequence[tuple[bytes, bytes]]) -> None:
        self.number = number
        self.parts: list[bytes] = []
        self.size = 0
        self.read = False
        self.closed = False
        self.head: list[tuple[bytes, bytes]] | None = None
        self._headers = headers
        self._wire = wire
        self._gone: asyncio.Event | None = None

    def scope(self) -> ASGIScope:
        """Return the ASGI scope of the request."""
        pseudo = {name: value for name, value in self._headers if name.startswith(b":")}
        fields = [(name, value) for name, value in self._headers if not name.startswith(b":")]
        path, _, query = pseudo.get(b":path", b"/").partition(b"?")
        return {
            "type": "http",
            "asgi": {"version": "3.0", "spec_version": "2.3"},
            "http_version": "2",
            "scheme": "https",
            "method": pseudo.get(b":method", b"GET").decode("ascii"),
            "path": unquote(path.decode("latin-1")),
            "raw_path": path,
            "query_string": query,
            "headers": [(b"host", pseudo.get(b":authority", b"")), *fields],
            "extensions": {SEVER: {"sever": self._wire.sever}, STREAM: self._endings()},
        }

    async def receive(self) -> MutableMapping[str, Any]:
        """Return the whole body, then wait until the caller leaves."""
        if not self.read:
            self.read = True
            return {"type": "http.request", "body": b"".join(self.parts), "more_body": False}
        if not self.closed:
            self._gone = self._gone or asyncio.Event()
            await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: MutableMapping[str, Any]) -> None:
        """Send a part of the answer; nothing is sent on a closed stream."""
        if self.closed:
            return
        if message["type"] == "http.response.start":
            fields = [each for each in message["headers"] if each[0] not in _ANSWERED_HEADERS]
            self.head = [(b":status", b"%d" % message["status"]), *fields]
        else:
            more = message.get("more_body", False)
            await self._wire.deliver(self, message.get("body", b""), end=not more)

    def close(self) -> None:
        """Mark the stream as over, for whoever waits on it."""
        self.closed = True
        if self._gone is not None:
            self._gone.set()

    def _endings(self) -> dict[str, Callable[..., None]]:
        return {"reset": self._reset, "go_away": self._go_away}

    def _reset(self, code: int) -> None:
        self._wire.reset(self, code)

    def _go_away(self) -> None:
        self._wire.go_away(self)
