"""Schedules over time: missed runs, jitter, pauses, clocks that jump, and processes that share them."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest

from towpath.jobs import Schedule
from towpath.jobs.timetable import Timetable
from towpath.state import State
from towpath.state.jobs import Beat, Ending, Hold, NewRun
from towpath.testing.fakes import FakeClock

NIGHTLY = Schedule("17 3 * * *", timezone="Europe/Berlin")
HOURLY = Schedule(every_s=3600)


def stamp(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=UTC).timestamp()


class Wall(FakeClock):
    """A clock whose wall time is set by hand."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.at = stamp(text)

    def now(self) -> float:
        return self.at

    def set(self, text: str) -> None:
        self.at = stamp(text)


class Table:
    """A timetable with one job, whose runs end as soon as they are made."""

    def __init__(self, directory: Path, schedule: Schedule, wall: Wall) -> None:
        self.wall = wall
        self.state = State.open(directory)
        self.timetable = Timetable(self.state.jobs, wall)
        self.timetable.plan("job", schedule)
        self.comes: float | None = None

    def tick(self) -> list[int]:
        """Tick; the runs made, which end at once."""
        self.comes = self.timetable.tick(lambda job: NewRun(job, job, "{}", "schedule", self.wall.at))
        made = self.state.jobs.claim("p1", self.wall.at, 30, jobs=["job"], limit=9)
        for row in made:
            self.state.jobs.end(Hold(row.id, row.epoch), Beat(0, "{}"), Ending("succeeded", self.wall.at))
        return [row.id for row in made]

    def at(self, text: str) -> int:
        """Set the clock and tick; how many runs were made."""
        self.wall.set(text)
        return len(self.tick())

    @property
    def next(self) -> str:
        return datetime.fromtimestamp(self.state.jobs.schedules()["job"].next_at, UTC).strftime("%m-%d %H:%M")


@pytest.fixture
def night(tmp_path: Path) -> Table:
    return Table(tmp_path, NIGHTLY, Wall("2026-10-23T12:00:00"))


def test_each_night_also_where_clocks_change(night: Table) -> None:
    assert (night.at("2026-10-24T01:16:59"), night.at("2026-10-24T01:17:00")) == (0, 1)
    assert night.comes == stamp("2026-10-25T02:17:00")  # summer time ends in this night
    assert (night.at("2026-10-25T01:17:00"), night.at("2026-10-25T02:17:00")) == (0, 1)
    assert night.next == "10-26 02:17"


def test_missed_runs_become_one(night: Table) -> None:
    assert night.at("2026-11-20T12:00:00") == 1
    assert night.at("2026-11-20T12:00:05") == 0
    assert night.next == "11-21 02:17"


def test_missed_runs_become_one_after_a_restart(tmp_path: Path) -> None:
    first = Table(tmp_path, HOURLY, Wall("2026-10-23T12:00:00"))
    first.state.close()
    again = Table(tmp_path, HOURLY, Wall("2026-10-25T12:30:00"))
    assert (len(again.tick()), again.next) == (1, "10-25 13:00")


def test_a_clock_that_jumps_forward_runs_once(night: Table) -> None:
    assert night.at("2027-10-24T12:00:00") == 1
    assert night.next == "10-25 01:17"


def test_a_small_step_back_does_not_run_the_same_time_again(night: Table) -> None:
    assert night.at("2026-10-24T01:17:00") == 1
    assert (night.at("2026-10-24T01:16:59"), night.at("2026-10-24T01:17:00")) == (0, 0)
    assert (night.at("2026-10-24T00:10:00"), night.at("2026-10-24T01:17:00")) == (0, 0)
    assert night.at("2026-10-25T02:17:00") == 1


@pytest.mark.parametrize("schedule", [NIGHTLY, HOURLY])
def test_a_year_back_does_not_silence_it_for_a_year(schedule: Schedule, tmp_path: Path) -> None:
    table = Table(tmp_path, schedule, Wall("2026-10-23T12:00:00"))
    assert table.at("2025-10-23T12:00:00") == 0
    assert table.at("2025-10-24T12:00:00") == 1


def test_jitter_delays_within_its_bound_and_moves_no_later_time(tmp_path: Path) -> None:
    table, delays = Table(tmp_path, Schedule(every_s=600, jitter_s=60), Wall("2026-10-23T12:00:00")), set()
    for number in range(1, 40):
        planned = stamp("2026-10-23T12:00:00") + 600 * number
        row = table.state.jobs.schedules()["job"]
        assert (row.planned_at, planned <= row.next_at <= planned + 60) == (planned, True)
        delays.add(row.next_at - planned)
        table.wall.at = row.next_at - 0.001
        assert table.tick() == []
        table.wall.at = row.next_at
        assert len(table.tick()) == 1
    assert len(delays) > 30


def test_what_a_pause_missed_is_not_made_up(night: Table) -> None:
    night.timetable.pause("job", paused=True)
    assert night.state.jobs.schedules()["job"].paused
    assert (night.at("2026-10-30T12:00:00"), night.comes) == (0, None)
    night.timetable.pause("job", paused=False)
    assert not night.state.jobs.schedules()["job"].paused
    assert (night.at("2026-10-30T12:00:01"), night.next) == (0, "10-31 02:17")
    assert night.timetable.pause("other", paused=True) is None


def test_a_changed_schedule_counts_from_now_and_a_pause_stays(night: Table) -> None:
    night.timetable.pause("job", paused=True)
    night.timetable.plan("job", HOURLY)
    row = night.state.jobs.schedules()["job"]
    assert (row.paused, row.spec, row.next_at) == (True, "every 1h", night.wall.at + 3600)
    night.timetable.plan("job", None)
    assert night.state.jobs.schedules() == {}


def test_the_same_schedule_keeps_its_time_over_restarts(night: Table) -> None:
    before = night.next
    night.wall.set("2026-10-23T20:00:00")
    Timetable(night.state.jobs, night.wall).plan("job", NIGHTLY)
    assert night.next == before


def test_two_processes_make_one_run(night: Table) -> None:
    other = Timetable(night.state.jobs, night.wall)
    other.plan("job", NIGHTLY)
    row = night.state.jobs.schedules()["job"]
    assert night.at("2026-10-24T01:17:00") == 1
    new = NewRun("job", None, "{}", "schedule", night.wall.at)
    assert night.state.jobs.fire(row, row, new) is None  # the other saw the row before it was moved
    other.tick(lambda _: new)
    assert len(night.state.jobs.runs()) == 1


def test_a_job_that_cannot_be_made_holds_up_no_other(night: Table) -> None:
    night.timetable.plan("a-broken-one", NIGHTLY)

    def make(job: str) -> NewRun:
        if job == "a-broken-one":
            raise RuntimeError("no key")
        return NewRun(job, job, "{}", "schedule", night.wall.at)

    night.wall.set("2026-10-24T01:17:00")
    assert night.timetable.tick(make) == stamp("2026-10-25T02:17:00")
    assert [row.job for row in night.state.jobs.runs()] == ["job"]


def test_a_schedule_that_comes_while_the_last_run_lives_makes_none(night: Table) -> None:
    assert night.state.jobs.add(NewRun("job", "job", "{}", "hand", night.wall.at - 5)) is not None
    night.wall.set("2026-10-24T01:17:00")
    night.timetable.tick(lambda job: NewRun(job, job, "{}", "schedule", night.wall.at))
    assert (len(night.state.jobs.runs()), night.next) == (1, "10-25 02:17")
