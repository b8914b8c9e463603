"""Runs from start to end on virtual time: progress, cancelling, failing, stopping, leases, one at a time."""

from __future__ import annotations

import asyncio
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pydantic import Field, SecretStr

from towpath.destination import Settings
from towpath.errors import TowpathError
from towpath.http import Undelivered
from towpath.jobs import GiveUp, Job, NoSettings, Progress, Run, Schedule, Snooze
from towpath.jobs.execution import END_ALONE_S, LEASE_S
from towpath.jobs.job import RETRIES_S
from towpath.jobs.run import LINES_MAX
from towpath.jobs.runner import POOLS, Jobs, Unknown
from towpath.jobs.thread import inline
from towpath.outcome import Retry
from towpath.state import State
from towpath.state.jobs import Beat, Hold, JobRow
from towpath.testing.loop import virtual

from .support import PATIENCE, Once, Pages, Walk, clock, reached, runner, store


async def failed(jobs: Jobs, number: int, times: int) -> JobRow:
    """Wait until a run has failed so often."""
    for _ in range(PATIENCE):
        row = await reached(jobs, number, "snoozed")
        if row.failures == times:
            return row
        await asyncio.sleep(1)
    raise AssertionError(f"run {number} failed {row.failures} times, never {times}")


def progress(row: JobRow) -> Progress:
    return msgspec.json.decode(row.progress, type=Progress)


@virtual
async def test_a_run_from_start_to_end(tmp_path: Path) -> None:
    walk = Walk()
    async with runner(tmp_path, walk) as jobs:
        row = await jobs.launch("walk", {"pages": 3})
        assert (row.state, row.cause, row.arguments) == ("queued", "hand", '{"pages":3}')
        done = await reached(jobs, row.id, "succeeded")
        assert (walk.seen, done.attempt, done.checkpoint) == ([0, 1, 2], 1, None)
        assert progress(done).counts.read == 300
        assert 29 <= done.ended_at - done.started_at <= 31
        assert await jobs.runs("walk", ("succeeded",)) == [done]


@virtual
async def test_rate_and_time_left(tmp_path: Path) -> None:
    async with runner(tmp_path, Walk()) as jobs:
        row = await jobs.launch("walk", {"pages": 100})
        await asyncio.sleep(501)
        seen = progress(await jobs.find(row.id))
        assert (seen.done, seen.total) == (50, 100)
        assert seen.rate_per_s == pytest.approx(0.1, rel=0.05)
        assert seen.eta_s == pytest.approx(500, rel=0.05)


@virtual
async def test_cancelled_in_the_middle(tmp_path: Path) -> None:
    walk = Walk()
    async with runner(tmp_path, walk) as jobs:
        row = await jobs.launch("walk")
        await asyncio.sleep(25)
        assert (await jobs.cancel(row.id)).state == "cancelling"
        ended = await reached(jobs, row.id, "cancelled")
        assert (walk.seen, ended.live_key, ended.lease_until) == ([0, 1, 2], None, 0.0)
        assert msgspec.json.decode(ended.checkpoint or "")["state"] == 2
        assert (await jobs.cancel(row.id)).state == "cancelled"  # again changes nothing
        await asyncio.sleep(LEASE_S * 3)
        assert walk.seen == [0, 1, 2]
        again = await jobs.launch("walk")
        assert again.id != row.id


@virtual
async def test_cancelled_by_another_process(tmp_path: Path) -> None:
    """Another process, as the CLI of another machine will be, cancels through the rows alone."""
    walk = Walk()
    async with runner(tmp_path, walk) as jobs:
        row = await jobs.launch("walk", {"pages": 100})
        await asyncio.sleep(25)
        now = (await jobs.find(row.id)).changed_at + 25
        assert store(tmp_path).cancel(row.id, now, held=False) == "cancelling"
        await asyncio.sleep(12)
        assert (await jobs.find(row.id)).state == "cancelled"


