"""The receiver takes a delivery, and its answer is lost on the way back: the repeat says that it is one."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from towpath.sandbox.proxy import FaultProxy, Mode

from .support import (
    accept,
    balances,
    inversions,
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

AT_ONCE = 4  # fewer persons than make an outage, in which only probes would go out
PERSONS = [f"p{number}" for number in range(size(20, 100))]
STEPS = size(3, 50)
LOST = AT_ONCE * STEPS


@pytest.mark.spec("P3", "P4", "D03", "D04")
async def test_a_repeat_carries_the_same_idempotency_handle(tmp_path: Path) -> None:
    target = "as many repeats as lost answers, each with the id of the first; 0 lost, 0 inversions"
    with scenario("answer lost after the receiver committed", target, __file__) as row:
        async with sink() as (receiver, url):
            upstream = urlsplit(url)
            async with FaultProxy(upstream.hostname or "", upstream.port or 0) as proxy:
                file = write(tmp_path, {"hook": proxy.url})
                async with started(file) as running:
                    for step in range(STEPS):
                        proxy.mode = Mode(drop_answer=True, times=AT_ONCE)
                        await accept(running.address, numbered(PERSONS, [step]))
                        await until(lambda: proxy.struck.get("drop_answer", 0) == (step + 1) * AT_ONCE)  # noqa: B023
                    await settled(file, ["hook"])
                    balance = (await balances(file))["hook"]
        found = steps(receiver.received)
        bodies: dict[str, set[bytes]] = {}
        for item in receiver.received:
            bodies.setdefault(item.id, set()).add(item.body)
        times = Counter(item.id for item in receiver.received)
        row.injected = f"{LOST} answers dropped by a proxy, {len(bodies):,} deliveries"
        row.measured = (
            f"{receiver.duplicates} repeats, all with the first one's webhook-id and body; "
            f"{balance['accepted'] - len(bodies)} lost; {inversions(found)} inversions"
        )
        assert receiver.duplicates == repeats(found) == LOST
        assert sum(times.values()) == len(bodies) + LOST
        assert all(len(each) == 1 for each in bodies.values())
        assert balance["accepted"] == balance["delivered"] == len(bodies) == len(PERSONS) * STEPS
        assert inversions(found) == 0
