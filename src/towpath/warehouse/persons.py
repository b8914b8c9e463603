"""Erasing a person from a database: whose rows they are, and every id that the tables join to them."""

# ruff: noqa: S608 - names are quoted, and values are always given apart
from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any, Protocol

import msgspec

from .arrow import hashed
from .table import EXTRA, LOADED, WORKSPACE, Shape

REFUSED = "_towpath_refused"
SEEN = "_towpath_seen"
SURE = 6  # characters; a shorter id in a refused record counts only where it stands alone


class Database(Protocol):
    """What is needed of a database."""

    def run(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        """Run one statement; its rows."""
        ...

    def quoted(self, name: str) -> str:
        """A name in a statement."""
        ...

    def shapes(self) -> Sequence[Shape]:
        """Every table."""
        ...


class Ids:
    """The ids of a person in one workspace: those given, those found, and the hashes that stand for them.

    A hash that was found is one of theirs although nobody knows of what.
    """

    def __init__(self, given: Iterable[str], hash_key: bytes) -> None:
        self._hash_key = hash_key
        self.plain: set[str] = set()
        self.hashes: set[str] = set()
        self.add(given)
        self.given = sorted(self.plain | self.hashes)

    def add(self, found: Iterable[str]) -> None:
        """Count these as ids of the person too."""
        new = {one for one in found if one} - self.plain
        self.plain |= new
        if self._hash_key:
            self.hashes |= {hashed(self._hash_key, one) for one in new}

    @property
    def all(self) -> list[str]:
        """Every form of the ids that a column may hold."""
        return sorted(self.plain | self.hashes)


class Found:
    """The ids of persons by workspace, and those of all workspaces together."""

    def __init__(self, workspaces: Mapping[str, Ids], everywhere: Ids) -> None:
        self.workspaces = workspaces
        self.everywhere = everywhere

    def of(self, shape: Shape, workspace: str) -> Ids:
        """The ids by which rows of a table are theirs: of all workspaces where its own says nothing."""
        return self.everywhere if shape.table.anywhere else self.workspaces[workspace]


def erase(database: Database, given: frozenset[str], hash_key: bytes, at: datetime) -> Mapping[str, int]:
    """Remove persons by their ids, workspace by workspace; how many rows, by table.

    An id that was found says nothing in another workspace: there it may be somebody else's.
    """
    concerned = [shape for shape in database.shapes() if columns_of(shape)]
    found = find(workspaces(database, concerned), partial(join, database, concerned), given, hash_key)
    erased = {
        shape.table.name: sum(
            _part(database, shape, workspace, found.of(shape, workspace), at)
            for workspace in found.workspaces
        )
        for shape in concerned
    }
    _forget(database, found.everywhere.plain, concerned)
    return erased


def find(
    workspaces: Iterable[str], join: Callable[[str, Ids], None], given: frozenset[str], hash_key: bytes
) -> Found:
    """The ids of persons, joined in each workspace by `join`."""
    everywhere = Ids(given, hash_key)
    found: dict[str, Ids] = {}
    for workspace in workspaces if given else ():
        found[workspace] = ids = Ids(given, hash_key)
        join(workspace, ids)
        everywhere.add(ids.plain)
        everywhere.hashes |= ids.hashes
    return Found(found, everywhere)


def columns_of(shape: Shape) -> list[str]:
    """The columns kept that hold an id of the person a row concerns."""
    kept = {column.name for column in shape.kept}
    return [name for name in shape.table.persons if name in kept]


def workspaces(database: Database, shapes: Sequence[Shape]) -> list[str]:
    """Every workspace that has rows in these tables."""
    found: set[str] = set()
    for shape in shapes:
        rows = database.run(f"SELECT DISTINCT {WORKSPACE} FROM {database.quoted(shape.name)}")
        found |= {workspace for (workspace,) in rows}
    return sorted(found)


def join(database: Database, shapes: Sequence[Shape], workspace: str, ids: Ids) -> None:
    """Add every id that a row of the person holds, until there is none that is new."""
    size = -1
    while size != (size := len(ids.plain) + len(ids.hashes)):
        for shape in shapes:
            if not shape.table.apart:
                _joined(database, shape, workspace, ids)


def _joined(database: Database, shape: Shape, workspace: str, ids: Ids) -> None:
    names = columns_of(shape)
    columns = ", ".join(f"CAST({database.quoted(name)} AS VARCHAR)" for name in names)
    condition, values = whose(database, shape, ids, workspace)
    found = database.run(
        f"SELECT DISTINCT {columns} FROM {database.quoted(shape.name)} WHERE {condition}", *values
    )
    for row in found:
        for name, value in zip(names, row, strict=True):
            if value is not None and name in shape.hashed:
                ids.hashes.add(value)
            elif value is not None:
                ids.add([value])


def whose(database: Database, shape: Shape, ids: Ids, workspace: str) -> tuple[str, list[Any]]:
    """The condition of the rows that are the person's, and its values.

    An id that was given takes every row that holds it. One that was only found takes a row where every
    stronger id, those that stand before it among the table's `persons`, is the person's too or is not
    there: two people may share an e-mail.
    """
    texts = [f"CAST({database.quoted(name)} AS VARCHAR)" for name in columns_of(shape)]
    here = f"{WORKSPACE} = $1"
    if shape.table.apart:
        return f"{here} AND coalesce({', '.join(texts)}) = ANY($2)", [workspace, ids.given]
    either: list[str] = []
    for place, text in enumerate(texts):
        stronger = [f"({one} IS NULL OR {one} = ANY($3))" for one in texts[:place]]
        either += [f"{text} = ANY($2)", " AND ".join([f"{text} = ANY($3)", *stronger])]
    return f"{here} AND ({' OR '.join(either)})", [workspace, ids.given, ids.all]


def _part(database: Database, shape: Shape, workspace: str, ids: Ids, at: datetime) -> int:
    """Remove the person's rows, or blank them where they are to stay; how many."""
    condition, values = whose(database, shape, ids, workspace)
    table = database.quoted(shape.name)
    if not shape.table.blank or set(columns_of(shape)) & set(shape.table.key):
        return len(database.run(f"DELETE FROM {table} WHERE {condition} RETURNING 1", *values))
    names = blanked(shape)
    quoted = [database.quoted(name) for name in names]
    blanks = ", ".join(f"{name} = NULL" for name in quoted)
    filled = " OR ".join(f"{name} IS NOT NULL" for name in quoted)
    moment = f"${len(values) + 1}"
    rows = database.run(
        f"UPDATE {table} SET {blanks}, {LOADED} = {moment} WHERE {condition} AND ({filled}) RETURNING 1",
        *values, at,
    )  # fmt: skip
    return len(rows)


def blanked(shape: Shape) -> list[str]:
    """What a row loses when it stays: all that is personal, and what tells whose it is."""
    persons, key = set(shape.table.persons), set(shape.table.key)
    names = [one.name for one in shape.kept if (one.personal or one.name in persons) and one.name not in key]
    return [*names, EXTRA]


def _forget(database: Database, ids: set[str], shapes: Sequence[Shape]) -> None:
    """Drop refused records that name the person. What a running read saw of them goes with it."""
    texts = sorted(ids)
    for (record,) in database.run(f"SELECT DISTINCT record FROM {REFUSED}") if texts else ():
        if any(mentions(record, one) for one in texts):
            database.run(f"DELETE FROM {REFUSED} WHERE record = $1", record)
    names = [shape.name for shape in shapes if set(shape.table.persons) & set(shape.table.key)]
    if texts and names:
        part = "string_to_array(key, chr(31)) && $2"
        database.run(f"DELETE FROM {SEEN} WHERE table_name = ANY($1) AND {part}", names, texts)


def mentions(record: str, one: str) -> bool:
    """Whether a record as it came names an id: anywhere where it is long, else as a value of its own."""
    spelt = msgspec.json.encode(one).decode()
    if len(one) >= SURE:
        return one in record or spelt[1:-1] in record
    if spelt in record or record == one:
        return True
    ends = (f":{one}{end}" for end in ",}] ")
    return one.lstrip("-").isdigit() and any(end in record for end in ends)
