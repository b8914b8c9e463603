"""What goes wrong: refused keys, vendors in trouble, odd answers, vanished parents, too much gone at once."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import msgspec
import pytest

from tests.replicate.world import Cut, World, asked
from towpath.http import Reply, Request, Stopping
from towpath.replicate import gathering
from towpath.replicate.extract import replicate
from towpath.testing.fakes import START
from towpath.warehouse import Lost

FEW = {
    "people": 40, "messages": 60, "message_days": 20, "activities": 230, "campaigns": 6, "broadcasts": 3,
    "newsletters": 7, "segments": 8, "actions": 55, "senders": 104, "suppressions": 1003, "objects": 4,
}  # fmt: skip
SINCE = START - 30 * 86_400


@pytest.fixture
def world() -> World:
    return World(**FEW)


def answering(*replies: Reply | None) -> Callable[[Request], Reply | None]:
    """Answer the first requests so, None as the simulator does."""
    left = list(replies)
    return lambda request: left.pop(0) if left else None


def json(body: Any, status: int = 200) -> Reply:
    return Reply(status, {"content-type": "application/json"}, msgspec.json.encode(body))


@pytest.mark.spec("R005")
async def test_a_table_that_the_key_may_not_read_does_not_stop_the_others(world: World) -> None:
    world.state.forbidden.add("/v1/exports")
    report = await world.run("exports", "campaigns", "campaign_actions")
    found = {one.table: one for one in report.tables}
    assert [one.outcome for one in report.tables] == ["refused", "ok", "ok"]
    assert "may not read exports" in found["exports"].reason
    assert not report.good
    world.state.forbidden.clear()
    assert (await world.one("exports")).outcome == "ok"


@pytest.mark.spec("R005")
async def test_below_a_parent_that_may_not_be_read_nothing_is_marked(world: World) -> None:
    await world.run("campaigns", "campaign_actions")
    world.state.forbidden.add("/v1/campaigns")
    report = await world.run("campaigns", "campaign_actions")
    assert [one.outcome for one in report.tables] == ["refused", "refused"]
    assert not world.warehouse.table("campaigns", gone=True)
    assert not world.warehouse.table("campaign_actions", gone=True)


@pytest.mark.spec("R045", "R047")
@pytest.mark.parametrize(
    "trouble",
    [
        Reply(500, {}, b"oops"),
        Reply(429, {"retry-after": "7"}, b'{"errors":[{"detail":"rate limited","status":"429"}]}'),
        Reply(429, {}, b'{"errors":[{"detail":"rate limited","status":"429"}]}'),
        Reply(200, {"content-type": "text/html"}, b"<html>a proxy's page</html>"),
        Reply(200, {}, b'{"campaigns": [{"id": 1'),
    ],
    ids=["500", "429 with a wish", "429 without", "a proxy's page", "truncated"],
)
async def test_what_may_pass_is_asked_again(world: World, trouble: Reply) -> None:
    world.wire.instead = answering(trouble, trouble)
    report = await world.one("campaigns")
    assert (report.outcome, report.read, report.requests) == ("ok", 6, 1)
    assert len(world.wire.asked) == 3


@pytest.mark.spec("R042", "R045")
async def test_what_does_not_pass_fails_the_table_and_marks_nothing(world: World) -> None:
    await world.one("sender_identities")
    world.wire.instead = lambda request: Reply(503, {}, b"") if "hidden=true" in request.url else None
    report = await world.one("sender_identities")
    assert (report.outcome, report.gone) == ("failed", 0)
    assert "503" in report.reason
    world.wire.instead = answering()
    again = await world.one("sender_identities")
    assert (again.outcome, again.resumed, again.gone, again.requests) == ("ok", True, 0, 3)


async def test_a_vendor_who_asks_to_wait_for_an_hour_ends_the_table(world: World) -> None:
    world.wire.instead = lambda request: Reply(503, {"retry-after": "3600"}, b"")
    report = await world.one("campaigns")
    assert (report.outcome, len(world.wire.asked)) == ("failed", 1)
    assert "3600 s" in report.reason


@pytest.mark.spec("R047")
@pytest.mark.parametrize(
    ("body", "outcome", "read"),
    [
        ({"sender_identities": None, "next": ""}, "ok", 0),
        ({"sender_identities": []}, "ok", 0),
        ({"sender_identities": [], "next": "more"}, "ok", 0),
        ({"other": []}, "failed", 0),
        ({"sender_identities": {"id": 1}}, "failed", 0),
    ],
)
async def test_empty_lists_and_no_lists(world: World, body: Any, outcome: str, read: int) -> None:
    world.wire.instead = lambda request: json(body)
    report = await world.one("sender_identities")
    assert (report.outcome, report.read) == (outcome, read)


@pytest.mark.spec("R047")
async def test_an_empty_page_that_names_a_next_is_not_the_end_of_a_list(world: World) -> None:
    world.wire.instead = answering(
        json({"newsletters": [], "next": "a"}),
        json({"newsletters": None, "next": "b"}),
        json({"newsletters": [{"id": 1}]}),
    )
    report = await world.one("newsletters")
    assert (report.outcome, report.requests, report.read) == ("ok", 3, 1)
    assert [one.url.rpartition("start=")[2] for one in world.wire.asked[1:]] == ["a", "b"]


@pytest.mark.spec("R047")
async def test_a_page_that_names_one_before_it_ends_the_table(world: World) -> None:
    world.wire.instead = answering(
        *(json({"newsletters": [{"id": number}], "next": token}) for number, token in enumerate("aba"))
    )
    report = await world.one("newsletters")
    assert report.outcome == "failed"
    assert "named before" in report.reason


@pytest.mark.spec("R047")
async def test_tags_and_ids_that_are_odd_are_kept(world: World) -> None:
    world.state.campaigns[0]["tags"] = "nil"
    await world.run("campaigns", "segment_memberships", "campaign_actions")
    assert any(row["tags"] == "nil" for row in world.warehouse.table("campaigns"))
    members = world.warehouse.table("segment_memberships")
    assert any(row["id"] is None for row in members)
    assert all(isinstance(row["id"], str) for row in world.warehouse.table("campaign_actions"))


@pytest.mark.spec("R031", "R047")
async def test_a_parent_that_is_gone_meanwhile_is_passed_over(world: World) -> None:
    await world.one("campaign_actions")
    had = {row["campaign_id"] for row in world.warehouse.table("campaign_actions")}
    gone = min(had)
    path = f"/campaigns/{gone}/actions"
    world.wire.instead = lambda request: json({"errors": []}, 404) if path in request.url else None
    report = await world.one("campaign_actions", guard=1.0)
    assert (report.outcome, report.notes) == ("ok", ())
    assert {row["campaign_id"] for row in world.warehouse.table("campaign_actions")} == had - {gone}


@pytest.mark.spec("R042")
async def test_rows_below_a_parent_that_is_refused_stay(world: World) -> None:
    first = await world.one("campaign_actions")
    path = "/campaigns/1/actions"
    world.wire.instead = lambda request: json({"errors": []}, 422) if path in request.url else None
    report = await world.one("campaign_actions")
    assert (report.outcome, report.gone) == ("ok", 0)
    assert "1 was not read" in report.notes[0]
    assert len(world.warehouse.table("campaign_actions")) == first.read


@pytest.mark.spec("R033", "R042")
async def test_members_of_a_segment_that_is_being_built_stay(world: World) -> None:
    await world.one("segment_memberships")
    before = len(world.warehouse.table("segment_memberships"))
    segment = world.state.segments[1]
    segment.state, segment.members = "build", set()
    report = await world.one("segment_memberships")
    assert (report.outcome, report.gone) == ("ok", 0)
    assert len(world.warehouse.table("segment_memberships")) == before
    segment.state = "finished"
    report = await world.one("segment_memberships", guard=1.0)
    assert report.gone > 0


@pytest.mark.spec("R043")
async def test_when_too_much_is_gone_a_person_is_asked(world: World) -> None:
    await world.one("campaigns")
    del world.state.campaigns[:3]
    report = await world.one("campaigns")
    assert (report.outcome, report.gone, report.rows) == ("held", 3, 6)
    assert "none was marked" in report.reason
    assert len(world.warehouse.table("campaigns")) == 6
    report = await world.one("campaigns", approved=("campaigns",))
    assert (report.outcome, report.gone) == ("ok", 3)
    assert len(world.warehouse.table("campaigns")) == 3


@pytest.mark.spec("R043")
async def test_a_held_table_is_read_again_by_the_next_run(world: World) -> None:
    await world.one("campaigns")
    kept, world.state.campaigns[:] = list(world.state.campaigns), []
    assert (await world.one("campaigns")).outcome == "held"
    world.state.campaigns[:] = kept
    report = await world.one("campaigns")
    assert (report.outcome, report.gone, report.resumed) == ("ok", 0, False)


@pytest.mark.spec("R033", "R043")
async def test_what_was_below_a_parent_goes_with_it(world: World) -> None:
    await world.run("segments", "segment_memberships")
    before = len(world.warehouse.table("segment_memberships"))
    large = max(world.state.segments.values(), key=lambda segment: len(segment.members))
    del world.state.segments[large.id]
    report = await world.one("segment_memberships")
    assert (report.outcome, report.gone) == ("ok", before - len(world.warehouse.table("segment_memberships")))
    assert report.gone > 0.2 * before
    assert (await world.one("segment_memberships")).gone == 0


@pytest.mark.spec("R033", "R043")
async def test_below_too_many_lost_parents_nothing_goes(world: World) -> None:
    await world.one("segment_memberships")
    before = len(world.warehouse.table("segment_memberships"))
    kept = dict(world.state.segments)
    for number in list(kept)[1:]:
        del world.state.segments[number]
    report = await world.one("segment_memberships")
    assert report.outcome == "held"
    assert "parents are gone" in report.reason
    assert len(world.warehouse.table("segment_memberships")) == before
    world.state.segments.update(kept)
    assert (await world.one("segment_memberships")).outcome == "ok"
    for number in list(kept)[1:]:
        del world.state.segments[number]
    assert (await world.one("segment_memberships", approved=("segment_memberships",))).outcome == "ok"
    assert len(world.warehouse.table("segment_memberships")) < before


@pytest.mark.spec("R042")
async def test_records_that_are_no_rows_are_no_sign_that_rows_are_gone(world: World) -> None:
    await world.one("campaigns")
    for campaign in world.state.campaigns:
        campaign["number"] = campaign.pop("id")
    for _ in range(2):
        report = await world.one("campaigns", approved=("campaigns",))
        assert (report.outcome, report.refused, report.gone) == ("failed", 6, 0)
        assert "_towpath_refused" in report.reason
    for campaign in world.state.campaigns[1:]:
        campaign["id"] = campaign["number"]
    report = await world.one("campaigns")
    assert (report.outcome, report.refused) == ("ok", 1)
    assert "1 records are no rows" in report.notes[0]


async def test_what_nobody_foresaw_fails_one_table(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(_records: bytes, _key: str) -> bytes:
        raise KeyError("surprise")

    monkeypatch.setattr("towpath.replicate.reading_lists._without_credentials", broken)
    report = await world.run("reporting_webhooks", "esp_suppressions")
    assert [one.outcome for one in report.tables] == ["failed", "ok"]
    assert "KeyError: 'surprise'" in report.tables[0].reason


@pytest.mark.spec("R044")
async def test_a_page_that_is_no_longer_known_begins_its_chain_anew(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gathering, "ROWS", 1)
    world.wire.cut_after = 3
    with pytest.raises(Cut):
        await world.one("sender_identities")
    world.wire.cut_after = None
    refused = 0

    def refuse(request: Request) -> Reply | None:
        nonlocal refused
        first, refused = refused == 0 and "start=" in request.url, refused + ("start=" in request.url)
        return json({"errors": [{"detail": "start is not a valid page"}]}, 400) if first else None

    world.wire.instead = refuse
    report = await world.one("sender_identities")
    assert (report.outcome, report.gone) == ("ok", 0)
    assert len(world.warehouse.table("sender_identities")) == len(world.state.sender_identities)


@pytest.mark.spec("R044")
async def test_a_run_that_was_cut_off_days_ago_is_begun_anew(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gathering, "ROWS", 1)
    world.wire.cut_after = 3
    with pytest.raises(Cut):
        await world.one("sender_identities")
    world.wire.cut_after = None
    await world.clock.advance(3 * 86_400)
    report = await world.one("sender_identities")
    assert (report.outcome, report.resumed, report.gone) == ("ok", False, 0)


@pytest.mark.spec("R044")
async def test_tables_that_ended_well_are_passed_over_by_the_same_run_only(world: World) -> None:
    world.state.forbidden.add("/v1/exports")
    await world.run("campaigns", run="7")
    world.wire.cut_after = 4
    with pytest.raises(Cut):
        await world.run("campaigns", "campaign_actions", run="8")
    world.wire.cut_after = None
    report = await world.run("campaigns", "campaign_actions", run="8")
    assert report.passed == ("campaigns",)
    assert not any(one.url.endswith("/v1/campaigns") for one in world.wire.asked)
    assert (await world.run("campaigns", run="9")).passed == ()


@pytest.mark.spec("R044")
async def test_a_warehouse_that_is_lost_is_gone_on_with(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gathering, "ROWS", 1)
    tables = ("campaigns", "campaign_actions", "messages", "sender_identities", "activities")
    for writes in range(1, 26, 3):
        world.warehouse.lose_after = writes
        with pytest.raises(Lost):
            await world.run(*tables, start_at=SINCE)
        world.warehouse.lose_after = None
        assert (await world.run(*tables, start_at=SINCE)).good
        assert len(world.warehouse.table("sender_identities")) == len(world.state.sender_identities)
        world.warehouse.__init__()  # type: ignore[misc]


@pytest.mark.spec("R044")
async def test_a_stop_of_the_program_passes_through(world: World) -> None:
    def stop(request: Request) -> Reply | None:
        raise Stopping

    world.wire.instead = stop
    with pytest.raises(Stopping):
        await world.run("campaigns", "messages")


async def test_a_cancelled_run_leaves_no_task_behind(world: World) -> None:
    world.wire.latency_s = 5.0
    work = replicate(world.api, world.warehouse, asked(()), clock=world.clock)
    task = asyncio.create_task(work)
    await asyncio.sleep(0.01)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert asyncio.all_tasks() == {asyncio.current_task()}
