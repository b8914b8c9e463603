"""A transform in the loop (D24): several deliveries of one message, in order, counted, and none lost."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from towpath.destination import Limits
from towpath.log import DeadFilter
from towpath.making import PIECE
from towpath.outcome import Outcome
from towpath.testing.loop import run_virtual, virtual

from ..deliver.stage import DOWN, OK, Stage
from .plan import Planned

HOUR_S = 3600.0


@pytest.fixture
def make(tmp_path: Path) -> Callable[[], Stage]:
    return lambda: Stage(tmp_path / "data", transform=Planned())


def planned(stage: Stage) -> Planned:
    found = stage.connection.transform
    assert isinstance(found, Planned)
    return found


async def send(stage: Stage, name: str, person: str = "ann", **asked: Any) -> None:
    await stage.send(name, person=person, properties=asked)


async def drained(stage: Stage) -> None:
    """Wait until nothing waits: a message's further parts count as accepted once they end or are parked."""
    await stage.until(lambda: stage.loop.cursor == stage.store.last())
    await stage.drained()


@pytest.mark.spec("D24", "D05", "P2")
@virtual
async def test_every_message_made_is_a_delivery_in_its_persons_order(make: Callable[[], Stage]) -> None:
    s = make()
    await s.start()
    await send(s, "a", parts=3)
    await send(s, "b", parts=0)
    await send(s, "c", parts=2)
    await send(s, "d")
    await drained(s)
    assert s.vendor.order() == ["a", "a-1", "a-2", "c", "c-1", "d"]
    balance = await s.balance()
    assert (balance.accepted, balance.delivered) == (7, 6)  # b's own, and 3 + 2 + 1
    assert dict(balance.skipped) == {"transformed away": 1}
    await s.stop()
    assert planned(s).closed == 1


@pytest.mark.spec("D24", "D04")
@virtual
async def test_persons_do_not_wait_for_each_others_parts(make: Callable[[], Stage]) -> None:
    s = make()
    s.vendor.answer = lambda message: DOWN if message.user_id == "ann" and s.clock.monotonic() < 60 else OK
    await s.start()
    await send(s, "a", parts=3)
    for number in range(8):
        await send(s, f"b{number}", person=f"bob{number}", parts=2)
    await s.until(lambda: len(s.vendor.ended) > 16)
    assert s.clock.monotonic() < 60
    await drained(s)
    assert [name for name in s.vendor.order() if name.startswith("a")][-3:] == ["a", "a-1", "a-2"]
    await s.stop()


@pytest.mark.spec("D24", "D06")
@virtual
async def test_a_transform_that_fails_is_tried_again_and_holds_up_its_person_alone(
    make: Callable[[], Stage],
) -> None:
    s = make()
    await s.start()
    await send(s, "a", fails=3, parts=3)
    await send(s, "after")
    await send(s, "b", person="bob")
    await s.until(lambda: "b" in s.vendor.order())
    assert s.clock.monotonic() < 5
    await drained(s)
    assert s.vendor.order() == ["b", "a", "a-1", "a-2", "after"]
    balance = await s.balance()
    assert (balance.accepted, balance.delivered) == (5, 5)
    await s.stop()


@pytest.mark.spec("D24", "D06")
@virtual
async def test_after_its_attempts_it_is_a_dead_letter_that_can_be_replayed_whole(
    make: Callable[[], Stage],
) -> None:
    s = make()
    await s.start()
    await send(s, "a", fails=10_000, parts=3)
    for number in range(300):  # the others are well: the short budget of one that fails alone
        await send(s, f"b{number}", person="bob")
        await s.pass_s(120.0)
        if await s.dead():
            break
    (letter,) = await s.dead()
    assert "the function failed" in letter.reason
    assert letter.code == 500
    planned(s).calls["a"] = 10_000
    await s.store.replay(DeadFilter(), s.clock.now())
    await s.loop.refresh()
    await drained(s)
    assert s.vendor.order()[-3:] == ["a", "a-1", "a-2"]
    await s.balance()
    await s.stop()


