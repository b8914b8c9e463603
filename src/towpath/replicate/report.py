"""What a replication is asked for, and what it says it did."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal, TypeAlias

from msgspec import Struct, field

from ..warehouse import Shape

DAY_S = 86_400.0
HOUR_S = 3600.0
Outcome: TypeAlias = Literal["ok", "held", "refused", "failed"]
"""`held`: read, but more had vanished than the guard lets go; `refused`: the key may not read it."""

PeopleBy: TypeAlias = Literal["auto", "search", "export"]


class Tier(Struct, frozen=True):
    """How far behind its cursor a table is read again, `back_s`, and how often: at most every `every_s`."""

    back_s: float
    every_s: float = 0.0


class Options(Struct, frozen=True, kw_only=True):
    """One workspace into one warehouse: which tables, as what, and how carefully.

    `replication` and `workspace` are the first parts of every key of its state; `workspace` is also the
    column `_workspace`. `shapes` are the tables, under the names of `tables.REPLICATED`. `start_at` (Unix
    seconds) bounds the cursor columns; `starts` and `look_back` say it otherwise per table. When more than
    the share `guard` of a table vanished at once it is `held`, but for the tables that are `approved`. `run`
    names the run: tables that ended well under that name are passed over when it is begun again; without a
    name the run that was cut off within a day goes on. `domains` are the sending domains whose suppressions
    are read; empty asks without one. With `since` this run reads what changed since then, whatever the
    cursors say.
    """

    replication: str
    workspace: str
    shapes: tuple[Shape, ...]
    start_at: float | None = None
    starts: Mapping[str, float] = {}
    look_back: Mapping[str, tuple[Tier, ...]] = {}
    guard: float = 0.2
    approved: tuple[str, ...] = ()
    people: PeopleBy = "auto"
    export_from: int = 20_000
    in_flight: int = 8
    run: str = ""
    domains: tuple[str, ...] = ()
    since: float | None = None


class TableReport(Struct, frozen=True, kw_only=True):
    """What became of one table.

    `read` are records; of these `written` are new or changed, `unchanged` equal to what was there, `passed`
    older than the cursor, `refused` in `_towpath_refused`. `gone` rows vanished at the source (marked, unless
    the table is `held`) of `rows` there were. `cursor` (Unix seconds) is where the next run goes on. `drift`
    counts records by key that no column has.
    """

    table: str
    outcome: Outcome
    reason: str = ""
    read: int = 0
    written: int = 0
    unchanged: int = 0
    passed: int = 0
    refused: int = 0
    gone: int = 0
    rows: int = 0
    requests: int = 0
    seconds: float = 0.0
    cursor: float | None = None
    resumed: bool = False
    drift: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()


class Report(Struct, frozen=True, kw_only=True):
    """What a run did; times are Unix seconds. `passed` are tables that an earlier attempt had ended."""

    run: str
    workspace: str
    started_at: float
    ended_at: float
    requests: int
    tables: tuple[TableReport, ...]
    passed: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        """Whether every table is as it should be."""
        return all(one.outcome == "ok" for one in self.tables)


class Told(Struct, frozen=True):
    """How far a table is: requests answered, records handed on, parts of it done of those known so far.

    `total` is how many records there will be, where that is known.
    """

    table: str
    requests: int
    read: int
    chains_done: int
    chains: int
    total: int | None = None
    ended: Outcome | None = None


Progress: TypeAlias = Callable[[Told], None]


def silent(told: Told) -> None:
    """Tell nobody."""
    del told
