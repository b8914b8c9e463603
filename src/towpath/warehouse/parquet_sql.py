"""The engine behind Parquet files: DuckDB in memory, which reads them, compares, and writes new ones."""

# ruff: noqa: S608 - names are quoted and texts are literals or values
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa

from .faults import Hindered
from .parquet_store import SPILL, File, Stored
from .table import DELETED, EXTRA, LOADED, RUN, WORKSPACE, Kind

MEMORY = "256MB"
FAILED = "E5654"
SQL: Mapping[Kind, str] = {
    "text": "VARCHAR",
    "integer": "BIGINT",
    "number": "DOUBLE",
    "boolean": "BOOLEAN",
    "time": "TIMESTAMPTZ",
    "date": "DATE",
    "json": "JSON",
}
LINEAGE_KINDS: Mapping[str, Kind] = {
    WORKSPACE: "text",
    EXTRA: "json",
    RUN: "text",
    LOADED: "time",
    DELETED: "time",
}
FILE = "_file"


class Engine:
    """DuckDB without a database of its own. Tables that it makes on the way have the names given below.

    `incoming` are rows on their way in, `existing` those in the files that have one of their keys, with the
    file; `changed` are the rows to write, `touched` the existing ones they replace, `gone` rows that go.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._database = duckdb.connect(
            ":memory:",
            config={
                "threads": 2,
                "memory_limit": MEMORY,
                "temp_directory": str(directory / SPILL),
                "preserve_insertion_order": False,
                "autoinstall_known_extensions": False,
            },
        )

    def close(self) -> None:
        """End it."""
        self._database.close()

    def failed(self, error: Exception) -> Hindered:
        """What to tell of an error of the engine or the disk."""
        text = str(error).splitlines()[0] if str(error) else type(error).__name__
        return Hindered(
            f"the Parquet files in {self._directory} could not be written: {text}",
            code=FAILED,
            why="the disk is full, or a file was removed or changed by somebody else",
            fix="make room, or restore the file",
            data="nothing of this batch is in; it is tried again",
        )

    @contextmanager
    def given(self, **tables: pa.Table) -> Iterator[None]:
        """Let queries see Arrow tables by name."""
        for name, table in tables.items():
            self._database.register(f"given_{name}", table)
        try:
            yield
        finally:
            for name in tables:
                self._database.unregister(f"given_{name}")

    def run(self, query: str, values: Sequence[Any] = ()) -> list[tuple[Any, ...]]:
        """Run a query; its rows."""
        return self._database.execute(query, list(values)).fetchall()

    def make(self, name: str, query: str, values: Sequence[Any] = ()) -> None:
        """Make a table of the rows of a query."""
        self.run(f"CREATE OR REPLACE TEMP TABLE {quoted(name)} AS {query}", values)

    def source(self, stored: Stored, files: Sequence[File] | None = None, *, named: bool = False) -> str:
        """A table's files, or some of them, as something to select from; `named` adds `_file`."""
        more = f"filename = {literal(FILE)}" if named else ""
        return self.listed([stored.head, *(stored.files if files is None else files)], more)

    def listed(self, files: Sequence[File], more: str = "") -> str:
        """Files as something to select from."""
        paths = ", ".join(literal(str(self._directory / file.path)) for file in files)
        return f"read_parquet([{paths}], union_by_name = true{', ' if more else ''}{more})"

    # Writing

    def copy(self, query: str, path: str) -> int:
        """Write the rows of a query to a new file; how many."""
        place = self._directory / path
        written = self.run(f"COPY ({query}) TO {literal(str(place))} (FORMAT parquet, COMPRESSION zstd)")
        return int(written[0][0])

    def write_head(self, path: str, kinds: Mapping[str, Kind]) -> None:
        """Write a file without rows that has these columns."""
        listed = ", ".join(f"NULL::{SQL[kind]} AS {quoted(name)}" for name, kind in columns_of(kinds).items())
        self.copy(f"SELECT {listed} WHERE false", path)

    def survivors(self, stored: Stored, files: Sequence[File], without: str, select: str, more: str) -> str:
        """The query of what a new file gets: rows of files but those in `without`, and all of `more`."""
        parts: list[str] = []
        if files:
            parts.append(f"SELECT {select} FROM {self.source(stored, files)} e")
            if without:
                parts[0] += f" ANTI JOIN {quoted(without)} g ON {same_key(stored, 'e', 'g')}"
        if more:
            listed = ", ".join(map(quoted, columns_of(stored.kinds)))
            parts.append(f"SELECT {listed} FROM {quoted(more)}")
        return " UNION ALL BY NAME ".join(parts)

    def files_of(self, name: str) -> list[str]:
        """The files that the rows of a table of the engine came from."""
        found = self.run(f"SELECT DISTINCT {FILE} FROM {quoted(name)}")
        return [str(Path(path).relative_to(self._directory)) for (path,) in found]

    def count(self, name: str) -> int:
        """How many rows a table of the engine has."""
        return int(self.run(f"SELECT count(*) FROM {quoted(name)}")[0][0])

    # Merging

    def stage(self, stored: Stored, workspace: str, run: str, now: float) -> list[str]:
        """Make `incoming` of the rows given, and `existing` of those with their keys; the columns given."""
        given = [name for name in self._database.table("given_incoming").columns if name in stored.kinds]
        listed = [f"{quoted(name)}::{SQL[stored.kinds[name]]} AS {quoted(name)}" for name in given]
        lineage = (
            f"? AS {WORKSPACE}, {EXTRA}::JSON AS {EXTRA}, ? AS {RUN}, make_timestamptz(?) AS {LOADED}, "
            f"NULL::TIMESTAMPTZ AS {DELETED}"
        )
        query = f"SELECT {', '.join([*listed, lineage])} FROM given_incoming"
        self.make("incoming", query, [workspace, run, round(now * 1_000_000)])
        self.make(
            "existing",
            f"SELECT e.* FROM {self.source(stored, named=True)} e SEMI JOIN incoming i "
            f"ON {same_key(stored, 'e', 'i')}",
        )
        return given

    def compare(self, stored: Stored, given: Sequence[str], *, patched: bool) -> int:
        """Make `changed` of what of `incoming` is new or differs, and `touched` of what it replaces.

        Columns that were not given stay as they are.
        """
        if patched:
            self._patch(stored, given)
        names = [*map(quoted, given), EXTRA]
        differs = " OR ".join(f"i.{name} IS DISTINCT FROM e.{name}" for name in names)
        kept = [f"e.{quoted(name)}" for name in stored.kinds if name not in given]
        self.make(
            "changed",
            f"SELECT {', '.join(['i.*', *kept])} FROM incoming i "
            f"LEFT JOIN existing e ON {same_key(stored, 'i', 'e')} "
            f"WHERE e.{WORKSPACE} IS NULL OR e.{DELETED} IS NOT NULL OR {differs}",
        )
        self.make(
            "touched", f"SELECT e.* FROM existing e SEMI JOIN changed c ON {same_key(stored, 'e', 'c')}"
        )
        return self.count("changed")

    def _patch(self, stored: Stored, given: Sequence[str]) -> None:
        """Put into `incoming` what it lacks of `existing`; where that is newer, the other way round."""
        cursor = quoted(stored.shape.table.cursor)
        newer = f"(e.{cursor} IS NULL OR i.{cursor} >= e.{cursor})"
        merged = [
            f"CASE WHEN {newer} THEN coalesce(i.{name}, e.{name}) "
            f"ELSE coalesce(e.{name}, i.{name}) END AS {name}"
            for name in map(quoted, given)
        ]
        extra = (
            f"CASE WHEN i.{EXTRA} IS NULL OR e.{EXTRA} IS NULL THEN coalesce(i.{EXTRA}, e.{EXTRA}) "
            f"WHEN {newer} THEN json_merge_patch(e.{EXTRA}, i.{EXTRA}) "
            f"ELSE json_merge_patch(i.{EXTRA}, e.{EXTRA}) END AS {EXTRA}"
        )
        lineage = f"i.{WORKSPACE}, i.{RUN}, i.{LOADED}, i.{DELETED}"
        self.make(
            "incoming",
            f"SELECT {', '.join([*merged, extra, lineage])} FROM incoming i "
            f"LEFT JOIN existing e ON {same_key(stored, 'i', 'e')}",
        )

    # What went

    def vanish(
        self, stored: Stored, workspace: str, seen: Sequence[File], unread: Sequence[Mapping[str, str]]
    ) -> tuple[int, int]:
        """Make `gone` of the workspace's rows without a mark whose key is in none of `seen`.

        Those that equal one of `unread` stay. Returns how many rows there were, and how many are gone.
        """
        alive = f"e.{WORKSPACE} = ? AND e.{DELETED} IS NULL"
        source = self.source(stored, named=True)
        rows = self.run(f"SELECT count(*) FROM {source} e WHERE {alive}", [workspace])[0][0]
        query, values = f"SELECT e.* FROM {source} e", list[Any]()
        if seen:
            key = " AND ".join(f"e.{name} = s.{name}" for name in map(quoted, stored.shape.table.key))
            query += f" ANTI JOIN {self.listed(seen)} s ON {key}"
        query += f" WHERE {alive}"
        values.append(workspace)
        for names in {tuple(sorted(one)) for one in unread}:
            wanted = [[one[name] for name in names] for one in unread if tuple(sorted(one)) == names]
            place = ", ".join(f"e.{quoted(name)}::VARCHAR" for name in names)
            query += f" AND NOT coalesce(list_contains(?::VARCHAR[][], [{place}]), false)"
            values.append(wanted)
        self.make("gone", query, values)
        return rows, self.count("gone")

    def of_workspace(self, stored: Stored, workspace: str) -> None:
        """Make `gone` of all rows of a workspace."""
        query = f"SELECT e.* FROM {self.source(stored, named=True)} e WHERE e.{WORKSPACE} = ?"
        self.make("gone", query, [workspace])

    def marked(self, stored: Stored, run: str, now: float) -> str:
        """What to select so that the rows of `gone` are marked."""
        is_gone = f"EXISTS (SELECT 1 FROM gone g WHERE {same_key(stored, 'e', 'g')})"
        moment = f"make_timestamptz({round(now * 1_000_000)}::BIGINT)"
        marks = {DELETED: moment, LOADED: moment, RUN: literal(run)}
        cases = (f"CASE WHEN {is_gone} THEN {new} ELSE e.{name} END AS {name}" for name, new in marks.items())
        return f"e.* REPLACE ({', '.join(cases)})"

    def counts(self, stored: Stored) -> list[tuple[str, int, int, float | None]]:
        """By workspace: rows that are there, rows marked, the newest change in Unix seconds."""
        found = self.run(
            f"SELECT {WORKSPACE}, count(*) FILTER ({DELETED} IS NULL), count({DELETED}), "
            f"epoch(max({LOADED})) FROM {self.source(stored)} GROUP BY ALL ORDER BY ALL"
        )
        return [(workspace, rows, deleted, at) for workspace, rows, deleted, at in found]


def columns_of(kinds: Mapping[str, Kind]) -> Mapping[str, Kind]:
    """Every column of a table with its kind: its own, and those that every table has."""
    return {**kinds, **LINEAGE_KINDS}


def same_key(stored: Stored, left: str, right: str) -> str:
    """The condition that two rows are of the same workspace and key."""
    names = [WORKSPACE, *map(quoted, stored.shape.table.key)]
    return " AND ".join(f"{left}.{name} = {right}.{name}" for name in names)


def quoted(name: str) -> str:
    """A name, as SQL takes any."""
    return '"' + name.replace('"', '""') + '"'


def literal(text: str) -> str:
    """A text, as SQL takes it."""
    return "'" + text.replace("'", "''") + "'"
