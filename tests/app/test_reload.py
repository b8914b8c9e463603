"""A changed configuration or secret takes effect while the program runs; a wrong one changes nothing."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from towpath.errors import TowpathError
from towpath.sandbox.kustomer import DEFAULT_KEY
from towpath.sandbox.serve import sandbox
from towpath.secrets import Secrets
from towpath.state import State

from .support import (
    HOOK,
    HUP,
    KEY,
    RATE,
    YAML,
    ask,
    delivered,
    hub,
    process,
    send,
    track,
    until,
    world,
    write,
)

ROTATED = YAML.replace("[{key}]", '["${{secret:web_key}}"]')


def keep(directory: Path, **values: str) -> None:
    """Keep secrets of a hub that does not run yet."""
    state = State.open(directory / "data")
    secrets = Secrets.open(state)
    for name, value in values.items():
        secrets.set(name, value)
    state.close()


async def takes(address: str, key: str) -> bool:
    return (await send(address, track("u1"), key=key))[0] == 200


@pytest.mark.spec("E031")
async def test_a_write_key_in_the_file_is_rotated_and_revoked_within_a_second(tmp_path: Path) -> None:
    async with world(tmp_path) as (running, box, file):
        address = running.address
        write(tmp_path, box, key=f"{KEY}, wk_next")
        started = time.monotonic()
        assert (await ask(file, "POST", "/reload"))["reloaded"] is True
        assert await takes(address, KEY)
        assert await takes(address, "wk_next")
        write(tmp_path, box, key="wk_next")
        await ask(file, "POST", "/reload")
        assert not await takes(address, KEY)
        assert await takes(address, "wk_next")
        assert time.monotonic() - started < 2.0  # two changes, each within a second
        assert (await delivered(file))["delivered"] == 3


@pytest.mark.spec("E031", "D08")
async def test_a_write_key_among_the_secrets_is_rotated_by_setting_it(tmp_path: Path) -> None:
    keep(tmp_path, web_key="wk_first")
    async with world(tmp_path, ROTATED) as (running, _, file):
        assert await takes(running.address, "wk_first")
        started = time.monotonic()
        said = await ask(file, "PUT", "/secrets/web_key", {"value": "wk_second"})
        assert said == {"saved": True, "applied": True}
        assert not await takes(running.address, "wk_first")
        assert await takes(running.address, "wk_second")
        assert time.monotonic() - started < 1.0


@pytest.mark.spec("E031")
async def test_a_signal_applies_the_file(tmp_path: Path) -> None:
    async with sandbox(requests_per_minute=RATE) as box:
        file = write(tmp_path, box)
        with process(file) as running:
            assert await takes(running.address, KEY)
            write(tmp_path, box, key="wk_next")
            running._process.send_signal(HUP)

            async def revoked() -> bool:
                return not await takes(running.address, KEY)

            await until(revoked)
            assert await takes(running.address, "wk_next")


@pytest.mark.spec("P6", "D03")
async def test_a_new_secret_resumes_what_the_old_one_paused(tmp_path: Path) -> None:
    keep(tmp_path, kustomer="revoked-key")
    text = YAML.replace("{api_key}", '"${{secret:kustomer}}"')
    async with world(tmp_path, text) as (running, _, file):
        await send(running.address, track("u1"), track("u2"))

        async def kept() -> bool:  # it is in force a moment before it is on disk
            return [row["pauses"] for row in await ask(file, "GET", "/destinations")] != [[]]

        await until(kept)
        started = time.monotonic()
        said = await ask(file, "PUT", "/secrets/kustomer", {"value": DEFAULT_KEY})
        assert said["applied"] is True
        assert (await delivered(file))["delivered"] == 2
        assert time.monotonic() - started <= 5.0
        assert [row["pauses"] for row in await ask(file, "GET", "/destinations")] == [[]]


async def test_an_invalid_file_changes_nothing(tmp_path: Path) -> None:
    async with world(tmp_path) as (running, _, file):
        file.write_text(file.read_text() + "nonsense: true\n")
        with pytest.raises(TowpathError) as told:
            await ask(file, "POST", "/reload")
        assert told.value.code == "E2104"
        assert "nonsense" in told.value.title
        assert await takes(running.address, KEY)
        assert (await delivered(file))["delivered"] == 1


async def test_sources_that_share_a_key_change_nothing(tmp_path: Path) -> None:
    async with world(tmp_path) as (running, box, file):
        write(
            tmp_path,
            box,
            YAML.replace("destinations:", "  app: {{type: segment, write_keys: [{key}]}}\ndestinations:"),
        )
        with pytest.raises(TowpathError):
            await ask(file, "POST", "/reload")
        assert list(running.app.config.sources) == ["web"]
        assert await takes(running.address, KEY)


async def test_a_saved_secret_that_cannot_be_applied_says_so(tmp_path: Path) -> None:
    async with world(tmp_path) as (_, __, file):
        file.write_text(file.read_text() + "nonsense: true\n")
        said = await ask(file, "PUT", "/secrets/any", {"value": "value"})
        assert (said["saved"], said["applied"]) == (True, False)
        assert "nonsense" in said["why"]
        assert [row["name"] for row in await asyncio.to_thread(lambda: names(tmp_path))] == ["any"]


def names(directory: Path) -> list[dict[str, str]]:
    state = State.open(directory / "data")
    try:
        return [{"name": row.name} for row in Secrets.open(state).names()]
    finally:
        state.close()


async def test_connections_come_and_go(tmp_path: Path) -> None:
    hook = '  hook: {{type: webhook, url: "{webhook}/hook", secret: "{secret}", allow_private: true}}\n'
    both = YAML.replace("connections:", f"{hook}connections:")
    joined = both.replace("to: [kustomer]", "to: [kustomer, hook]")
    async with world(tmp_path, both) as (running, box, file):
        kept = running.app.connections["kustomer"]
        write(tmp_path, box, joined)
        said = await ask(file, "POST", "/reload")
        assert (said["started"], said["ended"]) == (["hook"], [])
        await send(running.address, track("u1"))
        await until(lambda: box.webhook.received)
        write(tmp_path, box, both)
        assert (await ask(file, "POST", "/reload"))["ended"] == ["hook"]
        await send(running.address, track("u2"))
        assert running.app.connections["kustomer"] is kept
        await until(lambda: len(box.kustomer.requests) == 2)
        assert len(box.webhook.received) == 1


async def test_a_changed_destination_goes_on_where_it_was(tmp_path: Path) -> None:
    plain = YAML.replace("rate: {rate}", "rate: {rate}, advanced_transform: false")
    async with world(tmp_path) as (running, box, file):
        await send(running.address, track("u1", "One Two"))
        await delivered(file)
        write(tmp_path, box, plain)
        assert (await ask(file, "POST", "/reload"))["started"] == ["kustomer"]
        await send(running.address, track("u1", "One-Two"))
        assert (await delivered(file, recount=True))["delivered"] == 2


async def test_limits_hold_at_once_and_addresses_need_a_restart(tmp_path: Path) -> None:
    tight = '"127.0.0.1:0", limits: {{event: 2KB}}'
    async with world(tmp_path) as (running, box, file):
        large = track("u1", text="x" * 3000)
        assert (await send(running.address, large))[0] == 200
        write(tmp_path, box, YAML.replace('"127.0.0.1:0"', tight))
        assert (await ask(file, "POST", "/reload"))["needs_restart"] == []
        assert (await send(running.address, large))[0] == 400
        write(tmp_path, box, YAML.replace('"127.0.0.1:0"', '"127.0.0.1:1"') + "durability: relaxed\n")
        assert (await ask(file, "POST", "/reload"))["needs_restart"] == ["durability", "server.listen"]


async def test_a_pause_by_hand_outlasts_a_restart_and_a_server_that_is_down(tmp_path: Path) -> None:
    async with sandbox(requests_per_minute=RATE) as box:
        file = write(tmp_path, box, HOOK)
        await ask(file, "POST", "/destinations/hook/pause", {"reason": "moving"})
        async with hub(file) as running:
            await send(running.address, track("u1"))
            state = (await ask(file, "GET", "/status"))["connections"]["hook"]
            assert (state["state"], [row["reason"] for row in state["paused"]]) == ("paused", ["moving"])
            assert (await ask(file, "GET", "/balance"))[0]["waiting"] == 1
        assert await ask(file, "POST", "/destinations/hook/resume") == {"resumed": ["hook"]}
        async with hub(file):
            assert (await delivered(file))["delivered"] == 1
