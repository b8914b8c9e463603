"""A refused credential pauses, and never drops (P6): confirmed, unconfirmed, unreachable, by hand."""

from __future__ import annotations

import pytest

from towpath.destination import Check, Limits
from towpath.message import Message
from towpath.outcome import Paused
from towpath.testing.loop import virtual

from .conftest import MakeStage
from .stage import OK, Answer, Stage

NO = Paused("401: bad key", 401)


def refusing(s: Stage, *, confirmed: bool = True, capability: str = "") -> list[bool]:
    """The vendor refuses (one capability, or all) until the list is emptied."""
    bad = [True]

    def answer(message: Message) -> Answer:
        return (
            NO if bad and s.vendor.capability(message) in (capability, *([] if capability else [""])) else OK
        )

    s.vendor.answer = answer
    s.vendor.checks = lambda: [Check("credentials", ok=not (bad and confirmed), capability=capability)]
    return bad


@pytest.mark.spec("D03", "D02")
@virtual
async def test_a_confirmed_refusal_pauses_with_the_queue_kept_and_resumes_by_itself(stage: MakeStage) -> None:
    s = stage()
    bad = refusing(s)
    await s.start()
    await s.send("a", "b")
    await s.send("c", person="bob")
    await s.pass_s(600)
    assert len(s.vendor.started) <= 3
    assert len(s.vendor.checked_at) <= 2 + 10
    (pause,) = s.loop.pauses.in_force
    assert (pause.capability, pause.reason) == ("", "401: bad key")
    assert (await s.balance()).waiting == 3
    bad.clear()
    await s.pass_s(62)
    balance = await s.balance()
    assert (balance.delivered, balance.dead) == (3, 0)
    assert {row.attempts for _, row in await s.store.deliveries(None, None, 9)} == {1}
    assert s.loop.pauses.in_force == []
    assert await s.store.pauses() == []
    await s.stop()


@pytest.mark.spec("D03")
@virtual
async def test_new_credentials_go_on_at_once_by_recheck(stage: MakeStage) -> None:
    s = stage()
    bad = refusing(s)
    await s.start()
    await s.send("a")
    await s.pass_s(10)
    bad.clear()
    await s.loop.pauses.recheck()
    await s.pass_s(1)
    assert (await s.balance()).delivered == 1
    await s.stop()


@pytest.mark.spec("D03")
@virtual
async def test_an_unconfirmed_refusal_rejects_only_that_delivery(stage: MakeStage) -> None:
    s = stage()
    s.vendor.answer = lambda m: Paused("403: firewall", 403) if m.message_id == "a" else OK
    await s.start()
    await s.send("a", "b")
    await s.send("c", person="bob")
    await s.drained()
    (letter,) = await s.dead()
    assert letter.record.message_id == "a"
    assert "the credential itself works" in letter.reason
    assert letter.code == 403
    assert (await s.balance()).delivered == 2
    assert len(s.vendor.checked_at) == 1
    await s.stop()


@pytest.mark.spec("D03")
@virtual
async def test_many_unconfirmed_refusals_end_each_and_share_checks(stage: MakeStage) -> None:
    s = stage()
    s.vendor.answer = lambda m: Paused("403: firewall", 403)
    await s.start()
    for n in range(30):
        await s.send(f"m{n}", person=f"p{n}")
    await s.drained()
    assert len(await s.dead()) == 30
    assert len(s.vendor.started) == 30
    assert len(s.vendor.checked_at) < 30
    await s.stop()


@pytest.mark.spec("D03")
@virtual
async def test_while_the_check_cannot_be_reached_it_is_tried_again(stage: MakeStage) -> None:
    s = stage()
    s.vendor.answer = lambda m: NO if s.clock.monotonic() < 60 else OK

    def unreachable() -> list[Check]:
        raise OSError("no route")

    s.vendor.checks = unreachable
    await s.start()
    await s.send("a", "b")
    await s.drained()
    balance = await s.balance()
    assert (balance.delivered, balance.dead) == (2, 0)
    assert len(s.vendor.attempts("a")) > 1
    await s.stop()


