"""What a person sends while an erase is at work, which came too late for it: delivered, and in order."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from towpath.log import Erased
from towpath.testing.loop import virtual

from .conftest import MakeStage
from .stage import DOWN, OK, Stage

ANN = frozenset({"ann"})
MANY = 40  # more than a lane keeps in memory


async def erase(s: Stage, meanwhile: Callable[[], Awaitable[None]]) -> Erased:
    """Erase ann in the store, where something happens once the erase knows how far it goes."""
    scan, waiting = s.store._database.scan, [meanwhile]

    async def scanning(work: Any) -> Any:
        while waiting:
            await waiting.pop()()
        return await scan(work)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(s.store._database, "scan", scanning)
        return await s.store.erase(ANN)


def numbered(prefix: str, count: int) -> list[str]:
    return [f"{prefix}{number:02}" for number in range(count)]


@pytest.mark.spec("D10", "P2", "P4")
@pytest.mark.parametrize("read_s", [0.0, 1.0], ids=["not read yet", "in memory"])
def test_what_comes_before_memory_forgets_is_delivered(stage: MakeStage, read_s: float) -> None:
    @virtual
    async def run() -> None:
        s = stage()
        s.vendor.delay_s = lambda m: 10.0
        await s.start()
        await s.send("a1", "a2", person="ann")
        await s.pass_s(1)
        erased = await s.store.erase(ANN)
        await s.send("late1", "late2", person="ann")
        await s.pass_s(read_s)
        s.loop.forget(ANN, erased)
        await s.send("new", person="ann")
        await s.drained()
        assert s.vendor.order() == ["a1", "late1", "late2", "new"]
        balance = await s.balance()
        assert (balance.accepted, balance.delivered, balance.erased) == (5, 3, 2)
        await s.stop()

    run()


@pytest.mark.spec("D10", "P4")
@virtual
async def test_a_queue_that_grew_during_the_erase_is_not_overtaken(stage: MakeStage) -> None:
    s = stage()
    s.vendor.delay_s = lambda m: 5.0
    await s.start()
    await s.send("a1", "a2", person="ann")
    await s.pass_s(1)
    late, new = numbered("late", MANY), numbered("new", 3)

    async def queue_up() -> None:
        await s.send(*late, person="ann")
        await s.pass_s(1)
        assert await s.rows()

    s.loop.forget(ANN, await erase(s, queue_up))
    await s.send(*new, person="ann")
    await s.drained()
    assert s.vendor.order() == ["a1", *late, *new]
    await s.stop()


@pytest.mark.spec("D10", "P4", "P9")
@pytest.mark.parametrize("queued_s", [0.0, 1.0], ids=["in memory", "as rows"])
@pytest.mark.parametrize("more", [True, False], ids=["sends more", "is gone"])
def test_what_others_have_in_the_lane_keeps_its_order_too(
    stage: MakeStage,
    queued_s: float,
    more: bool,
) -> None:
    @virtual
    async def run() -> None:
        s = stage()
        s.vendor.delay_s = lambda m: 5.0
        await s.start()
        await s.identify("link", "ann", "x")
        shared = numbered("x", MANY)
        await s.send(*shared, person=None, anonymousId="x")
        await s.pass_s(1)
        assert await s.rows()
        erased = await s.store.erase(ANN)
        assert erased.renamed
        late = numbered("late", MANY) if more else []
        await s.send(*late, person="ann")
        await s.pass_s(queued_s)
        s.loop.forget(ANN, erased)
        new = numbered("new", 3)
        await s.send(*new, person="ann")
        await s.drained()
        order = s.vendor.order()
        assert [name for name in order if name.startswith(("late", "new"))] == [*late, *new]
        assert [name for name in order if name.startswith("x")] == shared
        await s.stop()

    run()


@pytest.mark.spec("D10", "P9")
@pytest.mark.parametrize("answer", [OK, DOWN])
def test_a_failing_vendor_does_not_bring_erased_messages_back(stage: MakeStage, answer: Any) -> None:
    @virtual
    async def run() -> None:
        s = stage()
        s.vendor.delay_s = lambda m: 3.0
        s.vendor.answer = lambda m: answer if m.message_id.startswith("a") else OK
        await s.start()
        await s.send(*numbered("a", MANY), person="ann")
        await s.pass_s(20)

        async def come_back() -> None:
            await s.send("late", person="ann")
            await s.pass_s(4)

        erased = await erase(s, come_back)
        tried = len(s.vendor.order())
        s.loop.forget(ANN, erased)
        await s.drained()
        assert set(s.vendor.order()[tried:]) <= {"late"}
        assert s.vendor.order()[-1] == "late"
        await s.stop()

    run()
