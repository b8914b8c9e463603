"""Jobs of the running program: trim by its schedule, reloads, and a stop that keeps a job's place."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from towpath.config import ConfigError, load
from towpath.errors import TowpathError
from towpath.jobs import Job, NoSettings, Run

from .support import HOOK, SECRET, ask, delivered, hub, offline, send, track, until, world


def planned(directory: Path, jobs: str) -> Path:
    """Write a configuration with this `jobs` section."""
    file = offline(directory)
    text = file.read_text().partition("jobs:")[0]
    file.write_text(f"{text}jobs:\n  {jobs}\n")
    return file


class Patient(Job[NoSettings]):
    """Keeps its place, then waits to be stopped; ends in its second attempt."""

    kind = "patient"

    def __init__(self) -> None:
        self.found: list[Any] = []
        self.waits = asyncio.Event()

    async def run(self, run: Run[NoSettings]) -> None:
        self.found.append(run.checkpoint)
        if run.checkpoint is None:
            run.log(f"the secret is {SECRET}, the address ann@example.com")
            await run.save("here")
            self.waits.set()
            await asyncio.Event().wait()


@pytest.mark.spec("D19")
async def test_trim_runs_by_its_schedule(tmp_path: Path) -> None:
    file = planned(tmp_path, "trim: {every: 1s}")
    async with hub(file) as running:
        jobs = running.app.jobs

        async def ran() -> bool:
            return any(row.cause == "schedule" for row in await jobs.runs("trim", ("succeeded",)))

        await until(ran)
        [line] = await ask(file, "GET", "/jobs")
        assert (line["job"], line["schedule"], line["last"]["state"]) == ("trim", "every 1s", "succeeded")
        assert (await ask(file, "GET", "/runs?job=trim&state=failed")) == []


@pytest.mark.spec("D19")
async def test_trim_drops_what_is_past_its_retention(tmp_path: Path) -> None:
    async with world(tmp_path, f"{HOOK}retention: {{{{log: 10ms}}}}\n") as (running, _, file):
        await send(running.address, track("ann"), track("bob"))
        await delivered(file)
        number = (await ask(file, "POST", "/jobs/trim/run"))["run"]

        async def ended() -> bool:
            return bool((await ask(file, "GET", f"/runs/{number}"))["state"] == "succeeded")

        await until(ended)
        run = await ask(file, "GET", f"/runs/{number}")
        said = (await ask(file, "GET", f"/runs/{number}/logs"))["lines"]
        assert (run["counts"]["written"], run["percent"]) == (2, 100.0)
        assert [line["text"] for line in said] == ["2 messages dropped"]
        assert await ask(file, "GET", "/events") == []


async def test_a_reload_changes_a_schedule(tmp_path: Path) -> None:
    file = planned(tmp_path, 'trim: {schedule: "17 3 * * *", timezone: Europe/Berlin}')
    async with hub(file):
        assert (await ask(file, "GET", "/jobs"))[0]["schedule"] == "17 3 * * * Europe/Berlin"
        planned(tmp_path, "trim: {every: 2h, jitter: 5m}")
        await ask(file, "POST", "/reload")
        assert (await ask(file, "GET", "/jobs"))[0]["schedule"] == "every 2h, jitter 5m"


@pytest.mark.spec("D08")
async def test_a_stop_keeps_the_place_and_gives_the_run_back(tmp_path: Path) -> None:
    file, first, second = offline(tmp_path), Patient(), Patient()
    async with hub(file) as running:
        await running.app.jobs.register(first)
        number = (await ask(file, "POST", "/jobs/patient/run"))["run"]
        await first.waits.wait()
    shown = await ask(file, "GET", f"/runs/{number}")  # answered in this process: no server runs
    assert (shown["state"], shown["at_work"], shown["checkpoint"]) == ("queued", False, "here")
    async with hub(file) as running:
        await running.app.jobs.register(second)

        async def ended() -> bool:
            return bool((await ask(file, "GET", f"/runs/{number}"))["state"] == "succeeded")

        await until(ended)
        said = await ask(file, "GET", f"/runs/{number}/logs")
        assert [line["text"] for line in said["lines"]] == ["the secret is ***, the address ***"]
    assert (first.found, second.found) == ([None], ["here"])


@pytest.mark.parametrize(
    ("where", "code"),
    [
        ("/runs?state=lost", "E5205"),
        ("/runs?job=nope", "E4409"),
        ("/runs?limit=many", "E5012"),
        ("/jobs/nope", "E4409"),
        ("/runs/99/logs", "E4410"),
    ],
)
async def test_a_question_that_cannot_be_answered(where: str, code: str, tmp_path: Path) -> None:
    file = offline(tmp_path)
    with pytest.raises(TowpathError) as caught:
        await ask(file, "GET", where)
    assert caught.value.code == code


async def test_settings_that_are_none(tmp_path: Path) -> None:
    file = offline(tmp_path)
    with pytest.raises(TowpathError, match="settings must be a JSON object"):
        await ask(file, "POST", "/jobs/trim/run", {"settings": [1]})
    queued = await ask(file, "POST", "/jobs/trim/run")
    assert (queued["state"], queued["started"]) == ("queued", False)


@pytest.mark.parametrize(
    ("jobs", "said"),
    [
        ('trim: {schedule: "0 0 31 2 *"}', "Bad day-of-month"),
        ('trim: {schedule: "soon"}', "not a cron expression"),
        ('trim: {schedule: "0 0 * * *", timezone: Mars/Base}', "no time zone"),
        ('trim: {schedule: "0 0 * * *", every: 1h}', "either cron or every"),
        ("trim: {}", "either cron or every"),
        ("trim: {every: 10ms}", "a second or more"),
        ("trim: {every: 1h, jitter: 2h}", "shorter than every"),
        ("tirm: {every: 1h}", "trim"),
    ],
)
def test_a_schedule_that_cannot_be(jobs: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError) as caught:
        load(planned(tmp_path, jobs))
    assert said in caught.value.render()
    assert "towpath.yaml:" in caught.value.render()
