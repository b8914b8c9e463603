"""What is begun in the log and in the ledger, and cut off between the two."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from towpath.log import DeadFilter, Done, Group, Refused, Settlement
from towpath.log.apart import ApartStore
from towpath.message import Envelope
from towpath.testing import FakeClock
from towpath.testing.ledger import bury, lease_of, park
from towpath.testing.log import entry, ids_of

from .cut import Cut
from .postgres import begin
from .test_apart_balance import agreed


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[ApartStore]:
    """Records of ann and bob in turn; of ann one is parked, one dead, one untried."""
    found = await begin(tmp_path, FakeClock(), inline=True, durable=False)
    await found.connect("out", ["web"], "earliest")
    persons = ["ann", "bob", "ann", "bob", "ann"]
    await found.append([group(*[entry(f"m{i}", person) for i, person in enumerate(persons, 1)])])
    records = await found.read(0, 9)
    done = [Done(2, 0, "delivered"), Done(3, 0, "dead", "no")]
    await found.settle(await lease_of(found), Settlement(3, done, [bury(records[2])], [park(records[0])]))
    yield found
    await found.close()


def group(*entries: Any) -> Group:
    return Group(Envelope("web", 1.0), list(entries))


class Half:
    """A half of the store, one of whose calls is another."""

    def __init__(self, half: Any, **calls: Callable[..., Awaitable[Any]]) -> None:
        self.__dict__.update(calls)
        self._half = half

    def __getattr__(self, name: str) -> Any:
        return getattr(self._half, name)


async def dies(*_: object, **__: object) -> Any:
    raise Cut


def with_log(store: ApartStore, **calls: Callable[..., Awaitable[Any]]) -> ApartStore:
    return ApartStore(Half(store._log, **calls), store._ledger)


def with_ledger(store: ApartStore, **calls: Callable[..., Awaitable[Any]]) -> ApartStore:
    return ApartStore(store._log, Half(store._ledger, **calls))


@pytest.mark.spec("D10", "D05")
async def test_nobody_is_delivered_whose_erase_was_cut_off(store: ApartStore) -> None:
    with pytest.raises(Cut):
        await with_log(store, erase=dies).erase(["ann"])
    assert ids_of(await store.read(0, 9)) == ["m1", "m2", "m3", "m4", "m5"]  # the log still has them
    progress = await store.progress(await lease_of(store))
    assert progress.settled == {(5, 0)}  # a loop that reads it again passes over it
    assert (progress.waiting, await store.waiting(None, 9), await store.dead(DeadFilter())) == ({}, [], [])
    assert (await agreed(store))[0].erased == 2
    await store.repair()
    assert ids_of(await store.read(0, 9)) == ["m2", "m4"]
    assert (await agreed(store))[0].erased == 2
    assert await store._ledger.intents() == []


@pytest.mark.spec("D10", "D05")
async def test_an_erase_that_both_have_done_may_be_done_again(store: ApartStore) -> None:
    with pytest.raises(Cut):
        await with_ledger(store, erased=dies).erase(["ann"])
    before = await agreed(store)
    await store.repair()
    await store.erase(["ann"])
    assert await agreed(store) == before


@pytest.mark.spec("D10", "D05")
async def test_what_another_process_appends_during_an_erase_goes_too(store: ApartStore) -> None:
    async def erase(ids: frozenset[str]) -> Any:
        await store._log.append([group(entry("late", "ann"), entry("other", "bob"))])
        return await store._log.erase(ids)

    erased = await with_log(store, erase=erase).erase(["ann"])
    assert erased.records == 4
    assert (await agreed(store))[0].erased == 3
    assert ids_of(await store.read(0, 9)) == ["m2", "m4", "other"]


@pytest.mark.spec("D10", "D05")
async def test_appends_of_the_erased_person_wait_and_those_of_others_do_not(store: ApartStore) -> None:
    reached, go_on = asyncio.Event(), asyncio.Event()

    async def erase(ids: frozenset[str]) -> Any:
        reached.set()
        await go_on.wait()
        return await store._log.erase(ids)

    slow = with_log(store, erase=erase)
    erasing = asyncio.ensure_future(slow.erase(["ann"]))
    await reached.wait()
    waiting = asyncio.ensure_future(slow.append([group(entry("new", "ann"))]))
    assert (await slow.append([group(entry("other", "bob"))])).stored == 1
    assert not waiting.done()
    assert (await agreed(store))[0].accepted == 6
    go_on.set()
    await erasing
    assert (await waiting).stored == 1
    assert ids_of(await store.read(0, 9)) == ["m2", "m4", "other", "new"]
    await agreed(store)


@pytest.mark.spec("D10", "D05")
async def test_an_erase_waits_for_what_is_being_appended(store: ApartStore) -> None:
    go_on = asyncio.Event()

    async def append(*given: Any) -> Any:
        await go_on.wait()
        return await store._log.append(*given)

    slow = with_log(store, append=append)
    appending = asyncio.ensure_future(slow.append([group(entry("last", "ann"))]))
    await asyncio.sleep(0)
    erasing = asyncio.ensure_future(slow.erase(["ann"]))
    await asyncio.sleep(0)
    go_on.set()
    assert (await appending).stored == 1
    assert (await erasing).records == 4
    assert (await agreed(store))[0].erased == 3


@pytest.mark.spec("D19", "D05")
@pytest.mark.parametrize("cut", ["before", "after"])
async def test_a_trim_that_was_cut_off_is_carried_out_later(store: ApartStore, cut: str) -> None:
    broken = with_log(store, trim=dies) if cut == "before" else with_ledger(store, trimmed=dies)
    await store.settle(
        await lease_of(store), Settlement(5, [Done(4, 0, "delivered"), Done(5, 0, "delivered")])
    )
    before = await agreed(store)
    with pytest.raises(Cut):
        await broken.trim(2.0)
    assert await agreed(store) == before
    await store.connect("new", ["web"], "earliest")  # must not begin with records about to go
    assert await store.read(0, 9) == []
    assert [(b.connection, b.accepted, b.waiting) for b in await agreed(store)] == [
        ("new", 0, 0),
        ("out", 5, 1),
    ]
    assert await store.deliveries("out", None, 9) == []
    assert await store._ledger.intents() == []


@pytest.mark.spec("D05", "D10", "D19")
async def test_what_was_trimmed_while_an_erase_searched_is_past_once(store: ApartStore) -> None:
    await store.settle(await lease_of(store), Settlement(5, [Done(p, 0, "delivered") for p in (4, 5)]))
    number = await store._ledger.intend_erase(frozenset({"ann"}))
    await store.trim(2.0)
    before = await agreed(store)
    await store._ledger.mark(number, [(1, "web"), (3, "web"), (5, "web")])
    assert await agreed(store) == before


@pytest.mark.spec("D05")
async def test_a_change_of_sources_waits_for_the_ledger_to_stand_still(store: ApartStore) -> None:
    """The cursor moves and an erase begins while the log is asked; the change is planned again."""
    lease = await lease_of(store)
    asked = []

    async def positions(*given: Any) -> Any:
        found = await store._log.positions(*given)
        asked.append(found)
        if len(asked) == 1:
            await store._ledger.intend_erase(frozenset({"bob"}))
        return found

    await with_log(store, positions=positions).connect("out", ["app"], "now")
    assert asked == [[4, 5], [5]]
    (balance,) = await agreed(store)
    assert (dict(balance.skipped), balance.erased) == ({"source removed": 1}, 1)
    assert await store.settle(lease, Settlement(5))


@pytest.mark.spec("D05")
async def test_a_source_is_added_where_the_cursor_stands_now(store: ApartStore) -> None:
    lease = await lease_of(store)
    moved: list[bool] = []

    async def count(*given: Any) -> int:
        if not moved:
            moved.append(await store.settle(lease, Settlement(5, [Done(p, 0, "delivered") for p in (4, 5)])))
        return await store._log.count(*given)

    await store._log.append([Group(Envelope("app", 1.0), [entry("a6")])])
    await with_log(store, count=count).connect("out", ["web", "app"], "now")
    (scope,) = (await store._ledger.stand("out")).scopes[0][:1]
    assert (scope.source, scope.since) == ("app", 5)
    assert (await agreed(store))[0].waiting == 2


@pytest.mark.spec("D05")
async def test_a_removed_source_leaves_what_is_parked(store: ApartStore) -> None:
    await store.connect("out", [], "now")
    (balance,) = await agreed(store)
    assert (balance.waiting, dict(balance.skipped), balance.accepted) == (1, {"source removed": 2}, 5)
    assert [row.position for _, row in await store.waiting("out", 9)] == [1]


async def test_pruning_reaches_both(store: ApartStore) -> None:
    await store.append([], [Refused("web", 0, "E1", "no", b"", 5.0)])
    assert await store.prune(1e6) == 2
    assert (await store.dead(DeadFilter()), await store.refusals()) == ([], [])
