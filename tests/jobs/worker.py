"""A process that works on a job until it is killed: `python -m tests.jobs.worker DIRECTORY alone|beside`."""

from __future__ import annotations

import asyncio
import itertools
import os
import sys
from pathlib import Path

from towpath.clock import SystemClock
from towpath.jobs import Job, NoSettings, Run
from towpath.jobs.runner import Jobs
from towpath.state import State

LEASE_S = 4.0


class Copy(Job[NoSettings]):
    """Copies numbered pages, until a file says enough, into a file that several processes share."""

    kind = "copy"

    def __init__(self, directory: Path) -> None:
        self._copied = os.open(directory / "copied", os.O_WRONLY | os.O_APPEND | os.O_CREAT)
        self._enough = directory / "enough"

    async def run(self, run: Run[NoSettings]) -> None:
        for page in itertools.count(run.checkpoint or 0):
            if self._enough.exists():
                return
            os.write(self._copied, f"{os.getpid()} {run.attempt} {page}\n".encode())
            await run.clock.sleep(0.01)
            await run.save(page + 1, done=page + 1)


async def work(directory: Path, *, alone: bool) -> None:
    state = State.open(directory)
    jobs = Jobs(state.jobs, SystemClock(), alone=alone, poll_s=0.1, lease_s=LEASE_S)
    await jobs.register(Copy(directory))
    await jobs.start()
    print("ready", flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(work(Path(sys.argv[1]), alone=sys.argv[2] == "alone"))
