"""PostgreSQL as a target: batches by COPY into a temporary table, merged from there."""

# ruff: noqa: S608 - names are quoted, and values are always given apart
from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from datetime import datetime
from hashlib import blake2b
from typing import Any, ClassVar

import psycopg
import pyarrow as pa
import pyarrow.compute as pc
from psycopg import errors
from pyarrow import csv

from . import faults
from .loading import Load
from .settings import PostgresTarget
from .sql import SqlLoader, Unfit
from .table import DELETED, LOADED, RUN, WORKSPACE, Column, Kind, Shape

CONNECT_S = 15
LONGEST_NAME = 63  # bytes; PostgreSQL cuts what is longer
NUL, SHOWN = "\x00", "\ufffd"
KINDS: Mapping[str, Kind] = {
    "text": "text",
    "int8": "integer",
    "float8": "number",
    "bool": "boolean",
    "timestamptz": "time",
    "date": "date",
    "jsonb": "json",
    # what somebody may have made by hand
    "varchar": "text",
    "int4": "integer",
    "int2": "integer",
    "float4": "number",
    "numeric": "number",
    "timestamp": "time",
    "json": "json",
}
TYPES: Mapping[Kind, str] = {
    "text": "text",
    "integer": "bigint",
    "number": "double precision",
    "boolean": "boolean",
    "time": "timestamptz",
    "date": "date",
    "json": "jsonb",
}
SESSION = {"TimeZone": "UTC", "client_encoding": "UTF8", "standard_conforming_strings": "on"}
_NUL_IN_JSON = re.compile(r"(?<!\\)((?:\\\\)*)\\u0000")
_MISCONFIGURED = re.compile(
    r"authentication failed|does not exist|no pg_hba|no password|not permitted", re.IGNORECASE
)
_CSV = csv.WriteOptions(include_header=False, batch_size=4096)


