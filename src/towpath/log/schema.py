"""The tables of log.db, their version, and how a connection to the file is opened."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

import apsw

from ..errors import TowpathError

VERSION = 1
WAL_PAGES = 4000
WAL_PAGES_SHORT = 128
WAL_BYTES = 64 << 20
WAL_BYTES_SHORT = 1 << 20

TABLES = """
-- One row: the newest position, and the position up to which blobs and settlement rows have been dropped.
CREATE TABLE log (last INTEGER NOT NULL, trimmed INTEGER NOT NULL);
INSERT INTO log VALUES (0, 0);

-- Records, many to a row; `position` is the first one's, `count` the span, `sources` how many of each.
CREATE TABLE blob (
  position INTEGER PRIMARY KEY, count INTEGER NOT NULL,
  received_min REAL NOT NULL, received_max REAL NOT NULL, sources TEXT NOT NULL, body BLOB NOT NULL
);
CREATE TABLE source (
  name TEXT PRIMARY KEY, accepted INTEGER NOT NULL DEFAULT 0, duplicates INTEGER NOT NULL DEFAULT 0,
  refused INTEGER NOT NULL DEFAULT 0, state BLOB
) WITHOUT ROWID;
CREATE TABLE refused (
  id INTEGER PRIMARY KEY AUTOINCREMENT, source TEXT NOT NULL, idx INTEGER NOT NULL, code TEXT NOT NULL,
  reason TEXT NOT NULL, raw BLOB NOT NULL, at REAL NOT NULL
);
CREATE INDEX refused_at ON refused (at);

CREATE TABLE connection (id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, cursor INTEGER NOT NULL);
-- Which records are a connection's: those of `source` with since < position <= until (NULL: open).
-- `base` and `final` are the source's accepted count at both ends.
CREATE TABLE scope (
  connection INTEGER NOT NULL, source TEXT NOT NULL, since INTEGER NOT NULL, until INTEGER,
  base INTEGER NOT NULL, final INTEGER, PRIMARY KEY (connection, source, since)
) WITHOUT ROWID;
CREATE TABLE lease (
  connection INTEGER PRIMARY KEY, owner TEXT NOT NULL, epoch INTEGER NOT NULL, expires REAL NOT NULL
);

-- P2 as it is kept: one row per connection, kind (see settle.py) and reason.
CREATE TABLE counter (
  connection INTEGER NOT NULL, kind INTEGER NOT NULL, reason TEXT NOT NULL, count INTEGER NOT NULL,
  PRIMARY KEY (connection, kind, reason)
) WITHOUT ROWID;
-- What the rows below can no longer show because they were trimmed or erased.
CREATE TABLE past (
  connection INTEGER NOT NULL, kind INTEGER NOT NULL, reason TEXT NOT NULL, count INTEGER NOT NULL,
  PRIMARY KEY (connection, kind, reason)
) WITHOUT ROWID;

-- `outside`: its record is not among those the blobs still show for this connection's open scopes.
CREATE TABLE settlement (
  connection INTEGER NOT NULL, position INTEGER NOT NULL, idx INTEGER NOT NULL, kind INTEGER NOT NULL,
  reason TEXT NOT NULL, code INTEGER NOT NULL, attempts INTEGER NOT NULL, ms INTEGER NOT NULL,
  at_ms INTEGER NOT NULL, outside INTEGER NOT NULL, PRIMARY KEY (connection, position, idx)
) WITHOUT ROWID;
CREATE TABLE parked (
  connection INTEGER NOT NULL, position INTEGER NOT NULL, idx INTEGER NOT NULL, person TEXT NOT NULL,
  due REAL NOT NULL, attempts INTEGER NOT NULL, first_at REAL NOT NULL, reason TEXT NOT NULL,
  follower INTEGER NOT NULL, hold TEXT NOT NULL, alone INTEGER NOT NULL, outside INTEGER NOT NULL,
  body BLOB NOT NULL
);
CREATE UNIQUE INDEX parked_key ON parked (connection, position, idx);
CREATE INDEX parked_person ON parked (connection, person, position, idx, due);
CREATE INDEX parked_due ON parked (due);
CREATE INDEX parked_hold ON parked (connection, hold) WHERE hold != '';
-- The first parked delivery of each person: what `due` looks at.
CREATE TABLE lane (
  connection INTEGER NOT NULL, person TEXT NOT NULL, due REAL NOT NULL, PRIMARY KEY (connection, person)
) WITHOUT ROWID;
CREATE INDEX lane_due ON lane (connection, due);
CREATE TABLE dead (
  id INTEGER PRIMARY KEY AUTOINCREMENT, connection INTEGER NOT NULL, position INTEGER NOT NULL,
  idx INTEGER NOT NULL, person TEXT NOT NULL, reason TEXT NOT NULL, code INTEGER NOT NULL,
  attempts INTEGER NOT NULL, first_at REAL NOT NULL, died_at REAL NOT NULL, message_id TEXT NOT NULL,
  body BLOB NOT NULL
);
CREATE UNIQUE INDEX dead_key ON dead (connection, position, idx);
CREATE INDEX dead_at ON dead (died_at);

