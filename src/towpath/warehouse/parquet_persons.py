"""Erasing persons from Parquet files: which rows of which table are theirs."""

# ruff: noqa: S608 - names are quoted and texts are literals or values
from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

import pyarrow as pa

from . import persons
from .parquet_sql import Engine, literal, quoted
from .parquet_store import Manifest, Seen, Stored
from .persons import Found
from .table import LOADED, Shape


class Tables:
    """The tables of a manifest as `persons.Database`, to select from."""

    def __init__(self, engine: Engine, manifest: Manifest) -> None:
        self._engine = engine
        self._stored = [one for one in manifest.tables.values() if one.shape.name != persons.REFUSED]
        for stored in self._stored:
            name, source = quoted(stored.shape.name), engine.source(stored)
            engine.run(f"CREATE OR REPLACE TEMP VIEW {name} AS SELECT * FROM {source}")

    def run(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run one statement; its rows."""
        return self._engine.run(sql, values)

    def quoted(self, name: str) -> str:
        """A name in a statement."""
        return quoted(name)

    def shapes(self) -> Sequence[Shape]:
        """Every table."""
        return [stored.shape for stored in self._stored]

    def concerned(self) -> list[Shape]:
        """The tables that know persons."""
        return [shape for shape in self.shapes() if persons.columns_of(shape)]


def find(tables: Tables, given: frozenset[str], hash_key: bytes) -> Found:
    """The ids of the persons, by workspace."""
    concerned = tables.concerned()
    join = partial(persons.join, tables, concerned)
    return persons.find(persons.workspaces(tables, concerned), join, given, hash_key)


def choose(engine: Engine, tables: Tables, stored: Stored, found: Found) -> int:
    """Make `gone` of the persons' rows of a table; how many."""
    source = engine.source(stored, named=True)
    engine.make("gone", f"SELECT * FROM {source} WHERE false")
    for workspace in found.workspaces:
        ids = found.of(stored.shape, workspace)
        condition, values = persons.whose(tables, stored.shape, ids, workspace)
        engine.run(f"INSERT INTO gone SELECT * FROM {source} WHERE {condition}", values)
    return engine.count("gone")


def choose_refused(engine: Engine, stored: Stored, ids: frozenset[str]) -> int:
    """Make `gone` of the refused records that name a person; how many."""
    source = engine.source(stored, named=True)
    records = [record for (record,) in engine.run(f"SELECT DISTINCT record FROM {source}")]
    theirs = [record for record in records if any(persons.mentions(record, one) for one in ids)]
    with engine.given(records=pa.table({"record": pa.array(theirs, pa.string())})):
        engine.make("gone", f"SELECT e.* FROM {source} e SEMI JOIN given_records r ON e.record = r.record")
    return engine.count("gone")


def stays(shape: Shape) -> bool:
    """Whether a person's row stays, without what is personal."""
    return shape.table.blank and not set(persons.columns_of(shape)) & set(shape.table.key)


def blanked(shape: Shape, same_key: str, now: float) -> str:
    """What to select so that the rows of `gone` lose what is personal."""
    theirs = f"EXISTS (SELECT 1 FROM gone g WHERE {same_key})"
    names = [quoted(name) for name in persons.blanked(shape)]
    empty = [f"CASE WHEN {theirs} THEN NULL ELSE e.{name} END AS {name}" for name in names]
    moment = f"make_timestamptz({round(now * 1_000_000)}::BIGINT)"
    empty.append(f"CASE WHEN {theirs} THEN {moment} ELSE e.{LOADED} END AS {LOADED}")
    return f"e.* REPLACE ({', '.join(empty)})"


def unseen(engine: Engine, stored: Stored, seen: Seen, ids: frozenset[str]) -> str | None:
    """The query of the keys that a run saw without those of a person; None where it needs none."""
    names = [name for name in stored.shape.table.key if name in stored.shape.table.persons]
    if not names or not seen.files:
        return None
    listed = ", ".join(literal(one) for one in sorted(ids))
    theirs = " OR ".join(f"{quoted(name)}::VARCHAR IN ({listed})" for name in names)
    return f"SELECT * FROM {engine.listed(seen.files)} WHERE NOT ({theirs})"
