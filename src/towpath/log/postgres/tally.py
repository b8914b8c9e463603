"""The ledger's side of the balance, of one instant: from its counters, or counted again from its rows."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import TypeAlias

from ..halves import Place, Tally, View
from ..settle import EXTRA, SKIPPED
from .rows import OPEN, REASON_MAX, span
from .scope import scopes_of
from .sessions import Session

_Counts: TypeAlias = Mapping[int, Counter[tuple[int, str]]]
_BEYOND = (
    "r.connection = p.connection AND r.position > p.cursor AND r.position < (p.partition + 1)::bigint << 48"
)
ROWS = f"""
SELECT connection, kind, CASE kind WHEN {SKIPPED} THEN left(reason, {REASON_MAX}) ELSE '' END, count(*)
FROM settlement GROUP BY 1, 2, 3
UNION ALL SELECT connection, {EXTRA}, '', count(*) FROM settlement WHERE idx > 0 GROUP BY 1
UNION ALL SELECT connection, {EXTRA}, '', count(*) FROM parked WHERE idx > 0 GROUP BY 1
UNION ALL SELECT connection, kind, reason, sum(count)::bigint FROM past GROUP BY 1, 2, 3
"""  # noqa: S608
GENERATION = "SELECT generation FROM ledger"
COUNTERS = "SELECT connection, kind, reason, sum(count)::bigint FROM counter GROUP BY 1, 2, 3"


def view(session: Session, *, recount: bool) -> View:
    """Everything a balance needs."""
    counts = _counts(session, ROWS if recount else COUNTERS)
    places = _places(session, recount=recount)
    parked = dict(session.rows("SELECT connection, count(*) FROM parked GROUP BY connection"))
    return View(
        int(session.rows(GENERATION)[0][0]),
        _gone(session),
        [
            Tally(name, counts[connection], parked.get(connection, 0), places[connection])
            for connection, name in session.rows("SELECT id, name FROM connection ORDER BY name")
        ],
    )


def _gone(session: Session) -> Mapping[str, frozenset[int]]:
    found: dict[str, set[int]] = defaultdict(set)
    for source, position in session.rows("SELECT source, position FROM gone"):
        found[source].add(position)
    return {source: frozenset(positions) for source, positions in found.items()}


def _counts(session: Session, sql: str) -> _Counts:
    found: dict[int, Counter[tuple[int, str]]] = defaultdict(Counter)
    for connection, kind, reason, value in session.rows(sql):
        found[connection][kind, reason] += value
    return found


def _places(session: Session, *, recount: bool) -> Mapping[int, Sequence[Place]]:
    tried = "0" if recount else f"{_tried('settlement')} + {_tried('parked')}"
    found: dict[int, list[Place]] = defaultdict(list)
    for connection, partition, cursor, number in session.rows(
        f"SELECT connection, partition, cursor, {tried} FROM place p ORDER BY 1, 2"  # noqa: S608
    ):
        of = scopes_of(session, connection).get(partition, ())
        keys = _keys(session, connection, partition) if recount else frozenset[int]()
        found[connection].append(Place(partition, cursor, of, number, keys))
    return found


def _tried(table: str) -> str:
    return f"(SELECT count(*) FROM {table} r WHERE {_BEYOND} AND r.idx = 0 AND r.outside = {OPEN})"  # noqa: S608


def _keys(session: Session, connection: int, partition: int) -> frozenset[int]:
    one = f"SELECT r.position FROM {{}} r, place p WHERE {_BEYOND} "  # noqa: S608
    one += "AND r.idx = 0 AND p.connection = %s AND p.partition = %s"
    sql = f"{one.format('settlement')} UNION {one.format('parked')}"
    return frozenset(row[0] for row in session.rows(sql, (connection, partition) * 2))


def shown(session: Session, below: Mapping[int, int]) -> Mapping[str, int]:
    """Per connection: first deliveries below these positions whose record is counted nowhere else."""
    one = (
        "(SELECT count(*) FROM {} r WHERE r.connection = p.connection AND r.position BETWEEN %s AND %s "
        "AND r.idx = 0 AND r.outside < 2)"
    )
    sql = (
        f"SELECT c.name, {one.format('settlement')} + {one.format('parked')} "  # noqa: S608
        "FROM place p JOIN connection c ON c.id = p.connection WHERE p.partition = %s"
    )
    found: Counter[str] = Counter()
    for partition, position in below.items():
        bounds = (span(partition)[0], position - 1)
        found.update(dict(session.rows(sql, (*bounds, *bounds, partition))))
    return found
