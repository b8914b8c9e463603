"""A long backlog: whoever has nothing in it passes, everybody else keeps the order (D04, P4)."""

from __future__ import annotations

from random import Random

import pytest

from towpath.destination import Limits
from towpath.dispatch import Turns
from towpath.lanes import Cursor, Item, Lane
from towpath.message import Envelope, Message, Record
from towpath.overtaking import LATE_S, Marks, Seen
from towpath.testing.loop import virtual

from .conftest import MakeStage
from .stage import DOWN, OK, Stage

PERSONS = 40
BACKLOG = 700  # memory takes a chunk of 256 at once


async def held_up(stage: MakeStage, link: tuple[str, str] | None = None, **fields: object) -> Stage:
    """A vendor that takes two a second, and a backlog of 350 s of which memory holds a part.

    Before it lies a link (user, anonymous), in the midst of it the message "marked" of these fields.
    """
    s = stage()
    s.window = 64
    s.vendor.bounds = Limits(in_flight=2)
    s.vendor.delay_s = lambda _: 1.0
    await s.start()
    if link is not None:
        await s.identify("link", *link)
        await s.drained()
    for n in range(BACKLOG):
        await s.send(f"old{n}", person=f"p{n % PERSONS}")
        if fields and n == 500:
            await s.send("marked", **fields)  # type: ignore[arg-type]
    await s.pass_s(5 * LATE_S)
    return s


def waited_s(s: Stage, name: str, since_s: float) -> float:
    return s.vendor.attempts(name)[0] - since_s


@pytest.mark.spec("D04")
@virtual
async def test_who_has_nothing_in_the_backlog_passes_it_in_order(stage: MakeStage) -> None:
    s = await held_up(stage)
    at_s = s.clock.monotonic()
    await s.send("new1", "new2", person="zoe")
    await s.send("new3", person="yan")
    await s.send("behind", person="p5")
    await s.drained()
    assert all(waited_s(s, name, at_s) < 10 for name in ("new1", "new2", "new3"))
    order = s.vendor.order()
    assert order.index("new1") < order.index("new2")
    assert waited_s(s, "behind", at_s) > 100
    assert [name for name in order if name in {"old685", "behind"}] == ["old685", "behind"]
    assert sorted(order) == sorted([*(f"old{n}" for n in range(BACKLOG)), "new1", "new2", "new3", "behind"])
    assert s.loop.cursor == s.store.last()
    await s.stop()


@pytest.mark.spec("D04", "E026")
@virtual
async def test_who_is_linked_within_the_backlog_waits_behind_it(stage: MakeStage) -> None:
    s = await held_up(stage, type="identify", person="ann", anonymousId="x")
    await s.send("of ann", person="ann")
    await s.send("of x", person=None, anonymousId="x")
    await s.drained()
    order = s.vendor.order()
    assert order.index("marked") < order.index("of ann") < order.index("of x")
    await s.stop()


@pytest.mark.spec("D04", "E026")
@virtual
async def test_who_is_linked_to_somebody_in_the_backlog_waits_from_then_on(stage: MakeStage) -> None:
    s = await held_up(stage, person=None, anonymousId="x")
    at_s = s.clock.monotonic()
    await s.send("before", person="zoe")
    await s.identify("link", "zoe", "x")
    await s.send("after", person="zoe")
    await s.identify("further", "yan", "y")
    await s.send("of y", person=None, anonymousId="y")
    await s.drained()
    order = s.vendor.order()
    assert waited_s(s, "before", at_s) < 10
    assert order.index("marked") < order.index("link") < order.index("after")
    assert waited_s(s, "of y", at_s) < 15
    assert order.index("further") < order.index("of y")
    await s.stop()


@pytest.mark.spec("D02", "D04")
@virtual
async def test_after_a_crash_what_passed_is_not_sent_again(stage: MakeStage) -> None:
    s = await held_up(stage)
    await s.send("new1", person="zoe")
    await s.until(lambda: bool(s.vendor.attempts("new1")))
    await s.pass_s(3.0)
    await s.send("new2", person="zoe")
    await s.crash()
    await s.start()
    await s.drained()
    order = s.vendor.order()
    assert order.count("new1") == 1
    assert order.index("new1") < order.index("new2")
    for person in range(PERSONS):
        own = [int(name[3:]) for name in order if name[:3] == "old" and int(name[3:]) % PERSONS == person]
        assert own == sorted(own)
    await s.stop()


@pytest.mark.spec("D02", "D04")
@virtual
async def test_one_that_passed_and_has_not_ended_survives_a_crash(stage: MakeStage) -> None:
    s = await held_up(stage)
    s.vendor.delay_s = lambda m: 2000.0 if m.message_id == "new1" else 1.0
    await s.send("new1", person="zoe")
    await s.until(lambda: len(s.vendor.ended) == BACKLOG)
    await s.pass_s(10.0)
    await s.crash()
    s.vendor.delay_s = lambda _: 1.0
    await s.start()
    await s.drained()
    assert len(s.vendor.attempts("new1")) == 2
    await s.stop()


