"""Tables that grow: keys that no column has become columns of the kind that their values are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Raw

from . import salvage
from .fitting import Misfit, fit, named, spelt
from .records import Taken
from .table import LINEAGE, Column, Kind, Shape

WIDEST = 500  # columns; a key beyond stays in `_extra`
LONGEST_NAME = 63  # bytes: what PostgreSQL keeps of a name


def grow(
    shape: Shape, columns: Sequence[Column], taken: Taken
) -> tuple[tuple[Column, ...], tuple[Column, ...]]:
    """Make columns of keys, and numbers of integers where needed; all columns, and those that are new."""
    grown = [_widened(column, taken) for column in columns if _widens(column, shape, taken)]
    wider = {column.name: column for column in grown}
    known = {column.name.lower() for column in (*columns, *shape.table.columns)} | set(LINEAGE)
    for key in sorted({key for extra in taken.extras.values() for key in extra}):
        if _possible(key, known) and len(columns) + len(grown) < WIDEST:
            known.add(key.lower())
            grown.append(_column(key, shape, taken))
    everything = [wider.get(column.name, column) for column in columns]
    return (*everything, *[one for one in grown if one.name not in wider]), tuple(grown)


def _possible(key: str, known: Iterable[str]) -> bool:
    return 0 < len(key.encode()) <= LONGEST_NAME and key.lower() not in known and key.isprintable()


def _widens(column: Column, shape: Shape, taken: Taken) -> bool:
    """Whether an integer column that grew has been given numbers."""
    own = {one.name for one in shape.table.columns}
    if column.kind != "integer" or column.name in own:
        return False
    return any(
        isinstance(salvage.value(extra[column.name]), float)
        for extra in taken.extras.values()
        if column.name in extra
    )


def _widened(column: Column, taken: Taken) -> Column:
    values = taken.columns[column.name]
    values[:] = [None if value is None else float(value) for value in values]
    _move(column.name, "number", taken)
    for told in [told for told in taken.drift if told == f"{column.name}: number"]:
        del taken.drift[told]
    return msgspec.structs.replace(column, kind="number")


def _column(key: str, shape: Shape, taken: Taken) -> Column:
    """The column of a key, filled."""
    taken.columns[key] = [None] * taken.count
    if key in shape.hashed:
        _fill(key, {row: spelt(salvage.value(extra.pop(key))) for row, extra in _having(key, taken)}, taken)
        return Column(key, "text")
    kind = _kind([salvage.value(_raw(extra[key])) for _, extra in _having(key, taken)])
    _move(key, kind, taken)
    return Column(key, kind)


def _having(key: str, taken: Taken) -> list[tuple[int, dict[str, Any]]]:
    return [(row, extra) for row, extra in taken.extras.items() if key in extra]


def _move(key: str, kind: Kind, taken: Taken) -> None:
    """Move the values of a key from the extras to its column, as far as they fit."""
    fitting: dict[int, Any] = {}
    for row, extra in _having(key, taken):
        raw = _raw(extra[key])
        value = salvage.value(raw)
        try:
            fitting[row] = None if value is None else fit(kind, raw if kind == "json" else value)
        except Misfit:
            continue
        del extra[key]
    _fill(key, fitting, taken)


def _fill(key: str, values: Mapping[int, Any], taken: Taken) -> None:
    column = taken.columns[key]
    for row, value in values.items():
        column[row] = value
    for row in [row for row, extra in taken.extras.items() if not extra]:
        del taken.extras[row]


def _raw(found: Any) -> Raw:
    return found if isinstance(found, Raw) else Raw(msgspec.json.encode(found))


def _kind(values: Sequence[Any]) -> Kind:
    """The narrowest kind that takes all of these values."""
    names = {named(value) for value in values if value is not None}
    if names and names <= {"text"} and all(_is_time(value) for value in values if value is not None):
        return "time"
    for kind, taken in KINDS:
        if names and names <= taken:
            return kind
    return "text" if names.isdisjoint({"object", "list"}) else "json"


KINDS: Sequence[tuple[Kind, frozenset[str]]] = (
    ("boolean", frozenset({"boolean"})),
    ("integer", frozenset({"integer"})),
    ("number", frozenset({"integer", "number"})),
)


def _is_time(text: str) -> bool:
    """Whether a text is a moment in ISO 8601, with a date and a time of day."""
    if len(text) < len("2024-01-01T00:00") or text[10] not in "T ":
        return False
    try:
        datetime.fromisoformat(text)
    except ValueError:
        return False
    return True
