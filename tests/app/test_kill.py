"""The server under load, killed and stopped: nothing accepted is lost, nothing is out of order."""

from __future__ import annotations

import asyncio
import http.client
import random
import time
from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from towpath.config import load as load_config
from towpath.sandbox.serve import Sandbox, sandbox
from towpath.wiring import connection_of

from .support import KILL, RATE, TERM, Hub, ask, delivered, post, track, until, write

CLIENTS = 4
PEOPLE = 3
BATCH = 12


class Load:
    """Clients that post numbered events of their own people, each batch again until it is answered 200."""

    def __init__(self) -> None:
        self.address = ""
        self.accepted: set[tuple[str, int]] = set()
        self.stopping = False
        self._tasks: list[asyncio.Task[None]] = []

    def start(self) -> None:
        self._tasks = [asyncio.create_task(self._client(number)) for number in range(CLIENTS)]

    async def stop(self) -> None:
        """Let every client have its last batch answered."""
        self.stopping = True
        await asyncio.gather(*self._tasks)

    async def _client(self, client: int) -> None:
        step = 0
        await self._accepted(
            [
                {"type": "identify", "userId": f"p{client}-{person}", "messageId": f"{client}-{person}"}
                for person in range(PEOPLE)
            ]
        )
        while not self.stopping:
            batch = [
                {**track(f"p{client}-{person}", step=number), "messageId": f"{client}-{person}-{number}"}
                for number in range(step, step + BATCH // PEOPLE)
                for person in range(PEOPLE)
            ]
            await self._accepted(batch)
            self.accepted |= {(call["userId"], call["properties"]["step"]) for call in batch}
            step += BATCH // PEOPLE

    async def _accepted(self, batch: list[dict[str, Any]]) -> None:
        await asyncio.to_thread(self._post, batch)

    def _post(self, batch: list[dict[str, Any]]) -> None:
        while self._status(batch) != 200:
            time.sleep(0.05)

    def _status(self, batch: list[dict[str, Any]]) -> int:
        try:
            return post(self.address, batch)[0]
        except (OSError, http.client.HTTPException):
            return 0


def arrived(box: Sandbox) -> dict[str, list[int]]:
    """Steps of each person in the order Kustomer got them."""
    state = box.kustomer.state
    return {
        customer: [event.meta["stepNum"] for event in events] for customer, events in state.events.items()
    }


def in_order(box: Sandbox) -> bool:
    return all(earlier <= later for steps in arrived(box).values() for earlier, later in pairwise(steps))


def repeated(box: Sandbox) -> int:
    return sum(count - 1 for steps in arrived(box).values() for count in Counter(steps).values())


def count(box: Sandbox) -> int:
    return sum(map(len, box.kustomer.state.events.values()))


async def more(box: Sandbox, events: int) -> None:
    """Wait until that many more events have come."""
    goal = count(box) + events
    await until(lambda: count(box) >= goal)


def in_flight(file: Path) -> int:
    """How many calls may be on the way at once."""
    config = load_config(file)
    entry = config.connections[0]
    return connection_of(entry, config.destinations[entry.destination]).destination.limits().in_flight


@pytest.mark.spec("D04", "D05", "D07", "P1", "P2", "P3")
async def test_killed_five_times_under_load(tmp_path: Path) -> None:
    chance, load, rounds = random.Random(5), Load(), 5
    async with sandbox(requests_per_minute=RATE) as box:
        file = write(tmp_path, box)
        running = await asyncio.to_thread(Hub, file)
        try:
            load.address = running.address
            load.start()
            for _ in range(rounds):
                await more(box, chance.randrange(20, 150))
                assert await asyncio.to_thread(running.end, KILL) == -KILL
                running = await asyncio.to_thread(Hub, file)
                load.address = running.address
                rows = await ask(file, "GET", "/balance?recount=true")
                assert [row["difference"] for row in rows] == [0]
            await load.stop()
            balance = await delivered(file, recount=True)
        finally:
            running.close()
        assert balance["difference"] == balance["dead"] == 0
        assert balance["accepted"] == balance["delivered"] == len(load.accepted) + CLIENTS * PEOPLE
        assert len({(who, step) for who, steps in arrived(box).items() for step in steps}) == len(
            load.accepted
        )
        assert in_order(box)
        assert repeated(box) <= rounds * in_flight(file)


@pytest.mark.spec("D05", "P3")
async def test_stopped_three_times_under_load(tmp_path: Path) -> None:
    load = Load()
    async with sandbox(requests_per_minute=RATE) as box:
        file = write(tmp_path, box)
        for _ in range(3):
            running = await asyncio.to_thread(Hub, file)
            try:
                load.address = running.address
                if not load.accepted:
                    load.start()
                await more(box, 60)
                started = time.monotonic()
                assert await asyncio.to_thread(running.end, TERM) == 0
                assert time.monotonic() - started <= 10.0
            finally:
                running.close()
        running = await asyncio.to_thread(Hub, file)
        try:
            load.address = running.address
            await load.stop()
            balance = await delivered(file, recount=True)
        finally:
            running.close()
        assert balance["accepted"] == balance["delivered"] == len(load.accepted) + CLIENTS * PEOPLE
        assert in_order(box)
        assert repeated(box) == 0
