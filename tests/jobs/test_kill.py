"""Processes killed in the middle of a job: it goes on from its checkpoint, in one process at a time."""

from __future__ import annotations

import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import groupby, pairwise
from pathlib import Path

import msgspec
import pytest

from towpath.jobs import Progress
from towpath.state import JobRuns, State
from towpath.state.jobs import NewRun

ROOT = Path(__file__).parent.parent.parent
PATIENCE_S = 60.0


class Worker:
    """A working process."""

    def __init__(self, directory: Path, mode: str) -> None:
        command = [sys.executable, "-m", "tests.jobs.worker", str(directory), mode]
        self._process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE)
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == b"ready\n"

    @property
    def pid(self) -> int:
        return self._process.pid

    def kill(self) -> None:
        self._process.kill()
        self._process.wait(30)
        if self._process.stdout is not None:
            self._process.stdout.close()


@contextmanager
def crew(directory: Path, mode: str, size: int) -> Iterator[dict[int, Worker]]:
    """Some workers, all of them dead at the end."""
    workers: dict[int, Worker] = {}
    try:
        for _ in range(size):
            hire(workers, directory, mode)
        yield workers
    finally:
        for worker in workers.values():
            worker.kill()


def hire(workers: dict[int, Worker], directory: Path, mode: str) -> None:
    worker = Worker(directory, mode)
    workers[worker.pid] = worker


def copied(directory: Path) -> list[tuple[int, int, int]]:
    """Process, attempt and page of each step, in order."""
    file = directory / "copied"
    lines = file.read_text().splitlines() if file.exists() else []
    return [(int(pid), int(attempt), int(page)) for pid, attempt, page in map(str.split, lines)]


def grown(directory: Path, steps: int) -> int:
    """Wait for so many steps; who made the last one."""
    deadline = time.monotonic() + PATIENCE_S
    while len(copied(directory)) < steps:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return copied(directory)[-1][0]


def ended(rows: JobRuns, number: int) -> Progress:
    """Wait until a run has succeeded."""
    deadline = time.monotonic() + PATIENCE_S
    while (row := rows.find(number)) is None or row.state != "succeeded":
        assert time.monotonic() < deadline, row
        time.sleep(0.02)
    return msgspec.json.decode(row.progress, type=Progress)


@pytest.mark.parametrize(("mode", "size", "kills"), [("alone", 1, 3), ("beside", 2, 2)])
def test_killed_in_the_middle(mode: str, size: int, kills: int, tmp_path: Path) -> None:
    state = State.open(tmp_path)
    number = state.jobs.add(NewRun("copy", "copy", "{}", "hand", time.time()))
    assert number is not None
    with crew(tmp_path, mode, size) as workers:
        for _ in range(kills):
            at_work = grown(tmp_path, len(copied(tmp_path)) + 30)
            workers.pop(at_work).kill()
            hire(workers, tmp_path, mode)
        grown(tmp_path, len(copied(tmp_path)) + 30)
        (tmp_path / "enough").touch()
        done = ended(state.jobs, number).done
    state.close()
    steps = copied(tmp_path)
    assert {page for _, _, page in steps} == set(range(int(done)))
    # One process after the other, each attempt in one piece: never two at once.
    shifts = [shift for shift, _ in groupby((pid, attempt) for pid, attempt, _ in steps)]
    assert [attempt for _, attempt in shifts] == list(range(1, len(shifts) + 1))
    assert len({pid for pid, _ in shifts}) >= kills + 1
    # Nothing that was kept is done again: at most the one step that each end interrupted.
    assert all(later - earlier in (0, 1) for (_, _, earlier), (_, _, later) in pairwise(steps))
    assert sum(count - 1 for count in Counter(page for _, _, page in steps).values()) < len(shifts)