@virtual
async def test_cancelled_while_it_waits(tmp_path: Path) -> None:
    def fail(_: Run[NoSettings]) -> None:
        raise Snooze(3600, "the vendor is busy")

    async with runner(tmp_path, Once(fail)) as jobs:
        row = await jobs.launch("once")
        snoozed = await reached(jobs, row.id, "snoozed")
        assert (snoozed.error, snoozed.failures) == ("the vendor is busy", 0)
        assert (await jobs.cancel(row.id)).state == "cancelled"


@virtual
async def test_a_job_may_finish_or_trip_while_it_is_cancelled(tmp_path: Path) -> None:
    async def finish(run: Run[NoSettings]) -> None:
        try:
            await run.clock.sleep(1000)
        except asyncio.CancelledError:
            await run.save("all done")

    async def trip(run: Run[NoSettings]) -> None:
        try:
            await run.clock.sleep(1000)
        except asyncio.CancelledError:
            raise RuntimeError("while cleaning up") from None

    for job, state in ((finish, "succeeded"), (trip, "cancelled")):
        async with runner(tmp_path, Once(job)) as jobs:
            row = await jobs.launch("once")
            await asyncio.sleep(5)
            await jobs.cancel(row.id)
            assert (await reached(jobs, row.id, "succeeded", "cancelled")).state == state


@virtual
async def test_a_job_that_asks_is_told(tmp_path: Path) -> None:
    """A loop that awaits nothing but asks."""

    async def count(run: Run[NoSettings]) -> None:
        while True:
            await asyncio.to_thread(run.check)

    async with runner(tmp_path, Once(count)) as jobs:
        row = await jobs.launch("once")
        await reached(jobs, row.id, "running")
        await jobs.cancel(row.id)
        await reached(jobs, row.id, "cancelled")


@virtual
async def test_a_failing_job_backs_off_and_ends(tmp_path: Path) -> None:
    def fail(_: Run[NoSettings]) -> None:
        raise KeyError("person@example.com")

    async with runner(tmp_path, Once(fail), time=(time := clock()), poll_s=300) as jobs:
        row = await jobs.launch("once")
        for number, pause_s in enumerate(RETRIES_S, 1):
            seen = await failed(jobs, row.id, number)
            assert pause_s * 0.9 <= seen.due_at - seen.changed_at <= pause_s * 1.2
            await asyncio.sleep(seen.due_at - time.now() - 1)
            assert (await jobs.find(row.id)).attempt == number
        ended = await reached(jobs, row.id, "failed")
        assert (ended.attempt, ended.failures) == (len(RETRIES_S) + 1,) * 2
        said = [line.text for line in await jobs.lines(row.id)]
        assert len(said) == len(RETRIES_S) + 1
        assert ended.error == said[-1]
        assert ended.error.startswith("KeyError at fail:")


@virtual
async def test_progress_begins_the_pauses_anew(tmp_path: Path) -> None:
    """A job that fails after each page ends all the same: every attempt gets further."""
    walk = Walk()

    def trip(run: Run[Pages], page: int) -> None:
        if page == (run.checkpoint or 0) and run.saved:
            raise ConnectionError

    walk.before = trip
    async with runner(tmp_path, walk) as jobs:
        row = await jobs.launch("walk", {"pages": 20})
        ended = await reached(jobs, row.id, "succeeded", "failed")
        assert (ended.state, walk.seen, ended.attempt) == ("succeeded", list(range(20)), 20)
        assert progress(ended).counts.read == 2000


@virtual
async def test_what_a_job_raises_decides(tmp_path: Path) -> None:
    answers: list[tuple[Exception, str, str]] = [
        (GiveUp("the list is gone"), "failed", "the list is gone"),
        (TowpathError("no such table", code="E5999"), "snoozed", "E5999: no such table"),
        (Undelivered(Retry("503 busy", after_s=5000.0)), "snoozed", "503 busy"),
    ]
    for error, state, said in answers:

        def fail(_: Run[NoSettings], error: Exception = error) -> None:
            raise error

        async with runner(tmp_path, Once(fail)) as jobs:
            row = await jobs.launch("once")
            seen = await reached(jobs, row.id, "failed", "snoozed")
            assert (seen.state, seen.error) == (state, said)
            if isinstance(error, Undelivered):
                assert seen.due_at - seen.changed_at >= 5000
            await jobs.cancel(row.id)


