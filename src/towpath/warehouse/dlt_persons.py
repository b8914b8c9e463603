"""Erasing persons from a destination of dlt, by plain SQL that every database takes."""

# ruff: noqa: S608 - names are quoted and values are passed beside
from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime
from functools import partial
from typing import Any

from . import persons
from .dlt_database import DltDatabase, chunks, marks
from .persons import REFUSED, Ids
from .table import LOADED, WORKSPACE, Shape

SEEN = "_towpath_seen"


def erase(
    database: DltDatabase, shapes: Sequence[Shape], given: frozenset[str], hash_key: bytes, at: datetime
) -> Mapping[str, int]:
    """Remove persons by their ids, as `persons.erase` does; how many rows, by table."""
    concerned = [shape for shape in shapes if persons.columns_of(shape)]
    workspaces = _workspaces(database, concerned)
    found = persons.find(workspaces, partial(_join, database, concerned), given, hash_key)
    erased = {
        shape.table.name: sum(
            _remove(database, shape, workspace, found.of(shape, workspace), at)
            for workspace in found.workspaces
        )
        for shape in concerned
    }
    _forget(database, found.everywhere.plain)
    return erased


def _workspaces(database: DltDatabase, shapes: Sequence[Shape]) -> list[str]:
    found: set[str] = set()
    for shape in shapes:
        place, (where,) = database.names(shape.name, (WORKSPACE,))
        found |= {workspace for (workspace,) in database.run(f"SELECT DISTINCT {where} FROM {place}")}
    return sorted(found)


def _join(database: DltDatabase, shapes: Sequence[Shape], workspace: str, ids: Ids) -> None:
    """Add every id that a row of the person holds, until there is none that is new."""
    size = -1
    while size != (size := len(ids.all)):
        for shape in shapes:
            if not shape.table.apart:
                for _, holds in _theirs(database, shape, workspace, ids):
                    ids.add(value for name, value in holds.items() if value and name not in shape.hashed)
                    ids.hashes |= {value for name, value in holds.items() if value and name in shape.hashed}


def _theirs(
    database: DltDatabase, shape: Shape, workspace: str, ids: Ids
) -> Iterator[tuple[tuple[Any, ...], Mapping[str, str | None]]]:
    """The rows of the person: their keys, and the ids that they hold."""
    names, key = persons.columns_of(shape), shape.table.key
    place, (where, *quoted) = database.names(shape.name, (WORKSPACE, *key, *names))
    known: dict[tuple[Any, ...], Mapping[str, str | None]] = {}
    for column in quoted[len(key) :]:
        text = f"CAST({column} AS VARCHAR(4000))"
        for values in chunks(ids.all):
            query = (
                f"SELECT {', '.join(quoted)} FROM {place} WHERE {where} = %s AND {text} IN ({marks(values)})"
            )
            for row in database.run(query, [workspace, *values]):
                held = [None if value is None else str(value) for value in row[len(key) :]]
                known[tuple(row[: len(key)])] = dict(zip(names, held, strict=True))
    return ((found, holds) for found, holds in known.items() if _is_theirs(shape, list(holds.values()), ids))


def _is_theirs(shape: Shape, holds: Sequence[str | None], ids: Ids) -> bool:
    """Whether a row that holds these ids is the person's; the rule is that of `persons.whose`."""
    given, found = set(ids.given), set(ids.all)
    if shape.table.apart:
        return next((value for value in holds if value is not None), None) in given
    return any(
        value in given or (value in found and all(one is None or one in found for one in holds[:place]))
        for place, value in enumerate(holds)
    )


def by_keys(
    database: DltDatabase, shape: Shape, keys: Sequence[tuple[Any, ...]]
) -> Iterator[tuple[str, list[Any]]]:
    """Conditions that together are these keys, each with its values."""
    _, quoted = database.names(shape.name, shape.table.key)
    one = " AND ".join(f"{name} = %s" for name in quoted)
    for part in chunks(keys):
        if len(quoted) == 1:
            yield f"{quoted[0]} IN ({marks(part)})", [value for (value,) in part]
        else:
            yield " OR ".join(f"({one})" for _ in part), [value for key in part for value in key]


def _remove(database: DltDatabase, shape: Shape, workspace: str, ids: Ids, at: datetime) -> int:
    """Remove the person's rows, or blank them where they are to stay; how many."""
    keys = [key for key, _ in _theirs(database, shape, workspace, ids)]
    place, (where, loaded) = database.names(shape.name, (WORKSPACE, LOADED))
    start, values = f"DELETE FROM {place}", list[Any]()
    if shape.table.blank and not set(persons.columns_of(shape)) & set(shape.table.key):
        _, names = database.names(shape.name, persons.blanked(shape))
        start = f"UPDATE {place} SET {', '.join(f'{name} = NULL' for name in names)}, {loaded} = %s"
        values = [at]
    for condition, found in by_keys(database, shape, keys):
        database.run(f"{start} WHERE {where} = %s AND ({condition})", [*values, workspace, *found])
    return len(keys)


def _forget(database: DltDatabase, ids: set[str]) -> None:
    """Drop refused records that name a person, and what running reads saw of them."""
    place, (record,) = database.names(REFUSED, ("record",))
    for (text,) in database.run(f"SELECT {record} FROM {place}") if ids else ():
        if any(persons.mentions(text, one) for one in ids):
            database.run(f"DELETE FROM {place} WHERE {record} = %s", [text])
    place, (key,) = database.names(SEEN, ("key",))
    seen = (text for (text,) in database.run(f"SELECT {key} FROM {place}"))
    gone = [text for text in seen if ids.intersection(text.split("\x1f"))] if ids else []
    for part in chunks(gone):
        database.run(f"DELETE FROM {place} WHERE {key} IN ({marks(part)})", list(part))