class PostgresLoader(SqlLoader):
    """A PostgreSQL database. Raises `TowpathError`, which is a `Lost` too where trying again may help."""

    types: ClassVar[Mapping[Kind, str]] = TYPES

    def __init__(
        self, target: PostgresTarget, hash_key: str = "", now: Callable[[], float] = time.time
    ) -> None:
        super().__init__(hash_key, now)
        self._url = target.url.get_secret_value()
        self._schema = target.db_schema
        self._connection = self._connected()
        try:
            self.opened()
        except BaseException:
            self.close()
            raise

    def _connected(self) -> psycopg.Connection[tuple[Any, ...]]:
        with self._told():
            connection = psycopg.connect(
                self._url, autocommit=True, connect_timeout=CONNECT_S, application_name="towpath",
                keepalives_idle=30, keepalives_interval=10, keepalives_count=3,
                cursor_factory=psycopg.RawCursor, prepare_threshold=None,
            )  # fmt: skip
            for name, value in SESSION.items():
                connection.execute("SELECT set_config($1, $2, false)", (name, value))
            there = connection.execute("SELECT 1 FROM pg_namespace WHERE nspname = $1", (self._schema,))
            if not there.fetchall():
                connection.execute(f"CREATE SCHEMA IF NOT EXISTS {self.quoted(self._schema)}".encode())
            connection.execute("SELECT set_config('search_path', $1, false)", (self.quoted(self._schema),))
            return connection

    @contextmanager
    def _told(self) -> Iterator[None]:
        """Turn errors of PostgreSQL into errors for people. None of them holds a value."""
        try:
            yield
        except errors.ProgramLimitExceeded:
            raise
        except errors.DiskFull as error:
            raise faults.full("to PostgreSQL", _first(error)) from error
        except (psycopg.OperationalError, psycopg.InterfaceError) as error:
            why = _first(error)
            if _MISCONFIGURED.search(why):
                raise faults.refused("PostgreSQL", why) from error
            raise faults.unreachable("PostgreSQL", why) from error
        except psycopg.Error as error:
            raise faults.refused("PostgreSQL", _first(error)) from error

    def close(self) -> None:
        """Leave the database."""
        with suppress(psycopg.Error):
            self._connection.close()

    # The dialect

    def named(self, name: str) -> str:
        """A name, told apart by a hash where it is too long."""
        encoded = name.encode()
        if len(encoded) <= LONGEST_NAME:
            return name
        ending = blake2b(encoded, digest_size=4).hexdigest()
        return encoded[: LONGEST_NAME - len(ending) - 1].decode(errors="ignore") + "_" + ending

    def text(self, text: str) -> str:
        """A text without the one character that PostgreSQL has no place for."""
        return text.replace(NUL, SHOWN)

    def run(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run one statement."""
        with self._told():
            cursor = self._connection.execute(sql.encode(), values or None)
            return cursor.fetchall() if cursor.description else []

    def run_many(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run one statement for each row of values, sent together."""
        with self._told(), self._connection.cursor() as cursor:
            cursor.executemany(sql.encode(), rows)

    def _count(self, sql: str, *values: Any) -> int:
        """Run one statement; the rows it wrote."""
        with self._told():
            return self._connection.execute(sql.encode(), values or None).rowcount

    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing."""
        with self._told(), self._connection.transaction():
            yield

    def found(self, table: str) -> Mapping[str, Kind]:
        """The columns a table has."""
        rows = self.run(
            "SELECT column_name, udt_name FROM information_schema.columns "
            "WHERE table_schema = current_schema() AND table_name = $1 ORDER BY ordinal_position",
            self.named(table),
        )
        return {name: KINDS.get(kind, "text") for name, kind in rows}

    def create(self, name: str, columns: Sequence[Column], key: Sequence[str]) -> None:
        """Make a table with its key."""
        listed = [f"{self.quoted(column.name)} {self.types[column.kind]}" for column in columns]
        if key:
            ours = name.startswith("_towpath_")
            names = ", ".join(self.quoted(one) for one in (key if ours else (*key, WORKSPACE)))
            listed.append(f"PRIMARY KEY ({names})")
        self.run(f"CREATE TABLE {self.quoted(name)} ({', '.join(listed)})")

    def adapted(self, rows: pa.Table) -> tuple[pa.Table, dict[str, int]]:
        """Rows without NUL characters, and how many values of which column had one."""
        told: dict[str, int] = {}
        for place, name in enumerate(rows.column_names):
            column = rows.column(place)
            if pa.types.is_string(column.type) and (count := _with_nul(column)):
                told[f"{name}: NUL character"] = count
                rows = rows.set_column(place, name, _without_nul(column))
        return rows, told

    def staged(self, name: str, rows: pa.Table, columns: Sequence[Column]) -> None:
        """Put rows into a temporary table of that name."""
        listed = ", ".join(f"{self.quoted(one.name)} {self.types[one.kind]}" for one in columns)
        sink = pa.BufferOutputStream()
        csv.write_csv(rows.select([one.name for one in columns]), sink, _CSV)
        try:
            with self._connection.transaction():
                self._connection.execute(f"DROP TABLE IF EXISTS pg_temp.{name}".encode())
                self._connection.execute(f"CREATE TEMP TABLE {name} ({listed}) ON COMMIT DROP".encode())
                statement = f"COPY {name} FROM STDIN (FORMAT csv)".encode()
                with self._connection.cursor() as cursor, cursor.copy(statement) as copy:
                    copy.write(sink.getvalue())
        except (psycopg.DataError, errors.ProgramLimitExceeded) as error:
            raise Unfit(_first(error)) from error
        except psycopg.Error:
            with self._told():
                raise

    def merge(self, shape: Shape, columns: Sequence[Column], load: Load, at: datetime) -> int:
        """Merge the rows staged; how many were added or changed. Rows that are equal are not even locked."""
        try:
            with self._connection.transaction():
                return self._merge(shape, columns, load, at)
        except errors.ProgramLimitExceeded as error:  # a row or key too wide for a page
            raise Unfit(_first(error)) from error

    def _merge(self, shape: Shape, columns: Sequence[Column], load: Load, at: datetime) -> int:
        table, key = self.quoted(shape.name), [self.quoted(name) for name in shape.table.key]
        values = {
            self.quoted(column.name): self.merged(column, shape, load, "t", "b")
            for column in columns
            if column.name not in shape.table.key
        }
        same = " AND ".join(f"t.{name} = b.{name}" for name in key)
        sets = "".join(f"{name} = {value}, " for name, value in values.items())
        differs = "".join(f" OR t.{name} IS DISTINCT FROM {value}" for name, value in values.items())
        changed = self._count(
            f"UPDATE {table} t SET {sets}{RUN} = $2, {LOADED} = $3, {DELETED} = NULL FROM _batch b "
            f"WHERE {same} AND t.{WORKSPACE} = $1 AND (t.{DELETED} IS NOT NULL{differs})",
            load.workspace, load.run, at,
        )  # fmt: skip
        names = ", ".join(self.quoted(column.name) for column in columns)
        added = self._count(
            f"INSERT INTO {table} ({names}, {WORKSPACE}, {RUN}, {LOADED}) SELECT {names}, $1, $2, $3 "
            f"FROM _batch ON CONFLICT ({', '.join(key)}, {WORKSPACE}) DO NOTHING",
            load.workspace, load.run, at,
        )  # fmt: skip
        return changed + added

    def erased(self) -> None:
        """Free what removed rows took, so that it is overwritten; pages and logs are the server's own."""
        for shape in self.shapes():
            if shape.table.persons:
                self.run(f"VACUUM {self.quoted(shape.name)}")
        self.run("VACUUM _towpath_refused")


def _with_nul(column: pa.ChunkedArray) -> int:
    either = pc.or_(pc.match_substring(column, NUL), pc.match_substring(column, "\\u0000"))
    return int(pc.sum(either).as_py() or 0)


def _without_nul(column: pa.ChunkedArray) -> pa.Array:
    return pa.array(
        [
            None if text is None else _NUL_IN_JSON.sub(r"\1\\ufffd", text.replace(NUL, SHOWN))
            for text in column.to_pylist()
        ],
        pa.string(),
    )


def _first(error: psycopg.Error) -> str:
    """What the server says, without the lines of context: those quote values."""
    said = error.diag.message_primary or str(error).strip().split("\n", 1)[0]
    return said or type(error).__name__