@virtual
async def test_a_stop_gives_the_run_back_with_its_place(tmp_path: Path) -> None:
    walk = Walk()
    async with runner(tmp_path, walk) as jobs:
        row = await jobs.launch("walk")
        await asyncio.sleep(25)
    left = store(tmp_path).find(row.id)
    assert left is not None
    assert (left.state, left.lease_until, left.failures, left.owner) == ("queued", 0.0, 0, "")
    async with runner(tmp_path, walk) as jobs:
        ended = await reached(jobs, row.id, "succeeded")
    assert (walk.seen, ended.attempt) == ([0, 1, 2, 2, 3, 4], 2)
    assert progress(ended).counts.read == 500


@virtual
async def test_a_job_may_save_while_it_is_stopped(tmp_path: Path) -> None:
    """What a job saves while it is being stopped counts."""

    async def last(run: Run[NoSettings]) -> None:
        if run.checkpoint == "last words":
            return
        try:
            await run.clock.sleep(1000)
        finally:
            await run.save("last words")

    async with runner(tmp_path, Once(last)) as jobs:
        row = await jobs.launch("once")
        await asyncio.sleep(5)
    async with runner(tmp_path, Once(last)) as jobs:
        assert (await reached(jobs, row.id, "succeeded")).attempt == 2


@virtual
async def test_a_stale_holder_is_refused(tmp_path: Path) -> None:
    """One process stands still past its lease; another goes on; the first one's save is refused."""
    found, time = list[object](), clock()
    frozen = asyncio.Event()
    late: list[BaseException] = []

    async def stall(run: Run[NoSettings]) -> None:
        await run.save("first")
        frozen.set()
        await asyncio.shield(asyncio.sleep(0))
        try:
            await run.clock.sleep(1e6)
        except asyncio.CancelledError:
            try:
                await run.save("too late")
            except Exception as error:
                late.append(error)
            raise

    async def go_on(run: Run[NoSettings]) -> None:
        found.append(run.checkpoint)

    async with runner(tmp_path, Once(stall), alone=False, time=time) as one:
        row = await one.launch("once")
        await frozen.wait()
        taken = store(tmp_path).claim("p2", time.now() + LEASE_S + 1, LEASE_S, jobs=["once"])
        assert [(run.id, run.epoch) for run in taken] == [(row.id, 2)]
        await asyncio.sleep(12)  # the first one's next beat finds out
        assert [type(error).__name__ for error in late] == ["LeaseLost"]
        kept = await one.find(row.id)
        assert msgspec.json.decode(kept.checkpoint or "")["state"] == "first"
        assert (kept.state, kept.owner, kept.epoch) == ("running", "p2", 2)
    async with runner(tmp_path, Once(go_on), alone=False, time=time) as two:
        await reached(two, row.id, "succeeded")
    assert found == ["first"]


