"""A deleted person stays deleted: what the registry told before does not come behind it (P045, D10)."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from towpath.device import Deleted, Noted
from towpath.push.outbox import Outbox
from towpath.push.registry import Registry

from ..app.conftest import key_file, own_log
from ..app.support import ask, send, until
from .test_journey import YAML, Story, begun, register

__all__ = ["key_file", "own_log"]

HEARS_ALL = YAML.replace("from: push,", "from: [app, shop, push],")


class Held:
    """Keeps what the registry tells from the log, and deletions from the registry, until they are let go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.telling, self.deleting = asyncio.Event(), asyncio.Event()
        drain, apply = Outbox.drain, Registry.apply

        async def drain_later(outbox: Outbox, log: Any) -> int:
            await self.telling.wait()
            return await drain(outbox, log)

        async def delete_later(registry: Registry, noted: Sequence[Noted]) -> Any:
            if any(isinstance(event, Deleted) for one in noted for event in one.events):
                await self.deleting.wait()
            return await apply(registry, noted)

        monkeypatch.setattr(Outbox, "drain", drain_later)
        monkeypatch.setattr(Registry, "apply", delete_later)


async def say(story: Story, *calls: Mapping[str, Any], key: str = "wk_server") -> None:
    assert (await send(story.address, *calls, key=key))[0] == 200


async def quiet(story: Story, *connections: str) -> None:
    """Wait until these connections have nothing to do."""

    async def idle() -> bool:
        rows = await ask(story.file, "GET", "/balance")
        return not any(row["waiting"] for row in rows if row["connection"] in connections)

    await until(idle)


@pytest.mark.spec("D10", "P045")
@pytest.mark.parametrize("told", ["told", ""])
async def test_an_erasure_takes_what_was_told_out_of_the_log_and_what_was_not_out_of_the_outbox(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str
) -> None:
    held = Held(monkeypatch)
    if told:
        held.telling.set()
    async with begun(tmp_path, HEARS_ALL) as story:
        await say(story, register("d1", "ok-1", "ada"), register("d2", "ok-2", "bob"))
        await quiet(story, "devices", "people")
        if told:
            await until(lambda: _told(story))
            await quiet(story, "people")
        mentions = (await ask(story.file, "POST", "/people/mentions", {"ids": ["ada"]}))[0]
        assert mentions["records"] == (2 if told else 1)
        await ask(story.file, "POST", "/people/erase", {"ids": ["ada"]})
        held.telling.set()
        await until(lambda: _told(story))
        await quiet(story, "people")
        mentions = (await ask(story.file, "POST", "/people/mentions", {"ids": ["ada"]}))[0]
        assert mentions["records"] == 0
        assert set(story.customerio.find(id="bob").devices) == {"ok-2"}  # type: ignore[union-attr]


@pytest.mark.spec("P045", "D10")
async def test_what_was_told_before_does_not_come_behind_a_deletion(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The worst order: the log has the deletion, the registry has not heard of it, and then tells."""
    held = Held(monkeypatch)
    async with begun(tmp_path, HEARS_ALL) as story:
        await say(story, {"type": "identify", "userId": "ada"}, register("d1", "ok-1", "ada"))
        await quiet(story, "devices", "people")
        assert story.customerio.find(id="ada") is not None
        await say(story, {"type": "delete", "userId": "ada"})
        await until(lambda: story.customerio.find(id="ada") is None)
        held.telling.set()
        await until(lambda: _told(story))
        await quiet(story, "people")
        assert story.customerio.find(id="ada") is None
        held.deleting.set()
        await quiet(story, "devices", "people")
        assert story.customerio.find(id="ada") is None
        # Who comes back is told of again.
        await say(story, register("d2", "ok-2", "ada"))
        await until(lambda: (found := story.customerio.find(id="ada")) and set(found.devices) == {"ok-2"})


async def _told(story: Story) -> bool:
    return not (await ask(story.file, "GET", "/push"))["untold"]
