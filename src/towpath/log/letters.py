"""Dead letters: chosen by a filter, shown, replayed, dropped, pruned."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection
from typing import Any, TypeAlias

import apsw
import msgspec

from ..message import Record
from . import Dead, DeadFilter, Parked, Refused
from .blob import Codec
from .schema import select
from .settle import DEAD, EXTRA, Counts, Letter, count, park, relane

_letter = msgspec.msgpack.Decoder(Letter).decode
_Start: TypeAlias = tuple[int, int, str, str, int, int, float, float]
_COLUMNS = (
    "d.id, c.name, d.position, d.idx, d.person, d.reason, d.code, d.attempts, d.first_at, d.died_at, d.body"
)


STEP_LETTERS = 500
"""How many letters one transaction replays, so that appends need not wait for all of them."""


def equalities(where: DeadFilter) -> list[tuple[str, object]]:
    """The columns (of dead `d`, connection `c`) that a filter wants to have a value."""
    wanted: tuple[tuple[str, object], ...] = (
        ("c.name", where.connection),
        ("d.code", where.code),
        ("d.reason", where.reason),
        ("d.person", where.person),
        ("d.message_id", where.message_id),
    )
    return [(column, value) for column, value in wanted if value is not None]


def _chosen(where: DeadFilter, columns: str) -> tuple[str, list[object]]:
    """The query of a filter, without order or limit, and its values."""
    conditions, values = ["1"], list[object]()
    for column, value in equalities(where):
        conditions.append(f"{column} = ?")
        values.append(value)
    if where.since is not None:
        conditions.append("d.died_at >= ?")
        values.append(where.since)
    if where.ids is not None:
        conditions.append("d.id IN (SELECT value FROM json_each(?))")
        values.append(msgspec.json.encode(where.ids).decode())
    query = (
        f"SELECT {columns} FROM dead d JOIN connection c ON c.id = d.connection "  # noqa: S608
        f"WHERE {' AND '.join(conditions)}"
    )
    return query, values


def read(connection: apsw.Connection, codec: Codec, where: DeadFilter) -> list[Dead]:
    """The letters a filter chooses, newest first, at most its limit. Raises `Damaged`."""
    query, values = _chosen(where, _COLUMNS)
    rows = select(connection, f"{query} ORDER BY d.id DESC LIMIT ?", [*values, where.limit])
    return [_dead(codec, row) for row in rows]


def chosen(connection: apsw.Connection, where: DeadFilter) -> list[int]:
    """The ids of all letters a filter chooses, whatever its limit, in order of their deliveries' keys."""
    query, values = _chosen(where, "d.id")
    return [row[0] for row in select(connection, f"{query} ORDER BY d.connection, d.position, d.idx", values)]


def _dead(codec: Codec, row: tuple[Any, ...]) -> Dead:
    start: _Start = row[2:10]
    letter = _letter(codec.unpack(start[0], row[10]))
    return Dead(*start, letter.record, exchange=letter.exchange, connection=row[1], id=row[0])


def replay(connection: apsw.Connection, codec: Codec, ids: Collection[int], now: float) -> Counter[str]:
    """These letters, where still there, become parked and due; their deliveries are open again."""
    columns = "d.id, c.name, d.connection, d.position, d.idx, d.person, d.body"
    replayed: Counter[str] = Counter()
    persons: dict[int, set[str]] = {}
    query, values = _chosen(DeadFilter(ids=[*ids]), columns)
    for id_, name, target, position, index, person, body in select(connection, query, values):
        outside = _reopen(connection, id_, target, position, index)
        record: Record = _letter(codec.unpack(position, body)).record
        row = Parked(position, index, person, now, 0, 0.0, "replayed", record)
        park(connection, target, row, outside, codec.pack(record))
        persons.setdefault(target, set()).add(person)
        replayed[name] += 1
    for target, touched in persons.items():
        relane(connection, target, touched)
    return replayed


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
    """Delete all letters a filter chooses for good, whatever its limit."""
    ids = chosen(connection, where)
    connection.executemany("DELETE FROM dead WHERE id = ?", [(id_,) for id_ in ids])
    return len(ids)


def prune(connection: apsw.Connection, before: float) -> int:
    """Delete letters older than this; how many."""
    connection.execute("DELETE FROM dead WHERE died_at < ?", (before,)).fetchall()
    return connection.changes()


def refused(connection: apsw.Connection, ids: Collection[int]) -> list[Refused]:
    """The refused items of these ids, as far as they are there."""
    columns = "source, idx, code, reason, raw, at, id"
    sql = f"SELECT {columns} FROM refused WHERE id IN (SELECT value FROM json_each(?))"  # noqa: S608
    return [Refused(*row) for row in select(connection, sql, (msgspec.json.encode([*ids]).decode(),))]


def drop_refused(connection: apsw.Connection, ids: Collection[int]) -> int:
    """Delete refused items for good; how many."""
    connection.executemany("DELETE FROM refused WHERE id = ?", [(id_,) for id_ in ids])
    return len(ids)


def forget_refusals(connection: apsw.Connection, before: float) -> int:
    """Delete refused items older than this; how many."""
    connection.execute("DELETE FROM refused WHERE at < ?", (before,)).fetchall()
    return connection.changes()
