"""Jobs to try the runner with, on virtual time and a real state.db."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from pydantic import Field

from towpath.destination import Settings
from towpath.jobs import Job, NoSettings, Run
from towpath.jobs.runner import Jobs
from towpath.jobs.thread import inline
from towpath.state import JobRuns, State
from towpath.state.jobs import JobRow
from towpath.testing.loop import LoopClock

PATIENCE = 20_000


class Pages(Settings):
    """How many pages a walk has."""

    pages: int = Field(default=5, description="How many pages there are.")


class Walk(Job[Pages]):
    """Reads numbered pages, one each 10 seconds, and keeps its place."""

    kind = "walk"
    Settings = Pages

    def __init__(self, name: str = "walk", *, key: str | None = "walk") -> None:
        self.seen: list[int] = []
        self.before: Callable[[Run[Pages], int], None] = lambda _, __: None
        self._name = name
        self._key = key

    @property
    def name(self) -> str:
        return self._name

    def key(self, settings: Pages) -> str | None:
        del settings
        return self._key

    async def run(self, run: Run[Pages]) -> None:
        for page in range(run.checkpoint or 0, run.settings.pages):
            self.before(run, page)
            self.seen.append(page)
            await run.clock.sleep(10)
            run.count(read=100)
            await run.save(page + 1, done=page + 1, total=run.settings.pages)


class Once(Job[NoSettings]):
    """Does what it is given."""

    kind = "once"

    def __init__(self, work: Callable[[Run[NoSettings]], Any]) -> None:
        self._work = work

    async def run(self, run: Run[NoSettings]) -> None:
        done = self._work(run)
        if asyncio.iscoroutine(done):
            await done


def clock() -> LoopClock:
    """The clock of the running virtual loop."""
    return LoopClock(asyncio.get_running_loop())


@asynccontextmanager
async def runner(
    directory: Path, *known: Job[Any], alone: bool = True, time: LoopClock | None = None, **options: Any
) -> AsyncIterator[Jobs]:
    """Run jobs on virtual time while the block lasts, then stop in order."""
    state = State.open(directory)
    jobs = Jobs(state.jobs, time or clock(), alone=alone, offload=inline, **options)
    for job in known:
        await jobs.register(job)
    try:
        await jobs.start()
        yield jobs
    finally:
        await jobs.stop()
        jobs.close()
        state.close()


def store(directory: Path) -> JobRuns:
    """The rows, as another process sees them."""
    return State.open(directory).jobs


async def reached(jobs: Jobs, number: int, *states: str) -> JobRow:
    """Wait until a run is in one of the states; virtual days pass in no time."""
    for _ in range(PATIENCE):
        row = await jobs.find(number)
        if row.state in states:
            return row
        await asyncio.sleep(0.5)
    raise AssertionError(f"run {number} is {row.state}, never {' or '.join(states)}")
