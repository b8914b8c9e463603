"""Commands about jobs: list, show, run, retry, cancel, pause, resume, logs."""

from __future__ import annotations

import asyncio
import json as jsonlib
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from ..errors import TowpathError
from . import logs as program_log
from .client import Client, load_config, path
from .following import FINAL, Following, exit_code, measured, outcome
from .options import DEFAULT_CONFIG, ConfigOption, JsonOption, LimitOption
from .output import OK, Unreachable, WrongUse, say, show_fields, show_json, show_rows

if TYPE_CHECKING:
    from ..jobs.runner import Jobs
    from ..state.jobs import JobRow

jobs = typer.Typer(
    no_args_is_help=True, help="Long and scheduled work: what runs, what it did, when it comes."
)

POLL_S = 0.25
NO_SERVER = "E5021"
COLUMNS = ["job", "schedule", "paused", "next_at", "at_work", "last"]
RUN_COLUMNS = ["run", "state", "cause", "attempt", "progress", "started_at", "ended_at", "error"]


class Start(NamedTuple):
    """How a run comes to be: what the server is asked, and the same in this process."""

    where: str
    body: Mapping[str, Any]
    here: Callable[[Jobs], Awaitable[JobRow]]


JobName = Annotated[str, typer.Argument(help="The job's name.")]
JobOrRun = Annotated[str, typer.Argument(metavar="JOB_OR_RUN", help="A job's name, or a run's number.")]


