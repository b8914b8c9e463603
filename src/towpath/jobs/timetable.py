"""Which job is due when: schedules outlive restarts; missed times run once, no time runs twice."""

from __future__ import annotations

from collections.abc import Callable

import structlog

from ..clock import Clock
from ..state import JobRuns
from ..state.jobs import NewRun, ScheduleRow
from .schedule import Schedule
from .words import reason_of

log = structlog.get_logger("towpath.jobs")


class Timetable:
    """The schedules of this process's jobs, in step with the stored ones. Blocks: call it off the loop."""

    def __init__(self, store: JobRuns, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._schedules: dict[str, Schedule] = {}

    def plan(self, job: str, schedule: Schedule | None) -> None:
        """Give a job this schedule, or none; one that changed counts from now on, a pause stays."""
        if schedule is None:
            self._schedules.pop(job, None)
            self._store.unplan(job)
            return
        self._schedules[job] = schedule
        row = self._store.schedules().get(job)
        if row is None or row.spec != schedule.text:
            self._store.plan(self._next(job, schedule, paused=row is not None and row.paused))

    def pause(self, job: str, *, paused: bool) -> ScheduleRow | None:
        """Stop or restart a schedule; what it missed meanwhile is not made up. None without one."""
        row, schedule = self._store.schedules().get(job), self._schedules.get(job)
        if row is None or schedule is None:
            return None
        if row.paused != paused:
            row = self._next(job, schedule, paused=paused)
            self._store.plan(row)
        return row

    def tick(self, make: Callable[[str], NewRun]) -> float | None:
        """Make the runs that are due; when the next one comes, None when none does."""
        now, comes = self._clock.now(), list[float]()
        for job, row in self._store.schedules().items():
            schedule = self._schedules.get(job)
            if schedule is None or row.paused:
                continue
            try:
                comes.append(self._keep(row, schedule, now, make))
            except Exception as error:  # one job's mistake must not hold up the others
                log.error("a job's schedule could not be kept; again soon", job=job, error=reason_of(error))
        return min(comes, default=None)

    def _keep(self, row: ScheduleRow, schedule: Schedule, now: float, make: Callable[[str], NewRun]) -> float:
        """Do what one schedule asks for now; when it comes next."""
        if row.next_at <= now:
            return self._fire(row, schedule, make(row.job))
        if self._is_too_far(row, schedule, now):
            log.warning("the clock went back: a schedule counts from now", job=row.job)
            row = self._next(row.job, schedule)
            self._store.plan(row)
        return row.next_at

    def _fire(self, row: ScheduleRow, schedule: Schedule, new: NewRun) -> float:
        """Make one run for all the times that have passed."""
        then = self._next(row.job, schedule, anchor=row.planned_at)
        if self._store.fire(row, then, new) is None:
            log.info("a schedule came while the last run still lives", job=row.job)
        return then.next_at

    def _next(
        self, job: str, schedule: Schedule, *, paused: bool = False, anchor: float | None = None
    ) -> ScheduleRow:
        now = self._clock.now()
        planned_at = schedule.after(now, now if anchor is None else anchor)
        next_at = planned_at + self._clock.uniform(0, schedule.jitter_s)
        return ScheduleRow(job, schedule.text, paused, planned_at, next_at)

    def _is_too_far(self, row: ScheduleRow, schedule: Schedule, now: float) -> bool:
        """Whether more than two intervals lie before the next run: only a clock that went back does that.

        One interval may, after a small step back: the time that was just run must not run again.
        """
        second = schedule.after(schedule.after(now, now), now)
        return row.planned_at > second
