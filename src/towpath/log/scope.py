"""Which records are a connection's: from when to when it takes from which source, and how many there are."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from typing import Literal

import apsw
import msgspec
from msgspec import Struct

from .blob import Blob, Codec
from .settle import SKIPPED, count, has_ended, insert_ended

REMOVED = "source removed"
OWNED = ("scope", "lease", "counter", "past", "settlement", "parked", "lane", "dead")
"""The tables whose rows belong to one connection."""
_counts = msgspec.json.Decoder(dict[str, int]).decode

FROM = "position >= coalesce((SELECT max(position) FROM blob WHERE position <= ?), 0)"
"""Condition on blobs: those that may hold this position or a later one."""


class Scope(Struct, frozen=True, gc=False):
    """Records of `source` with since < position <= until; `until` None: still open."""

    source: str
    since: int
    until: int | None

    def holds(self, source: str, position: int) -> bool:
        """Whether a record is in it."""
        return (
            source == self.source and self.since < position and (self.until is None or position <= self.until)
        )


class Row(Struct, frozen=True, gc=False):
    """A blob's row without its body."""

    position: int
    count: int
    received_max: float
    sources: dict[str, int]

    @property
    def last(self) -> int:
        """The last position it spans."""
        return self.position + self.count - 1


def rows(connection: apsw.Connection, first: int, limit: int = -1) -> Iterator[Row]:
    """The rows that may hold position `first` or later ones, in order."""
    sql = f"SELECT position, count, received_max, sources FROM blob WHERE {FROM} ORDER BY position LIMIT ?"  # noqa: S608
    for position, span, received_max, sources in connection.execute(sql, (first, limit)):
        yield Row(position, span, received_max, _counts(sources))


def load(connection: apsw.Connection, codec: Codec, position: int) -> Blob | None:
    """The blob whose row has this position. Raises `Damaged`."""
    row = connection.execute("SELECT count, body FROM blob WHERE position = ?", (position,)).fetchone()
    return None if row is None else codec.decode(position, row[0], row[1])


def scopes(connection: apsw.Connection, target: int) -> list[Scope]:
    """All scopes of a connection, closed ones too."""
    sql = "SELECT source, since, until FROM scope WHERE connection = ?"
    return [Scope(*row) for row in connection.execute(sql, (target,))]


def within(connection: apsw.Connection, codec: Codec, row: Row, of: Collection[Scope]) -> int:
    """How many records of a blob these scopes hold."""
    near = [scope for scope in of if scope.source in row.sources]
    if any(
        _cuts(scope.since, row) or (scope.until is not None and _cuts(scope.until, row)) for scope in near
    ):
        blob = load(connection, codec, row.position)
        return sum(any(s.holds(r.source, r.position) for s in near) for r in blob.records()) if blob else 0
    return sum(row.sources[scope.source] for scope in near if scope.holds(scope.source, row.position))


def beyond(connection: apsw.Connection, codec: Codec, after: Mapping[str, int]) -> int:
    """How many records there are of each source with position > `after[source]`, together."""
    if not after:
        return 0
    wanted = [Scope(source, position, None) for source, position in after.items()]
    return sum(within(connection, codec, row, wanted) for row in rows(connection, min(after.values()) + 1))


def _cuts(position: int, row: Row) -> bool:
    return row.position <= position < row.last


def connect(
    connection: apsw.Connection,
    codec: Codec,
    name: str,
    sources: Collection[str],
    start: Literal["now", "earliest"],
) -> None:
    """Make a connection known, or bring its sources up to date."""
    last = int(connection.execute("SELECT last FROM log").get)
    connection.execute(
        "INSERT OR IGNORE INTO connection (name, cursor) VALUES (?, ?)", (name, last if start == "now" else 0)
    )
    row = connection.execute("SELECT id, cursor FROM connection WHERE name = ?", (name,)).fetchone()
    target, cursor = row if row is not None else (0, 0)
    known = scopes(connection, target)
    current = {scope.source: scope for scope in known if scope.until is None}
    for source in sorted(set(sources) - current.keys()):
        since = max([cursor, *[s.until or 0 for s in known if s.source == source]])
        _open(connection, codec, target, Scope(source, since, None))
    for source in sorted(current.keys() - set(sources)):
        _close(connection, codec, target, current[source], cursor, last)


def disconnect(connection: apsw.Connection, name: str) -> bool:
    """Forget a connection; whether there was one."""
    target = connection.execute("SELECT id FROM connection WHERE name = ?", (name,)).get
    if target is None:
        return False
    for table in OWNED:
        connection.execute(f"DELETE FROM {table} WHERE connection = ?", (target,))  # noqa: S608
    connection.execute("DELETE FROM connection WHERE id = ?", (target,))
    connection.execute("DELETE FROM pause WHERE connection = ?", (name,))
    return True


def _open(connection: apsw.Connection, codec: Codec, target: int, scope: Scope) -> None:
    connection.execute("INSERT OR IGNORE INTO source (name) VALUES (?)", (scope.source,))
    # A closed scope that begins at the same position is an empty one, and is replaced.
    stored = beyond(connection, codec, {scope.source: scope.since})
    connection.execute(
        "INSERT OR REPLACE INTO scope SELECT ?, name, ?, NULL, accepted - ?, NULL FROM source WHERE name = ?",
        (target, scope.since, stored, scope.source),
    )


def _close(
    connection: apsw.Connection, codec: Codec, target: int, scope: Scope, cursor: int, last: int
) -> None:
    """A source was taken away: what of it has not been tried is skipped, by name, and counted."""
    connection.execute(
        "UPDATE scope SET until = ?, final = (SELECT accepted FROM source WHERE name = scope.source) "
        "WHERE connection = ? AND source = ? AND since = ?",
        (last, target, scope.source, scope.since),
    )
    untried = list(positions(connection, codec, scope.source, max(cursor, scope.since)))
    skipped = [p for p in untried if not _known(connection, target, p)]
    insert_ended(connection, [(target, p, 0, SKIPPED, REMOVED, 0, 0, 0, 0, 1) for p in skipped])
    count(connection, "counter", Counter({(target, SKIPPED, REMOVED): len(skipped)}))
    leave(connection, target, untried)


def positions(connection: apsw.Connection, codec: Codec, source: str, after: int) -> Iterator[int]:
    """The positions of a source's kept records beyond a position, ascending."""
    for row in rows(connection, after + 1):
        if source in row.sources and (blob := load(connection, codec, row.position)):
            yield from (r.position for r in blob.records() if r.source == source and r.position > after)


def _known(connection: apsw.Connection, target: int, position: int) -> bool:
    sql = "SELECT 1 FROM parked WHERE connection = ? AND position = ? AND idx = 0"
    return has_ended(connection, (target, position, 0)) or bool(
        connection.execute(sql, (target, position)).fetchone()
    )


def leave(connection: apsw.Connection, target: int, positions: Collection[int]) -> None:
    """Mark the rows of these positions: `beyond` no longer counts their records for this connection."""
    keys = [(target, position) for position in positions]
    for table in ("settlement", "parked"):
        connection.executemany(
            f"UPDATE {table} SET outside = 1 WHERE connection = ? AND position = ?",  # noqa: S608
            keys,
        )
