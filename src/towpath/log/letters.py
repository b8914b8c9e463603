"""Dead letters: chosen by a filter, shown, replayed, dropped, pruned."""

from __future__ import annotations

from collections import Counter
from typing import Any, TypeAlias

import apsw
import msgspec

from ..message import Record
from . import Dead, DeadFilter, Parked
from .blob import Codec
from .schema import select
from .settle import DEAD, EXTRA, Counts, Letter, count, park, relane

_letter = msgspec.msgpack.Decoder(Letter).decode
_Start: TypeAlias = tuple[int, int, str, str, int, int, float, float]
_COLUMNS = (
    "d.id, c.name, d.position, d.idx, d.person, d.reason, d.code, d.attempts, d.first_at, d.died_at, d.body"
)


def choose(where: DeadFilter, columns: str) -> tuple[str, list[object]]:
    """The query of a filter, newest first, and its values."""
    conditions, values = ["1"], list[object]()
    for column, value in (
        ("c.name", where.connection),
        ("d.code", where.code),
        ("d.reason", where.reason),
        ("d.person", where.person),
        ("d.message_id", where.message_id),
    ):
        if value is not None:
            conditions.append(f"{column} = ?")
            values.append(value)
    if where.since is not None:
        conditions.append("d.died_at >= ?")
        values.append(where.since)
    if where.ids is not None:
        conditions.append(f"d.id IN ({', '.join('?' * len(where.ids))})")
        values.extend(where.ids)
    query = (
        f"SELECT {columns} FROM dead d JOIN connection c ON c.id = d.connection "  # noqa: S608
        f"WHERE {' AND '.join(conditions)} ORDER BY d.id DESC LIMIT ?"
    )
    return query, [*values, where.limit]


def read(connection: apsw.Connection, codec: Codec, where: DeadFilter) -> list[Dead]:
    """The letters a filter chooses. Raises `Damaged`."""
    return [_dead(codec, row) for row in select(connection, *choose(where, _COLUMNS))]


def _dead(codec: Codec, row: tuple[Any, ...]) -> Dead:
    start: _Start = row[2:10]
    letter = _letter(codec.unpack(start[0], row[10]))
    return Dead(*start, letter.record, exchange=letter.exchange, connection=row[1], id=row[0])


def replay(connection: apsw.Connection, codec: Codec, where: DeadFilter, now: float) -> dict[str, int]:
    """Letters become parked and due; their deliveries are open again."""
    query, values = choose(where, "d.id, c.name, d.connection, d.position, d.idx, d.person, d.body")
    replayed: Counter[str] = Counter()
    persons: dict[int, set[str]] = {}
    for id_, name, target, position, index, person, body in select(connection, query, values):
        outside = _reopen(connection, id_, target, position, index)
        record: Record = _letter(codec.unpack(position, body)).record
        row = Parked(position, index, person, now, 0, 0.0, "replayed", record)
        park(connection, target, row, outside, codec.pack(record))
        persons.setdefault(target, set()).add(person)
        replayed[name] += 1
    for target, touched in persons.items():
        relane(connection, target, touched)
    return dict(replayed)


def _reopen(connection: apsw.Connection, id_: int, target: int, position: int, index: int) -> int:
    """Undo one death: the letter, its settlement row and its place in the counters."""
    connection.execute("DELETE FROM dead WHERE id = ?", (id_,))
    count(connection, "counter", Counts({(target, DEAD, ""): -1}))
    row = connection.execute(
        "DELETE FROM settlement WHERE connection = ? AND position = ? AND idx = ? RETURNING outside",
        (target, position, index),
    ).fetchone()
    if row is not None:
        return int(row[0])
    count(connection, "past", Counts({(target, DEAD, ""): -1, (target, EXTRA, ""): -1 if index else 0}))
    return 1


def drop(connection: apsw.Connection, where: DeadFilter) -> int:
    """Delete letters for good."""
    query, values = choose(where, "d.id")
    ids = [row[0] for row in select(connection, query, values)]
    connection.executemany("DELETE FROM dead WHERE id = ?", [(id_,) for id_ in ids])
    return len(ids)


def prune(connection: apsw.Connection, before: float) -> int:
    """Delete letters and refusals older than this."""
    gone = 0
    for sql in ("DELETE FROM dead WHERE died_at < ?", "DELETE FROM refused WHERE at < ?"):
        connection.execute(sql, (before,)).fetchall()
        gone += connection.changes()
    return gone
