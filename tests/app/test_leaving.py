"""A source that is renamed, removed or taken off a connection loses nothing that was accepted of it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from towpath.sandbox.serve import sandbox

from .support import KEY, RATE, YAML, ask, delivered, hub, send, track, until, world, write

TWO = YAML.replace(
    "destinations:", "  app: {{type: segment, write_keys: [wk_app], trust: server}}\ndestinations:"
).replace("from: web", "from: [web, app]")
RENAMED = YAML.replace("web", "site")
CONNECTION = "connections:\n  - {{from: web, to: [kustomer], start: earliest}}\n"


async def pause(file: Path) -> None:
    await ask(file, "POST", "/destinations/kustomer/pause", {"reason": "a test"})


async def resume(file: Path) -> dict[str, Any]:
    """Deliver again until nothing waits; the balance, counted anew."""
    await ask(file, "POST", "/destinations/kustomer/resume")
    return await delivered(file, recount=True)


def numbers(balance: dict[str, Any]) -> tuple[int, int, Any, int]:
    return balance["accepted"], balance["delivered"], balance["skipped"], balance["difference"]


@pytest.mark.spec("P2", "P5", "E031")
async def test_what_a_renamed_source_accepted_is_still_delivered(tmp_path: Path) -> None:
    async with world(tmp_path) as (running, box, file):
        await pause(file)
        await send(running.address, track("u1"), track("u2"))
        write(tmp_path, box, RENAMED)
        said = await ask(file, "POST", "/reload")
        assert said["leaving"] == {"kustomer": ["web"]}
        await send(running.address, track("u1"), track("u3"))
        (line,) = await ask(file, "GET", "/connections")
        assert (line["waiting"], line["leaving"]) == (4, ["web"])
        assert numbers(await resume(file)) == (4, 4, {}, 0)
        # What is done is closed when the file is applied the next time, and nothing is counted twice.
        write(tmp_path, box, RENAMED, rate=RATE + 1)
        assert (await ask(file, "POST", "/reload"))["leaving"] == {}
        assert numbers(await delivered(file, recount=True)) == (4, 4, {}, 0)


@pytest.mark.spec("P2", "P5")
async def test_the_same_holds_when_the_file_was_changed_while_nothing_ran(tmp_path: Path) -> None:
    async with sandbox(requests_per_minute=RATE) as box:
        file = write(tmp_path, box)
        async with hub(file) as running:
            await pause(file)
            await send(running.address, track("u1"), track("u2"))
        write(tmp_path, box, RENAMED)
        for _ in range(2):  # also when it starts twice before anything could be delivered
            async with hub(file):
                (line,) = await ask(file, "GET", "/connections")
                assert (line["waiting"], line["leaving"]) == (2, ["web"])
        async with hub(file):
            assert numbers(await resume(file)) == (2, 2, {}, 0)


@pytest.mark.spec("P2", "P5")
async def test_of_a_source_taken_off_a_connection_only_what_came_before_is_delivered(tmp_path: Path) -> None:
    async with world(tmp_path, TWO) as (running, box, file):
        await pause(file)
        await send(running.address, track("u1"))
        write(tmp_path, box, TWO.replace("[web, app]", "app"))
        await ask(file, "POST", "/reload")
        await send(running.address, track("u1"), track("u2"), key=KEY)
        await send(running.address, track("u1"), key="wk_app")
        assert numbers(await resume(file)) == (4, 2, {"source removed": 2}, 0)


@pytest.mark.spec("P2")
async def test_a_source_put_back_goes_on_as_before(tmp_path: Path) -> None:
    async with world(tmp_path, TWO) as (running, box, file):
        await pause(file)
        await send(running.address, track("u1"))
        write(tmp_path, box, TWO.replace("[web, app]", "app"))
        await ask(file, "POST", "/reload")
        write(tmp_path, box, TWO)
        assert (await ask(file, "POST", "/reload"))["leaving"] == {}
        await send(running.address, track("u2"))
        assert numbers(await resume(file)) == (2, 2, {}, 0)


@pytest.mark.spec("P5")
async def test_a_reload_says_what_waits_on_a_connection_that_is_gone(tmp_path: Path) -> None:
    async with world(tmp_path) as (running, box, file):
        await pause(file)
        await send(running.address, track("u1"), track("u2"))

        async def waits() -> bool:
            return [row["waiting"] for row in await ask(file, "GET", "/connections")] == [2]

        await until(waits)
        write(tmp_path, box, YAML.replace(CONNECTION, ""))
        said = await ask(file, "POST", "/reload")
        assert (said["ended"], said["waiting"]) == (["kustomer"], {"kustomer": 2})
        write(tmp_path, box)
        await ask(file, "POST", "/reload")
        assert numbers(await resume(file)) == (2, 2, {}, 0)
