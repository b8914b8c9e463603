"""The job that replicates: workspace after workspace; an attempt that died is gone on with."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import replace
from pydantic import Field, model_validator

from ..destination import Settings
from ..errors import TowpathError
from ..http import Undelivered
from ..jobs import GiveUp, Job, Run, Snooze
from ..outcome import Retry
from ..vendors.customerio import AppApi
from ..warehouse import Lost, Warehouse
from .extract import backfill, replicate
from .report import Options, Report, TableReport, Told
from .settings import StartDate

LOST_S = 30.0
SHORTEST_WAIT_S = 5.0
SHOWN = 12
"""Keys of drift that one line names."""


class ReplicateSettings(Settings):
    """What one run is asked for; as a rule nothing: the tables of its schedule, from their cursors on."""

    tables: tuple[str, ...] = Field(default=(), description="Only these tables.")
    since: StartDate | None = Field(
        default=None, description="Read what changed since then, whatever was read before."
    )
    full: bool = Field(default=False, description="Read everything again.")
    accept_deletes: bool = Field(
        default=False, description="Believe that so many rows are gone, although the guard would hold them."
    )
    window_from: StartDate | None = Field(default=None, description="Read only a span of time: its begin.")
    window_to: StartDate | None = Field(default=None, description="Its end.")

    @model_validator(mode="after")
    def _one_way(self) -> ReplicateSettings:
        if (self.window_from is None) != (self.window_to is None):
            raise ValueError("window_from and window_to belong together")
        if self.window_from and self.window_to and self.window_from >= self.window_to:
            raise ValueError("window_from must lie before window_to")
        if self.window_from and len(self.tables) != 1:
            raise ValueError("a span of time is read of one table: name it in tables")
        return self


class Workspace(Struct, frozen=True):
    """A workspace of a replication: how its API is reached, and what is read of it."""

    name: str
    api: Callable[[], Awaitable[AppApi]]
    options: Options


class Readings:
    """Reads that are under way: they can be broken off, and go on from what the warehouse has."""

    def __init__(self) -> None:
        self._under_way: set[asyncio.Task[Report]] = set()

    async def read(self, reading: Coroutine[Any, Any, Report]) -> Report:
        """Read. Raises `Snooze` where it was broken off."""
        task = asyncio.create_task(reading)
        self._under_way.add(task)
        try:
            await asyncio.wait([task])
        finally:
            task.cancel()
            await asyncio.wait([task])
            self._under_way.discard(task)
        if task.cancelled():
            raise Snooze(SHORTEST_WAIT_S, "somebody was erased: what was read but not written is read again")
        return task.result()

    async def break_off(self) -> None:
        """Drop every page that is read and not yet written; writing that has begun comes to its end."""
        for task in (tasks := list(self._under_way)):
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


class ReplicateJob(Job[ReplicateSettings]):
    """Brings the tables of one replication, or those of one schedule of it, up to date.

    `workspaces` gives what is in force, for the tables that a run asks for; `after` is told of each report.
    """

    kind = "replicate"
    Settings = ReplicateSettings

    def __init__(
        self,
        name: str,
        about: str,
        workspaces: Callable[[ReplicateSettings], list[Workspace]],
        warehouse: Callable[[], Warehouse],
        *,
        key: str,
        clear: Callable[[Warehouse, Workspace], Awaitable[None]],
        after: Callable[[Report], None],
        readings: Readings,
    ) -> None:
        self.about = about  # type: ignore[misc]  # each replication has its own sentence
        self._name = name
        self._key = key
        self._workspaces = workspaces
        self._warehouse = warehouse
        self._clear = clear
        self._after = after
        self._readings = readings

    @property
    def name(self) -> str:
        """`<replication>.replicate`, or with a table behind it where that has a schedule of its own."""
        return self._name

    def key(self, settings: ReplicateSettings) -> str | None:
        """One run of a replication at a time, however it is called: two would read the same twice."""
        return self._key

    async def run(self, run: Run[ReplicateSettings]) -> None:
        """Replicate each workspace; the place inside one is kept in the warehouse, with its rows."""
        done: dict[str, Any] = dict(run.checkpoint or {"ended": [], "cleared": [], "bad": []})
        warehouse = self._warehouse()
        bars = Bars(run)
        for workspace in self._workspaces(run.settings):
            if workspace.name in done["ended"]:
                continue
            if run.settings.full and workspace.name not in done["cleared"]:
                await self._clear(warehouse, workspace)
                done["cleared"].append(workspace.name)
                await run.save(done)
            report = await self._one(run, workspace, warehouse, bars)
            self._after(report)
            done["ended"].append(workspace.name)
            done["bad"] += [
                f"{one.table}: {one.reason or one.outcome}" for one in report.tables if one.outcome != "ok"
            ]
            _tell(run, report)
            await run.save(done)
        if done["bad"]:
            raise GiveUp(f"not everything was read: {'; '.join(done['bad'])}")

    async def _one(
        self, run: Run[ReplicateSettings], workspace: Workspace, warehouse: Warehouse, bars: Bars
    ) -> Report:
        """Replicate one workspace. Raises what the runner knows to try again, or not."""
        try:
            return await self._readings.read(self._read(run, workspace, warehouse, bars))
        except Lost as error:
            raise Snooze(LOST_S, f"the warehouse is out of reach: {error}") from error
        except Undelivered as error:
            raise _ending(error) from error
        except TowpathError as error:
            raise GiveUp("; ".join(part for part in (error.title, error.fix) if part)) from error

    async def _read(
        self, run: Run[ReplicateSettings], workspace: Workspace, warehouse: Warehouse, bars: Bars
    ) -> Report:
        asked, api, clock = run.settings, await workspace.api(), run.clock
        options = replace(workspace.options, run=f"{run.number}-{workspace.name}")
        tell = bars.of(workspace.name)
        if asked.window_from is None or asked.window_to is None:
            return await replicate(api, warehouse, options, clock=clock, progress=tell)
        since, until = asked.window_from.timestamp(), asked.window_to.timestamp()
        (shape,) = options.shapes
        return await backfill(
            api, warehouse, options, shape.table.name, since, until, clock=clock, progress=tell
        )


class Bars:
    """Shows how far the tables of a run are, all workspaces together."""

    def __init__(self, run: Run[Any]) -> None:
        self._run = run
        self._told: dict[tuple[str, str], Told] = {}

    def of(self, workspace: str) -> Callable[[Told], None]:
        """Return what one workspace tells."""
        return lambda told: self._tell(workspace, told)

    def _tell(self, workspace: str, told: Told) -> None:
        before = self._told.get((workspace, told.table))
        self._told[workspace, told.table] = told
        self._run.count(read=told.read - (before.read if before else 0))
        same = [one for (_, table), one in self._told.items() if table == told.table]
        total = sum(one.total or one.read for one in same) if any(one.total for one in same) else None
        ended = all(one.ended for one in same)
        self._run.part(told.table, sum(one.read for one in same), total, unit="rows", ended=ended)
        self._run.progress(sum(one.read for one in self._told.values()), unit="rows")


def _tell(run: Run[Any], report: Report) -> None:
    run.count(
        written=sum(one.written for one in report.tables),
        skipped=sum(one.unchanged + one.passed for one in report.tables),
        failed=sum(one.refused for one in report.tables),
    )
    run.log(f"{report.workspace}: {report.requests} requests in {report.ended_at - report.started_at:.0f} s")
    for table in report.tables:
        run.log(f"{report.workspace} {said(table)}", "info" if table.outcome == "ok" else "error")
        if table.refused:
            run.log(f"{table.table}: {table.refused} records are no rows; see _towpath_refused", "warning")
        if table.drift:
            run.log(f"{table.table}: keys without a column: {_listed(table.drift)}", "warning")
        for note in table.notes:
            run.log(f"{table.table}: {note}", "warning")


def said(table: TableReport) -> str:
    """What became of a table, in one line."""
    gone = f", {table.gone} gone" if table.gone else ""
    counts = f"{table.read} read, {table.written} written, {table.unchanged + table.passed} unchanged{gone}"
    words = {
        "ok": counts,
        "held": f"{counts}: too many for the guard, so nothing was marked; if it is right:  "
        "towpath replicate run --accept-deletes",
        "refused": table.reason,
        "failed": table.reason,
    }
    return f"{table.table}: {table.outcome}: {words[table.outcome]}"


def _listed(drift: Mapping[str, int]) -> str:
    shown = sorted(drift.items(), key=lambda pair: -pair[1])[:SHOWN]
    more = f" and {len(drift) - SHOWN} more" if len(drift) > SHOWN else ""
    return ", ".join(f"{key} ({count})" for key, count in shown) + more


def _ending(error: Undelivered) -> Exception:
    """What a run does when the account itself cannot be asked: wait, or give up."""
    reason = str(getattr(error.outcome, "reason", ""))
    if isinstance(error.outcome, Retry):
        return Snooze(max(error.outcome.after_s or 0.0, SHORTEST_WAIT_S), reason)
    return GiveUp(reason)
