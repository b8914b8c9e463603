"""Campaigns: everybody meant is told once, whoever refuses is judged, whatever stops goes on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from towpath.device import Unregistered
from towpath.errors import TowpathError
from towpath.push.campaigns import Launch
from towpath.state.campaigns import SendState, Settled

from .rig import (
    BUSY,
    DEAD,
    DEVICE_THROTTLED,
    INVALID,
    MISMATCH,
    NO_APNS,
    REFUSED,
    SILENT,
    THROTTLED,
    WRONG,
    Rig,
)

pytestmark = pytest.mark.usefixtures("inline")

CAMPAIGNS: dict[str, Any] = {
    "hello": {"title": "Hello", "body": "there"},
    "named": {"title": "Hi {traits.first_name|you}", "body": "on {context.device.type}"},
    "strict": {"title": "Hi {traits.first_name}", "body": "x"},
    "brief": {"title": "Hi", "body": "x", "drop_after": "5m"},
    "pro": {"title": "Hi", "body": "x", "audience": {"filter": "traits.plan == 'pro'"}},
}


async def three_people(rig: Rig) -> None:
    await rig.person("u1", first_name="Ada", plan="pro")
    await rig.device("d1", "u1", platform="ios")
    await rig.device("d2", "u1")
    await rig.device("d3", "u2", platform="web")
    await rig.device("d4")


@pytest.mark.spec("P004", "P006", "P050")
async def test_every_device_of_every_customer_is_told_once(rig: Rig) -> None:
    await three_people(rig)
    campaign = await rig.launch()
    row = await rig.finish(campaign)
    assert row.state == "done"
    assert rig.sender.told == {"t-d1": 1, "t-d2": 1, "t-d3": 1, "t-d4": 1}
    assert set(rig.sends(campaign).values()) == {("accepted", "")}


@pytest.mark.spec("P001", "P051", "P055", "P057")
async def test_each_platform_gets_its_own_block_with_a_name_that_a_repeat_replaces(rig: Rig) -> None:
    await three_people(rig)
    campaign = await rig.launch()
    await rig.finish(campaign)
    bodies = {body["message"]["token"]: body["message"] for body in rig.sender.bodies}
    tag = f"towpath-{campaign}"
    assert bodies["t-d1"]["apns"]["headers"]["apns-collapse-id"] == tag
    assert bodies["t-d2"]["android"]["notification"]["tag"] == tag
    assert bodies["t-d3"]["webpush"]["notification"]["tag"] == tag
    assert "apns" not in bodies["t-d2"]
    assert {body["fcm_options"]["analytics_label"] for body in bodies.values()} == {"hello"}


@pytest.mark.spec("P050")
async def test_merge_tags_are_the_persons_and_the_devices(rig: Rig) -> None:
    await three_people(rig)
    await rig.finish(await rig.launch("named"))
    shown = {body["message"]["token"]: body["message"]["notification"] for body in rig.sender.bodies}
    assert shown["t-d1"] == {"title": "Hi Ada", "body": "on ios"}
    assert shown["t-d3"] == {"title": "Hi you", "body": "on web"}


@pytest.mark.spec("P050")
async def test_a_missing_merge_tag_skips_that_device_and_no_other(rig: Rig) -> None:
    await three_people(rig)
    campaign = await rig.launch("strict")
    assert (await rig.finish(campaign)).state == "done"
    assert rig.sends(campaign)["d1"] == ("accepted", "")
    assert rig.sends(campaign)["d3"] == ("skipped", "merge_tag")


@pytest.mark.spec("P006", "P050")
@pytest.mark.parametrize(
    ("audience", "told"),
    [
        ({"persons": ["u2"]}, {"t-d3"}),
        ({"platforms": ["ios", "web"]}, {"t-d1", "t-d3"}),
        ({"provisional": False}, {"t-d1", "t-d2", "t-d3"}),
        ({"filter": "traits.plan == 'pro' && context.device.type == 'ios'"}, {"t-d1"}),
        ({"devices": "last_used", "persons": ["u1"]}, {"t-d2"}),
    ],
)
async def test_an_audience_is_whom_it_says(rig: Rig, audience: dict[str, Any], told: set[str]) -> None:
    await rig.person("u1", first_name="Ada", plan="pro")
    await rig.device("d1", "u1", platform="ios")
    await rig.clock.advance(60)
    await rig.device("d2", "u1")
    await rig.device("d3", "u2", platform="web")
    await rig.device("d4")
    await rig.finish(await rig.launch(changes={"audience": audience}))
    assert set(rig.sender.told) == told


@pytest.mark.spec("P045", "D09")
async def test_who_does_not_agree_gets_nothing_and_is_counted(rig: Rig) -> None:
    await three_people(rig)
    await rig.person("u1", consent=False)
    campaign = await rig.launch()
    await rig.finish(campaign)
    assert set(rig.sender.told) == {"t-d3", "t-d4"}
    assert rig.sends(campaign)["d1"] == ("skipped", "consent")


@pytest.mark.spec("P041", "P045")
@pytest.mark.parametrize("what", ["moved", "removed", "consent"])
async def test_the_owner_is_looked_at_when_it_is_sent(rig: Rig, what: str) -> None:
    await three_people(rig)
    campaign = await rig.launch()
    rig.sender.script("t-d1", REFUSED)  # enlisted, then stopped by itself
    await rig.finish(campaign)
    assert rig.row(campaign).state == "stopped"
    before = rig.sender.told["t-d1"]
    await rig.clock.advance(1)
    if what == "moved":
        await rig.device("d1", "u2", platform="ios")
    elif what == "removed":
        await rig.note(Unregistered(device="d1", at=rig.clock.now()))
    else:
        await rig.person("u1", consent=False)
    rig.sender.scripts.clear()
    await rig.desk.resume(campaign)
    assert (await rig.finish(campaign)).state == "done"
    assert rig.sends(campaign)["d1"] == ("skipped", what)
    assert rig.sender.told["t-d1"] == before


@pytest.mark.spec("P012")
@pytest.mark.parametrize("verdict", [DEAD, INVALID])
async def test_a_dead_address_leaves_the_registry(rig: Rig, verdict: Any) -> None:
    await three_people(rig)
    rig.sender.script("t-d2", verdict)
    campaign = await rig.launch()
    assert (await rig.finish(campaign)).state == "done"
    assert (await rig.standing("d2"))[0] == "removed"
    assert rig.sends(campaign)["d2"] == ("failed", verdict.code)
    assert (await rig.standing("d1"))[0] == "active"


@pytest.mark.spec("P012")
async def test_a_token_reported_while_it_was_sent_to_survives(rig: Rig) -> None:
    await three_people(rig)
    rig.sender.script("t-d2", DEAD)

    async def register_again(address: str) -> None:
        if address == "t-d2":
            await rig.clock.advance(0.001)
            await rig.device("d2", "u1")

    rig.sender.before = register_again
    await rig.finish(await rig.launch())
    assert (await rig.standing("d2"))[0] == "active"


@pytest.mark.spec("P013")
async def test_a_wrong_message_stops_the_campaign_and_removes_nothing(rig: Rig) -> None:
    for number in range(30):
        await rig.device(f"d{number}")
        rig.sender.script(f"t-d{number}", WRONG)
    campaign = await rig.launch()
    row = await rig.finish(campaign)
    assert row.state == "stopped"
    assert "Invalid value at 'message.data'" in row.reason
    assert sum(rig.sender.told.values()) < 15
    assert all([(await rig.standing(f"d{number}"))[0] == "active" for number in range(30)])


@pytest.mark.spec("P014")
async def test_too_many_addresses_of_another_project_stop_it_and_remove_nothing(rig: Rig) -> None:
    for number in range(80):
        await rig.device(f"d{number:02}")
        if number % 5 == 0:
            rig.sender.script(f"t-d{number:02}", MISMATCH)
    row = await rig.finish(await rig.launch())
    assert row.state == "stopped"
    assert "another Firebase project" in row.reason
    assert (await rig.registry.counts()).statuses == {"active": 80}


@pytest.mark.spec("P014")
async def test_a_few_addresses_of_another_project_are_disabled_at_the_end(rig: Rig) -> None:
    for number in range(80):
        await rig.device(f"d{number:02}")
    rig.sender.script("t-d07", MISMATCH)
    campaign = await rig.launch()
    assert (await rig.finish(campaign)).state == "done"
    assert (await rig.standing("d07")) == ("disabled", "SENDER_ID_MISMATCH")
    again = await rig.launch()
    await rig.finish(again)
    assert rig.sender.told["t-d07"] == 1


@pytest.mark.spec("P014")
async def test_few_devices_that_are_all_of_another_project_stay(rig: Rig) -> None:
    for number in range(3):
        await rig.device(f"d{number}")
        rig.sender.script(f"t-d{number}", MISMATCH)
    assert (await rig.finish(await rig.launch())).state == "done"
    assert (await rig.registry.counts()).statuses == {"active": 3}


@pytest.mark.spec("P053")
async def test_a_refused_key_stops_it_and_a_resume_sends_the_rest_once(rig: Rig) -> None:
    for number in range(20):
        await rig.device(f"d{number:02}")
    rig.sender.script("t-d09", REFUSED)
    campaign = await rig.launch()
    row = await rig.finish(campaign)
    assert row.state == "stopped"
    assert "the API is disabled" in row.reason
    rig.sender.scripts.clear()
    await rig.desk.resume(campaign)
    assert (await rig.finish(campaign)).state == "done"
    assert rig.sender.told.pop("t-d09") == 2
    assert set(rig.sender.told.values()) - {2} == {1}
    assert set(rig.sends(campaign).values()) == {("accepted", "")}


@pytest.mark.spec("P053")
async def test_a_platform_without_its_key_fails_and_the_others_go_on(rig: Rig) -> None:
    for number in range(40):
        await rig.device(f"d{number:02}", platform="ios" if number % 2 else "android")
        if number % 2:
            rig.sender.script(f"t-d{number:02}", NO_APNS)
    campaign = await rig.launch()
    assert (await rig.finish(campaign)).state == "done"
    sends = rig.sends(campaign)
    assert {sends[f"d{number:02}"][0] for number in range(0, 40, 2)} == {"accepted"}
    assert {sends[f"d{number:02}"][0] for number in range(1, 40, 2)} == {"failed"}
    assert (await rig.registry.counts()).statuses == {"active": 40}


@pytest.mark.spec("P053")
@pytest.mark.parametrize("verdict", [BUSY, THROTTLED, DEVICE_THROTTLED, SILENT])
async def test_what_may_work_later_is_sent_later(rig: Rig, verdict: Any) -> None:
    await three_people(rig)
    rig.sender.script("t-d2", verdict)
    campaign = await rig.launch()
    began = rig.clock.now()
    assert await rig.work(campaign) is not None
    rig.sender.scripts.clear()
    assert (await rig.finish(campaign)).state == "done"
    assert rig.sender.told["t-d2"] == 2
    assert rig.clock.now() - began >= verdict.after_s
    assert rig.sender.told["t-d1"] == 1


@pytest.mark.spec("P053")
async def test_after_an_hour_it_gives_up(rig: Rig) -> None:
    await rig.device("d1")
    rig.sender.script("t-d1", BUSY)
    campaign = await rig.launch()
    began = rig.clock.now()
    assert (await rig.finish(campaign)).state == "done"
    assert rig.sends(campaign)["d1"] == ("failed", "UNAVAILABLE")
    assert 3600 <= rig.clock.now() - began < 2 * 3600


@pytest.mark.spec("P056")
async def test_what_is_late_is_dropped(rig: Rig) -> None:
    await rig.device("d1")
    rig.sender.script("t-d1", BUSY)
    campaign = await rig.launch("brief")
    assert (await rig.finish(campaign)).state == "done"
    assert rig.sends(campaign)["d1"] == ("skipped", "late")


@pytest.mark.spec("P055")
async def test_what_was_in_flight_when_it_died_is_told_again_and_nobody_else(rig: Rig) -> None:
    for number in range(20):
        await rig.device(f"d{number:02}")
    campaign = await rig.launch()
    rig.sender.script("t-d03", REFUSED)
    await rig.finish(campaign)
    rig.sender.scripts.clear()
    store, now = rig.state.campaigns, rig.clock.now()
    told = {device for device, (state, _) in rig.sends(campaign).items() if state == "accepted"}
    open_ones = sorted(set(rig.sends(campaign)) - told)
    store.begin(campaign, open_ones[:2], [], now)  # and the process dies
    before = rig.sender.told
    await rig.desk.resume(campaign)
    row = await rig.finish(campaign)
    assert (row.state, row.repeated) == ("done", 2)
    assert all(rig.sender.told[f"t-{device}"] == before[f"t-{device}"] for device in told)
    assert set(rig.sends(campaign).values()) == {("accepted", "")}


@pytest.mark.spec("P055")
async def test_enlisting_goes_on_where_it_stopped(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("towpath.push.reach.PAGE", 2)
    for number in range(7):
        await rig.device(f"d{number}")
    campaign = await rig.launch()
    pages: list[Any] = []
    enlist = rig.state.campaigns.enlist

    def failing(*arguments: Any) -> None:
        if len(pages) == 2:
            raise OSError("the disk is full")
        pages.append(arguments)
        enlist(*arguments)

    monkeypatch.setattr(rig.state.campaigns, "enlist", failing)
    with pytest.raises(OSError, match="full"):
        await rig.work(campaign)
    monkeypatch.setattr(rig.state.campaigns, "enlist", enlist)
    row = await rig.finish(campaign)
    assert (row.state, row.enlisted) == ("done", 7)
    assert set(rig.sender.told.values()) == {1}
    assert len(rig.sender.told) == 7


@pytest.mark.spec("P050")
async def test_pause_holds_and_resume_goes_on(rig: Rig) -> None:
    for number in range(10):
        await rig.device(f"d{number}")
    campaign = await rig.launch()
    await rig.desk.pause(campaign)
    assert await rig.work(campaign) is None
    assert rig.sender.told == {}
    await rig.desk.resume(campaign)
    assert (await rig.finish(campaign)).state == "done"
    assert len(rig.sender.told) == 10


@pytest.mark.spec("P050")
async def test_a_pause_in_the_middle_loses_and_doubles_nobody(rig: Rig) -> None:
    for number in range(60):
        await rig.device(f"d{number:02}")
    campaign = await rig.launch()

    async def pause_once(_: str) -> None:
        await rig.clock.advance(0.1)
        if len(rig.sender.bodies) == 20:
            rig.state.campaigns.move(campaign, "paused", rig.clock.now())

    rig.sender.before = pause_once
    monkey = pytest.MonkeyPatch()
    monkey.setattr("towpath.push.mailing.LEAST_CLAIMED", 10)
    monkey.setattr("towpath.push.mailing.PAGE", 10)
    try:
        await rig.work(campaign)
    finally:
        monkey.undo()
    assert rig.row(campaign).state == "paused"
    assert 20 <= len(rig.sender.bodies) < 60
    await rig.desk.resume(campaign)
    assert (await rig.finish(campaign)).state == "done"
    assert len(rig.sender.told) == 60
    assert set(rig.sender.told.values()) == {1}


@pytest.mark.spec("P050")
async def test_cancelled_is_for_good(rig: Rig) -> None:
    await three_people(rig)
    campaign = await rig.launch()
    rig.sender.script("t-d1", REFUSED)
    await rig.finish(campaign)
    await rig.desk.cancel(campaign)
    assert rig.sends(campaign)["d1"] == ("skipped", "cancelled")
    with pytest.raises(TowpathError, match="cannot become"):
        await rig.desk.resume(campaign)


@pytest.mark.spec("P056")
async def test_a_time_in_the_future_is_waited_for(rig: Rig) -> None:
    await rig.device("d1")
    campaign = await rig.launch(at="2025-10-09T10:53:20+00:00")  # two hours later
    wait_s = await rig.work(campaign)
    assert wait_s is not None
    assert rig.sender.told == {}
    await rig.device("d2")  # registered before its time: it belongs to the audience
    began = rig.clock.now()
    await rig.finish(campaign)
    assert rig.clock.now() - began >= 7199
    assert len(rig.sender.told) == 2


@pytest.mark.spec("P056")
async def test_local_time_is_each_devices_own(rig: Rig) -> None:
    await rig.device("d1", timezone="Asia/Tokyo")  # UTC+9
    await rig.device("d2", timezone="America/New_York")  # UTC-4 in October
    await rig.device("d3")  # UTC
    moments: dict[str, float] = {}
    rig.sender.before = lambda address: moments.setdefault(address, rig.clock.now())
    await rig.finish(await rig.launch(at="2025-10-11T09:00", local=True))
    nine_utc = 1_760_173_200.0
    assert moments["t-d1"] - (nine_utc - 9 * 3600) == pytest.approx(0, abs=30)
    assert moments["t-d2"] - (nine_utc + 4 * 3600) == pytest.approx(0, abs=30)
    assert moments["t-d3"] - nine_utc == pytest.approx(0, abs=30)


@pytest.mark.spec("P056")
async def test_quiet_hours_are_the_devices_own(tmp_path: Path) -> None:
    rig = await Rig(tmp_path, campaigns=CAMPAIGNS, quiet_hours={"from": "17:00", "to": "09:30"}).begin()
    await rig.device("d1", timezone="Asia/Tokyo")  # it is 17:53 there
    await rig.device("d2", timezone="Europe/Vienna")  # 10:53
    moments: dict[str, float] = {}
    rig.sender.before = lambda address: moments.setdefault(address, rig.clock.now())
    began = rig.clock.now()
    await rig.finish(await rig.launch())
    assert moments["t-d2"] - began < 60
    assert moments["t-d1"] - began == pytest.approx((15 * 60 + 36 + 2 / 3) * 60, abs=60)
    await rig.close()


@pytest.mark.spec("P054")
async def test_a_large_campaign_does_not_begin_around_a_quarter_of_an_hour(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("towpath.push.mailing.LARGE", 3)
    await three_people(rig)
    await rig.clock.advance(6 * 60)  # 08:59:20
    campaign = await rig.launch()
    wait_s = await rig.work(campaign)
    assert wait_s is not None
    assert wait_s == pytest.approx(160, abs=2)
    assert rig.sender.told == {}
    await rig.clock.advance(wait_s)
    assert (await rig.finish(campaign)).state == "done"


@pytest.mark.spec("P057", "P051")
async def test_a_rehearsal_counts_previews_and_asks_without_sending(rig: Rig) -> None:
    await three_people(rig)
    await rig.person("u2", consent=False)
    rig.sender.script("t-d1", INVALID)
    found = await rig.desk.rehearse(Launch("named"))
    assert found.devices == {"ios": 1, "android": 2}
    assert found.skipped == {"consent": 1}
    assert found.previews["ios"][0]["json"]["message"]["notification"]["title"] == "Hi Ada"
    assert found.previews["ios"][0]["size_bytes"] > 0
    assert all(body["validate_only"] is True for body in rig.sender.bodies)
    assert {one["verdict"] for one in found.verdicts} == {"accepted", "invalid_token"}
    assert (await rig.standing("d1"))[0] == "active"
    assert await rig.desk.newest() == []


@pytest.mark.spec("P051")
async def test_a_rehearsal_without_devices_still_shows_what_would_be_sent(rig: Rig) -> None:
    found = await rig.desk.rehearse(Launch("named"))
    assert set(found.previews) == {"ios", "android", "web"}
    assert "{context.device.type}" in str(found.previews["ios"])
    assert found.devices == {}


@pytest.mark.spec("P051")
async def test_a_rehearsal_says_when_the_audience_takes_nobody(rig: Rig) -> None:
    await three_people(rig)
    found = await rig.desk.rehearse(Launch("hello", changes={"audience": {"filter": "traits.nothing > 3"}}))
    assert found.problems == ["the audience takes none of the 4 devices looked at"]


@pytest.mark.spec("P050")
async def test_named_persons_are_read_alone(rig: Rig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("towpath.push.reach.PAGE", 2)
    for number in range(9):
        await rig.device(f"d{number}", f"u{number}")

    async def never(*_: Any) -> Any:
        raise AssertionError("the whole registry was read")

    monkeypatch.setattr(rig.registry, "audience", never)
    audience = {"persons": ["u7", "u1", "u3", "u1", "nobody"]}
    await rig.finish(await rig.launch(changes={"audience": audience}))
    assert rig.sender.told == {"t-d1": 1, "t-d3": 1, "t-d7": 1}


@pytest.mark.parametrize(
    ("launch", "said"),
    [
        (Launch("nobody"), "there is no campaign"),
        (Launch("hello", at="tomorrow"), "is no time"),
        (Launch("hello", local=True), "local needs a time"),
        (Launch("hello", at="2026-01-01T09:00+01:00", local=True), "no offset"),
        (Launch("hello", changes={"audience": {"filter": "traits.plan =="}}), "filter"),
        (Launch("hello", changes={"titel": "x"}), "titel"),
        (Launch("hello", changes={"body": "x" * 5000}), "characters"),
    ],
)
@pytest.mark.spec("P051")
async def test_what_cannot_be_sent_is_said_before(rig: Rig, launch: Launch, said: str) -> None:
    with pytest.raises(TowpathError, match=said) as caught:
        await rig.desk.launch(launch)
    assert caught.value.data == "Nothing was sent."
    assert await rig.desk.newest() == []


async def test_a_campaign_that_nobody_works_on_gets_a_run_at_the_start(rig: Rig) -> None:
    store = rig.state.campaigns
    await rig.launch()
    (live,) = await rig.jobs.runs("campaign")
    await rig.jobs.cancel(live.id)
    await rig.desk.revive()
    runs = await rig.jobs.runs("campaign")
    assert [run.state for run in runs] == ["queued", "cancelled"]
    await rig.desk.revive()
    assert len(await rig.jobs.runs("campaign")) == 2
    assert store.newest(states=("scheduled",))


@pytest.mark.spec("D10", "P045")
async def test_an_erased_person_is_gone_from_the_ledger(rig: Rig) -> None:
    await three_people(rig)
    campaign = await rig.launch()
    await rig.finish(campaign)
    rig.state.forget_people({"u1"})
    assert {device for device in rig.sends(campaign) if not device.startswith("erased-")} == {"d3", "d4"}
    assert await rig.registry.of_person("u1") == []


@pytest.mark.spec("D19")
async def test_old_campaigns_are_forgotten_and_live_ones_are_not(rig: Rig) -> None:
    await three_people(rig)
    old = await rig.launch()
    await rig.finish(old)
    live = await rig.launch(at="2030-01-01T00:00")
    rig.state.campaigns.prune(rig.clock.now() + 1)
    assert [row.id for row in rig.state.campaigns.newest()] == [live]
    assert rig.sends(old) == {}


async def test_an_answer_after_a_cancel_is_still_kept(rig: Rig) -> None:
    await rig.device("d1")
    campaign = await rig.launch()
    store, now = rig.state.campaigns, rig.clock.now()
    store.move(campaign, "cancelled", now)
    store.settle(campaign, [Settled("d1", SendState.ACCEPTED)], now)
    assert rig.row(campaign).state == "cancelled"
