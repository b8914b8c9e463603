"""What the simulation has found, in few lines each."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.deliver.stage import DOWN, OK, Stage
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