@pytest.mark.spec("D24", "D04")
@virtual
async def test_when_all_fail_the_vendor_is_not_blamed_and_new_code_lets_it_go_on(
    make: Callable[[], Stage],
) -> None:
    s = make()
    await s.start()
    for number in range(40):
        await send(s, f"m{number}", person=f"p{number}", fails=5)
    await s.until(lambda: len(s.told) > 80)
    assert not s.loop.health.stalled
    await send(s, "well", person="eve")
    await s.until(lambda: "well" in s.vendor.order(), most_s=1.0)
    await drained(s)
    assert sorted(s.vendor.order()) == sorted(["well", *(f"m{number}" for number in range(40))])
    await s.stop()


@pytest.mark.spec("D04", "D24")
@virtual
async def test_while_the_vendor_is_down_a_failing_transform_does_not_keep_it_from_recovering(
    make: Callable[[], Stage],
) -> None:
    s = make()
    s.vendor.answer = lambda message: DOWN if s.clock.monotonic() < 300 else OK
    await s.start()
    for number in range(12):
        await send(s, f"bad{number}", person=f"a{number}", fails=1000)
        await send(s, f"m{number}", person=f"p{number}")
    await s.until(lambda: s.loop.health.stalled)
    await s.until(lambda: len({name for _, name in s.vendor.ended[-12:]}) == 12 and not s.loop.health.stalled)
    assert s.clock.monotonic() < 400
    await s.stop()


@pytest.mark.spec("D24", "P4")
@virtual
async def test_one_persons_hanging_messages_hold_up_the_others_only_once(make: Callable[[], Stage]) -> None:
    s = make()
    await s.start()
    for number in range(200):
        planned(s).hangs.add(f"a{number}")
        await send(s, f"a{number}")
    await send(s, "b", person="bob", parts=2)
    await s.until(lambda: s.vendor.order() == ["b", "b-1"], most_s=10.0)
    assert s.vendor.ended[-1][0] < 2 * planned(s).hang_s
    planned(s).hangs.clear()
    planned(s).suspects.clear()
    await drained(s)
    assert s.vendor.order()[2:] == [f"a{number}" for number in range(200)]
    await s.balance()
    await s.stop()


@pytest.mark.spec("D24", "P4")
@virtual
async def test_what_is_made_before_one_that_hangs_enters_at_once_and_what_follows_next(
    make: Callable[[], Stage],
) -> None:
    s = make()
    planned(s).hangs.add("a")
    for number in range(40):
        await s.open() if number == 0 else None
        await send(s, "a" if number == 20 else f"b{number}", person=f"p{number}")
    await s.start()
    await s.until(lambda: len(s.vendor.ended) == 39, most_s=10.0)
    assert len([at for at, _ in s.vendor.ended if at < 1.0]) == 20
    assert max(at for at, _ in s.vendor.ended) < 2 * planned(s).hang_s
    await s.stop()


@pytest.mark.spec("D24", "P3")
@virtual
async def test_a_suspects_parts_that_were_cut_off_by_a_crash_are_made_later(
    make: Callable[[], Stage],
) -> None:
    s = make()
    s.vendor.delay_s = lambda message: 1.0
    await s.start()
    await send(s, "a", parts=4)
    await s.until(lambda: s.vendor.attempts("a-2") != [])
    await s.crash()
    planned(s).suspects.add("ann")
    await s.start()
    await drained(s)
    assert s.vendor.order() == ["a", "a-1", "a-2", "a-2", "a-3"]
    balance = await s.balance()
    assert (balance.accepted, balance.delivered) == (4, 4)
    await s.stop()


@pytest.mark.spec("D05", "D24")
@virtual
async def test_what_no_new_attempt_can_mend_is_a_dead_letter_at_once(make: Callable[[], Stage]) -> None:
    s = make()
    await s.start()
    await send(s, "a", large=True)
    planned(s).suspects.add("bob")
    await send(s, "b", person="bob", large=True)
    await send(s, "after", person="bob")
    await drained(s)
    letters = await s.dead()
    assert sorted(letter.record.message_id for letter in letters) == ["a", "b"]
    assert {letter.reason for letter in letters} == {"it returned too much"}
    assert s.vendor.order() == ["after"]
    await s.stop()


