"""The feed: what a source hears is on disk before it is remembered, in turn, once."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterable
from pathlib import Path

import pytest

from towpath.clock import SystemClock
from towpath.feed import Feed, Unmade, kept
from towpath.log import LogFull
from towpath.log.sqlite import SqliteStore
from towpath.message import Message, read
from towpath.source import Heard, Ignored, Known, Malformed, Unfit
from towpath.state import State


class World:
    """A store, a state and a feed of the source `crm`."""

    def __init__(self, store: SqliteStore, state: State) -> None:
        self.store = store
        self.facts = state.facts("crm")
        self.feed = Feed("crm", "server", store, self.facts, SystemClock())

    async def ids(self) -> list[str]:
        return [record.message_id for record in await self.store.read(0, 1000)]


@pytest.fixture
async def world(tmp_path: Path) -> AsyncIterator[World]:
    state = State.open(tmp_path)
    async with SqliteStore.open(tmp_path, SystemClock()) as store:
        yield World(store, state)
    state.close()


def said(message_id: str, **fields: object) -> Message:
    return Message(type="identify", message_id=message_id, user_id="u1", **fields)  # type: ignore[arg-type]


def counting(message_id: str) -> Callable[[Known], Iterable[Heard]]:
    """Each call adds one to what is known, and tells the number it found."""

    def make(known: Known) -> Iterable[Heard]:
        number = int(known.find("n") or b"0")
        known.keep("n", b"%d" % (number + 1))
        yield said(message_id, traits={"n": number})

    return make


@pytest.mark.spec("P1", "F052")
async def test_what_is_heard_is_kept_as_the_spec_writes_it(world: World) -> None:
    message = said("m1", traits={"plan": "basic"}, timestamp="2026-01-02T03:04:05Z", context={"a": {"b": 1}})
    fed = await world.feed.take(lambda _: [message])
    assert (fed.messages, fed.unfit, fed.ignored) == (1, 0, {})
    (record,) = await world.store.read(0, 10)
    back = read(record)
    assert (back.user_id, back.traits, back.context) == ("u1", {"plan": "basic"}, {"a": {"b": 1}})
    assert (record.source, record.envelope.trust, record.message_id) == ("crm", "server", "m1")
    await world.feed.take(lambda _: [message])
    assert await world.ids() == ["m1"]


async def test_turns_build_on_each_other_in_the_order_they_came(world: World) -> None:
    await asyncio.gather(*[world.feed.take(counting(f"m{number:03d}")) for number in range(150)])
    records = await world.store.read(0, 1000)
    assert [read(record).traits["n"] for record in records] == list(range(150))
    assert await world.ids() == [f"m{number:03d}" for number in range(150)]
    assert world.facts.turn().find("n") == b"150"


@pytest.mark.spec("P5")
async def test_what_is_unfit_is_a_dead_letter_and_what_is_ignored_is_counted(world: World) -> None:
    heard: list[Heard] = [
        Unfit("two_ids", "users/1 has two identifiers", b"{}"),
        Ignored("stale"),
        said("m1"),
    ]
    fed = await world.feed.take(lambda _: heard)
    assert (fed.messages, fed.unfit, dict(fed.ignored)) == (1, 1, {"stale": 1})
    (letter,) = await world.store.refusals("crm")
    assert (letter.code, letter.reason, letter.raw) == ("two_ids", "users/1 has two identifiers", b"{}")
    assert world.feed.counts == {"stale": 1}


async def test_one_that_fails_takes_nothing_of_the_others_with_it(world: World) -> None:
    def broken(known: Known) -> Iterable[Heard]:
        known.keep("n", b"999")
        yield said("half")
        raise KeyError("someone@example.com")

    def unreadable(known: Known) -> Iterable[Heard]:
        raise Malformed("not JSON")

    results = await asyncio.gather(
        world.feed.take(counting("m1")),
        world.feed.take(broken),
        world.feed.take(unreadable),
        world.feed.take(counting("m2")),
        return_exceptions=True,
    )
    assert isinstance(results[1], Unmade)
    assert str(results[1]).startswith("KeyError at broken:")
    assert isinstance(results[2], Malformed)
    assert await world.ids() == ["m1", "m2"]
    assert world.facts.turn().find("n") == b"2"


@pytest.mark.spec("P1", "E036")
async def test_nothing_is_remembered_of_what_the_log_did_not_keep(tmp_path: Path) -> None:
    state = State.open(tmp_path)
    async with SqliteStore.open(tmp_path, SystemClock(), free_bytes=lambda path: 0) as store:
        world = World(store, state)
        with pytest.raises(LogFull):
            await world.feed.take(counting("m1"))
        assert world.facts.turn().find("n") is None
    state.close()


@pytest.mark.spec("P5", "F051")
async def test_what_a_turn_learnt_outlives_a_crash_before_it_is_remembered(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else the next comparison would be with an older state, and what changed in between stays at vendors."""
    await world.feed.take(counting("m1"))

    def dies(*_: object) -> None:
        raise SystemError("killed")

    with monkeypatch.context() as crash:
        crash.setattr(world.facts, "keep", dies)
        with pytest.raises(SystemError):
            await world.feed.take(counting("m2"))
    assert world.facts.turn().find("n") == b"1"
    after = Feed("crm", "server", world.store, world.facts, SystemClock())
    await after.recover()
    assert world.facts.turn().find("n") == b"2"
    await after.recover()
    await after.take(counting("m3"))
    assert await world.ids() == ["m1", "m2", "m3"]
    assert (world.facts.turn().find("n"), world.facts.count()) == (b"3", 1)


