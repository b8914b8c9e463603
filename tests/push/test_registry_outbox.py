"""What the registry tells reaches the log: once, in order, and whatever dies between."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from towpath.device import Address, Noted
from towpath.jobs import Run
from towpath.log import Group
from towpath.log.sqlite import SqliteStore
from towpath.message import format_time, read
from towpath.push.outbox import Outbox
from towpath.push.registry import Dead
from towpath.push.sweep import Sweep, SweepSettings
from towpath.testing.fakes import FakeClock

from .registry_stage import DAY_S, START, Stage, registered, unregistered


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    made = Stage(tmp_path)
    yield made
    made.close()


@pytest.fixture
async def log(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    async with SqliteStore.open(tmp_path, FakeClock()) as store:
        yield store


class Dying:
    """A log that keeps what it is given, and a process that dies before it hears so."""

    def __init__(self, log: SqliteStore) -> None:
        self._log = log

    async def append(self, groups: Sequence[Group], refused: Sequence[Any]) -> None:
        await self._log.append(groups, refused)
        raise OSError("killed")


@pytest.mark.spec("P041", "P046")
async def test_what_was_told_is_in_the_log_in_order(stage: Stage, log: SqliteStore) -> None:
    await stage.apply(registered("d1", "d1", "t1"), registered("d1", "ann", "t1", START + 1))
    assert await Outbox(stage.engine, stage.clock).drain(log) == 3
    messages = [read(record) for record in await log.read(0, 10)]
    assert [(one.type, one.event) for one in messages] == [
        ("alias", None),
        ("track", "Device Moved"),
        ("track", "Device Created or Updated"),
    ]
    assert {(one.source, one.trust, one.user_id) for one in messages} == {("push", "server", "ann")}
    assert messages[0].previous_id == "d1"
    assert messages[2].occurred_at.timestamp() == START + 1
    assert messages[2].context["device"] == {"id": "d1", "token": "t1", "type": "ios"}
    assert await Outbox(stage.engine, stage.clock).count() == 0


@pytest.mark.spec("P041", "D07")
async def test_a_crash_between_the_log_and_the_outbox_tells_nothing_twice(
    stage: Stage, log: SqliteStore
) -> None:
    outbox = Outbox(stage.engine, stage.clock)
    await stage.apply(registered("d1", "ann", "t1"))
    with pytest.raises(OSError, match="killed"):
        await outbox.drain(Dying(log))  # type: ignore[arg-type]
    await stage.apply(registered("d1", "bob", "t1", START + 1))
    assert await outbox.count() == 4
    assert await outbox.drain(log) == 4
    assert await outbox.drain(log) == 0
    told = [read(record) for record in await log.read(0, 10)]
    assert [(one.event, one.user_id) for one in told] == [
        ("Device Created or Updated", "ann"),
        ("Device Deleted", "ann"),
        ("Device Moved", "bob"),
        ("Device Created or Updated", "bob"),
    ]


async def test_much_is_carried_page_by_page(stage: Stage, log: SqliteStore) -> None:
    await stage.apply(*[registered(f"d{number}", f"u{number}", f"t{number}") for number in range(1200)])
    assert await Outbox(stage.engine, stage.clock).drain(log) == 1200
    assert len(await log.read(0, 2000)) == 1200


# -- the job -------------------------------------------------------------------------------------------


async def swept(stage: Stage, **settings: Any) -> Run[SweepSettings]:
    async def persist(_: str) -> None:
        return None

    run = Run(1, SweepSettings.model_validate(settings), FakeClock(), persist=persist)
    await Sweep(lambda: stage.registry).run(run)
    return run


@pytest.mark.spec("P011", "P047")
async def test_the_job_sweeps_and_forgets(stage: Stage) -> None:
    await stage.apply(registered("d1", "ann", "t1"), registered("d2", "ann", "t2"), unregistered("d2"))
    await stage.clock.advance(300 * DAY_S)
    refused = await swept(stage)
    assert any("the intake" in line.text and line.level == "warning" for line in refused.lines)
    assert refused.state.counts.written == 1, "what was removed long ago is forgotten all the same"
    await stage.apply(registered("d3", "ann", "t3", stage.clock.now()))
    dry = await swept(stage, dry_run=True)
    assert dry.state.counts.written == 0
    assert "1 devices would be removed as stale" in dry.lines[-1].text
    assert (await stage.registry.counts()).statuses == {"active": 2}
    done = await swept(stage)
    assert done.state.counts.written == 1
    assert (await stage.registry.counts()).statuses == {"active": 1, "removed": 1}


@pytest.mark.spec("P045", "D10")
async def test_what_is_told_says_when_that_was_heard_of_its_person(stage: Stage) -> None:
    """So that a deletion received after that is known to stand, whatever order the log has them in."""
    await stage.registry.apply([Noted("m1", (registered("d1", "d1", "t1"),), START + 50)])
    await stage.registry.apply([Noted("m2", (registered("d1", "ann", "t1", START + 1),), START + 100)])
    await stage.registry.apply([Noted("m3", (registered("d1", "bob", "t1", START + 2),), START + 200)])
    stage.clock._elapsed += 300
    await stage.registry.remove([Dead("d1", Address("token", "t1"), START + 2, "UNREGISTERED")])
    said = [
        (told.get("event", "alias"), told["userId"], told["sentAt"], told["timestamp"])
        for told in stage.told()
    ]
    assert said == [
        ("alias", "ann", time(100), time(1)),
        ("Device Moved", "ann", time(100), time(1)),
        ("Device Created or Updated", "ann", time(100), time(1)),
        ("Device Deleted", "ann", time(100), time(2)),
        ("Device Moved", "bob", time(200), time(2)),
        ("Device Created or Updated", "bob", time(200), time(2)),
        ("Device Deleted", "bob", time(200), time(300)),
    ]


def time(after_s: float) -> str:
    return format_time(datetime.fromtimestamp(START + after_s, UTC))
