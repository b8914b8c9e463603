"""Where runs begin and how far they look back: start dates, tiers, late metrics, gaps, backfills."""

from __future__ import annotations

from itertools import pairwise
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest

from tests.replicate.world import World, asked
from towpath.replicate.extract import backfill
from towpath.replicate.opening import due
from towpath.replicate.reading import Wanted
from towpath.replicate.report import DAY_S, Report, Tier
from towpath.replicate.state import encoded, reset, standings, with_cursor
from towpath.replicate.table_deliveries import LATE
from towpath.replicate.tables import REPLICATED
from towpath.sandbox import customerio_changes as changes
from towpath.testing.fakes import START

FEW = {
    "people": 30, "messages": 600, "message_days": 400, "activities": 150, "activity_days": 20,
    "campaigns": 6, "broadcasts": 2, "newsletters": 4, "segments": 4, "actions": 20, "senders": 4,
    "suppressions": 4, "objects": 2,
}  # fmt: skip


@pytest.fixture
def world() -> World:
    return World(**FEW)


def windows(world: World) -> list[tuple[int, int]]:
    """The windows that were asked for, in order of time."""
    queries = [parse_qs(urlsplit(one.url).query) for one in world.wire.asked if "/v1/messages" in one.url]
    return sorted({(int(one["start_ts"][0]), int(one["end_ts"][0])) for one in queries})


async def backfilled(world: World, table: str, since: float, until: float, **options: Any) -> Report:
    world.wire.asked.clear()
    work = backfill(
        world.api, world.warehouse, asked((table,), **options), table, since, until, clock=world.clock
    )
    return await world.clock.drive(work)


@pytest.mark.spec("R017")
async def test_messages_of_more_than_six_months_are_all_read(world: World) -> None:
    report = await world.one("messages")
    assert report.read == len(world.state.messages)
    oldest = min(message["created"] for message in world.state.messages)
    assert oldest < START - 300 * DAY_S
    found = windows(world)
    assert all(last - first < 30 * DAY_S for first, last in found)
    assert all(before[1] + 1 == after[0] for before, after in pairwise(found))


@pytest.mark.spec("R002", "R017")
async def test_a_start_date_bounds_the_windows(world: World) -> None:
    since = START - 100 * DAY_S
    report = await world.one("messages", start_at=since)
    assert report.read == sum(message["created"] >= since for message in world.state.messages)
    assert windows(world)[0][0] == since


@pytest.mark.spec("R002")
async def test_a_start_date_bounds_the_cursor_of_a_list_and_may_differ_per_table(world: World) -> None:
    world.state.campaigns[0]["updated"] = int(START - 900 * DAY_S)
    report = await world.one("campaigns", start_at=START - 800 * DAY_S)
    assert (report.passed, report.written, report.gone) == (1, 5, 0)
    report = await world.one("campaigns", start_at=START - 800 * DAY_S, since=0.0)
    assert report.written == 1
    report = await world.one("broadcasts", start_at=START, starts={"broadcasts": 0.0})
    assert report.passed == 0


@pytest.mark.spec("R017")
async def test_messages_look_back_two_days_thirty_and_half_a_year(world: World) -> None:
    await world.one("messages")
    spans = []
    for hours in (1, 24, 1, 6 * 24, 1, 24):
        await world.clock.advance(hours * 3600)
        report = await world.one("messages")
        spans.append(round((START - windows(world)[0][0]) / DAY_S))
        assert report.outcome == "ok"
    assert spans == [2, 30, 2, 180, 2, 30]


@pytest.mark.spec("R017")
async def test_what_comes_of_a_message_later_is_written_later(world: World) -> None:
    await world.one("messages")
    old = next(
        one for one in world.state.messages if START - 20 * DAY_S < one["created"] < START - 10 * DAY_S
    )
    changes.open_late(world.state, old["id"])
    await world.clock.advance(3600)
    assert (await world.one("messages")).written == 0
    await world.clock.advance(DAY_S)
    assert (await world.one("messages")).written == 1
    (row,) = [one for one in world.warehouse.table("messages") if one["id"] == old["id"]]
    assert "opened" in row["metrics"]


@pytest.mark.spec("R017")
async def test_a_message_of_a_person_deleted_is_forgotten_here_too(world: World) -> None:
    await world.one("messages")
    message = max(world.state.messages, key=lambda one: one["created"])
    cio_id = message["customer_identifiers"]["cio_id"]
    changes.delete_person(world.simulator, cio_id=cio_id)
    await world.one("messages", look_back={"messages": (Tier(500 * DAY_S),)})
    rows = [one for one in world.warehouse.table("messages") if one["cio_id"] == cio_id]
    assert rows
    assert all(row["forgotten"] and row["email"] is None for row in rows)


@pytest.mark.parametrize(
    ("read_at", "back_s"),
    [
        ({}, 180 * DAY_S),
        ({"172800": START, "2592000": START, "15552000": START}, 2 * DAY_S),
        ({"2592000": START - DAY_S, "15552000": START}, 30 * DAY_S),
        ({"2592000": START, "15552000": START - 7 * DAY_S}, 180 * DAY_S),
    ],
)
def test_the_longest_look_back_that_is_due(read_at: dict[str, float], back_s: float) -> None:
    assert due(LATE, read_at, START) == back_s


