"""towpath jobs: the same words with a server and without, with exit codes that say how it went."""

from __future__ import annotations

import asyncio
import json as jsonlib
import signal
import subprocess
import sys
import threading
from itertools import islice
from pathlib import Path

import pytest

from towpath.cli.following import Following, exit_code, measured, outcome
from towpath.jobs import GiveUp, Job, NoSettings, Run

from ..app.support import HOOK, offline
from .support import Server, Shell, served

ROOT = Path(__file__).parent.parent.parent
RUN = {
    "run": 7, "job": "walk", "state": "running", "at_work": True, "done": 1200.0, "total": 5000.0,
    "unit": "events", "rate_per_s": 12.5, "eta_s": 304.0, "due_at": "", "error": "",
    "counts": {"read": 1200, "written": 0, "skipped": 3, "failed": 0},
}  # fmt: skip


class Gate(Job[NoSettings]):
    """Waits until it is let through."""

    kind = "gate"

    def __init__(self) -> None:
        self.opened = threading.Event()

    async def run(self, run: Run[NoSettings]) -> None:
        run.log("at the gate of [red]someone@example.com[/red]")
        run.progress(1, 4, "doors")
        await run.save({"door": 1})
        while not self.opened.is_set():
            await run.clock.sleep(0.02)
        run.progress(4)


class Hopeless(Job[NoSettings]):
    """Fails for good."""

    kind = "hopeless"

    async def run(self, run: Run[NoSettings]) -> None:
        raise GiveUp("there is nothing to do")


def register(server: Server, *jobs: Job[NoSettings]) -> None:
    """Make jobs known to the running server."""
    for job in jobs:
        work = server.running.app.jobs.register(job)
        asyncio.run_coroutine_threadsafe(work, server.loop).result(30)


def test_a_job_from_start_to_end(shell: Shell, tmp_path: Path) -> None:
    gate = Gate()
    with served(tmp_path, HOOK) as server:
        register(server, gate)
        assert {row["job"] for row in shell("jobs", "list", "--json").json()} == {"gate", "trim"}
        assert "gate" in shell("jobs", "list").out
        started = shell("jobs", "run", "gate", "--json").json()
        assert (started["job"], started["cause"], started["started"]) == ("gate", "hand", True)
        number = str(started["run"])
        while not shell("jobs", "show", number, "--json").json()["checkpoint"]:
            pass
        shown = shell("jobs", "show", number, "--json").json()
        assert (shown["state"], shown["percent"], shown["checkpoint"]) == ("running", 25.0, {"door": 1})
        assert f"{number} running 1 of 4 doors" in shell("jobs", "list").out
        busy = shell("jobs", "run", "gate")
        assert (busy.code, "E5202" in busy.err) == (1, True)
        said = shell("jobs", "logs", "gate")
        assert (said.code, "at the gate of [red]***[/red]" in said.out) == (0, True)
        gate.opened.set()
        followed = shell("jobs", "logs", number, "--follow")
        assert (followed.code, f"run {number} of gate: succeeded; 4 of 4 doors" in followed.out) == (0, True)
        lines = shell("jobs", "logs", "gate", "--json").out.splitlines()
        assert [jsonlib.loads(line)["level"] for line in lines] == ["info"]
        assert "succeeded" in shell("jobs", "show", "gate").out


def test_cancel_and_failure(shell: Shell, tmp_path: Path) -> None:
    with served(tmp_path, HOOK) as server:
        register(server, Gate(), Hopeless())
        started = shell("jobs", "run", "gate")
        assert (started.code, "has started;" in started.out) == (0, True)
        [ended] = shell("jobs", "cancel", "gate", "--json").json()
        assert ended["state"] in ("cancelling", "cancelled")
        followed = shell("jobs", "logs", str(ended["run"]), "--follow")
        assert (followed.code, "of gate: cancelled" in followed.out) == (1, True)
        assert (shell("jobs", "cancel", "gate").code, shell("jobs", "cancel", str(ended["run"])).code) == (
            1,
            0,
        )
        failed = shell("jobs", "run", "hopeless", "--follow")
        assert (failed.code, "failed; there is nothing to do" in failed.out) == (1, True)
        assert "error" in shell("jobs", "logs", "hopeless").out
        again = shell("jobs", "retry", "hopeless", "--follow", "--json")
        assert (again.code, again.json()["state"], again.json()["cause"]) == (1, "failed", "retry of 2")
        begun = shell("jobs", "retry", str(ended["run"]))
        assert (begun.code, "run 4 of gate has started;" in begun.out) == (0, True)
        assert "E5202" in shell("jobs", "retry", str(ended["run"])).err
        assert shell("jobs", "cancel", "4").code == 0
        as_json = shell("jobs", "run", "hopeless", "--follow", "--json")
        assert (as_json.code, as_json.json()["state"]) == (1, "failed")


@pytest.mark.spec("D19")
def test_without_a_server_it_is_done_here(shell: Shell, tmp_path: Path) -> None:
    offline(tmp_path)
    assert shell("jobs", "show", "trim").code == 0
    none = shell("jobs", "logs", "trim")
    assert (none.code, "E5206" in none.err) == (1, True)
    done = shell("jobs", "run", "trim")
    assert (done.code, "run 1 of trim: succeeded; 5 of 5 steps" in done.out) == (0, True)
    assert shell("jobs", "run", "trim", "--json").json()["run"] == 2
    assert [run["run"] for run in shell("jobs", "show", "trim", "--json").json()["runs"]] == [2, 1]
    assert shell("jobs", "logs", "1", "--follow").code == 0