@pytest.mark.spec("D03")
@virtual
async def test_a_check_that_did_not_reach_the_vendor_confirms_nothing(stage: MakeStage) -> None:
    s = stage()
    s.vendor.answer = lambda m: NO if s.clock.monotonic() < 60 else OK
    s.vendor.checks = lambda: [Check("credentials", ok=False, reached=False)]
    await s.start()
    await s.send("a")
    await s.drained()
    assert (await s.balance()).delivered == 1
    assert len(s.vendor.attempts("a")) > 1
    assert await s.store.pauses() == []
    await s.stop()


@pytest.mark.spec("D03")
@virtual
async def test_a_paused_capability_leaves_the_others_alone_also_when_memory_is_full(stage: MakeStage) -> None:
    s = stage()
    s.window = 64
    s.vendor.capability = lambda m: "people" if m.type == "identify" else "events"
    bad = refusing(s, capability="people")
    await s.start()
    for n in range(200):
        await s.identify(f"i{n}", f"p{n}")
    await s.send(*(f"e{n}" for n in range(20)), person="other")
    await s.send("behind", person="p7")
    await s.pass_s(30)
    balance = await s.balance()
    assert balance.delivered == 20
    assert len(await s.rows()) > 100
    assert not s.vendor.attempts("behind")
    bad.clear()
    await s.pass_s(65)
    assert (await s.balance()).delivered == 221
    order = s.vendor.order()
    assert order.index("i7") < order.index("behind")
    await s.stop()


@virtual
async def test_memory_that_was_full_before_the_pause_is_freed_for_others(stage: MakeStage) -> None:
    s = stage()
    s.window = 32
    s.vendor.bounds = Limits(in_flight=4)
    s.vendor.delay_s = lambda _: 5.0
    s.vendor.capability = lambda m: "people" if m.type == "identify" else "events"
    refusing(s, capability="people")
    await s.open()
    for n in range(100):
        await s.identify(f"i{n}", f"p{n}")
    await s.send("event", person="other")
    await s.start()
    await s.pass_s(60)
    assert s.vendor.attempts("event")
    await s.stop()


@virtual
async def test_a_pause_lifted_while_the_loop_was_down_frees_what_it_held(stage: MakeStage) -> None:
    s = stage()
    s.window = 16
    s.vendor.capability = lambda m: "people" if m.type == "identify" else "events"
    bad = refusing(s, capability="people")
    await s.start()
    for n in range(60):
        await s.identify(f"i{n}", f"p{n}")
    await s.pass_s(10)
    assert await s.rows()
    await s.stop()
    bad.clear()
    await s.open()
    await s.store.resume("web-vendor", "people")
    await s.start()
    await s.drained()
    assert (await s.balance()).delivered == 60
    await s.stop()


@pytest.mark.spec("D03")
@virtual
async def test_a_pause_survives_a_restart(stage: MakeStage) -> None:
    s = stage()
    bad = refusing(s)
    await s.start()
    await s.send("a")
    await s.pass_s(5)
    await s.crash()
    tried = len(s.vendor.started)
    await s.start()
    await s.send("b", person="bob")
    await s.pass_s(300)
    assert len(s.vendor.started) == tried
    bad.clear()
    await s.drained()
    await s.stop()


@virtual
async def test_paused_by_hand_it_stands_still_over_a_restart_until_resumed(stage: MakeStage) -> None:
    s = stage()
    await s.start()
    await s.pass_s(1)
    await s.loop.pauses.by_hand("maintenance")
    await s.send("a")
    await s.pass_s(300)
    await s.stop()
    await s.start()
    await s.send("b")
    await s.pass_s(300)
    assert s.vendor.started == []
    assert [pause.capability for pause in s.loop.pauses.in_force] == ["*"]
    await s.loop.pauses.resume()
    await s.drained()
    assert s.vendor.order() == ["a", "b"]
    assert await s.store.pauses() == []
    await s.stop()


@virtual
async def test_a_refusal_of_the_whole_account_pauses_every_capability(stage: MakeStage) -> None:
    s = stage()
    s.vendor.capability = lambda m: m.type
    s.vendor.answer = lambda m: NO
    s.vendor.checks = lambda: [Check("key", ok=False), Check("people", ok=True, capability="identify")]
    await s.start()
    await s.identify("i", "ann")
    await s.pass_s(5)
    await s.send("t", person="bob")
    await s.pass_s(5)
    assert [pause.capability for pause in s.loop.pauses.in_force] == [""]
    assert not s.vendor.attempts("t")
    await s.stop()
