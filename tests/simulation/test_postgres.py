"""Histories on a log in SQLite and a ledger in PostgreSQL; PG_SEEDS=n lives more of them, PG_SEED=n one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.log.postgres import begin
from towpath.log import Store
from towpath.testing.loop import LoopClock
from towpath.testing.simulation import Broken, simulate

ONE = os.environ.get("PG_SEED")
SEEDS = [int(ONE)] if ONE else list(range(int(os.environ.get("PG_SEEDS", "20"))))


async def apart(directory: Path, clock: LoopClock) -> Store:
    return await begin(directory, clock, inline=True, durable=False)


@pytest.mark.spec("D02", "D03", "D04", "D05", "D06", "D10", "P1", "P2", "P3", "P4")
@pytest.mark.parametrize("seed", SEEDS)
def test_the_promises_hold_with_the_ledger_in_postgresql(seed: int, tmp_path: Path) -> None:
    try:
        simulate(seed, tmp_path, store=apart)
    except Broken as broken:
        pytest.fail(f"seed {seed} {broken}")
