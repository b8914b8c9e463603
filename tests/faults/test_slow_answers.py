"""Receivers that answer one byte at a time, or without an end: memory stays bounded, others do not wait."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import pytest

from ..app.support import ask
from .support import (
    PATIENCE_S,
    accept,
    balances,
    inversions,
    memory_mb,
    numbered,
    scenario,
    settled,
    sink,
    size,
    started,
    steps,
    until,
    write,
)

PERSONS = [f"p{number}" for number in range(size(64, 200))]
DRIPPED = PERSONS[:4]  # fewer than make an outage, so each is parked
IN_FLIGHT = 64
NAMES = ("fine", "drip", "flood", "endless")
TIMEOUT_S = 2
PAUSE_S = 10.0  # between two bytes of an answer
ENDLESS = size(5, 40)
GROWTH_MB = 64.0  # what waits in memory for four connections; of an answer at most 64 KiB is kept
RETRY = f"{{schedule: [0s, 1s, 1s, 1h], timeout: {TIMEOUT_S}s}}"


async def until_parked(file: Path) -> None:
    """Wait until every dripped person's first delivery is to be tried again for want of a complete answer."""
    reason, deadline_s = f"no complete answer within {TIMEOUT_S} s", time.monotonic() + PATIENCE_S
    while True:
        rows = (await ask(file, "GET", "/deliveries?connection=drip&limit=100000"))["waiting"]
        if sum(reason in row["reason"] for row in rows) == len(DRIPPED):
            return
        assert time.monotonic() < deadline_s, rows[:5]
        await asyncio.sleep(0.1)


@pytest.mark.spec("D03", "D04", "P6")
async def test_memory_is_bounded_and_others_are_served(tmp_path: Path) -> None:
    """What an endless answer becomes is said by its status: 2xx delivered, 5xx tried again."""
    target = f"dripped: Retry at the time-out; endless: cut at 64 KiB; RSS + ≤ {GROWTH_MB:.0f} MiB (goal 10)"
    with scenario("slow-drip and endless answers", target, __file__) as row:
        async with sink() as (receiver, url):
            file = write(tmp_path, {name: f"{url}/{name}" for name in NAMES}, RETRY)
            async with started(file) as running:
                await accept(running.address, numbered(PERSONS, range(5)))
                await settled(file, NAMES)
                before_mb = memory_mb(running.pid, "VmHWM")
                for person in DRIPPED:
                    receiver.faults.add("drip", path="/drip", person=person, delay_s=PAUSE_S)
                receiver.faults.add("drip", path="/flood", delay_s=PAUSE_S)
                receiver.faults.add("endless", path="/endless")
                await accept(running.address, numbered(PERSONS, range(5, 5 + ENDLESS)))
                await settled(file, ["fine", "endless"])
                await until(lambda: receiver.faults.met.get("drip", 0) > IN_FLIGHT + 4 * len(DRIPPED))
                await until_parked(file)
                grown_mb = memory_mb(running.pid, "VmHWM") - before_mb
                rows = await balances(file)
        found = steps(item for item in receiver.received if item.path == "/fine")
        waiting = rows["drip"]["waiting"] + rows["flood"]["waiting"]
        dead = rows["drip"]["dead"] + rows["flood"]["dead"]
        met = receiver.faults.met
        row.injected = (
            f"{met['drip']} answers of one byte in {PAUSE_S:.0f} s, {met['endless']} answers without an end"
        )
        row.measured = (
            f"dripped: all {waiting} wait, {dead} dead; endless (200): "
            f"{rows['endless']['delivered']} delivered; RSS + {grown_mb:.1f} MiB; others "
            f"{rows['fine']['delivered']} of {rows['fine']['accepted']} delivered"
        )
        assert rows["fine"]["delivered"] == rows["fine"]["accepted"] == len(PERSONS) * (5 + ENDLESS)
        assert (waiting, dead) == ((len(DRIPPED) + len(PERSONS)) * ENDLESS, 0)
        assert rows["endless"]["delivered"] == rows["endless"]["accepted"]
        assert inversions(found) == 0
        assert grown_mb <= GROWTH_MB
