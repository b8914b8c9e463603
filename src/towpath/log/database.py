"""The file log.db while it is open: a writer, a reader, a scanner, and the directory's lock."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import TypeVar

import apsw

from .append import Appender
from .blob import Codec
from .lock import DirectoryLock
from .schema import open_reader, open_writer, save_room
from .writer import Writer

T = TypeVar("T")


class Database:
    """Owns the directory from construction to `close`. With `inline` everything runs on the caller.

    Called in the writer's thread: `short` says whether the disk is short of room, and `relieve`, after a
    transaction that failed while it was, gives back what is kept aside.
    """

    def __init__(self, directory: Path, *, inline: bool = False, durable: bool = True) -> None:
        directory.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.path = directory / "log.db"
        self._inline = inline
        with ExitStack() as opened:
            opened.callback(DirectoryLock(directory).release)
            self.path.touch(mode=0o600)  # SQLite gives its other files the same mode
            writing = open_writer(self.path, durable=durable)
            opened.callback(writing.close)
            self.reader = open_reader(self.path)
            opened.callback(self.reader.close)
            self._scanner = open_reader(self.path)
            opened.callback(self._scanner.close)
            self._opened = opened.pop_all()  # nothing failed: they stay open until `close`
        self.codec = Codec()
        self._scan_codec = Codec()
        self._scans = ThreadPoolExecutor(1, "towpath-scan")
        self._background = ThreadPoolExecutor(1, "towpath-dedup")
        self.appender = Appender()
        self.short: Callable[[], bool] = lambda: False
        self.relieve: Callable[[], None] = lambda: None
        self._saving = False
        self.writer = Writer(
            writing,
            inline=inline,
            prepare=self._save_room,
            flush=self.appender.flush,
            undo=self._undo,
        )

    def _save_room(self, connection: apsw.Connection) -> None:
        if (short := self.short()) or self._saving:
            if short != self._saving:
                save_room(connection, short=short)
            self._saving = short

    def _undo(self) -> None:
        self.appender.undo()
        if self._saving:
            self.relieve()

    async def write(self, apply: Callable[[apsw.Connection], T]) -> T:
        """Run something in the writer's transaction, after all that was appended before it."""

        def after_appends(connection: apsw.Connection) -> T:
            self.appender.flush(connection)
            return apply(connection)

        return await self.writer.submit(after_appends)

    async def scan(self, read: Callable[[apsw.Connection, Codec], T]) -> T:
        """Run a long read beside the loop."""
        if self._inline:
            return read(self._scanner, self._scan_codec)
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._scans, read, self._scanner, self._scan_codec)

    def later(self, task: Callable[[], None]) -> asyncio.Future[None] | None:
        """Run a task in the background, one after the other."""
        if self._inline:
            task()
            return None
        return asyncio.get_running_loop().run_in_executor(self._background, task)

    async def idle(self) -> None:
        """Return once the background has done what was asked so far."""
        if (done := self.later(lambda: None)) is not None:
            await done

    async def truncate(self) -> None:
        """Write the WAL back and empty it, so that overwritten bytes are in neither file."""
        await self.scan(lambda *_: _checkpoint(self.path))

    async def close(self, finally_: Callable[[], None]) -> None:
        """Finish what is queued and, last of all, `finally_`; close the file, give the directory back."""
        await self.writer.close()
        self.later(finally_)
        await self.idle()
        self._scans.shutdown()
        self._background.shutdown()
        self._opened.close()


def _checkpoint(path: Path) -> None:
    connection = apsw.Connection(str(path))
    try:
        connection.set_busy_timeout(10_000)
        while connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()[0][0]:
            pass
    finally:
        connection.close()
