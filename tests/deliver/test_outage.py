"""An outage is not an exception: the connection stalls, one head is probed, nothing is parked."""

from __future__ import annotations

from itertools import pairwise

import pytest

from towpath.health import Health
from towpath.inspection import snapshot
from towpath.message import Message
from towpath.outcome import Retry
from towpath.testing.loop import virtual

from .conftest import MakeStage
from .stage import DAY_S, DOWN, HOUR_S, OK, Answer


@pytest.mark.spec("D06")
@virtual
async def test_an_outage_stalls_probes_and_parks_nothing(stage: MakeStage) -> None:
    s = stage()
    s.vendor.answer = lambda m: DOWN
    await s.start()
    for n in range(200):
        await s.send(f"m{n}", f"n{n}", person=f"p{n}")
    await s.pass_s(5)
    assert s.loop.health.stalled
    began = len(s.vendor.started)
    await s.pass_s(30 * 60)
    probes = [at for at, _ in s.vendor.started[began:]]
    assert await s.rows() == []
    assert [round(later - earlier) for earlier, later in pairwise(probes)][-5:] == [60] * 5
    assert len(probes) < 35
    lease = s.loop._settler.lease
    assert lease is not None
    assert (await s.store.progress(lease)).cursor == 0
    s.vendor.answer = lambda m: OK
    at = s.clock.monotonic()
    await s.drained()
    assert s.clock.monotonic() - at < 70
    assert (await s.balance()).delivered == 400
    for n in range(200):
        assert s.vendor.order().index(f"m{n}") < s.vendor.order().index(f"n{n}")
    await s.stop()


@virtual
async def test_the_probes_come_at_1_2_5_10_30_60_seconds(stage: MakeStage) -> None:
    s = stage()
    s.vendor.delay_s = lambda _: 0.0
    s.vendor.answer = lambda m: DOWN
    await s.start()
    for n in range(5):
        await s.send(f"m{n}", person=f"p{n}")
    await s.pass_s(300)
    times = [at for at, _ in s.vendor.started[5:]]
    assert [round(at) for at in times[:7]] == [1, 3, 8, 18, 48, 108, 168]
    await s.stop()


@virtual
async def test_one_that_can_never_work_does_not_stand_for_all_others(stage: MakeStage) -> None:
    s = stage()
    s.vendor.answer = lambda m: DOWN if str(m.user_id).startswith("bad") else OK
    await s.start()
    for n in range(5):
        await s.send(f"bad{n}", person=f"bad{n}")
    await s.pass_s(20)
    assert s.loop.health.stalled
    await s.send("good", person="good")
    await s.until(lambda: "good" in s.vendor.order(), 70)
    before = len(s.vendor.started)
    await s.pass_s(HOUR_S)
    assert len(s.vendor.started) - before < 5 * 60 + 70
    assert await s.dead() == []
    await s.stop()


@virtual
async def test_a_stall_that_begins_with_parked_rows_probes_them(stage: MakeStage) -> None:
    s = stage()
    s.vendor.answer = lambda m: DOWN
    await s.start()
    for n in range(4):
        await s.send(f"m{n}", f"n{n}", person=f"p{n}")
    await s.pass_s(60)
    assert len(await s.rows()) == 8
    await s.send("last", person="p4")
    await s.pass_s(1)
    assert s.loop.health.stalled
    await s.pass_s(HOUR_S)
    s.vendor.answer = lambda m: OK
    await s.until(lambda: not s.loop.health.stalled, 70)
    await s.drained()
    await s.stop()


@virtual
async def test_only_parked_rows_are_left_to_probe_after_a_restart(stage: MakeStage) -> None:
    s = stage()
    s.vendor.answer = lambda m: DOWN
    await s.start()
    for n in range(4):
        await s.send(f"m{n}", person=f"p{n}")
    await s.pass_s(700)
    await s.crash()
    await s.start()
    for n in range(4, 9):
        await s.send(f"m{n}", person=f"p{n}")
    await s.pass_s(HOUR_S)
    s.vendor.answer = lambda m: OK
    await s.drained()
    await s.stop()


@pytest.mark.spec("D06")
@virtual
async def test_an_outage_costs_nothing_for_76_hours(stage: MakeStage) -> None:
    s = stage()
    s.vendor.answer = lambda m: DOWN if s.clock.monotonic() < 76 * HOUR_S else OK
    await s.start()
    for n in range(50):
        await s.send(f"m{n}", person=f"p{n % 10}")
    await s.pass_s(76 * HOUR_S)
    await s.drained()
    balance = await s.balance()
    assert (balance.delivered, balance.dead) == (50, 0)
    await s.stop()


@pytest.mark.spec("D06")
@virtual
async def test_an_outage_that_never_ends_lets_the_old_die_and_keeps_the_young(stage: MakeStage) -> None:
    s = stage()
    s.vendor.answer = lambda m: DOWN
    await s.start()
    for n in range(20):
        await s.send(f"m{n}", person=f"p{n}")
    await s.pass_s(78 * HOUR_S)
    await s.send("young", person="young")
    await s.pass_s(3 * HOUR_S)
    dead = {letter.record.message_id for letter in await s.dead()}
    assert dead == {f"m{n}" for n in range(20)}
    assert (await s.balance()).waiting == 1
    await s.stop()


@virtual
async def test_the_vendors_wish_is_kept_by_the_probes(stage: MakeStage) -> None:
    s = stage()
    s.vendor.answer = lambda m: Retry("503", 600.0, code=503)
    await s.start()
    for n in range(10):
        await s.send(f"m{n}", person=f"p{n}")
    await s.pass_s(HOUR_S)
    times = [at for at, _ in s.vendor.started[10:]]
    assert all(later - earlier >= 600 for earlier, later in pairwise([0.0, *times]))
    assert len(times) >= 4
    await s.stop()


@virtual
async def test_memory_fills_during_an_outage_and_everything_is_delivered_after_it(stage: MakeStage) -> None:
    s = stage()
    s.window = 64

    def answer(message: Message) -> Answer:
        return DOWN if s.clock.monotonic() < DAY_S else OK

    s.vendor.answer = answer
    await s.start()
    for n in range(300):
        await s.send(f"m{n}", person=f"p{n % 60}")
    await s.pass_s(HOUR_S)
    assert await s.rows() == []
    assert len(s.loop._lanes) < 80
    shown = snapshot(s.loop)
    assert (shown["state"], shown["why"]) == ("stalled", DOWN.reason)
    await s.drained()
    assert snapshot(s.loop)["why"] == ""
    assert (await s.balance()).delivered == 300
    await s.stop()


def test_a_few_failing_persons_are_no_outage() -> None:
    health = Health()
    assert [health.failed(name, 0.0) for name in "abcd"] == [False] * 4
    assert [health.failed("a", 1.0) for _ in range(20)] == [False] * 20
    assert health.failed("e", 2.0)
    assert health.stalled
    assert not health.failed("f", 3.0)
    assert health.succeeded(4.0)
    assert not health.stalled
