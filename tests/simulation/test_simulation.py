"""Seeded histories: crashes, lying vendors, links and duplicates; SEEDS=n runs more, SEED=n just one."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from towpath.testing.simulation import simulate

SEEDS = (
    [int(os.environ["SEED"])] if "SEED" in os.environ else list(range(int(os.environ.get("SEEDS", "100"))))
)


@pytest.mark.spec("D02", "D03", "D04", "D05", "D06", "D20", "E026", "P1", "P2", "P3", "P4")
@pytest.mark.parametrize("seed", SEEDS)
def test_the_promises_hold_in_every_history(seed: int, tmp_path: Path) -> None:
    simulate(seed, tmp_path)


def test_a_seed_replays_the_same_history(tmp_path: Path) -> None:
    assert simulate(3, tmp_path / "first") == simulate(3, tmp_path / "second")
    assert simulate(4, tmp_path / "third") != simulate(3, tmp_path / "fourth")
