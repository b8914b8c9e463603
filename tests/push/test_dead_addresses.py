"""Answers are kept in two places: a crash between them leaves no dead address in use, and repeats nothing."""

from __future__ import annotations

from typing import Any, cast

import pytest

from towpath.message import Message
from towpath.notice import Trigger
from towpath.outcome import Delivered, Skipped
from towpath.push.pusher import Pushes
from towpath.push.registry import Registry
from towpath.push.sender import Sender

from .rig import DEAD, Rig

pytestmark = pytest.mark.usefixtures("inline")

CAMPAIGNS: dict[str, Any] = {"hello": {"title": "Hello"}}


class Crash(BaseException):
    """The process ends here: nothing of it goes on."""


class Broken(Exception):
    """The same where others wait for what is written together: each of them hears of it."""


def crash_between(
    patch: pytest.MonkeyPatch, rig: Rig, settle: str, crash: type[BaseException] = Crash
) -> None:
    """Let the first of ledger and registry be written, and nothing after it."""
    written: list[str] = []
    keep, remove = getattr(rig.state.campaigns, settle), Registry.remove

    def note(where: str) -> None:
        if written and written[0] != where:
            raise crash
        written.append(where)

    def settled(*asked: Any) -> Any:
        note("ledger")
        return keep(*asked)

    async def removed(registry: Registry, dead: Any) -> int:
        note("registry")
        return await remove(registry, dead)

    patch.setattr(rig.state.campaigns, settle, settled)
    patch.setattr(Registry, "remove", removed)


@pytest.mark.spec("P012", "P055")
async def test_a_campaign_leaves_no_dead_address_in_use(rig: Rig) -> None:
    await rig.device("d1")
    rig.sender.script("t-d1", DEAD)
    campaign = await rig.launch()
    with pytest.MonkeyPatch.context() as patch:
        crash_between(patch, rig, "settle")
        with pytest.raises(Crash):
            await rig.work(campaign)
    assert (await rig.finish(campaign)).state == "done"
    assert await rig.standing("d1") == ("removed", "unregistered")
    assert rig.sends(campaign) == {"d1": ("skipped", "removed")}
    assert rig.sender.told == {"t-d1": 1}


@pytest.mark.spec("P012", "P055")
async def test_a_push_of_an_event_leaves_no_dead_address_in_use(rig: Rig) -> None:
    await rig.device("d1", "u1")
    await rig.device("d2", "u1")
    rig.sender.script("t-d1", DEAD)
    message = Message(type="track", message_id="m", user_id="u1", event="x", received_at=rig.clock.now())
    trigger = Trigger(message=message, code="hello")

    async def push() -> Any:
        pushes = Pushes("app", rig.state.campaigns, cast("Sender", rig.sender), lambda: rig.parts, rig.clock)
        return await rig.clock.drive(pushes.push("m", "u1", trigger))

    with pytest.MonkeyPatch.context() as patch:
        crash_between(patch, rig, "settle_singles", Broken)
        with pytest.raises(Broken):
            await push()
    assert isinstance(await push(), Delivered)
    assert await rig.standing("d1") == ("removed", "unregistered")
    assert rig.sender.told["t-d1"] == 1
    assert not isinstance(await push(), Skipped)
