"""Order per person (D04): one at a time for each, and nobody waits for anybody else."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from towpath.http import Undelivered
from towpath.log import Lease
from towpath.message import Record
from towpath.outcome import Retry
from towpath.parking import PAGE
from towpath.testing.loop import virtual

from .conftest import MakeStage
from .stage import DOWN, OK


@pytest.mark.spec("D04")
@virtual
async def test_a_person_is_delivered_in_order_one_at_a_time(stage: MakeStage) -> None:
    s = stage()
    await s.start()
    await s.send(*(f"m{n}" for n in range(20)))
    await s.drained()
    assert s.vendor.order() == [f"m{n}" for n in range(20)]
    for (ended, _), (started, _) in zip(s.vendor.ended, s.vendor.started[1:], strict=False):
        assert started >= ended
    await s.stop()


@pytest.mark.spec("D04")
@virtual
async def test_the_next_starts_only_when_the_end_of_the_one_before_is_on_disk(stage: MakeStage) -> None:
    s = stage()
    await s.open()
    settled: list[int] = []
    settle = s.store.settle

    async def slowly(lease: object, settlement: object) -> bool:
        await s.clock.sleep(5)
        kept = await settle(lease, settlement)  # type: ignore[arg-type]
        settled.append(len(s.vendor.started))
        return kept

    s.store.settle = slowly  # type: ignore[method-assign]
    await s.start()
    await s.send("a", "b", "c")
    await s.drained()
    at = [s.vendor.attempts(name)[0] for name in "abc"]
    assert at[1] - at[0] > 5
    assert at[2] - at[1] > 5
    await s.stop()


@pytest.mark.spec("D04")
@virtual
async def test_a_hot_person_delays_nobody_and_keeps_his_order(stage: MakeStage) -> None:
    s = stage()
    s.window = 256
    s.vendor.delay_s = lambda _: 1.0
    await s.start()
    await s.send(*(f"hot{n}" for n in range(500)), person="hot")
    await s.send("other", person="bob")
    await s.until(lambda: bool(s.vendor.attempts("other")))
    assert s.vendor.attempts("other")[0] < 5
    assert len(await s.rows()) > 500 - PAGE - 10
    await s.drained()
    assert [name for name in s.vendor.order() if name != "other"] == [f"hot{n}" for n in range(500)]
    await s.stop()


@virtual
async def test_a_loop_stopped_before_it_began_ends_and_gives_the_lease_back(stage: MakeStage) -> None:
    s = stage()
    await s.start()
    await s.loop.stop()
    assert s.task is not None
    await s.task
    assert await s.store.lease("web-vendor", "next", 1) is not None
    await s.close()


@pytest.mark.spec("D04", "D06")
@virtual
async def test_a_failing_person_is_parked_with_his_followers_and_the_cursor_goes_on(stage: MakeStage) -> None:
    s = stage()
    s.vendor.answer = lambda message: DOWN if message.user_id == "bad" else OK
    await s.start()
    await s.send("b1", "b2", person="bad")
    for n in range(600):
        await s.send(f"ok{n}", person=f"p{n % 50}")
    await s.send("b3", person="bad")
    await s.until(lambda: len(s.vendor.attempts("b1")) == 3)
    assert await s.rows() == ["b1", "b2", "b3"]
    assert not s.vendor.attempts("b2")
    await s.stop()
    await s.open()
    lease = await s.store.lease("web-vendor", "somebody", 1)
    assert lease is not None
    assert (await s.store.progress(lease)).cursor == 603
    await s.close()


@pytest.mark.spec("D04")
@virtual
async def test_after_a_crash_what_lies_before_rows_goes_before_them(stage: MakeStage) -> None:
    s = stage()
    s.vendor.delay_s = lambda _: 60.0
    await s.start()
    await s.send(*(f"m{n}" for n in range(100)))
    await s.pass_s(30)
    assert len(await s.rows()) > 50
    await s.crash()
    s.vendor.started.clear()
    s.vendor.delay_s = lambda _: 0.01
    await s.open()
    read = s.store.read

    async def slowly(after: int, limit: int, partition: int = 0) -> Sequence[Record]:
        await s.clock.sleep(1)
        return await read(after, min(limit, 7))

    s.store.read = slowly  # type: ignore[method-assign]
    await s.start()
    await s.drained()
    assert s.vendor.order() == [f"m{n}" for n in range(100)]
    await s.stop()


@pytest.mark.spec("D04")
@virtual
async def test_no_row_is_left_behind_when_one_is_stored_while_the_lane_loads(stage: MakeStage) -> None:
    s = stage()
    await s.open()
    parked = s.store.parked

    async def slowly(lease: Lease, person: str, limit: int = 64) -> object:
        rows = await parked(lease, person, limit)
        await s.clock.sleep(3)
        return rows

    s.store.parked = slowly  # type: ignore[method-assign,assignment]
    fails = {"m0": 2}

    def answer(message: object) -> object:
        name = message.message_id  # type: ignore[attr-defined]
        fails[name] = fails.get(name, 0) - 1
        return DOWN if fails[name] >= 0 else OK

    s.vendor.answer = answer  # type: ignore[assignment]
    await s.start()
    await s.send("m0", "m1")
    await s.until(lambda: len(s.vendor.attempts("m0")) == 2)
    await s.until(lambda: s.loop._lanes.find("u:ann").stand.name == "LOADING")  # type: ignore[union-attr]
    await s.send("m2", "m3")
    await s.drained()
    assert s.vendor.order() == ["m0", "m0", "m0", "m1", "m2", "m3"]
    await s.stop()


@pytest.mark.spec("D04")
@virtual
async def test_unparking_works_under_steady_traffic_of_others(stage: MakeStage) -> None:
    s = stage()
    once = {"bad": 2}

    def answer(message: object) -> object:
        name = message.message_id  # type: ignore[attr-defined]
        if once.get(name, 0) > 0:
            once[name] -= 1
            return Undelivered(Retry("503", code=503))
        return OK

    s.vendor.answer = answer  # type: ignore[assignment]
    await s.start()
    await s.send("bad", person="bad")
    for n in range(3000):
        await s.send(f"x{n}", person=f"p{n}")
        await s.pass_s(0.02)
    assert len(s.vendor.attempts("bad")) == 3
    await s.drained()
    await s.stop()