@pytest.mark.spec("D24")
@virtual
async def test_memory_takes_no_more_parts_than_one_piece_beyond_its_bound(make: Callable[[], Stage]) -> None:
    s = make()
    s.window = 50
    await s.open()
    for number in range(100):
        await send(s, f"m{number}", person=f"p{number}", parts=20)
    s.vendor.delay_s = lambda message: 1.0
    await s.start()
    await s.until(lambda: bool(s.vendor.started))
    assert s.loop.lanes.size <= 50 + 20 * PIECE
    await drained(s)
    assert (await s.balance()).delivered == 2000
    await s.stop()


@pytest.mark.spec("D04", "D05", "D24")
@virtual
async def test_while_reading_waits_nobody_passes_and_no_part_is_lost(make: Callable[[], Stage]) -> None:
    s = make()
    s.window = 40
    s.vendor.delay_s = lambda message: 8.0 if message.user_id == "ann" else 0.05
    await s.start()
    for number in range(30):
        await send(s, f"a{number}", parts=3)
    for number in range(120):
        await send(s, f"b{number}", person=f"bob{number}", parts=2)
        await s.pass_s(0.2)
    await drained(s)
    parts = [name for name in s.vendor.order() if name.startswith("a")]
    assert parts == [f"a{number}{part}" for number in range(30) for part in ("", "-1", "-2")]
    balance = await s.balance()
    assert (balance.accepted, balance.delivered) == (330, 330)
    await s.stop()


@pytest.mark.spec("D24")
@virtual
async def test_what_is_made_is_of_the_types_that_the_connection_takes(tmp_path: Path) -> None:
    s = Stage(tmp_path / "data", transform=Planned(), only=frozenset({"track"}))
    await s.start()
    await send(s, "a", parts=2, type="identify")
    await send(s, "b", parts=2)
    await drained(s)
    assert s.vendor.order() == ["b", "b-1"]
    assert dict((await s.balance()).skipped) == {"filtered": 2}
    await s.stop()


@pytest.mark.spec("D24")
@virtual
async def test_a_part_that_waits_as_a_row_is_made_again(make: Callable[[], Stage]) -> None:
    s = make()
    s.vendor.answer = lambda message: DOWN if message.message_id == "a-1" and s.clock.now() < until else OK
    until = s.clock.now() + HOUR_S
    await s.start()
    await send(s, "a", parts=3)
    await send(s, "b", person="bob")
    await s.until(lambda: len(s.vendor.attempts("a-1")) > 3)
    assert set(await s.rows()) == {"a"}
    await drained(s)
    assert s.vendor.order()[-2:] == ["a-1", "a-2"]
    assert planned(s).calls["a"] > 1
    await s.stop()


@pytest.mark.spec("D24")
@virtual
async def test_a_part_that_is_no_longer_made_is_skipped(make: Callable[[], Stage]) -> None:
    s = make()
    s.vendor.answer = lambda message: DOWN if message.message_id == "a-1" else OK
    await s.start()
    await send(s, "a", parts=3)
    await send(s, "b", person="bob")
    await s.until(lambda: len(s.vendor.attempts("a-1")) > 2)
    planned(s).parts["a"] = 1
    await drained(s)
    balance = await s.balance()
    assert (balance.accepted, balance.delivered) == (4, 2)
    assert dict(balance.skipped) == {"transformed away": 2}
    await s.stop()


@pytest.mark.spec("D24", "P2", "P3")
@virtual
async def test_a_crash_in_the_middle_of_a_fan_out_loses_nothing(make: Callable[[], Stage]) -> None:
    s = make()
    s.vendor.delay_s = lambda message: 1.0
    await s.start()
    await send(s, "a", parts=4)
    await send(s, "b", parts=2)
    await s.until(lambda: s.vendor.attempts("a-2") != [])
    await s.crash()
    await s.start()
    await drained(s)
    assert s.vendor.order() == ["a", "a-1", "a-2", "a-2", "a-3", "b", "b-1"]
    balance = await s.balance()
    assert (balance.accepted, balance.delivered) == (6, 6)
    await s.stop()