@pytest.mark.spec("D19")
def test_without_a_server_it_is_tried_again_here(shell: Shell, tmp_path: Path) -> None:
    file = offline(tmp_path)
    none = shell("jobs", "retry", "trim")
    assert (none.code, "E5206" in none.err) == (1, True)
    left_behind(file, signal.SIGINT)
    assert shell("jobs", "cancel", "1").code == 0
    place = shell("jobs", "show", "1", "--json").json()["checkpoint"] or 0
    [said] = left_behind(file, signal.SIGINT, "retry", "1")
    assert said.endswith(f" begins at {place}\n".encode())
    assert shell("jobs", "show", "2", "--json").json()["cause"] == "retry of 1"
    assert shell("jobs", "run", "trim").code == 0
    done = shell("jobs", "retry", "trim")
    assert (done.code, "E5207" in done.err, "Fix: " in done.err) == (1, True, True)


def test_killed_without_a_server_the_same_command_goes_on(shell: Shell, tmp_path: Path) -> None:
    file = offline(tmp_path)
    left_behind(file, signal.SIGKILL)
    place = shell("jobs", "show", "1", "--json").json()["checkpoint"] or 0
    first, second = left_behind(file, signal.SIGINT, begins=2)
    assert (first.endswith(b" begins at 0\n"), second.endswith(f" begins at {place}\n".encode())) == (
        True,
        True,
    )
    run = shell("jobs", "show", "1", "--json").json()
    assert (run["state"], run["attempt"]) == ("queued", 2)


def left_behind(file: Path, how: signal.Signals, *words: str, begins: int = 1) -> list[bytes]:
    """Work without a server on a job that never ends, until a signal; what it said at each beginning."""
    words = words or ("run", "endless")
    command = [sys.executable, "-m", "tests.cli.endless", "jobs", *words, "--config", str(file)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout is not None
        lines = (line for line in iter(process.stdout.readline, b"") if b"begins at" in line)
        said = list(islice(lines, begins))
        process.send_signal(how)
        process.communicate(timeout=60)
    return said


def test_a_schedule_is_paused_and_resumed(shell: Shell, tmp_path: Path) -> None:
    offline(tmp_path)
    assert shell("jobs", "pause", "trim", "--json").json() == {
        "job": "trim", "schedule": "every 1h", "paused": True, "next_at": "",
    }  # fmt: skip
    assert shell("jobs", "list", "--json").json()[0]["paused"] is True
    assert shell("jobs", "resume", "trim", "--json").json()["next_at"]


@pytest.mark.parametrize(
    ("words", "code", "said"),
    [
        (("run", "nope"), 1, "E4409"),
        (("show", "nope"), 1, "E4409"),
        (("show", "99"), 1, "E4410"),
        (("cancel", "99"), 1, "E4410"),
        (("cancel", "trim"), 1, "E5206"),
        (("run", "trim", "deep"), 2, "E5201"),
        (("run", "trim", "deep=true"), 1, "deep: is not one of its settings"),
        (("pause", "nope"), 1, "E4409"),
        (("logs", "99"), 1, "E4410"),
        (("retry", "99"), 1, "E4410"),
    ],
)
def test_mistakes(words: tuple[str, ...], code: int, said: str, shell: Shell, tmp_path: Path) -> None:
    offline(tmp_path)
    found = shell("jobs", *words)
    assert (found.code, said in found.err, "Fix: " in found.err) == (code, True, True)


def test_how_far_it_is_in_words() -> None:
    assert measured(RUN) == "1,200 of 5,000 events, 12.5/s, 0:05:04 left"
    assert outcome(RUN).endswith("left; read 1,200, skipped 3")
    waiting = {**RUN, "state": "snoozed", "due_at": "2026-01-01T00:00:00Z", "error": "503 busy"}
    assert outcome(waiting).endswith("goes on at 2026-01-01T00:00:00Z; 503 busy")
    assert [exit_code({"state": state}) for state in ("succeeded", "failed", "cancelled", "snoozed")] == [
        0, 1, 1, 3,
    ]  # fmt: skip


def test_a_terminal_gets_a_bar(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setattr("sys.stdout.isatty", lambda: True)
    line = {"id": 1, "at": "2026-01-01T00:00:00Z", "level": "info", "text": "a [red]line[/red]"}
    with Following(as_json=False) as following:
        following.show(RUN, [line])
        following.show({**RUN, "done": 5000.0, "state": "succeeded"}, [])
    shown = capsys.readouterr().out
    assert "a [red]line[/red]" in shown
    assert "walk succeeded" in shown
    assert "5,000 of 5,000 events" in shown


def test_interrupted_without_a_server_it_keeps_its_place(shell: Shell, tmp_path: Path) -> None:
    file = offline(tmp_path)
    command = [sys.executable, "-m", "tests.cli.endless", "jobs", "run", "endless", "--config", str(file)]
    for attempt in (1, 2):
        with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
            assert process.stdout is not None
            assert b"begins at" in process.stdout.readline()
            process.send_signal(signal.SIGINT)
            _, errors = process.communicate(timeout=60)
        assert (process.returncode, errors) == (130, b"")
        run = shell("jobs", "show", "1", "--json").json()
        assert (run["state"], run["attempt"], run["failures"]) == ("queued", attempt, 0)
        assert run["checkpoint"] >= attempt
