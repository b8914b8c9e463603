"""The tables of the ledger in PostgreSQL, their version, and how they are made and upgraded."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import blake2b

from psycopg import sql

from ...errors import TowpathError
from .sessions import Session

VERSION = 1

TABLES = """
-- One row. `generation` grows before anything happens that concerns log and ledger together: whoever has read
-- from one and then the other sees by it whether the two still fit.
CREATE TABLE ledger (version integer NOT NULL, generation bigint NOT NULL);
INSERT INTO ledger VALUES (1, 1);
-- What has been begun in two places and may not be finished in both; and the records that such an erase takes
-- out of the log, as long as nobody can know whether they are still in it.
CREATE TABLE intent (id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, body bytea NOT NULL);
CREATE TABLE gone (
  intent bigint NOT NULL, position bigint NOT NULL, source text COLLATE "C" NOT NULL,
  PRIMARY KEY (intent, position)
);

CREATE TABLE connection (
  id integer GENERATED ALWAYS AS IDENTITY PRIMARY KEY, name text COLLATE "C" NOT NULL UNIQUE
);
-- A connection in one partition: its cursor, who delivers, and how far its rows have moved to `past`.
-- Whatever changes rows of a connection's partition locks this row first; several in order of their keys.
CREATE TABLE place (
  connection integer NOT NULL, partition integer NOT NULL, cursor bigint NOT NULL, trimmed bigint NOT NULL,
  owner text NOT NULL DEFAULT '', epoch bigint NOT NULL DEFAULT 0,
  expires double precision NOT NULL DEFAULT 0,
  PRIMARY KEY (connection, partition)
) WITH (fillfactor = 50);
-- Which records are a connection's: those of `source` with since < position <= until (NULL: open).
-- `base` and `final` are the source's accepted count in that partition, at both ends.
CREATE TABLE scope (
  connection integer NOT NULL, source text COLLATE "C" NOT NULL, since bigint NOT NULL, until bigint,
  base bigint NOT NULL, final bigint, PRIMARY KEY (connection, source, since)
);

-- P2 as it is kept, and what the rows below can no longer show because they were trimmed or erased: by kind
-- (as in the embedded ledger) and reason.
CREATE TABLE counter (
  connection integer NOT NULL, partition integer NOT NULL, kind smallint NOT NULL,
  reason text COLLATE "C" NOT NULL, count bigint NOT NULL, PRIMARY KEY (connection, partition, kind, reason)
) WITH (fillfactor = 50);
CREATE TABLE past (LIKE counter INCLUDING ALL);

-- `outside`: 0 its record is one the log shows for an open scope, 1 for a closed one, 2 the log shows none.
CREATE TABLE settlement (
  position bigint NOT NULL, at_ms bigint NOT NULL, connection integer NOT NULL, idx integer NOT NULL,
  code integer NOT NULL, attempts integer NOT NULL, ms integer NOT NULL, kind smallint NOT NULL,
  outside smallint NOT NULL, reason text NOT NULL, PRIMARY KEY (connection, position, idx)
);
-- Names may be longer than an index takes: `person_key` and the like are their digests.
CREATE TABLE parked (
  position bigint NOT NULL, due double precision NOT NULL, first_at double precision NOT NULL,
  person_key uuid NOT NULL, connection integer NOT NULL, idx integer NOT NULL, attempts integer NOT NULL,
  alone integer NOT NULL, outside smallint NOT NULL, follower boolean NOT NULL, person text NOT NULL,
  reason text NOT NULL, hold text NOT NULL, body bytea NOT NULL, PRIMARY KEY (connection, position, idx)
);
CREATE INDEX parked_person ON parked (connection, person_key, position, idx);
CREATE INDEX parked_due ON parked (due);
CREATE INDEX parked_hold ON parked (connection, hold) WHERE hold != '';
-- The first parked delivery of each person: what `due` looks at.
CREATE TABLE lane (
  connection integer NOT NULL, partition integer NOT NULL, person_key uuid NOT NULL, person text NOT NULL,
  due double precision NOT NULL, PRIMARY KEY (connection, partition, person_key)
);
CREATE INDEX lane_due ON lane (connection, partition, due);
CREATE TABLE dead (
  id bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, connection integer NOT NULL, position bigint NOT NULL,
  idx integer NOT NULL, person text NOT NULL, reason text NOT NULL, code integer NOT NULL,
  attempts integer NOT NULL, first_at double precision NOT NULL, died_at double precision NOT NULL,
  message_id text NOT NULL, body bytea NOT NULL, UNIQUE (connection, position, idx)
);
CREATE INDEX dead_at ON dead (died_at);

CREATE TABLE pause (
  connection text COLLATE "C" NOT NULL, capability text COLLATE "C" NOT NULL, reason text NOT NULL,
  since double precision NOT NULL, PRIMARY KEY (connection, capability)
);
CREATE TABLE suppressed (id_key uuid PRIMARY KEY, id text NOT NULL);
CREATE TABLE link (
  identifier_key uuid NOT NULL, position bigint NOT NULL, person_key uuid NOT NULL, identifier text NOT NULL,
  person text NOT NULL, PRIMARY KEY (identifier_key, position)
);
CREATE INDEX link_person ON link (person_key, position);
"""
OWNED = ("place", "scope", "counter", "past", "settlement", "parked", "lane", "dead")
"""The tables whose rows belong to one connection."""

MIGRATIONS: Mapping[int, Callable[[Session], None]] = {}
"""From version n to n + 1; all of them in the one transaction of an upgrade."""


def upgrade(session: Session) -> None:
    """Make the tables or bring them up to date; of several processes at once, one does and the rest wait."""
    name = session.schema
    key = int.from_bytes(blake2b(f"towpath {name}".encode(), digest_size=8).digest(), "big", signed=True)
    session.rows("SELECT pg_advisory_xact_lock(%s)", (key,))
    made = sql.SQL("CREATE SCHEMA IF NOT EXISTS {}").format(sql.Identifier(name)).as_string()
    if not session.rows("SELECT 1 FROM pg_namespace WHERE nspname = %s", (name,)):
        session.run(made)
    there = session.rows("SELECT to_regclass('ledger') IS NOT NULL")[0][0]
    if not there:
        session.run(TABLES)
    found = int(session.rows("SELECT version FROM ledger")[0][0])
    if found > VERSION:
        raise _newer(name, found)
    for version in range(found, VERSION):
        MIGRATIONS[version](session)
    if found != VERSION:
        session.run("UPDATE ledger SET version = %s", (VERSION,))


def _newer(schema: str, found: int) -> TowpathError:
    return TowpathError(
        f"the ledger in schema {schema} was written by a newer towpath (format {found}, this one reads up to "
        f"{VERSION})",
        code="E5002",
        why="An older program cannot know what the newer format means.",
        fix="Run the newer towpath, or restore a backup made before the upgrade.",
        data="Nothing was changed.",
    )
