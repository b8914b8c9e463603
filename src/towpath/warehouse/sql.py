"""A loader over an SQL database: one algorithm, for which DuckDB and PostgreSQL give their own dialect."""

# ruff: noqa: S608 - names are quoted, and values are always given apart
from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from typing import Any, ClassVar

import msgspec
import pyarrow as pa

from towpath.errors import TowpathError

from . import persons
from .arrow import Batch, Reading, hashed
from .fitting import spelt
from .loading import Counted, Gone, Load, Refusal, Wrote
from .table import DELETED, EXTRA, LOADED, RUN, WORKSPACE, Column, Kind, Shape

STATE, SEEN, REFUSED, SHAPES = "_towpath_state", "_towpath_seen", "_towpath_refused", "_towpath_tables"
MOST_REFUSED = 10_000  # records of one table that are kept
NOT_PREPARED = "E5603"
HASHED_CHANGED = "E5604"
NEWER = "E5618"
NAME_TAKEN = "E5619"

OWN: Mapping[str, tuple[Column, ...]] = {
    STATE: (Column("key", "text"), Column("value", "text")),
    SEEN: (
        Column("table_name", "text"),
        Column(WORKSPACE, "text"),
        Column("run", "text"),
        Column("key", "text"),
    ),
    REFUSED: (
        Column("table_name", "text"),
        Column(WORKSPACE, "text"),
        Column(RUN, "text"),
        Column("refused_at", "time"),
        Column("reason", "text"),
        Column("record", "text"),
    ),
    SHAPES: (Column("name", "text"), Column("shape", "text")),
}
LINEAGE_COLUMNS = (
    Column(EXTRA, "json", "Keys of the record that no column has."),
    Column(WORKSPACE, "text", "The account that the row came from."),
    Column(RUN, "text", "The run that last changed the row."),
    Column(LOADED, "time", "When the row was last changed here."),
    Column(DELETED, "time", "Since when the source no longer has it."),
)


class Unfit(Exception):
    """Rows that the target does not take, whatever they hold; says why."""


