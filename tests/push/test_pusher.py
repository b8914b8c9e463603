"""Pushes that events ask for: each device once for an event, whatever is tried again."""

from __future__ import annotations

import asyncio
from typing import Any, cast

import pytest

from towpath.message import Message
from towpath.notice import Notice, NoticeSettings, Trigger
from towpath.outcome import Delivered, Paused, Rejected, Retry, Skipped
from towpath.push.pusher import Pushes
from towpath.push.sender import Sender

from .rig import BUSY, DEAD, DEVICE_THROTTLED, MISMATCH, NO_APNS, REFUSED, SILENT, THROTTLED, WRONG, Rig

pytestmark = pytest.mark.usefixtures("inline")

CAMPAIGNS: dict[str, Any] = {
    "welcome": {"title": "Hi {traits.first_name|you}", "body": "{properties.total|0} points"},
    "night": {"title": "x", "body": "y", "quiet_hours": {"from": "08:00", "to": "12:00"}},
}
OWN = NoticeSettings(title="Order {properties.order_id}", body="is on its way")


@pytest.fixture
def pushes(rig: Rig) -> Pushes:
    sender = cast("Sender", rig.sender)
    return Pushes("app", rig.state.campaigns, sender, lambda: rig.parts, rig.clock)


def asked(rig: Rig, code: str = "welcome", notice: Notice | None = None, **properties: Any) -> Trigger:
    message = Message(
        type="track",
        message_id="m-1",
        user_id="u1",
        event="send_push",
        properties=properties,
        trust="server",
        received_at=rig.clock.now(),
    )
    return Trigger(message=message, code=code, notice=notice)


async def push(rig: Rig, pushes: Pushes, trigger: Trigger, key: str = "m-1", person: str = "u1") -> Any:
    return await rig.clock.drive(pushes.push(key, person, trigger))


@pytest.mark.spec("P050", "P004")
async def test_every_device_of_the_person_is_told_once(rig: Rig, pushes: Pushes) -> None:
    await rig.person("u1", first_name="Ada")
    await rig.device("d1", "u1", platform="ios")
    await rig.device("d2", "u1")
    await rig.device("d3", "u2")
    assert await push(rig, pushes, asked(rig, total=7)) == Delivered(200)
    assert rig.sender.told == {"t-d1": 1, "t-d2": 1}
    assert rig.sender.bodies[0]["message"]["notification"] == {"title": "Hi Ada", "body": "7 points"}
    assert await push(rig, pushes, asked(rig, total=7)) == Delivered(200)
    assert rig.sender.told == {"t-d1": 1, "t-d2": 1}


@pytest.mark.spec("P050")
async def test_an_events_own_notice_is_filled_from_the_event(rig: Rig, pushes: Pushes) -> None:
    await rig.device("d1", "u1")
    trigger = asked(rig, "Order Shipped", Notice(OWN, "Order Shipped"), order_id=42)
    assert isinstance(await push(rig, pushes, trigger), Delivered)
    (body,) = rig.sender.bodies
    assert body["message"]["notification"]["title"] == "Order 42"
    missing = asked(rig, "Order Shipped", Notice(OWN, "Order Shipped"))
    found = await push(rig, pushes, missing, key="m-2")
    assert isinstance(found, Rejected)
    assert "properties.order_id" in found.reason


@pytest.mark.spec("P053", "P055")
@pytest.mark.parametrize("verdict", [BUSY, THROTTLED, DEVICE_THROTTLED, SILENT])
async def test_a_retry_reaches_only_who_was_not_told(rig: Rig, pushes: Pushes, verdict: Any) -> None:
    await rig.device("d1", "u1")
    await rig.device("d2", "u1")
    rig.sender.script("t-d2", verdict)
    found = await push(rig, pushes, asked(rig))
    assert isinstance(found, Retry)
    assert found.after_s == verdict.after_s
    rig.sender.scripts.clear()
    assert isinstance(await push(rig, pushes, asked(rig)), Delivered)
    assert rig.sender.told == {"t-d1": 1, "t-d2": 2}


@pytest.mark.spec("P053")
async def test_after_an_hour_it_gives_up(rig: Rig, pushes: Pushes) -> None:
    await rig.device("d1", "u1")
    rig.sender.script("t-d1", BUSY)
    trigger = asked(rig)
    assert isinstance(await push(rig, pushes, trigger), Retry)
    await rig.clock.advance(3601)
    found = await push(rig, pushes, trigger)
    assert isinstance(found, Rejected)
    assert "within an hour" in found.reason


@pytest.mark.spec("P012")
async def test_a_dead_address_is_removed_and_reported(rig: Rig, pushes: Pushes) -> None:
    await rig.device("d1", "u1")
    await rig.device("d2", "u1")
    rig.sender.script("t-d2", DEAD)
    found = await push(rig, pushes, asked(rig))
    assert found == Delivered(200, ("device d2: UNREGISTERED (address removed)",))
    assert (await rig.standing("d2"))[0] == "removed"
    assert (await rig.standing("d1"))[0] == "active"


