"""One run: the wanted tables of a workspace, read beside each other, each from where it stopped."""

from __future__ import annotations

from collections.abc import Mapping

from ..clock import Clock
from ..vendors.customerio import AppApi
from ..warehouse import Warehouse
from .course import Backfill, Course, Setting, together
from .family import Family
from .gate import Gate
from .gathering import Held
from .people_course import PeopleCourse
from .report import DAY_S, Options, Progress, Report, silent
from .state import Ids, OpenRun, TableState, encoded, state_prefix, workspace_prefix
from .tables import REPLICATED

NAME_BYTES = 8
PEOPLE = "customers"


async def replicate(
    api: AppApi, warehouse: Warehouse, options: Options, *, clock: Clock, progress: Progress = silent
) -> Report:
    """Bring the tables of `options` up to date; what an attempt that was cut off had read is not read again.

    A table that fails does not stop the others: see `TableReport.outcome`. Raises `Lost` when the warehouse
    is out of reach, and `Stopping` when the program stops; called again, it goes on.
    """
    began_at = clock.now()
    await warehouse.prepare(options.shapes)
    prefix = workspace_prefix(options.replication, options.workspace)
    known = await warehouse.state(prefix)
    run, goes_on = _named(TableState(prefix, known).find("run", OpenRun), options, clock)
    await warehouse.keep({f"{prefix}run": encoded(run)})
    states = {name: TableState(f"{prefix}{name}/", known) for name in REPLICATED}
    passed = [name for name in _wanted(options) if goes_on and states[name].find("done", str) == run.id]
    reading = [name for name in _wanted(options) if name not in passed]
    before = _known_ids(states, run.id) if goes_on else {}
    setting = _setting(api, warehouse, options, clock, progress, run.id, reading, before)
    reports = await together(_course(setting, name, states[name]).run() for name in reading)
    await warehouse.keep({f"{prefix}run": None})
    return Report(
        run=run.id,
        workspace=options.workspace,
        started_at=began_at,
        ended_at=clock.now(),
        requests=sum(report.requests for report in reports),
        tables=tuple(reports),
        passed=tuple(passed),
    )


async def backfill(
    api: AppApi,
    warehouse: Warehouse,
    options: Options,
    table: str,
    since: float,
    until: float,
    *,
    clock: Clock,
    progress: Progress = silent,
) -> Report:
    """Read one table's records of `since` to `until` (Unix seconds) again; no cursor moves.

    Nothing is marked as gone. Lists that know no filter of time are read whole, and what is older than
    `since` is left out; a table without a cursor is read whole.
    """
    began_at = clock.now()
    await warehouse.prepare(options.shapes)
    prefix = f"{state_prefix(options.replication, options.workspace, table)}backfill/"
    state = TableState(prefix, await warehouse.state(prefix))
    run = OpenRun(options.run or clock.token(NAME_BYTES).hex(), began_at)
    setting = _setting(api, warehouse, options, clock, progress, run.id, [table], {})
    report = await Backfill(setting, REPLICATED[table], state, since, min(until, began_at)).run()
    return Report(
        run=run.id,
        workspace=options.workspace,
        started_at=began_at,
        ended_at=clock.now(),
        requests=report.requests,
        tables=(report,),
    )


def _named(before: OpenRun | None, options: Options, clock: Clock) -> tuple[OpenRun, bool]:
    """Return the run that this is, and whether it goes on with one that was cut off."""
    if before is not None:
        young = clock.now() - DAY_S <= before.at <= clock.now()
        if before.id == options.run or (young and not options.run):
            return before, True
    return OpenRun(options.run or clock.token(NAME_BYTES).hex(), clock.now()), False


def _course(setting: Setting, name: str, state: TableState) -> Course:
    kind = PeopleCourse if name == PEOPLE else Course
    return kind(setting, REPLICATED[name], state)


def _wanted(options: Options) -> list[str]:
    return [shape.table.name for shape in options.shapes if shape.table.name in REPLICATED]


def _known_ids(states: Mapping[str, TableState], run: str) -> dict[str, Ids]:
    """Return the ids of tables that an earlier attempt of this run read to their end."""
    found = {name: state.find("ids", Ids) for name, state in states.items()}
    return {name: ids for name, ids in found.items() if ids is not None and ids.run == run}


def _setting(
    api: AppApi,
    warehouse: Warehouse,
    options: Options,
    clock: Clock,
    progress: Progress,
    run: str,
    reading: list[str],
    before: Mapping[str, Ids],
) -> Setting:
    parents = frozenset(one.parent for one in REPLICATED.values() if one.name in _wanted(options))
    return Setting(
        api=api,
        warehouse=warehouse,
        options=options,
        clock=clock,
        progress=progress,
        run=run,
        gate=Gate(clock, options.in_flight),
        held=Held(),
        family=Family(reading, before),
        tables=REPLICATED,
        parents=parents,
    )
