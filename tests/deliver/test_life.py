"""Stopping, crashing, fencing, a failing disk, and erasing: nothing lost, nothing doubled."""

from __future__ import annotations

import asyncio

import pytest

from towpath.deliver import SETTLE_S
from towpath.destination import Check
from towpath.http import Stopping
from towpath.log import LogFull
from towpath.outcome import Paused, Rejected
from towpath.settler import Fenced
from towpath.testing.loop import virtual

from .conftest import MakeStage
from .stage import DOWN, OK, Answer


@pytest.mark.spec("D05")
@pytest.mark.parametrize("at_s", [0.0, 0.005, 0.015, 0.5, 1.015])
def test_a_graceful_stop_loses_nothing_and_doubles_nothing(stage: MakeStage, at_s: float) -> None:
    @virtual
    async def run() -> None:
        s = stage()
        s.vendor.delay_s = lambda m: 1.0 if m.user_id == "slow" else 0.01
        await s.start()
        for n in range(100):
            await s.send(f"m{n}", person=f"p{n % 7}")
        await s.send("s1", "s2", person="slow")
        await s.pass_s(at_s)
        await s.stop()
        tried = s.vendor.order()
        await s.open()
        assert (await s.balance()).delivered == len(tried)
        await s.start()
        await s.drained()
        assert sorted(s.vendor.order()) == sorted(set(s.vendor.order()))
        assert len(s.vendor.started) == 102
        await s.stop()

    run()


@pytest.mark.spec("D05")
@virtual
async def test_calls_longer_than_the_grace_are_sent_again(stage: MakeStage) -> None:
    s = stage()
    s.vendor.delay_s = lambda _: 60.0
    await s.start()
    await s.send("a", "b")
    await s.pass_s(1)
    began = s.clock.monotonic()
    await s.stop()
    assert s.clock.monotonic() - began < 10
    s.vendor.delay_s = lambda _: 0.1
    await s.start()
    await s.drained()
    assert s.vendor.order() == ["a", "a", "b"]
    await s.stop()


@virtual
async def test_what_was_held_back_by_a_stop_stays_waiting_untouched(stage: MakeStage) -> None:
    s = stage()
    s.vendor.answer = lambda m: Stopping() if s.loop._stopping else OK
    s.vendor.delay_s = lambda _: 1.0
    await s.start()
    await s.send("a")
    await s.pass_s(0.5)
    await s.stop()
    await s.open()
    balance = await s.balance()
    assert (balance.waiting, balance.delivered) == (1, 0)
    await s.start()
    await s.drained()
    assert {row.attempts for _, row in await s.store.deliveries(None, None, 9)} == {1}
    await s.stop()


@pytest.mark.spec("D04", "D05")
@pytest.mark.parametrize("at_s", [0.001, 0.011, 0.05, 0.3, 5.0, 40.0])
def test_after_a_crash_it_goes_on_from_cursor_settled_and_parked(stage: MakeStage, at_s: float) -> None:
    @virtual
    async def run() -> None:
        s = stage()
        s.vendor.delay_s = lambda m: 0.3 if m.user_id == "p1" else 0.01
        s.vendor.answer = lambda m: DOWN if m.message_id in ("m3", "m8") and s.clock.monotonic() < 30 else OK
        await s.start()
        for n in range(60):
            await s.send(f"m{n}", person=f"p{n % 6}")
        await s.pass_s(at_s)
        delivered = {row.position for _, row in await s.store.deliveries(None, None, 999)}
        flying = len(s.vendor.started) - len(s.vendor.ended)
        await s.crash()
        tried = [name for name in s.vendor.order() if name not in ("m3", "m8")]
        await s.start()
        await s.drained()
        doubled = [name for name in set(tried) if len(s.vendor.attempts(name)) > 1]
        assert len(doubled) <= flying + 6
        assert all(int(name[1:]) + 1 not in delivered for name in doubled)
        assert (await s.balance()).delivered == 60
        for person in range(6):
            ended = [int(name[1:]) for _, name in s.vendor.ended if int(name[1:]) % 6 == person]
            first = list(dict.fromkeys(ended))
            assert first == sorted(first)
        await s.stop()

    run()