@jobs.command("list")
def list_jobs(config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """Show every job: its schedule, what is at work, what became of the last run."""
    rows = Client(config).get("/jobs")
    if not json:
        rows = [
            {
                **row,
                "at_work": [_short(run) for run in row["live"]],
                "last": row["last"] and _short(row["last"]),
            }
            for row in rows
        ]
    show_rows(rows, COLUMNS, "no jobs", as_json=json)


def _short(run: dict[str, Any]) -> str:
    gone = " (its process is gone)" if run["state"] == "running" and not run["at_work"] else ""
    return " ".join(part for part in (f"{run['run']} {run['state']}{gone}", measured(run)) if part)


@jobs.command("show")
def show_job(
    name: JobOrRun,
    config: ConfigOption = DEFAULT_CONFIG,
    limit: LimitOption = 10,
    json: JsonOption = False,
) -> None:
    """Show a job with its settings and newest runs, or one run with its checkpoint.

    Example:  towpath jobs show trim
    """
    client = Client(config)
    if name.isdecimal():
        show_fields(client.get(path("runs", name)), as_json=json)
        return
    found = client.get(path("jobs", name))
    found["runs"] = client.get("/runs", job=name, limit=limit)
    if json:
        show_json(found)
        return
    shown = {key: value for key, value in found.items() if key not in ("live", "last", "runs")}
    show_fields(shown, as_json=False)
    runs = [{**run, "progress": measured(run)} for run in found["runs"]]
    show_rows(runs, RUN_COLUMNS, "\nit has not run yet", as_json=False)


@jobs.command("run")
def run_job(
    name: JobName,
    settings: Annotated[
        list[str] | None,
        typer.Argument(metavar="KEY=VALUE", help="Settings of this run; values may be JSON."),
    ] = None,
    config: ConfigOption = DEFAULT_CONFIG,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Stay, and show how it goes on.")] = False,
    json: JsonOption = False,
) -> None:
    """Start a job now. While no server runs it is done here, and followed to the end of the attempt.

    Example:  towpath jobs run trim --follow
    """
    start(config, name, dict(_setting(word) for word in settings or ()), follow=follow, as_json=json)


def start(config: Path, name: str, given: Mapping[str, Any], *, follow: bool, as_json: bool) -> None:
    """Start a job with settings, and follow it where wanted; ends the command with the run's exit code."""
    begin = Start(path("jobs", name, "run"), {"settings": given}, lambda jobs: jobs.launch(name, given))
    _begin(config, begin, follow=follow, as_json=as_json)


@jobs.command("retry")
def retry_job(
    name: JobOrRun,
    config: ConfigOption = DEFAULT_CONFIG,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Stay, and show how it goes on.")] = False,
    json: JsonOption = False,
) -> None:
    """Go on from where a run ended that failed or was cancelled, or the newest one of a job, as a new run.

    It has that run's settings and checkpoint. A run that waits for its next attempt goes on now.

    Example:  towpath jobs retry 17 --follow
    """
    number = int(name) if name.isdecimal() else _newest(Client(config), name)
    again = Start(path("runs", number, "retry"), {}, lambda jobs: jobs.retry(number))
    _begin(config, again, follow=follow, as_json=json)


def _begin(config: Path, start: Start, *, follow: bool, as_json: bool) -> None:
    """Start a run in the server, or do it here while none runs; ends the command."""
    client = Client(config)
    try:
        run = client.post(start.where, start.body, running=True)
    except Unreachable as error:
        if error.code != NO_SERVER:
            raise
        run, follow = _run_here(config, start, as_json=as_json), True
    else:
        run = follow_run(client, run["run"], as_json=as_json, lines=not as_json) if follow else run
    if as_json:
        show_json(run)
    elif follow:
        say(outcome(run))
    else:
        say(f"run {run['run']} of {run['job']} has started;  towpath jobs logs {run['run']} --follow")
    raise typer.Exit(exit_code(run) if follow else OK)


def _setting(word: str) -> tuple[str, Any]:
    key, equals, text = word.partition("=")
    if not key or not equals:
        raise WrongUse(
            f"{word!r} is no setting", code="E5201", fix="write KEY=VALUE", data="Nothing was started."
        )
    try:
        return key, jsonlib.loads(text)
    except ValueError:
        return key, text


@jobs.command("cancel")
def cancel_job(name: JobOrRun, config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """End a run, or the one of a job that lives; what it has done stays done."""
    client = Client(config)
    numbers = [int(name)] if name.isdecimal() else _living(client, name)
    found = [client.post(path("runs", number, "cancel")) for number in numbers]
    if json:
        show_json(found)
        return
    for run in found:
        say(outcome(run))


def _living(client: Client, name: str) -> list[int]:
    numbers = [run["run"] for run in client.get(path("jobs", name))["live"]]
    if not numbers:
        raise TowpathError(f"no run of {name} lives", code="E5206", fix=f"towpath jobs show {name}")
    return numbers


@jobs.command("pause")
def pause_job(name: JobName, config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """Stop a job's schedule until it is resumed; a run at work goes on, runs by hand are possible."""
    show_fields(Client(config).post(path("jobs", name, "pause")), as_json=json)


@jobs.command("resume")
def resume_job(name: JobName, config: ConfigOption = DEFAULT_CONFIG, json: JsonOption = False) -> None:
    """Let a job's schedule count again, from now on."""
    show_fields(Client(config).post(path("jobs", name, "resume")), as_json=json)


@jobs.command("logs")
def show_logs(
    name: JobOrRun,
    config: ConfigOption = DEFAULT_CONFIG,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the run has ended.")] = False,
    json: JsonOption = False,
) -> None:
    """Show what a run said, or the newest one of a job; with --json as JSON lines.

    Example:  towpath jobs logs trim --follow
    """
    client = Client(config)
    number = int(name) if name.isdecimal() else _newest(client, name)
    run = follow_run(client, number, as_json=json, follow=follow)
    if not json:
        say(outcome(run))
    raise typer.Exit(exit_code(run) if follow else OK)


def _newest(client: Client, name: str) -> int:
    rows = client.get("/runs", job=name, limit=1)
    if not rows:
        raise TowpathError(f"{name} has not run yet", code="E5206", fix=f"towpath jobs run {name}")
    return int(rows[0]["run"])


def follow_run(
    client: Client, number: int, *, as_json: bool, follow: bool = True, lines: bool = True
) -> dict[str, Any]:
    """Show a run until it has ended, or once; the run as it was last."""
    after, started = 0, False
    with Following(as_json=as_json) as following:
        while True:
            where = f"{path('runs', number, 'logs')}?after={after}"
            found = client.call("GET", where, running=started)
            following.show(found["run"], found["lines"] if lines else [])
            after = found["lines"][-1]["id"] if found["lines"] else after
            run: dict[str, Any] = found["run"]
            if not found["lines"] and (not follow or run["state"] in FINAL):
                return run
            started = run["state"] not in FINAL and follow
            time.sleep(0 if found["lines"] else POLL_S)


def _run_here(config: Path, start: Start, *, as_json: bool) -> dict[str, Any]:
    """Do the work in this process, under the data directory's lock."""
    program_log.begin(logging.ERROR)
    return asyncio.run(_work(config, start, as_json=as_json))


async def _work(config: Path, start: Start, *, as_json: bool) -> dict[str, Any]:
    from ..api.jobs import line_view, run_view
    from ..app import App

    async with App(load_config(config), delivering=False) as app:
        row = await start.here(app.jobs)
        task = asyncio.create_task(app.jobs.work(row.id))
        after = 0
        with Following(as_json=as_json) as following:
            while True:
                ended, _ = await asyncio.wait({task}, timeout=POLL_S)
                row, lines = await app.jobs.find(row.id), await app.jobs.lines(row.id, after)
                after = lines[-1].id if lines else after
                run = run_view(row, app.clock.now())
                following.show(run, [] if as_json else [line_view(line) for line in lines])
                if ended and not lines:
                    await task
                    return run
