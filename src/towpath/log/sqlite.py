"""The embedded engine: log and ledger of one machine in one SQLite file, with one writer and group commit."""

from __future__ import annotations

import asyncio
import os
from bisect import bisect_right
from collections import OrderedDict
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from functools import partial
from operator import attrgetter
from pathlib import Path
from typing import Any

import apsw
import msgspec

from ..clock import Clock
from ..message import Record
from . import Appended, Erased, Group, LogFull, Refused, Standing, State, letters, trim
from .blob import Codec, Damaged
from .database import Database
from .dedup import Deduplication, Pending, Seen
from .erase import Person, search, search_copies, strike, strike_copies, unlink
from .ledger import SqliteLedger
from .scope import FROM, beyond, positions

WEEK_S = 7 * 86400.0
RESERVE_BYTES = 64 << 20
CACHED_BLOBS = 16
UNOPENED = (apsw.FullError, apsw.IOError, apsw.CantOpenError, apsw.ReadOnlyError)


class SqliteLog:
    """Implements `Log` with one partition, 0."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        window_s: float,
        reserve_bytes: int,
        free_bytes: Callable[[Path], int],
    ) -> None:
        self._database = database
        self._clock = clock
        self._reserve_bytes = reserve_bytes
        self._free_bytes = free_bytes
        database.short = lambda: self._has_less_than(reserve_bytes)
        self._dedup = Deduplication(database.path.with_name("dedup"), window_s, database.later)
        self._last = int(database.reader.execute("SELECT last FROM log").get)
        self._waiting: dict[asyncio.Future[None], int] = {}
        self._blobs: OrderedDict[int, list[Record]] = OrderedDict()

    async def start(self) -> None:
        """Make the memory of message ids again: from its files, and from the log what they lack."""
        now = self._clock.now()
        await self._database.scan(
            lambda db, codec: self._dedup.load(now, self._last, partial(_seen, db, codec))
        )

    # Room

    @property
    def short(self) -> bool:
        """Whether half of the reserve is used up: the rest is for what ends."""
        return self._has_less_than(self._reserve_bytes // 2)

    def _has_less_than(self, wanted_bytes: int) -> bool:
        return self._free_bytes(self._database.path.parent) < wanted_bytes

    # Appending

    async def append(
        self, groups: Sequence[Group], refused: Sequence[Refused] = (), state: tuple[str, State] | None = None
    ) -> Appended:
        """Keep messages; durable when it returns. Raises `LogFull` or `LogFailed`, with nothing kept."""
        if self._has_less_than(self._reserve_bytes):
            raise LogFull(
                f"less than {self._reserve_bytes >> 20} MiB of disk space are left for deliveries to end"
            )
        while isinstance(incoming := self._dedup.admit(groups, self._clock.now()), Pending):
            await _concluded(incoming)
        incoming.refused, incoming.state = refused, state
        pending = self._dedup.begin(incoming)
        take = self._database.appender.take
        return await self._database.writer.submit(
            lambda db: take(db, incoming), lambda appended: self._conclude(pending, appended)
        )

    def _conclude(self, pending: Pending, appended: Appended | None) -> None:
        if appended is not None:
            self._last = max(self._last, appended.last)
            if self._waiting:
                self._wake()
        self._dedup.finish(pending, None if appended is None else appended.last)

    def _wake(self) -> None:
        for future, after in self._waiting.items():
            if after < self._last and not future.done():
                future.set_result(None)

    # Reading

    def last(self, partition: int = 0) -> int:
        """The position of the newest durable record; 0 when empty."""
        return self._last if partition == 0 else 0

    async def wait(self, after: int, partition: int = 0) -> None:
        """Return once a record beyond `after` is durable."""
        if self.last(partition) <= after:
            future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._waiting[future] = after
            try:
                await future
            finally:
                del self._waiting[future]

    async def read(self, after: int, limit: int, partition: int = 0) -> Sequence[Record]:
        """Records with position > after, in order, at most `limit`.

        Raises `Damaged` where the very next one cannot be read; what lies before damage is returned first.
        """
        found: list[Record] = []
        if partition or limit <= 0:
            return found
        sql = f"SELECT position, count FROM blob WHERE {FROM} ORDER BY position"  # noqa: S608
        try:
            for position, span in self._database.reader.execute(sql, (after + 1,)):
                records = self._records(position, span)
                start = bisect_right(records, after, key=_position)
                found += records[start : start + limit - len(found)]
                if len(found) >= limit:
                    break
        except apsw.CorruptError as error:
            if not found:
                raise Damaged(after + 1, str(error), None) from error
        except Damaged:
            if not found:
                raise
        return found

    def _records(self, position: int, span: int) -> list[Record]:
        """A blob's records, kept for the other connections that are about to read them."""
        blobs = self._blobs
        if position in blobs:
            blobs.move_to_end(position)
            return blobs[position]
        body = _body(self._database.reader, position, span)
        records = list(self._database.codec.decode(position, span, body).records())
        blobs[position] = records
        if len(blobs) > CACHED_BLOBS:
            blobs.popitem(last=False)
        return records

    async def latest(self, limit: int, before: int | None = None) -> Sequence[Record]:
        """The newest records, newest first."""
        end = self._last if before is None else min(before - 1, self._last)
        return await self._database.scan(lambda db, codec: _backwards(db, codec, end, lambda _: True, limit))

    async def find(self, message_id: str, source: str | None = None, limit: int = 10) -> Sequence[Record]:
        """Records with this message id, newest first (a scan)."""

        def fits(record: Record) -> bool:
            return record.message_id == message_id and source in (None, record.source)

        return await self._database.scan(
            lambda db, codec: _backwards(db, codec, self._last, fits, limit, message_id.encode())
        )

    async def refusals(self, source: str | None = None, limit: int = 100) -> Sequence[Refused]:
        """Items refused at ingest, newest first."""
        sql = (
            "SELECT source, idx, code, reason, raw, at, id FROM refused "
            "WHERE ?1 IS NULL OR source = ?1 ORDER BY id DESC LIMIT ?2"
        )
        return [Refused(*row) for row in self._database.reader.execute(sql, (source, limit))]

    async def refused(self, ids: Collection[int]) -> Sequence[Refused]:
        """The refused items of these ids, as far as they are there."""
        return letters.refused(self._database.reader, ids)

    async def drop_refused(self, ids: Collection[int]) -> int:
        """Delete these refused items for good; how many."""
        return await self._database.write(lambda db: letters.drop_refused(db, ids))

    async def counts(self) -> Mapping[str, Mapping[str, int]]:
        """Per source: accepted, duplicates, refused since the log began."""
        rows = self._database.reader.execute("SELECT name, accepted, duplicates, refused FROM source")
        return {name: {"accepted": a, "duplicates": d, "refused": r} for name, a, d, r in rows}

    async def source_state(self, source: str) -> State:
        """The state saved with the last append of a polled source; empty at first."""
        state = self._database.reader.execute("SELECT state FROM source WHERE name = ?", (source,)).get
        return {} if state is None else msgspec.json.decode(state, type=dict[str, object])

    # What a ledger elsewhere needs

    async def standing(self, partition: int = 0) -> Standing:
        """The newest position and the accepted counts, of one instant."""
        return await self._database.scan(lambda db, _: _standing(db))

    async def count(self, source: str, after: int, partition: int = 0) -> int:
        """How many records of a source are kept beyond a position."""
        return await self._database.scan(lambda db, codec: beyond(db, codec, {source: after}))

    async def positions(self, source: str, after: int, partition: int = 0) -> Sequence[int]:
        """The positions of a source's kept records beyond a position, ascending."""
        return await self._database.scan(lambda db, codec: list(positions(db, codec, source, after)))

    # Retention and erasure

    async def forget_refusals(self, before: float) -> int:
        """Delete refused items older than this; how many."""
        return await self._database.write(lambda db: letters.forget_refusals(db, before))

    async def trim(self, before: float, upto: Mapping[int, int] | None = None) -> int:
        """Drop old records that every connection has settled. Their ids stay known for the window."""
        await self._remember()
        codec, gone = Codec(), 0
        end = None if upto is None else upto.get(0, 0)
        while (step := await self._database.write(lambda db: trim.step(db, codec, before, end))) is not None:
            gone += step
        return gone

    async def erase(self, person: Collection[str]) -> Erased:
        """Remove a person's records and their copies; the bytes are gone from the files when it returns."""
        await self._remember()
        who, codec = Person(person), Codec()
        last, copies = self._last, 0
        gone: list[tuple[int, str]] = []
        after: int | None = 0
        while after is not None:
            step = await self._database.scan(partial(search, person=who, after=after, last=last))
            struck = await self._database.write(partial(strike, codec=codec, found=step.records))
            after, copies = step.after, copies + struck[1]
            gone += struck[0]
        while found := await self._database.scan(lambda db, c: search_copies(db, c, who, last)):
            copies += await self._database.write(partial(strike_copies, codec=codec, copies=found))
        renamed = await self._database.write(partial(unlink, codec=codec, person=who))
        self._blobs.clear()
        await self._database.truncate()
        return Erased(len(gone), copies, gone, renamed, {0: last})

    async def _remember(self) -> None:
        """Put the ids of all records on disk, so that they outlive the records themselves."""
        await self._database.write(lambda _: None)  # what was appended before is concluded now
        self._dedup.freeze()
        await self._database.idle()
        if not self._dedup.stored:
            raise LogFull("the ids of the newest records could not be written beside the log")

    async def close(self) -> None:
        """Flush and close."""
        await self._database.close(self._dedup.save)


