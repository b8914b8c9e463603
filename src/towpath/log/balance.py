"""P2, twice: from the counters, and counted again from the rows and the log."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import apsw

from . import Balance
from .blob import Codec
from .schema import select
from .scope import Scope, beyond, load, rows, scopes
from .settle import ACCEPTED, DEAD, DELIVERED, ERASED, EXTRA, SKIPPED

_TRIED = "connection = ?1 AND position > ?2 AND idx = 0 AND NOT outside"


def balances(connection: apsw.Connection, codec: Codec, *, recount: bool) -> list[Balance]:
    """One balance per connection, all of the same instant."""
    connection.execute("BEGIN")
    try:
        found = select(connection, "SELECT id, name, cursor FROM connection ORDER BY name")
        if not recount:
            return [_from_counters(connection, codec, *target) for target in found]
        recounts = [Recount(connection, *target) for target in found]
        for row in rows(connection, 0):
            blob = load(connection, codec, row.position)
            for record in blob.records() if blob else ():
                for each in recounts:
                    each.see(record.source, record.position)
        return [each.balance(connection) for each in recounts]
    finally:
        connection.execute("ROLLBACK")


def _from_counters(connection: apsw.Connection, codec: Codec, target: int, name: str, cursor: int) -> Balance:
    counts = _counts(connection, target, "counter")
    accepted = connection.execute(
        "SELECT coalesce(sum(coalesce(final, accepted) - base), 0) FROM scope JOIN source ON name = source "
        "WHERE connection = ?",
        (target,),
    ).get
    after = {s.source: max(cursor, s.since) for s in scopes(connection, target) if s.until is None}
    tried = connection.execute(
        f"SELECT (SELECT count(*) FROM settlement WHERE {_TRIED})"  # noqa: S608
        f" + (SELECT count(*) FROM parked WHERE {_TRIED})",
        (target, cursor),
    ).get
    waiting = beyond(connection, codec, after) - tried + _parked(connection, target)
    return _balance(name, accepted + counts[EXTRA, ""], waiting, counts)


class Recount:
    """Counts one connection again, from every record and every row there is."""

    def __init__(self, connection: apsw.Connection, target: int, name: str, cursor: int) -> None:
        self._target = target
        self._name = name
        self._cursor = cursor
        self._accepted = 0
        self._untried = 0
        self._scopes: dict[str, list[Scope]] = {}
        for scope in scopes(connection, target):
            self._scopes.setdefault(scope.source, []).append(scope)
        sql = "SELECT position FROM {} WHERE connection = ? AND position > ? AND idx = 0"
        self._tried = {
            row[0]
            for table in ("settlement", "parked")
            for row in connection.execute(sql.format(table), (target, cursor))
        }

    def see(self, source: str, position: int) -> None:
        """Take one record of the log into account."""
        if any(scope.holds(source, position) for scope in self._scopes.get(source, ())):
            self._accepted += 1
            self._untried += position > self._cursor and position not in self._tried

    def balance(self, connection: apsw.Connection) -> Balance:
        """The result, with the rows and what is past added."""
        target = self._target
        counts = Counter(_counts(connection, target, "past"))
        sql = (
            "SELECT kind, CASE kind WHEN ? THEN reason ELSE '' END AS why, count(*), sum(idx > 0) "
            "FROM settlement WHERE connection = ? GROUP BY kind, why"
        )
        for kind, reason, ended, extra in connection.execute(sql, (SKIPPED, target)):
            counts[kind, reason] += ended
            counts[EXTRA, ""] += extra
        sql = "SELECT count(*) FROM parked WHERE connection = ? AND idx > 0"
        counts[EXTRA, ""] += connection.execute(sql, (target,)).get
        accepted = self._accepted + counts[ACCEPTED, ""] + counts[EXTRA, ""]
        return _balance(self._name, accepted, self._untried + _parked(connection, target), counts)


def _parked(connection: apsw.Connection, target: int) -> int:
    return int(connection.execute("SELECT count(*) FROM parked WHERE connection = ?", (target,)).get)


def _counts(connection: apsw.Connection, target: int, table: str) -> Counter[tuple[int, str]]:
    sql = f"SELECT kind, reason, count FROM {table} WHERE connection = ?"  # noqa: S608
    return Counter({(kind, reason): value for kind, reason, value in connection.execute(sql, (target,))})


def _balance(name: str, accepted: int, waiting: int, counts: Mapping[tuple[int, str], int]) -> Balance:
    return Balance(
        connection=name,
        accepted=accepted,
        delivered=counts.get((DELIVERED, ""), 0),
        waiting=waiting,
        dead=counts.get((DEAD, ""), 0),
        skipped={
            reason: value for (kind, reason), value in sorted(counts.items()) if kind == SKIPPED and value
        },
        erased=counts.get((ERASED, ""), 0),
    )