class SqlLoader(ABC):
    """A target that speaks SQL. `now` gives Unix seconds."""

    types: ClassVar[Mapping[Kind, str]]

    def __init__(self, hash_key: str, now: Callable[[], float]) -> None:
        self._hash_key = hash_key
        self._now = now
        self._shapes: dict[str, Shape] = {}
        self._prepared: dict[str, Shape] = {}
        self._readings: dict[str, Reading] = {}
        self._doubted: set[str] = set()

    # What a dialect gives

    @abstractmethod
    def run(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run one statement with its values ($1, $2 …); the rows it gives."""

    @abstractmethod
    def run_many(self, sql: str, rows: Sequence[Sequence[Any]]) -> None:
        """Run one statement for each of these rows of values."""

    @abstractmethod
    @contextmanager
    def transaction(self) -> Iterator[None]:
        """All or nothing."""

    @abstractmethod
    def found(self, table: str) -> Mapping[str, Kind]:
        """The columns a table has, by its name as `named` spells it; none where there is no table."""

    @abstractmethod
    def create(self, name: str, columns: Sequence[Column], key: Sequence[str]) -> None:
        """Make a table where there is none."""

    @abstractmethod
    def staged(self, name: str, rows: pa.Table, columns: Sequence[Column]) -> None:
        """Put rows into a temporary table of that name, in place of what it held. Raises `Unfit`."""

    @abstractmethod
    def merge(self, shape: Shape, columns: Sequence[Column], load: Load, at: datetime) -> int:
        """Merge the rows staged as `_batch` into the table; how many were added or changed.

        Raises `Unfit`, with nothing merged, where the table does not take one of them.
        """

    @abstractmethod
    def close(self) -> None:
        """Leave the target to others."""

    def named(self, name: str) -> str:
        """A name as this database keeps it."""
        return name

    def text(self, text: str) -> str:
        """A text as this database keeps it."""
        return text

    def quoted(self, name: str) -> str:
        """A name as it stands in a statement."""
        return '"' + self.named(name).replace('"', '""') + '"'

    def adapted(self, rows: pa.Table) -> tuple[pa.Table, dict[str, int]]:
        """Rows as this database can hold them, and what to tell of it as drift."""
        return rows, {}

    @abstractmethod
    def erased(self) -> None:
        """See to it that nothing of removed rows is left in files."""

    # Tables

    def opened(self) -> None:
        """Make our own tables, and learn which tables there are."""
        with self.transaction():
            for name, columns in OWN.items():
                if not self.found(name):
                    self.create(name, columns, [columns[0].name] if name in {STATE, SHAPES} else [])
        for name, encoded in self.run(f"SELECT name, shape FROM {SHAPES}"):
            try:
                shape = msgspec.json.decode(encoded, type=Shape)
            except msgspec.DecodeError as error:
                raise newer(name) from error
            self._shapes[shape.table.name] = shape

    def prepare(self, shapes: Sequence[Shape]) -> None:
        """Make the tables there are not yet, and columns that are missing; nothing is ever dropped."""
        known = {name: one for name, one in self._prepared.items() if name not in self._doubted}
        new = [shape for shape in shapes if known.get(shape.table.name) != shape]
        if not new:
            return
        with self.transaction():
            for shape in new:
                self._prepare(shape)
        for shape in new:
            name = shape.table.name
            self._shapes[name] = with_columns_before(shape, self._shapes.get(name))
            self._prepared[name] = shape
            self._readings.pop(name, None)
            self._doubted.discard(name)

    def _prepare(self, shape: Shape) -> None:
        self._renamed(shape)
        columns = self.columns_of(shape)
        found = self.found(shape.name)
        if found:
            self._rehashed(shape, found)
            self._alter(shape.name, columns, found)
        else:
            self.create(shape.name, columns, shape.table.key)
        if not {self.named(column.name) for column in columns} <= set(found):
            # Somebody dropped it, or a column is new: how far it was read no longer holds.
            self.run(f"DELETE FROM {STATE} WHERE split_part(key, '/', 3) = $1", shape.table.name)
        known = with_columns_before(shape, self._shapes.get(shape.table.name))
        encoded = msgspec.json.encode(known).decode()
        kept = self.run(f"SELECT shape FROM {SHAPES} WHERE name = $1", shape.name)
        if kept != [(encoded,)]:
            self._describe(shape, columns)
            self.run(f"DELETE FROM {SHAPES} WHERE name = $1", shape.name)
            self.run(f"INSERT INTO {SHAPES} VALUES ($1, $2)", shape.name, encoded)

    def _renamed(self, shape: Shape) -> None:
        """Give a table with its rows the name that it has now; one name is for one table."""
        of_another = (one for one in self._shapes.values() if one.table.name != shape.table.name)
        taken = any(self._same(one.name, shape.name) and self.found(one.name) for one in of_another)
        before = self._shapes.get(shape.table.name)
        moves = before is not None and before.name != shape.name and bool(self.found(before.name))
        if taken or shape.name.startswith("_towpath_") or (moves and self.found(shape.name)):
            raise name_taken(shape)
        if before is None or before.name == shape.name:
            return
        if moves:
            self.run(f"ALTER TABLE {self.quoted(before.name)} RENAME TO {self.quoted(shape.name)}")
        self.run(f"DELETE FROM {SHAPES} WHERE name = $1", before.name)
        self.run(f"UPDATE {SEEN} SET table_name = $1 WHERE table_name = $2", shape.name, before.name)

    def _same(self, one: str, other: str) -> bool:
        return self.named(one).lower() == self.named(other).lower()

    def columns_of(self, shape: Shape) -> list[Column]:
        """Every column of the table in the target, lineage last."""
        as_text = set(shape.hashed)
        kept = [
            msgspec.structs.replace(column, kind="text") if column.name in as_text else column
            for column in shape.kept
        ]
        return [*kept, *LINEAGE_COLUMNS]

    def _rehashed(self, shape: Shape, found: Mapping[str, Kind]) -> None:
        """Refuse to hash, or no longer hash, a column whose other rows would stay as they are."""
        before = self._shapes.get(shape.table.name)
        changed = set(shape.hashed) ^ set(before.hashed if before else ())
        changed &= {column.name for column in shape.kept if self.named(column.name) in found}
        if not changed:
            return
        if self.run(f"SELECT 1 FROM {self.quoted(shape.name)} LIMIT 1"):
            raise hashing_changed(shape, changed)
        for column in self.columns_of(shape):
            if column.name in changed and found.get(self.named(column.name)) not in {None, column.kind}:
                self._retype(shape.name, column)

    def _alter(self, name: str, columns: Sequence[Column], found: Mapping[str, Kind]) -> None:
        for column in columns:
            there = found.get(self.named(column.name))
            if there is None:
                kind, quoted = self.types[column.kind], self.quoted(column.name)
                self.run(f"ALTER TABLE {self.quoted(name)} ADD COLUMN {quoted} {kind}")
            elif there == "integer" and column.kind == "number":
                self._retype(name, column)

    def _retype(self, name: str, column: Column) -> None:
        kind, quoted = self.types[column.kind], self.quoted(column.name)
        self.run(f"ALTER TABLE {self.quoted(name)} ALTER COLUMN {quoted} TYPE {kind}")

    def _describe(self, shape: Shape, columns: Sequence[Column]) -> None:
        table = self.quoted(shape.name)
        if shape.table.about:
            self.run(f"COMMENT ON TABLE {table} IS {literal(shape.table.about)}")
        for column in columns:
            if column.about:
                self.run(f"COMMENT ON COLUMN {table}.{self.quoted(column.name)} IS {literal(column.about)}")

    def shape(self, table: str) -> Shape:
        """Return the shape of a table. Raises `TowpathError` where nobody prepared it."""
        if (shape := self._shapes.get(table)) is None:
            raise not_prepared(table)
        return shape

    def shapes(self) -> Sequence[Shape]:
        """Every table there is; one that somebody dropped is none."""
        return [shape for shape in self._shapes.values() if self.found(shape.name)]

    def _reading(self, table: str) -> Reading:
        if (reading := self._readings.get(table)) is None:
            shape = self._prepared.get(table) or self.shape(table)
            if not (kinds := self.found(shape.name)):
                raise not_prepared(table)
            known = {column.name: kinds[self.named(column.name)] for column in shape.kept}
            own = {self.named(name) for name in known}
            beyond = {name: kind for name, kind in kinds.items() if name not in own}
            reading = self._readings[table] = Reading(shape, self._hash_key, known | beyond)
        return reading

    # State

    def state(self, prefix: str) -> Mapping[str, str]:
        """Every kept state whose key begins with `prefix`."""
        rows = self.run(f"SELECT key, value FROM {STATE} WHERE starts_with(key, $1)", prefix)
        return {str(key): str(value) for key, value in rows}

    def keep(self, state: Mapping[str, str | None]) -> None:
        """Keep or drop states without rows."""
        with self.transaction():
            self._keep(state)

    def _keep(self, state: Mapping[str, str | None]) -> None:
        for key, value in state.items():
            if value is None:
                self.run(f"DELETE FROM {STATE} WHERE key = $1", key)
            else:
                self.run(
                    f"INSERT INTO {STATE} (key, value) VALUES ($1, $2) "
                    "ON CONFLICT (key) DO UPDATE SET value = excluded.value",
                    key, value,
                )  # fmt: skip

    # Rows

    def load(self, load: Load) -> Wrote:
        """Write a batch with its state."""
        if not load.pages:
            self.keep(load.state)
            return Wrote()
        try:
            reading = self._reading(load.table)
            batch = reading.read(load)
            with self.transaction():
                return self._load(load, reading, batch)
        except BaseException:
            self._readings.pop(load.table, None)  # it may know of columns that did not come to be
            self._doubted.add(load.table)  # or somebody changed the table
            raise

    def _load(self, load: Load, reading: Reading, batch: Batch) -> Wrote:
        shape = reading.shape
        if batch.grown:
            self._alter(shape.name, batch.grown, self.found(shape.name))
        if load.seen and batch.seen.num_rows:
            self._see(shape, load, batch)
        refusals = list(batch.refusals)
        rows, told = self.adapted(batch.rows)
        columns = [*reading.columns, LINEAGE_COLUMNS[0]]
        written = 0
        if rows.num_rows:
            merge = partial(self.merge, shape, columns, load, self._moment())
            written, unfit = self._put(rows, columns, merge)
            refusals += unfit
        self._refuse(shape, load, refusals)
        self._keep(load.state)
        return Wrote(
            read=batch.read,
            written=written,
            unchanged=batch.read - batch.passed - len(refusals) - written,
            passed=batch.passed,
            refused=len(refusals),
            newest=batch.newest,
            drift=batch.drift | told,
            refusals=tuple(refusals),
        )

    def _moment(self) -> datetime:
        return datetime.fromtimestamp(self._now(), UTC)

    def _put(
        self, rows: pa.Table, columns: Sequence[Column], merge: Callable[[], int]
    ) -> tuple[int, list[Refusal]]:
        """Merge the rows; how many were written, and those that the database does not take."""
        try:
            self.staged("_batch", rows, columns)
            return merge(), []
        except Unfit as why:
            if rows.num_rows == 1:
                return 0, [Refusal(f"the target does not take it: {why}", _as_record(rows))]
        half = rows.num_rows // 2
        first, refused = self._put(rows.slice(0, half), columns, merge)
        second, more = self._put(rows.slice(half), columns, merge)
        return first + second, refused + more

    def _refuse(self, shape: Shape, load: Load, refusals: Sequence[Refusal]) -> None:
        if not refusals:
            return
        name = shape.table.name
        ((room,),) = self.run(f"SELECT count(*) FROM {REFUSED} WHERE table_name = $1", name)
        unlike = f"SELECT 1 FROM {REFUSED} WHERE table_name = $1 AND {WORKSPACE} = $2 AND record = $6"
        sql = f"INSERT INTO {REFUSED} SELECT $1, $2, $3, $4, $5, $6 WHERE NOT EXISTS ({unlike})"
        at = self._moment()
        self.run_many(
            sql,
            [
                (name, load.workspace, load.run, at, self.text(one.reason), self.text(one.record))
                for one in refusals[: max(0, MOST_REFUSED - room)]
            ],
        )

    def merged(self, column: Column, shape: Shape, load: Load, old: str, new: str) -> str:
        """The value that a column has after the merge, in SQL."""
        name = self.quoted(column.name)
        if load.mode != "patch":
            return f"{new}.{name}"
        if not shape.table.cursor:
            return f"coalesce({new}.{name}, {old}.{name})"
        cursor = self.quoted(shape.table.cursor)
        newer = f"{new}.{cursor} >= {old}.{cursor} OR {old}.{cursor} IS NULL"
        given, there = f"{new}.{name}", f"{old}.{name}"
        return f"CASE WHEN {newer} THEN coalesce({given}, {there}) ELSE coalesce({there}, {given}) END"

    # What a run saw

    def key_text(self, columns: Sequence[str], of: str = "") -> str:
        """The values of key columns as one text, in SQL."""
        texts = [f"CAST({of}{self.quoted(name)} AS VARCHAR)" for name in columns]
        return texts[0] if len(texts) == 1 else f"concat_ws(chr(31), {', '.join(texts)})"

    def _see(self, shape: Shape, load: Load, batch: Batch) -> None:
        kinds = {column.name: column for column in self._reading(load.table).columns}
        hashes = set(shape.hashed)
        columns = [
            Column(name, "text" if name in hashes else kinds[name].kind) for name in batch.seen.column_names
        ]
        self.staged("_keys", self.adapted(batch.seen)[0], columns)
        self.run(
            f"INSERT INTO {SEEN} SELECT $1, $2, $3, {self.key_text(shape.table.key)} FROM _keys",
            shape.name, load.workspace, load.run,
        )  # fmt: skip

    def begin(self, table: str, workspace: str, run: str) -> None:
        """Begin to remember the keys that a run sees; those of the same run, resumed, stay remembered."""
        name = self.shape(table).name
        with self.transaction():
            self.run(
                f"DELETE FROM {SEEN} WHERE table_name = $1 AND {WORKSPACE} = $2 AND run <> $3",
                name, workspace, run,
            )  # fmt: skip

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
        """Mark or remove the workspace's rows that this run did not see, and forget what it saw."""
        shape = self.shape(table)
        with self.transaction():
            values: list[Any] = [workspace, shape.name, run]
            unseen = self._unseen(shape, unread, values)
            alive = f"FROM {self.quoted(shape.name)} t WHERE {WORKSPACE} = $1 AND {DELETED} IS NULL"
            ((rows,),) = self.run(f"SELECT count(*) {alive}", workspace)
            ((gone,),) = self.run(f"SELECT count(*) {alive} AND {unseen}", *values)
            if gone > most * rows + 1e-9:
                return Gone(gone, rows, held=True)
            if gone:
                self._part(shape, unseen, values)
            self.run(f"DELETE FROM {SEEN} WHERE table_name = $1 AND {WORKSPACE} = $2", shape.name, workspace)
            self._keep(state)
        return Gone(gone, rows)

    def _unseen(self, shape: Shape, unread: Sequence[Mapping[str, Any]], values: list[Any]) -> str:
        """The condition of rows that were neither seen nor left unread. It adds the values it needs."""
        seen = (
            f"SELECT 1 FROM {SEEN} s WHERE s.table_name = $2 AND s.{WORKSPACE} = $1 AND s.run = $3 "
            f"AND s.key = {self.key_text(shape.table.key, 't.')}"
        )
        conditions = [f"NOT EXISTS ({seen})"]
        groups: dict[tuple[str, ...], list[str]] = {}
        for one in unread:
            texts = [self._key_of(shape, name, value) for name, value in one.items()]
            groups.setdefault(tuple(one), []).append("\x1f".join(texts))
        for names, texts in groups.items():
            values.append(texts)
            conditions.append(f"NOT coalesce({self.key_text(names, 't.')} = ANY(${len(values)}), FALSE)")
        return " AND ".join(conditions)

    def _key_of(self, shape: Shape, name: str, value: Any) -> str:
        text = self.text(spelt(value))
        return hashed(self._hash_key.encode(), text) if name in shape.hashed else text

    def _part(self, shape: Shape, unseen: str, values: Sequence[Any]) -> None:
        """Mark or remove rows."""
        table, where = self.quoted(shape.name), f"WHERE {WORKSPACE} = $1 AND {DELETED} IS NULL AND {unseen}"
        if shape.remove:
            self.run(f"DELETE FROM {table} t {where}", *values)
            return
        at = f"${len(values) + 1}"
        self.run(
            f"UPDATE {table} t SET {DELETED} = {at}, {LOADED} = {at}, {RUN} = $3 {where}",
            *values, self._moment(),
        )  # fmt: skip

    # The rest

    def erase(self, ids: Sequence[str]) -> Mapping[str, int]:
        """Remove persons by any of their ids, and by every id that a table joins to them; rows by table."""
        wanted = frozenset(self.text(one) for one in ids if one)
        with self.transaction():
            erased = persons.erase(self, wanted, self._hash_key.encode(), self._moment())
        self.erased()
        return erased

    def counts(self) -> Sequence[Counted]:
        """How full every table is."""
        counted: list[Counted] = []
        for shape in self.shapes():
            rows = self.run(
                f"SELECT {WORKSPACE}, count(*) - count({DELETED}), count({DELETED}), "
                f"extract(epoch FROM max({LOADED})) "
                f"FROM {self.quoted(shape.name)} GROUP BY {WORKSPACE} ORDER BY {WORKSPACE}"
            )
            for workspace, alive, deleted, at in rows:
                counted.append(
                    Counted(shape.table.name, workspace, alive, deleted, None if at is None else float(at))
                )
        return counted

    def execute(self, statements: Sequence[str]) -> None:
        """Run statements of ours, all or none, with the target's schema as the current one."""
        with self.transaction():
            for statement in statements:
                self.run(statement)

    def reset(self, tables: Sequence[str], workspace: str | None, prefixes: Sequence[str]) -> None:
        """Empty tables (of one workspace, or whole), and drop the states whose keys begin so."""
        with self.transaction():
            for name in tables:
                if (shape := self._shapes.get(name)) is not None:
                    self._empty(shape.name, "", shape, workspace)
                    self._empty(SEEN, shape.name, shape, workspace)
                    self._empty(REFUSED, shape.table.name, shape, workspace)
            for prefix in prefixes:
                self.run(f"DELETE FROM {STATE} WHERE starts_with(key, $1)", prefix)

    def _empty(self, table: str, of: str, shape: Shape, workspace: str | None) -> None:
        conditions, values = [], []
        for column, value in ((WORKSPACE, workspace), ("table_name", of or None)):
            if value is not None:
                values.append(value)
                conditions.append(f"{column} = ${len(values)}")
        where = f" WHERE {' AND '.join(conditions)}" if conditions else ""
        self.run(f"DELETE FROM {self.quoted(table)}{where}", *values)


def with_columns_before(shape: Shape, before: Shape | None) -> Shape:
    """A shape with the columns that its table had before: they are still there, and may hold persons."""
    if before is None:
        return shape
    own = {column.name for column in shape.table.columns}
    kept = {column.name for column in shape.kept}
    others = tuple(column for column in before.kept if column.name not in own)
    left = tuple(column.name for column in before.kept if column.name not in kept)
    return msgspec.structs.replace(
        shape,
        table=msgspec.structs.replace(shape.table, columns=(*shape.table.columns, *others)),
        columns=(*shape.columns, *left) if shape.columns else (),
        hashed=(
            *shape.hashed,
            *(name for name in before.hashed if name not in own and name not in shape.hashed),
        ),
    )


def name_taken(shape: Shape) -> TowpathError:
    """The error of a table that is to have the name of another."""
    return TowpathError(
        f"the table {shape.table.name} cannot be called {shape.name} in the warehouse",
        code=NAME_TAKEN,
        why="another table there has this name: rows of the two would be mixed, or stay behind",
        fix="choose another name (`called`), or drop or rename the table that has it",
        data="nothing was changed",
    )


def newer(table: str) -> TowpathError:
    """The error of a table that a newer towpath described."""
    return TowpathError(
        f"the table {table} of the warehouse was made by a newer version of towpath",
        code=NEWER,
        why="what it says of its columns cannot be read, so nobody could say whose rows are whose",
        fix="use that version, or empty the warehouse and read it again",
        data="nothing was changed",
    )


def literal(text: str) -> str:
    """A text as it stands in a statement that takes no values."""
    return "'" + text.replace("'", "''") + "'"


def _as_record(rows: pa.Table) -> str:
    (row,) = rows.to_pylist()
    return msgspec.json.encode({name: value for name, value in row.items() if value is not None}).decode()


def not_prepared(table: str) -> TowpathError:
    """The error of a table that nobody made."""
    return TowpathError(
        f"the warehouse has no table {table}",
        code=NOT_PREPARED,
        why="it was not prepared, or the file was exchanged while it was in use",
        fix="run the replication again: it makes the tables it needs",
        data="nothing was written",
    )


def hashing_changed(shape: Shape, columns: set[str]) -> TowpathError:
    """The error of hashing more or less in a table that already has rows."""
    return TowpathError(
        f"the table {shape.name} has rows, and would now hash other columns: {', '.join(sorted(columns))}",
        code=HASHED_CHANGED,
        why="the rows that are there would keep the old form, and a hashed value cannot be turned back",
        fix="empty the table first (`towpath replicate reset`), so that every row is read again",
        data="nothing was changed",
    )
