"""Records of JSON taken apart into columns: the usual ones at speed, odd ones with patience, and learning."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, date, datetime
from operator import attrgetter
from typing import Annotated, Any

import msgspec
from msgspec import UNSET, Raw

from . import salvage
from .fitting import LEAST_INTEGER, MILLISECONDS, MOST_INTEGER, Misfit, fit, named, spelt
from .loading import Page, Refusal
from .table import Column, Kind

MOST_LEARNT = 64  # keys of one object
_LONE_SURROGATE = re.compile(rb"\\ud[89ab]..(?!\\ud[cdef])|(?<!\\ud[89ab]..)\\ud[cdef]", re.IGNORECASE)
_HARD_KEY = re.compile(r'[\\"\x00-\x1f\ud800-\udfff]')
_Integer = Annotated[int, msgspec.Meta(ge=LEAST_INTEGER, le=MOST_INTEGER)]

# Unions with None as objects: these are types that msgspec makes decoders of.
FAST: dict[Kind, Any] = {
    "text": str | None,
    "integer": _Integer | None,
    "number": float | None,
    "boolean": bool | None,
    "time": float | None,
    "date": date | None,
}
ISO: Any = datetime | None


class Node:
    """What is known of the value under a key: columns that are taken from it, and keys below it.

    A node without either is passed over, unless it was `learnt`: then it goes to `_extra`. One that is
    `whole` is a column, if perhaps a left out one, so that nothing below it is unknown. `guarded` is one
    below which something is hashed or left out, so that it never goes to `_extra` as a whole.
    """

    def __init__(self) -> None:
        self.columns: list[Column] = []
        self.below: dict[str, Node] = {}
        self.learnt = False
        self.whole = False
        self.guarded = False

    def at(self, path: Iterable[str], *, guarded: bool) -> Node:
        """Return the node of a path, made where it is not."""
        node = self
        for key in path:
            node = node.below.setdefault(key, Node())
            node.guarded = node.guarded or guarded
        return node


class Taken:
    """Columns of records, as far as they are read: lists of equal length, and what had no place in them.

    `extras` are by row. Texts, integers, numbers and booleans stand as they are, times as Unix seconds, JSON
    as bytes, and a hashed column as the text to be hashed.
    """

    def __init__(self, columns: Sequence[Column]) -> None:
        self.count = 0
        self.read = 0
        self.columns: dict[str, list[Any]] = {column.name: [] for column in columns}
        self.extras: dict[int, dict[str, Any]] = {}
        self.drift: Counter[str] = Counter()
        self.refusals: list[Refusal] = []

    def put_aside(self, row: int, path: Sequence[str], value: Any) -> None:
        """Keep a value of a row that no column takes."""
        place = self.extras.setdefault(row, {})
        for key in path[:-1]:
            place = place.setdefault(key, {})
        place[path[-1]] = value

    def extend(self, columns: dict[str, list[Any]], count: int) -> None:
        """Add rows."""
        for name, values in self.columns.items():
            values.extend(columns.get(name) or [None] * count)
        self.count += count


class Level:
    """An object with known keys as a struct, and how its columns are taken out of many at once."""

    def __init__(
        self, node: Node, path: tuple[str, ...], loose: dict[str, str], hashed: frozenset[str]
    ) -> None:
        self._steps: list[Callable[[Sequence[Any], dict[str, list[Any]], Taken], None]] = []
        self._path = path
        fields: list[tuple[str, Any, Any]] = []
        rename: dict[str, str] = {}
        for index, (key, below) in enumerate(node.below.items()):
            name = f"f{index}"
            rename[name] = key
            kind, default = self._field(name, (*path, key), below, loose, hashed)
            fields.append((name, kind, default))
        self.type = msgspec.defstruct(
            "Record", fields, rename=rename, forbid_unknown_fields=not node.whole, gc=False, module=__name__
        )
        self.empty = self.type()

    def _field(
        self, name: str, path: tuple[str, ...], node: Node, loose: dict[str, str], hashed: frozenset[str]
    ) -> tuple[Any, Any]:
        take = attrgetter(name)
        if node.learnt:
            self._steps.append(_Learnt(take, path))
        elif node.below and not node.columns:
            level = Level(node, path, loose, hashed)
            self._steps.append(_Below(take, level))
            return level.type | None, None
        elif len(node.columns) == 1 and not node.below:
            (column,) = node.columns
            mode = "loose" if column.name in hashed else loose.get(column.name, "")
            if column.kind != "json" and mode != "loose":
                self._steps.append(_Plain(take, column, mode))
                return (ISO if mode == "iso" else FAST[column.kind]), None
        for column in node.columns:
            self._steps.append(_Loose(take, column, hashed=column.name in hashed, path=path))
        if node.columns and node.below:
            self._steps.append(_Within(take, Level(node, path, loose, hashed)))
        return Raw, UNSET

    def take(self, records: Sequence[Any], out: dict[str, list[Any]], taken: Taken) -> None:
        """Put the columns of these records into `out`, and what has no place to `taken`."""
        for step in self._steps:
            step(records, out, taken)


class _Plain:
    """A column whose values come in its own type."""

    def __init__(self, take: Callable[[Any], Any], column: Column, mode: str) -> None:
        self._take = take
        self._column = column
        self._mode = mode

    def __call__(self, records: Sequence[Any], out: dict[str, list[Any]], taken: Taken) -> None:
        values = list(map(self._take, records))
        if self._column.blank_is_null:
            values = [value or None for value in values] if self._column.kind == "text" else values
        if self._mode == "iso":
            values = [None if value is None else _seconds(value) for value in values]
        elif self._column.kind == "time" and any(value and abs(value) > MILLISECONDS for value in values):
            values = [None if value is None else fit("time", value) for value in values]
        out[self._column.name] = values


class _Loose:
    """A column whose values come in several types, or whole as JSON, or are to be hashed."""

    def __init__(
        self, take: Callable[[Any], Any], column: Column, *, hashed: bool, path: tuple[str, ...]
    ) -> None:
        self._take = take
        self._column = column
        self._hashed = hashed
        self._path = path

    def __call__(self, records: Sequence[Any], out: dict[str, list[Any]], taken: Taken) -> None:
        raws = map(self._take, records)
        if self._column.kind == "json" and not self._hashed:
            out[self._column.name] = [
                None if raw is UNSET or (text := bytes(raw)) == b"null" else text for raw in raws
            ]
            return
        values: list[Any] = []
        for row, raw in enumerate(raws, taken.count):
            try:
                values.append(None if raw is UNSET else formed(self._column, raw, hashed=self._hashed))
            except Misfit as misfit:
                values.append(None)
                taken.put_aside(row, self._path, raw)
                taken.drift[f"{'.'.join(self._path)}: {misfit}"] += 1
        out[self._column.name] = values


class _Below:
    """An object below a key, for columns that lie deeper."""

    def __init__(self, take: Callable[[Any], Any], level: Level) -> None:
        self._take = take
        self._level = level

    def __call__(self, records: Sequence[Any], out: dict[str, list[Any]], taken: Taken) -> None:
        empty = self._level.empty
        self._level.take(
            [empty if (one := self._take(record)) is None else one for record in records], out, taken
        )


class _Within:
    """An object that is a column itself and has columns below it."""

    def __init__(self, take: Callable[[Any], Any], level: Level) -> None:
        self._take = take
        self._level = level
        self._decode = msgspec.json.Decoder(level.type | None).decode

    def __call__(self, records: Sequence[Any], out: dict[str, list[Any]], taken: Taken) -> None:
        empty, decode = self._level.empty, self._decode
        found = [
            empty if (raw := self._take(record)) is UNSET else decode(raw) or empty for record in records
        ]
        self._level.take(found, out, taken)


class _Learnt:
    """A key that no column has but that came before."""

    def __init__(self, take: Callable[[Any], Any], path: tuple[str, ...]) -> None:
        self._take = take
        self._path = path
        self._name = ".".join(path)

    def __call__(self, records: Sequence[Any], out: dict[str, list[Any]], taken: Taken) -> None:
        for row, raw in enumerate(map(self._take, records), taken.count):
            if raw is not UNSET:
                taken.put_aside(row, self._path, raw)
                taken.drift[self._name] += 1


def _seconds(moment: datetime) -> float:
    return (moment if moment.tzinfo else moment.replace(tzinfo=UTC)).timestamp()


def formed(column: Column, raw: Raw, *, hashed: bool) -> Any:
    """A value in the form of its column, or None; where it is to be hashed, its text. Raises `Misfit`."""
    value = salvage.value(raw)
    if value is None or (column.blank_is_null and value == ""):
        return None
    if hashed:
        return spelt(value)
    return bytes(salvage.sound(raw)) if column.kind == "json" else fit(column.kind, value)


class Records:
    """Takes the records of one table apart, and learns from those that are not as expected.

    `columns` are those kept; `left_out` are known but passed over.
    """

    def __init__(
        self,
        columns: Sequence[Column],
        key: Sequence[str],
        *,
        left_out: Sequence[Column] = (),
        hashed: Iterable[str] = (),
    ) -> None:
        self.columns = tuple(columns)
        self._by_name = {column.name: column for column in columns}
        self._key = tuple(key)
        self._hashed = frozenset(hashed)
        self._loose: dict[str, str] = {}
        self._root = Node()
        for column in columns:
            node = self._root.at(path_of(column), guarded=column.name in self._hashed)
            node.columns.append(column)
            node.whole = True
        for column in left_out:
            self._root.at(path_of(column), guarded=True).whole = True
        self._hard = any(_HARD_KEY.search(key) for column in columns for key in path_of(column))
        self._learn()

    def _learn(self) -> None:
        """Make the fast path anew from what is known."""
        if not self._hard:
            self._level = Level(self._root, (), self._loose, self._hashed)
            self._decode = msgspec.json.Decoder(list[self._level.type] | None).decode  # type: ignore[name-defined]
        self._learned = False

    def take(self, pages: Iterable[Page]) -> Taken:
        """Take apart every page. Records without their key are refused."""
        taken = Taken(self.columns)
        for page in pages:
            if page.wrap or self._hard or not self._fast(page, taken):
                self._slow(page, taken)
            if self._learned:
                self._learn()
        return taken

    def _fast(self, page: Page, taken: Taken) -> bool:
        """Take a page of records that are as expected; False where one is not, and nothing was taken."""
        raw = page.records
        if b"\\ud" in raw and _LONE_SURROGATE.search(raw):
            return False
        drift = taken.drift.copy()
        out: dict[str, list[Any]] = {}
        try:
            records = self._decode(raw) or []
            self._level.take(records, out, taken)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError, Misfit):
            return self._undone(taken, drift)
        self._constants(page, out, len(records), taken)
        if any(None in out[name] for name in self._key):
            return self._undone(taken, drift)
        taken.extend(out, len(records))
        taken.read += len(records)
        return True

    def _undone(self, taken: Taken, drift: Counter[str]) -> bool:
        taken.drift = drift
        for row in [row for row in taken.extras if row >= taken.count]:
            del taken.extras[row]
        return False

    def _constants(self, page: Page, out: dict[str, list[Any]], count: int, taken: Taken) -> None:
        for name, value in page.constants.items():
            if (column := self._by_name.get(name)) is None:
                continue
            raw = Raw(msgspec.json.encode(value))
            out[name] = [formed(column, raw, hashed=name in self._hashed)] * count

    def _slow(self, page: Page, taken: Taken) -> None:
        """Take a page record by record, and learn why that was needed."""
        if not page.records or page.records.strip() == b"null":
            return
        constants: dict[str, list[Any]] = {}
        self._constants(page, constants, 1, taken)
        for record in salvage.split(page.records):
            taken.read += 1
            drift = taken.drift.copy()
            try:
                given = {page.wrap: Raw(record)} if page.wrap else salvage.fields(record)
                row = self._row(given, taken) | {name: one for name, (one,) in constants.items()}
                self._check(row)
            except salvage.Unreadable as refused:
                taken.refusals.append(Refusal(str(refused), self._shown(record), taken.read - 1))
                self._undone(taken, drift)
                continue
            taken.extend({name: [value] for name, value in row.items()}, 1)

    def _shown(self, record: bytes) -> str:
        """A refused record as it came, but for what the table is to hash or to leave out."""
        guarded = {key for key, node in self._root.below.items() if node.guarded}
        if not guarded:
            return record.decode(errors="replace")
        try:
            given = salvage.fields(record)
        except salvage.Unreadable:
            return "{}"  # nobody can say where in it that stands
        return msgspec.json.encode({key: one for key, one in given.items() if key not in guarded}).decode()

    def _check(self, row: dict[str, Any]) -> None:
        missing = [name for name in self._key if row.get(name) is None]
        if missing:
            raise salvage.Unreadable(f"it has no {' and no '.join(missing)} that could be a key")

    def _row(self, given: dict[str, Raw], taken: Taken) -> dict[str, Any]:
        row: dict[str, Any] = {}
        self._walk(self._root, (), given, row, taken)
        return row

    def _walk(
        self, node: Node, path: tuple[str, ...], given: dict[str, Raw], row: dict[str, Any], taken: Taken
    ) -> None:
        for key, raw in given.items():
            below, here = node.below.get(key), (*path, key)
            if below is None or below.learnt:
                self._unknown(node, here, raw, taken)
                continue
            for column in below.columns:
                self._value(column, here, raw, row, taken)
            if below.below:
                self._deeper(below, here, raw, row, taken)

    def _unknown(self, node: Node, path: tuple[str, ...], raw: Raw, taken: Taken) -> None:
        key = path[-1]
        room = key not in node.below and len(node.below) < MOST_LEARNT + len(self.columns)
        if room and not _HARD_KEY.search(key):
            node.below[key] = learnt = Node()
            learnt.learnt = self._learned = True
        taken.put_aside(taken.count, path, salvage.sound(raw))
        taken.drift[".".join(path)] += 1

    def _value(
        self, column: Column, path: tuple[str, ...], raw: Raw, row: dict[str, Any], taken: Taken
    ) -> None:
        hashed = column.name in self._hashed
        try:
            row[column.name] = formed(column, raw, hashed=hashed)
        except Misfit as misfit:
            taken.put_aside(taken.count, path, salvage.sound(raw))
            taken.drift[f"{'.'.join(path)}: {misfit}"] += 1
            self._loosen(column, "loose")
            return
        if column.kind != "json" and not hashed and row[column.name] is not None:
            self._watch(column, raw)

    def _watch(self, column: Column, raw: Raw) -> None:
        """Learn that a column's values come in another type than its own."""
        if column.name in self._loose or not _reads(FAST[column.kind], raw):
            iso = column.kind == "time" and column.name not in self._loose
            if not (self._loose.get(column.name) == "iso" and _reads(ISO, raw)):
                self._loosen(column, "iso" if iso and _reads(ISO, raw) else "loose")

    def _loosen(self, column: Column, mode: str) -> None:
        if mode and self._loose.get(column.name) not in {mode, "loose"}:
            self._loose[column.name] = mode
            self._learned = True

    def _deeper(self, node: Node, path: tuple[str, ...], raw: Raw, row: dict[str, Any], taken: Taken) -> None:
        try:
            given = salvage.fields(bytes(raw))
        except salvage.Unreadable:
            value = salvage.value(raw)
            if value is None or node.whole:
                return
            taken.drift[f"{'.'.join(path)}: {named(value)}"] += 1
            if not node.guarded:
                taken.put_aside(taken.count, path, salvage.sound(raw))
            return
        known = {key: one for key, one in given.items() if key in node.below} if node.whole else given
        self._walk(node, path, known, row, taken)


def path_of(column: Column) -> tuple[str, ...]:
    """Where a record has the column's value."""
    return column.path or (column.name,)


def _reads(kind: Any, raw: Raw) -> bool:
    try:
        msgspec.json.decode(raw, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError):
        return False
    return True
