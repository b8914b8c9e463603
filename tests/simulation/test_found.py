"""What the simulation has found, in few lines each."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.deliver.stage import DOWN, OK, Stage
from towpath.destination import Limits
from towpath.overtaking import LATE_S
from towpath.testing.loop import virtual


@pytest.mark.spec("D06", "P7", "E026")
@virtual
async def test_rows_that_a_link_brings_are_not_tried_when_something_else_is_due(tmp_path: Path) -> None:
    s = Stage(tmp_path)
    s.vendor.answer = lambda m: DOWN if m.message_id == "a1" or s.clock.monotonic() < 215 else OK
    s.vendor.delay_s = lambda m: 10.0 if m.message_id == "b1" else 0.01
    await s.start()
    await s.send("a1", person="ann")
    await s.pass_s(200)
    first = s.vendor.attempts("a1")
    await s.send("b1", person="bob")
    await s.pass_s(1)
    await s.append({"type": "alias", "messageId": "link", "userId": "ann", "previousId": "bob"})
    await s.pass_s(400)
    assert s.vendor.attempts("a1") == first, "its next attempt is due ten minutes after the last one"
    await s.stop()


@pytest.mark.spec("D05", "P5")
@virtual
async def test_a_replay_before_a_loop_has_begun_is_found_when_it_begins(tmp_path: Path) -> None:
    s = Stage(tmp_path)
    await s.open()
    await s.make_loop().refresh()
    await s.store.close()


@pytest.mark.spec("D04")
@virtual
async def test_the_newest_of_a_backlog_pass_it_like_what_comes_after_it(tmp_path: Path) -> None:
    s = Stage(tmp_path)
    s.window = 64
    s.vendor.bounds = Limits(in_flight=2)
    s.vendor.delay_s = lambda _: 1.0
    await s.start()
    for n in range(700):
        await s.send(f"old{n}", person=f"p{n % 40}")
    await s.send("newest", person="zoe")
    await s.pass_s(5 * LATE_S)
    assert s.vendor.attempts("newest"), "hundreds were there before, and none of them was zoe's"
    await s.stop()


@pytest.mark.spec("D02", "D04")
@virtual
async def test_rows_whose_lane_is_opened_twice_at_once_are_loaded_once(tmp_path: Path) -> None:
    s = Stage(tmp_path)
    s.vendor.answer = lambda m: DOWN if m.message_id == "a1" and len(s.vendor.attempts("a1")) < 3 else OK
    await s.start()
    await s.send("a1", "a2", person="ann")
    await s.until(lambda: len(s.vendor.attempts("a1")) == 2)
    await s.pass_s(5)
    lane = s.loop.lanes.find("u:ann")
    assert lane is not None
    assert lane.rows
    s.loop._parking.open(lane, early=True)
    s.loop._parking.open(lane, early=True)  # as a link does that is read when the lane has just come due
    s.vendor.delay_s = lambda _: 1.0
    await s.pass_s(0.1)
    assert s.loop.lanes.size == 2
    await s.drained()
    assert s.vendor.order() == ["a1", "a1", "a1", "a2"]
    await s.stop()


@pytest.mark.spec("D04", "P7")
@virtual
async def test_rows_that_came_due_in_an_outage_go_on_after_it_though_the_clock_was_put_back(
    tmp_path: Path,
) -> None:
    s, down = Stage(tmp_path), [False]
    s.vendor.answer = lambda m: DOWN if down[0] or (m.message_id == "a1" and s.clock.monotonic() < 20) else OK
    await s.start()
    await s.send("a1", person="ann")
    for n in range(20):
        await s.send(f"well{n}", person=f"p{n}")
    await s.pass_s(12)
    down[0] = True
    for n in range(20):
        await s.send(f"ill{n}", person=f"p{n}")
    await s.pass_s(5)
    assert s.loop.health.stalled
    first = s.vendor.attempts("a1")
    await s.pass_s(300)
    assert s.vendor.attempts("a1") == first, "it came due, and waits like all others"
    s.clock.jump(-20_000)
    down[0] = False
    await s.pass_s(200)
    assert len(s.vendor.attempts("a1")) == len(first) + 1
    await s.stop()
