"""One person's deliveries fail for long, and ever more of that person wait: order is kept, others go on."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path
from typing import Any

import pytest

from ..app.support import ask
from .support import (
    PATIENCE_S,
    accept,
    balances,
    inversions,
    memory_mb,
    numbered,
    repeats,
    scenario,
    settled,
    sink,
    size,
    started,
    steps,
    until,
    write,
)

WAITING = size(2_000, 100_000)
OTHERS = [f"p{number}" for number in range(200)]
RETRY = "{schedule: [0s, 1h, 1h], timeout: 30s}"
RSS_MB = 300.0


def mingled(many: list[dict[str, Any]], few: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Both in their own order, the few spread over the many."""
    step = len(many) // len(few)
    spread = list(many)
    for index in reversed(range(len(few))):
        spread.insert(index * step, few[index])
    return spread


async def waiting_alone(file: Path) -> dict[str, Any]:
    """Wait until only the long queue waits: the balance then."""
    deadline_s = time.monotonic() + PATIENCE_S
    while (balance := (await balances(file))["hook"])["waiting"] > WAITING:
        assert time.monotonic() < deadline_s
        await asyncio.sleep(0.1)
    return balance


@pytest.mark.spec("D04", "P4", "P6", "P2")
async def test_order_is_kept_others_go_on_and_memory_is_bounded(tmp_path: Path) -> None:
    target = f"order kept, others delivered meanwhile, RSS ≤ {RSS_MB:.0f} MiB"
    with scenario("one person with a long queue", target, __file__) as row:
        async with sink() as (receiver, url):
            file = write(tmp_path, {"hook": url}, RETRY)
            receiver.faults.add("status", status=503, person="long")
            mixed = mingled(numbered(["long"], range(WAITING)), numbered(OTHERS, range(5)))
            async with started(file) as running:
                await accept(running.address, mixed)
                await until(lambda: len(receiver.received) == len(OTHERS) * 5)
                meanwhile = await waiting_alone(file)
                receiver.faults.clear()
                await ask(file, "POST", "/deliveries/retry", {"connection": "hook"})
                await settled(file, ["hook"])
                balance = (await balances(file))["hook"]
                peak_mb = memory_mb(running.pid, "VmHWM")
        found = steps(receiver.received)
        row.injected = f"{WAITING:,} events of one person behind a failing one, {len(OTHERS) * 5:,} of others"
        row.measured = (
            f"others: all {meanwhile['delivered']:,} delivered while {meanwhile['waiting']:,} waited; "
            f"then all; {inversions(found)} inversions, {repeats(found)} repeats; RSS {peak_mb:.0f} MiB"
        )
        assert meanwhile["waiting"] == WAITING
        assert balance["accepted"] == balance["delivered"] == WAITING + len(OTHERS) * 5
        assert found["long"] == list(range(WAITING))
        assert (inversions(found), repeats(found), balance["difference"]) == (0, 0, 0)
        assert peak_mb <= RSS_MB
