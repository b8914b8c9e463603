"""The target behind dlt: BigQuery, Snowflake, Redshift, Databricks, and whatever else merges rows."""

# ruff: noqa: S608 - names are quoted and values are passed beside
from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any

import msgspec
import pyarrow as pa
from msgspec import Struct

from towpath.errors import TowpathError

from . import dlt_persons
from .arrow import ARROW, Batch, Reading, hashed
from .dlt_database import DltDatabase, Rows
from .dlt_rows import LINEAGE_KINDS, Merging, text_of
from .fitting import spelt
from .loading import Counted, Gone, Load, Wrote
from .persons import REFUSED
from .settings import DltTarget
from .sql import hashing_changed, not_prepared, with_columns_before
from .table import DELETED, LOADED, RUN, WORKSPACE, Kind, Shape

STATE, SEEN = "_towpath_state", "_towpath_seen"
SHAPES = "\x1eshape/"
"""What the states of tables begin with: nobody else's do."""
STATE_KINDS: Mapping[str, Kind] = {"key": "text", "value": "text"}
SEEN_KINDS: Mapping[str, Kind] = {"table_name": "text", WORKSPACE: "text", RUN: "text", "key": "text"}
REFUSED_KINDS: Mapping[str, Kind] = {
    "id": "text",
    "table_name": "text",
    WORKSPACE: "text",
    RUN: "text",
    "refused_at": "time",
    "reason": "text",
    "record": "text",
}
BETWEEN = "\x1f"
TYPED = "E5658"
NAMED_OTHERWISE = "E5659"


class Known(Struct, frozen=True):
    """A table as it was last prepared, and the kinds its columns have there."""

    shape: Shape
    kinds: dict[str, Kind]