@virtual
async def test_a_loop_whose_lease_was_taken_stops_and_settles_nothing(stage: MakeStage) -> None:
    s = stage()
    s.vendor.delay_s = lambda _: 30.0
    await s.start()
    await s.send("a")
    await s.pass_s(1)
    lease = s.loop._settler.lease
    assert lease is not None
    await s.store.release(lease)
    assert await s.store.lease("web-vendor", "another", 600) is not None
    assert s.task is not None
    with pytest.raises(Fenced):
        await s.task
    assert (await s.balance()).waiting == 1
    await s.close()


@virtual
async def test_an_end_that_arrives_after_the_fence_changes_nothing(stage: MakeStage) -> None:
    s = stage()
    s.vendor.delay_s = lambda _: 5.0
    await s.start()
    await s.send("a", "b")
    await s.pass_s(1)
    lease = s.loop._settler.lease
    assert lease is not None
    await s.store.release(lease)
    assert await s.store.lease("web-vendor", "another", 600) is not None
    assert s.task is not None
    with pytest.raises(Fenced):
        await s.task
    assert s.vendor.order() == ["a"]
    assert (await s.balance()).waiting == 2
    await s.close()


@virtual
async def test_no_call_starts_that_could_outlast_a_lease_that_is_not_renewed(stage: MakeStage) -> None:
    s = stage()
    await s.start()
    await s.pass_s(1)
    lease, failing = s.store.lease, [True]

    async def lease_or_fail(connection: str, owner: str, ttl_s: float, partition: int = 0) -> object:
        if failing:
            raise OSError("unreachable")
        return await lease(connection, owner, ttl_s, partition)

    s.store.lease = lease_or_fail  # type: ignore[method-assign,assignment]
    await s.send("early")
    await s.pass_s(30)
    await s.send("late")
    await s.pass_s(300)
    assert s.vendor.order() == ["early"]
    failing.clear()
    await s.drained()
    assert s.vendor.order() == ["early", "late"]
    await s.stop()


@virtual
async def test_two_loops_do_not_run_at_once(stage: MakeStage) -> None:
    s = stage()
    s.vendor.delay_s = lambda _: 30.0
    await s.start()
    second = s.make_loop()
    task = asyncio.create_task(second.run())
    await s.send("a")
    await s.pass_s(200)
    assert s.vendor.order() == ["a"]
    await second.stop()
    await task
    await s.stop()


@pytest.mark.spec("D05")
@pytest.mark.parametrize("error", [OSError("disk"), LogFull("full")])
def test_while_settling_fails_nothing_goes_on_and_nothing_is_lost(stage: MakeStage, error: Exception) -> None:
    @virtual
    async def run() -> None:
        s = stage()
        await s.open()
        settle, failing = s.store.settle, [True]

        async def settle_or_fail(lease: object, settlement: object) -> bool:
            if failing:
                raise error
            return await settle(lease, settlement)  # type: ignore[arg-type]

        s.store.settle = settle_or_fail  # type: ignore[method-assign]
        await s.start()
        await s.send("a", "b")
        await s.pass_s(60)
        assert s.vendor.order() == ["a"]
        failing.clear()
        await s.drained()
        assert s.vendor.order() == ["a", "b"]
        await s.stop()

    run()


@virtual
async def test_a_stop_does_not_wait_for_ever_for_a_failing_disk(stage: MakeStage) -> None:
    s = stage()
    await s.open()

    async def fail(lease: object, settlement: object) -> bool:
        raise LogFull("full")

    s.store.settle = fail  # type: ignore[method-assign]
    await s.start()
    await s.send("a")
    await s.pass_s(5)
    began = s.clock.monotonic()
    await s.stop()
    assert s.clock.monotonic() - began < 30


@pytest.mark.spec("D05")
@virtual
async def test_a_stop_spends_its_grace_once(stage: MakeStage) -> None:
    s = stage()
    await s.open()

    async def hang(lease: object, settlement: object) -> bool:
        await s.clock.sleep(600.0)
        return True

    s.store.settle = hang  # type: ignore[method-assign]
    s.vendor.delay_s = lambda m: 60.0 if m.message_id == "slow" else 0.01
    await s.start()
    await s.send("slow", person="bob")
    await s.send("quick")
    await s.pass_s(1)
    began = s.clock.monotonic()
    await s.loop.stop(8.0)
    assert s.clock.monotonic() - began < 8.0 + SETTLE_S + 0.1
    await s.close()


