"""Inside the writer's transaction: settlements, replays, and the counters that go with them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from itertools import chain
from typing import TypeAlias

import apsw
from msgspec import Struct

from ..http import Exchange
from ..message import Record
from . import Dead, Done, DoneState, Key, Lease, Parked, Settlement
from .blob import Codec

DELIVERED, SKIPPED, DEAD, ERASED, EXTRA, ACCEPTED = range(6)
"""Kinds of counters. `EXTRA`: deliveries beyond a message's first; `ACCEPTED`: records no longer in blobs."""
KIND: Mapping[DoneState, int] = {"delivered": DELIVERED, "skipped": SKIPPED, "dead": DEAD}
Counts: TypeAlias = Counter[tuple[int, int, str]]
"""(connection, kind, reason) -> how many."""
Ended: TypeAlias = tuple[int, int, int, int, str, int, int, int, int, int]
"""A settlement row: connection, position, idx, kind, reason, code, attempts, ms, at_ms, outside."""
ROWS_AT_ONCE = 64
"""Rows to one statement: at each step of one the interpreter's lock is given away and waited for again."""
_ROW = "(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)"


class Letter(Struct, frozen=True):
    """The body of a dead letter as it is packed."""

    record: Record
    exchange: Exchange | None = None


class Ends:
    """Applies settlements; one per writer."""

    def __init__(self) -> None:
        self.codec = Codec()

    def settle(self, connection: apsw.Connection, lease: Lease, settlement: Settlement) -> bool:
        """All of one settlement, or nothing when the lease is not the newest."""
        found = connection.execute(
            "SELECT c.id, log.trimmed FROM connection c JOIN lease l ON l.connection = c.id, log "
            "WHERE c.name = ? AND l.epoch = ? AND l.owner = ?",
            (lease.connection, lease.epoch, lease.owner),
        ).fetchone()
        if found is None:
            return False
        target, trimmed = found
        counts: Counts = Counter()
        touched = self._merge(connection, target, settlement.merges)
        touched |= self._end(connection, target, trimmed, settlement, counts)
        touched |= self._park(connection, target, trimmed, settlement.parked, counts)
        count(connection, "counter", counts)
        relane(connection, target, touched)
        connection.execute(
            "UPDATE connection SET cursor = ?1 WHERE id = ?2 AND cursor < ?1", (settlement.cursor, target)
        )
        return True

    def _merge(self, connection: apsw.Connection, target: int, merges: Iterable[tuple[str, str]]) -> set[str]:
        touched: set[str] = set()
        for old, new in merges:
            connection.execute(
                "UPDATE parked SET person = ? WHERE connection = ? AND person = ?", (new, target, old)
            )
            touched |= {old, new}
        return touched

    def _end(
        self, connection: apsw.Connection, target: int, trimmed: int, settlement: Settlement, counts: Counts
    ) -> set[str]:
        """End deliveries once each: a key that has ended, or was trimmed, is left as it is."""
        keys = [(done.position, done.index) for done in settlement.done]
        released = unpark(connection, target, keys)
        rows = [
            _row(target, done, released.get((done.position, done.index), ("", 0))[1])
            for done in settlement.done
            if (done.position, done.index) in released
            or (done.position > trimmed and not was_left(connection, target, done.position, done.index))
        ]
        died = _tally(settlement.done, insert_ended(connection, rows), target, released, counts)
        for letter in settlement.dead:
            if (letter.position, letter.index) in died:
                self._bury(connection, target, letter)
        return {person for person, _ in released.values()}

    def _bury(self, connection: apsw.Connection, target: int, dead: Dead) -> None:
        connection.execute(
            "INSERT OR REPLACE INTO dead (connection, position, idx, person, reason, code, attempts, "
            "first_at, died_at, message_id, body) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                *(target, dead.position, dead.index, dead.person, dead.reason, dead.code, dead.attempts),
                *(dead.first_at, dead.died_at, dead.record.message_id),
                self.codec.pack(Letter(dead.record, dead.exchange)),
            ),
        )

    def _park(
        self, connection: apsw.Connection, target: int, trimmed: int, rows: Sequence[Parked], counts: Counts
    ) -> set[str]:
        """Park or park again; a key that has ended, or was trimmed without being parked, is left as it is."""
        touched: set[str] = set()
        for row in rows:
            key = (target, row.position, row.index)
            before = connection.execute(
                "SELECT person, outside FROM parked WHERE connection = ? AND position = ? AND idx = ?", key
            ).fetchone()
            if before is None:
                if row.position <= trimmed or has_ended(connection, key) or was_left(connection, *key):
                    continue
                counts[target, EXTRA, ""] += row.index > 0
            else:
                touched.add(before[0])
            park(connection, target, row, before[1] if before else 0, self.codec.pack(row.record))
            touched.add(row.person)
        return touched


