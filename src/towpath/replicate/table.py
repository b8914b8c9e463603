"""What a replicated table is: its columns, and how it is read, told as changed, and told as gone."""

from __future__ import annotations

from typing import Literal

from msgspec import Struct

from ..warehouse import Table
from .reading import Reading
from .report import HOUR_S, Tier


class Replicated(Struct, frozen=True, kw_only=True):
    """A table and how it is read.

    `endpoint` is for people. A table with a `parent` is read under each of its records. With a cursor a run
    begins `look_back` before where the last one ended; with `passes` the whole list is read all the same, and
    what is older is left out. With `vanishes` a complete read tells which rows are gone at the source.
    `aliases` are what Qlik, Stitch, the Singer tap and Airbyte call it. An `optional` table is only read when
    it is named, as it costs a request per record of another. With `ready_parents` those are passed over that
    Customer.io is still building, as what it tells of them is out of date; their rows stay as they are.
    `kept_s` is for how long Customer.io keeps records, where that is short. A `snapshot` has rows per day.
    """

    table: Table
    endpoint: str
    reading: Reading
    parent: str = ""
    passes: bool = False
    vanishes: bool = True
    mode: Literal["merge", "append"] = "merge"
    look_back: tuple[Tier, ...] = (Tier(HOUR_S),)
    aliases: tuple[str, ...] = ()
    optional: bool = False
    ready_parents: bool = False
    kept_s: float = 0.0
    snapshot: bool = False

    @property
    def name(self) -> str:
        """The table's name."""
        return self.table.name

    @property
    def parent_column(self) -> str:
        """The column with the id of the record it is read under; empty where there is none."""
        return getattr(self.reading, "column", "") if self.parent else ""

    @property
    def method(self) -> str:
        """How it is kept up to date, in a few words."""
        if self.table.cursor:
            return f"changes by `{self.table.cursor}`"
        return "a snapshot per day" if self.snapshot else "read whole"
