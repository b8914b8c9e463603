"""The columns that tables of events have come to: their kinds by value, how many there may be, what fits."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Literal, Protocol, TypeAlias

import msgspec

from towpath.message import parse_time
from towpath.warehouse import Column, Contract, Kind, Shape, Table
from towpath.warehouse.message_events import MESSAGE_EVENTS

from ._warehouse_flat import Flat, Privacy
from ._warehouse_layout import ABOUT, DELIVERIES, PERSONS, STANDARD, USERS, Part, Row, hashes

_MOMENT = re.compile(r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d:\d\d(\.\d{1,6})?(Z|[+-]\d\d:\d\d)")
_SMALLEST, _LARGEST = -(2**63), 2**63 - 1
_EXACT = 2**53
"""Up to here a double holds every integer."""
Kept: TypeAlias = Kind | Literal["hash"]
"""The kind of a column that is there; `hash` is a text that the warehouse hashes."""


def kind_of(value: Any) -> Kind | None:
    """The kind a value asks for; None for a number that no column holds exactly."""
    if type(value) is str:
        return "time" if _is_moment(value) else "text"
    if type(value) is bool:
        return "boolean"
    if type(value) is int:
        return "integer" if _SMALLEST <= value <= _LARGEST else None
    return "number" if type(value) is float else "json"


def fits(value: Any, kind: Kept) -> bool:
    """Whether a column of a kind keeps a value as it is, or as its own text."""
    own = kind_of(value)
    if kind in ("json", "hash", own):
        return True
    if kind == "text":
        return own != "json"
    return kind == "number" and own == "integer" and abs(value) <= _EXACT


class Limits(Protocol):
    """How large tables may become."""

    @property
    def prefix(self) -> str: ...
    @property
    def max_tables(self) -> int: ...
    @property
    def max_columns(self) -> int: ...
    @property
    def contract(self) -> Contract: ...


class Columns:
    """The columns of every table, as far as they were brought there; `kept` are they by table, as JSON."""

    def __init__(self, kept: Mapping[str, str], limits: Limits) -> None:
        self._kinds: dict[str, dict[str, Kept]] = {
            table: msgspec.json.decode(said, type=dict[str, Kept]) for table, said in kept.items()
        }
        self._own = {name for name in self._kinds if name.removeprefix(limits.prefix) not in STANDARD}
        self._most_tables = limits.max_tables
        self._most = limits.max_columns
        self._contract = limits.contract

    def has_room(self, row: Row) -> bool:
        """Whether there is, or may be, the table of an event; the others there always may be."""
        if row.part == "events" and row.table not in self._own:
            if len(self._own) >= self._most_tables:
                return False
            self._own.add(row.table)
        return True

    def unknown(self, row: Row) -> str:
        """What a table would have to get for a row: itself, or a column; empty for nothing."""
        known = self._kinds.get(row.table)
        if known is None:
            return f"table {row.table}"
        missing = next(
            (name for name, flat in row.values.items() if name not in known and kind_of(flat.value)), None
        )
        return "" if missing is None else f"column {row.table}.{missing}"

    def learn(self, table: str, part: Part, rows: Iterable[Row]) -> str | None:
        """Take in what rows bring; the JSON to keep where something changed."""
        before = self._kinds.get(table)
        after = dict(before or {})
        for row in rows:
            for name, flat in row.values.items():
                self._admit(after, len(STANDARD[part]), name, flat, known=name in (before or {}))
        if after == before:
            return None
        self._kinds[table] = after
        return msgspec.json.encode(after).decode()

    def _admit(self, kinds: dict[str, Kept], standard: int, name: str, flat: Flat, *, known: bool) -> None:
        new: Kept | None = "hash" if flat.hashed else kind_of(flat.value)
        old = kinds.get(name)
        if new is None or new == old:
            return
        if old is None:
            room = len(kinds) + standard < self._most
            if flat.hashed or (room and self._contract != "discard"):
                kinds[name] = new
        elif {old, new} == {"integer", "number"}:
            kinds[name] = "number"
        elif "hash" in (old, new):  # neither turns into the other once rows are there
            kinds[name] = old if known else "hash"
        elif not known:  # nothing of it is there yet: take what holds both
            kinds[name] = "json" if "json" in (old, new) else "text"

    def record(self, row: Row, reports: list[str]) -> dict[str, Any]:
        """A row as the warehouse takes it: what fits no column beside it, under the path it came by.

        What may only be kept as a hash, and has no column for one, is left out.
        """
        kinds = self._kinds[row.table]
        record = {name: value for name, value in row.standard.items() if value is not None}
        record.update(row.rest)
        for name, flat in row.values.items():
            kind = kinds.get(name)
            if kind is not None and fits(flat.value, kind) and (kind == "hash" or not flat.hashed):
                record[name] = _as_kind(flat.value, kind)
                continue
            if not flat.hashed:
                record[".".join(flat.path)] = flat.value
            kept = not flat.hashed and self._contract != "discard"
            reports.append(_report(row.table, name, flat, kind, kept=kept))
        return record

    def shape(self, table: str, part: Part, privacy: Privacy) -> Shape:
        """A table as it has come to be."""
        if part == DELIVERIES:
            own_hashed = tuple(one.name for one in MESSAGE_EVENTS.columns if privacy.hashes(one.name))
            return Shape(MESSAGE_EVENTS, hashed=own_hashed)
        kinds = sorted(self._kinds[table].items())
        own = [Column(name, "text" if kind == "hash" else kind, personal=True) for name, kind in kinds]
        made = Table(
            table,
            (*STANDARD[part], *own),
            ("id",),
            ABOUT[part],
            cursor="timestamp" if part == USERS else "",
            persons=PERSONS[part],
            apart=True,
        )
        hashed = [name for name, kind in kinds if kind == "hash"]
        hashed += [column.name for column in STANDARD[part] if hashes(privacy, part, column.name)]
        # New columns of a frozen table were refused before; a value that does not fit must not stop the rest.
        return Shape(
            made, hashed=tuple(hashed), contract="discard" if self._contract == "discard" else "evolve"
        )


def _is_moment(text: str) -> bool:
    return _MOMENT.fullmatch(text) is not None and parse_time(text) is not None


def _as_kind(value: Any, kind: Kept) -> Any:
    """A number or truth value in a column of texts is its own JSON."""
    if kind in ("text", "hash") and type(value) is not str:
        return msgspec.json.encode(value).decode()
    return value


def _report(table: str, name: str, flat: Flat, kind: Kept | None, *, kept: bool) -> str:
    path, became = ".".join(flat.path), "is kept in _extra" if kept else "is left out"
    if kind is None:
        return f"{path} has no column in {table} and {became}"
    return f"{path} does not fit the column {table}.{name} ({kind}) and {became}"
