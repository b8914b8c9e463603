"""What a table of the warehouse is: columns, key, cursor, persons; and how a target keeps it."""

from __future__ import annotations

from typing import Literal, TypeAlias

from msgspec import Struct

Kind: TypeAlias = Literal["text", "integer", "number", "boolean", "time", "date", "json"]
"""`time` is Unix seconds or ISO 8601 in a record and a moment (UTC) in the table; `json` any JSON value."""

Contract: TypeAlias = Literal["evolve", "freeze", "discard"]
"""What becomes of a key that no column has: kept and told of, the table stopped, or left out and told of."""

WORKSPACE = "_workspace"
EXTRA = "_extra"
RUN = "_run_id"
LOADED = "_loaded_at"
DELETED = "_deleted_at"
LINEAGE = (WORKSPACE, EXTRA, RUN, LOADED, DELETED)
"""Columns that every table has beside its own.

`_workspace` names the account a row came from and is part of every key; `_extra` is a JSON object of the keys
that no column has; `_run_id` and `_loaded_at` say by which run and when the row was last changed here, and
`_deleted_at` since when the vendor no longer has it.
"""


class Column(Struct, frozen=True, omit_defaults=True):
    """A column; its value lies at `path` in a record, by default under its own name.

    `personal` marks what may tell who somebody is. With `blank_is_null` an empty text is none.
    """

    name: str
    kind: Kind
    about: str = ""
    path: tuple[str, ...] = ()
    personal: bool = False
    blank_is_null: bool = False


class Table(Struct, frozen=True, omit_defaults=True):
    """A table as its source has it. Times of `cursor` and of `time` columns in records are Unix seconds.

    `key` are the columns (beside `_workspace`) that name a row; `cursor` the column by which what is new is
    told from what is known. `persons` are columns that hold an id of the person a row concerns; when one is
    erased the row goes, or with `blank` loses what is `personal`. Ids in one row are of one person, and join
    what is erased; but with `apart` they join nothing, and a row is of whom the first of `persons` that it
    has names (a shared device has the anonymous id of several); with `anywhere` its workspace is no account,
    so that ids found in any other concern its rows too. With `grows` an unknown key of a record
    becomes a column instead of a part of `_extra`.
    """

    name: str
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    about: str = ""
    cursor: str = ""
    persons: tuple[str, ...] = ()
    blank: bool = False
    apart: bool = False
    anywhere: bool = False
    grows: bool = False

    def column(self, name: str) -> Column:
        """Return a column by its name. Raises `KeyError`."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)


class Shape(Struct, frozen=True, omit_defaults=True):
    """A table as one target keeps it.

    `columns` are those it keeps, all where empty; `hashed` of them hold a keyed hash instead of the value.
    `called` is its name there where it differs. With `remove` a row that vanished is deleted, not marked.
    """

    table: Table
    columns: tuple[str, ...] = ()
    hashed: tuple[str, ...] = ()
    contract: Contract = "evolve"
    called: str = ""
    remove: bool = False

    @property
    def name(self) -> str:
        """Its name in the target."""
        return self.called or self.table.name

    @property
    def kept(self) -> tuple[Column, ...]:
        """The columns that are kept, in the table's order; those of the key always are."""
        wanted = {*self.columns, *self.table.key} if self.columns else None
        return tuple(one for one in self.table.columns if wanted is None or one.name in wanted)
