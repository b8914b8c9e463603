"""Which rows of a batch are new or differ from those that a destination of dlt has."""

# ruff: noqa: S608 - names are quoted and values are passed beside
from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any

import msgspec
import pyarrow as pa

from .arrow import ARROW
from .dlt_database import DltDatabase, Rows, chunks, marks
from .fitting import spelt
from .loading import Load
from .table import DELETED, EXTRA, LOADED, RUN, WORKSPACE, Kind, Shape

LINEAGE_KINDS: Mapping[str, Kind] = {
    WORKSPACE: "text",
    EXTRA: "json",
    RUN: "text",
    LOADED: "time",
    DELETED: "time",
}


class Merging:
    """The merging of one table, before the destination does it: most of what comes again has not changed."""

    def __init__(self, database: DltDatabase, shape: Shape, kinds: Mapping[str, Kind]) -> None:
        self._database = database
        self._shape = shape
        self._kinds = {**kinds, **LINEAGE_KINDS}
        self._key = shape.table.key

    def changed(self, rows: pa.Table, load: Load, at: datetime) -> Rows:
        """The rows of a batch that are to be written, whole."""
        given = rows.to_pylist()
        existing = self._existing(given, load.workspace)
        wanted: list[dict[str, Any]] = []
        for row in given:
            before = existing.get(self._text(row))
            after = row if before is None else self._after(before, row, patched=load.mode == "patch")
            if before is None or before[DELETED] is not None or not self._same(before, after):
                lineage = {WORKSPACE: load.workspace, RUN: load.run, LOADED: at, DELETED: None}
                wanted.append({**after, **lineage})
        schema = pa.schema([(name, ARROW[kind]) for name, kind in self._kinds.items()])
        table = pa.Table.from_pylist(wanted, schema=schema)
        return Rows(self._shape.name, table, self._kinds, (WORKSPACE, *self._key))

    def _existing(self, given: Sequence[Mapping[str, Any]], workspace: str) -> dict[str, dict[str, Any]]:
        """The rows that are there with these keys, by their key; looked for by the key's first column."""
        names = list(self._kinds)
        place, quoted = self._database.names(self._shape.name, names)
        column = dict(zip(names, quoted, strict=True))
        found: dict[str, dict[str, Any]] = {}
        for values in chunks(list(dict.fromkeys(row[self._key[-1]] for row in given))):
            query = (
                f"SELECT {', '.join(quoted)} FROM {place} WHERE {column[WORKSPACE]} = %s "
                f"AND {column[self._key[-1]]} IN ({marks(values)})"
            )
            for answer in self._database.run(query, [workspace, *values]):
                row = {
                    name: plain(value, self._kinds[name]) for name, value in zip(names, answer, strict=True)
                }
                found[self._text(row)] = row
        return found

    def _text(self, row: Mapping[str, Any]) -> str:
        return "\x1f".join(text_of(row[name]) for name in self._key)

    def _after(self, before: Mapping[str, Any], row: Mapping[str, Any], *, patched: bool) -> dict[str, Any]:
        """A row as it is to be: what it does not tell of stays; `patched`, as `Load` has it."""
        if not patched:
            return {**before, **row}
        cursor = self._shape.table.cursor
        newer = before[cursor] is None or (row[cursor] is not None and row[cursor] >= before[cursor])
        weak, strong = (before, row) if newer else (row, before)
        extras = [json.loads(one[EXTRA]) if one[EXTRA] else {} for one in (weak, strong)]
        extra = {**extras[0], **extras[1]}
        return {
            **{name: weak.get(name) for name in self._kinds},
            **{name: value for name, value in strong.items() if value is not None},
            EXTRA: msgspec.json.encode(extra, order="sorted").decode() if extra else None,
        }

    def _same(self, before: Mapping[str, Any], after: Mapping[str, Any]) -> bool:
        names = [name for name in self._kinds if name not in (RUN, LOADED, DELETED, WORKSPACE)]
        return all(_equal(before.get(name), after.get(name), self._kinds[name]) for name in names)


def plain(value: Any, kind: Kind) -> Any:
    """A value as a destination gives it back, in the form that Arrow takes."""
    if value is None:
        return None
    if kind == "json":
        return value if isinstance(value, str) else msgspec.json.encode(value).decode()
    if kind == "time":
        moment = value if isinstance(value, datetime) else datetime.fromisoformat(str(value))
        return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    if kind == "date":
        return value.date() if isinstance(value, datetime) else value
    return _NATIVE[kind](value)


_NATIVE: Mapping[Kind, Any] = {"text": str, "integer": int, "number": float, "boolean": bool}


def _equal(one: Any, other: Any, kind: Kind) -> bool:
    if one is None or other is None or kind != "json":
        return bool(one == other)
    return one == other or bool(_parsed(one) == _parsed(other))


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return text


def text_of(value: Any) -> str:
    """A value of a key as text."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    return value.isoformat() if isinstance(value, date) else spelt(value)
