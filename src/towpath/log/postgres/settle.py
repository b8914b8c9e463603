"""Settlements: every row, counter, letter and the cursor of one move in one fenced transaction."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

from .. import Dead, Done, Key, Lease, Parked, Settlement
from ..settle import EXTRA, KIND, SKIPPED, Letter
from .rows import REASON_MAX, array, count, digest, keys, park, relane
from .sessions import Session

FENCE = """
UPDATE place SET cursor = greatest(cursor, %s) FROM connection c
WHERE c.name = %s AND place.connection = c.id AND partition = %s AND epoch = %s AND owner = %s
RETURNING place.connection, trimmed
"""
"""Locks the place until the commit: a lease that is newer was taken before it, or will be after it."""

END = f"""
WITH done AS (
  SELECT d.*, (%(reasons)s::text[])[d.said] AS reason FROM unnest(
    %(positions)s::bigint[], %(indexes)s::integer[], %(kinds)s::smallint[], %(said)s::integer[],
    %(codes)s::integer[], %(attempts)s::integer[], %(ms)s::integer[], %(at_ms)s::bigint[]
  ) AS d(position, idx, kind, said, code, attempts, ms, at_ms)
), released AS (
  DELETE FROM parked p USING done d
  WHERE p.connection = %(connection)s AND p.position = d.position AND p.idx = d.idx
  RETURNING p.position, p.idx, p.person, p.outside
), ended AS (
  INSERT INTO settlement (position, at_ms, connection, idx, code, attempts, ms, kind, outside, reason)
  SELECT d.position, d.at_ms, %(connection)s, d.idx, d.code, d.attempts, d.ms, d.kind, coalesce(r.outside, 0),
    d.reason
  FROM done d LEFT JOIN released r ON r.position = d.position AND r.idx = d.idx
  WHERE r.position IS NOT NULL OR d.position > %(trimmed)s AND NOT (d.idx > 0 AND EXISTS (
    SELECT FROM settlement s
    WHERE s.connection = %(connection)s AND s.position = d.position AND s.idx = 0 AND s.outside > 0
  ))
  ON CONFLICT DO NOTHING RETURNING position, idx, kind, reason
), counted AS (
  INSERT INTO counter
  SELECT %(connection)s, %(partition)s, kind,
    CASE kind WHEN {SKIPPED} THEN left(reason, {REASON_MAX}) ELSE '' END, count(*)
  FROM ended GROUP BY 3, 4
  UNION ALL
  SELECT %(connection)s, %(partition)s, {EXTRA}, '', count(*) FROM ended e
  WHERE e.idx > 0 AND NOT EXISTS (SELECT FROM released r WHERE r.position = e.position AND r.idx = e.idx)
  HAVING count(*) > 0
  ON CONFLICT (connection, partition, kind, reason) DO UPDATE SET count = counter.count + excluded.count
)
SELECT position, idx, person FROM released
UNION ALL
SELECT d.position, d.idx, NULL FROM done d
WHERE NOT EXISTS (SELECT FROM ended e WHERE e.position = d.position AND e.idx = d.idx)
"""  # noqa: S608
"""Ends deliveries once each: a key that has ended, or was trimmed without being parked, is left as it is.

