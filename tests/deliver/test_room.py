"""When the ledger is short of room: nothing but ends is written, and order, people and retries are kept."""

from __future__ import annotations

from typing import Any

import pytest

from towpath.deliver import WINDOW
from towpath.log import Settlement
from towpath.log.sqlite import RESERVE_BYTES
from towpath.message import Message
from towpath.outcome import Outcome
from towpath.parking import PAGE
from towpath.testing.loop import virtual

from .conftest import MakeStage
from .stage import DOWN, OK, Stage

pytestmark = pytest.mark.spec("D05")
NAMES = [f"m{number:03}" for number in range(PAGE * 4)]


def parking(s: Stage) -> list[str]:
    """The message ids of new rows, as they are written from now on."""
    written: list[str] = []
    settle = s.store.settle

    async def watched(lease: Any, settlement: Settlement) -> bool:
        written.extend(row.record.message_id for row in settlement.parked)
        return await settle(lease, settlement)

    s.store.settle = watched  # type: ignore[method-assign]
    return written


def fill(s: Stage, free_bytes: int = RESERVE_BYTES // 2 - 1) -> None:
    s.store._free_bytes = lambda _: free_bytes


async def opened(s: Stage, *people: str) -> list[str]:
    """A stage on a disk that has just become short; the ids of what becomes a row."""
    await s.open()
    for name in NAMES:
        for person in people:
            await s.send(f"{person}-{name}", person=person)
    fill(s)
    return parking(s)


@virtual
async def test_a_long_lane_is_not_copied_into_rows(stage: MakeStage) -> None:
    s = stage()
    rows = await opened(s, "ann")
    await s.start()
    await s.drained()
    assert s.vendor.order() == [f"ann-{name}" for name in NAMES]
    assert rows == []
    await s.stop()


@virtual
async def test_with_room_to_spare_it_is(stage: MakeStage) -> None:
    s = stage()
    rows = await opened(s, "ann")
    fill(s, RESERVE_BYTES // 2)
    await s.start()
    await s.drained()
    assert len(rows) == len(NAMES) - PAGE
    await s.stop()


@virtual
async def test_rows_that_exist_are_served_before_reading_goes_on(stage: MakeStage) -> None:
    s = stage()
    rows = await opened(s, "ann")
    fill(s, RESERVE_BYTES)
    s.vendor.delay_s = lambda _: 1.0
    await s.start()
    await s.until(lambda: len(rows) == len(NAMES) - PAGE)
    fill(s, 2 * RESERVE_BYTES)
    await s.send("late", "later")
    fill(s)
    before = len(rows)
    await s.drained()
    assert s.vendor.order() == [*[f"ann-{name}" for name in NAMES], "late", "later"]
    assert len(rows) - before <= 2, "what had been read already"
    await s.stop()


@virtual
async def test_a_failing_person_waits_in_memory_and_others_go_on(stage: MakeStage) -> None:
    s = stage()
    rows = await opened(s, "ann", "bob")
    down = [True]

    def answer(message: Message) -> Outcome:
        return DOWN if down and message.user_id == "ann" else OK

    s.vendor.answer = answer
    await s.start()
    await s.until(lambda: s.vendor.order().count(f"bob-{NAMES[-1]}") == 1)
    await s.pass_s(120)
    assert len(s.vendor.attempts(f"ann-{NAMES[0]}")) > 2, "it is tried again by the schedule"
    down.clear()
    await s.drained()
    assert [name for _, name in s.vendor.ended if name.startswith("ann")][-len(NAMES) + 1 :] == [
        f"ann-{name}" for name in NAMES[1:]
    ]
    assert rows == []
    assert len(NAMES) * 2 < WINDOW
    await s.stop()


@virtual
async def test_a_retry_by_hand_reaches_what_waits_in_memory(stage: MakeStage) -> None:
    s = stage()
    await opened(s, "ann")
    down = [True]
    s.vendor.answer = lambda _: DOWN if down else OK
    await s.start()
    await s.pass_s(120)
    attempts = len(s.vendor.started)
    down.clear()
    await s.loop.refresh()
    await s.pass_s(0.5)
    assert len(s.vendor.started) > attempts
    await s.drained()
    await s.stop()
