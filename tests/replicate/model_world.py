"""Hand-made tables in DuckDB and PostgreSQL, to ask the ready views about."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from typing import Any, Protocol

import duckdb
import psycopg

from tests.log.postgres import server
from towpath.replicate.models import Dialect, models, views
from towpath.warehouse import DELETED, EXTRA, LOADED, RUN, WORKSPACE, Column, Kind, Shape, Table

Row = dict[str, Any]
World = Mapping[str, Sequence[Row]]

LINEAGE: Mapping[str, Kind] = {WORKSPACE: "text", EXTRA: "json", RUN: "text", LOADED: "time", DELETED: "time"}
TYPES: Mapping[Dialect, Mapping[Kind, str]] = {
    "duckdb": {"text": "VARCHAR", "integer": "BIGINT", "number": "DOUBLE", "boolean": "BOOLEAN",
               "time": "TIMESTAMPTZ", "date": "DATE", "json": "JSON"},
    "postgres": {"text": "text", "integer": "bigint", "number": "double precision", "boolean": "boolean",
                 "time": "timestamptz", "date": "date", "json": "jsonb"},
}  # fmt: skip


def at(text: str) -> datetime:
    """A moment of UTC."""
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


def seconds(text: str) -> int:
    """A moment of UTC as the API writes it in `metrics`."""
    return int(at(text).timestamp())


def tables() -> dict[str, Table]:
    """Tables with exactly the columns that the views read."""
    found: dict[str, dict[str, Kind]] = {}
    for model in models():
        for read in model.reads:
            if read.fields:
                found.setdefault(read.table, {}).update({field.name: field.kind for field in read.fields})
    return {
        name: Table(name, tuple(Column(column, kind) for column, kind in columns.items()), key=())
        for name, columns in found.items()
    }


def shapes(*left_out: str, **changed: Shape) -> Sequence[Shape]:
    """All tables that the views read but some, some of them in another shape."""
    return [changed.get(name, Shape(table)) for name, table in tables().items() if name not in left_out]


class Engine(Protocol):
    """A database with the tables of a list of shapes."""

    dialect: Dialect

    def run(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run a statement; its rows."""
        ...


class Duck:
    """DuckDB in this process."""

    dialect: Dialect = "duckdb"
    mark = "?"

    def __init__(self) -> None:
        self.connection = duckdb.connect()

    def run(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        return self.connection.execute(statement, list(values)).fetchall()


class Postgres:
    """A schema of a real server."""

    dialect: Dialect = "postgres"
    mark = "%s"

    def __init__(self, connection: psycopg.Connection[Any]) -> None:
        self.connection = connection

    def run(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        cursor = self.connection.execute(statement.encode(), values or None)
        return cursor.fetchall() if cursor.description else []


@contextmanager
def opened(dialect: Dialect) -> Iterator[Duck | Postgres]:
    """A database with nothing in it, whose session has a time zone far from UTC."""
    if dialect == "duckdb":
        duck = Duck()
        duck.run("set timezone = 'America/New_York'")
        yield duck
        duck.connection.close()
        return
    with psycopg.connect(server().dsn, autocommit=True) as connection:
        connection.execute("drop schema if exists models cascade")
        connection.execute("create schema models")
        connection.execute("set search_path to models")
        connection.execute("set timezone to 'America/New_York'")
        yield Postgres(connection)


def made(engine: Duck | Postgres, shape: Shape, rows: Sequence[Row] = ()) -> None:
    """Make a table of that shape with these rows; a column that a row has not is null."""
    kinds: dict[str, Kind] = {**LINEAGE} | {
        column.name: "text" if column.name in shape.hashed else column.kind for column in shape.kept
    }
    columns = ", ".join(f'"{name}" {TYPES[engine.dialect][kind]}' for name, kind in kinds.items())
    engine.run(f'create table "{shape.name}" ({columns})')
    for row in rows:
        full = {WORKSPACE: "shop", LOADED: at("2025-01-01"), **row}
        values = [json.dumps(v) if kinds[k] == "json" else v for k, v in full.items()]
        names = ", ".join(f'"{name}"' for name in full)
        marks = ", ".join([engine.mark] * len(full))
        engine.run(f'insert into "{shape.name}" ({names}) values ({marks})', *values)


def stocked(engine: Duck | Postgres, rows: World, wanted: Sequence[Shape]) -> None:
    """Make the tables and, over them, every view there can be."""
    for shape in wanted:
        made(engine, shape, rows.get(shape.table.name, ()))
    for view in views(wanted, engine.dialect):
        for statement in view.statements:
            engine.run(statement)


def asked(engine: Duck | Postgres, query: str) -> list[Row]:
    """The rows of a query, moments in UTC, sorted by the query itself."""
    cursor = engine.connection.execute(query.encode() if isinstance(engine, Postgres) else query)  # type: ignore[arg-type]
    names = [column[0] for column in cursor.description or ()]
    return [dict(zip(names, map(plain, row), strict=True)) for row in cursor.fetchall()]


def plain(value: Any) -> Any:
    """A value that is the same of both engines."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).replace(tzinfo=None).isoformat()
    return value.isoformat() if isinstance(value, date) else value
