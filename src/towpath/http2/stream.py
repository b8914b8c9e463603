"""Streams: one request with its answer as it grows; and one timer for the deadlines of many of them."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Callable
from typing import TYPE_CHECKING

from msgspec import Struct

from ..http import Reply, TransportError

if TYPE_CHECKING:
    from .blocks import Head
    from .connection import Connection

NEAR_S = 0.001
"""As precise as the timers of a loop are."""


class Unprocessed(TransportError):
    """The other side surely did nothing with the request, or never saw it: it may be sent again at once."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, sent=False)


class Stream(Struct, eq=False):
    """One request and its answer; `answer` ends with the reply, or with `TransportError`.

    `unsent` is what is left of the body, `window` how much of it the stream may carry at the moment.
    `received` counts what came and is not yet acknowledged to the other side, padding included.
    """

    block: bytes
    unsent: bytes | memoryview
    limit_bytes: int
    timeout_s: float
    deadline_s: float
    answer: asyncio.Future[Reply]
    bodyless: bool = False
    number: int = 0
    connection: Connection | None = None
    window: int = 0
    head: Head | None = None
    parts: list[bytes] = []
    size: int = 0
    received: int = 0

    def finish(self) -> str:
        """End with the reply that came, cut at the limit; returns what is wrong with it, if anything."""
        head = self.head
        assert head is not None  # noqa: S101 - `Connection` knows that it came
        body = b"".join(self.parts)
        cut = self.size > self.limit_bytes
        if cut:
            body = body[: self.limit_bytes]
        elif head.length is not None and head.length != self.size and self._has_body(head):
            return "a body of another length than told"
        if not self.answer.done():
            self.answer.set_result(Reply(head.status, head.headers, body, cut))
        return ""

    def fail(self, error: TransportError) -> None:
        """End without a reply."""
        if not self.answer.done():
            self.answer.set_exception(error)

    def expire(self) -> None:
        """The deadline has passed."""
        reason = f"no complete answer within {round(self.timeout_s, 2):g} s"
        self.fail(TransportError(reason, sent=True))

    def _has_body(self, head: Head) -> bool:
        return bool(self.size) or not (self.bodyless or head.status in (204, 304))


class Alarm:
    """One timer for many deadlines: it rings at the earliest that it was set to.

    `ring` takes the time and returns the next deadline, infinity for none.
    """

    __slots__ = ("_at_s", "_handle", "_loop", "_ring")

    def __init__(self, ring: Callable[[float], float]) -> None:
        self._ring = ring
        self._loop = asyncio.get_running_loop()
        self._at_s = math.inf
        self._handle: asyncio.TimerHandle | None = None

    def by(self, at_s: float) -> None:
        """Ring no later than at this time of the loop."""
        if at_s < self._at_s:
            self.cancel()
            self._at_s = at_s
            self._handle = self._loop.call_at(at_s, self._rings)

    def cancel(self) -> None:
        """Do not ring."""
        if self._handle is not None:
            self._handle.cancel()
        self._at_s, self._handle = math.inf, None

    def _rings(self) -> None:
        self.cancel()
        self.by(self._ring(self._loop.time() + NEAR_S))
