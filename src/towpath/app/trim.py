"""The job that keeps to the retention: messages, dead letters and runs of jobs go when their time is over."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from ..config.model import Retention
from ..jobs import Job, NoSettings, Run
from ..jobs.runner import Jobs
from ..log.sqlite import SqliteStore
from ..state import Reserve, State

if TYPE_CHECKING:
    from datetime import timedelta

STEPS = 5


class Trim(Job[NoSettings]):
    """Drops what is past its retention (D19), and keeps some room of the disk in reserve."""

    kind = "trim"
    about = "Drops messages, dead letters and runs of jobs that are past their retention."
    pool = "upkeep"
    retries_s = (60.0, 600.0, 3600.0)

    def __init__(
        self,
        store: SqliteStore,
        state: State,
        jobs: Jobs,
        reserve: Reserve,
        retention: Callable[[], Retention],
    ) -> None:
        self._store = store
        self._state = state
        self._jobs = jobs
        self._reserve = reserve
        self._retention = retention

    async def run(self, run: Run[NoSettings]) -> None:
        """Five steps, each of which bears repeating; `written` counts what was dropped."""

        def before(keep: timedelta) -> float:
            return run.clock.now() - keep.total_seconds()

        keep = self._retention()
        await asyncio.to_thread(self._reserve.keep)
        self._dropped(run, "messages", await self._store.trim(before(keep.log)))
        self._dropped(run, "dead letters", await self._store.prune(before(keep.dead_letters)))
        stale = await asyncio.to_thread(self._state.prune, run.clock.now())
        self._dropped(run, "facts of sources", stale)
        sends = await asyncio.to_thread(self._state.campaigns.prune, before(keep.jobs))
        self._dropped(run, "pushes", sends)
        self._dropped(run, "runs of jobs", await self._jobs.prune(before(keep.jobs)))

    def _dropped(self, run: Run[NoSettings], what: str, number: int) -> None:
        run.progress(run.state.done + 1, STEPS, "steps")
        run.count(written=number)
        if number:
            run.log(f"{number} {what} dropped")
