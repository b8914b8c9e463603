"""Records to Arrow: the rows of a load with typed columns, ready for a target to merge."""

from __future__ import annotations

import hmac
from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
import pyarrow as pa
from msgspec import Raw, Struct

from towpath.errors import TowpathError

from . import growth, salvage
from .loading import Load, Refusal
from .records import Records, Taken
from .table import EXTRA, LINEAGE, Column, Kind, Shape

HASHED_LENGTH = 64
NO_HASH_KEY = "E5600"
FROZEN = "E5601"
HASHED_CURSOR = "E5602"
ARROW: Mapping[Kind, pa.DataType] = {
    "text": pa.string(),
    "integer": pa.int64(),
    "number": pa.float64(),
    "boolean": pa.bool_(),
    "time": pa.timestamp("us", tz="UTC"),
    "date": pa.date32(),
    "json": pa.string(),
}

_encode = msgspec.json.Encoder(order="sorted").encode


class Batch(Struct, frozen=True):
    """What a load comes to: one row for each key, the later of two, and what to tell of it.

    `rows` has the columns kept, in order, and `_extra`; `seen` the key of every record, also of those that
    `passed` below `since`. `grown` are columns that the table did not have, or has as integers so far.
    """

    rows: pa.Table
    seen: pa.Table
    read: int
    passed: int
    refusals: tuple[Refusal, ...]
    newest: float | None
    drift: dict[str, int]
    grown: tuple[Column, ...] = ()


class Reading:
    """Reads what comes for one table, as its shape says, and as it learns from what came before.

    `found` are columns as the target has them: a column keeps the kind it has there, and where the table
    grows, those beyond its own are columns too. Raises `TowpathError` for hashing without a key.
    """

    def __init__(self, shape: Shape, hash_key: str, found: Mapping[str, Kind] | None = None) -> None:
        self.shape = shape
        self._hash_key = hash_key.encode()
        self.columns = _columns(shape, found or {})
        self._hashed = frozenset(shape.hashed)
        if self._hashed and not hash_key:
            raise no_hash_key(shape)
        if shape.table.cursor in self._hashed:
            raise hashed_cursor(shape)
        self._open()

    def _open(self) -> None:
        names = {column.name for column in self.columns}
        left_out = [column for column in self.shape.table.columns if column.name not in names]
        self._records = Records(
            self.columns, self.shape.table.key, left_out=left_out, hashed=self._hashed & names
        )

    def read(self, load: Load) -> Batch:
        """Make the rows of a load. Raises `TowpathError` where the table is frozen and something is new."""
        taken = self._records.take(load.pages)
        grown: tuple[Column, ...] = ()
        if self.shape.contract == "freeze" and taken.drift:
            raise frozen(self.shape, taken.drift)
        if self.shape.contract == "discard":
            taken.extras.clear()
        elif self.shape.table.grows and taken.extras:
            self.columns, grown = growth.grow(self.shape, self.columns, taken)
            if grown:
                self._open()
        return self._batch(load, taken, grown)

    def _batch(self, load: Load, taken: Taken, grown: tuple[Column, ...]) -> Batch:
        cursor = taken.columns.get(self.shape.table.cursor, [])
        times = [at for at in cursor if at is not None]
        keys = [self._column(column, taken) for column in self._key]
        whole = self._table(taken)
        wanted: Sequence[int] = range(taken.count)
        if load.since is not None and cursor:
            since = load.since
            wanted = [row for row, at in enumerate(cursor) if at is None or at >= since]
        passed = taken.count - len(wanted)
        kept = _latest(self._key_lists(taken), wanted)
        return Batch(
            rows=whole if len(kept) == taken.count else whole.take(pa.array(kept, pa.int64())),
            seen=pa.Table.from_arrays(keys, names=[column.name for column in self._key]),
            read=taken.read,
            passed=passed,
            refusals=tuple(taken.refusals),
            newest=max(times, default=None),
            drift=dict(taken.drift),
            grown=grown,
        )

    @property
    def _key(self) -> list[Column]:
        wanted = self.shape.table.key
        return [column for name in wanted for column in self.columns if column.name == name]

    def _key_lists(self, taken: Taken) -> list[list[Any]]:
        return [taken.columns[column.name] for column in self._key]

    def _table(self, taken: Taken) -> pa.Table:
        arrays = [self._column(column, taken) for column in self.columns]
        extras: list[bytes | None] = [None] * taken.count
        for row, extra in taken.extras.items():
            extras[row] = _encode(extra)
        names = [*(column.name for column in self.columns), EXTRA]
        return pa.Table.from_arrays([*arrays, _texts(extras)], names=names)

    def _column(self, column: Column, taken: Taken) -> pa.Array:
        values = taken.columns[column.name]
        if column.name in self._hashed:
            return pa.array([None if one is None else self.hash(one) for one in values], pa.string())
        if column.kind == "time":
            return _times(values)
        if column.kind in {"text", "json"}:
            return _texts(values)
        return pa.array(values, ARROW[column.kind])

    def hash(self, text: str) -> str:
        """The keyed hash that stands for a text: the same in every table."""
        return hashed(self._hash_key, text)


