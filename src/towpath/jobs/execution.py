"""One claimed run at work: the job's task, the lease kept alive beside it, and what became of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Any, Literal, TypeAlias

import msgspec
import structlog
from pydantic import ValidationError

from ..clock import Clock
from ..state import JobRuns
from ..state.jobs import Beat, Ending, Hold, JobRow, Line, State
from .job import GiveUp, Job, Snooze
from .run import LeaseLost, Run, Said
from .thread import Offload
from .words import reason_of, wish_s

LEASE_S = 30.0
BEAT_S = 1.0
END_ALONE_S = 600.0
JITTER = 0.2

Why: TypeAlias = Literal["", "cancel", "stop", "lost"]

log = structlog.get_logger("towpath.jobs")


class Execution:
    """Works on a run that this process has claimed, from `supervise` to its end.

    The lease is renewed while the task runs. When it cannot be renewed, the task is stopped before the lease
    ends by this process's own monotonic clock, so that the next holder never meets it. `alone` says that
    there can be no other holder: then the task goes on however long the disk refuses.
    """

    def __init__(
        self,
        row: JobRow,
        job: Job[Any],
        store: JobRuns,
        clock: Clock,
        offload: Offload,
        *,
        alone: bool = False,
        redact: Callable[[str], str] = str,
        lease_s: float = LEASE_S,
    ) -> None:
        self.row = row
        self.job = job
        self.why: Why = ""
        self._hold = Hold(row.id, row.epoch)
        self._store = store
        self._clock = clock
        self._offload = offload
        self._alone = alone
        self._redact = redact
        self._taken = False
        self._lease_s = lease_s
        self._renew_s = lease_s / 3
        self._task: asyncio.Task[None] | None = None
        self._renewed_s = clock.monotonic()
        self._run: Run[Any]

    async def supervise(self) -> State | None:
        """Run the job to the end of this attempt; where that led, None when the lease was lost."""
        self._run = self._make_run(self.row.arguments)
        self._task = asyncio.create_task(self._work())
        if self.why:
            self._task.cancel()
        beats = asyncio.create_task(self._keep_alive())
        try:
            await asyncio.wait({self._task})
        finally:
            for task in (self._task, beats):
                task.cancel()
            await asyncio.gather(beats, return_exceptions=True)
        return await self._end(self._task)

    def stop(self, why: Why) -> None:
        """Ask the job to end: `CancelledError` at its next await, once."""
        if self.why:
            return
        self.why = why
        if self._task is not None:
            self._task.cancel()

    def _make_run(self, arguments: str) -> Run[Any]:
        run: Run[Any] = Run(
            self.row.id,
            msgspec.json.decode(arguments),
            self._clock,
            attempt=self.row.attempt,
            kept=self.row.checkpoint,
            persist=self._persist,
            redact=self._redact,
        )
        run.stop_when(self._is_over)
        return run

    async def _work(self) -> None:
        """The job itself, with its arguments read; a run that only ever kills its process is ended here."""
        if self.row.failures > len(self.job.retries_s):
            raise GiveUp(f"its process ended {self.row.failures} times in a row while it ran")
        try:
            self._run.settings = self.job.Settings.model_validate(self._run.settings)
        except ValidationError as error:
            raise GiveUp(f"its arguments are not valid any more: {error.error_count()} errors") from None
        await self.job.run(self._run)

    def _is_over(self) -> bool:
        if not self.why and self._unrenewed_for(self._lease_s):
            self.why = "lost"
        return bool(self.why)

    def _unrenewed_for(self, span_s: float) -> bool:
        return not self._alone and self._clock.monotonic() - self._renewed_s >= span_s

    # -- the lease -------------------------------------------------------------------------------------

    async def _keep_alive(self) -> None:
        while not self._unrenewed_for(self._lease_s - self._renew_s):
            await self._clock.sleep(min(BEAT_S, self._renew_s))
            if not self._run.changed and self._clock.monotonic() - self._renewed_s < self._renew_s:
                continue
            try:
                await self._beat()
            except LeaseLost:
                return
            except Exception as error:
                log.warning("a job's progress could not be written", job=self.job.name, error=repr(error))
        self.stop("lost")

    async def _beat(self) -> None:
        await self._write(lambda beat: self._store.beat(self._hold, beat))

    async def _persist(self, checkpoint: str) -> None:
        await self._write(lambda beat: self._store.save(self._hold, beat, checkpoint))

    async def _write(self, write: Callable[[Beat], State | None]) -> None:
        """Write with the lease renewed; notices who cancelled or took the run meanwhile."""
        began_s, said = self._clock.monotonic(), self._run.unsaid()
        beat = self._make_beat(said)
        self._run.changed = False
        try:
            state = await self._offload(lambda: write(beat))
        except Exception:
            self._run.lines[:0] = said
            self._run.changed = True
            raise
        if state is None:
            self._taken = True
            self.stop("lost")
            raise LeaseLost
        self._renewed_s = began_s
        if state == "cancelling":
            self.stop("cancel")

    def _make_beat(self, said: Sequence[Said]) -> Beat:
        progress = msgspec.json.encode(self._run.measured()).decode()
        lines = [Line(line.at, line.level, line.text) for line in said]
        return Beat(self._clock.now() + self._lease_s, progress, lines)

    # -- the end ---------------------------------------------------------------------------------------

    async def _end(self, task: asyncio.Task[None]) -> State | None:
        ending = self._ending(task)
        if ending is None:
            log.warning("a job lost its lease: it goes on elsewhere", job=self.job.name, run=self.row.id)
            return None
        if ending.error:
            self._run.log(ending.error, "error" if ending.state == "failed" else "warning")
        state = await self._give_back(ending)
        log.info("a job ended" if state else "a job was taken over", job=self.job.name, run=self.row.id,
                 state=state or "", error=ending.error)  # fmt: skip
        return state

    async def _give_back(self, ending: Ending) -> State | None:
        """Write the end; again for a while when the disk refuses, so that it costs the run no failure.

        Not for ever: a run whose very end cannot be written would keep its place until the process ends.
        """
        beat, began_s = self._make_beat(self._run.unsaid()), self._clock.monotonic()
        patience_s = END_ALONE_S if self._alone else self._lease_s
        while True:
            try:
                return await self._offload(lambda: self._store.end(self._hold, beat, ending))
            except Exception as error:
                if self._clock.monotonic() - began_s >= patience_s:
                    raise
                log.warning("a job's end could not be written yet", job=self.job.name, error=repr(error))
            await self._clock.sleep(BEAT_S)

    def _ending(self, task: asyncio.Task[None]) -> Ending | None:
        error = asyncio.CancelledError() if task.cancelled() else task.exception()
        now = self._clock.now()
        if isinstance(error, LeaseLost) or self._taken:
            return None
        if error is None:
            return Ending("succeeded", now)
        said = "" if isinstance(error, asyncio.CancelledError) else self._redact(reason_of(error))
        if self.why == "cancel":
            return Ending("cancelled", now, error=said)
        if self.why in ("stop", "lost"):  # neither is a fault of the job
            return Ending("queued", now, failures=self._failures(), due_at=now, error=said)
        return self._failed(error, said or "it was cancelled from inside", now)

    def _failures(self) -> int:
        """How many attempts failed since the last checkpoint, before this one."""
        return 0 if self._run.saved else self.row.failures

    def _failed(self, error: BaseException, said: str, now: float) -> Ending:
        if isinstance(error, Snooze):
            due_at = now + max(error.after_s, 0.0)
            return Ending("snoozed", now, failures=self._failures(), due_at=due_at, error=said)
        failures = self._failures() + 1
        if isinstance(error, GiveUp) or failures > len(self.job.retries_s):
            return Ending("failed", now, failures=failures, error=said)
        pause_s = self.job.retries_s[failures - 1] * (1 + self._clock.uniform(0, JITTER))
        due_at = now + max(pause_s, wish_s(error))
        return Ending("snoozed", now, failures=failures, due_at=due_at, error=said)