class SqliteStore(SqliteLog, SqliteLedger):
    """Log and ledger of one data directory: `async with SqliteStore.open(path, clock) as store`."""

    def __init__(
        self,
        database: Database,
        clock: Clock,
        *,
        window_s: float,
        reserve_bytes: int,
        free_bytes: Callable[[Path], int],
    ) -> None:
        SqliteLog.__init__(
            self, database, clock, window_s=window_s, reserve_bytes=reserve_bytes, free_bytes=free_bytes
        )
        SqliteLedger.__init__(self, database, clock)

    @classmethod
    async def begin(
        cls,
        directory: str | Path,
        clock: Clock,
        *,
        window_s: float = WEEK_S,
        reserve_bytes: int = RESERVE_BYTES,
        inline: bool = False,
        durable: bool = True,
        free_bytes: Callable[[Path], int] | None = None,
        relieve: Callable[[], None] = lambda: None,
    ) -> SqliteStore:
        """Open a data directory; the caller closes the store.

        `window_s`: how long a message id is known at least (at most an eighth longer). Below `reserve_bytes`
        of free disk space (see `free_bytes`) appends are refused while settlements go on; where not even
        these fit, `relieve` is called, in a thread of its own, to free what room it can. For simulations,
        `inline` needs no thread and `durable=False` leaves fsync out. Raises `TowpathError` when another
        process owns the directory, `LogFull` when its disk has no room to open it. After a failure nothing is
        open and the directory is free.
        """
        try:
            database = Database(Path(directory), inline=inline, durable=durable)
            database.relieve = relieve
        except UNOPENED as error:
            raise LogFull(f"the log cannot be opened: {error}") from error
        try:
            store = cls(
                database,
                clock,
                window_s=window_s,
                reserve_bytes=reserve_bytes,
                free_bytes=free_bytes or _free_bytes,
            )
            await store.start()
        except BaseException:
            await database.close(lambda: None)
            raise
        return store

    @classmethod
    @asynccontextmanager
    async def open(cls, directory: str | Path, clock: Clock, **settings: Any) -> AsyncIterator[SqliteStore]:
        """`begin` and `close` around a block, with the same settings."""
        store = await cls.begin(directory, clock, **settings)
        try:
            yield store
        finally:
            await store.close()


