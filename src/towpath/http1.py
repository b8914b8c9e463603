"""HTTP/1.1 as a client speaks it on one connection: the bytes of a request, and one answer within bounds."""

from __future__ import annotations

import asyncio
from typing import cast

import httptools

from .http import Reply, Request, TransportError, Unsendable
from .url import Target

FRAMING_LIMIT_BYTES = 1024 * 1024
"""What an answer may have besides its body: a head, chunk sizes or trailers without end are not read on."""
_WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
_FRAMING = frozenset({"content-length", "transfer-encoding"})


def encode(request: Request, target: Target) -> bytes:
    """Write a request as bytes. Raises `Unsendable` for text that would end a line, or is not Latin-1."""
    lines = [f"{request.method} {target.path} HTTP/1.1\r\n"]
    for name, value in {**target.headers, **request.headers}.items():
        if name not in _FRAMING:
            lines.append(f"{name}: {value}\r\n")
    if request.body or request.method in _WITH_BODY:  # some servers answer 411 without it
        lines.append(f"content-length: {len(request.body)}\r\n")
    head = "".join(lines)
    if not head.count("\r") == head.count("\n") == len(lines):
        raise Unsendable("not a request: a line break in a header")
    try:
        return head.encode("latin-1") + b"\r\n" + request.body
    except UnicodeEncodeError:
        raise Unsendable("not a request: a header with characters that HTTP does not allow") from None


class Unanswered(TransportError):
    """The connection ended before a byte of the answer; a kept one was perhaps closed before it was asked."""


class Connection(asyncio.Protocol):
    """One connection, one request at a time; `reusable` says whether another may follow."""

    def __init__(self) -> None:
        self.reusable = False
        self.idle_until_s = 0.0
        self.lost = asyncio.get_running_loop().create_future()
        self._parser = httptools.HttpResponseParser(self)
        self._answer: asyncio.Future[Reply] | None = None
        self._transport: asyncio.Transport

    @property
    def stands(self) -> bool:
        """Whether it can still be written to; it may be closing before `connection_lost` says so."""
        return not self.lost.done() and not self._transport.is_closing()

    def ask(self, request: bytes, *, bodyless: bool, limit_bytes: int) -> asyncio.Future[Reply]:
        """Send a request; the future ends with the answer, or with `TransportError`."""
        self.reusable = False
        self._bodyless = bodyless
        self._limit_bytes = limit_bytes
        self._headers: dict[str, str] = {}
        self._body = bytearray()
        self._received = 0
        self._headed = False
        self._answer = asyncio.get_running_loop().create_future()
        if self.stands:
            self._write(request)
        else:
            self._fail(Unanswered("the connection ended before the request", sent=False))
        return self._answer

    def expire(self, timeout_s: float) -> None:
        """The deadline has passed."""
        self._fail(TransportError(f"no complete answer within {timeout_s:g} s", sent=True))

    def drop(self) -> None:
        """Close at once; a request under way ends with `TransportError`."""
        self.reusable = False
        self._transport.abort()

    # -- what asyncio calls ----------------------------------------------------------------------------

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """It stands."""
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        """Read on."""
        if self._pending is None:
            self.drop()  # nobody asked for this
            return
        self._received += len(data)
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade) as error:
            self._fail(TransportError(f"not an HTTP answer: {error}", sent=True))
        if self._received > self._limit_bytes + FRAMING_LIMIT_BYTES:
            self._overrun()

    def connection_lost(self, error: Exception | None) -> None:
        """It is closed."""
        self.reusable = False
        if self._pending is not None:
            if error is None and self._headed and self._ends_with_connection:
                self._finish(reusable=False)
            else:
                self._fail(self._broken(error))
        if not self.lost.done():
            self.lost.set_result(None)
        del self._parser  # it refers back to here, and both would stay until the collector comes

    # -- what the parser calls -------------------------------------------------------------------------

    def on_message_begin(self) -> None:
        """An answer begins."""
        if self._pending is None:
            self.drop()  # a second one, to a question nobody asked

    def on_header(self, name: bytes, value: bytes) -> None:
        """Keep a header; the first of a repeated one wins, trailers do not count."""
        if not self._headed:
            self._headers.setdefault(name.decode("latin-1").lower(), value.decode("latin-1"))

    def on_headers_complete(self) -> None:
        """The head is read."""
        if self._parser.get_status_code() < 200:
            self._headers.clear()  # an interim answer: the real one follows
            return
        self._headed = True
        if self._bodyless:
            self._finish(reusable=False)  # the parser does not know that nothing follows

    def on_body(self, piece: bytes) -> None:
        """Keep a piece of the body, up to the limit."""
        if self._pending is None:
            return  # what comes after the limit in the same read
        room = self._limit_bytes - len(self._body)
        self._body += piece[:room]
        if len(piece) > room:
            self._finish(reusable=False, cut=True)

    def on_message_complete(self) -> None:
        """The answer is read."""
        if self._headed:
            self._finish(reusable=self._parser.should_keep_alive())

    # -- how it ends -----------------------------------------------------------------------------------

    @property
    def _pending(self) -> asyncio.Future[Reply] | None:
        answer = self._answer
        return None if answer is None or answer.done() else answer

    @property
    def _ends_with_connection(self) -> bool:
        return not _FRAMING & self._headers.keys()

    def _finish(self, *, reusable: bool, cut: bool = False) -> None:
        if (answer := self._pending) is None:
            return
        body = bytes(self._body)
        self._body = bytearray()
        answer.set_result(Reply(self._parser.get_status_code(), self._headers, body, cut))
        self.reusable = reusable and not self._transport.get_write_buffer_size()
        if not self.reusable:
            self.drop()

    def _overrun(self) -> None:
        if self._headed:
            self._finish(reusable=False, cut=True)
        else:
            self._fail(TransportError("the head of the answer does not end", sent=True))

    def _write(self, request: bytes) -> None:
        try:
            self._transport.write(request)
        except RuntimeError as error:  # how uvloop says that its side is closed
            self._fail(Unanswered(f"the connection ended before the request: {error}", sent=False))

    def _broken(self, error: Exception | None) -> TransportError:
        kind = TransportError if self._received else Unanswered
        cause = error or "closed by the other side"
        return kind(f"the connection ended before the answer: {cause}", sent=True)

    def _fail(self, error: TransportError) -> None:
        if (answer := self._pending) is not None:
            answer.set_exception(error)
        self.drop()
