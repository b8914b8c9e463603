"""Dead letters beyond the contract: replays in steps, and filters of many ids."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import pytest

from towpath.log import DeadFilter, Done, Group, LogFull, Settlement, letters
from towpath.log.sqlite import SqliteStore
from towpath.message import Envelope
from towpath.testing import FakeClock
from towpath.testing.ledger import bury, keys, lease_of
from towpath.testing.log import entry


async def deaths(store: SqliteStore, *order: int) -> None:
    """Letters of one person, who died in this order of positions."""
    await store.connect("out", ["web"], "earliest")
    await store.append([Group(Envelope("web", 1.0), [entry(str(i)) for i in range(len(order))])])
    records = await store.read(0, len(order))
    for position in order:
        dead = [bury(records[position - 1])]
        await store.settle(await lease_of(store), Settlement(0, [Done(position, 0, "dead", "no")], dead))


@pytest.mark.spec("D04", "D06")
async def test_a_replay_that_ends_half_way_has_done_the_earlier_ones(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps = []

    def replay(*arguments: Any, **named: Any) -> Any:
        steps.append(named["ids"])
        if len(steps) == 3:
            raise OSError(errno.ENOSPC, "no space left on device")
        return replayed(*arguments, **named)

    replayed = letters.replay
    monkeypatch.setattr(letters, "STEP_LETTERS", 2)
    monkeypatch.setattr(letters, "replay", replay)
    async with SqliteStore.open(tmp_path, FakeClock()) as store:
        await deaths(store, 2, 1, 5, 4, 3)
        with pytest.raises(LogFull):
            await store.replay(DeadFilter(), 500.0)
        assert keys(await store.parked(await lease_of(store), "ann")) == [
            (position, 0) for position in (1, 2, 3, 4)
        ]
        assert await store.replay(DeadFilter(), 500.0) == {"out": 1}
        assert [len(step) for step in steps] == [2, 2, 1, 1]
        assert [balance.difference for balance in await store.balance()] == [0]


async def test_a_filter_may_name_any_number_of_letters(tmp_path: Path) -> None:
    async with SqliteStore.open(tmp_path, FakeClock()) as store:
        await deaths(store, 1, 2)
        wanted = [letter.id for letter in await store.dead(DeadFilter())][:1]
        assert await store.drop(DeadFilter(ids=[*wanted, *range(10_000, 300_000)])) == 1
        assert len(await store.dead(DeadFilter())) == 1