def hashed(key: bytes, text: str) -> str:
    """HMAC-SHA-256 of a text, as hexadecimal digits."""
    return hmac.digest(key, text.encode(), "sha256").hex()


def _columns(shape: Shape, found: Mapping[str, Kind]) -> tuple[Column, ...]:
    """The columns a load fills, as the target has them."""
    columns = [_as_found(column, shape, found) for column in shape.kept]
    if shape.table.grows:
        own = {column.name for column in shape.table.columns} | set(LINEAGE)
        columns += [Column(name, kind) for name, kind in found.items() if name not in own]
    return tuple(columns)


def _as_found(column: Column, shape: Shape, found: Mapping[str, Kind]) -> Column:
    if column.name in shape.hashed:
        return msgspec.structs.replace(column, kind="text")
    return msgspec.structs.replace(column, kind=found.get(column.name, column.kind))


def _latest(keys: Sequence[Sequence[Any]], wanted: Sequence[int]) -> Sequence[int]:
    """Of the rows wanted, the last for each key, in their order."""
    column = keys[0] if len(keys) == 1 else list(zip(*keys, strict=True))
    chosen = {column[row]: row for row in wanted}
    return wanted if len(chosen) == len(wanted) else sorted(chosen.values())


def _times(values: Sequence[float | None]) -> pa.Array:
    micro = [None if at is None else round(at * 1_000_000) for at in values]
    return pa.array(micro, pa.int64()).cast(ARROW["time"])


def _texts(values: Sequence[str | bytes | None]) -> pa.Array:
    try:
        return pa.array(values, pa.string())
    except pa.ArrowInvalid:  # bytes of JSON that are no UTF-8
        sound = [bytes(salvage.sound(Raw(one))) if isinstance(one, bytes) else one for one in values]
        return pa.array(sound, pa.string())


def no_hash_key(shape: Shape) -> TowpathError:
    """The error of a hashed column without the secret for it."""
    return TowpathError(
        f"the table {shape.name} hashes {', '.join(shape.hashed)}, but the warehouse has no hash_key",
        code=NO_HASH_KEY,
        why="without a secret of your own anybody could find the value by trying",
        fix="give the warehouse's account a hash_key, as a secret of at least 16 random characters",
        data="nothing was written",
    )


def hashed_cursor(shape: Shape) -> TowpathError:
    """The error of hashing the column by which what is new is told."""
    return TowpathError(
        f"the table {shape.name} cannot hash {shape.table.cursor}",
        code=HASHED_CURSOR,
        why="it is the time by which new rows are told from known ones",
        fix=f"take {shape.table.cursor} out of the hashed columns",
        data="nothing was written",
    )


def frozen(shape: Shape, drift: Mapping[str, int]) -> TowpathError:
    """The error of a frozen table to which something new came."""
    shown = ", ".join(f"{name} ({count} records)" for name, count in sorted(drift.items())[:10])
    return TowpathError(
        f"the table {shape.name} is frozen, and what came has more or other columns: {shown}",
        code=FROZEN,
        why="its contract is `freeze`",
        fix="look at what is new, then set the contract to `evolve` (kept in _extra) or `discard`",
        data="nothing of this batch was written; it is read again by the next run",
    )
