"""kill -9 of the server at seeded random moments, while it ingests and delivers."""

from __future__ import annotations

import asyncio
import random
from pathlib import Path

import pytest

from towpath.sandbox.serve import sandbox

from ..app.support import KILL, Hub, ask
from ..app.support import write as write_kustomer
from ..app.test_kill import CLIENTS, PEOPLE, arrived, in_flight, more, repeated
from .senders import Senders
from .support import balances, inversions, scenario, settled, size

RATE = 600_000  # a minute: no bound here, where what is asked is what a crash does
ROUNDS = size(3, 25)


@pytest.mark.spec("D04", "D05", "D07", "P1", "P2", "P3")
async def test_nothing_acknowledged_is_lost_and_no_order_is_broken(tmp_path: Path) -> None:
    chance = random.Random(9)
    target = "0 lost, 0 stored twice, 0 inversions, difference 0, repeats ≤ calls in flight at the kills"
    with scenario("kill -9 while ingesting and delivering", target, __file__) as row:
        async with sandbox(requests_per_minute=RATE) as box:
            load = Senders(box)
            file = write_kustomer(tmp_path, box, rate=RATE)
            allowed = ROUNDS * in_flight(file)
            running = await asyncio.to_thread(Hub, file)
            differences = []
            try:
                load.address = running.address
                load.start()
                for _ in range(ROUNDS):
                    await more(box, chance.randrange(5, 200))
                    assert await asyncio.to_thread(running.end, KILL) == -KILL
                    running = await asyncio.to_thread(Hub, file)
                    load.address = running.address
                    differences += [
                        each["difference"] for each in await ask(file, "GET", "/balance?recount=true")
                    ]
                await load.stop()
                await settled(file, ["kustomer"])
                balance = (await balances(file))["kustomer"]
            finally:
                running.close()
            seen = arrived(box)
        sent = len(load.accepted) + CLIENTS * PEOPLE
        lost = len(load.accepted) - sum(len(set(each)) for each in seen.values())
        disordered, doubled = inversions(seen), repeated(box)
        row.injected = f"{ROUNDS} kills under load, {CLIENTS} senders, {sent:,} events acknowledged"
        row.measured = (
            f"{lost} lost, {balance['accepted'] - sent} stored twice, {disordered} inversions, "
            f"difference {max(map(abs, differences))}, {doubled} repeats (allowed {allowed})"
        )
        assert (lost, disordered) == (0, 0)
        assert balance["accepted"] == balance["delivered"] == sent
        assert differences == [0] * ROUNDS
        assert balance["difference"] == 0
        assert doubled <= allowed
