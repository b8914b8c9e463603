"""The embedded ledger: what became of every delivery, in the same file as the log."""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from functools import partial
from typing import Any, Literal, TypeAlias

import apsw
import msgspec

from ..clock import Clock
from ..message import Record
from . import (
    Balance,
    Dead,
    DeadFilter,
    Done,
    DoneState,
    Key,
    Lease,
    Parked,
    Pause,
    Progress,
    Settlement,
    letters,
)
from .balance import balances
from .database import Database
from .schema import select
from .scope import connect, disconnect
from .settle import ERASED, KIND, Ends, relane

_STATES: Mapping[int, DoneState] = {kind: state for state, kind in KIND.items()}
_record = msgspec.msgpack.Decoder(Record).decode
_Start: TypeAlias = tuple[int, int, str, float, int, float, str]
_PARKED = "position, idx, person, due, attempts, first_at, reason, body, follower, hold, alone"
_LINKS_OF = (
    "SELECT identifier, position, person FROM link WHERE identifier IN (%s) ORDER BY identifier, position"
)
NAMES_AT_ONCE = 256
_DONE = "position, idx, kind, reason, code, attempts, ms, at_ms"


class SqliteLedger:
    """Implements `Ledger` on one partition."""

    def __init__(self, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._ends = Ends()
        self._suppressed: frozenset[str] | None = None

    # Connections and leases

    async def connect(
        self, connection: str, sources: Collection[str], start: Literal["now", "earliest"]
    ) -> None:
        """Make the connection known, or change its sources.

        A source added later starts at the connection's cursor. Of one taken away, what was not tried yet is
        skipped with the reason "source removed".
        """
        codec = self._ends.codec
        await self._database.write(lambda db: connect(db, codec, connection, sources, start))

    async def taking(self, connection: str) -> tuple[int, frozenset[str]]:
        """The cursor of a connection, and the sources it takes from; 0 and none for an unknown one."""
        scopes = "SELECT cursor, source FROM connection JOIN scope ON connection = id"
        rows = self._rows(f"{scopes} WHERE name = ? AND until IS NULL", connection)
        return (rows[0][0] if rows else 0), frozenset(source for _, source in rows)

    async def disconnect(self, connection: str) -> bool:
        """Forget the connection and everything that became of its deliveries; False when it is unknown."""
        return await self._database.write(lambda db: disconnect(db, connection))

    async def lease(self, connection: str, owner: str, ttl_s: float, partition: int = 0) -> Lease | None:
        """Take or renew the lease; a renewal keeps its epoch. None while another owner's has not run out."""
        now = self._clock.now()
        epoch = await self._database.write(lambda db: _lease(db, connection, owner, now, now + ttl_s))
        return None if epoch is None else Lease(connection, partition, owner, epoch)

    async def release(self, lease: Lease) -> None:
        """Give the lease back."""
        sql = (
            "UPDATE lease SET expires = 0, owner = '' WHERE epoch = ? AND owner = ? "
            "AND connection = (SELECT id FROM connection WHERE name = ?)"
        )
        await self._run(sql, (lease.epoch, lease.owner, lease.connection))

    async def progress(self, lease: Lease) -> Progress:
        """Where to go on."""
        target, cursor = self._target(lease.connection)
        return Progress(
            cursor,
            frozenset(self._keys("settlement", target, cursor)),
            frozenset(self._keys("parked", target, cursor)),
            dict(self._rows("SELECT person, due FROM lane WHERE connection = ?", target)),
        )

    async def settle(self, lease: Lease, settlement: Settlement) -> bool:
        """Apply one settlement, durably; False when the lease is no longer the newest. Raises `LogFull`."""
        return await self._database.writer.submit(lambda db: self._ends.settle(db, lease, settlement))

    # Parked deliveries

    async def parked(self, lease: Lease, person: str, limit: int = 64) -> Sequence[Parked]:
        """A person's parked deliveries in order of key."""
        target, _ = self._target(lease.connection)
        sql = (
            f"SELECT {_PARKED} FROM parked WHERE connection = ? AND person = ? ORDER BY position, idx LIMIT ?"  # noqa: S608
        )
        return [self._parked(row) for row in self._rows(sql, target, person, limit)]

    async def due(self, lease: Lease, now: float, limit: int = 256) -> Sequence[tuple[str, float]]:
        """Persons whose first parked delivery is due, soonest first."""
        target, _ = self._target(lease.connection)
        sql = "SELECT person, due FROM lane WHERE connection = ? AND due <= ? ORDER BY due LIMIT ?"
        return self._rows(sql, target, now, limit)

    async def hurry(self, connection: str, now: float, hold: str | None = None) -> int:
        """Make waiting parked rows due now; how many."""
        return await self._database.write(lambda db: _hurry(db, connection, now, hold))

    async def waiting(
        self, connection: str | None, limit: int, position: int | None = None
    ) -> Sequence[tuple[str, Parked]]:
        """Parked deliveries, soonest first, optionally of one position."""
        columns = ", ".join(f"p.{column}" for column in _PARKED.split(", "))
        sql = (
            f"SELECT name, {columns} FROM parked p JOIN connection ON id = p.connection "  # noqa: S608
            f"WHERE (?1 IS NULL OR name = ?1) AND {'?3 IS NULL' if position is None else 'position = ?3'} "
            "ORDER BY due, position, idx LIMIT ?2"
        )
        return [(row[0], self._parked(row[1:])) for row in self._rows(sql, connection, limit, position)]

    # Dead letters

    async def dead(self, where: DeadFilter) -> Sequence[Dead]:
        """Dead letters, newest first."""
        return letters.read(self._database.reader, self._database.codec, where)

    async def replay(self, where: DeadFilter, now: float) -> Mapping[str, int]:
        """All dead letters of the filter become parked and due, earlier ones no later than later ones."""
        codec, replayed = self._ends.codec, Counter[str]()
        ids = await self._database.write(lambda db: letters.chosen(db, where))
        for first in range(0, len(ids), letters.STEP_LETTERS):
            step = ids[first : first + letters.STEP_LETTERS]
            replayed += await self._database.write(partial(letters.replay, codec=codec, ids=step, now=now))
        return dict(replayed)

    async def drop(self, where: DeadFilter) -> int:
        """Delete all dead letters of the filter for good."""
        return await self._database.write(lambda db: letters.drop(db, where))

    async def prune(self, before: float) -> int:
        """Delete dead letters and refused items older than this."""
        return await self._database.write(
            lambda db: letters.prune(db, before) + letters.forget_refusals(db, before)
        )

    # What was

    async def deliveries(
        self, connection: str | None, position: int | None, limit: int
    ) -> Sequence[tuple[str, Done]]:
        """Ended deliveries of the newest records first."""
        sql = (
            f"SELECT {_DONE} FROM settlement WHERE connection = ? AND kind != {ERASED} "  # noqa: S608
            f"{'' if position is None else 'AND position = ?'} ORDER BY position DESC, idx DESC LIMIT ?"
        )
        values = (limit,) if position is None else (position, limit)
        names = self._rows("SELECT id, name FROM connection WHERE ?1 IS NULL OR name = ?1", connection)
        found = [[(name, _done(*row)) for row in self._rows(sql, id_, *values)] for id_, name in names]
        newest = heapq.merge(*found, key=lambda pair: (-pair[1].position, -pair[1].index))
        return list(newest)[:limit]

    async def balance(self, *, recount: bool = False) -> Sequence[Balance]:
        """P2 per connection. Raises `Damaged` when a recount meets a damaged blob."""
        return await self._database.scan(lambda db, codec: balances(db, codec, recount=recount))

    # Pauses, suppressed ids, links

    async def pause(self, pause: Pause) -> None:
        """Remember that a connection stands still."""
        sql = "INSERT OR REPLACE INTO pause VALUES (?, ?, ?, ?)"
        await self._run(sql, (pause.connection, pause.capability, pause.reason, pause.since))

    async def resume(self, connection: str, capability: str = "*") -> None:
        """Forget a pause."""
        await self._run("DELETE FROM pause WHERE connection = ? AND capability = ?", (connection, capability))

    async def pauses(self) -> Sequence[Pause]:
        """All pauses in force."""
        return [Pause(*row) for row in self._rows("SELECT * FROM pause ORDER BY connection, capability")]

    async def suppress(self, ids: Collection[str]) -> None:
        """Add exact ids to the suppressed ones."""
        await self._run("INSERT OR IGNORE INTO suppressed VALUES (?)", *[(id_,) for id_ in ids])
        self._suppressed = None

    async def unsuppress(self, ids: Collection[str]) -> None:
        """Take ids off."""
        await self._run("DELETE FROM suppressed WHERE id = ?", *[(id_,) for id_ in ids])
        self._suppressed = None

    async def suppressed(self) -> frozenset[str]:
        """All suppressed ids."""
        if self._suppressed is None:
            self._suppressed = frozenset(row[0] for row in self._rows("SELECT id FROM suppressed"))
        return self._suppressed

    async def link(self, identifier: str, position: int, person: str) -> None:
        """Remember whose an identifier is from a position on; what is known of a position stays."""
        await self._run("INSERT OR IGNORE INTO link VALUES (?, ?, ?)", (identifier, position, person))

    async def links(self, identifier: str) -> Sequence[tuple[int, str]]:
        """(position, person) of an identifier, ascending."""
        return self._rows(
            "SELECT position, person FROM link WHERE identifier = ? ORDER BY position", identifier
        )

    async def links_of(self, identifiers: Collection[str]) -> Mapping[str, Sequence[tuple[int, str]]]:
        """The links of those of these identifiers that have any, each as `links` gives them."""
        found: dict[str, list[tuple[int, str]]] = {}
        names = list(identifiers)
        for first in range(0, len(names), NAMES_AT_ONCE):
            some = names[first : first + NAMES_AT_ONCE]
            sql = _LINKS_OF % ", ".join("?" * len(some))
            for identifier, position, person in self._rows(sql, *some):
                found.setdefault(identifier, []).append((position, person))
        return found

    async def linked(self, person: str, before: int) -> int:
        """How many links to this person were made before a position."""
        sql = "SELECT count(*) FROM link WHERE person = ? AND position < ?"
        return int(self._rows(sql, person, before)[0][0])

    async def identifiers(self, person: str, before: int, limit: int) -> int:
        """How many ids lead to this person by links made before a position; `limit` at most."""
        sql = (
            "WITH RECURSIVE own(id) AS (VALUES (?1) UNION "
            "SELECT identifier FROM link JOIN own ON person = id WHERE position < ?2 LIMIT ?3) "
            "SELECT count(*) FROM own"
        )
        return int(self._rows(sql, person, before, limit)[0][0])

    # Rows

    async def _run(self, sql: str, *rows: tuple[object, ...]) -> None:
        await self._database.write(lambda db: db.executemany(sql, rows).fetchall())

    def _rows(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        return select(self._database.reader, sql, values)

    def _target(self, connection: str) -> tuple[int, int]:
        """The number and cursor of a connection. Raises `KeyError` for one that was never connected."""
        rows = self._rows("SELECT id, cursor FROM connection WHERE name = ?", connection)
        if not rows:
            raise KeyError(connection)
        return rows[0][0], rows[0][1]

    def _keys(self, table: str, target: int, cursor: int) -> list[Key]:
        sql = f"SELECT position, idx FROM {table} WHERE connection = ? AND position > ?"  # noqa: S608
        return [(position, index) for position, index in self._rows(sql, target, cursor)]

    def _parked(self, row: tuple[Any, ...]) -> Parked:
        start: _Start = row[:7]
        record = _record(self._database.codec.unpack(start[0], row[7]))
        return Parked(*start, record, follower=bool(row[8]), hold=row[9], alone=row[10])


def _done(
    position: int, index: int, kind: int, reason: str, code: int, attempts: int, ms: int, at_ms: int
) -> Done:
    return Done(position, index, _STATES[kind], reason, code, attempts, ms, at_ms / 1000)


def _lease(db: apsw.Connection, connection: str, owner: str, now: float, until: float) -> int | None:
    target = db.execute("SELECT id FROM connection WHERE name = ?", (connection,)).get
    if target is None:
        raise KeyError(connection)
    held = db.execute("SELECT owner, epoch, expires FROM lease WHERE connection = ?", (target,)).fetchone()
    holder, epoch, expires = held or ("", 0, 0.0)
    if holder != owner:
        if expires > now:
            return None
        epoch += 1
    db.execute("INSERT OR REPLACE INTO lease VALUES (?, ?, ?, ?)", (target, owner, epoch, until))
    return int(epoch)


def _hurry(db: apsw.Connection, connection: str, now: float, hold: str | None) -> int:
    target = db.execute("SELECT id FROM connection WHERE name = ?", (connection,)).get
    sql = "UPDATE parked SET due = ?1 WHERE connection = ?2 AND due > ?1"
    if hold is not None:
        sql += " AND hold = ?3 AND hold != ''"
    values = (now, target) if hold is None else (now, target, hold)
    persons = [row[0] for row in db.execute(sql + " RETURNING person", values)]
    relane(db, target, set(persons))
    return len(persons)
