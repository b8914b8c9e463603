"""The jobs of one process: started by schedule or by hand, each run held by a lease, stopped in order."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from typing import Any

import msgspec
import structlog
from msgspec import Struct
from msgspec.structs import replace
from pydantic import SecretStr, ValidationError

from ..clock import Clock
from ..errors import TowpathError
from ..state import JobRuns
from ..state.jobs import FINAL, HELD, WAITING, JobRow, Line, NewRun, ScheduleRow, State
from .execution import LEASE_S, Execution
from .job import Job, Pool
from .run import Kept
from .schedule import Schedule
from .thread import Offload, OneThread
from .timetable import Timetable

POOLS: Mapping[Pool, int] = {"work": 4, "push": 4, "upkeep": 1}
"""How many runs are worked on at once, by pool."""
POLL_S = 5.0
SHORTEST_NAP_S = 0.05
STOP_S = 8.0
PLAINLY = {"extra_forbidden": "is not one of its settings", "missing": "is needed"}

log = structlog.get_logger("towpath.jobs")


class Unknown(TowpathError):
    """No job or run has this name or number."""


class Overview(Struct, frozen=True):
    """A job with its schedule, the runs that live and the last one that ended."""

    job: Job[Any]
    schedule: ScheduleRow | None
    live: Sequence[JobRow]
    last: JobRow | None


class Jobs:
    """Register jobs, then `start`. Without `start` everything can be asked and changed, and nothing runs.

    `alone` says that no other process works on this store, so a lease found at the start belongs to a process
    that died. `redact` takes secrets and addresses out of what runs say.
    """

    def __init__(
        self,
        store: JobRuns,
        clock: Clock,
        *,
        alone: bool = True,
        redact: Callable[[str], str] = str,
        offload: Offload | None = None,
        poll_s: float = POLL_S,
        lease_s: float = LEASE_S,
    ) -> None:
        self.owner = f"pid-{os.getpid()}-{clock.token(4).hex()}"
        self._store = store
        self._clock = clock
        self._alone = alone
        self._redact = redact
        self._thread = OneThread()
        self._offload: Offload = offload or self._thread
        self._poll_s = poll_s
        self._lease_s = lease_s
        self._jobs: dict[str, Job[Any]] = {}
        self._timetable = Timetable(store, clock)
        self._working: dict[int, Execution] = {}
        self._tasks: set[asyncio.Task[State | None]] = set()
        self._wake = asyncio.Event()
        self._loop: asyncio.Task[None] | None = None
        self._stopping = False
        self._cleared = not alone

    # -- life ------------------------------------------------------------------------------------------

    async def register(self, job: Job[Any], schedule: Schedule | None = None) -> None:
        """Make a job known under its name, with its schedule; again to change either."""
        _check(job, scheduled=schedule is not None)
        self._jobs[job.name] = job
        await self._offload(lambda: self._timetable.plan(job.name, schedule))
        self._wake.set()

    async def forget(self, name: str) -> None:
        """Take a job back: its schedule ends, and a run at work stops and keeps its checkpoint."""
        if self._jobs.pop(name, None) is None:
            return
        await self._offload(lambda: self._timetable.plan(name, None))
        for execution in list(self._working.values()):
            if execution.job.name == name:
                execution.stop("stop")

    async def start(self) -> None:
        """Work on what is due, from now on."""
        await self._clear()
        self._loop = asyncio.create_task(self._keep_going())

    async def stop(self) -> None:
        """Let every run end at its next await, within `STOP_S`: checkpoints stay, leases are given back."""
        self._stopping = True
        self._wake.set()
        if self._loop is not None:
            await asyncio.wait({self._loop})  # not cancelled: what it has just claimed must be given back
        for execution in list(self._working.values()):
            execution.stop("stop")
        if self._tasks:
            _, late = await asyncio.wait(self._tasks, timeout=STOP_S)
            if late:
                log.error("a job did not stop; it goes on from its checkpoint later", jobs=len(late))

    def close(self) -> None:
        """End the thread, after `stop`."""
        self._thread.close()

    async def _clear(self) -> None:
        if not self._cleared:
            await self._offload(self._store.expire_leases)
            self._cleared = True

    # -- asking and changing ---------------------------------------------------------------------------

    def job(self, name: str) -> Job[Any]:
        """A registered job. Raises `Unknown`."""
        if name not in self._jobs:
            known = ", ".join(sorted(self._jobs)) or "none"
            raise Unknown(f"there is no job {name!r}", code="E4409", fix=f"known: {known}")
        return self._jobs[name]

    async def launch(
        self, name: str, settings: Mapping[str, Any] | None = None, cause: str = "hand"
    ) -> JobRow:
        """Make a run that starts at once.

        One with the same settings that waits, or whose process died, goes on instead. Raises `Unknown`, or
        `TowpathError` for wrong settings and for a job that is at work.
        """
        job = self.job(name)
        new = self._new(job, _valid(job, settings or {}), cause)
        number = await self._add(new)
        if number is None:
            live = await self._offload(lambda: self._store.live(new.key or ""))
            same = live is not None and (live.job, live.arguments) == (new.job, new.arguments)
            if live is None or not same or not await self._go_on(live.id):
                raise _busy(new.job, live)
            number = live.id
        self._wake.set()
        return await self.find(number)

    async def retry(self, number: int) -> JobRow:
        """Go on, as a new run, from where one ended that failed or was cancelled.

        One that waits, or whose process died, goes on itself. Raises `Unknown`, or
        `TowpathError` for a run that succeeded and for a job that is at work.
        """
        await self._clear()
        row = await self.find(number)
        if row.state == "succeeded":
            raise _finished(row)
        if row.state in FINAL:
            number = await self._again(row)
        elif not await self._go_on(number):
            raise _busy(row.job, row)
        self._wake.set()
        return await self.find(number)

    async def _again(self, row: JobRow) -> int:
        """Make a run of an ended one's settings and checkpoint."""
        job = self.job(row.job)
        settings = _valid(job, msgspec.json.decode(row.arguments))
        new = _beginning_at(row.checkpoint, self._new(job, settings, f"retry of {row.id}"))
        number = await self._add(new)
        if number is None:
            raise _busy(row.job, await self._offload(lambda: self._store.live(new.key or "")))
        return number

    async def _add(self, new: NewRun) -> int | None:
        """Make a run, once those that a dead process left have been looked at; None when one lives."""
        await self._clear()
        held = list(self._working)
        await self._offload(lambda: self._store.sweep(new.now, held))
        return await self._offload(lambda: self._store.add(new))

    async def _go_on(self, number: int) -> bool:
        """Let a living run go on at once: one that waits, or one whose holder went away."""
        now = self._clock.now()
        if await self._offload(lambda: self._store.wake(number, now)):
            return True
        return number not in self._working and await self._offload(lambda: self._store.is_left(number, now))

    async def work(self, number: int) -> JobRow:
        """Work on one run in this process until its attempt ends, for a process that has not started."""
        await self._clear()
        claimed = await self._claim(1, list(self._jobs), only=number)
        if claimed:
            await asyncio.wait({self._begin(claimed[0])})
        return await self.find(number)

    async def cancel(self, number: int) -> JobRow:
        """End a run: at once when nobody works on it, else at the job's next await. Raises `Unknown`."""
        if not self._working:
            await self._clear()
        await self.find(number)
        execution, now = self._working.get(number), self._clock.now()
        held = execution is not None
        state = await self._offload(lambda: self._store.cancel(number, now, held=held))
        if execution is not None and state == "cancelling":
            execution.stop("cancel")
        return await self.find(number)

    async def find(self, number: int) -> JobRow:
        """One run. Raises `Unknown`."""
        row = await self._offload(lambda: self._store.find(number))
        if row is None:
            raise Unknown(f"there is no run {number}", code="E4410", fix="towpath jobs list")
        return row

    async def runs(
        self, name: str | None = None, states: Collection[str] = (), limit: int = 20
    ) -> Sequence[JobRow]:
        """Runs, newest first."""
        return await self._offload(lambda: self._store.runs(name, states, limit))

    async def lines(self, number: int, after: int = 0, limit: int = 1000) -> Sequence[Line]:
        """What a run said after a line, oldest first. Raises `Unknown`."""
        await self.find(number)
        return await self._offload(lambda: self._store.lines(number, after, limit))

    async def pause(self, name: str, *, paused: bool) -> ScheduleRow:
        """Stop or restart a job's schedule; runs by hand and a run at work are not concerned."""
        self.job(name)
        row = await self._offload(lambda: self._timetable.pause(name, paused=paused))
        if row is None:
            fix = f"towpath jobs run {name}"
            raise TowpathError(f"the job {name} has no schedule", code="E5203", fix=fix)
        self._wake.set()
        return row

    async def overview(self) -> Sequence[Overview]:
        """Every registered job, by name."""
        return await self._offload(lambda: [self._overview(name) for name in sorted(self._jobs)])

    def _overview(self, name: str) -> Overview:
        live = self._store.runs(name, (*HELD, *WAITING), 100)
        ended = self._store.runs(name, FINAL, 1)
        return Overview(self._jobs[name], self._store.schedules().get(name), live, next(iter(ended), None))

    async def prune(self, before: float) -> int:
        """Forget runs that ended before a time; how many."""
        return await self._offload(lambda: self._store.prune(before))

    # -- working ---------------------------------------------------------------------------------------

    async def _keep_going(self) -> None:
        while not self._stopping:
            self._wake.clear()
            try:
                nap_s = await self._tick()
            except Exception as error:
                log.error("jobs could not be looked at; again in a moment", error=repr(error))
                nap_s = self._poll_s
            await self._nap(nap_s)

    async def _nap(self, nap_s: float) -> None:
        """Sleep, but not through a call, nor for so long that a clock that jumps goes unnoticed."""
        naps = {
            asyncio.ensure_future(self._clock.sleep(min(max(nap_s, SHORTEST_NAP_S), self._poll_s))),
            asyncio.ensure_future(self._wake.wait()),
        }
        try:
            await asyncio.wait(naps, return_when=asyncio.FIRST_COMPLETED)
        finally:
            for nap in naps:
                nap.cancel()

    async def _tick(self) -> float:
        """Do what is due; seconds until something is due again."""
        planned = await self._offload(lambda: self._timetable.tick(self._scheduled))
        held, now = list(self._working), self._clock.now()
        await self._offload(lambda: self._store.sweep(now, held))
        for pool in POOLS:
            if names := self._with_places([pool]):
                for row in await self._claim(self._places(pool), names):
                    self._begin(row)
        open_to = self._with_places(POOLS)
        waiting = await self._offload(lambda: self._store.soonest(open_to))
        comes = [at for at in (planned, waiting) if at is not None]
        return min(comes, default=now + self._poll_s) - self._clock.now()

    def _places(self, pool: Pool) -> int:
        """How many more runs of a pool may be worked on."""
        return POOLS[pool] - sum(execution.job.pool == pool for execution in self._working.values())

    def _with_places(self, pools: Collection[Pool]) -> list[str]:
        """The jobs of these pools that have a place left."""
        free = {pool for pool in pools if self._places(pool) > 0}
        return [name for name, job in self._jobs.items() if job.pool in free]

    async def _claim(self, limit: int, jobs: Collection[str], only: int | None = None) -> Sequence[JobRow]:
        claim = partial(self._store.claim, self.owner, self._clock.now(), self._lease_s)
        held = list(self._working)
        return await self._offload(lambda: claim(jobs=jobs, held=held, limit=limit, only=only))

    def _begin(self, row: JobRow) -> asyncio.Task[State | None]:
        execution = Execution(
            row,
            self._jobs[row.job],
            self._store,
            self._clock,
            self._offload,
            alone=self._alone,
            redact=self._redact,
            lease_s=self._lease_s,
        )
        self._working[row.id] = execution
        if self._stopping:
            execution.stop("stop")
        task = asyncio.create_task(self._supervise(execution))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def _supervise(self, execution: Execution) -> State | None:
        number = execution.row.id
        try:
            return await execution.supervise()
        except Exception as error:
            log.error("a job's end could not be written; it goes on when its lease runs out",
                      job=execution.job.name, run=number, error=repr(error))  # fmt: skip
            return None
        finally:
            del self._working[number]
            self._wake.set()

    def _scheduled(self, name: str) -> NewRun:
        job = self._jobs[name]
        return self._new(job, job.Settings(), "schedule")

    def _new(self, job: Job[Any], settings: Any, cause: str) -> NewRun:
        arguments = msgspec.json.encode(settings.model_dump(mode="json", exclude_unset=True), order="sorted")
        return NewRun(job.name, job.key(settings), arguments.decode(), cause, self._clock.now())


