"""Before a run and after it: what it will take, whether a key suffices, whether the counts fit."""

from __future__ import annotations

import pytest

from tests.replicate.world import NAMES, World, asked
from towpath.replicate.check import check
from towpath.replicate.plan import Plan, plan
from towpath.replicate.reconcile import compared, reconcile

FEW = {
    "people": 1030,
    "messages": 2300,
    "activities": 50,
    "newsletters": 5,
    "senders": 20,
    "suppressions": 20,
}


@pytest.fixture
def world() -> World:
    return World(**FEW)


async def planned(world: World, *tables: str, **options: object) -> Plan:
    world.wire.asked.clear()
    work = plan(world.api, world.warehouse, asked(tables, **options), clock=world.clock)
    return await world.clock.drive(work)


@pytest.mark.spec("R046")
async def test_a_plan_comes_near_to_what_a_run_takes(world: World) -> None:
    plan = await planned(world, "customers", "messages", "campaign_actions")
    assert len(world.wire.asked) == 2
    report = await world.run("customers", "messages", "campaign_actions")
    assert plan.requests == pytest.approx(report.requests, rel=0.1)
    assert plan.seconds == pytest.approx(plan.requests / 9.5)
    assert {one.table: one.rows for one in plan.tables if one.rows} == {"customers": 1030, "messages": 2300}


@pytest.mark.spec("R046")
async def test_a_plan_goes_by_the_last_run(world: World) -> None:
    report = await world.run("sender_identities", "segment_memberships")
    plan = await planned(world, "sender_identities", "segment_memberships")
    assert [one.basis for one in plan.tables] == ["last run", "last run"]
    assert [one.requests for one in plan.tables] == [one.requests for one in report.tables]
    assert [one.rows for one in plan.tables] == [one.read for one in report.tables]


@pytest.mark.spec("R046", "R053")
async def test_people_are_planned_by_search_or_by_export(world: World) -> None:
    million = {"id": 1, "people": 1_000_000, "objects": 0, "messages_sent": 0}
    world.state.workspaces = [million]
    searched = await planned(world, "customers", people="search")
    assert (searched.requests, searched.by) == (11_000, "search")
    assert 18 * 60 < searched.seconds < 20 * 60
    exported = await planned(world, "customers", people="auto")
    assert exported.by == "export"
    assert exported.requests < 150


@pytest.mark.spec("R046")
async def test_without_the_right_to_count_a_plan_is_what_is_certain(world: World) -> None:
    world.state.forbidden.add("/v1/workspaces")
    world.state.forbidden.add("/v1/campaigns")
    plan = await planned(world, "customers", "campaigns", "campaign_actions")
    assert [one.requests for one in plan.tables] == [1, 1, 0]


@pytest.mark.spec("R005")
async def test_rights_are_checked_table_by_table(world: World) -> None:
    world.state.forbidden |= {"/v1/exports", "/v1/campaigns"}
    lines = await world.clock.drive(check(world.api, NAMES, clock=world.clock))
    bad = {line.name: line.detail for line in lines if not line.ok}
    assert {"exports", "campaigns"} <= set(bad)
    assert "this key may not read exports" in bad["exports"]
    assert {line.name for line in lines} == set(NAMES)
    assert all(line.reached for line in lines)
    assert len(world.wire.asked) < 60


@pytest.mark.spec("R052")
async def test_counts_are_compared(world: World) -> None:
    tables = ("customers", "segment_memberships", "segments")
    await world.run(*tables)
    work = reconcile(world.api, world.warehouse, asked(tables), clock=world.clock)
    found = await world.clock.drive(work)
    assert [(one.table, one.good, one.rows == one.counted) for one in found] == [
        ("customers", True, True),
        ("segment_memberships", True, True),
    ]


@pytest.mark.spec("R052")
@pytest.mark.parametrize(
    ("rows", "counted", "good"),
    [
        (100, 100, True),
        (90, 100, True),
        (89, 100, False),
        (9800, 10_000, True),
        (9700, 10_000, False),
        (5, None, True),
    ],
)
def test_a_difference_is_judged(rows: int, counted: int | None, good: bool) -> None:
    found = compared("customers", rows, counted, "workspaces.people")
    assert found.good is good
    assert str(rows) in found.words
