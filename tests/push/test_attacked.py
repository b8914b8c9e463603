"""What a hostile tester found: stops that did not stop, answers that were lost, times that never came."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, time
from typing import Any, cast
from zoneinfo import ZoneInfo

import pytest

from towpath.errors import TowpathError
from towpath.http import Stopping
from towpath.jobs import Run
from towpath.message import Message
from towpath.notice import Trigger
from towpath.outcome import Delivered, Retry
from towpath.push.campaigns import Launch
from towpath.push.hours import Quiet, end_of_quiet
from towpath.push.mailing import CampaignRun
from towpath.push.pace import Pace
from towpath.push.pusher import Pushes
from towpath.push.sender import Sender
from towpath.state.campaigns import Campaigns

from .rig import ACCEPTED, BUSY, THROTTLED, Rig

pytestmark = pytest.mark.usefixtures("inline")

CAMPAIGNS: dict[str, Any] = {
    "hello": {"title": "Hello", "body": "there"},
    "evening": {"title": "Hi", "body": "x", "quiet_hours": {"from": "21:00", "to": "08:00"}},
}


async def devices(rig: Rig, number: int) -> None:
    for count in range(number):
        await rig.device(f"d{count:03}")


# -- pause and cancel --------------------------------------------------------------------------------------


@pytest.mark.spec("P050", "P053")
@pytest.mark.parametrize("to", ["cancelled", "paused"])
async def test_what_waits_for_the_pace_is_not_sent_after_a_cancel(rig: Rig, to: Any) -> None:
    await devices(rig, 40)
    campaign = await rig.launch()

    async def stop_in_the_first_pause(_: str) -> None:
        if not rig.sender.bodies:
            rig.sender.pace.pause(600.0)
            rig.state.campaigns.move(campaign, to, rig.clock.now())

    rig.sender.before = stop_in_the_first_pause
    began = rig.clock.now()
    await rig.work(campaign)
    assert len(rig.sender.bodies) == 1
    assert rig.clock.now() - began < 5, "a stop does not wait for the pace"
    states = [state for state, _ in rig.sends(campaign).values()]
    assert states.count("accepted") == 1
    assert states.count("skipped" if to == "cancelled" else "pending") == 39


@pytest.mark.spec("P050")
async def test_nothing_of_a_cancelled_campaign_is_pending_again(rig: Rig) -> None:
    await devices(rig, 3)
    campaign = await rig.launch()
    for number in range(3):
        rig.sender.script(f"t-d{number:03}", BUSY)

    async def cancel(_: str) -> None:
        rig.state.campaigns.move(campaign, "cancelled", rig.clock.now())

    rig.sender.before = cancel
    await rig.work(campaign)
    assert {state for state, _ in rig.sends(campaign).values()} == {"skipped"}


@pytest.mark.spec("P050")
async def test_a_cancel_while_devices_are_looked_up_lets_none_of_them_leave(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    await devices(rig, 5)
    campaign = await rig.launch()
    due = Campaigns.due

    def and_cancelled(store: Campaigns, *asked: Any) -> Any:
        found = due(store, *asked)
        store.move(campaign, "cancelled", rig.clock.now())
        return found

    monkeypatch.setattr(Campaigns, "due", and_cancelled)
    await rig.work(campaign)
    assert rig.sender.bodies == []
    assert set(rig.sends(campaign).values()) == {("skipped", "cancelled")}


@pytest.mark.spec("P050")
async def test_a_cancel_while_devices_are_enlisted_ends_that(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("towpath.push.reach.PAGE", 2)
    await devices(rig, 7)
    campaign = await rig.launch()
    enlist = rig.state.campaigns.enlist

    def and_cancelled(*asked: Any) -> None:
        enlist(*asked)
        rig.state.campaigns.move(campaign, "cancelled", rig.clock.now())

    monkeypatch.setattr(rig.state.campaigns, "enlist", and_cancelled)
    await rig.work(campaign)
    assert rig.row(campaign).enlisted == 2
    assert set(rig.sends(campaign).values()) == {("skipped", "cancelled")}


@pytest.mark.spec("P050")
async def test_a_resume_while_its_run_still_halts_is_seen(rig: Rig) -> None:
    await devices(rig, 30)
    campaign = await rig.launch()

    async def pause_and_resume(_: str) -> None:
        if not rig.sender.bodies:
            rig.sender.pace.pause(2.0)
            rig.state.campaigns.move(campaign, "paused", rig.clock.now())
            rig.state.campaigns.move(campaign, "scheduled", rig.clock.now())

    rig.sender.before = pause_and_resume
    assert await rig.work(campaign) is not None, "its run comes back"
    assert (await rig.finish(campaign)).state == "done"
    assert set(rig.sender.told.values()) == {1}
    assert len(rig.sender.told) == 30


@pytest.mark.spec("P055")
async def test_few_are_in_flight_that_wait_for_a_slow_pace(rig: Rig) -> None:
    await devices(rig, 300)
    rig.sender.in_flight = 2250
    rig.sender.pace = Pace(rig.clock, 100.0, ramp_s=0.0)
    rig.sender.pace.pause(30.0)
    campaign = await rig.launch()
    work = asyncio.ensure_future(rig.work(campaign))
    while len(rig.sender.bodies) < 5:
        await asyncio.sleep(0.001)
        if not rig.sender.bodies:
            told = [state for state, _ in rig.sends(campaign).values()]
            assert told.count("in_flight") <= 96, "what is claimed may be told twice after a crash"
    assert await work is None


# -- answers -----------------------------------------------------------------------------------------------


@pytest.mark.spec("P055")
async def test_an_answer_that_the_disk_refuses_is_written_later(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    await devices(rig, 20)
    campaign = await rig.launch()
    settle, refusals = rig.state.campaigns.settle, [OSError("the disk is full")] * 3

    def full(*asked: Any) -> None:
        if refusals:
            raise refusals.pop()
        settle(*asked)

    monkeypatch.setattr(rig.state.campaigns, "settle", full)
    row = await rig.finish(campaign)
    assert row.state == "done"
    assert set(rig.sends(campaign).values()) == {("accepted", "")}
    assert set(rig.sender.told.values()) == {1}


@pytest.mark.spec("P055")
async def test_a_stop_of_the_server_waits_for_answers_on_their_way(rig: Rig) -> None:
    await devices(rig, 3)
    campaign = await rig.launch()
    asked, answering = asyncio.Event(), asyncio.Event()

    async def slowly(_: str) -> None:
        asked.set()
        await answering.wait()

    async def kept(_: str) -> None:
        return None

    rig.sender.before = slowly
    work = asyncio.create_task(rig.job.run(Run(1, CampaignRun(campaign=campaign), rig.clock, persist=kept)))
    await asked.wait()
    await rig.clock.advance(0.5)  # by now all are on their way
    work.cancel()
    await rig.clock.advance(0.5)
    answering.set()
    with pytest.raises(asyncio.CancelledError):
        await work
    assert set(rig.sends(campaign).values()) == {("accepted", "")}


@pytest.mark.spec("P053")
async def test_what_begins_late_is_tried_again_too(rig: Rig) -> None:
    await devices(rig, 1)
    campaign = await rig.launch()
    await rig.desk.pause(campaign)
    await rig.clock.advance(2 * 3600)
    await rig.desk.resume(campaign)
    rig.sender.script("t-d000", THROTTLED, BUSY, BUSY, BUSY, ACCEPTED)
    row = await rig.finish(campaign)
    assert rig.sends(campaign)["d000"] == ("accepted", "")
    assert row.state == "done"


# -- times -------------------------------------------------------------------------------------------------


@pytest.mark.spec("P056")
def test_quiet_hours_end_in_the_hour_that_is_there_twice() -> None:
    vienna, quiet = ZoneInfo("Europe/Vienna"), Quiet(time(21), time(2, 30))
    again = datetime(2026, 10, 25, 1, 15, tzinfo=UTC).timestamp()  # 02:15 for the second time
    assert end_of_quiet(again, vienna, quiet) == again + 15 * 60


@pytest.mark.spec("P050")
@pytest.mark.parametrize(
    ("at", "local"),
    [("2024-10-09T09:00", False), ("2024-10-09T09:00", True), ("9999-12-31T23:59-14:00", False)],
)
async def test_a_slip_of_a_year_is_no_moment(rig: Rig, at: str, local: bool) -> None:
    with pytest.raises(TowpathError, match=r"is over|ahead"):
        await rig.desk.launch(Launch("hello", at=at, local=local))
    assert await rig.desk.newest() == []


@pytest.mark.spec("P050")
@pytest.mark.parametrize("audience", [5, None, []])
async def test_an_audience_that_is_none_is_said(rig: Rig, audience: Any) -> None:
    with pytest.raises(TowpathError, match="audience"):
        await rig.desk.launch(Launch("hello", {"audience": audience}))


# -- pushes of events --------------------------------------------------------------------------------------


@pytest.fixture
def pushes(rig: Rig) -> Pushes:
    return Pushes("app", rig.state.campaigns, cast("Sender", rig.sender), lambda: rig.parts, rig.clock)


async def push(rig: Rig, pushes: Pushes, trigger: Trigger) -> Any:
    return await rig.clock.drive(pushes.push("m-1", "u1", trigger))


def asked(rig: Rig, code: str) -> Trigger:
    message = Message(
        type="track", message_id="m-1", user_id="u1", event="send_push", properties={}, trust="server",
        received_at=rig.clock.now(),
    )  # fmt: skip
    return Trigger(message=message, code=code)


@pytest.mark.spec("P056", "P053")
async def test_a_device_that_slept_is_told_hours_after_the_others(rig: Rig, pushes: Pushes) -> None:
    await rig.device("d1", "u1", timezone="UTC")  # it is 08:53 there, and 22:53 in Kiritimati
    await rig.device("d2", "u1", timezone="Pacific/Kiritimati")
    trigger = asked(rig, "evening")
    waits = await push(rig, pushes, trigger)
    assert isinstance(waits, Retry)
    assert rig.sender.told == {"t-d1": 1}
    await rig.clock.advance(waits.after_s or 0.0)
    rig.sender.script("t-d2", BUSY, ACCEPTED)
    assert isinstance(await push(rig, pushes, trigger), Retry)
    await rig.clock.advance(15)
    assert isinstance(await push(rig, pushes, trigger), Delivered)
    assert rig.sender.told == {"t-d1": 1, "t-d2": 2}


@pytest.mark.spec("P055")
async def test_a_stop_amid_a_push_keeps_the_answers_that_came(rig: Rig, pushes: Pushes) -> None:
    await rig.device("d1", "u1")
    await rig.device("d2", "u1")
    stopping = True

    async def stop(address: str) -> None:
        if stopping and address == "t-d1":
            raise Stopping
        await asyncio.sleep(0)

    rig.sender.before = stop
    trigger = asked(rig, "hello")
    with pytest.raises(Stopping):
        await push(rig, pushes, trigger)
    stopping = False
    assert isinstance(await push(rig, pushes, trigger), Delivered)
    assert rig.sender.told == {"t-d1": 1, "t-d2": 1}


# -- whose a device is -------------------------------------------------------------------------------------


@pytest.mark.spec("D13", "P005", "P021")
@pytest.mark.parametrize("first", ["theirs", "forged"])
async def test_a_device_that_is_called_like_a_person_gets_none_of_their_pushes(rig: Rig, first: str) -> None:
    """Without a userId nothing is verified: the id of the device must not stand for a person's."""
    if first == "theirs":
        await rig.device("d1", "victim")
    await rig.device("victim", token="forged")
    if first == "forged":
        await rig.device("d1", "victim")
    for _ in range(2):
        assert [device.id for device in await rig.registry.of_person("victim")] == ["d1"]
        await rig.clock.advance(1)
        await rig.device("victim", token="forged")
    found = await rig.registry.find("victim")
    assert found is not None
    assert (found.person, found.provisional) == (None, False)


@pytest.mark.spec("P006", "P022")
async def test_a_device_on_which_nobody_signed_in_stays_its_own(rig: Rig) -> None:
    await rig.person("d1", first_name="Ada")
    await rig.device("d1")
    await rig.device("d1")
    assert [device.id for device in await rig.registry.of_person("d1")] == ["d1"]