def _check(job: Job[Any], *, scheduled: bool) -> None:
    """Refuse what would fail only later. Raises `ValueError`: a mistake of the job's author."""
    if job.name.isdecimal():
        raise ValueError(f"a job cannot be called {job.name}: numbers are runs")
    if any(field.annotation is SecretStr for field in job.Settings.model_fields.values()):
        raise ValueError(f"the settings of the job {job.name} hold a secret, and arguments are kept as text")
    if scheduled:
        job.Settings()


def _valid(job: Job[Any], settings: Mapping[str, Any]) -> Any:
    try:
        return job.Settings.model_validate(dict(settings))
    except ValidationError as error:
        said = "; ".join(_complaint(detail) for detail in error.errors(include_url=False))
        known = ", ".join(job.Settings.model_fields) or "it takes none"
        raise TowpathError(
            f"the job {job.name} cannot run with these settings: {said}",
            code="E5201",
            fix=f"its settings: {known}; see  towpath jobs show {job.name}",
            data="Nothing was started.",
        ) from None


def _complaint(detail: Any) -> str:
    place = ".".join(str(part) for part in detail["loc"])
    said = PLAINLY.get(detail["type"], detail["msg"])
    return f"{place}: {said}" if place else said


def _beginning_at(checkpoint: str | None, new: NewRun) -> NewRun:
    """A new run that goes on from a checkpoint, with the progress that belongs to it and lines of its own."""
    if checkpoint is None:
        return new
    kept = msgspec.json.decode(checkpoint, type=Kept)
    kept.progress.said = 0
    kept.progress.rate_per_s = 0.0
    progress = msgspec.json.encode(kept.progress).decode()
    return replace(new, checkpoint=msgspec.json.encode(kept).decode(), progress=progress)


def _finished(row: JobRow) -> TowpathError:
    return TowpathError(
        f"run {row.id} of {row.job} has succeeded: nothing of it is left to do",
        code="E5207",
        fix=f"towpath jobs run {row.job}, or towpath jobs retry RUN with one that failed"
        f" (towpath jobs show {row.job})",
        data="Nothing was started.",
    )


def _busy(name: str, live: JobRow | None) -> TowpathError:
    number, name = (live.id, live.job) if live else ("", name)
    return TowpathError(
        f"the job {name} has a run already: {number} is {live.state if live else 'just ending'}",
        code="E5202",
        why="one run of it lives at a time",
        fix=f"towpath jobs logs {number} --follow, or towpath jobs cancel {number} first",
        data="Nothing was started.",
    )
