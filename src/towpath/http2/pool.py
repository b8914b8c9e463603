"""Connections to one service: as many as its requests need, each used to the full before the next."""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, TypeAlias, cast

from ..http import TransportError
from .connection import QUIET_S, STREAMS
from .stream import Alarm

if TYPE_CHECKING:
    from ..http import Reply
    from .connection import Connection
    from .stream import Stream

HEADROOM = 1.3

Dial: TypeAlias = Callable[["Pool"], Awaitable["Connection"]]
"""Opens a connection of the pool's, and returns it when it is ready. Raises `TransportError`."""


class Pool:
    """Up to `most` connections. Requests that find no room wait, first come, first served.

    How many there are follows what is under way, rate × RTT (Little's law): K = ceil(1.3 × rate × RTT / 100).
    """

    def __init__(self, dial: Dial, most: int) -> None:
        self.most = most
        self._dial = dial
        self._loop = asyncio.get_running_loop()
        self._connections: list[Connection] = []  # those that take requests
        self._open: set[Connection] = set()
        self._dialing: set[asyncio.Task[None]] = set()
        self._waiting: deque[Stream] = deque()
        self._alarm = Alarm(self._expire)
        self._watch: asyncio.TimerHandle | None = None
        self._under_way = 0
        self._enough_for = 0.0
        self._failed_s = -math.inf
        self._closed = False

    @property
    def connections(self) -> int:
        """How many take requests, or are being opened."""
        return len(self._connections) + len(self._dialing)

    async def exchange(self, stream: Stream) -> Reply:
        """Do one exchange. Raises `TransportError`; of `Unprocessed` ones the other side knows nothing."""
        self._under_way += 1
        try:
            self._begin(stream)
            return await stream.answer
        except asyncio.CancelledError:
            if stream.connection is not None:
                stream.connection.abandon(stream)
            raise
        finally:
            self._under_way -= 1

    async def close(self) -> None:
        """Close all connections; requests under way end with `TransportError`."""
        self._closed = True
        self._alarm.cancel()
        if self._watch is not None:
            self._watch.cancel()
        self._refuse(TransportError("the client was closed meanwhile", sent=False))
        for task in (dialing := [*self._dialing]):
            task.cancel()
        await asyncio.gather(*dialing, return_exceptions=True)
        open_ = [*self._open]
        for connection in open_:
            connection.drop("the client was closed meanwhile")
        await asyncio.gather(*[connection.lost for connection in open_])

    # -- what connections say --------------------------------------------------------------------------

    def opened(self, connection: Connection) -> None:
        """It stands, but is perhaps not ready yet."""
        self._open.add(connection)
        connection.lost.add_done_callback(lambda _: self._open.discard(connection))
        if self._watch is None:
            self._watch = self._loop.call_later(QUIET_S, self._check)

    def freed(self) -> None:
        """There may be room: let those begin who wait."""
        while self._waiting and (connection := self._free()) is not None:
            stream = self._waiting.popleft()
            if not stream.answer.done():
                connection.begin(stream)

    def left(self, connection: Connection) -> None:
        """It takes no more requests."""
        if connection not in self._connections:
            return
        self._connections.remove(connection)
        self._enough_for = 0
        if not connection.served:
            self._fail(TransportError("the other side ended the connection before a request", sent=False))
        elif self._waiting:
            self._grow()

    # -- how requests find a connection ----------------------------------------------------------------

    def _begin(self, stream: Stream) -> None:
        if self._closed:
            raise TransportError("the client is closed", sent=False)
        if self._under_way > self._enough_for:
            self._grow()
        if (connection := self._free()) is not None:
            connection.begin(stream)
            return
        self._waiting.append(stream)
        self._alarm.by(stream.deadline_s)
        if not self._dialing:
            self._grow()

    def _free(self) -> Connection | None:
        """The first with room: so the others fall idle, and what is written together is more."""
        for connection in self._connections:
            if len(connection.streams) < connection.limit:
                return connection
        return None

    def _grow(self) -> None:
        """Open what is needed for what is under way, and some more."""
        standing = [connection for connection in self._connections if connection.stands]
        if standing and self._loop.time() - self._failed_s < QUIET_S:
            return
        allowed = min([STREAMS, *(connection.limit for connection in standing if connection.limit)])
        needed = min(self.most, math.ceil(HEADROOM * self._under_way / allowed))
        for _ in range(needed - len(standing) - len(self._dialing)):
            task = self._loop.create_task(self._add())
            self._dialing.add(task)
        self._enough_for = needed * allowed / HEADROOM if needed < self.most else math.inf

    async def _add(self) -> None:
        try:
            added: Connection | TransportError = await self._dial(self)
        except TransportError as error:
            added = error
        finally:
            self._dialing.discard(cast("asyncio.Task[None]", asyncio.current_task()))
        if isinstance(added, TransportError):
            self._fail(added)
        elif not added.stands:
            self._fail(TransportError("the other side ended the connection at once", sent=False))
        else:
            self._connections.append(added)
            self.freed()

    def _fail(self, error: TransportError) -> None:
        """Opening one failed: that is the end for who waits, unless there are others."""
        self._failed_s, self._enough_for = self._loop.time(), 0
        if not self._dialing and not any(connection.stands for connection in self._connections):
            self._refuse(error)

    def _refuse(self, error: TransportError) -> None:
        while self._waiting:
            self._waiting.popleft().fail(error)

    def _expire(self, now_s: float) -> float:
        """Send away whose deadline has passed."""
        why = "all connections were busy" if self._connections else "there was no connection"
        for stream in self._waiting:
            if stream.deadline_s <= now_s:
                stream.fail(TransportError(f"not sent: {why} until the deadline", sent=False))
        self._waiting = deque(stream for stream in self._waiting if not stream.answer.done())
        return min((stream.deadline_s for stream in self._waiting), default=math.inf)

    def _check(self) -> None:
        for connection in [*self._open]:
            connection.check(self._loop.time())
        if self._waiting:
            self._grow()
        self._watch = self._loop.call_later(QUIET_S, self._check) if self._open else None
