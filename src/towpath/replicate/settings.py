"""An entry of `replications:` in towpath.yaml: from which workspaces, into which warehouse, what and when."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from difflib import get_close_matches
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema, model_validator

from ..destination import Settings
from ..jobs.settings import Repeated
from ..units import Duration, Share
from ..warehouse import Contract
from .names import canonical
from .tables import HEARD, REPLICATED

_AMERICAN = re.compile(r"(\d\d)/(\d\d)/(\d{4})").fullmatch


def _several(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


def _day(value: Any) -> datetime:
    """Read `MM/DD/YYYY`, an ISO date or an ISO time; UTC where no zone is said."""
    if isinstance(value, datetime):
        return value
    text = str(value).strip()
    american = _AMERICAN(text)
    try:
        found = datetime.fromisoformat("{2}-{0}-{1}".format(*american.groups()) if american else text)
    except ValueError:
        raise ValueError("is no date; write it as MM/DD/YYYY or YYYY-MM-DD") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)


def _past(value: datetime) -> datetime:
    if value > datetime.now(UTC):
        raise ValueError("lies in the future: nothing would be read before it")
    return value


StartDate: TypeAlias = Annotated[
    datetime,
    BeforeValidator(_day),
    AfterValidator(_past),
    WithJsonSchema({"title": "date", "type": "string", "examples": ["01/31/2025", "2025-01-31"]}),
]
Columns: TypeAlias = tuple[str, ...]


class TableBlock(Repeated):
    """What one table does differently."""

    columns: Columns = Field(default=(), description="Only these columns; those of its key are always there.")
    exclude: Columns = Field(default=(), description="All columns but these.")
    hash: Columns = Field(
        default=(),
        description="Columns that hold a keyed hash (HMAC-SHA-256) instead of the value, so that joins still "
        "work; needs `hash_key` in the warehouse's account.",
    )
    look_back: Duration | None = Field(
        default=None, description="How far behind its cursor each run reads again."
    )
    start_date: StartDate | None = Field(default=None, description="Instead of the replication's.")
    contract: Contract | None = Field(default=None, description="Instead of the replication's.")
    called: str = Field(default="", description="Its name in the warehouse, where it is to have another.")
    enabled: bool = Field(default=True, description="Whether it is read.")


class LookBack(Settings):
    """How far back messages are read again, since opens, clicks and conversions come late."""

    each: Duration = Field(default=timedelta(days=2), description="In each run.")
    daily: Duration = Field(default=timedelta(days=30), description="Once a day.")
    weekly: Duration = Field(default=timedelta(days=180), description="Once a week.")


class ReplicationSettings(Repeated):
    """Customer.io workspaces copied into a warehouse."""

    from_: Annotated[tuple[str, ...], BeforeValidator(_several), Field(min_length=1)] = Field(
        alias="from",
        description="The accounts of the type customerio that are read, each a workspace; they need "
        "app_api_key.",
    )
    to: str = Field(description="The account of the type warehouse that is written.")
    start_date: StartDate | None = Field(
        default=None,
        description="Where the first run begins, `MM/DD/YYYY` or ISO, UTC; without it, with everything the "
        "API still has.",
    )
    tables: dict[str, TableBlock | None] | tuple[str, ...] = Field(
        default=(),
        description="The tables, as a list, or as keys with what each does differently; by default all but "
        "the optional ones. Qlik's, Stitch's and Airbyte's names are understood.",
    )
    contract: Contract = Field(
        default="evolve",
        description="What becomes of a key that no column has: `evolve` keeps it in `_extra`, `discard` "
        "leaves it out, `freeze` stops the table; all three say so.",
    )
    deletes: Literal["mark", "remove"] = Field(
        default="mark",
        description="What becomes of a row that Customer.io no longer has: `_deleted_at` is set, or it goes.",
    )
    guard: Share = Field(
        default=0.2, description="When more than this part of a table is gone at once, a person has to agree."
    )
    people: Literal["auto", "search", "export"] = Field(
        default="auto", description="How people are read: by search, by export, or whichever is cheaper."
    )
    domains: Columns = Field(
        default=(),
        description="Sending domains whose suppressions are read, one after the other; without any, what the "
        "API lists for none.",
    )
    look_back: LookBack = Field(default=LookBack(), description=str(LookBack.__doc__))
    enabled: bool = Field(default=True, description="Whether it runs by itself.")

    @model_validator(mode="after")
    def _known(self) -> ReplicationSettings:
        chosen = self.chosen()
        if isinstance(self.tables, dict) and len(chosen) < len(self.tables):
            raise ValueError(f"names a table twice: {', '.join(self.tables)}")
        for name, block in chosen.items():
            _check_columns(name, block)
        _check_names({name: block.called or name for name, block in chosen.items()})
        return self

    def chosen(self) -> Mapping[str, TableBlock]:
        """The tables by towpath's names, with what each does differently; empty means the usual ones.

        Raises `ValueError` for a name that no table has.
        """
        if isinstance(self.tables, dict):
            return {canonical((name,)).names[0]: block or TableBlock() for name, block in self.tables.items()}
        return {name: TableBlock() for name in canonical(self.tables).names}

    @property
    def notes(self) -> Sequence[str]:
        """How the names of the tables were understood (R040)."""
        return canonical(tuple(self.tables)).notes


def _check_names(called: Mapping[str, str]) -> None:
    """Every table has a name of its own in the warehouse, and none of towpath's."""
    taken = {name: name for name in HEARD}
    for table, name in called.items():
        plain = name.lower()
        if plain.startswith("_towpath_") or not name.isprintable():
            raise ValueError(f"cannot call the table {table} {name!r} in the warehouse")
        if plain in taken:
            raise ValueError(f"calls two tables {name!r} in the warehouse: {taken[plain]} and {table}")
        taken[plain] = table


def _check_columns(name: str, block: TableBlock) -> None:
    if name not in REPLICATED:
        raise ValueError(f"lists {name}, which is not read: reporting webhooks fill it (docs/replication.md)")
    known = [column.name for column in REPLICATED[name].table.columns]
    for key in ("columns", "exclude", "hash"):
        for column in getattr(block, key):
            if column not in known:
                near = get_close_matches(column, known, 1)
                hint = f'did you mean "{near[0]}"?' if near else f"known: {', '.join(known)}"
                raise ValueError(f"has no column {column!r} of the table {name} to put in {key}; {hint}")
    gone = {*REPLICATED[name].table.key} & {*block.exclude}
    if gone:
        raise ValueError(f"cannot do without {', '.join(sorted(gone))}: the key of the table {name}")