class DltLoader:
    """A destination of dlt, opened for writing. It has no transaction over tables: rows go before the state.

    What a crash between the two leaves is rows that come again, and are merged by their key.
    """

    def __init__(self, target: DltTarget, hash_key: str = "") -> None:
        self._hash_key = hash_key
        self._database = DltDatabase(target)
        try:
            self._known: dict[str, Known] = {}
            self._prepared: dict[str, Shape] = {}
            self._readings: dict[str, Reading] = {}
            if not self._database.exists(STATE):
                self._make_own()
            for key, encoded in self._states(SHAPES).items():
                self._known[key.removeprefix(SHAPES)] = msgspec.json.decode(encoded, type=Known)
        except BaseException:
            self._database.close()
            raise

    def close(self) -> None:
        """Leave nothing behind on this machine."""
        self._database.close()

    # Tables and state

    def _make_own(self) -> None:
        refused = _empty(REFUSED_KINDS), REFUSED_KINDS
        self._database.write(
            [
                Rows(REFUSED, *refused, ("id",)),
                Rows(SEEN, _empty(SEEN_KINDS), SEEN_KINDS, tuple(SEEN_KINDS)),
                Rows(STATE, _empty(STATE_KINDS), STATE_KINDS, ("key",)),
            ]
        )

    def prepare(self, shapes: Sequence[Shape]) -> None:
        """Make tables and columns that are missing, all in one load package."""
        new = [shape for shape in shapes if self._prepared.get(shape.table.name) != shape]
        known = {shape.table.name: self._planned(shape) for shape in new}
        changed = [one for name, one in known.items() if self._known.get(name) != one]
        if changed:
            self._make(changed)
        for shape in new:
            self._prepared[shape.table.name] = shape
            self._readings.pop(shape.table.name, None)

    def _planned(self, shape: Shape) -> Known:
        before = self._known.get(shape.table.name)
        kinds = dict(before.kinds) if before is not None else {}
        if before is not None and before.shape.name != shape.name and self._has_rows(before.shape):
            raise _named_otherwise(before.shape, shape)
        if before is not None:
            changed = (set(shape.hashed) ^ set(before.shape.hashed)) & kinds.keys()
            if changed and self._has_rows(shape):
                raise hashing_changed(shape, changed)
            if typed := sorted(name for name in changed if kinds[name] != "text"):
                raise _typed(shape, typed)
        for column in shape.kept:
            kinds.setdefault(column.name, "text" if column.name in shape.hashed else column.kind)
        return Known(with_columns_before(shape, before.shape if before is not None else None), kinds)

    def _has_rows(self, shape: Shape) -> bool:
        place, _ = self._database.names(shape.name, ())
        return self._database.run(f"SELECT count(*) FROM {place}") != [(0,)]

    def _make(self, tables: Sequence[Known]) -> None:
        made: list[Rows] = []
        for known in tables:
            kinds = {**known.kinds, **LINEAGE_KINDS}
            key = (WORKSPACE, *known.shape.table.key)
            made.append(Rows(known.shape.name, _empty(kinds), kinds, key))
        self._database.write(made)
        states = {SHAPES + one.shape.table.name: msgspec.json.encode(one).decode() for one in tables}
        self.keep(states)
        self._known |= {one.shape.table.name: one for one in tables}

    def state(self, prefix: str) -> Mapping[str, str]:
        """Every kept state whose key begins with `prefix`."""
        return {key: value for key, value in self._states(prefix).items() if not key.startswith(SHAPES)}

    def _states(self, prefix: str) -> dict[str, str]:
        place, (key, value) = self._database.names(STATE, tuple(STATE_KINDS))
        rows = self._database.run(f"SELECT {key}, {value} FROM {place}")
        return {name: said for name, said in rows if name.startswith(prefix)}

    def keep(self, state: Mapping[str, str | None]) -> None:
        """Keep or drop states without rows."""
        place, (key, value) = self._database.names(STATE, tuple(STATE_KINDS))
        for name, said in state.items():
            if said is None:
                self._database.run(f"DELETE FROM {place} WHERE {key} = %s", [name])
            elif self._database.run(f"SELECT 1 FROM {place} WHERE {key} = %s", [name]):
                self._database.run(f"UPDATE {place} SET {value} = %s WHERE {key} = %s", [said, name])
            else:
                self._database.run(f"INSERT INTO {place} ({key}, {value}) VALUES (%s, %s)", [name, said])

    # Loading

    def load(self, load: Load) -> Wrote:
        """Write a batch: its rows in one load package, then its state."""
        if not load.pages:
            self.keep(load.state)
            return Wrote()
        reading = self._reading(load.table)
        try:
            batch = reading.read(load)
            if batch.grown:
                self._grow(load.table, batch)
            known = self._known[load.table]
            merging = Merging(self._database, known.shape, known.kinds)
            changed = merging.changed(batch.rows, load, _now())
            written = [*self._beside(load, batch), *([changed] if changed.rows.num_rows else [])]
            if written:
                self._database.write(written)
            self.keep(load.state)
        except BaseException:
            self._readings.pop(load.table, None)  # it may know of columns that did not come to be
            raise
        return Wrote(
            read=batch.read,
            written=changed.rows.num_rows,
            unchanged=batch.read - batch.passed - len(batch.refusals) - changed.rows.num_rows,
            passed=batch.passed,
            refused=len(batch.refusals),
            newest=batch.newest,
            drift=batch.drift,
            refusals=batch.refusals,
        )

    def _reading(self, table: str) -> Reading:
        if (found := self._readings.get(table)) is None:
            known = self._of(table)
            shape = self._prepared.get(table, known.shape)
            found = self._readings[table] = Reading(shape, self._hash_key, known.kinds)
        return found

    def _grow(self, table: str, batch: Batch) -> None:
        known = self._known[table]
        grown = {column.name: column.kind for column in batch.grown if column.name not in known.kinds}
        self._make([Known(known.shape, {**known.kinds, **grown})])

    def _beside(self, load: Load, batch: Batch) -> Iterator[Rows]:
        """What a load leaves beside its rows: refused records, and the keys it saw."""
        if batch.refusals:
            name, at = load.table, _now()
            rows = [
                {
                    "id": sha256(BETWEEN.join((name, load.workspace, one.record)).encode()).hexdigest(),
                    "table_name": name,
                    WORKSPACE: load.workspace,
                    RUN: load.run,
                    "refused_at": at,
                    "reason": one.reason,
                    "record": one.record,
                }
                for one in batch.refusals
            ]
            once = list({row["id"]: row for row in rows}.values())
            refused = pa.Table.from_pylist(once, schema=_schema(REFUSED_KINDS))
            yield Rows(REFUSED, refused, REFUSED_KINDS, ("id",))
        if load.seen and batch.seen.num_rows:
            keys = dict.fromkeys(BETWEEN.join(map(text_of, row.values())) for row in batch.seen.to_pylist())
            of = {"table_name": load.table, WORKSPACE: load.workspace, RUN: load.run}
            seen = pa.Table.from_pylist([{**of, "key": key} for key in keys], schema=_schema(SEEN_KINDS))
            yield Rows(SEEN, seen, SEEN_KINDS, tuple(SEEN_KINDS))

    # What a run saw

    def begin(self, table: str, workspace: str, run: str) -> None:
        """Begin to remember the keys that a run sees."""
        self._of(table)
        place, (name, where, ran) = self._database.names(SEEN, ("table_name", WORKSPACE, RUN))
        self._database.run(
            f"DELETE FROM {place} WHERE {name} = %s AND {where} = %s AND {ran} <> %s", [table, workspace, run]
        )

    def finish(
        self,
        table: str,
        workspace: str,
        run: str,
        *,
        unread: Sequence[Mapping[str, Any]] = (),
        most: float = 1.0,
        state: Mapping[str, str | None],
    ) -> Gone:
        """Mark or remove what the run did not see."""
        shape = self._of(table).shape
        keys = self._alive(shape, workspace)
        seen = self._seen(table, workspace, run)
        left = [
            {name: self._spelt(shape, name, value) for name, value in columns.items()} for columns in unread
        ]
        gone = [
            key
            for text, key in keys.items()
            if text not in seen and not any(one.items() <= _texts(shape, key).items() for one in left)
        ]
        if len(gone) > most * len(keys) + 1e-9:
            return Gone(len(gone), len(keys), held=True)
        self._part(shape, workspace, run, gone)
        self._forget(table, workspace)
        self.keep(state)
        return Gone(len(gone), len(keys))

    def _alive(self, shape: Shape, workspace: str) -> dict[str, tuple[Any, ...]]:
        """The keys of the rows that are there, by their text."""
        names = (WORKSPACE, DELETED, *shape.table.key)
        place, (where, deleted, *key) = self._database.names(shape.name, names)
        query = f"SELECT {', '.join(key)} FROM {place} WHERE {where} = %s AND {deleted} IS NULL"
        return {BETWEEN.join(map(text_of, row)): row for row in self._database.run(query, [workspace])}

    def _seen(self, table: str, workspace: str, run: str) -> set[str]:
        place, (name, where, ran, key) = self._database.names(SEEN, tuple(SEEN_KINDS))
        query = f"SELECT {key} FROM {place} WHERE {name} = %s AND {where} = %s AND {ran} = %s"
        return {text for (text,) in self._database.run(query, [table, workspace, run])}

    def _forget(self, table: str, workspace: str | None) -> None:
        place, (name, where) = self._database.names(SEEN, ("table_name", WORKSPACE))
        query, values = f"DELETE FROM {place} WHERE {name} = %s", [table]
        if workspace is not None:
            query, values = f"{query} AND {where} = %s", [table, workspace]
        self._database.run(query, values)

    def _spelt(self, shape: Shape, name: str, value: Any) -> str:
        text = spelt(value)
        return hashed(self._hash_key.encode(), text) if name in shape.hashed else text

    def _part(self, shape: Shape, workspace: str, run: str, gone: Sequence[tuple[Any, ...]]) -> None:
        """Mark or remove rows by their keys."""
        columns = (WORKSPACE, DELETED, LOADED, RUN)
        place, (where, deleted, loaded, ran) = self._database.names(shape.name, columns)
        start, values = f"DELETE FROM {place}", list[Any]()
        if not shape.remove:
            start = f"UPDATE {place} SET {deleted} = %s, {loaded} = %s, {ran} = %s"
            values = [_now(), _now(), run]
        for condition, keys in dlt_persons.by_keys(self._database, shape, gone):
            query = f"{start} WHERE {where} = %s AND ({condition})"
            self._database.run(query, [*values, workspace, *keys])

    # The rest

    def erase(self, ids: Sequence[str]) -> Mapping[str, int]:
        """Remove persons; see `dlt_persons`."""
        given = frozenset(one for one in ids if one)
        shapes = [known.shape for known in self._known.values()]
        return dlt_persons.erase(self._database, shapes, given, self._hash_key.encode(), _now())

    def counts(self) -> Sequence[Counted]:
        """How full every table is."""
        counted: list[Counted] = []
        for name, known in self._known.items():
            place, (where, deleted, loaded) = self._database.names(
                known.shape.name, (WORKSPACE, DELETED, LOADED)
            )
            rows = self._database.run(
                f"SELECT {where}, count(*) - count({deleted}), count({deleted}), max({loaded}) "
                f"FROM {place} GROUP BY {where} ORDER BY {where}"
            )
            counted += [Counted(name, ws, alive, gone, at and at.timestamp()) for ws, alive, gone, at in rows]
        return counted

    def execute(self, statements: Sequence[str]) -> None:
        """Run statements of ours, one after another."""
        for statement in statements:
            self._database.run(statement)

    def reset(self, tables: Sequence[str], workspace: str | None, prefixes: Sequence[str]) -> None:
        """Empty tables, and drop states."""
        for name in tables:
            if (known := self._known.get(name)) is not None:
                place, (where,) = self._database.names(known.shape.name, (WORKSPACE,))
                only = "" if workspace is None else f" WHERE {where} = %s"
                self._database.run(f"DELETE FROM {place}{only}", [] if workspace is None else [workspace])
                self._forget(name, workspace)
        gone = [key for key in self.state("") if key.startswith(tuple(prefixes))]
        self.keep(dict.fromkeys(gone))

    def _of(self, table: str) -> Known:
        if (found := self._known.get(table)) is None:
            raise not_prepared(table)
        return found


