"""The runs of jobs, what they said, and schedules: every change is one transaction, and a legal move.

Plain SQL through SQLAlchemy Core, so that it works unchanged on PostgreSQL. A run that is being worked on is
fenced by its `epoch`: each claim raises it, and whoever holds an older one changes nothing any more.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, Literal, TypeAlias

from msgspec import Struct
from sqlalchemy import (
    ColumnElement,
    Connection,
    Engine,
    Select,
    and_,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError

from .tables import job_lines, job_runs, job_schedules

State: TypeAlias = Literal["queued", "running", "snoozed", "cancelling", "succeeded", "failed", "cancelled"]

MOVES: Mapping[str, frozenset[State]] = {
    "queued": frozenset({"queued", "running", "cancelled"}),
    "snoozed": frozenset({"queued", "running", "cancelled"}),
    "running": frozenset({"running", "queued", "snoozed", "cancelling", "cancelled", "succeeded", "failed"}),
    "cancelling": frozenset({"cancelled", "succeeded"}),
    "succeeded": frozenset(),
    "failed": frozenset(),
    "cancelled": frozenset(),
}
"""From each state, those a run may move to. Every UPDATE of a state names the states it may start from."""

FINAL = frozenset(state for state, after in MOVES.items() if not after)
WAITING = ("queued", "snoozed")
HELD = ("running", "cancelling")
SKEW_S = 60.0  # what was written later than this from now was written by another clock


class JobRow(Struct, frozen=True):
    """One run as it is stored. Times are Unix seconds, 0 for what has not happened; JSON is kept as text.

    `attempt` counts claims, `failures` those that failed since the last checkpoint. `due_at` is when it may
    be claimed, `changed_at` when its state changed. `checkpoint` is None before the first save and
    after success.
    """

    id: int
    job: str
    live_key: str | None
    arguments: str
    cause: str
    state: State
    attempt: int
    failures: int
    epoch: int
    owner: str
    lease_until: float
    due_at: float
    created_at: float
    changed_at: float
    started_at: float
    ended_at: float
    checkpoint: str | None
    progress: str
    error: str


class NewRun(Struct, frozen=True):
    """A run to be made; `key` None means that others like it may live beside it.

    `checkpoint` and `progress` are those of the run that it goes on from, if any.
    """

    job: str
    key: str | None
    arguments: str
    cause: str
    now: float
    checkpoint: str | None = None
    progress: str = "{}"


class Hold(Struct, frozen=True):
    """The right to change a run: it ends when somebody else claims the run."""

    run: int
    epoch: int


class Line(Struct, frozen=True):
    """Something a run said; `id` orders all lines."""

    at: float
    level: str
    text: str
    id: int = 0


class Beat(Struct, frozen=True):
    """What a held run writes: it lives until `lease_until`, its progress, and what it said since."""

    lease_until: float
    progress: str
    lines: Sequence[Line] = ()


class Ending(Struct, frozen=True):
    """What became of an attempt. `due_at` counts for `queued` and `snoozed`."""

    state: State
    now: float
    failures: int = 0
    due_at: float = 0.0
    error: str = ""


class ScheduleRow(Struct, frozen=True):
    """When a job comes next: `planned_at` by its schedule, `next_at` with jitter."""

    job: str
    spec: str
    paused: bool
    planned_at: float
    next_at: float


class JobRuns:
    """Reads and writes the rows. Blocks on the disk: call it off the loop."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine

    # -- runs ------------------------------------------------------------------------------------------

    def add(self, new: NewRun) -> int | None:
        """Make a queued run; None when a live one has its key."""
        try:
            with self._engine.begin() as connection:
                return _add(connection, new)
        except IntegrityError:
            return None  # another process was faster

    def find(self, run: int) -> JobRow | None:
        """One run."""
        return self._one(select(job_runs).where(job_runs.c.id == run))

    def live(self, key: str) -> JobRow | None:
        """The live run of a key."""
        return self._one(select(job_runs).where(job_runs.c.live_key == key))

    def runs(self, job: str | None = None, states: Collection[str] = (), limit: int = 20) -> Sequence[JobRow]:
        """Runs, newest first."""
        query = select(job_runs).order_by(job_runs.c.id.desc()).limit(limit)
        query = query if job is None else query.where(job_runs.c.job == job)
        return self._all(query.where(job_runs.c.state.in_(states)) if states else query)

    def wake(self, run: int, now: float) -> bool:
        """Let a waiting run go on now; whether it was waiting."""
        waits = and_(job_runs.c.id == run, job_runs.c.state.in_(WAITING))
        with self._engine.begin() as connection:
            change = update(job_runs).where(waits).values(state="queued", due_at=now, changed_at=now)
            return connection.execute(change).rowcount == 1

    def is_left(self, run: int, now: float) -> bool:
        """Whether a run is at work by its state, but its holder went away: the next claim takes it."""
        left = and_(job_runs.c.id == run, job_runs.c.state == "running", _left(now))
        return self._one(select(job_runs).where(left)) is not None

    def soonest(self, jobs: Collection[str]) -> float | None:
        """When the next waiting run of these jobs is due."""
        waiting = and_(job_runs.c.state.in_(WAITING), job_runs.c.job.in_(jobs))
        with self._engine.connect() as connection:
            return connection.execute(select(func.min(job_runs.c.due_at)).where(waiting)).scalar()

    # -- holding a run ---------------------------------------------------------------------------------

    def claim(
        self,
        owner: str,
        now: float,
        lease_s: float,
        *,
        jobs: Collection[str],
        held: Collection[int] = (),
        limit: int = 1,
        only: int | None = None,
    ) -> Sequence[JobRow]:
        """Take runs that are due, or whose holder's lease ran out; one call, one owner each.

        `held` are those this process works on at the moment: it never takes them from itself, whatever the
        clock says. A run taken from a holder that went away has one failure more.
        """
        with self._engine.begin() as connection:
            found = connection.execute(_claimable(now, jobs, held, limit, only)).all()
            taken = [row for row in found if _take(connection, row, owner, now, lease_s)]
            ids = [row.id for row in taken]
            rows = connection.execute(select(job_runs).where(job_runs.c.id.in_(ids)).order_by(job_runs.c.id))
            return [_row(row) for row in rows]

    def beat(self, hold: Hold, beat: Beat) -> State | None:
        """Say that a held run goes on; its state, or None when it is held no more."""
        return self._held(hold, beat, {})

    def save(self, hold: Hold, beat: Beat, checkpoint: str) -> State | None:
        """Keep a checkpoint with its progress; its state, or None when nothing was written: held no more."""
        return self._held(hold, beat, {"checkpoint": checkpoint, "failures": 0})

    def _held(self, hold: Hold, beat: Beat, more: Mapping[str, Any]) -> State | None:
        values = {"lease_until": beat.lease_until, "progress": beat.progress, **more}
        with self._engine.begin() as connection:
            if connection.execute(update(job_runs).where(_holds(hold)).values(values)).rowcount == 0:
                return None
            _say(connection, hold.run, beat.lines)
            query = select(job_runs.c.state).where(job_runs.c.id == hold.run)
            state: State = connection.execute(query).scalar_one()
            return state

    def end(self, hold: Hold, beat: Beat, ending: Ending) -> State | None:
        """End an attempt and give the run back; where that led, or None when it is held no more.

        A run that somebody cancelled meanwhile does not wait for another attempt.
        """
        with self._engine.begin() as connection:
            query = select(job_runs.c.state).where(_holds(hold)).with_for_update()
            state = connection.execute(query).scalar()
            if state is None:
                return None
            to: State = ending.state if ending.state in MOVES[state] else "cancelled"
            values = {"progress": beat.progress, "failures": ending.failures, "error": ending.error}
            change = update(job_runs).where(_holds(hold))
            connection.execute(change.values(_given_back(to, ending) | values))
            _say(connection, hold.run, beat.lines)
            return to

    # -- stopping --------------------------------------------------------------------------------------

    def cancel(self, run: int, now: float, *, held: bool) -> State | None:
        """Ask a run to end; its state then, None when there is no such run.

        One that nobody works on ends at once. `held` says that this process works on it, whatever its lease.
        """
        left = and_(job_runs.c.state.in_(() if held else HELD), _left(now))
        waits = or_(job_runs.c.state.in_(WAITING), left)
        ended = _given_back("cancelled", Ending("cancelled", now))
        with self._engine.begin() as connection:
            connection.execute(update(job_runs).where(job_runs.c.id == run, waits).values(ended))
            works = and_(job_runs.c.id == run, job_runs.c.state == "running")
            connection.execute(update(job_runs).where(works).values(state="cancelling", changed_at=now))
            return connection.execute(select(job_runs.c.state).where(job_runs.c.id == run)).scalar()

    def sweep(self, now: float, held: Collection[int] = ()) -> int:
        """End runs that were to be cancelled and whose holder went away; how many."""
        left = and_(job_runs.c.state == "cancelling", _left(now), job_runs.c.id.not_in(held))
        with self._engine.begin() as connection:
            values = _given_back("cancelled", Ending("cancelled", now))
            return connection.execute(update(job_runs).where(left).values(values)).rowcount

    def expire_leases(self) -> None:
        """Let every lease run out: for the one process that owns the directory, before it works on any."""
        with self._engine.begin() as connection:
            connection.execute(update(job_runs).where(job_runs.c.state.in_(HELD)).values(lease_until=0.0))

    def prune(self, before: float) -> int:
        """Delete runs that ended before a time, with what they said; how many."""
        old = and_(job_runs.c.state.in_(FINAL), job_runs.c.ended_at < before)
        with self._engine.begin() as connection:
            connection.execute(delete(job_lines).where(job_lines.c.run.in_(select(job_runs.c.id).where(old))))
            return connection.execute(delete(job_runs).where(old)).rowcount

    def lines(self, run: int, after: int = 0, limit: int = 1000) -> Sequence[Line]:
        """What a run said after a line, oldest first."""
        query = select(job_lines).where(job_lines.c.run == run, job_lines.c.id > after)
        with self._engine.connect() as connection:
            rows = connection.execute(query.order_by(job_lines.c.id).limit(limit))
            return [Line(row.at, row.level, row.text, row.id) for row in rows]

    # -- schedules -------------------------------------------------------------------------------------

    def schedules(self) -> Mapping[str, ScheduleRow]:
        """Every schedule by job."""
        with self._engine.connect() as connection:
            rows = connection.execute(select(job_schedules))
            return {row.job: ScheduleRow(*row) for row in rows}

    def plan(self, row: ScheduleRow) -> None:
        """Write a schedule over the job's old one."""
        with self._engine.begin() as connection:
            connection.execute(delete(job_schedules).where(job_schedules.c.job == row.job))
            connection.execute(insert(job_schedules).values(_fields(row)))

    def unplan(self, job: str) -> None:
        """Forget a schedule."""
        with self._engine.begin() as connection:
            connection.execute(delete(job_schedules).where(job_schedules.c.job == job))

    def fire(self, due: ScheduleRow, then: ScheduleRow, new: NewRun) -> int | None:
        """Move a schedule on and make its run, both or neither, once however many processes try.

        The new run's number; None when the schedule was moved by another, or the last run still lives.
        """
        try:
            with self._engine.begin() as connection:
                return _fire(connection, due, then, new)
        except IntegrityError:
            return None  # another process was faster

    def _one(self, query: Select[Any]) -> JobRow | None:
        return next(iter(self._all(query)), None)

    def _all(self, query: Select[Any]) -> Sequence[JobRow]:
        with self._engine.connect() as connection:
            return [_row(row) for row in connection.execute(query)]