CREATE TABLE pause (
  connection TEXT NOT NULL, capability TEXT NOT NULL, reason TEXT NOT NULL, since REAL NOT NULL,
  PRIMARY KEY (connection, capability)
) WITHOUT ROWID;
CREATE TABLE suppressed (id TEXT PRIMARY KEY) WITHOUT ROWID;
CREATE TABLE link (
  identifier TEXT NOT NULL, position INTEGER NOT NULL, person TEXT NOT NULL,
  PRIMARY KEY (identifier, position)
) WITHOUT ROWID;
CREATE INDEX link_person ON link (person, position);
"""

MIGRATIONS: Mapping[int, Callable[[apsw.Connection], None]] = {}
"""From version n to n + 1; each runs inside the one transaction of the upgrade."""


def open_writer(path: Path, *, durable: bool = True) -> apsw.Connection:
    """The one writing connection; makes or upgrades the tables.

    `durable=False` leaves forcing to disk out: for simulations, where no power is ever cut.
    """
    connection = apsw.Connection(str(path))
    connection.set_busy_timeout(10_000)
    for pragma in (
        "auto_vacuum = INCREMENTAL",
        "journal_mode = WAL",
        f"synchronous = {'FULL' if durable else 'OFF'}",
        "secure_delete = ON",
        f"wal_autocheckpoint = {WAL_PAGES}",
        f"journal_size_limit = {WAL_BYTES}",
        "cache_size = -16384",
    ):
        connection.execute(f"PRAGMA {pragma}").fetchall()
    with connection:
        _upgrade(connection, path)
        # The directory has one owner, so whoever held a lease is gone.
        connection.execute("UPDATE lease SET expires = 0").fetchall()
    return connection


def open_reader(path: Path) -> apsw.Connection:
    """A connection that only reads and never checkpoints."""
    connection = apsw.Connection(str(path), flags=apsw.SQLITE_OPEN_READWRITE)
    connection.set_busy_timeout(10_000)
    for pragma in ("query_only = ON", "wal_autocheckpoint = 0", "cache_size = -8192"):
        connection.execute(f"PRAGMA {pragma}").fetchall()
    return connection


def save_room(connection: apsw.Connection, *, short: bool) -> None:
    """Keep the WAL small from the next transaction on, or let it grow as it is fast.

    A checkpoint needs room in the file itself for what it brings there, so on a full disk it must come while
    there is little to bring. What the WAL takes beyond its limit is given back once it starts anew.
    """
    pages, limit = (WAL_PAGES_SHORT, WAL_BYTES_SHORT) if short else (WAL_PAGES, WAL_BYTES)
    connection.execute(f"PRAGMA wal_autocheckpoint = {pages}").fetchall()
    connection.execute(f"PRAGMA journal_size_limit = {limit}").fetchall()
    if short:
        with suppress(apsw.Error):  # a reader is in its way, or there is no room for it: the next one may fit
            connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchall()


def select(connection: apsw.Connection, sql: str, values: Sequence[object] = ()) -> list[tuple[Any, ...]]:
    """All rows of a query."""
    return connection.execute(sql, values).fetchall()


def _upgrade(connection: apsw.Connection, path: Path) -> None:
    found = int(connection.pragma("user_version"))
    if found > VERSION:
        raise _newer(path, found)
    if found == 0:
        connection.execute(TABLES).fetchall()
    for version in range(max(found, 1) if found else VERSION, VERSION):
        MIGRATIONS[version](connection)
    if found != VERSION:
        connection.execute(f"PRAGMA user_version = {VERSION}").fetchall()


def _newer(path: Path, found: int) -> TowpathError:
    return TowpathError(
        f"{path} was written by a newer towpath (format {found}, this one reads up to {VERSION})",
        code="E5002",
        why="An older program cannot know what the newer format means.",
        fix="Run the newer towpath, or restore a backup made before the upgrade.",
        data="Nothing was changed.",
    )
