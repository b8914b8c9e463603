"""Runs that go on from their checkpoints: those of killed processes, those that failed or were cancelled."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest

from towpath.errors import TowpathError
from towpath.jobs import Counts, GiveUp, NoSettings, Progress, Run, Snooze
from towpath.jobs.execution import LEASE_S
from towpath.jobs.run import Kept
from towpath.jobs.runner import Jobs
from towpath.jobs.thread import inline
from towpath.state import State
from towpath.state.jobs import Beat, Hold, JobRow, NewRun
from towpath.testing.loop import LoopClock, virtual

from .support import Once, Pages, Walk, clock, reached, runner, store


def progress(row: JobRow) -> Progress:
    return msgspec.json.decode(row.progress, type=Progress)


def abandoned(directory: Path, time: LoopClock, pages: int) -> int:
    """Leave a walk as a process leaves it that was killed just after its third page."""
    rows = store(directory)
    number = rows.add(NewRun("walk", "walk", f'{{"pages":{pages}}}', "hand", time.now()))
    [row] = rows.claim("gone", time.now(), LEASE_S, jobs=["walk"])
    kept = msgspec.json.encode(Kept(3, Progress(done=3, counts=Counts(read=300)))).decode()
    rows.save(Hold(row.id, row.epoch), Beat(time.now() + LEASE_S, "{}"), kept)
    assert number == row.id
    return number


@asynccontextmanager
async def idle(directory: Path, walk: Walk, time: LoopClock) -> AsyncIterator[Jobs]:
    """Have jobs in a process that works on none by itself, as a command without a server is."""
    state = State.open(directory)
    jobs = Jobs(state.jobs, time, offload=inline)
    await jobs.register(walk)
    yield jobs
    state.close()


@virtual
async def test_a_start_goes_on_with_the_run_of_a_killed_process(tmp_path: Path) -> None:
    """Without a server, within the lease: nobody else can hold it."""
    time, walk = clock(), Walk()
    number = abandoned(tmp_path, time, pages=5)
    async with idle(tmp_path, walk, time) as jobs:
        with pytest.raises(TowpathError, match="has a run already"):
            await jobs.launch("walk", {"pages": 6})
        row = await jobs.launch("walk", {"pages": 5})
        assert (row.id, (await jobs.work(row.id)).state, walk.seen) == (number, "succeeded", [3, 4])


@virtual
async def test_a_start_makes_place_of_what_was_being_cancelled(tmp_path: Path) -> None:
    """A run that was asked to end when its process died has ended."""
    time, walk = clock(), Walk()
    number = abandoned(tmp_path, time, pages=5)
    assert store(tmp_path).cancel(number, time.now(), held=True) == "cancelling"
    async with idle(tmp_path, walk, time) as jobs:
        row = await jobs.launch("walk", {"pages": 5})
        assert (row.id > number, (await jobs.find(number)).state) == (True, "cancelled")
        assert ((await jobs.work(row.id)).state, walk.seen) == ("succeeded", [0, 1, 2, 3, 4])


@virtual
async def test_a_start_leaves_a_living_holder_alone(tmp_path: Path) -> None:
    """Where others share the store, a run goes on elsewhere only after its lease."""
    time = clock()
    number = abandoned(tmp_path, time, pages=5)
    async with runner(tmp_path, Walk(), alone=False, time=time) as jobs:
        for start in (jobs.launch("walk", {"pages": 5}), jobs.retry(number)):
            with pytest.raises(TowpathError) as caught:
                await start
            assert caught.value.code == "E5202"
        assert (await reached(jobs, number, "succeeded")).attempt == 2


@virtual
async def test_a_failed_run_is_tried_again_from_its_checkpoint(tmp_path: Path) -> None:
    walk = Walk()

    def trip(run: Run[Pages], page: int) -> None:
        if run.number == 1 and page == 1:
            run.log("the second page")
        if run.number == 1 and page == 3:
            raise GiveUp("no page 3")

    walk.before = trip
    async with runner(tmp_path, walk) as jobs:
        row = await jobs.launch("walk", {"pages": 6})
        await reached(jobs, row.id, "failed")
        again = await jobs.retry(row.id)
        assert (again.id, again.cause, again.arguments) == (2, "retry of 1", '{"pages":6}')
        assert (progress(again).done, progress(again).said) == (3, 0)
        with pytest.raises(TowpathError) as caught:  # it lives by now
            await jobs.retry(row.id)
        assert caught.value.code == "E5202"
        ended = await reached(jobs, again.id, "succeeded")
        assert (walk.seen, progress(ended).counts.read) == ([0, 1, 2, 3, 4, 5], 600)
        assert (await jobs.find(row.id)).state == "failed"  # no move leads out of an end
        with pytest.raises(TowpathError) as caught:
            await jobs.retry(again.id)
        assert caught.value.code == "E5207"


@virtual
async def test_a_run_without_a_checkpoint_is_tried_again_from_the_start(tmp_path: Path) -> None:
    async with runner(tmp_path, walk := Walk()) as jobs:
        row = await jobs.launch("walk", {"pages": 1})
        await jobs.cancel(row.id)
        await reached(jobs, row.id, "cancelled")
        again = await jobs.retry(row.id)
        await reached(jobs, again.id, "succeeded")
        assert walk.seen[-1] == 0


@virtual
async def test_a_run_that_waits_is_tried_at_once(tmp_path: Path) -> None:
    def fail(run: Run[NoSettings]) -> None:
        if run.attempt == 1:
            raise Snooze(1e6)

    async with runner(tmp_path, Once(fail)) as jobs:
        row = await jobs.launch("once")
        await reached(jobs, row.id, "snoozed")
        assert (await jobs.retry(row.id)).id == row.id
        assert (await reached(jobs, row.id, "succeeded")).attempt == 2
