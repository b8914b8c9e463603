"""Rows of the ledger inside a transaction: locked, counted, parked, put in their lanes."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Any, TypeAlias
from uuid import UUID

import msgspec

from ...message import Record
from .. import PARTITION, Key, Parked, partition_of
from .sessions import Session

OPEN, CLOSED, GONE = range(3)
"""What `outside` says of a row's record; see the tables."""
REASON_MAX = 500
"""Characters of a reason that counters tell apart; an index takes no more."""
Counts: TypeAlias = Counter[tuple[int, int, int, str]]
"""(connection, partition, kind, reason) -> how many."""
Kept: TypeAlias = tuple[int, str]
"""Of a parked row: outside, person."""

COLUMNS = "position, idx, person, due, attempts, first_at, reason, body, follower, hold, alone"
_record = msgspec.msgpack.Decoder(Record).decode


def digest(text: str) -> UUID:
    """What a name is found by."""
    return UUID(bytes=blake2b(text.encode("utf-8", "surrogatepass"), digest_size=16).digest())


def array(numbers: Iterable[int]) -> str:
    """An array of integers as PostgreSQL reads it: several times as fast as letting the driver write it."""
    return "{" + ",".join(map(str, numbers)) + "}"


def keys(of: Iterable[Key]) -> tuple[str, str]:
    """Positions and indexes of keys, as two arrays."""
    pairs = list(of)
    return array(position for position, _ in pairs), array(index for _, index in pairs)


def span(partition: int) -> tuple[int, int]:
    """The first and the last position a partition may have."""
    return partition * PARTITION + 1, (partition + 1) * PARTITION - 1


def lock(session: Session, connections: Collection[int] | None = None) -> list[tuple[int, int, int, int]]:
    """Lock connections (None: all) in every partition; their rows: connection, partition, cursor, trimmed."""
    every = connections is None
    return session.rows(
        "SELECT connection, partition, cursor, trimmed FROM place "
        "WHERE %s OR connection = ANY(%s::integer[]) ORDER BY connection, partition FOR UPDATE",
        (every, array(connections or ())),
    )


def number_of(session: Session, name: str) -> int | None:
    """The number of a connection; None for an unknown one."""
    found = session.rows("SELECT id FROM connection WHERE name = %s", (name,))
    return found[0][0] if found else None


def count(session: Session, table: str, counts: Counts) -> None:
    """Add to `counter` or `past`."""
    rows = [(*key, value) for key, value in counts.items() if value]
    if not rows:
        return
    connections, partitions, kinds, reasons, values = zip(*rows, strict=True)
    session.run(
        f"INSERT INTO {table} SELECT d.* FROM unnest(%s::integer[], %s::integer[], %s::smallint[], "  # noqa: S608
        "%s::text[], %s::bigint[]) AS d(c, p, kind, reason, n) "
        "ON CONFLICT (connection, partition, kind, reason) "
        f"DO UPDATE SET count = {table}.count + excluded.count",
        (array(connections), array(partitions), array(kinds), list(reasons), array(values)),
    )


def end(
    session: Session, connection: int, of: Collection[Key], kind: int, reason: str, outside: int
) -> Counts:
    """End these deliveries without an attempt, and count those that had not ended."""
    new = session.rows(
        "INSERT INTO settlement "
        "(position, at_ms, connection, idx, code, attempts, ms, kind, outside, reason) "
        "SELECT k.position, 0, %s, k.idx, 0, 0, 0, %s, %s, %s "
        "FROM unnest(%s::bigint[], %s::integer[]) AS k(position, idx) "
        "ON CONFLICT DO NOTHING RETURNING position",
        (connection, kind, outside, reason, *keys(of)),
    )
    return Counter((connection, partition_of(position), kind, reason) for (position,) in new)


def leave(session: Session, connection: int, positions: Sequence[int], outside: int) -> None:
    """Say of the rows of these positions that their records are no longer those of an open scope."""
    for table in ("settlement", "parked"):
        session.run(
            f"UPDATE {table} SET outside = %s "  # noqa: S608
            "WHERE connection = %s AND position = ANY(%s::bigint[]) AND outside < %s",
            (outside, connection, array(positions), outside),
        )


def release(session: Session, connection: int, of: Collection[Key]) -> dict[Key, Kept]:
    """Delete parked rows; those there were."""
    gone = session.rows(
        "DELETE FROM parked p USING unnest(%s::bigint[], %s::integer[]) AS k(position, idx) "
        "WHERE p.connection = %s AND p.position = k.position AND p.idx = k.idx "
        "RETURNING p.position, p.idx, p.outside, p.person",
        (*keys(of), connection),
    )
    return {(position, index): (outside, person) for position, index, outside, person in gone}


def park(session: Session, connection: int, rows: Mapping[Key, tuple[Parked, int]]) -> None:
    """Write parked rows (row, outside), replacing those of the same keys."""
    names = (
        "position", "due", "first_at", "person_key", "connection", "idx", "attempts", "alone", "outside",
        "follower", "person", "reason", "hold", "body",
    )  # fmt: skip
    values = ", ".join(["%s"] * len(names))
    changed = ", ".join(f"{name} = excluded.{name}" for name in names)
    statement = (
        f"INSERT INTO parked ({', '.join(names)}) VALUES ({values}) "  # noqa: S608
        f"ON CONFLICT (connection, position, idx) DO UPDATE SET {changed}"
    )
    session.run_many(
        statement, [_values(session, connection, row, outside) for row, outside in rows.values()]
    )


def _values(session: Session, connection: int, row: Parked, outside: int) -> tuple[Any, ...]:
    return (
        row.position, row.due, row.first_at, digest(row.person), connection, row.index, row.attempts,
        row.alone, outside, row.follower, row.person, row.reason, row.hold, session.codec.pack(row.record),
    )  # fmt: skip


def relane(session: Session, connection: int, touched: Iterable[tuple[int, str]]) -> None:
    """Bring lanes (partition, person) up to date with their first parked rows."""
    by_partition: dict[int, set[UUID]] = {}
    for partition, person in touched:
        by_partition.setdefault(partition, set()).add(digest(person))
    for partition, persons in sorted(by_partition.items()):
        values = {"c": connection, "p": partition, "who": sorted(persons)}
        session.run(
            "DELETE FROM lane WHERE connection = %(c)s AND partition = %(p)s AND person_key = ANY(%(who)s)",
            values,
        )
        session.run(
            "INSERT INTO lane SELECT DISTINCT ON (person_key) %(c)s, %(p)s, person_key, person, due "
            "FROM parked WHERE connection = %(c)s AND person_key = ANY(%(who)s) "
            "AND position BETWEEN %(first)s AND %(last)s ORDER BY person_key, position, idx",
            values | dict(zip(("first", "last"), span(partition), strict=True)),
        )


def strike(session: Session, connection: int, of: Collection[Key]) -> dict[Key, Kept]:
    """Delete parked rows and bring their lanes up to date; those there were."""
    gone = release(session, connection, of)
    relane(session, connection, {(partition_of(key[0]), person) for key, (_, person) in gone.items()})
    return gone


def read_parked(session: Session, row: tuple[Any, ...]) -> Parked:
    """A row of `COLUMNS`. Raises `Damaged`."""
    position, index, person, due, attempts, first_at, reason, body, follower, hold, alone = row
    record = _record(session.codec.unpack(position, body))
    return Parked(
        position,
        index,
        person,
        due,
        attempts,
        first_at,
        reason,
        record,
        follower=follower,
        hold=hold,
        alone=alone,
    )