_position = attrgetter("position")


def _standing(db: apsw.Connection) -> Standing:
    # One statement: between two, something may be appended.
    rows = list(db.execute("SELECT last, name, accepted FROM log LEFT JOIN source"))
    return Standing(int(rows[0][0]), {name: int(count) for _, name, count in rows if name is not None})


def _free_bytes(directory: Path) -> int:
    status = os.statvfs(directory)
    return status.f_bavail * status.f_frsize


async def _concluded(pending: Pending) -> None:
    future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
    pending.waiters.append(lambda: None if future.done() else future.set_result(None))
    await future


def _body(db: apsw.Connection, position: int, span: int) -> bytes:
    """The body of a blob, read on its own so that a damaged page concerns this blob alone."""
    try:
        return bytes(db.execute("SELECT body FROM blob WHERE position = ?", (position,)).get)
    except apsw.CorruptError as error:
        raise Damaged(position, str(error), position + span - 1) from error


def _seen(db: apsw.Connection, codec: Codec, after: int, to: int, since: float) -> Iterator[Seen]:
    """What deduplication needs of a stretch of the log; a damaged blob is passed over, ingest goes on."""
    sql = f"SELECT position, count FROM blob WHERE {FROM} AND position <= ? AND received_max >= ?"  # noqa: S608
    for position, span in db.execute(f"{sql} ORDER BY position", (after + 1, to, since)):
        with suppress(Damaged):
            for record in codec.decode(position, span, _body(db, position, span)).records():
                if after < record.position <= to:
                    yield record.position, record.envelope.received_at, record.source, record.message_id


def _backwards(
    db: apsw.Connection,
    codec: Codec,
    end: int,
    fits: Callable[[Record], bool],
    limit: int,
    holding: bytes = b"",
) -> list[Record]:
    """Records up to position `end`, newest first; only blobs whose bytes hold `holding` are decoded."""
    found: list[Record] = []
    sql = "SELECT position, count FROM blob WHERE position <= ? ORDER BY position DESC"
    for position, span in db.execute(sql, (end,)):
        plain = codec.unpack(position, _body(db, position, span), span)
        if holding in plain:
            records = list(codec.parse(position, span, plain).records())
            found += [record for record in reversed(records) if record.position <= end and fits(record)]
        if len(found) >= limit:
            break
    return found[:limit]
