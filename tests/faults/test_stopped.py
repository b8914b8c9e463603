"""SIGTERM under load: what is under way ends first, so nothing is lost and nothing is sent twice."""

from __future__ import annotations

import asyncio
import random
import time
from pathlib import Path

import pytest

from towpath.sandbox.serve import sandbox

from ..app.support import TERM, Hub
from ..app.support import write as write_kustomer
from ..app.test_kill import CLIENTS, PEOPLE, arrived, more, repeated
from .senders import Senders
from .support import balances, inversions, scenario, settled, size

RATE = 600_000  # a minute: no bound here, where what is asked is what a crash does
ROUNDS = size(3, 20)


@pytest.mark.spec("D04", "D05", "P2", "P3")
async def test_a_graceful_stop_loses_and_doubles_nothing(tmp_path: Path) -> None:
    chance, took_s = random.Random(20), list[float]()
    target = "0 lost, 0 doubled, 0 inversions, each stop ≤ 10 s"
    with scenario("SIGTERM under load", target, __file__) as row:
        async with sandbox(requests_per_minute=RATE) as box:
            load = Senders(box)
            file = write_kustomer(tmp_path, box, rate=RATE)
            running = await asyncio.to_thread(Hub, file)
            try:
                load.address = running.address
                load.start()
                for _ in range(ROUNDS):
                    await more(box, chance.randrange(5, 150))
                    began_s = time.monotonic()
                    assert await asyncio.to_thread(running.end, TERM) == 0
                    took_s.append(time.monotonic() - began_s)
                    running = await asyncio.to_thread(Hub, file)
                    load.address = running.address
                await load.stop()
                await settled(file, ["kustomer"])
                balance = (await balances(file))["kustomer"]
            finally:
                running.close()
            seen = arrived(box)
        lost = len(load.accepted) - sum(len(set(each)) for each in seen.values())
        disordered, doubled = inversions(seen), repeated(box)
        sent = len(load.accepted) + CLIENTS * PEOPLE
        row.injected = f"{ROUNDS} stops under load, {CLIENTS} senders, {sent:,} events acknowledged"
        row.measured = (
            f"{lost} lost, {doubled} doubled, {disordered} inversions, longest stop {max(took_s):.1f} s"
        )
        assert (lost, doubled, disordered) == (0, 0, 0)
        assert balance["accepted"] == balance["delivered"] == sent
        assert max(took_s) <= 10.0
