"""Measures a program: wall clock, CPU with all it started, and the most memory its processes had at once."""

from __future__ import annotations

import os
import subprocess
import threading
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from msgspec import Struct

TICK_S = os.sysconf("SC_CLK_TCK")
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")
LOOK_EVERY_S = 0.1


class Measured(Struct, frozen=True):
    """One run: `code` is what the program ended with, `said` what it printed."""

    wall_s: float
    cpu_s: float
    peak_mb: float
    code: int
    said: str


class Look(Struct, frozen=True):
    """What /proc says of one process; `ended_s` is the CPU of its children that ended."""

    parent: int
    cpu_s: float
    ended_s: float
    rss_bytes: int


def looks() -> dict[int, Look]:
    """Look at every process there is."""
    found = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue  # it has ended
        own_s, ended_s = ((int(fields[at]) + int(fields[at + 1])) / TICK_S for at in (11, 13))
        found[int(stat.parent.name)] = Look(int(fields[1]), own_s, ended_s, int(fields[21]) * PAGE_BYTES)
    return found


def tree(root: int, found: Mapping[int, Look]) -> list[int]:
    """A process and all below it."""
    chosen, parents = [], {root}
    while parents:
        chosen += [pid for pid in parents if pid in found]
        parents = {pid for pid, look in found.items() if look.parent in parents}
    return chosen


class Watch(threading.Thread):
    """Looks at a process tree until it is stopped."""

    def __init__(self, root: int) -> None:
        super().__init__(daemon=True)
        self.root = root
        self.peak_bytes = 0
        self.used_s: dict[int, float] = {}
        self.over = threading.Event()

    def run(self) -> None:
        while not self.over.wait(LOOK_EVERY_S):
            found = looks()
            pids = tree(self.root, found)
            self.peak_bytes = max(self.peak_bytes, sum(found[pid].rss_bytes for pid in pids))
            self.used_s.update({pid: found[pid].cpu_s for pid in pids})


def measure(command: Sequence[str], directory: Path, environment: Mapping[str, str]) -> Measured:
    """Run a program to its end in a directory, and measure it."""
    output, began_s = directory / "output.txt", time.perf_counter()
    with output.open("wb") as sink:
        process = subprocess.Popen(
            command, cwd=directory, env={**os.environ, **environment}, stdout=sink, stderr=sink
        )
    watch = Watch(process.pid)
    watch.start()
    _, status, usage = os.wait4(process.pid, 0)
    wall_s = time.perf_counter() - began_s
    process.returncode = os.waitstatus_to_exitcode(status)
    watch.over.set()
    watch.join()
    # What a child of a child used counts only once it was waited for; the looks see the others too.
    cpu_s = max(usage.ru_utime + usage.ru_stime, sum(watch.used_s.values()))
    return Measured(
        wall_s, cpu_s, watch.peak_bytes / 1e6, process.returncode, output.read_text("utf-8", "replace")
    )


def used_by(root: int) -> float:
    """CPU seconds of a running process tree by now, with those in it that ended."""
    found = looks()
    return sum(found[pid].cpu_s + found[pid].ended_s for pid in tree(root, found))