def _row(row: Any) -> JobRow:
    return JobRow(*row)


def _fields(row: Struct) -> dict[str, Any]:
    return {name: getattr(row, name) for name in row.__struct_fields__}


def _add(connection: Connection, new: NewRun) -> int | None:
    if new.key is not None:
        lives = select(job_runs.c.id).where(job_runs.c.live_key == new.key)
        if connection.execute(lives).first() is not None:
            return None
    made = connection.execute(
        insert(job_runs).values(
            job=new.job, live_key=new.key, arguments=new.arguments, cause=new.cause, state="queued",
            attempt=0, failures=0, epoch=0, owner="", lease_until=0.0, due_at=new.now, created_at=new.now,
            changed_at=new.now, started_at=0.0, ended_at=0.0, checkpoint=new.checkpoint,
            progress=new.progress, error="",
        )
    )  # fmt: skip
    return int(made.inserted_primary_key[0]) if made.inserted_primary_key else None


def _fire(connection: Connection, due: ScheduleRow, then: ScheduleRow, new: NewRun) -> int | None:
    same = and_(
        job_schedules.c.job == due.job,
        job_schedules.c.next_at == due.next_at,
        job_schedules.c.paused.is_(False),
    )
    values = {"planned_at": then.planned_at, "next_at": then.next_at}
    moved = connection.execute(update(job_schedules).where(same).values(values)).rowcount
    return _add(connection, new) if moved else None