@pytest.mark.spec("D13", "D24")
@virtual
async def test_filtered_and_untrusted_messages_never_reach_the_transform(make: Callable[[], Stage]) -> None:
    s = make()
    await s.start()
    await s.append({"type": "delete", "userId": "ann", "messageId": "gone"}, trust="client")
    await s.send("off", integrations={"All": False})
    await s.send("on")
    await drained(s)
    assert dict(planned(s).calls) == {"on": 1}
    await s.stop()


@pytest.mark.spec("D10", "D24")
@virtual
async def test_an_erase_while_the_transform_runs_lets_nothing_of_the_person_out(
    make: Callable[[], Stage],
) -> None:
    s = make()
    await s.start()
    await send(s, "a", fails=1, parts=2)
    await s.until(lambda: planned(s).calls["a"] == 1)
    planned(s).delay_s = 5.0
    await s.until(lambda: bool(s.told))
    await s.pass_s(8.0)  # the second run is under way
    ids = frozenset({"ann"})
    s.loop.forget(ids, await s.store.erase(ids))
    await s.pass_s(60.0)
    assert s.vendor.order() == []
    await drained(s)
    await s.stop()


@virtual
async def test_in_ordered_batches_parts_keep_their_order(make: Callable[[], Stage]) -> None:
    s = make()
    s.vendor.bounds = Limits(batch=4, ordered_batch=True)
    await s.start()
    await send(s, "a", parts=3)
    await send(s, "b", fails=1, parts=3)
    await send(s, "c", parts=2)
    await drained(s)
    assert s.vendor.order() == ["a", "a-1", "a-2", "b", "b-1", "b-2", "c", "c-1"]
    assert max(len(call) for call in s.vendor.calls) > 1
    await s.stop()


@settings(max_examples=40, deadline=None)
@given(st.data())
@pytest.mark.spec("D04", "D05", "D24", "P2", "P4")
def test_whatever_fails_and_whenever_it_crashes_parts_stay_in_order(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    run_virtual(_history(tmp_path_factory.mktemp("history"), data))


async def _history(directory: Path, data: st.DataObject) -> None:
    """Send messages that make and fail as drawn, crash a few times; then every part has arrived in order."""
    s = Stage(directory / "data", transform=Planned())
    chance = data.draw(st.randoms(use_true_random=False))
    s.vendor.bounds = data.draw(st.sampled_from([Limits(), Limits(batch=4), Limits(in_flight=1)]))
    s.vendor.delay_s = lambda message: 0.3
    s.vendor.answer = lambda message: _answer(chance.random())
    sent: dict[str, list[str]] = {"ann": [], "bob": [], "cid": []}
    await s.start()
    for number in range(data.draw(st.integers(1, 12))):
        person = data.draw(st.sampled_from(sorted(sent)))
        parts, fails = data.draw(st.integers(0, 4)), data.draw(st.sampled_from([0, 0, 0, 1, 2]))
        await send(s, f"{person}{number}", person=person, parts=parts, fails=fails)
        sent[person] += [
            f"{person}{number}-{index}" if index else f"{person}{number}" for index in range(parts)
        ]
        await s.pass_s(data.draw(st.sampled_from([0.0, 0.1, 0.7, 20.0])))
        if data.draw(st.integers(0, 4)) == 0:
            await s.crash()
            await s.start()
    await drained(s)
    for person, names in sent.items():
        assert _last_attempts(s, person) == names
    await s.stop()


def _answer(drawn: float) -> Outcome:
    return DOWN if drawn < 0.15 else OK


def _last_attempts(s: Stage, person: str) -> list[str]:
    """Each message once, where it was attempted last: it must be the order in which they were made."""
    attempts = [name for name in s.vendor.order() if name.startswith(person)]
    last = {name: at for at, name in enumerate(attempts)}
    return sorted(last, key=last.__getitem__)