@virtual
async def test_a_holder_that_cannot_renew_stops_in_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A holder that cannot renew stops by its own clock before the lease ends."""
    ended: list[float] = []
    time = clock()

    async def wait(run: Run[NoSettings]) -> None:
        try:
            await run.clock.sleep(1e6)
        finally:
            ended.append(time.now())

    async with runner(tmp_path, Once(wait), alone=False, time=time) as jobs:
        row = await jobs.launch("once")
        await asyncio.sleep(15)
        lease_until = (await jobs.find(row.id)).lease_until
        refuse(monkeypatch, jobs, "beat", "end")
        await asyncio.sleep(LEASE_S + 5)
        assert [at < lease_until for at in ended] == [True]
        monkeypatch.undo()
        await asyncio.sleep(5)  # it gives the run back by itself, and that is no failure of the job
        again = await jobs.find(row.id)
        assert (again.state, again.attempt, again.failures) == ("running", 2, 0)
        await jobs.cancel(row.id)


@virtual
async def test_alone_it_works_on_however_long_the_disk_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[int] = []

    async def count(run: Run[NoSettings]) -> None:
        for step in range(30):
            run.check()
            steps.append(step)
            run.progress(step)
            await run.clock.sleep(10)

    async with runner(tmp_path, Once(count)) as jobs:
        row = await jobs.launch("once")
        await asyncio.sleep(5)
        refuse(monkeypatch, jobs, "beat", "end")
        await asyncio.sleep(500)  # through the lease, and through the job's end after 300 s
        assert (await jobs.find(row.id)).state == "running"
        monkeypatch.undo()
        ended = await reached(jobs, row.id, "succeeded")
        assert (steps, ended.attempt, ended.failures) == (list(range(30)), 1, 0)


@virtual
async def test_a_run_whose_end_can_never_be_written_fails_some_day(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with runner(tmp_path, Once(lambda _: None)) as jobs:
        refuse(monkeypatch, jobs, "end")
        row = await jobs.launch("once")
        await asyncio.sleep((len(RETRIES_S) + 2) * (END_ALONE_S + LEASE_S + 10))
        monkeypatch.undo()
        assert "its process ended" in (await reached(jobs, row.id, "failed")).error


def refuse(monkeypatch: pytest.MonkeyPatch, jobs: Jobs, *writes: str) -> None:
    """Let these writes fail as on a full disk."""

    def broken(*_: Any) -> None:
        raise OSError("disk")

    for write in writes:
        monkeypatch.setattr(jobs._store, write, broken)


@virtual
async def test_a_clock_that_jumps_disturbs_no_run(tmp_path: Path) -> None:
    """The wall clock jumps while a job is at work: it goes on, once."""
    walk, time = Walk(), clock()
    async with runner(tmp_path, walk, time=time) as jobs:
        row = await jobs.launch("walk", {"pages": 30})
        for jump_s in (86_400.0, -2 * 86_400.0, 3600.0):
            await asyncio.sleep(55)
            time.jump(jump_s)
        ended = await reached(jobs, row.id, "succeeded")
        assert (walk.seen, ended.attempt, ended.epoch) == (list(range(30)), 1, 1)


@virtual
async def test_a_year_back_strands_nothing(tmp_path: Path) -> None:
    """What waits for a time that went a year away goes on; what a dead process held too."""
    time = clock()
    async with runner(tmp_path, Walk(), time=time) as jobs:
        waiting = await jobs.launch("walk")
        await asyncio.sleep(15)
    rows = store(tmp_path)
    [dead] = rows.claim("gone", time.now(), LEASE_S, jobs=["walk"])
    time.jump(-365 * 86_400)
    walk = Walk()
    async with runner(tmp_path, walk, alone=False, time=time) as jobs:
        assert (await reached(jobs, waiting.id, "succeeded")).epoch == dead.epoch + 1


@virtual
async def test_one_live_run_per_key_and_a_few_at_once(tmp_path: Path) -> None:
    free = Walk("free", key=None)
    async with runner(tmp_path, Walk(), Walk("other"), free) as jobs:
        first = await jobs.launch("walk")
        await reached(jobs, first.id, "running")
        for name in ("walk", "other"):  # of one key
            with pytest.raises(TowpathError, match=f"the job walk has a run already: {first.id}") as caught:
                await jobs.launch(name)
            assert caught.value.code == "E5202"
        beside = [await jobs.launch("free", {"pages": 50}) for _ in range(POOLS["work"] + 2)]
        await asyncio.sleep(20)
        states = [(await jobs.find(row.id)).state for row in beside]
        assert (states.count("running"), states.count("queued")) == (POOLS["work"] - 1, 3)
        for row in beside:
            assert (await reached(jobs, row.id, "succeeded")).attempt == 1


class Campaign(Walk):
    """A walk that has its place among campaigns."""

    pool = "push"


class Upkeep(Walk):
    """A walk that keeps things clean."""

    pool = "upkeep"


@pytest.mark.spec("P053")
@virtual
async def test_long_runs_of_one_pool_keep_no_other_waiting(tmp_path: Path) -> None:
    every = [Walk("long", key=None), Campaign("campaign", key=None), Upkeep("tidy", key=None)]
    async with runner(tmp_path, *every) as jobs:
        long = [await jobs.launch("long", {"pages": 500}) for _ in range(POOLS["work"] + 2)]
        await reached(jobs, long[0].id, "running")
        for name in ("campaign", "tidy"):
            first = await jobs.launch(name, {"pages": 2})
            ended = await reached(jobs, first.id, "succeeded")
            assert ended.ended_at - first.due_at < 30
        second = [await jobs.launch("tidy", {"pages": 10}) for _ in range(2)]
        await asyncio.sleep(20)
        assert sorted([(await jobs.find(row.id)).state for row in second]) == ["queued", "running"]
        assert [(await jobs.find(row.id)).state for row in long].count("running") == POOLS["work"]


@virtual
async def test_a_full_pool_is_not_asked_again_and_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with runner(tmp_path, Walk("long", key=None), poll_s=5.0) as jobs:
        for _ in range(POOLS["work"] + 2):
            await jobs.launch("long", {"pages": 500})
        await asyncio.sleep(20)
        looked = Counter[str]()
        sweep = jobs._store.sweep

        def look(*told: Any) -> Any:
            looked["at all"] += 1
            return sweep(*told)

        monkeypatch.setattr(jobs._store, "sweep", look)
        await asyncio.sleep(100)
        assert looked["at all"] <= 21


@virtual
async def test_a_start_by_hand_wakes_the_run_that_waits(tmp_path: Path) -> None:
    def fail(run: Run[NoSettings]) -> None:
        if run.attempt == 1:
            raise Snooze(1e6)

    async with runner(tmp_path, Once(fail)) as jobs:
        row = await jobs.launch("once")
        await reached(jobs, row.id, "snoozed")
        assert (await jobs.launch("once")).id == row.id
        assert (await reached(jobs, row.id, "succeeded")).attempt == 2


@virtual
async def test_a_run_that_kills_its_process_ends(tmp_path: Path) -> None:
    """A run whose process dies each time is not tried for ever."""
    time, rows = clock(), store(tmp_path)
    async with runner(tmp_path, Walk(), time=time):
        pass
    async with runner(tmp_path, Walk(), time=time) as jobs:
        row = await jobs.launch("walk")
        await reached(jobs, row.id, "running")
    for number in range(len(RETRIES_S) + 2):
        [taken] = rows.claim(f"p{number}", time.now() + number * 40, LEASE_S, jobs=["walk"])
        assert taken.failures == number
    walk = Walk()
    time.jump(3600)
    async with runner(tmp_path, walk, time=time) as jobs:
        ended = await reached(jobs, row.id, "failed")
        assert (walk.seen, "its process ended" in ended.error) == ([], True)


@pytest.mark.spec("D08")
@virtual
async def test_what_a_run_says_is_redacted_bounded_and_forgotten(tmp_path: Path) -> None:
    def talk(run: Run[NoSettings]) -> None:
        run.log("the key is hunter2")
        for number in range(LINES_MAX + 10):
            run.log(f"line {number}", "debug")

    async with runner(tmp_path, Once(talk), redact=lambda text: text.replace("hunter2", "***")) as jobs:
        row = await jobs.launch("once")
        await reached(jobs, row.id, "succeeded")
        lines = await jobs.lines(row.id, limit=LINES_MAX * 2)
        assert (lines[0].text, lines[0].level) == ("the key is ***", "info")
        assert len(lines) == LINES_MAX
        assert lines[-1].text.startswith("no more than")
        assert await jobs.lines(row.id, lines[-1].id) == []
        assert await jobs.prune(row.created_at) == 0
        assert await jobs.prune(row.created_at + 1e6) == 1
        with pytest.raises(Unknown):
            await jobs.lines(row.id)
        assert store(tmp_path).lines(row.id) == []


@virtual
async def test_a_schedule_starts_runs(tmp_path: Path) -> None:
    walk = Walk()
    async with runner(tmp_path, poll_s=300) as jobs:
        await jobs.register(walk, Schedule(every_s=3600))
        await asyncio.sleep(3590)
        assert walk.seen == []
        await asyncio.sleep(6 * 3600 - 3500)
        assert [row.cause for row in await jobs.runs("walk", limit=99)] == ["schedule"] * 6
        await jobs.pause("walk", paused=True)
        await asyncio.sleep(6 * 3600)
        assert len(walk.seen) == 6 * 5
        [one] = await jobs.overview()
        assert (one.live, one.last and one.last.state, one.schedule and one.schedule.paused) == (
            [], "succeeded", True
        )  # fmt: skip


@virtual
async def test_a_mistake_is_told_with_its_fix(tmp_path: Path) -> None:
    async with runner(tmp_path, Walk(), Once(lambda _: None)) as jobs:
        for call, code in (
            (jobs.launch("wlak"), "E4409"),
            (jobs.find(99), "E4410"),
            (jobs.cancel(99), "E4410"),
            (jobs.lines(99), "E4410"),
            (jobs.launch("walk", {"pages": "many"}), "E5201"),
            (jobs.launch("walk", {"page": 1}), "E5201"),
            (jobs.launch("once", {"x": 1}), "E5201"),
            (jobs.pause("walk", paused=True), "E5203"),
        ):
            with pytest.raises(TowpathError) as caught:
                await call
            assert (caught.value.code, bool(caught.value.fix)) == (code, True)


@virtual
async def test_a_job_that_cannot_be_is_refused_when_it_is_registered(tmp_path: Path) -> None:

    class Sealed(Settings):
        token: SecretStr = Field(description="A secret.")

    class Secretive(Once):
        Settings = Sealed

    async with runner(tmp_path) as jobs:
        for job, said in ((Walk("17"), "numbers are runs"), (Secretive(lambda _: None), "hold a secret")):
            with pytest.raises(ValueError, match=said):
                await jobs.register(job)


@virtual
async def test_arguments_of_an_older_version_fail_with_a_reason(tmp_path: Path) -> None:
    async with runner(tmp_path, Walk()) as jobs:
        row = await jobs.launch("walk", {"pages": 7})
        await reached(jobs, row.id, "running")

    class Other(Once):
        kind = "walk"

    async with runner(tmp_path, Other(lambda _: None)) as jobs:
        ended = await reached(jobs, row.id, "failed")
        assert ended.error == "its arguments are not valid any more: 1 errors"


@virtual
async def test_work_in_a_process_that_has_not_started(tmp_path: Path) -> None:

    walk, state = Walk(), State.open(tmp_path)
    jobs = Jobs(state.jobs, clock(), offload=inline)
    await jobs.register(walk)
    row = await jobs.launch("walk", {"pages": 2})
    assert (await jobs.work(row.id)).state == "succeeded"
    assert (await jobs.work(row.id)).state == "succeeded"  # nothing is left to do
    assert walk.seen == [0, 1]
    state.close()


@virtual
async def test_a_job_that_cannot_be_made_holds_up_no_other(tmp_path: Path) -> None:
    class Broken(Walk):
        def key(self, settings: Pages) -> str | None:
            raise RuntimeError("no key")

    walk = Walk("walk")
    async with runner(tmp_path, poll_s=300) as jobs:
        await jobs.register(Broken("a-broken-one"), Schedule(every_s=600))
        await jobs.register(walk, Schedule(every_s=600))
        await asyncio.sleep(1300)
        assert walk.seen == [0, 1, 2, 3, 4] * 2
        assert await jobs.runs("a-broken-one") == []


@virtual
async def test_a_checkpoint_is_bounded(tmp_path: Path) -> None:
    async def save(run: Run[NoSettings]) -> None:
        await run.save("x" * 2_000_000)

    async with runner(tmp_path, Once(save)) as jobs:
        row = await jobs.launch("once")
        assert (await reached(jobs, row.id, "snoozed")).error.startswith("ValueError at save:")


def test_a_hold_that_never_was_changes_nothing(tmp_path: Path) -> None:
    rows = store(tmp_path)
    assert rows.beat(Hold(1, 1), Beat(0.0, "{}")) is None
    assert rows.save(Hold(1, 1), Beat(0.0, "{}"), "{}") is None
    assert rows.cancel(1, 0.0, held=False) is None


def test_a_job_has_a_name_and_a_key_of_its_own() -> None:
    job: Job[Any] = Once(lambda _: None)
    assert (job.name, job.key(NoSettings())) == ("once", "once")
