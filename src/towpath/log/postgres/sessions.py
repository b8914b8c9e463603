"""Sessions with PostgreSQL: opened when needed and anew when lost; each serves one thread at a time."""

from __future__ import annotations

import asyncio
import re
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from typing import Any, TypeAlias, TypeVar

import psycopg
from psycopg import errors, sql
from psycopg.types.string import StrDumperUnknown, TextLoader

from .. import LogFull
from ..blob import Codec

T = TypeVar("T")
Values: TypeAlias = Mapping[str, Any] | tuple[Any, ...]
THREADS = 4
WRITE = "BEGIN ISOLATION LEVEL READ COMMITTED"
SNAPSHOT = "BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY"
CONNECTION = {
    "connect_timeout": "5",
    "application_name": "towpath",
    "keepalives_idle": "10",
    "keepalives_interval": "5",
    "tcp_user_timeout": "15000",
    "target_session_attrs": "read-write",
}
"""What a connection string that does not say otherwise gets: a dead server is noticed within seconds."""
TIMEOUTS = "SET lock_timeout = '10s'; SET idle_in_transaction_session_timeout = '30s'"
"""A process that was frozen in the middle of a transaction does not hold up the others for ever."""
_unkept = re.compile("[\x00\x1a\ud800-\udfff]")
_kept = re.compile("\x1a([0-9a-f]{4})")


class LedgerLost(ConnectionError):
    """PostgreSQL cannot be reached, or went away; try again.

    A transaction that was under way is there whole or not at all. When the answer to its COMMIT was lost
    nobody knows which; everything the ledger does may be done again.
    """


class TextDumper(StrDumperUnknown):
    """PostgreSQL keeps no NUL in a text, and no half of a pair; ids and vendors' answers may have both."""

    def dump(self, obj: str) -> bytes:
        """Write U+001A and four hex digits for a character that cannot be kept, and for U+001A."""
        return super().dump(_unkept.sub(lambda found: f"\x1a{ord(found[0]):04x}", obj))  # type: ignore[return-value]


class KeptTextLoader(TextLoader):
    """The way back from `TextDumper`."""

    def load(self, data: Any) -> str | bytes:
        """Read a text as it was given."""
        text = super().load(data)
        return _kept.sub(lambda found: chr(int(found[1], 16)), text) if isinstance(text, str) else text


