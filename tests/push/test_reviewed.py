"""Campaigns against what goes on beside them: cancelling, pausing, a refusing disk, erasing, newer tokens."""

from __future__ import annotations

from typing import Any, cast

import pytest

from towpath.outcome import Retry
from towpath.push.pusher import Pushes
from towpath.push.registry import Registry

from .rig import ACCEPTED, BUSY, MISMATCH, Rig
from .test_pusher import asked, push

pytestmark = pytest.mark.usefixtures("inline")

CAMPAIGNS: dict[str, Any] = {
    "hello": {"title": "Hello", "body": "there"},
    "night": {"title": "x", "body": "y", "quiet_hours": {"from": "08:00", "to": "12:00"}},
}


@pytest.mark.spec("P050")
async def test_a_cancel_while_enlisting_is_heard(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("towpath.push.reach.PAGE", 10)
    for number in range(30):
        await rig.device(f"d{number:02d}", f"u{number}")
    campaign = await rig.launch()
    real, pages = rig.registry.audience, list[str]()

    async def audience(after: str, limit: int) -> Any:
        pages.append(after)
        if len(pages) == 2:
            await rig.desk.cancel(campaign)
        return await real(after, limit)

    monkeypatch.setattr(rig.registry, "audience", audience)
    await rig.work(campaign)
    assert rig.row(campaign).state == "cancelled"
    assert rig.sender.bodies == []


@pytest.mark.spec("P050")
async def test_a_pause_just_before_the_start_is_kept(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    await rig.device("d1", "u1")
    campaign = await rig.launch()
    real = rig.state.campaigns.recover

    def recover(number: int) -> int:
        rig.state.campaigns.move(number, "paused", rig.clock.now())
        return real(number)

    monkeypatch.setattr(rig.state.campaigns, "recover", recover)
    await rig.work(campaign)
    assert rig.row(campaign).state == "paused"
    assert rig.sender.bodies == []


@pytest.mark.spec("P056", "P053")
async def test_devices_whose_quiet_hours_differ_are_all_told_once(rig: Rig) -> None:
    sender = cast("Any", rig.sender)
    pushes = Pushes("app", rig.state.campaigns, sender, lambda: rig.parts, rig.clock)
    await rig.device("d1", "u1", timezone="America/Los_Angeles")
    await rig.device("d2", "u1", timezone="UTC")
    trigger = asked(rig, "night")
    for _ in range(4):
        outcome = await push(rig, pushes, trigger)
        if not isinstance(outcome, Retry):
            break
        await rig.clock.advance((outcome.after_s or 0) + 1)
    assert rig.sender.told == {"t-d1": 1, "t-d2": 1}


@pytest.mark.spec("P055")
async def test_answers_outlive_a_write_that_fails(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(40):
        await rig.device(f"d{number}", f"u{number}")
    campaign = await rig.launch()
    real, failed = rig.state.campaigns.settle, list[int]()

    def settle(*arguments: Any) -> None:
        if not failed:
            failed.append(1)
            raise OSError("database is locked")
        real(*arguments)

    async def slowly(_: str) -> None:
        await rig.clock.sleep(0.05)

    monkeypatch.setattr(rig.state.campaigns, "settle", settle)
    rig.sender.before = slowly
    await rig.finish(campaign)
    assert failed
    assert set(rig.sends(campaign).values()) == {("accepted", "")}
    assert set(rig.sender.told.values()) == {1}


@pytest.mark.spec("P012", "P014")
async def test_a_token_reported_after_the_refusal_is_not_disabled(rig: Rig) -> None:
    for number in range(60):
        await rig.device(f"d{number}", f"u{number}")
    rig.sender.script("t-d1", MISMATCH)
    rig.sender.script("t-d2", BUSY, ACCEPTED)
    campaign = await rig.launch()
    wait_s = await rig.work(campaign)
    assert wait_s is not None
    await rig.clock.advance(5)
    await rig.device("d1", "u1", token="fresh")
    await rig.clock.advance(wait_s)
    await rig.finish(campaign)
    assert (await rig.standing("d1"))[0] == "active"


@pytest.mark.spec("D10")
async def test_an_erase_reaches_the_persons_a_campaign_named(rig: Rig) -> None:
    await rig.device("d1", "victim")
    campaign = await rig.launch(changes={"audience": {"persons": ["victim", "other"]}})
    await rig.finish(campaign)
    rig.state.forget_people({"victim"})
    assert "victim" not in rig.row(campaign).settings
    assert "other" in rig.row(campaign).settings


@pytest.mark.spec("P050")
async def test_nothing_waits_in_a_cancelled_campaign(rig: Rig) -> None:
    await rig.device("d1", "u1")
    campaign = await rig.launch()

    async def cancel(_: str) -> None:
        await rig.desk.cancel(campaign)

    rig.sender.before = cancel
    rig.sender.script("t-d1", BUSY)
    await rig.work(campaign)
    assert rig.sends(campaign)["d1"][0] != "pending"


@pytest.mark.spec("P053")
async def test_what_a_pause_made_late_is_still_tried_again(rig: Rig) -> None:
    await rig.device("d1", "u1")
    campaign = await rig.launch()
    await rig.desk.pause(campaign)
    await rig.clock.advance(2 * 3600)
    await rig.desk.resume(campaign)
    rig.sender.script("t-d1", BUSY, ACCEPTED)
    await rig.finish(campaign)
    assert rig.sends(campaign)["d1"][0] == "accepted"


@pytest.mark.spec("P040")
async def test_devices_of_before_the_account_are_taken_over(rig: Rig) -> None:
    before = Registry(rig.state.engine, "", rig.clock, rig.settings)
    rig.registry, with_account = before, rig.registry
    await rig.device("d1", "u1")
    await rig.device("d2", "u2")
    rig.registry = with_account
    await rig.device("d2", "u3", token="newer")
    assert await with_account.adopt() == 1
    assert [one.id for one in await with_account.of_person("u1")] == ["d1"]
    assert [one.id for one in await with_account.of_person("u3")] == ["d2"]
    assert await with_account.adopt() == 0
