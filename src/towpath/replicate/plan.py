"""What a run will take, before it is run: requests, rows and time per table (R046)."""

from __future__ import annotations

from collections.abc import Mapping
from math import ceil
from typing import Any, Literal

from msgspec import Struct, convert, json

from ..clock import Clock
from ..vendors.customerio import AppApi
from ..warehouse import Warehouse
from .chains import AppDoor
from .family import listed
from .gate import Gate
from .opening import begun, below
from .people import BATCH, SEARCH_LIMIT
from .people_export import PIECE_BYTES
from .reading import Declined, Denied, Missing, Unreachable, answer
from .report import Options
from .state import Ids, Last, TableState, workspace_prefix
from .tables import REPLICATED

PER_S = 9.5
"""Requests a second that are left of the API's ten, for all that use the account."""
AT_ONCE = 4
EXPORT_REQUESTS = 10
EXPORTED_BYTES = 500
"""A guess at one person's line."""
PAGE = {"messages": 1000, "activities": 100, "segment_memberships": 30_000, "esp_suppressions": 1000}
"""Records per request of the long lists."""
Basis = Literal["counted", "last run", "at least"]
"""Where an estimate comes from: what the API counts, what the last run took, or the requests alone."""


class Estimate(Struct, frozen=True):
    """What one table will take; `rows` is None where nobody can tell."""

    table: str
    requests: int
    rows: int | None
    seconds: float
    basis: Basis


class Plan(Struct, frozen=True):
    """What a run will take; its tables share the requests, so the times add up. `people` are read `by`."""

    tables: tuple[Estimate, ...]
    requests: int
    seconds: float
    people: int
    by: Literal["search", "export"]


class Counts(Struct):
    """What the API counts cheaply: of all workspaces of the account the largest."""

    people: int = 0
    objects: int = 0
    messages_sent: int = 0


async def plan(api: AppApi, warehouse: Warehouse, options: Options, *, clock: Clock) -> Plan:
    """Estimate a run: a request for the workspace, and the lists of tables that others are read under."""
    door = AppDoor(api, clock, Gate(clock, AT_ONCE))
    known = await warehouse.state(workspace_prefix(options.replication, options.workspace))
    planning = Planning(options, known, await counted(door), clock.now())
    names = [shape.table.name for shape in options.shapes if shape.table.name in REPLICATED]
    for parent in dict.fromkeys(REPLICATED[name].parent for name in names):
        if parent:
            planning.parents[parent] = await _listed(door, parent, clock.now())
    tables = tuple(planning.estimate(name) for name in names)
    requests = sum(one.requests for one in tables)
    return Plan(tables, requests, requests / PER_S, planning.counts.people, planning.by)


async def counted(door: AppDoor) -> Counts:
    """Ask what the workspace holds; nothing where the key may not ask."""
    try:
        found = answer(await door.ask(AppApi.workspaces), "workspaces")
    except (Declined, Denied, Missing, Unreachable):
        return Counts()
    workspaces = [_counts(one) for one in _decoded(found.records)]
    return max(workspaces, key=lambda one: one.people, default=Counts())


def _decoded(records: bytes) -> list[Any]:
    found: list[Any] = json.decode(records)
    return found


def _counts(workspace: Any) -> Counts:
    try:
        return convert(workspace, Counts, strict=False)
    except ValueError:
        return Counts()


async def _listed(door: AppDoor, parent: str, now: float) -> Ids:
    try:
        return await listed(door, REPLICATED[parent].reading, now)
    except (Declined, Denied, Missing, Unreachable):
        return Ids("")


class Planning:
    """What is known of a workspace before a run. `parents` are the ids that other tables are read under."""

    def __init__(self, options: Options, known: Mapping[str, str], counts: Counts, now: float) -> None:
        self.options = options
        self.counts = counts
        self.parents: dict[str, Ids] = {}
        self._known = known
        self._now = now

    @property
    def by(self) -> Literal["search", "export"]:
        """How people will be read."""
        if self.options.people == "auto":
            return "export" if self.counts.people >= self.options.export_from else "search"
        return self.options.people

    def estimate(self, name: str) -> Estimate:
        """Estimate one table."""
        prefix = workspace_prefix(self.options.replication, self.options.workspace)
        state = TableState(f"{prefix}{name}/", self._known)
        rows = self._counted_rows(name, state)
        if rows is not None:
            requests = self._requests(name, rows, self._chains(name, state))
            return Estimate(name, requests, rows, requests / PER_S, "counted")
        last: Last | None = state.find("last", Last)
        chains = self._chains(name, state)
        if last is not None:
            requests = max(last.requests, chains)
            return Estimate(name, requests, last.rows, requests / PER_S, "last run")
        return Estimate(name, chains, None, chains / PER_S, "at least")

    def _counted_rows(self, name: str, state: TableState) -> int | None:
        if name in ("customers", "customer_relationships"):
            return self.counts.people
        if name in ("objects", "object_relationships"):
            return self.counts.objects
        first = state.cursor is None and self.options.start_at is None
        return self.counts.messages_sent if name == "messages" and first else None

    def _chains(self, name: str, state: TableState) -> int:
        """How many chains there are: each is a request at least."""
        one = REPLICATED[name]
        run = begun(one, state, self.options, "", self._now)
        if one.parent:
            run = below(run, self.parents.get(one.parent, Ids("")), ready_only=one.ready_parents)
        return len(one.reading.chains(run.wanted))

    def _requests(self, name: str, rows: int, chains: int) -> int:
        if name == "customers" and self.by == "export":
            return EXPORT_REQUESTS + ceil(rows * EXPORTED_BYTES / PIECE_BYTES)
        if name == "customers":
            return max(1, ceil(rows / SEARCH_LIMIT)) + ceil(rows / BATCH)
        if name in PAGE:
            return chains + rows // PAGE[name]
        return rows + max(chains, ceil(rows / BATCH))
