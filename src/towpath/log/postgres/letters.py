"""Dead letters: chosen by a filter, shown, replayed, dropped, pruned."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import Any, TypeAlias

import msgspec

from ...message import Record
from .. import Dead, DeadFilter, Key, Parked, partition_of
from ..letters import equalities
from ..settle import DEAD, EXTRA, Letter
from .rows import GONE, Counts, array, count, lock, park, relane
from .sessions import Session

COLUMNS = (
    "d.id, c.name, d.position, d.idx, d.person, d.reason, d.code, d.attempts, d.first_at, d.died_at, d.body"
)
_Start: TypeAlias = tuple[int, int, str, str, int, int, float, float]
STEP_LETTERS = 500
"""How many letters one transaction replays, so that settlements need not wait for all of them."""
unpack = msgspec.msgpack.Decoder(Letter).decode


def _chosen(where: DeadFilter, columns: str) -> tuple[str, list[object]]:
    """The query of a filter, without order or limit, and its values."""
    conditions, values = ["true"], list[object]()
    for column, value in equalities(where):
        conditions.append(f"{column} = %s")
        values.append(value)
    if where.since is not None:
        conditions.append("d.died_at >= %s")
        values.append(where.since)
    if where.ids is not None:
        conditions.append("d.id = ANY(%s::bigint[])")
        values.append(array(where.ids))
    query = (
        f"SELECT {columns} FROM dead d JOIN connection c ON c.id = d.connection "  # noqa: S608
        f"WHERE {' AND '.join(conditions)}"
    )
    return query, values


def read(session: Session, where: DeadFilter) -> list[Dead]:
    """The letters a filter chooses, newest first, at most its limit. Raises `Damaged`."""
    query, values = _chosen(where, COLUMNS)
    rows = session.rows(f"{query} ORDER BY d.id DESC LIMIT %s", (*values, where.limit))
    return [_dead(session, row) for row in rows]


def _dead(session: Session, row: tuple[Any, ...]) -> Dead:
    start: _Start = row[2:10]
    letter = unpack(session.codec.unpack(start[0], row[10]))
    return Dead(*start, letter.record, exchange=letter.exchange, connection=row[1], id=row[0])


def chosen(session: Session, where: DeadFilter) -> list[int]:
    """The ids of all letters a filter chooses, whatever its limit, in order of their deliveries' keys."""
    query, values = _chosen(where, "d.id")
    rows = session.rows(f"{query} ORDER BY d.connection, d.position, d.idx", tuple(values))
    return [row[0] for row in rows]


def replay(session: Session, ids: Sequence[int], now: float) -> Counter[str]:
    """These letters, where still there, become parked and due; their deliveries are open again."""
    concerned = session.rows(
        "SELECT DISTINCT connection FROM dead WHERE id = ANY(%s::bigint[])", (array(ids),)
    )
    lock(session, [row[0] for row in concerned])
    query, values = _chosen(
        DeadFilter(ids=ids), "d.id, c.name, d.connection, d.position, d.idx, d.person, d.body"
    )
    rows = session.rows(query, tuple(values))
    session.run("DELETE FROM dead WHERE id = ANY(%s::bigint[])", (array(row[0] for row in rows),))
    for connection in {row[2] for row in rows}:
        letters = [(*row[3:6], _record(session, row[3], row[6])) for row in rows if row[2] == connection]
        _reopen(session, connection, letters, now)
    return Counter(row[1] for row in rows)


def _record(session: Session, position: int, body: bytes) -> Record:
    return unpack(session.codec.unpack(position, body)).record


def _reopen(
    session: Session, connection: int, letters: Sequence[tuple[int, int, str, Record]], now: float
) -> None:
    """Undo deaths on one connection: the settlement rows and their places in the counters."""
    outside = {
        (position, index): found
        for position, index, found in session.rows(
            "DELETE FROM settlement s USING unnest(%s::bigint[], %s::integer[]) AS k(position, idx) "
            "WHERE s.connection = %s AND s.position = k.position AND s.idx = k.idx "
            "RETURNING s.position, s.idx, s.outside",
            (array(row[0] for row in letters), array(row[1] for row in letters), connection),
        )
    }
    counted: Counts = Counter()
    past: Counts = Counter()
    rows: dict[Key, tuple[Parked, int]] = {}
    for position, index, person, record in letters:
        partition = partition_of(position)
        counted[connection, partition, DEAD, ""] -= 1
        if (position, index) not in outside:
            past[connection, partition, DEAD, ""] -= 1
            past[connection, partition, EXTRA, ""] -= index > 0
        row = Parked(position, index, person, now, 0, 0.0, "replayed", record)
        rows[position, index] = row, outside.get((position, index), GONE)
    count(session, "counter", counted)
    count(session, "past", past)
    park(session, connection, rows)
    relane(session, connection, {(partition_of(row[0]), row[2]) for row in letters})


def drop(session: Session, where: DeadFilter) -> int:
    """Delete all letters a filter chooses for good, whatever its limit."""
    return session.run("DELETE FROM dead WHERE id = ANY(%s::bigint[])", (array(chosen(session, where)),))


def prune(session: Session, before: float) -> int:
    """Delete letters older than this; how many."""
    return session.run("DELETE FROM dead WHERE died_at < %s", (before,))
