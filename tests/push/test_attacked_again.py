"""What the second hostile tester found: pushes after an erase, another account under way, a full disk."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest
from sqlalchemy.exc import OperationalError

from towpath.message import Message
from towpath.notice import Notice, Trigger
from towpath.outcome import Skipped
from towpath.push.mailing import CampaignJob
from towpath.push.pace import Pace
from towpath.push.parts import Parts
from towpath.push.pusher import Pushes
from towpath.push.registry import Registry
from towpath.push.sender import Sender
from towpath.state.campaigns import Campaigns

from .rig import REFUSED, Rig, ScriptedSender

pytestmark = pytest.mark.usefixtures("inline")

CAMPAIGNS: dict[str, Any] = {"hello": {"title": "Hello", "body": "there"}}


def states(rig: Rig, campaign: int) -> list[tuple[str, str]]:
    return sorted(rig.sends(campaign).values())


def files(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in sorted(directory.glob("state.db*")))


# -- erased while a campaign is under way ------------------------------------------------------------------


@pytest.mark.spec("D10", "P045")
@pytest.mark.parametrize("wait_s", [0.0, 600.0])
async def test_nothing_leaves_for_an_erased_person_though_it_was_ready(rig: Rig, wait_s: float) -> None:
    """Whoever is erased in the pause after a 429 has a letter that only waits for its place."""
    await rig.device("d0", "u0")
    await rig.device("d1", "erased-u1")
    await rig.device("d2", "u2")
    campaign = await rig.launch()

    async def erase(address: str) -> None:
        if address == "t-d0":
            rig.sender.pace.pause(wait_s)
            await rig.job.let_go(frozenset({"erased-u1"}))
            rig.state.forget_people({"erased-u1"})

    rig.sender.before = erase
    rig.sender.in_flight = 1
    await rig.finish(campaign)
    assert rig.sender.told == {"t-d0": 1, "t-d2": 1}
    assert states(rig, campaign) == [("accepted", ""), ("accepted", ""), ("skipped", "erased")]


@pytest.mark.spec("D10")
async def test_an_erase_waits_for_what_is_on_its_way(rig: Rig) -> None:
    await rig.device("d1", "u1")
    campaign = await rig.launch()
    answered = False
    letting_go: list[asyncio.Task[None]] = []

    async def answer_late(_: str) -> None:
        nonlocal answered
        letting_go.append(asyncio.create_task(rig.job.let_go(frozenset({"u1"}))))
        await rig.clock.sleep(5.0)
        assert not letting_go[0].done()
        answered = True

    rig.sender.before = answer_late
    await rig.work(campaign)
    await rig.clock.advance(1)
    assert letting_go[0].done()
    assert answered
    assert states(rig, campaign) == [("accepted", "")]


@pytest.mark.spec("D10", "P055")
async def test_an_erase_keeps_the_counts_and_nothing_that_names_the_person(rig: Rig, tmp_path: Path) -> None:
    await rig.device("d1", "u1")
    await rig.device("d9-the-phone", "the-person")  # the last one is where enlisting goes on
    campaign = await rig.launch()
    rig.sender.script("t-d1", REFUSED)
    rig.sender.in_flight = 1
    await rig.work(campaign)
    assert rig.row(campaign).cursor == "d9-the-phone"
    rig.state.forget_people({"the-person"})
    assert rig.row(campaign).enlisted == 2
    assert len(rig.sends(campaign)) == 2
    assert b"the-p" not in files(tmp_path)


@pytest.mark.spec("D10", "P055")
async def test_a_place_that_was_taken_away_enlists_nobody_twice(rig: Rig) -> None:
    for name in ("d1", "d2", "d3"):
        await rig.device(name, f"u-{name}")
    campaign = await rig.launch()
    rig.sender.script("t-d1", REFUSED)
    await rig.work(campaign)
    rig.state.forget_people({"u-d3"})
    await rig.desk.resume(campaign)
    rig.sender.script("t-d1")
    row = await rig.finish(campaign)
    assert (row.state, row.enlisted) == ("done", 3)
    assert set(rig.sender.told.values()) <= {1, 2}
    assert rig.sender.told["t-d2"] == 1


@pytest.mark.spec("D10")
async def test_nobody_is_enlisted_who_was_erased_since_the_page_was_read(
    rig: Rig, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    await rig.device("d1", "u1")
    await rig.device("d2-the-phone", "the-person")
    campaign = await rig.launch()
    people = Registry.people

    async def and_erased(registry: Registry, *asked: Any, **named: Any) -> Any:
        found = await people(registry, *asked, **named)
        monkeypatch.setattr(Registry, "people", people)
        await rig.job.let_go(frozenset({"the-person"}))
        rig.state.forget_people({"the-person"})
        return found

    monkeypatch.setattr(Registry, "people", and_erased)
    row = await rig.finish(campaign)
    assert row.state == "done"
    assert rig.sender.told == {"t-d1": 1}
    assert b"the-p" not in files(tmp_path)


# -- whose a device is when its push leaves ----------------------------------------------------------------


@pytest.mark.spec("P041", "P045")
@pytest.mark.parametrize("what", ["moved", "consent"])
async def test_what_waited_for_minutes_is_looked_at_when_it_leaves(rig: Rig, what: str) -> None:
    await rig.device("d0", "u0")
    await rig.device("d1", "u1")
    campaign = await rig.launch()

    async def change(address: str) -> None:
        if address == "t-d0":
            rig.sender.pace.pause(30.0)
            if what == "moved":
                await rig.device("d1", "u2")
            else:
                await rig.person("u1", consent=False)

    rig.sender.before = change
    rig.sender.in_flight = 1
    await rig.work(campaign)
    assert rig.sender.told == {"t-d0": 1}
    assert rig.sends(campaign)["d1"] == ("skipped", what)


@pytest.mark.spec("P041", "D10")
@pytest.mark.parametrize("what", ["moved", "erased", "erasing"])
async def test_a_push_of_an_event_that_waited_is_looked_at_when_it_leaves(rig: Rig, what: str) -> None:
    await rig.device("d1", "u1")
    held: set[str] = set()
    parts = rig.parts
    mine = Parts(
        parts.registry, parts.campaigns, parts.sender, parts.settings, parts.notices, held.__contains__
    )
    pushes = Pushes("c", rig.state.campaigns, cast("Sender", rig.sender), lambda: mine, rig.clock)
    rig.sender.pace.pause(60.0)
    message = Message(type="track", event="x", user_id="u1", message_id="m1", received_at=rig.clock.now())
    trigger = Trigger(message=message, code="hello")
    pushing = asyncio.create_task(pushes.push("m1", "u1", trigger))
    for _ in range(20):
        await asyncio.sleep(0)
    if what == "moved":
        await rig.device("d1", "u2")
    elif what == "erased":
        rig.state.forget_people({"u1"})
    else:
        held.add("u1")
    await rig.clock.advance(61)
    outcome = await pushing
    assert isinstance(outcome, Skipped)
    assert rig.sender.told == {}


# -- another configuration under way -----------------------------------------------------------------------


def other_project(rig: Rig, sender: ScriptedSender) -> Parts:
    registry = Registry(rig.state.engine, "q", rig.clock, rig.settings)
    notices = {code: Notice(made, code) for code, made in rig.settings.campaigns.items()}
    return Parts(registry, rig.state.campaigns, cast("Sender", sender), rig.settings, notices)


@pytest.mark.spec("P014", "P055")
async def test_a_campaign_of_another_project_stops_and_leaves_nobody_out(rig: Rig) -> None:
    for name in ("d1", "d2"):
        await rig.device(name, f"u-{name}")
    campaign = await rig.launch()
    rig.sender.script("t-d1", REFUSED)
    rig.sender.script("t-d2", REFUSED)
    await rig.work(campaign)
    await rig.desk.resume(campaign)
    mine, elsewhere = rig.job, other_project(rig, ScriptedSender(rig.clock))
    rig.job = CampaignJob(lambda: elsewhere)
    row = await rig.finish(campaign)
    assert (row.state, "project p" in row.reason) == ("stopped", True)
    assert {state for state, _ in rig.sends(campaign).values()} == {"pending"}
    rig.job = mine
    rig.sender.scripts.clear()
    await rig.desk.resume(campaign)
    assert (await rig.finish(campaign)).state == "done"
    assert {state for state, _ in rig.sends(campaign).values()} == {"accepted"}


@pytest.mark.spec("P003", "P055")
async def test_a_new_key_is_used_by_a_campaign_under_way(rig: Rig) -> None:
    """The old one is revoked as soon as the new one is in force: that is no reason to stop."""
    for number in range(100):
        await rig.device(f"d{number:03}")
    campaign = await rig.launch()
    renewed = ScriptedSender(rig.clock)
    in_force = rig.parts
    rig.job = CampaignJob(lambda: in_force)
    old = in_force

    def rotate(address: str) -> None:
        nonlocal in_force
        if address == "t-d010":
            in_force = Parts(old.registry, old.campaigns, cast("Sender", renewed), old.settings, old.notices)

    rig.sender.before = rotate
    rig.sender.script("t-d011", REFUSED)
    row = await rig.finish(campaign)
    assert row.state == "done"
    assert sum(rig.sender.told.values()) + sum(renewed.told.values()) <= 101
    assert {state for state, _ in rig.sends(campaign).values()} == {"accepted"}
    assert renewed.told["t-d099"] == 1


# -- a disk that is full -----------------------------------------------------------------------------------


@pytest.mark.spec("P055")
async def test_a_disk_that_fills_lets_what_is_on_its_way_end_and_repeats_nothing(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(100):
        await rig.device(f"d{number:03}")
    rig.sender.pace = Pace(rig.clock, 100.0, ramp_s=0.0)
    campaign = await rig.launch()
    begin = Campaigns.begin

    async def slow(_: str) -> None:
        await rig.clock.sleep(0.05)

    def full(store: Campaigns, *asked: Any) -> None:
        if rig.sender.bodies:
            monkeypatch.setattr(Campaigns, "begin", begin)
            raise OperationalError("begin", {}, Exception("database or disk is full"))
        begin(store, *asked)

    rig.sender.before = slow
    monkeypatch.setattr(Campaigns, "begin", full)
    with pytest.raises(OperationalError):
        await rig.work(campaign)
    row = await rig.finish(campaign)
    assert (row.state, row.repeated) == ("done", 0)
    assert set(rig.sender.told.values()) == {1}
    assert len(rig.sender.told) == 100


# -- beside others -----------------------------------------------------------------------------------------


@pytest.mark.spec("P054", "P055")
async def test_a_long_campaign_makes_room_for_other_jobs_every_minute(rig: Rig) -> None:
    """There are four places for jobs: four long campaigns must not keep all others waiting for hours."""
    for number in range(300):
        await rig.device(f"d{number:03}")
    rig.sender.pace = Pace(rig.clock, 2.0, ramp_s=0.0)
    campaign = await rig.launch()
    began = rig.clock.now()
    assert await rig.work(campaign) == 0.0
    assert 60 <= rig.clock.now() - began < 65
    assert {state for state, _ in rig.sends(campaign).values()} == {"accepted", "pending"}
    row = await rig.finish(campaign)
    assert (row.state, row.repeated) == ("done", 0)
    assert set(rig.sender.told.values()) == {1}
    assert rig.clock.now() - began < 160, "turns cost no time where nobody waits"


# -- a clock that is set back ------------------------------------------------------------------------------


@pytest.mark.spec("P055", "P056")
async def test_a_campaign_under_way_goes_on_when_the_clock_is_set_back(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(100):
        await rig.device(f"d{number:03}")
    rig.sender.pace = Pace(rig.clock, 100.0, ramp_s=0.0)
    campaign = await rig.launch()
    now, back_s = rig.clock.now, 0.0
    monkeypatch.setattr(rig.clock, "now", lambda: now() - back_s)

    def set_back(address: str) -> None:
        nonlocal back_s
        if address == "t-d010":
            back_s = 3600.0

    rig.sender.before = set_back
    began_s = rig.clock.monotonic()
    assert (await rig.finish(campaign)).state == "done"
    assert rig.clock.monotonic() - began_s < 60
    assert set(rig.sender.told.values()) == {1}