@pytest.mark.spec("R017")
@pytest.mark.parametrize("days", [0.01, 2, 30, 3000])
def test_windows_cover_every_second_once(days: float) -> None:
    since = START - days * DAY_S
    chains = REPLICATED["messages"].reading.chains(Wanted(until=START, since=since))
    found = sorted((one.query["start_ts"], one.query["end_ts"]) for one in chains)
    assert (found[0][0], found[-1][1]) == (int(since), START)
    assert all(before[1] + 1 == after[0] for before, after in pairwise(found))
    assert all(last - first < 30 * DAY_S for first, last in found)
    assert len(found) >= 8 or days < 1


@pytest.mark.spec("R041")
async def test_a_record_of_the_future_is_no_cursor(world: World) -> None:
    world.state.campaigns[0]["updated"] = int(START + 900 * DAY_S)
    report = await world.one("campaigns")
    assert report.cursor is not None
    assert report.cursor <= START
    await world.clock.advance(DAY_S)
    changes.change(world.state, "campaigns", world.state.campaigns[1]["id"], name="changed")
    assert (await world.one("campaigns")).written == 1


@pytest.mark.spec("R041")
async def test_a_change_made_while_pages_are_read_is_not_missed() -> None:
    world = World(**{**FEW, "newsletters": 104})
    await world.one("newsletters")
    await world.clock.advance(10 * DAY_S)
    world.wire.latency_s = 4000.0
    early, late = world.state.newsletters[0], world.state.newsletters[103]

    def meanwhile(request: Any) -> None:
        if "start=" in request.url:  # the first page is read: what it had changes, and then what comes
            early.update(name="changed early", updated=int(world.clock.now()) - 3900)
            late.update(name="changed late", updated=int(world.clock.now()))

    world.wire.instead = meanwhile
    assert (await world.one("newsletters")).written == 1
    world.wire.instead = lambda request: None
    assert (await world.one("newsletters")).written == 1


@pytest.mark.spec("R019")
async def test_activities_are_read_back_to_what_is_known(world: World) -> None:
    assert (await world.one("activities")).read == 150
    await world.clock.advance(2 * DAY_S)
    now = world.clock.now()
    changes.tell(world.state, at=[now - second for second in range(120)])
    changes.tell(world.state, at=[now + 900 * DAY_S])
    report = await world.one("activities")
    assert (report.written, report.requests, report.notes) == (121, 3, ())
    assert report.cursor is not None
    assert report.cursor <= world.clock.now()
    assert len(world.warehouse.table("activities")) == 271


@pytest.mark.spec("R019")
async def test_a_gap_that_the_vendor_cannot_fill_is_said(world: World) -> None:
    report = await world.one("activities", start_at=START - 90 * DAY_S)
    assert "may be missing" in report.notes[0]
    assert (await world.one("activities")).notes == ()
    await world.clock.advance(40 * DAY_S)
    changes.tell(world.state, at=[world.clock.now()])
    report = await world.one("activities")
    assert "may be missing: Customer.io keeps about 30 days" in report.notes[0]


@pytest.mark.spec("R050")
async def test_a_backfill_reads_a_span_and_moves_nothing(world: World) -> None:
    await world.one("messages")
    before = dict(world.warehouse.states)
    first, last = START - 200 * DAY_S, START - 100 * DAY_S
    world.warehouse.rows.clear()
    report = await backfilled(world, "messages", first, last)
    inside = sum(first <= message["created"] <= last for message in world.state.messages)
    assert report.tables[0].read == inside > 0
    assert (windows(world)[0][0], windows(world)[-1][1]) == (first, last)
    assert world.warehouse.states == before


@pytest.mark.spec("R050")
async def test_a_backfill_of_a_list_marks_nothing(world: World) -> None:
    await world.one("campaigns")
    world.state.campaigns.sort(key=lambda campaign: campaign["updated"])
    world.state.campaigns[0]["name"] = "changed, but updated stands"
    del world.state.campaigns[1:4]
    assert (await world.one("campaigns", guard=0.1)).written == 0
    report = await backfilled(world, "campaigns", 0.0, START)
    assert (report.tables[0].written, report.tables[0].gone) == (1, 0)
    assert len(world.warehouse.table("campaigns")) == 6


@pytest.mark.spec("R050")
async def test_the_state_is_shown_set_and_forgotten(world: World) -> None:
    await world.run("campaigns", "messages")
    state = await world.warehouse.state("cio/main/")
    shown = {one.table: one for one in standings(state, "cio", "main")}
    assert shown["campaigns"].last is not None
    assert (shown["campaigns"].last.rows, shown["campaigns"].open_run) == (6, "")
    await world.warehouse.keep(with_cursor("cio", "main", "messages", START - 50 * DAY_S))
    await world.one("messages", look_back={"messages": (Tier(DAY_S),)})
    assert windows(world)[0][0] == START - 51 * DAY_S
    await reset(world.warehouse, "cio", "main", ["messages"])
    assert not await world.warehouse.state("cio/main/messages/")
    assert await world.warehouse.state("cio/main/campaigns/")
    assert (await world.one("messages")).read == 600


async def test_a_cursor_that_lies_in_the_future_hides_nothing(world: World) -> None:
    await world.warehouse.keep({"cio/main/messages/cursor": encoded(START + 900 * DAY_S)})
    report = await world.one("messages")
    assert report.read > 0
    assert report.cursor is not None
    assert report.cursor <= START
