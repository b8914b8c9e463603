"""The Parquet target: immutable files, merged by rewriting those that hold touched keys."""

# ruff: noqa: S608 - names are quoted and texts are literals or values
from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pyarrow as pa

from towpath.errors import TowpathError

from . import parquet_persons
from .arrow import Batch, Reading, hashed
from .fitting import spelt
from .loading import Counted, Gone, Load, Wrote
from .parquet_sql import Engine, same_key
from .parquet_store import File, Manifest, Seen, Store, Stored
from .persons import REFUSED as REFUSED_NAME
from .persons import Found
from .sql import hashing_changed, with_columns_before
from .table import EXTRA, Column, Kind, Shape, Table

SMALL_ROWS = 100_000
MOST_SMALL = 8
"""So many small files are made one."""
UNKNOWN_TABLE = "E5653"
REFUSED = Table(
    REFUSED_NAME,
    columns=(
        Column("table_name", "text", "The table it was meant for."),
        Column("reason", "text", "Why it could not become a row."),
        Column("record", "text", "The record, as it came.", personal=True),
    ),
    key=("table_name", "record"),
    about="Records that could not become rows.",
)


class ParquetLoader:
    """A directory of Parquet files, opened for writing. Raises `TowpathError` where it cannot be.

    Every method that changes something makes new files beside the old ones and brings them into force
    together, with the state, by one rename of the manifest.
    """

    def __init__(self, directory: Path, hash_key: str = "") -> None:
        self._hash_key = hash_key
        self._store = Store(directory)
        self._engine = Engine(directory)
        self._prepared: dict[str, Shape] = {}
        self._readings: dict[str, Reading] = {}

    def close(self) -> None:
        """Leave the directory to others."""
        self._engine.close()
        self._store.close()

    @contextmanager
    def _transaction(self, *, at_once: bool = False) -> Iterator[Manifest]:
        """A draft of the manifest that comes into force at the end, or leaves nothing behind."""
        draft = self._store.draft()
        try:
            yield draft
            if msgspec.msgpack.encode(draft) != msgspec.msgpack.encode(self._store.manifest):
                self._store.commit(draft, at_once=at_once)
        except BaseException as error:
            self._store.discard()
            if isinstance(error, duckdb.Error | OSError):
                raise self._engine.failed(error) from error
            raise

    # Tables and state

    def prepare(self, shapes: Sequence[Shape]) -> None:
        """Keep the shapes; a file without rows has the columns of each table."""
        new = [shape for shape in (*shapes, Shape(REFUSED)) if self._prepared.get(shape.table.name) != shape]
        if not new:
            return
        with self._transaction() as draft:
            for shape in new:
                self._prepare(draft, shape)
        for shape in new:
            self._prepared[shape.table.name] = shape
            self._readings.pop(shape.table.name, None)

    def _prepare(self, draft: Manifest, shape: Shape) -> None:
        known = draft.tables.get(shape.table.name)
        kinds = dict(known.kinds) if known is not None else {}
        secret = _rehashed(known, shape) if known is not None else set()
        for column in shape.kept:
            kind = "text" if column.name in shape.hashed else column.kind
            widens = (kinds.get(column.name), kind) == ("integer", "number")
            if column.name not in kinds or column.name in secret or widens:
                kinds[column.name] = kind
        whole = with_columns_before(shape, known.shape if known is not None else None)
        if known is None or (known.shape, known.kinds) != (whole, kinds):
            self._reshape(draft, whole, kinds)

    def _reshape(self, draft: Manifest, shape: Shape, kinds: dict[str, Kind]) -> None:
        """Write the file without rows anew; the others go on without the new columns."""
        known = draft.tables.get(shape.table.name)
        head = File(self._store.new_path(draft, shape, "head"), 0)
        self._engine.write_head(head.path, kinds)
        stored = Stored(shape, kinds, head)
        if known is not None:
            stored.files, stored.seen = self._moved(draft, known, shape), known.seen
        draft.tables[shape.table.name] = stored
        self._readings.pop(shape.table.name, None)

    def _moved(self, draft: Manifest, known: Stored, shape: Shape) -> list[File]:
        """The files of a table, below its new name where it has one."""
        if known.shape.name == shape.name or not known.files:
            return known.files
        path = self._store.new_path(draft, shape)
        rows = self._engine.copy(f"SELECT * FROM {self._engine.source(known)}", path)
        return [File(path, rows)]

    def state(self, prefix: str) -> Mapping[str, str]:
        """Every kept state whose key begins with `prefix`."""
        return {key: value for key, value in self._store.manifest.states.items() if key.startswith(prefix)}

    def keep(self, state: Mapping[str, str | None]) -> None:
        """Keep or drop states without rows."""
        with self._transaction() as draft:
            _keep(draft, state)

    # Loading

    def load(self, load: Load) -> Wrote:
        """Write a batch with its state."""
        reading = self._reading(load.table)
        try:
            with self._transaction() as draft:
                batch = reading.read(load)
                written = self._write(draft, load, batch)
                _keep(draft, load.state)
        except BaseException:
            self._readings.pop(load.table)  # it may know of columns that did not come to be
            raise
        return Wrote(
            read=batch.read,
            written=written,
            unchanged=batch.read - batch.passed - len(batch.refusals) - written,
            passed=batch.passed,
            refused=len(batch.refusals),
            newest=batch.newest,
            drift=batch.drift,
            refusals=batch.refusals,
        )

    def _reading(self, table: str) -> Reading:
        if (found := self._readings.get(table)) is None:
            stored = self._stored(self._store.manifest, table)
            shape = self._prepared.get(table, stored.shape)
            found = self._readings[table] = Reading(shape, self._hash_key, stored.kinds)
        return found

    def _write(self, draft: Manifest, load: Load, batch: Batch) -> int:
        if batch.grown:
            stored = draft.tables[load.table]
            grown: dict[str, Kind] = {column.name: column.kind for column in batch.grown}
            self._reshape(draft, stored.shape, {**stored.kinds, **grown})
        stored = draft.tables[load.table]
        if batch.refusals:
            refused = [(load.table, one.reason, one.record) for one in batch.refusals]
            columns = [pa.array(column, pa.string()) for column in zip(*refused, strict=True)]
            rows = pa.Table.from_arrays(columns, names=[column.name for column in REFUSED.columns])
            rows = rows.append_column(EXTRA, pa.nulls(len(refused), pa.string()))
            self._merge(draft, draft.tables[REFUSED.name], rows, load)
        if load.seen:
            self._see(draft, stored, load, batch.seen)
        return self._merge(draft, stored, batch.rows, load) if batch.rows.num_rows else 0

    def _merge(self, draft: Manifest, stored: Stored, rows: pa.Table, load: Load) -> int:
        """Merge rows by key; how many were added or changed."""
        engine = self._engine
        with engine.given(incoming=rows):
            given = engine.stage(stored, load.workspace, load.run, time.time())
            patched = load.mode == "patch" and stored.shape.table != REFUSED
            written = engine.compare(stored, given, patched=patched)
        if written:
            touched = set(engine.files_of("touched"))
            self._rewrite(draft, stored, touched, without="changed", more="changed")
        return written

    def _rewrite(
        self,
        draft: Manifest,
        stored: Stored,
        touched: set[str],
        *,
        without: str = "",
        select: str = "*",
        more: str = "",
    ) -> None:
        """Write files anew without the keys of a table of the engine; small ones as one, with `more`.

        `select` is what is taken of each row.
        """
        small = [file for file in stored.files if file.rows < SMALL_ROWS]
        together = small if len(small) >= MOST_SMALL else [file for file in small if file.path in touched]
        big = [file for file in stored.files if file.path in touched and file not in together]
        kept = [file for file in stored.files if file not in together and file not in big]
        for files, rows in [*(([file], "") for file in big), (together, more)]:
            query = self._engine.survivors(stored, files, without, select, rows)
            if query:
                path = self._store.new_path(draft, stored.shape)
                count = self._engine.copy(query, path)
                kept += [File(path, count)] if count else []
        stored.files = kept

    # What a run saw

    def begin(self, table: str, workspace: str, run: str) -> None:
        """Begin to remember the keys that a run sees."""
        with self._transaction() as draft:
            seen = self._stored(draft, table).seen
            if workspace not in seen or seen[workspace].run != run:
                seen[workspace] = Seen(run)

    def _see(self, draft: Manifest, stored: Stored, load: Load, keys: pa.Table) -> None:
        before = stored.seen.get(load.workspace)
        files = before.files if before is not None and before.run == load.run else ()
        path = self._store.new_path(draft, stored.shape, "seen")
        with self._engine.given(incoming=keys):
            rows = self._engine.copy("SELECT DISTINCT * FROM given_incoming", path)
        stored.seen[load.workspace] = Seen(load.run, (*files, File(path, rows)))

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
        with self._transaction() as draft:
            stored = self._stored(draft, table)
            seen = stored.seen.get(workspace)
            files = seen.files if seen is not None and seen.run == run else ()
            left = [self._as_texts(stored, columns) for columns in unread]
            rows, gone = self._engine.vanish(
                stored, workspace, files, [one for one in left if one is not None]
            )
            if gone > most * rows + 1e-9:
                return Gone(gone, rows, held=True)
            if gone and stored.shape.remove:
                self._rewrite(draft, stored, set(self._engine.files_of("gone")), without="gone")
            elif gone:
                marked = self._engine.marked(stored, run, time.time())
                self._rewrite(draft, stored, set(self._engine.files_of("gone")), select=marked)
            stored.seen.pop(workspace, None)
            _keep(draft, state)
        return Gone(gone, rows)

    def _as_texts(self, stored: Stored, columns: Mapping[str, Any]) -> dict[str, str] | None:
        """Values of columns as the texts they are compared by; None where a column is not there."""
        if not stored.kinds.keys() >= columns.keys():
            return None
        texts = {name: spelt(value) for name, value in columns.items()}
        secret = stored.shape.hashed
        key = self._hash_key.encode()
        return {name: hashed(key, text) if name in secret else text for name, text in texts.items()}

    # Persons, and the rest

    def erase(self, ids: Sequence[str]) -> Mapping[str, int]:
        """Remove persons: rows, refused records, and the keys that a run saw."""
        given = frozenset(one for one in ids if one)
        with self._transaction(at_once=True) as draft:
            tables = parquet_persons.Tables(self._engine, draft)
            found = parquet_persons.find(tables, given, self._hash_key.encode())
            erased = {
                shape.table.name: self._erase(draft, tables, draft.tables[shape.table.name], found)
                for shape in tables.concerned()
            }
            everything = frozenset(found.everywhere.plain)
            self._forget(draft, everything)
        return erased

    def _erase(
        self,
        draft: Manifest,
        tables: parquet_persons.Tables,
        stored: Stored,
        found: Found,
    ) -> int:
        count = parquet_persons.choose(self._engine, tables, stored, found)
        if not count:
            return 0
        files = set(self._engine.files_of("gone"))
        if parquet_persons.stays(stored.shape):
            blanked = parquet_persons.blanked(stored.shape, same_key(stored, "e", "g"), time.time())
            self._rewrite(draft, stored, files, select=blanked)
        else:
            self._rewrite(draft, stored, files, without="gone")
        return count

    def _forget(self, draft: Manifest, ids: frozenset[str]) -> None:
        """Drop refused records that name a person, and what running reads saw of them."""
        refused = draft.tables.get(REFUSED.name)
        if refused is not None and parquet_persons.choose_refused(self._engine, refused, ids):
            self._rewrite(draft, refused, set(self._engine.files_of("gone")), without="gone")
        for stored in draft.tables.values():
            for workspace, seen in stored.seen.items():
                query = parquet_persons.unseen(self._engine, stored, seen, ids) if ids else None
                if query is not None:
                    path = self._store.new_path(draft, stored.shape, "seen")
                    stored.seen[workspace] = Seen(seen.run, (File(path, self._engine.copy(query, path)),))

    def counts(self) -> Sequence[Counted]:
        """How full every table is."""
        tables = self._store.manifest.tables
        found = (
            (name, self._engine.counts(stored)) for name, stored in tables.items() if name != REFUSED.name
        )
        return [Counted(name, *row) for name, rows in found for row in rows]

    def execute(self, statements: Sequence[str]) -> None:
        """Keep statements of ours in `views.sql`, which makes a view of every table, for whoever reads."""
        with self._transaction() as draft:
            draft.views = [*dict.fromkeys((*draft.views, *statements))]

    def reset(self, tables: Sequence[str], workspace: str | None, prefixes: Sequence[str]) -> None:
        """Empty tables, and drop states."""
        with self._transaction(at_once=True) as draft:
            for name in tables:
                if (stored := draft.tables.get(name)) is not None:
                    self._empty(draft, stored, workspace)
            for key in [key for key in draft.states if key.startswith(tuple(prefixes))]:
                del draft.states[key]

    def _empty(self, draft: Manifest, stored: Stored, workspace: str | None) -> None:
        if workspace is None:
            stored.files, stored.seen = [], {}
            return
        stored.seen.pop(workspace, None)
        self._engine.of_workspace(stored, workspace)
        if self._engine.count("gone"):
            self._rewrite(draft, stored, set(self._engine.files_of("gone")), without="gone")

    def _stored(self, manifest: Manifest, table: str) -> Stored:
        found = manifest.tables.get(table)
        if found is None:
            raise _unknown_table(table)
        return found


def _rehashed(known: Stored, shape: Shape) -> set[str]:
    """Columns that are hashed from now on, or no longer. Raises where rows would stay as they are."""
    changed = (set(shape.hashed) ^ set(known.shape.hashed)) & known.kinds.keys()
    if changed and known.files:
        raise hashing_changed(shape, changed)
    return changed


def _keep(draft: Manifest, state: Mapping[str, str | None]) -> None:
    for key, value in state.items():
        if value is None:
            draft.states.pop(key, None)
        else:
            draft.states[key] = value


def _unknown_table(table: str) -> TowpathError:
    return TowpathError(
        f"the warehouse has no table {table}",
        code=UNKNOWN_TABLE,
        why="nobody prepared it",
        fix="this is an error of towpath: please report it",
        data="nothing was written",
    )
