"""Events through the loading process into a DuckDB file, as the program does it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import duckdb
import pytest

from towpath.clock import SystemClock
from towpath.destination import Scope
from towpath.http import Http
from towpath.outcome import Delivered
from towpath.testing.fakes import FakeClock, FakeMemory, FakeTransport
from towpath.warehouse import Warehouse
from towpath.warehouse.desk import Desk
from towpath.warehouse.port import PORT
from towpath.warehouse.settings import WarehouseAccount

from .warehouse_world import made, message, payload_of


class Opened:
    """The port as the program fills it."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk

    def warehouse(self, account: WarehouseAccount) -> Warehouse:
        key = account.hash_key.get_secret_value() if account.hash_key else ""
        return self._desk.warehouse(account.target, key)


@pytest.mark.spec("R056", "R051", "D10")
async def test_events_users_and_erasing_end_to_end(tmp_path: Path) -> None:
    place = tmp_path / "events.duckdb"
    desk, clock = Desk(SystemClock(), tmp_path), FakeClock()
    scope = Scope(Http(FakeTransport(), clock), clock, FakeMemory(clock), {PORT: Opened(desk)})
    destination = made(duckdb=str(place), hash=["email"], hash_key="the key of hashes")
    traits = {"email": "ada@example.com", "plan": "free"}
    told = [
        message("identify", message_id="m1", traits=traits),
        message("identify", message_id="m2", traits={"plan": "pro"}, timestamp="2026-01-03T00:00:00Z"),
        message(
            "identify", message_id="m3", traits={"plan": "old", "n": 1}, timestamp="2026-01-01T00:00:00Z"
        ),
        message(event="Paid", message_id="m4", properties={"total": 1}),
        message(event="Paid", message_id="m5", user_id="u2", properties={"total": 1.5}),
    ]
    for one in (told[:2], told[2:], told):  # the last is a batch that is delivered again
        ended = await destination.deliver_batch([payload_of(destination, each) for each in one], scope)
        assert all(isinstance(each, Delivered) for each in ended), ended
    (line,) = await destination.check(scope)
    assert line.ok
    await desk.close()
    query = "SELECT id, plan, n, length(email) FROM users"
    assert found(place, query) == [("u1", "pro", 1, 64)]
    assert found(place, "SELECT id, total FROM paid ORDER BY id") == [("m4", 1.0), ("m5", 1.5)]
    assert found(place, "SELECT count(*) FROM identifies") == [(3,)]
    erase = payload_of(destination, message("delete", trust="server"))
    assert isinstance(await destination.deliver(erase, scope), Delivered)
    await desk.close()
    assert found(place, "SELECT count(*) FROM users") == [(0,)]
    assert found(place, "SELECT user_id FROM tracks") == [("u2",)]


def found(place: Path, query: str) -> list[tuple[Any, ...]]:
    with duckdb.connect(str(place), read_only=True) as database:
        return database.execute(query).fetchall()