So is a further delivery of a record that was erased: the first one's row tells. Returns the parked rows that
went (with their persons), and the keys that were left (without one).
"""


def settle(session: Session, lease: Lease, settlement: Settlement) -> bool:
    """All of one settlement, or nothing when the lease is not the newest."""
    fence = (settlement.cursor, lease.connection, lease.partition, lease.epoch, lease.owner)
    found = session.rows(FENCE, fence)
    if not found:
        return False
    connection, trimmed = found[0]
    step = Step(session, connection, lease.partition, trimmed)
    touched = step.merge(settlement.merges)
    if settlement.done:
        touched |= step.end(settlement.done, settlement.dead)
    if settlement.parked:
        touched |= step.park(settlement.parked)
    relane(session, connection, {(lease.partition, person) for person in touched})
    return True


class Step:
    """The parts of one settlement; each returns the persons whose parked rows have changed."""

    def __init__(self, session: Session, connection: int, partition: int, trimmed: int) -> None:
        self._session = session
        self._connection = connection
        self._partition = partition
        self._trimmed = trimmed

    def merge(self, merges: Iterable[tuple[str, str]]) -> set[str]:
        """Rename the persons of parked rows."""
        touched: set[str] = set()
        for old, new in merges:
            self._session.run(
                "UPDATE parked SET person = %s, person_key = %s "
                "WHERE connection = %s AND person_key = %s AND position >> 48 = %s",
                (new, digest(new), self._connection, digest(old), self._partition),
            )
            touched |= {old, new}
        return touched

    def end(self, ended: Sequence[Done], dead: Sequence[Dead]) -> set[str]:
        """End deliveries, and keep the letters of those that died now."""
        once: dict[Key, Done] = {(done.position, done.index): done for done in reversed(ended)}
        reasons = sorted({done.reason for done in ended})
        said = {reason: number for number, reason in enumerate(reasons, 1)}
        found = self._session.rows(END, self._columns(list(once.values()), said))
        left = {(position, index) for position, index, person in found if person is None}
        died = {key for key, done in once.items() if done.state == "dead"} - left
        self._bury([letter for letter in dead if (letter.position, letter.index) in died])
        return {person for _, _, person in found if person is not None}

    def _columns(self, done: Sequence[Done], said: dict[str, int]) -> dict[str, object]:
        positions, indexes = keys((row.position, row.index) for row in done)
        return {
            "connection": self._connection,
            "partition": self._partition,
            "trimmed": self._trimmed,
            "positions": positions,
            "indexes": indexes,
            "kinds": array(KIND[row.state] for row in done),
            "reasons": list(said),
            "said": array(said[row.reason] for row in done),
            "codes": array(row.code for row in done),
            "attempts": array(row.attempts for row in done),
            "ms": array(row.ms for row in done),
            "at_ms": array(round(row.at * 1000) for row in done),
        }

    def _bury(self, letters: Sequence[Dead]) -> None:
        names = (
            "connection, position, idx, person, reason, code, attempts, first_at, died_at, message_id, body"
        )
        statement = (
            f"INSERT INTO dead ({names}) VALUES ({', '.join(['%s'] * 11)}) "  # noqa: S608
            "ON CONFLICT (connection, position, idx) DO NOTHING"
        )
        self._session.run_many(statement, [self._letter(letter) for letter in letters])

    def _letter(self, dead: Dead) -> tuple[object, ...]:
        body = self._session.codec.pack(Letter(dead.record, dead.exchange))
        return (
            self._connection, dead.position, dead.index, dead.person, dead.reason, dead.code, dead.attempts,
            dead.first_at, dead.died_at, dead.record.message_id, body,
        )  # fmt: skip

    def park(self, given: Sequence[Parked]) -> set[str]:
        """Park or park again; a key that has ended, or was trimmed without being parked, is left as it is."""
        rows = {(row.position, row.index): row for row in given}
        before, ended = self._known(rows), self._ended(rows)
        fit = {
            key: (row, before[key][0] if key in before else 0)
            for key, row in rows.items()
            if key in before or (row.position > self._trimmed and key not in ended)
        }
        park(self._session, self._connection, fit)
        new = sum(index > 0 for position, index in fit if (position, index) not in before)
        count(self._session, "counter", Counter({(self._connection, self._partition, EXTRA, ""): new}))
        return {person for _, person in before.values()} | {row.person for row, _ in fit.values()}

    def _known(self, rows: Iterable[Key]) -> dict[Key, tuple[int, str]]:
        found = self._session.rows(
            "SELECT p.position, p.idx, p.outside, p.person FROM parked p "
            "JOIN unnest(%s::bigint[], %s::integer[]) AS k(position, idx) "
            "ON p.position = k.position AND p.idx = k.idx WHERE p.connection = %s",
            (*keys(rows), self._connection),
        )
        return {(position, index): (outside, person) for position, index, outside, person in found}

    def _ended(self, rows: Iterable[Key]) -> set[Key]:
        """The keys among these that have ended, and further deliveries of records that were erased."""
        found = self._session.rows(
            "SELECT DISTINCT k.position, k.idx FROM settlement s "
            "JOIN unnest(%s::bigint[], %s::integer[]) AS k(position, idx) ON s.position = k.position "
            "AND (s.idx = k.idx OR s.idx = 0 AND s.outside > 0) WHERE s.connection = %s",
            (*keys(rows), self._connection),
        )
        return {(position, index) for position, index in found}