def _claimable(
    now: float, jobs: Collection[str], held: Collection[int], limit: int, only: int | None
) -> Select[Any]:
    went_back = job_runs.c.changed_at > now + SKEW_S
    due = and_(job_runs.c.state.in_(WAITING), or_(job_runs.c.due_at <= now, went_back))
    left = and_(job_runs.c.state == "running", _left(now), job_runs.c.id.not_in(held))
    query = select(job_runs).where(or_(due, left), job_runs.c.job.in_(jobs))
    query = query if only is None else query.where(job_runs.c.id == only)
    return query.order_by(job_runs.c.due_at, job_runs.c.id).limit(limit)


def _left(now: float) -> ColumnElement[bool]:
    """The lease ran out, or was given by a clock that has been set back since."""
    return or_(job_runs.c.lease_until <= now, job_runs.c.changed_at > now + SKEW_S)


def _take(connection: Connection, row: Any, owner: str, now: float, lease_s: float) -> bool:
    unchanged = and_(
        job_runs.c.id == row.id, job_runs.c.epoch == row.epoch, job_runs.c.state == row.state,
        job_runs.c.lease_until == row.lease_until,
    )  # fmt: skip
    values = {
        "state": "running",
        "attempt": row.attempt + 1,
        "failures": row.failures + (row.state == "running"),
        "epoch": row.epoch + 1,
        "owner": owner,
        "lease_until": now + lease_s,
        "started_at": row.started_at or now,
        "changed_at": now,
    }
    return connection.execute(update(job_runs).where(unchanged).values(values)).rowcount == 1


def _holds(hold: Hold) -> Any:
    return and_(job_runs.c.id == hold.run, job_runs.c.epoch == hold.epoch, job_runs.c.state.in_(HELD))


def _given_back(to: State, ending: Ending) -> dict[str, Any]:
    """The columns of a run that nobody holds any more."""
    values: dict[str, Any] = {"state": to, "owner": "", "lease_until": 0.0, "changed_at": ending.now}
    if to not in FINAL:
        return values | {"due_at": ending.due_at}
    values |= {"ended_at": ending.now, "live_key": None}
    return values | ({"checkpoint": None} if to == "succeeded" else {})


def _say(connection: Connection, run: int, lines: Iterable[Line]) -> None:
    rows = [{"run": run, "at": line.at, "level": line.level, "text": line.text} for line in lines]
    if rows:
        connection.execute(insert(job_lines), rows)
