"""A run that is cut off at any request goes on: exact rows, and no page that was loaded is read again."""

from __future__ import annotations

import pytest

from tests.replicate.fake_warehouse import FakeWarehouse
from tests.replicate.world import NAMES, Cut, World
from towpath.replicate import gathering, objects, people
from towpath.testing.fakes import START

SMALL = {
    "people": 50, "messages": 260, "message_days": 100, "activities": 230, "campaigns": 3, "broadcasts": 2,
    "newsletters": 4, "transactional": 2, "segments": 4, "actions": 55, "senders": 104, "suppressions": 1003,
    "objects": 5,
}  # fmt: skip
SIZES = {
    "customers": {"people": 130},
    "newsletters": {"newsletters": 104},
    "messages": {"messages": 1200, "message_days": 14},
}
SINCE = START - 120 * 86_400
ASKED_AGAIN = {
    "customers": 18,
    "messages": 16,
    "objects": 16,
    "object_relationships": 16,
    "customer_relationships": 45,
}
"""Requests that belong to one page of a search, or were under way with it."""

Rows = dict[tuple[str, str], list[str]]


@pytest.fixture(autouse=True)
def page_by_page(monkeypatch: pytest.MonkeyPatch) -> None:
    """Load every page at once, so that there is a checkpoint after each; and let few people be many pages."""
    monkeypatch.setattr(gathering, "ROWS", 1)
    monkeypatch.setattr(people, "SEARCH_LIMIT", 40)
    monkeypatch.setattr(people, "BATCH", 10)
    monkeypatch.setattr(objects, "SEARCH_LIMIT", 12)


def contents(warehouse: FakeWarehouse) -> Rows:
    """Rows by table, without what tells the run."""
    return {
        table: sorted(repr({**row, "_run_id": ""}) for row in rows.values())
        for table, rows in warehouse.rows.items()
    }


def loaded(world: World) -> set[tuple[str, str, bytes]]:
    """The requests whose records are in the warehouse."""
    pages = [page.records for load in world.warehouse.loads for page in load.pages]
    found = zip(world.wire.asked, world.wire.answers, strict=False)
    return {
        (asked.method, asked.url, asked.body)
        for asked, answer in found
        if any(page in answer.body for page in pages)
    }


async def cut_off(world: World, table: str, requests: int) -> bool:
    """Replicate until so many requests are answered; whether it was cut off before its end."""
    world.wire.cut_after = requests
    try:
        await world.one(table, start_at=SINCE)
    except Cut:
        return True
    finally:
        world.wire.cut_after = None
    return False


@pytest.mark.spec("R042", "R044")
@pytest.mark.parametrize("table", NAMES)
async def test_a_run_cut_off_at_any_request_goes_on(table: str) -> None:
    world = World(**{**SMALL, **SIZES.get(table, {})})
    whole = await world.one(table, start_at=SINCE)
    expected, requests = contents(world.warehouse), whole.requests
    assert whole.outcome == "ok"
    for cut in range(0, requests, 1 + requests // 40):
        world.warehouse = FakeWarehouse()
        assert await cut_off(world, table, cut)
        done = loaded(world)
        again = await world.one(table, start_at=SINCE)
        assert again.outcome == "ok"
        assert contents(world.warehouse) == expected
        repeated = {(one.method, one.url, one.body) for one in world.wire.asked} & done
        assert not repeated
        assert again.requests <= requests - cut + ASKED_AGAIN.get(table, 4)
        assert (await world.one(table, start_at=SINCE)).written == 0