@pytest.mark.spec("P013", "P014")
@pytest.mark.parametrize("verdict", [WRONG, MISMATCH, NO_APNS])
async def test_what_is_not_about_the_address_removes_nothing(rig: Rig, pushes: Pushes, verdict: Any) -> None:
    await rig.device("d1", "u1")
    rig.sender.script("t-d1", verdict)
    found = await push(rig, pushes, asked(rig))
    assert isinstance(found, Rejected)
    assert verdict.code in found.reason
    assert await rig.standing("d1") == ("active", "")


@pytest.mark.spec("P053")
async def test_a_refused_key_pauses_and_later_sends(rig: Rig, pushes: Pushes) -> None:
    await rig.device("d1", "u1")
    rig.sender.script("t-d1", REFUSED)
    assert isinstance(await push(rig, pushes, asked(rig)), Paused)
    rig.sender.scripts.clear()
    assert isinstance(await push(rig, pushes, asked(rig)), Delivered)


@pytest.mark.parametrize(
    ("person", "reason"), [("nobody", "no_devices"), ("u2", "consent"), ("d9", "provisional")]
)
@pytest.mark.spec("P006", "P045")
async def test_who_cannot_be_told_is_skipped(rig: Rig, pushes: Pushes, person: str, reason: str) -> None:
    await rig.device("d2", "u2")
    await rig.person("u2", consent=False)
    await rig.device("d9")
    trigger = asked(rig)
    identified = Trigger(message=trigger.message, code=trigger.code, identified=True)
    found = await push(rig, pushes, identified, person=person)
    assert isinstance(found, Skipped)
    assert found.reason == reason
    assert rig.sender.told == {}


@pytest.mark.spec("P050")
async def test_an_unknown_campaign_is_named(rig: Rig, pushes: Pushes) -> None:
    await rig.device("d1", "u1")
    found = await push(rig, pushes, asked(rig, "nothing"))
    assert isinstance(found, Rejected)
    assert "'nothing'" in found.reason
    assert "welcome" in found.reason


@pytest.mark.spec("P056")
async def test_quiet_hours_wait_and_reach_the_others_now(rig: Rig, pushes: Pushes) -> None:
    await rig.device("d1", "u1")  # 08:53 in UTC: quiet
    await rig.device("d2", "u1", timezone="Asia/Tokyo")  # 17:53
    found = await push(rig, pushes, asked(rig, "night"))
    assert isinstance(found, Retry)
    assert found.after_s == pytest.approx(11200, abs=5)
    assert rig.sender.told == {"t-d2": 1}
    await rig.clock.advance(found.after_s or 0)
    assert isinstance(await push(rig, pushes, asked(rig, "night")), Delivered)
    assert rig.sender.told == {"t-d1": 1, "t-d2": 1}


@pytest.mark.spec("P055")
async def test_a_crash_before_the_answer_was_kept_sends_again_under_the_same_name(
    rig: Rig, pushes: Pushes
) -> None:
    await rig.device("d1", "u1", platform="ios")
    settle = rig.state.campaigns.settle_singles
    rig.state.campaigns.settle_singles = lambda *_: (_ for _ in ()).throw(OSError("dies"))  # type: ignore[method-assign]
    with pytest.raises(OSError, match="dies"):
        await push(rig, pushes, asked(rig))
    rig.state.campaigns.settle_singles = settle  # type: ignore[method-assign]
    assert isinstance(await push(rig, pushes, asked(rig)), Delivered)
    names = [body["message"]["apns"]["headers"]["apns-collapse-id"] for body in rig.sender.bodies]
    assert len(names) == 2
    assert len(set(names)) == 1


async def test_many_at_once_share_their_writes(rig: Rig, pushes: Pushes) -> None:
    for number in range(50):
        await rig.device(f"d{number}", f"p{number}")
    writes: list[int] = []
    begin = rig.state.campaigns.begin_singles

    def counted(wanted: Any, now: float) -> Any:
        writes.append(len(wanted))
        return begin(wanted, now)

    rig.state.campaigns.begin_singles = counted  # type: ignore[method-assign]

    async def all_of_them() -> list[Any]:
        return await asyncio.gather(
            *(pushes.push(f"k{number}", f"p{number}", asked(rig)) for number in range(50))
        )

    found = await rig.clock.drive(all_of_them())
    assert all(isinstance(one, Delivered) for one in found)
    assert sum(writes) == 50
    assert len(writes) < 25


@pytest.mark.spec("P054")
async def test_a_push_of_an_event_goes_before_campaigns(
    rig: Rig, pushes: Pushes, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked_for: list[bool] = []
    admit = rig.sender.pace.admit

    async def noted(*, urgent: bool = False) -> None:
        asked_for.append(urgent)
        await admit(urgent=urgent)

    monkeypatch.setattr(rig.sender.pace, "admit", noted)
    await rig.device("d1", "u1")
    assert isinstance(await push(rig, pushes, asked(rig)), Delivered)
    assert asked_for == [True]