@pytest.mark.spec("D10", "P9")
async def test_an_erase_finds_nothing_of_the_last_turn_in_the_log(world: World) -> None:
    def make(known: Known) -> Iterable[Heard]:
        known.keep("u/7", b"ada@example.com")
        yield said("m1")

    await world.feed.take(make)
    assert "changes" in await world.store.source_state("crm")
    await world.feed.forget_journal()
    assert await world.store.source_state("crm") == {"turn": 1}
    await world.feed.recover()
    assert world.facts.turn().find("u/7") == b"ada@example.com"


async def test_a_rehearsal_keeps_nothing(world: World) -> None:
    fed = await world.feed.rehearse(counting("m1"))
    assert fed.messages == 1
    assert (await world.ids(), world.facts.turn().find("n")) == ([], None)


async def test_a_caller_who_leaves_does_not_undo_what_it_brought(world: World) -> None:
    leaving = asyncio.create_task(world.feed.take(counting("m1")))
    await asyncio.sleep(0)
    leaving.cancel()
    await world.feed.take(counting("m2"))
    assert await world.ids() == ["m1", "m2"]


def test_a_message_needs_an_id() -> None:
    with pytest.raises(ValueError, match="an id"):
        kept(Message(type="track", user_id="u1"))


@pytest.mark.spec("P1")
async def test_where_a_listener_goes_on_is_kept_with_what_it_heard(world: World) -> None:
    await world.feed.take(counting("m1"), state={"at": 1})
    await world.feed.take(counting("m2"))
    assert world.feed.state == {"at": 1}
    await world.feed.take(lambda _: (), state={"at": 2})
    await world.feed.forget_journal()
    after = Feed("crm", "server", world.store, world.facts, SystemClock())
    assert after.state == {}
    await after.recover()
    assert after.state == {"at": 2}
    assert await world.ids() == ["m1", "m2"]


@pytest.mark.spec("P1")
async def test_where_a_listener_goes_on_stays_when_what_it_heard_is_not_kept(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def full(*_: object) -> None:
        raise LogFull("no space left")

    await world.feed.take(counting("m1"), state={"at": 1})
    with monkeypatch.context() as patched:
        patched.setattr(world.store, "append", full)
        with pytest.raises(LogFull):
            await world.feed.take(counting("m2"), state={"at": 2})
    assert world.feed.state == {"at": 1}
    with pytest.raises(Unmade):
        await world.feed.take(lambda _: 1 / 0, state={"at": 2})  # type: ignore[arg-type,return-value]
    assert world.feed.state == {"at": 1}
