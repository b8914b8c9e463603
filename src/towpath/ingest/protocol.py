"""uvicorn's HTTP/1.1 with bounds it lacks: a head's size and time, and an upload's time at a stop."""

from __future__ import annotations

from asyncio import TimerHandle, Transport
from typing import Any, ClassVar

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol


class BoundedHttp(HttpToolsProtocol):
    """For `uvicorn.Config(http=BoundedHttp)`: a slow or endless head ends the connection.

    At a stop a body that does not arrive within `upload_s` ends it too, with 503: nothing of it was kept.
    """

    head_s: ClassVar[float] = 10.0
    head_bytes: ClassVar[int] = 64 * 1024
    upload_s: ClassVar[float] = 1.0

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._in_head = self._in_body = False
        self._head_size = 0
        self._head_timer: TimerHandle | None = None

    def connection_made(self, transport: Transport) -> None:  # type: ignore[override]
        """Start the clock for the first head."""
        super().connection_made(transport)
        self._await_head()

    def connection_lost(self, exc: Exception | None) -> None:
        """Stop the clock."""
        self._stop_waiting()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Feed the parser, unless a head went on for too long already."""
        if self._in_head and self._head_size > self.head_bytes:
            return self._end(b"431 Request Header Fields Too Large")
        super().data_received(data)
        if self._in_head:
            self._head_size += len(data)
            self._await_head()
        return None

    def on_message_begin(self) -> None:
        """A head begins."""
        super().on_message_begin()
        self._in_head, self._head_size = True, 0

    def on_headers_complete(self) -> None:
        """A head is complete."""
        self._in_head, self._in_body = False, True
        self._stop_waiting()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        """A body is complete."""
        self._in_body = False
        super().on_message_complete()

    def shutdown(self) -> None:
        """Begin to stop: answer what is under way, and wait for the rest of a body a little only."""
        super().shutdown()
        self.loop.call_later(self.upload_s, self._end_upload)

    def _end_upload(self) -> None:
        if self._in_body and not self.cycle.response_started:
            self._end(b"503 Service Unavailable")

    def _await_head(self) -> None:
        if self._head_timer is None:
            self._head_timer = self.loop.call_later(self.head_s, self._end, b"408 Request Timeout")

    def _stop_waiting(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _end(self, status: bytes) -> None:
        if not self.transport.is_closing():
            self.transport.write(
                b"HTTP/1.1 " + status + b"\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"
            )
            self.transport.close()
