"""One HTTP exchange as the sandbox's servers see it: the request read whole, the answer, the cut wire."""

from __future__ import annotations

import asyncio
import os
import socket
import struct
from collections.abc import Awaitable, Callable, MutableMapping, Sequence
from typing import Any, TypeAlias

from msgspec import Struct

ASGIScope: TypeAlias = MutableMapping[str, Any]
Receive: TypeAlias = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send: TypeAlias = Callable[[MutableMapping[str, Any]], Awaitable[None]]
Headers: TypeAlias = Sequence[tuple[bytes, bytes]]

SEVER = "towpath.sever"
"""The ASGI extension whose `sever` cuts the connection with a reset; `serve.py` provides it."""

READ_LIMIT_BYTES = 4 * 1024 * 1024


class Incoming(Struct, gc=False):
    """A request as it was read: `path` is still percent-encoded; `body` is cut at 4 MiB, `size` is not."""

    method: str
    path: str
    query: str
    headers: Headers
    body: bytes
    size: int

    def header(self, name: bytes) -> str:
        """Return a header by its lower-case name; empty when absent."""
        for key, value in self.headers:
            if key == name:
                return value.decode("latin-1")
        return ""


class Answer(Struct, gc=False):
    """What is answered: status, body and further headers."""

    status: int
    body: bytes = b""
    headers: Headers = ()


async def read(scope: ASGIScope, receive: Receive) -> Incoming:
    """Read the whole request. Raises `ConnectionError` when the caller leaves before its end."""
    message = await receive()
    body, more = message.get("body", b""), message.get("more_body", False)
    size = len(body)
    while more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ConnectionError("the caller left")
        more = message.get("more_body", False)
        part = message.get("body", b"")
        size += len(part)
        if size <= READ_LIMIT_BYTES:
            body += part
    path = scope.get("raw_path") or scope["path"].encode()
    query = scope["query_string"].decode("latin-1")
    return Incoming(scope["method"], path.decode("latin-1"), query, scope["headers"], body, size)


async def write(send: Send, answer: Answer) -> None:
    """Send a whole answer."""
    headers = list(answer.headers)
    if answer.status != 204:
        headers.append((b"content-length", b"%d" % len(answer.body)))
    await send({"type": "http.response.start", "status": answer.status, "headers": headers})
    await send({"type": "http.response.body", "body": answer.body})


async def sever(scope: ASGIScope, receive: Receive) -> None:
    """Cut the connection with a reset, whatever was sent. Raises `ConnectionError` without that extension."""
    extension = scope.get("extensions", {}).get(SEVER)
    if extension is None:
        raise ConnectionResetError("cut by the sandbox")
    extension["sever"]()
    while (await receive())["type"] != "http.disconnect":
        pass


def reset(transport: asyncio.WriteTransport) -> None:
    """Close a connection with a TCP reset: unsent bytes are dropped, the peer sees ECONNRESET."""
    raw = transport.get_extra_info("socket")
    if raw is not None and not transport.is_closing():
        with socket.socket(fileno=os.dup(raw.fileno())) as twin:
            twin.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    transport.abort()