def _row(target: int, done: Done, outside: int) -> Ended:
    return (
        target, done.position, done.index, KIND[done.state], done.reason, done.code, done.attempts, done.ms,
        round(done.at * 1000), outside,
    )  # fmt: skip


def _tally(
    ended: Sequence[Done], new: set[Key], target: int, released: Collection[Key], counts: Counts
) -> set[Key]:
    """Count what has newly ended; the keys of those that died."""
    died: set[Key] = set()
    for done in ended:
        key = (done.position, done.index)
        if key in new:
            new.discard(key)
            counts[target, KIND[done.state], done.reason if done.state == "skipped" else ""] += 1
            if done.index and key not in released:
                counts[target, EXTRA, ""] += 1
            if done.state == "dead":
                died.add(key)
    return died


def insert_ended(connection: apsw.Connection, rows: Sequence[Ended]) -> set[Key]:
    """Write settlement rows of one connection; the keys that had none yet."""
    new: set[Key] = set()
    for first in range(0, len(rows), ROWS_AT_ONCE):
        new |= _insert(connection, rows[first : first + ROWS_AT_ONCE])
    return new


def _insert(connection: apsw.Connection, rows: Sequence[Ended]) -> set[Key]:
    known = _ended(connection, rows)
    fresh = {row[1:3]: row for row in reversed(rows) if row[1:3] not in known}  # of two alike the first stays
    if fresh:
        values = ", ".join([_ROW] * len(fresh))
        sql = f"INSERT INTO settlement VALUES {values}"  # noqa: S608 - question marks
        connection.execute(sql, list(chain.from_iterable(fresh.values())))
    return set(fresh)


def _ended(connection: apsw.Connection, rows: Sequence[Ended]) -> set[Key]:
    """The keys among these that have a settlement row."""
    keys = ", ".join(["(?, ?)"] * len(rows))
    sql = f"SELECT position, idx FROM settlement WHERE connection = ? AND (position, idx) IN (VALUES {keys})"  # noqa: S608
    values = chain.from_iterable(row[1:3] for row in rows)
    return set(connection.execute(sql, [rows[0][0], *values]))


def has_ended(connection: apsw.Connection, key: tuple[int, int, int]) -> bool:
    """Whether this (connection, position, index) has a settlement row."""
    sql = "SELECT 1 FROM settlement WHERE connection = ? AND position = ? AND idx = ?"
    return connection.execute(sql, key).fetchone() is not None


def was_left(connection: apsw.Connection, target: int, position: int, index: int) -> bool:
    """Whether this is a further delivery of a record that was erased, or whose source was removed.

    The first one's row tells; of the further ones nothing may be known yet.
    """
    if not index:
        return False
    sql = "SELECT outside FROM settlement WHERE connection = ? AND position = ? AND idx = 0"
    return bool(connection.execute(sql, (target, position)).get)


def unpark(connection: apsw.Connection, target: int, keys: Iterable[Key]) -> dict[Key, tuple[str, int]]:
    """Delete parked rows; key -> (person, outside) of those there were."""
    if connection.execute("SELECT 1 FROM parked WHERE connection = ? LIMIT 1", (target,)).fetchone() is None:
        return {}
    gone = connection.executemany(
        "DELETE FROM parked WHERE connection = ? AND position = ? AND idx = ? "
        "RETURNING position, idx, person, outside",
        [(target, *key) for key in keys],
    )
    return {(position, index): (person, outside) for position, index, person, outside in gone}


def park(connection: apsw.Connection, target: int, row: Parked, outside: int, body: bytes) -> None:
    """Write one parked row, replacing the one of its key."""
    connection.execute(
        "INSERT OR REPLACE INTO parked VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
        (
            *(target, row.position, row.index, row.person, row.due, row.attempts, row.first_at, row.reason),
            *(row.follower, row.hold, row.alone, outside, body),
        ),
    )


def relane(connection: apsw.Connection, target: int, persons: Collection[str]) -> None:
    """Bring the lanes of these persons up to date with their first parked row."""
    if not persons:
        return
    rows = [(target, person) for person in persons]
    connection.executemany("DELETE FROM lane WHERE connection = ? AND person = ?", rows)
    connection.executemany(
        "INSERT INTO lane SELECT connection, person, due FROM parked WHERE connection = ? AND person = ? "
        "ORDER BY position, idx LIMIT 1",
        rows,
    )


def count(connection: apsw.Connection, table: str, counts: Counts) -> None:
    """Add to `counter` or `past`."""
    connection.executemany(
        f"INSERT INTO {table} VALUES (?1, ?2, ?3, ?4) ON CONFLICT DO UPDATE SET count = count + ?4",  # noqa: S608
        [(*key, value) for key, value in counts.items() if value],
    )
