"""Between two runs something changes, appears or goes: exactly that is written, table by table."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import pytest

from tests.replicate.world import NAMES, World
from towpath.sandbox import customerio_changes as changes
from towpath.testing.fakes import START

SINCE = START - 60 * 86_400
SIZES = {
    "people": 1030, "messages": 1400, "message_days": 40, "activities": 230, "campaigns": 12,
    "broadcasts": 6, "newsletters": 104, "transactional": 6, "segments": 8, "actions": 60, "senders": 104,
    "suppressions": 1003, "snippets": 6, "collections": 6, "exports": 6, "objects": 12,
}  # fmt: skip
FEW = {"newsletters": 12, "people": 60}
CHILDREN = {"newsletter_variants", "newsletter_test_groups", "newsletter_metrics", "customer_relationships"}

Act = Callable[[World], object]


def world_of(table: str) -> World:
    return World(**{**SIZES, **(FEW if table in CHILDREN else {})})


def parts(kind: str, table: str) -> Act:
    """Change the first record among the parts of the first parent."""

    def act(world: World) -> None:
        kept = getattr(world.state, kind)
        key = next(key for key in sorted(kept) if key.startswith(table) and kept[key])
        kept[key][0].update(name="changed", label="changed", updated=world.state.now())

    return act


def person(world: World) -> None:
    found = list(world.state.people.values())[7]
    world.simulator.profiles.identify(("cio_id", found.cio_id), {"plan": "changed"})


def listed(name: str, key: object = 2, **fields: object) -> Act:
    return lambda world: changes.change(world.state, name, key, **{"name": "changed", **fields})


CHANGED: Mapping[str, Act] = {
    "campaigns": listed("campaigns"),
    "campaign_actions": parts("actions", "campaigns/"),
    "broadcasts": lambda world: _first(world, "broadcasts", name="changed"),
    "broadcast_actions": parts("actions", "broadcasts/"),
    "newsletters": lambda world: _first(world, "newsletters", name="changed"),
    "newsletter_variants": parts("contents", "newsletters/"),
    "newsletter_test_groups": parts("test_groups", "newsletters/"),
    "transactional_messages": lambda world: _first(world, "transactional", name="changed"),
    "snippets": lambda world: _first(world, "snippets", value="changed"),
    "collections": lambda world: changes.rewrite_collection(
        world.state, world.state.collections[0]["id"], [{"a": 1}, {"a": 2}, {"a": 3}]
    ),
    "collection_contents": lambda world: changes.rewrite_collection(
        world.state, world.state.collections[0]["id"], [{"a": 1}, {"a": 2}, {"a": 3}]
    ),
    "subscription_topics": lambda world: world.state.topics[0].update(name="changed"),
    "sender_identities": lambda world: world.state.sender_identities[103].update(name="changed"),
    "messages": lambda world: changes.open_late(world.state, _newest_message(world)),
    "exports": lambda world: world.state.exports[0].update(downloads=9, updated_at=world.state.now()),
    "customers": person,
    "segments": lambda world: changes.change_segment(world.state, 1, name="changed"),
    "object_types": lambda world: world.state.object_types[0].update(name="changed"),
    "objects": lambda world: next(iter(world.state.objects.values())).attributes.update(name="changed"),
    "esp_suppressions": lambda world: world.state.suppressions["blocks"][0].update(reason="changed"),
    "reporting_webhooks": lambda world: world.state.reporting_webhooks[0].update(disabled=True),
}
"""What changes one record of a table."""

REMOVED: Mapping[str, Act] = {
    "campaigns": lambda world: _drop(world, "campaigns"),
    "campaign_actions": lambda world: next(iter(world.state.actions.values())).pop(),
    "broadcasts": lambda world: _drop(world, "broadcasts"),
    "newsletters": lambda world: _drop(world, "newsletters"),
    "newsletter_variants": lambda world: next(iter(world.state.contents.values())).pop(),
    "transactional_messages": lambda world: _drop(world, "transactional"),
    "snippets": lambda world: world.state.snippets.pop(),
    "collections": lambda world: _drop(world, "collections"),
    "collection_contents": lambda world: _drop(world, "collections"),
    "sender_identities": lambda world: _drop(world, "sender_identities"),
    "customers": lambda world: changes.delete_person(world.simulator, cio_id=_somebody(world)),
    "segments": lambda world: changes.delete_segment(world.state, 1),
    "segment_memberships": lambda world: world.state.segments[1].members.pop(),
    "segment_usage": lambda world: changes.delete_segment(world.state, 1),
    "objects": lambda world: world.state.objects.pop(next(iter(world.state.objects))),
    "esp_suppressions": lambda world: world.state.suppressions["blocks"].pop(),
    "ip_addresses": lambda world: world.state.ip_addresses.pop(),
}
"""What takes one record away."""


def _first(world: World, kind: str, **fields: object) -> None:
    record = getattr(world.state, kind)[0]
    record.update(fields)
    record["updated" if "updated" in record else "updated_at"] = world.state.now()


def _drop(world: World, name: str) -> None:
    getattr(world.state, name).pop(0)


def _newest_message(world: World) -> str:
    return str(max(world.state.messages, key=lambda message: message["created"])["id"])


def _somebody(world: World) -> str:
    return list(world.state.people)[3]


@pytest.mark.spec("R041", "R042")
@pytest.mark.parametrize("table", NAMES)
async def test_a_second_run_writes_nothing(table: str) -> None:
    world = world_of(table)
    first = await world.one(table, start_at=SINCE)
    await world.clock.advance(3600)
    second = await world.one(table, start_at=SINCE)
    assert (first.outcome, first.refused, second.outcome) == ("ok", 0, "ok")
    assert first.written == first.read > 0
    assert (second.written, second.gone, second.refused) == (0, 0, 0), second
    assert first.drift == {}


@pytest.mark.spec("R041", "R042")
@pytest.mark.parametrize("table", CHANGED)
async def test_a_changed_record_is_all_that_is_written(table: str) -> None:
    world = world_of(table)
    await world.one(table, start_at=SINCE)
    await world.clock.advance(3600)
    CHANGED[table](world)
    report = await world.one(table, start_at=SINCE)
    assert (report.outcome, report.written, report.gone) == ("ok", 1, 0)


@pytest.mark.spec("R042")
@pytest.mark.parametrize("table", REMOVED)
async def test_a_record_that_is_gone_is_marked(table: str) -> None:
    world = world_of(table)
    first = await world.one(table, start_at=SINCE)
    REMOVED[table](world)
    report = await world.one(table, start_at=SINCE, guard=0.5)
    assert (report.outcome, report.gone, report.rows) == ("ok", 1, first.written)
    assert len(world.warehouse.table(table, gone=True)) == 1


@pytest.mark.spec("R018")
async def test_exports_that_the_vendor_drops_stay() -> None:
    world = world_of("exports")
    await world.one("exports")
    world.state.exports.clear()
    report = await world.one("exports")
    assert (report.outcome, report.gone) == ("ok", 0)
    assert len(world.warehouse.table("exports")) == SIZES["exports"]


@pytest.mark.spec("R041")
async def test_a_record_that_is_new_is_all_that_is_written() -> None:
    world = world_of("activities")
    await world.one("activities")
    await world.clock.advance(7200)
    changes.tell(world.state, at=[world.clock.now() - 60, world.clock.now() - 30])
    report = await world.one("activities")
    assert (report.written, report.requests) == (2, 2)


@pytest.mark.spec("R026")
async def test_workspaces_have_a_row_per_day() -> None:
    world = world_of("workspace_days")
    await world.run("workspace_days", "segment_days")
    await world.clock.advance(86_400)
    report = await world.run("workspace_days", "segment_days")
    assert [one.written for one in report.tables] == [1, len(world.state.segments) - 1]
    assert {row["day"] for row in world.warehouse.table("workspace_days")} == {"2025-10-09", "2025-10-10"}
