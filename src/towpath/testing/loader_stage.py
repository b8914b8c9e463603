"""What the contract of loaders plays with: tables, records, and a target that is opened for each test."""

# ruff: noqa: S101 - asserting is what a contract is for, and the tests' names are sentences
from __future__ import annotations

import hmac
from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from towpath.warehouse import (
    DELETED,
    EXTRA,
    Column,
    Load,
    Loader,
    Page,
    Shape,
    Table,
    Wrote,
)

HASH_KEY = "the key of hashed columns"
DAY_S = 86_400.0

PEOPLE = Table(
    "people",
    columns=(
        Column("cio_id", "text"),
        Column("id", "text", personal=True, blank_is_null=True),
        Column("email", "text", personal=True, path=("identifiers", "email")),
        Column("visits", "integer"),
        Column("score", "number"),
        Column("active", "boolean"),
        Column("born", "date", personal=True),
        Column("updated", "time", about="When it was last changed."),
        Column("attributes", "json", personal=True),
    ),
    key=("cio_id",),
    about="Who there is.",
    cursor="updated",
    persons=("cio_id", "id", "email"),
)
SENT = Table(
    "sent",
    columns=(
        Column("id", "integer"),
        Column("cio_id", "text"),
        Column("recipient", "text", personal=True),
        Column("subject", "text"),
        Column("created", "time"),
    ),
    key=("id",),
    cursor="created",
    persons=("cio_id", "recipient"),
)
MEMBERS = Table(
    "members",
    columns=(Column("segment_id", "integer"), Column("cio_id", "text"), Column("since", "time")),
    key=("segment_id", "cio_id"),
    persons=("cio_id",),
)
NOTES = Table(
    "notes",
    columns=(
        Column("id", "integer"),
        Column("cio_id", "text", personal=True),
        Column("text", "text", personal=True),
        Column("stars", "integer"),
    ),
    key=("id",),
    persons=("cio_id",),
    blank=True,
)
VISITS = Table(
    "visits",
    columns=(Column("id", "text"), Column("anonymous_id", "text"), Column("user_id", "text")),
    key=("id",),
    persons=("user_id", "anonymous_id"),
    apart=True,
)
HEARD = Table(
    "heard",
    columns=(Column("id", "integer"), Column("cio_id", "text"), Column("email", "text")),
    key=("id",),
    persons=("cio_id", "email"),
    blank=True,
    anywhere=True,
)
EVENTS = Table("events", columns=(Column("id", "text"),), key=("id",), grows=True)
WORDS = Table("words", columns=(Column("word", "text"),), key=("word",))
TABLES = (PEOPLE, SENT, MEMBERS, NOTES, VISITS, HEARD, EVENTS, WORDS)


def page(*records: Any, **constants: Any) -> Page:
    """One answer with these records."""
    return Page(msgspec.json.encode(records), constants)


def person(cio_id: str, **given: Any) -> dict[str, Any]:
    """A record of `people`."""
    return {"cio_id": cio_id, "updated": 1_700_000_000} | given


def hashed(text: str) -> str:
    """What a hashed column holds in place of a text."""
    return hmac.new(HASH_KEY.encode(), text.encode(), "sha256").hexdigest()


def moment(at: float) -> datetime:
    """A moment by its Unix seconds."""
    return datetime.fromtimestamp(at, UTC)


class LoaderStage(ABC):
    """A target of its own for each test, with `TABLES` prepared."""

    loader: Loader

    @abstractmethod
    def begin(self, directory: Path) -> Loader:
        """Open the target that belongs to this directory with `HASH_KEY`, or make it."""

    @abstractmethod
    def rows(self, table: str) -> Sequence[Mapping[str, Any]]:
        """Every row of a table as the target has it; JSON as text or parsed, times as `datetime`."""

    @pytest.fixture(autouse=True)
    def _place(self, tmp_path: Path) -> Iterator[None]:
        self.directory = tmp_path / "warehouse"
        self.directory.mkdir()
        self.loader = self.begin(self.directory)
        self.loader.prepare([Shape(table) for table in TABLES])
        yield
        self.loader.close()

    def reopen(self) -> None:
        """Close the target and open it again."""
        self.loader.close()
        self.loader = self.begin(self.directory)

    def load(self, table: str, *records: Any, workspace: str = "acme", run: str = "r1", **more: Any) -> Wrote:
        """Load records of one page."""
        return self.loader.load(Load(table, workspace, run, (page(*records),), **more))

    def found(self, table: str) -> dict[Any, dict[str, Any]]:
        """The rows of a table by key (a tuple where it has several columns), times as Unix seconds."""
        key = next(one for one in TABLES if one.name == table).key
        rows = [self._plain(row) for row in self.rows(table)]
        return {row[key[0]] if len(key) == 1 else tuple(row[name] for name in key): row for row in rows}

    def _plain(self, row: Mapping[str, Any]) -> dict[str, Any]:
        plain = dict(row)
        for name, value in plain.items():
            if name in {EXTRA, "attributes"} and isinstance(value, str):
                plain[name] = msgspec.json.decode(value)
            elif isinstance(value, datetime):
                assert value.tzinfo is not None
                plain[name] = value.timestamp()
        return plain

    def alive(self, table: str) -> set[Any]:
        """The keys of the rows that are there and not marked."""
        return {key for key, row in self.found(table).items() if row[DELETED] is None}
