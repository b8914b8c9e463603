"""Connections of a log elsewhere: made known, changed, forgotten."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping, Sequence

from .. import partition_of
from ..halves import Change, Scope, Stand
from ..scope import REMOVED
from ..settle import SKIPPED
from .rows import CLOSED, array, count, end, leave, lock, number_of
from .schema import OWNED
from .sessions import Session


def move_on(session: Session) -> None:
    """Begin another generation. Comes before any lock on places."""
    session.run("UPDATE ledger SET generation = generation + 1")


def stand(session: Session, name: str) -> Stand:
    """What is known of a connection."""
    ((generation, open_),) = session.rows("SELECT generation, EXISTS (SELECT FROM intent) FROM ledger")
    connection = number_of(session, name)
    cursors = session.rows("SELECT partition, cursor FROM place WHERE connection = %s", (connection,))
    scopes = {} if connection is None else scopes_of(session, connection)
    return Stand(generation, open_, dict(cursors), scopes)


def scopes_of(session: Session, connection: int) -> Mapping[int, Sequence[Scope]]:
    """All scopes of a connection, closed ones too, by partition."""
    found: dict[int, list[Scope]] = defaultdict(list)
    sql = "SELECT source, since, until, base, final FROM scope WHERE connection = %s ORDER BY source, since"
    for row in session.rows(sql, (connection,)):
        scope = Scope(*row)
        found[partition_of(scope.since)].append(scope)
    return found


def change(session: Session, name: str, seen: Stand, changed: Change) -> bool:
    """Make a connection known or change it, unless it stands otherwise than it was seen."""
    moved = session.run(
        "UPDATE ledger SET generation = generation + 1 WHERE generation = %s", (seen.generation,)
    )
    if not moved:
        return False
    session.run("INSERT INTO connection (name) VALUES (%s) ON CONFLICT DO NOTHING", (name,))
    connection = number_of(session, name) or 0
    cursors = {partition: cursor for _, partition, cursor, _ in lock(session, [connection])}
    touched = {partition_of(scope.since) for scope in changed.opened}
    if any(cursors.get(partition) != seen.cursors.get(partition) for partition in touched):
        return False
    _begin(session, connection, changed)
    _close(session, connection, changed)
    return True


def _begin(session: Session, connection: int, changed: Change) -> None:
    session.run_many(
        "INSERT INTO place (connection, partition, cursor, trimmed) VALUES (%s, %s, %s, 0)",
        [(connection, partition, cursor) for partition, cursor in changed.cursors.items()],
    )
    # A closed scope that begins at the same position is an empty one, and is replaced.
    session.run_many(
        "INSERT INTO scope (connection, source, since, base) VALUES (%s, %s, %s, %s) ON CONFLICT "
        "(connection, source, since) DO UPDATE SET until = NULL, base = excluded.base, final = NULL",
        [(connection, scope.source, scope.since, scope.base) for scope in changed.opened],
    )


def _close(session: Session, connection: int, changed: Change) -> None:
    """Sources were taken away: what of them has not been tried is skipped, by name, and counted."""
    session.run_many(
        "UPDATE scope SET until = %s, final = %s WHERE connection = %s AND source = %s AND since = %s",
        [(scope.until, scope.final, connection, scope.source, scope.since) for scope in changed.closed],
    )
    untried = array(changed.untried)
    sql = "SELECT position FROM parked WHERE connection = %s AND position = ANY(%s::bigint[]) AND idx = 0"
    parked = {row[0] for row in session.rows(sql, (connection, untried))}
    skipped = [(position, 0) for position in changed.untried if position not in parked]
    count(session, "counter", end(session, connection, skipped, SKIPPED, REMOVED, CLOSED))
    leave(session, connection, changed.untried, CLOSED)


def disconnect(session: Session, name: str) -> bool:
    """Forget a connection; whether there was one."""
    move_on(session)
    connection = number_of(session, name)
    if connection is None:
        return False
    lock(session, [connection])
    for table in OWNED:
        session.run(f"DELETE FROM {table} WHERE connection = %s", (connection,))  # noqa: S608
    session.run("DELETE FROM connection WHERE id = %s", (connection,))
    session.run("DELETE FROM pause WHERE connection = %s", (name,))
    return True
