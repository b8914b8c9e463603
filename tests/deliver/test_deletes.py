"""The delete guard (D14): too many deletions wait for a yes, everything else goes on, over restarts."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import pytest

from towpath.connection import DeleteLimit, Deletion
from towpath.deletes import KEY, decide
from towpath.destination import Call, Check, Limits, Payload
from towpath.mapping import FieldMap, MapRule
from towpath.message import Message, format_time
from towpath.outcome import Paused
from towpath.testing.loop import virtual

from .conftest import MakeStage
from .stage import DOWN, HOUR_S, OK, Stage

THREE = DeleteLimit(share=0.2, count=3)


async def delete(s: Stage, *people: str) -> None:
    """Append deletions, named d-PERSON."""
    for person in people:
        await s.append({"type": "delete", "userId": person, "messageId": f"d-{person}"})


def people(first: int, last: int) -> list[str]:
    """P1, p2, … by number."""
    return [f"p{number}" for number in range(first, last + 1)]


def deleted(s: Stage) -> list[str]:
    """Who was deleted at the vendor, in order of the attempts."""
    return [name.removeprefix("d-") for name in s.vendor.order() if name.startswith("d-")]


async def started(make: MakeStage, limit: DeleteLimit | None = THREE, **connection: Any) -> Stage:
    """A stage at work with this limit."""
    s = make(delete_limit=limit, **connection)
    await s.start()
    return s


async def reason(s: Stage) -> str:
    """The reason of the only pause, as the ledger keeps it."""
    (pause,) = await s.store.pauses()
    assert pause.capability == "deletes"
    return pause.reason


@pytest.mark.spec("D14")
@virtual
async def test_one_deletion_too_many_waits_and_everything_else_goes_on(stage: MakeStage) -> None:
    s = await started(stage)
    await delete(s, *people(1, 5))
    await s.send("after", person="p4")
    await s.send("other", person="bob")
    await s.pass_s(30)
    assert deleted(s) == people(1, 3)
    assert s.vendor.attempts("other")
    assert not s.vendor.attempts("after")
    balance = await s.balance()
    assert (balance.delivered, balance.waiting, balance.dead) == (4, 3, 0)
    said = await reason(s)
    assert "3 people were deleted within 1h" in said
    assert "towpath connections confirm-deletes web-vendor" in said
    await s.stop()


@pytest.mark.spec("D14")
@virtual
async def test_confirmed_all_that_wait_go_and_later_ones_count_anew(stage: MakeStage) -> None:
    s = await started(stage)
    await delete(s, *people(1, 9))
    await s.send("after", person="p9")
    await s.pass_s(30)
    await s.loop.deletes.decide(s.store.last(), discard=False)
    await s.drained()
    assert sorted(deleted(s)) == people(1, 9)
    order = s.vendor.order()
    assert order.index("d-p9") < order.index("after")
    assert await s.store.pauses() == []
    await delete(s, "q1", "q2", "q3", "q4")
    await s.pass_s(30)
    assert deleted(s)[9:] == ["q1", "q2", "q3"]
    assert await reason(s)
    await s.stop()


@pytest.mark.spec("D14", "D02")
@virtual
async def test_discarded_all_that_wait_are_skipped_and_what_follows_goes(stage: MakeStage) -> None:
    s = await started(stage)
    await delete(s, *people(1, 9))
    await s.send("after", person="p9")
    await s.pass_s(30)
    await s.loop.deletes.decide(s.store.last(), discard=True)
    await s.drained()
    assert deleted(s) == people(1, 3)
    assert s.vendor.attempts("after")
    assert dict((await s.balance()).skipped) == {"discarded": 6}
    await delete(s, *people(10, 14))
    await s.pass_s(30)
    assert deleted(s)[3:] == people(10, 12)
    await s.crash()
    await s.start()
    await s.loop.deletes.decide(s.store.last(), discard=False)
    await s.drained()
    assert set(deleted(s)) == {*people(1, 3), *people(10, 14)}
    await s.stop()


@pytest.mark.spec("D14")
@virtual
async def test_what_was_discarded_stays_so_after_a_later_yes(stage: MakeStage) -> None:
    s = stage(delete_limit=THREE)
    s.window = 8
    s.vendor.delay_s = lambda m: 60.0 if m.type == "track" else 0.01
    s.vendor.bounds = Limits(in_flight=2)
    await s.open()
    await delete(s, *people(1, 5))
    await s.send(*(f"e{number}" for number in range(40)), person="slow")
    await delete(s, *people(6, 9))
    await s.start()
    await s.pass_s(5)
    await s.loop.deletes.decide(s.store.last(), discard=True)
    await s.loop.deletes.decide(s.store.last(), discard=False)
    await s.drained()
    assert deleted(s) == people(1, 3)
    await s.stop()


@pytest.mark.spec("D14")
@virtual
async def test_the_larger_of_share_and_count_holds(stage: MakeStage) -> None:
    s = stage(delete_limit=THREE)
    counted = asyncio.Event()

    async def persons() -> int:
        await counted.wait()
        return 39

    s.persons = persons
    await s.start()
    await delete(s, *people(1, 9))
    await s.send("e1")
    await s.pass_s(30)
    assert deleted(s) == people(1, 3)
    assert not await s.store.pauses()
    assert [outcome for name, outcome in s.told if name == "e1"] == [OK]
    counted.set()
    await s.pass_s(30)
    assert len(deleted(s)) == 7
    assert "count 3, 20% of 39 known persons" in await reason(s)
    await s.stop()


@virtual
async def test_when_nobody_can_say_how_many_are_known_the_count_holds(stage: MakeStage) -> None:
    async def unknown() -> int:
        raise OSError("state.db is busy")

    s = stage(delete_limit=THREE)
    s.persons = unknown
    await s.start()
    await delete(s, *people(1, 5))
    await s.pass_s(30)
    assert deleted(s) == people(1, 3)
    assert await reason(s)
    await s.stop()


@pytest.mark.spec("D14")
@virtual
async def test_what_is_spread_over_time_never_waits(stage: MakeStage) -> None:
    s = await started(stage)
    for person in people(1, 20):
        await delete(s, person)
        await s.pass_s(0.51 * HOUR_S)
    assert deleted(s) == people(1, 20)
    await delete(s, *people(21, 24))
    await s.pass_s(30)
    assert len(deleted(s)) == 22  # one of half an hour ago counts
    await s.stop()


@pytest.mark.spec("D14")
@virtual
async def test_time_alone_confirms_nothing(stage: MakeStage) -> None:
    s = await started(stage)
    await delete(s, *people(1, 5))
    await s.pass_s(100 * HOUR_S)
    assert deleted(s) == people(1, 3)
    await s.stop()


@pytest.mark.spec("D14")
@virtual
@pytest.mark.parametrize("graceful", [True, False])
async def test_count_and_pause_outlive_the_process(stage: MakeStage, graceful: bool) -> None:
    s = await started(stage)
    await delete(s, "p1", "p2")
    await s.pass_s(5)
    await (s.stop() if graceful else s.crash())
    await s.start()
    await delete(s, "p3", "p4")
    await s.pass_s(30)
    assert deleted(s) == people(1, 3)
    await (s.stop() if graceful else s.crash())
    await s.start()
    await delete(s, "p5")
    await s.pass_s(2 * HOUR_S)
    assert deleted(s) == people(1, 3)
    await s.loop.deletes.decide(s.store.last(), discard=False)
    await (s.stop() if graceful else s.crash())
    await s.start()
    await s.drained()
    assert set(deleted(s)) == {*people(1, 5)}
    await s.stop()


@pytest.mark.spec("D14")
@virtual
async def test_an_emptied_memory_is_filled_again(stage: MakeStage) -> None:
    s = await started(stage)
    await delete(s, "p1", "p2")
    await s.pass_s(5)
    s.memory.drop(KEY)  # as an erase does with all of it
    await s.pass_s(60)
    await s.crash()
    await s.start()
    await delete(s, "p3", "p4")
    await s.pass_s(30)
    assert deleted(s) == people(1, 3)
    await s.stop()


@pytest.mark.spec("D14")
@virtual
async def test_a_clock_put_forward_or_back_frees_nobody(stage: MakeStage) -> None:
    s = await started(stage)
    await delete(s, "p1")
    await s.pass_s(5)
    s.clock.jump(-7 * HOUR_S)
    await delete(s, "p2")
    await s.pass_s(5)
    s.clock.jump(30 * HOUR_S)
    await delete(s, "p3", "p4")
    await s.pass_s(30)
    assert deleted(s) == people(1, 3)
    await s.stop()


@pytest.mark.spec("D14")
@virtual
async def test_neither_a_resume_nor_the_probe_lets_them_go(stage: MakeStage) -> None:
    s = await started(stage)
    await delete(s, *people(1, 5))
    await s.pass_s(10)
    await s.loop.pauses.by_hand("maintenance")
    await s.loop.pauses.resume()
    await s.loop.pauses.recheck()
    await s.pass_s(300)
    assert deleted(s) == people(1, 3)
    assert [pause.capability for pause in s.loop.pauses.in_force] == ["deletes"]
    await s.send("other", person="bob")
    await s.pass_s(1)
    assert s.vendor.attempts("other")
    assert s.vendor.checked_at == []
    await s.stop()


@pytest.mark.spec("D14")
@virtual
async def test_confirmed_while_nothing_runs(stage: MakeStage) -> None:
    s = await started(stage)
    await delete(s, *people(1, 5))
    await s.pass_s(10)
    await s.stop()
    await s.open()
    decide(s.memory, s.store.last(), discard=False)
    await s.store.resume("web-vendor", "deletes")
    await s.start()
    await s.drained()
    assert sorted(deleted(s)) == people(1, 5)
    await s.stop()


@pytest.mark.spec("D14")
@virtual
async def test_a_loop_that_never_began_forgets_nothing(stage: MakeStage) -> None:
    s = await started(stage)
    await delete(s, "p1", "p2")
    await s.pass_s(5)
    await s.make_loop().stop()
    await s.crash()
    await s.start()
    await delete(s, "p3", "p4")
    await s.pass_s(30)
    assert deleted(s) == people(1, 3)
    await s.make_loop().deletes.decide(s.store.last(), discard=False)
    await s.crash()
    await s.start()
    await s.drained()
    assert set(deleted(s)) == {*people(1, 4)}
    await s.stop()


@pytest.mark.spec("D14")
@virtual
async def test_what_fails_does_not_count_and_a_retry_counts_once(stage: MakeStage) -> None:
    s = stage(delete_limit=THREE)
    s.vendor.answer = lambda m: DOWN if s.clock.monotonic() < 20 else OK
    await s.start()
    for person in people(1, 3):
        await delete(s, person)
        await s.pass_s(5)
    assert len(s.vendor.started) > 3
    await s.drained()
    assert set(deleted(s)) == {*people(1, 3)}
    assert await s.store.pauses() == []
    await delete(s, "p4")
    await s.pass_s(30)
    assert "p4" not in deleted(s)
    await s.stop()


@pytest.mark.spec("D14")
@virtual
@pytest.mark.parametrize(
    "limits", [Limits(batch=5), Limits(batch=5, ordered_batch=True), Limits(in_flight=64)]
)
async def test_the_limit_holds_also_within_a_batch_and_among_calls_at_once(
    stage: MakeStage, limits: Limits
) -> None:
    s = stage(delete_limit=THREE)
    s.vendor.bounds, s.vendor.delay_s = limits, lambda _: 5.0
    await s.open()
    await delete(s, *people(1, 9))
    await s.send("other", person="bob")
    await s.start()
    await s.pass_s(60)
    assert len(deleted(s)) == 3
    assert s.vendor.attempts("other")
    await s.loop.deletes.decide(s.store.last(), discard=False)
    await s.drained()
    assert sorted(deleted(s)) == people(1, 9)
    await s.stop()


@pytest.mark.spec("D14")
@virtual
async def test_many_that_wait_do_not_fill_the_memory(stage: MakeStage) -> None:
    s = stage(delete_limit=THREE)
    s.window = 16
    await s.start()
    await delete(s, *people(1, 100))
    await s.send(*(f"e{number}" for number in range(20)), person="bob")
    await s.pass_s(60)
    assert len(s.vendor.order()) == 23
    assert (await s.balance()).waiting == 97
    await s.loop.deletes.decide(s.store.last(), discard=False)
    await s.drained()
    assert sorted(deleted(s)) == sorted(people(1, 100))
    await s.stop()


@pytest.mark.spec("D14")
@virtual
@pytest.mark.parametrize("event", ["User Deleted", "User Suppressed"])
async def test_an_event_that_orders_a_deletion_counts(stage: MakeStage, event: str) -> None:
    s = await started(stage)
    for person in people(1, 5):
        await s.send(f"d-{person}", person=person, event=event)
    await s.pass_s(30)
    assert deleted(s) == people(1, 3)
    await s.stop()


@pytest.mark.spec("D14")
@virtual
async def test_what_the_mapping_makes_of_it_counts(stage: MakeStage) -> None:
    rename = MapRule(rename_event={"Account Closed": "User Deleted", "User Deleted": "Left"})
    s = await started(stage, fields=FieldMap([rename]))
    for person in people(1, 5):
        await s.send(f"d-{person}", person=person, event="Account Closed")
        await s.send(f"x-{person}", person=f"x{person}", event="User Deleted")
    await s.pass_s(30)
    assert deleted(s) == people(1, 3)
    assert sum(name.startswith("x-") for name in s.vendor.order()) == 5
    await s.stop()


@pytest.mark.spec("D14", "D13")
@virtual
async def test_what_an_untrusted_source_may_not_do_does_not_count(stage: MakeStage) -> None:
    s = await started(stage)
    for person in people(1, 9):
        fields = {"type": "delete", "userId": person, "messageId": f"c-{person}"}
        await s.append(fields, trust="client")
    await delete(s, *people(1, 3))
    await s.drained()
    assert deleted(s) == people(1, 3)
    assert await s.store.pauses() == []
    await s.stop()


@virtual
async def test_a_deletion_is_never_merged_with_anything(stage: MakeStage) -> None:
    s = stage(delete_limit=DeleteLimit(count=0, share=0.0))
    s.vendor.bounds = Limits(coalesce=True)

    def merged(earlier: Payload, later: Payload) -> Payload:
        return Payload([Call("POST", "/", {})], data=[*earlier.data, *later.data])

    s.vendor.merge = merged  # type: ignore[method-assign]
    await s.open()
    await s.identify("before", "ann")
    await delete(s, "ann")
    await s.identify("after", "ann")
    await s.start()
    await s.pass_s(30)
    assert s.vendor.order() == ["before"]
    await s.loop.deletes.decide(s.store.last(), discard=False)
    await s.drained()
    assert s.vendor.calls == [["before"], ["d-ann"], ["after"]]
    await s.stop()


@pytest.mark.spec("D14")
@virtual
async def test_switched_off_nothing_waits_and_what_waited_goes(stage: MakeStage) -> None:
    s = await started(stage)
    await delete(s, *people(1, 5))
    await s.pass_s(30)
    await s.stop()
    off = stage(delete_limit=None)
    await off.start()
    await delete(off, *people(6, 20))
    await off.drained()
    assert sorted([*deleted(s), *deleted(off)]) == sorted(people(1, 20))
    assert await off.store.pauses() == []
    await off.stop()


@virtual
async def test_one_who_waits_is_erased(stage: MakeStage) -> None:
    s = await started(stage)
    await delete(s, *people(1, 5))
    await s.pass_s(30)
    erased = await s.store.erase(frozenset({"p4"}))
    s.loop.forget(frozenset({"p4"}), erased)
    await s.loop.deletes.decide(s.store.last(), discard=False)
    await s.drained()
    assert deleted(s) == ["p1", "p2", "p3", "p5"]
    assert (await s.balance()).erased == 1
    await s.stop()


@virtual
async def test_a_refused_credential_and_the_guard_hold_apart(stage: MakeStage) -> None:
    s = stage(delete_limit=THREE)
    bad = [True]
    s.vendor.answer = lambda m: Paused("401", 401) if bad else OK
    s.vendor.checks = lambda: [Check("key", ok=not bad)]
    await s.start()
    await delete(s, *people(1, 5))
    await s.pass_s(30)
    assert "" in {pause.capability for pause in s.loop.pauses.in_force}
    bad.clear()
    await s.pass_s(120)
    assert len(set(deleted(s))) == 3
    assert await reason(s)
    await s.stop()


@pytest.mark.spec("D14")
def test_how_many_are_plausible() -> None:
    most: Sequence[tuple[int, int]] = [(0, 1000), (4999, 1000), (5004, 1000), (5005, 1001), (100_000, 20_000)]
    assert [(persons, DeleteLimit().most(persons)) for persons, _ in most] == list(most)


@virtual
async def test_only_deletions_are_marked(stage: MakeStage) -> None:
    s = stage()
    kinds = {
        kind: type(
            s.connection.payload(Message(type=kind, user_id="ann", event="User Deleted", trust="server"))
        )
        for kind in ("delete", "track", "identify", "page")
    }
    assert kinds == {"delete": Deletion, "track": Deletion, "identify": Payload, "page": Payload}


# -- what the registry of devices tells ------------------------------------------------------------------


async def tell(s: Stage, name: str, person: str, heard_at: float) -> None:
    """Append what the registry of devices tells of a person, since it heard of them."""
    at = format_time(datetime.fromtimestamp(heard_at, UTC))
    fields = {"type": "track", "event": "Device Moved", "messageId": name, "userId": person, "sentAt": at}
    await s.append(fields, source="push")


@pytest.mark.spec("P045", "D10")
@virtual
@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("guard", [THREE, None])
async def test_what_was_heard_of_a_person_before_stays_behind_their_deletion(
    stage: MakeStage, together: bool, guard: DeleteLimit | None
) -> None:
    s = stage(delete_limit=guard, sources=frozenset({"web", "push"}))
    s.vendor.bounds = Limits(batch=10 if together else 1, ordered_batch=together)
    await s.start()
    before = s.clock.now()
    await s.pass_s(5)
    await delete(s, "p1")
    await tell(s, "late", "p1", before)
    await tell(s, "other", "p2", before)
    await tell(s, "again", "p1", s.clock.now() + 5)
    await s.drained()
    assert sorted(s.vendor.order()) == ["again", "d-p1", "other"]
    assert dict((await s.balance()).skipped) == {"deleted": 1}
    await s.stop()
    await s.start()
    await tell(s, "later", "p1", before)
    await s.drained()
    assert dict((await s.balance()).skipped) == {"deleted": 2}
    await s.stop()