class Session:
    """A connection, and a codec for the bodies that go through it."""

    def __init__(self, dsn: str, schema: str, *, durable: bool) -> None:
        self.codec = Codec()
        self.schema = schema
        self._dsn = dsn
        self._durable = durable
        self._connection: psycopg.Connection[tuple[Any, ...]] | None = None

    def rows(self, statement: str, values: Values = ()) -> list[tuple[Any, ...]]:
        """All rows of a statement that returns some."""
        return self._opened().execute(statement.encode(), values or None).fetchall()

    def run(self, statement: str, values: Values = ()) -> int:
        """Run a statement; how many rows it concerned."""
        return self._opened().execute(statement.encode(), values or None).rowcount

    def run_many(self, statement: str, rows: Sequence[tuple[Any, ...]]) -> None:
        """Run a statement once for each row of values, without waiting in between."""
        if rows:
            self._opened().cursor().executemany(statement.encode(), rows)

    def transact(self, work: Callable[[Session], T], begin: str = WRITE) -> T:
        """Do something in one transaction. Raises `LedgerLost` or `LogFull`, with nothing done."""
        try:
            self._unless_stale(begin, ())
            try:
                result = work(self)
                self.run("COMMIT")
            except BaseException:
                with suppress(psycopg.Error):
                    self.run("ROLLBACK")
                raise
        except psycopg.Error as error:
            raise self._failed(error) from error
        return result

    def once(self, statement: str, values: Values) -> list[tuple[Any, ...]]:
        """One statement that is its own transaction and may be done twice; its rows, if it returns any.

        Raises `LedgerLost` or `LogFull`.
        """
        try:
            cursor = self._unless_stale(statement, values)
            return cursor.fetchall() if cursor.description else []
        except psycopg.Error as error:
            raise self._failed(error) from error

    def _unless_stale(self, statement: str, values: Values) -> psycopg.Cursor[tuple[Any, ...]]:
        """Begin on another connection where this one was lost while nobody used it."""
        used = self._connection is not None
        try:
            return self._opened().execute(statement.encode(), values or None)
        except (psycopg.OperationalError, psycopg.InternalError):
            if not used or self._connection is None or not self._connection.closed:
                raise
            self.close()
            return self._opened().execute(statement.encode(), values or None)

    def _failed(self, error: psycopg.Error) -> Exception:
        lost = self._connection is None or self._connection.closed
        if isinstance(error, errors.ReadOnlySqlTransaction):
            lost = True  # after a failover: look for the new primary
        if lost:
            self.close()
        if isinstance(error, errors.DiskFull):
            return LogFull(f"the ledger cannot be written: {error}")
        if lost or isinstance(error, psycopg.OperationalError):
            return LedgerLost(f"the ledger cannot be reached: {error}")
        return error

    def _opened(self) -> psycopg.Connection[tuple[Any, ...]]:
        if self._connection is None:
            self._connection = self._open()
        return self._connection

    def _open(self) -> psycopg.Connection[tuple[Any, ...]]:
        known = psycopg.conninfo.conninfo_to_dict(self._dsn)
        unsaid = {name: value for name, value in CONNECTION.items() if name not in known}
        connection = psycopg.connect(self._dsn, autocommit=True, **unsaid)  # type: ignore[arg-type]
        try:
            self._prepare(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _prepare(self, connection: psycopg.Connection[tuple[Any, ...]]) -> None:
        connection.adapters.register_dumper(str, TextDumper)
        connection.adapters.register_loader("text", KeptTextLoader)
        connection.execute(sql.SQL("SET search_path TO {}").format(sql.Identifier(self.schema)))
        connection.execute(TIMEOUTS)
        connection.execute("SET synchronous_commit = off" if not self._durable else _KEPT_ON_DISK)

    def close(self) -> None:
        """Close the connection; the next use opens another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None


_KEPT_ON_DISK = b"""
SELECT set_config('synchronous_commit', 'on', false) WHERE current_setting('synchronous_commit') = 'off'
"""
"""A server that answers before its disk does is asked not to; one that waits for its replicas still does."""


class Sessions:
    """Sessions for as many threads as are busy at once, at most `THREADS`; inline, one on the caller."""

    def __init__(self, dsn: str, schema: str, *, inline: bool, durable: bool) -> None:
        self._open: Callable[[], Session] = partial(Session, dsn, schema, durable=durable)
        self._idle: deque[Session] = deque()
        self._threads = None if inline else ThreadPoolExecutor(THREADS, "towpath-ledger")

    async def use(self, work: Callable[[Session], T]) -> T:
        """Let some session do this work, beside the loop."""
        if self._threads is None:
            return self._work(work)
        return await asyncio.get_running_loop().run_in_executor(self._threads, self._work, work)

    def _work(self, work: Callable[[Session], T]) -> T:
        try:
            session = self._idle.pop()
        except IndexError:
            session = self._open()
        try:
            return work(session)
        finally:
            self._idle.append(session)

    async def write(self, work: Callable[[Session], T]) -> T:
        """Do something in one transaction. Raises `LedgerLost` or `LogFull`, with nothing done."""
        return await self.use(lambda session: session.transact(work))

    async def read(self, work: Callable[[Session], T]) -> T:
        """Read from one snapshot; once more when the connection is lost. Raises `LedgerLost`."""
        try:
            return await self.use(lambda session: session.transact(work, SNAPSHOT))
        except LedgerLost:
            return await self.use(lambda session: session.transact(work, SNAPSHOT))

    async def once(self, statement: str, values: Values = ()) -> list[tuple[Any, ...]]:
        """One statement that may be done twice; its rows. Raises `LedgerLost` or `LogFull`."""
        return await self.use(lambda session: session.once(statement, values))

    async def close(self) -> None:
        """Finish what is under way and close all."""
        if self._threads is not None:
            await asyncio.to_thread(self._threads.shutdown)
        while self._idle:
            self._idle.pop().close()