def _named_otherwise(before: Shape, shape: Shape) -> TowpathError:
    """The error of giving a table that has rows another name."""
    return TowpathError(
        f"the table {before.name} is now to be called {shape.name}, and dlt renames none",
        code=NAMED_OTHERWISE,
        why="its rows would stay behind, and nobody would be erased in them",
        fix=f"keep  called: {before.name}  or empty it first:  towpath replicate reset {shape.table.name}",
        data="nothing was changed",
    )


def _typed(shape: Shape, columns: Sequence[str]) -> TowpathError:
    return TowpathError(
        f"the table {shape.name} has columns that cannot hold hashes: {', '.join(columns)}",
        code=TYPED,
        why="they were made for numbers or times, and dlt never changes a column's type",
        fix="drop the table in the destination, or name another dataset, so that it is made anew",
        data="nothing was changed",
    )


def _now() -> datetime:
    return datetime.fromtimestamp(round(time.time(), 6), UTC)


def _schema(kinds: Mapping[str, Kind]) -> pa.Schema:
    return pa.schema([(name, ARROW[kind]) for name, kind in kinds.items()])


def _empty(kinds: Mapping[str, Kind]) -> pa.Table:
    return _schema(kinds).empty_table()


def _texts(shape: Shape, key: Sequence[Any]) -> dict[str, str]:
    return dict(zip(shape.table.key, map(text_of, key), strict=True))
