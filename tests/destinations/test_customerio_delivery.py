"""The real delivery loop in front of a simulated Customer.io that fails, forgets to answer and slows down."""

from __future__ import annotations

import asyncio
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest

from towpath.budget import Budget
from towpath.connection import Connection
from towpath.deliver import DeliveryLoop
from towpath.destination import Scope
from towpath.http import Http, Reply, Request, Throttle, TransportError
from towpath.identity import Identity
from towpath.log import Entry, Group
from towpath.log.sqlite import SqliteStore
from towpath.message import Envelope
from towpath.sandbox.customerio import DEFAULT, CustomerIoSimulator
from towpath.testing.fakes import FakeMemory
from towpath.testing.loop import LoopClock, virtual

from .customerio_world import customerio
from .test_kustomer_sandbox import InProcess

PEOPLE, ROUNDS = 25, 5


class Unreliable:
    """A network that loses requests and answers, and whose other end has bad moments."""

    def __init__(self, simulator: CustomerIoSimulator, seed: int) -> None:
        self.inner = InProcess(simulator)  # type: ignore[arg-type]
        self.random = Random(seed)
        self.failing = True

    async def send(self, request: Request, *, timeout_s: float) -> Reply:
        chance = self.random.random() if self.failing else 1.0
        await asyncio.sleep(self.random.uniform(0.005, 0.05))
        if chance < 0.05:
            raise TransportError("connection refused", sent=False)
        if chance < 0.10:
            return Reply(503)
        reply = await self.inner.send(request, timeout_s=timeout_s)
        if chance < 0.20:
            raise TransportError("connection reset", sent=True)
        return reply

    async def close(self) -> None:
        """Nothing is open."""


def history(person: int) -> list[dict[str, Any]]:
    """What one person does: anonymous at first, then known, with changes of the profile in between."""
    who = {"anonymousId": f"a{person}"}
    calls: list[dict[str, Any]] = [{"type": "track", "event": f"E{n}", **who} for n in range(2)]
    who["userId"] = f"u{person}"
    for turn in range(ROUNDS):
        calls.append({"type": "identify", "traits": {"turn": turn, "email": f"u{person}@x.io"}, **who})
        calls.append({"type": "track", "event": f"E{turn + 2}", "properties": {"turn": turn}, **who})
    return calls


async def appended(store: SqliteStore, clock: LoopClock) -> None:
    """Everybody's history, as it would come in: turn by turn, a second between a person's calls."""
    histories = [history(person) for person in range(PEOPLE)]
    for place in range(len(histories[0])):
        entries = []
        for person, calls in enumerate(histories):
            name = f"m-{person}-{place}"
            when = f"2026-01-01T10:00:{place:02}.000Z"
            entries.append(
                Entry(name, msgspec.json.encode({**calls[place], "messageId": name, "timestamp": when}))
            )
        await store.append([Group(Envelope("web", clock.now(), "server"), entries)])


@pytest.mark.spec("C062", "C063", "C089", "C105", "C120", "D04", "D07", "D20")
@pytest.mark.parametrize("seed", range(2))
@pytest.mark.parametrize("settings", [{}, {"app_api_key": DEFAULT.app_api_key, "conflicts": "rename"}])
def test_every_event_once_and_in_order_whatever_the_network_does(
    tmp_path: Path, seed: int, settings: dict[str, Any]
) -> None:
    @virtual
    async def run() -> CustomerIoSimulator:
        clock = LoopClock(asyncio.get_running_loop(), seed)
        simulator = CustomerIoSimulator(clock=clock)
        keys = {"site_id": DEFAULT.site_id, "api_key": DEFAULT.api_key, "base_url": "http://127.0.0.1:1"}
        destination = customerio(**keys, **settings)
        throttles: dict[str, Throttle] = {
            name: Budget(clock, rate) for name, rate in destination.budgets().items()
        }
        http = Http(Unreliable(simulator, seed), clock, throttles=throttles)
        connection = Connection(
            name="web-cio",
            sources=frozenset({"web"}),
            start="earliest",
            destination_name="cio",
            destination=destination,
        )
        store = await SqliteStore.begin(tmp_path / "data", clock, inline=True, durable=False)
        await store.connect(connection.name, connection.sources, "earliest")
        await appended(store, clock)
        scope = Scope(http, clock, FakeMemory())
        loop = DeliveryLoop(connection, store, store, Identity(store, links_max=500), scope)
        task = asyncio.create_task(loop.run())
        total = PEOPLE * (2 + 2 * ROUNDS)
        for _ in range(10_000):
            (balance,) = await store.balance()
            if balance.delivered == total:
                break
            await asyncio.sleep(5)
        assert (balance.delivered, balance.dead, balance.waiting) == (total, 0, 0)
        await loop.stop()
        await task
        await store.close()
        return simulator

    simulator = run()
    for person in range(PEOPLE):
        events = [event.name for event in simulator.events(id=f"u{person}")]
        assert events == [f"E{n}" for n in range(ROUNDS + 2)]
        attributes = simulator.person(id=f"u{person}")
        assert attributes is not None
        assert attributes["turn"] == ROUNDS - 1
        assert attributes["email"] == f"u{person}@x.io"
    assert len(simulator.state.people) == PEOPLE
    assert simulator.state.failures == 0
