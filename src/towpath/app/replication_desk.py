"""What people ask of a replication: cost, rights, freshness, cursors, a fresh start, views."""

from __future__ import annotations

from collections.abc import Awaitable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar

from ..clock import Clock
from ..destination import Check
from ..errors import TowpathError
from ..http import Undelivered
from ..replicate.check import check
from ..replicate.imported import cursors, moment
from ..replicate.job import ReplicateSettings, said
from ..replicate.models import View, views
from ..replicate.plan import Plan, plan
from ..replicate.reconcile import Compared, reconcile
from ..replicate.report import TableReport
from ..replicate.state import Standing, reset, standings, with_cursor
from ..replicate.tables import HEARD, REPLICATED
from ..views import moment as shown
from ..warehouse import Counted, Lost, Shape
from ..warehouse.settings import DuckDbTarget, PostgresTarget

if TYPE_CHECKING:
    from .replications import Replications

BAD = "E4433"
UNANSWERED = "E5640"

T = TypeVar("T")


class ReplicationDesk:
    """Answers about the replications of the file."""

    def __init__(self, parts: Replications, clock: Clock) -> None:
        self._parts = parts
        self._clock = clock

    async def costs(self, name: str, asked: ReplicateSettings) -> Mapping[str, Plan]:
        """What a run would cost, by workspace. Raises `TowpathError` where Customer.io does not answer."""
        entry = self._parts.entry(name)
        found: dict[str, Plan] = {}
        for one in self._parts.workspaces(name, asked):
            api = await _answered(one.api())
            costs = plan(api, self._parts.warehouse(entry.target), one.options, clock=self._clock)
            found[one.name] = await _answered(costs)
        return found

    async def check(self, name: str, tables: Sequence[str]) -> Mapping[str, Sequence[Check]]:
        """Whether the keys may read the tables (R005), by workspace."""
        asked = ReplicateSettings(tables=tuple(tables))
        found: dict[str, Sequence[Check]] = {}
        for one in self._parts.workspaces(name, asked):
            try:
                names = [shape.table.name for shape in one.options.shapes]
                found[one.name] = await check(await one.api(), names, clock=self._clock)
            except Undelivered as error:
                found[one.name] = [Check.failed("the App API answers", error)]
        return found

    async def opens(self, name: str) -> Check:
        """Whether the warehouse can be written."""
        target = self._parts.entry(name).target.target
        line = f"write {target.about}"
        try:
            await self._prepare(name)
        except (Lost, TowpathError) as error:
            return Check(line, ok=False, detail=str(error), reached=False)
        return Check(line, ok=True)

    async def standing(self, name: str) -> Mapping[str, Any]:
        """How full and how fresh each table is (R052: beside what Customer.io counts itself)."""
        entry = self._parts.entry(name)
        kept = await self.kept(name)
        counted = await self._parts.warehouse(entry.target).counts()
        stood = {
            (workspace, one.table): one
            for workspace in entry.sources
            for one in standings(kept, name, workspace)
        }
        rows = [
            _line(one, stood.get((one.workspace, one.table)), self._said(name, one))
            for one in counted
            if one.workspace in entry.sources and one.table in REPLICATED
        ]
        return {"tables": rows, "notes": list(entry.settings.notes)}

    async def reconcile(self, name: str) -> Mapping[str, Sequence[Compared]]:
        """Compare row counts with what Customer.io counts itself (R052), by workspace."""
        entry = self._parts.entry(name)
        found: dict[str, Sequence[Compared]] = {}
        for one in self._parts.workspaces(name, ReplicateSettings()):
            api, warehouse = await _answered(one.api()), self._parts.warehouse(entry.target)
            found[one.name] = await _answered(reconcile(api, warehouse, one.options, clock=self._clock))
        return found

    async def kept(self, name: str) -> Mapping[str, str]:
        """What the warehouse keeps of how far a replication's tables were read."""
        return await self._parts.warehouse(self._parts.entry(name).target).state(f"{name}/")

    async def set_cursor(self, name: str, workspace: str | None, table: str, text: str) -> float:
        """Set a table's cursor; where it was set to, Unix seconds. Raises `TowpathError`."""
        at = moment(text)
        if at is None or at > self._clock.now():
            title = f"{text!r} is no moment of the past"
            fix = "write MM/DD/YYYY, an ISO time, or Unix seconds"
            raise TowpathError(title, code=BAD, fix=fix, data="Nothing was changed.")
        (only,) = self._parts.tables(self._parts.entry(name), (table,))
        await self._keep_cursors(name, workspace, {only: at})
        return at

    async def import_state(
        self, name: str, workspace: str | None, text: str, *, dry_run: bool
    ) -> tuple[Mapping[str, float], Sequence[str]]:
        """Take over another tool's cursors: each table's, and notes. Raises `TowpathError`."""
        found = cursors(text, now=self._clock.now())
        if not dry_run:
            await self._keep_cursors(name, workspace, found.cursors)
        return found.cursors, found.notes

    async def _keep_cursors(self, name: str, workspace: str | None, found: Mapping[str, float]) -> None:
        entry = self._parts.entry(name)
        names = list(entry.sources)
        if workspace not in (*names, None) or (workspace is None and len(names) > 1):
            title = (
                f"{name} reads several workspaces" if workspace is None else f"it does not read {workspace!r}"
            )
            raise TowpathError(
                title, code=BAD, fix=f"name one: {', '.join(names)}", data="Nothing was changed."
            )
        one = workspace or names[0]
        await self._parts.at_rest(name)
        await self._prepare(name)
        for table, at in found.items():
            await self._parts.warehouse(entry.target).keep(with_cursor(name, one, table, at))

    async def reset(self, name: str, tables: Sequence[str], *, keep_rows: bool) -> Mapping[str, Any]:
        """Forget how far tables were read, and empty them unless their rows are to stay."""
        entry = self._parts.entry(name)
        chosen = list(self._parts.tables(entry, tables)) if tables else []
        await self._parts.at_rest(name)
        warehouse = self._parts.warehouse(entry.target)
        for workspace in entry.sources:
            await reset(warehouse, name, workspace, chosen, rows=not keep_rows)
        return {"tables": chosen, "rows": "kept" if keep_rows else "removed"}

    async def models(self, name: str, *, dry_run: bool) -> Sequence[View]:
        """Make the ready views over a replication's tables, or say how. Raises `TowpathError`."""
        entry = self._parts.entry(name)
        target = entry.target.target
        if not isinstance(target, DuckDbTarget | PostgresTarget):
            title = f"views can be made in DuckDB and PostgreSQL, not in {target.about}"
            raise TowpathError(title, code=BAD, fix="towpath replicate models --sql prints none either")
        found = views(self._shapes(name), target.kind, target.db_schema)
        if not dry_run:
            await self._prepare(name)
            made = [statement for view in found for statement in view.statements]
            await self._parts.warehouse(entry.target).execute(made)
        return found

    async def _prepare(self, name: str) -> None:
        """Have the tables there: whatever asks of them finds them."""
        await self._parts.warehouse(self._parts.entry(name).target).prepare(self._shapes(name))

    def _shapes(self, name: str) -> Sequence[Shape]:
        """A replication's tables, and those that reporting webhooks fill."""
        first = self._parts.workspaces(name, ReplicateSettings())[0]
        return [*first.options.shapes, *(Shape(table) for table in HEARD.values())]

    def _said(self, name: str, counted: Counted) -> TableReport | None:
        report = self._parts.reports.get((name, counted.workspace))
        return next((one for one in report.tables if one.table == counted.table), None) if report else None


def _line(counted: Counted, stood: Standing | None, last: TableReport | None) -> dict[str, Any]:
    """One table's line of `replicate status`."""
    ended = stood.last if stood else None
    return {
        "workspace": counted.workspace,
        "table": counted.table,
        "rows": counted.rows,
        "deleted": counted.deleted,
        "loaded_at": shown(counted.loaded_at or 0.0),
        "cursor": shown((stood.cursor if stood else None) or 0.0),
        "read_at": shown(ended.at if ended else 0.0),
        "note": "; ".join(_notes(stood, last)),
    }


def _notes(stood: Standing | None, last: TableReport | None) -> Iterator[str]:
    if last is not None and last.outcome != "ok":
        yield said(last)
    if stood is not None and stood.open_run:
        yield f"a run was cut off: {stood.done} of {stood.chains} parts are done, the next one goes on"


async def _answered(asking: Awaitable[T]) -> T:
    try:
        return await asking
    except Undelivered as error:
        reason = str(getattr(error.outcome, "reason", ""))
        raise TowpathError(
            f"Customer.io did not answer: {reason}", code=UNANSWERED, data="Nothing was changed."
        ) from error
