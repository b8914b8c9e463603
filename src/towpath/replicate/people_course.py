"""The run of the table of people, which are searched for or exported, whichever is cheaper."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec.structs import replace

from ..vendors.customerio import AppApi
from ..warehouse import Warehouse
from .course import Course
from .people import People
from .people_export import PeopleExport
from .reading import Declined, Denied, Door, Missing, Reading, Unreachable, answer, column
from .report import Outcome
from .state import TableRun, TableState, state_prefix

SEARCH, EXPORT = "search", "export"
READINGS: Mapping[str, Reading] = {SEARCH: People(), EXPORT: PeopleExport()}


class PeopleCourse(Course):
    """As any table's run; but where the export fails, people are searched for instead."""

    _searching = False

    async def _attempt(self, now: float) -> tuple[Outcome, str]:
        try:
            return await super()._attempt(now)
        except (Declined, Denied, Missing, Unreachable) as error:
            if self._searching or self.reading is not READINGS[EXPORT]:
                raise
            self.notes.append(f"people could not be exported ({error}); they were searched for instead")
            self._searching = True
            return await super()._attempt(now)

    def _resumable(self, now: float) -> TableRun | None:
        return None if self._searching else super()._resumable(now)

    async def _begun(self, now: float) -> TableRun:
        run = await super()._begun(now)
        return replace(run, by=SEARCH if self._searching else await self._by())

    def _chosen(self, run: TableRun) -> Reading:
        return READINGS.get(run.by, READINGS[SEARCH])

    async def _by(self) -> str:
        options = self.setting.options
        if options.people != "auto":
            return options.people
        return EXPORT if await people_count(self.door) >= options.export_from else SEARCH


async def without_export(warehouse: Warehouse, replication: str, workspace: str) -> None:
    """Forget a run that goes on in an export: whoever was erased since is still in its file."""
    prefix = state_prefix(replication, workspace, "customers")
    state = TableState(prefix, await warehouse.state(prefix))
    run: TableRun | None = state.find("run", TableRun)
    if run is not None and run.by == EXPORT:
        await warehouse.keep(state.without_run())


async def people_count(door: Door) -> int:
    """How many people the account's largest workspace has: which one is the key's own, nobody says.

    0 where it cannot be asked.
    """
    try:
        found = answer(await door.ask(AppApi.workspaces), "workspaces")
        counts: list[Any] = column(found.records, "people")
    except (Declined, Denied, Missing, Unreachable):
        return 0
    return max((count for count in counts if isinstance(count, int)), default=0)