@virtual
async def test_an_unreadable_ledger_ends_the_loop_with_its_error(stage: MakeStage) -> None:
    s = stage()
    await s.open()

    async def fail(connection: str, person: str, limit: int = 64) -> list[object]:
        raise RuntimeError("damaged")

    s.store.parked = fail  # type: ignore[method-assign,assignment]
    s.vendor.answer = lambda m: DOWN
    await s.start()
    await s.send("a")
    assert s.task is not None
    with pytest.raises(RuntimeError, match="damaged"):
        await s.task
    assert await s.store.lease("web-vendor", "next", 1) is not None
    await s.close()


@virtual
async def test_erasing_drops_what_waits_and_does_not_retry_what_is_on_the_way(stage: MakeStage) -> None:
    s = stage()
    s.vendor.delay_s = lambda m: 10.0 if m.user_id == "ann" else 0.01
    s.vendor.answer = lambda m: DOWN if m.user_id in ("ann", "bad") else OK
    await s.start()
    await s.send("a1", "a2", "a3", person="ann")
    await s.send("b1", "b2", person="bad")
    await s.pass_s(8)
    await s.send("a4", person="ann")
    s.loop.forget(frozenset({"ann", "bad"}), await s.store.erase(["ann", "bad"]))
    await s.pass_s(3600)
    assert [name for name in s.vendor.order() if name.startswith("a")] == ["a1"]
    balance = await s.balance()
    assert (balance.erased, balance.waiting) == (6, 0)
    s.vendor.answer = lambda m: OK
    await s.send("new", person="ann")
    await s.drained()
    assert s.vendor.order()[-1] == "new"
    await s.stop()


@pytest.mark.spec("D10")
@pytest.mark.parametrize("answer", [Stopping(), Paused("401", 401)], ids=["unsent", "refused"])
def test_what_was_erased_on_the_way_is_not_put_back(stage: MakeStage, answer: Answer) -> None:
    @virtual
    async def run() -> None:
        s = stage()
        s.vendor.delay_s = lambda m: 10.0
        s.vendor.checks = lambda: [Check("account", ok=False)]
        answers = [answer]
        s.vendor.answer = lambda m: answers.pop() if answers else OK
        await s.start()
        await s.send("a1", person="ann")
        await s.pass_s(5)
        s.loop.forget(frozenset({"ann"}), await s.store.erase(["ann"]))
        await s.pass_s(60)
        s.vendor.checks = lambda: [Check("account", ok=True)]
        await s.pass_s(300)
        assert s.vendor.order() == ["a1"]
        assert s.vendor.attempts("a1") == s.vendor.attempts("a1")[:1]
        balance = await s.balance()
        assert (balance.erased, balance.waiting, balance.difference, s.loop.lanes.size) == (1, 0, 0, 0)
        await s.send("b1", person="bob")
        await s.drained()
        await s.stop()

    run()


@virtual
async def test_a_delivery_that_ends_well_while_its_person_is_erased_stays_even(stage: MakeStage) -> None:
    s = stage()
    s.vendor.delay_s = lambda m: 5.0
    await s.start()
    await s.send("a1", "a2", person="ann")
    await s.pass_s(1)
    s.loop.forget(frozenset({"ann"}), await s.store.erase(["ann"]))
    await s.pass_s(30)
    assert s.vendor.order() == ["a1"]
    assert (await s.balance()).erased == 2
    await s.stop()


@virtual
async def test_an_erased_tail_of_the_log_does_not_keep_the_loop_busy(stage: MakeStage) -> None:
    s = stage()
    await s.open()
    await s.send("a", person="ann")
    await s.send("b", person="bob")
    await s.store.erase(["bob"])
    await s.start()
    await s.drained()
    await s.send("c", person="ann")
    await s.drained()
    assert s.vendor.order() == ["a", "c"]
    await s.stop()


@virtual
async def test_the_cursor_is_saved_at_a_stop_and_passes_what_is_not_ours(stage: MakeStage) -> None:
    s = stage()
    s.vendor.answer = lambda m: Rejected("400", 400)
    await s.start()
    await s.send("a")
    await s.pass_s(1)
    for n in range(30):
        await s.append({"type": "track", "messageId": f"x{n}", "userId": "u"}, source="other")
    await s.pass_s(1)
    await s.stop()
    await s.open()
    lease = await s.store.lease("web-vendor", "next", 1)
    assert lease is not None
    assert (await s.store.progress(lease)).cursor == 31
    await s.close()