@pytest.mark.spec("D04")
@virtual
async def test_a_failure_of_one_who_passed_parks_only_that_person(stage: MakeStage) -> None:
    s = await held_up(stage)
    failures = iter([DOWN] * 3)
    s.vendor.answer = lambda m: next(failures, OK) if m.message_id == "new1" else OK
    await s.send("new1", "new2", person="zoe")
    at_s = s.clock.monotonic()
    await s.send("new3", person="yan")
    await s.drained()
    order = [name for name in s.vendor.order() if name.startswith("new")]
    assert [name for name in order if name != "new3"] == ["new1"] * 4 + ["new2"]
    assert waited_s(s, "new3", at_s) < 10
    await s.stop()


@pytest.mark.spec("D04")
@virtual
async def test_an_erased_link_does_not_let_anybody_pass_what_is_left(stage: MakeStage) -> None:
    s = await held_up(stage, link=("p5", "x"), person=None, anonymousId="x")  # of p5, until that link is gone
    s.loop.forget(frozenset({"p5"}), await s.store.erase(["p5"]))
    await s.send("later", person=None, anonymousId="x")
    await s.drained()
    order = s.vendor.order()
    assert order.index("marked") < order.index("later")
    await s.stop()


@pytest.mark.spec("D04")
@virtual
async def test_the_backlog_keeps_half_of_what_the_vendor_takes(stage: MakeStage) -> None:
    s = await held_up(stage)
    began, sent = s.clock.monotonic(), 0
    for n in range(300):
        await s.send(f"new{n}", person=f"z{n}")
        if n % 3 == 2:  # three a second, where the vendor takes two
            await s.pass_s(1.0)
    sent = sum(name.startswith("old") and at >= began for at, name in s.vendor.started)
    assert sent >= 90
    await s.drained()
    await s.stop()


@pytest.mark.spec("D04", "E026")
@pytest.mark.parametrize("seed", range(4))
@virtual
async def test_any_mix_of_persons_links_and_crashes_keeps_each_order(stage: MakeStage, seed: int) -> None:
    chance = Random(seed)
    s = stage(seed)
    s.window = chance.choice([8, 32])
    s.vendor.bounds = Limits(in_flight=2)
    s.vendor.delay_s = lambda _: chance.uniform(0.1, 1.0)
    await s.start()
    sent: dict[int, list[str]] = {}
    for n in range(500):
        person = chance.randrange(30 if n < 150 else 300)
        sent.setdefault(person, []).append(f"m{n}")
        if chance.random() < 0.2:
            await s.identify(f"m{n}", f"u{person}", f"a{person}")
        elif chance.random() < 0.5:
            await s.send(f"m{n}", person=f"u{person}")
        else:
            await s.send(f"m{n}", person=f"u{person}", anonymousId=f"a{person}")
        if n > 150:
            await s.pass_s(chance.uniform(0.0, 1.0))
        if chance.random() < 0.004:
            await s.crash()
            await s.start()
    await s.drained()
    ended = [name for _, name in s.vendor.ended]
    assert any(ended.index(f"m{n}") > ended.index(f"m{n + 20}") for n in range(450))  # somebody did pass
    for own in sent.values():
        firsts = [ended.index(name) for name in own]
        assert firsts == sorted(firsts)
    await s.stop()


def test_the_filter_knows_everybody_it_was_told_and_hardly_anybody_else() -> None:
    seen = Seen()
    told = [f"u:{n}" for n in range(2000)] + ["u:\ud800"]
    for person in told:
        seen.add(person)
    assert all(person in seen for person in told)
    assert sum(f"a:{n}" in seen for n in range(2000)) < 5


def test_marks_are_bits_from_the_first_position_on() -> None:
    marks = Marks()
    assert 0 not in marks
    taken = [10**12 + n for n in (0, 1, 7, 8, 200)]
    for position in taken:
        marks.add(position)
    assert [n for n in range(10**12 - 9, 10**12 + 300) if n in marks] == taken
    marks.drop(taken[-1] - 1)
    assert taken[-1] in marks
    marks.drop(taken[-1])
    assert taken[-1] not in marks


def test_the_cursor_waits_for_one_that_went_ahead_only_when_it_comes_there() -> None:
    cursor = Cursor(0)
    cursor.passed(5)
    cursor.passed(6)
    cursor.read_to(4)
    assert (cursor.advance(), cursor.ahead) == (4, 2)
    cursor.closed(6)
    for position in (5, 6):
        cursor.reached(position)
    cursor.read_to(6)
    assert (cursor.advance(), cursor.ahead) == (4, 0)
    cursor.closed(5)
    assert cursor.advance() == 6


def test_fresh_heads_and_waiting_ones_take_turns() -> None:
    turns = Turns()
    for name in ("w1", "w2", "f1", "f2", "f3"):
        lane = Lane(name)
        item = Item(Record(1, name, Envelope("web", 0.0), b"{}"), Message(), None)
        item.fresh = name[0] == "f"
        lane.items.append(item)
        turns.put(lane)
    first = turns.take()
    turns.put_first(first)
    assert turns.take() is first
    rest = [turns.take().person for _ in range(len(turns))]
    assert [first.person, *rest] == ["w1", "f1", "w2", "f2", "f3"]
