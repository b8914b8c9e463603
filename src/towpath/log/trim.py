"""Retention: old blobs go once every connection is past them, with the settlement rows of their records."""

from __future__ import annotations

from collections import Counter

import apsw

from .blob import Codec
from .schema import select
from .scope import Row, rows, scopes, within
from .settle import ACCEPTED, EXTRA, SKIPPED, Counts, count

STEP_RECORDS = 20_000


def step(connection: apsw.Connection, codec: Codec, before: float, upto: int | None) -> int | None:
    """Drop the oldest blobs, about `STEP_RECORDS` records; how many went, None when none is left."""
    gone = _droppable(connection, before, upto)
    if not gone:
        return None
    trimmed = gone[-1].last
    past: Counts = Counter()
    for (target,) in select(connection, "SELECT id FROM connection"):
        of = scopes(connection, target)
        past[target, ACCEPTED, ""] += sum(within(connection, codec, row, of) for row in gone)
        past.update(_ended(connection, target, trimmed))
        connection.execute(
            "DELETE FROM settlement WHERE connection = ? AND position <= ?", (target, trimmed)
        ).fetchall()
    count(connection, "past", past)
    connection.execute("DELETE FROM blob WHERE position <= ?", (trimmed,)).fetchall()
    connection.execute("UPDATE log SET trimmed = ?", (trimmed,)).fetchall()
    connection.execute("PRAGMA incremental_vacuum").fetchall()
    return sum(sum(row.sources.values()) for row in gone)


def _droppable(connection: apsw.Connection, before: float, upto: int | None) -> list[Row]:
    settled = connection.execute("SELECT coalesce(min(cursor), (SELECT last FROM log)) FROM connection").get
    settled = settled if upto is None else min(settled, upto)
    gone: list[Row] = []
    records = 0
    for row in rows(connection, 0, limit=1024):
        if row.received_max >= before or row.last > settled or (gone and records + row.count > STEP_RECORDS):
            break
        gone.append(row)
        records += row.count
    return gone


def _ended(connection: apsw.Connection, target: int, trimmed: int) -> Counts:
    counts: Counts = Counter()
    sql = (
        "SELECT kind, CASE kind WHEN ? THEN reason ELSE '' END AS why, count(*), sum(idx > 0) "
        "FROM settlement WHERE connection = ? AND position <= ? GROUP BY kind, why"
    )
    for kind, reason, ended, extra in connection.execute(sql, (SKIPPED, target, trimmed)):
        counts[target, kind, reason] += ended
        counts[target, EXTRA, ""] += extra
    return counts
