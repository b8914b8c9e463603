"""Requests that are ready together share one append, and its fate."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import cast

import pytest

from towpath.ingest.gather import Gathering
from towpath.log import Appended, Entry, Group, Log, Refused
from towpath.message import Envelope

from .support import MemoryLog


class SlowLog(MemoryLog):
    """Notes each append's size and holds it until told."""

    def __init__(self) -> None:
        super().__init__()
        self.sizes: list[int] = []
        self.go = asyncio.Event()

    async def append(
        self, groups: Sequence[Group], refused: Sequence[Refused] = (), state: object = None
    ) -> Appended:
        self.sizes.append(len(groups))
        await self.go.wait()
        return await super().append(groups, refused)


def group(name: str) -> Group:
    return Group(Envelope("web", 0.0), [Entry(name, b"{}")])


@pytest.fixture
async def log() -> SlowLog:
    return SlowLog()


async def start(gathering: Gathering, *names: str) -> list[asyncio.Task[None]]:
    """Start appends and let them reach the log."""
    tasks = [asyncio.create_task(gathering.append([group(name)], ())) for name in names]
    for _ in range(3):
        await asyncio.sleep(0)
    return tasks


@pytest.mark.spec("P1")
async def test_those_ready_together_are_one_append_in_their_order(log: SlowLog) -> None:
    gathering = Gathering(cast("Log", log))
    first = await start(gathering, "a", "b", "c")
    second = await start(gathering, "d")
    assert log.sizes == [3, 1], "a later one does not wait for an earlier append"
    assert not any(task.done() for task in first + second), "none is answered before it is durable"
    log.go.set()
    await asyncio.gather(*first, *second)
    assert [record.message_id for record in log.records] == ["a", "b", "c", "d"]


@pytest.mark.spec("P1", "E036")
async def test_a_failure_is_everybodys_and_only_theirs(log: SlowLog) -> None:
    gathering = Gathering(cast("Log", log))
    log.failure = OSError("broken")
    tasks = await start(gathering, "a", "b")
    log.go.set()
    results = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(result) for result in results] == [OSError, OSError]
    log.failure = None
    await asyncio.gather(*await start(gathering, "c"))
    assert [record.message_id for record in log.records] == ["c"]


@pytest.mark.parametrize("failure", [None, OSError("broken")])
async def test_a_sender_that_leaves_changes_nothing_for_others(
    log: SlowLog, failure: Exception | None
) -> None:
    gathering = Gathering(cast("Log", log))
    leaving, staying = await start(gathering, "a", "b")
    leaving.cancel()
    log.failure = failure
    log.go.set()
    results = await asyncio.gather(leaving, staying, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert results[1] is failure
