"""The single writer: everything that changes log.db, many operations to one transaction and one fsync."""

from __future__ import annotations

import asyncio
import errno
import os
import queue
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Generic, TypeVar

import apsw

from . import LogFailed, LogFull

T = TypeVar("T")
GROUP_LIMIT = 1024

Apply = Callable[[apsw.Connection], T]
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT})
NO_ROOM_BYTES = 1 << 20
"""With less free than this, a file that cannot be opened or grown is a matter of room."""
_FAILED = (apsw.IOError, apsw.CantOpenError, apsw.ReadOnlyError, OSError)


class Operation(Generic[T]):
    """One thing to do inside a transaction; `finished`, on the loop, hears whether it was kept."""

    __slots__ = ("apply", "error", "finished", "future", "result")

    def __init__(
        self,
        apply: Apply[T],
        future: asyncio.Future[T],
        finished: Callable[[T | None], None] | None = None,
    ) -> None:
        self.apply = apply
        self.future = future
        self.finished = finished
        self.result: T | None = None
        self.error: Exception | None = None

    def conclude(self) -> None:
        """Tell those who wait; runs on the loop. A caller that went away changes nothing."""
        if self.finished is not None:
            self.finished(None if self.error is not None else self.result)
        if self.future.cancelled():
            return
        if self.error is not None:
            self.future.set_exception(self.error)
        else:
            self.future.set_result(self.result)  # type: ignore[arg-type]


class Writer:
    """Runs operations in the order given. `flush` ends each transaction, `undo` follows a rollback.

    `prepare` comes before each transaction.

    While one group's fsync runs the next group collects. With `inline` there is no thread: an operation is
    its own transaction, done when `submit` returns.
    """

    def __init__(
        self,
        connection: apsw.Connection,
        *,
        inline: bool = False,
        prepare: Callable[[apsw.Connection], None] = lambda _: None,
        flush: Callable[[apsw.Connection], None] = lambda _: None,
        undo: Callable[[], None] = lambda: None,
    ) -> None:
        self.connection = connection
        self._prepare = prepare
        self._flush = flush
        self._undo = undo
        self._queue: queue.SimpleQueue[Operation[Any] | None] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._thread = (
            None if inline else threading.Thread(target=self._run, name="towpath-writer", daemon=True)
        )
        if self._thread is not None:
            self._thread.start()

    def submit(
        self, apply: Apply[T], finished: Callable[[T | None], None] | None = None
    ) -> asyncio.Future[T]:
        """Queue an operation; the future ends when its transaction is on disk, or with its error."""
        operation = Operation(apply, self._loop.create_future(), finished)
        if self._thread is None:
            self._commit([operation])
            operation.conclude()
        else:
            self._queue.put(operation)
        return operation.future

    async def close(self) -> None:
        """Finish what is queued and stop the thread."""
        if self._thread is not None:
            self._queue.put(None)
            await asyncio.to_thread(self._thread.join)

    def _run(self) -> None:
        while (first := self._queue.get()) is not None:
            group, last = self._collect(first)
            self._commit(group)
            self._loop.call_soon_threadsafe(_conclude, group)
            if last:
                return

    def _collect(self, first: Operation[Any]) -> tuple[list[Operation[Any]], bool]:
        group = [first]
        while len(group) < GROUP_LIMIT:
            try:
                operation = self._queue.get_nowait()
            except queue.Empty:
                break
            if operation is None:
                return group, True
            group.append(operation)
        return group, False

    def _commit(self, group: Sequence[Operation[Any]]) -> None:
        """One transaction for all; when that fails one each, so that only the bad one is refused."""
        try:
            self._transact(group)
        except Exception as error:
            if len(group) > 1:
                for operation in group:
                    self._commit([operation])
            else:
                group[0].error = _translated(error, self.connection)

    def _transact(self, group: Sequence[Operation[Any]]) -> None:
        connection = self.connection
        self._prepare(connection)
        connection.execute("BEGIN IMMEDIATE")
        try:
            for operation in group:
                operation.result = operation.apply(connection)
            self._flush(connection)
            connection.execute("COMMIT")
        except BaseException:
            self._undo()
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def _conclude(group: Sequence[Operation[Any]]) -> None:
    for operation in group:
        operation.conclude()


def _translated(error: Exception, connection: apsw.Connection) -> Exception:
    """Tell a disk without room from one that fails; what is neither stays what it is."""
    if isinstance(error, apsw.FullError) or (isinstance(error, OSError) and error.errno in NO_ROOM):
        return LogFull(f"no room is left on the disk of the log: {error}")
    if not isinstance(error, _FAILED):
        return error
    if _free_bytes(connection) < NO_ROOM_BYTES:
        return LogFull(f"no room is left on the disk of the log: {error}")
    return LogFailed(f"the disk of the log fails: {error}")


def _free_bytes(connection: apsw.Connection) -> float:
    try:
        status = os.statvfs(Path(connection.filename).parent)
    except OSError:
        return float("inf")
    return status.f_bavail * status.f_frsize
