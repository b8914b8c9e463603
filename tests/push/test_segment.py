"""Campaigns to a segment of Customer.io: read once when they begin, and the same people from then on."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from towpath.errors import TowpathError
from towpath.http import Reply, Undelivered
from towpath.outcome import Outcome, Paused, Rejected, Retry
from towpath.push.campaigns import Launch
from towpath.sandbox.customerio import DEFAULT
from towpath.sandbox.customerio_state import Person, Segment
from towpath.state.campaigns import Campaigns
from towpath.vendors.customerio import AppApi

from ..app.conftest import key_file, own_log
from ..app.support import ask, until
from .rig import ACCEPTED, BUSY, Rig
from .test_journey import YAML, begun, register

__all__ = ["key_file", "own_log"]

SEGMENT = {"account": "cio", "id": 12}
CAMPAIGNS: dict[str, Any] = {"hello": {"title": "Hello", "audience": {"segment": SEGMENT}}}


class Workspace:
    """Accounts with one workspace, whose segment has these people; None has no id."""

    def __init__(self, *people: str | None) -> None:
        self.people = people
        self.asked: list[dict[str, Any]] = []
        self.page = 2
        self.answers: list[Outcome] = []
        self.before: Callable[[], Any] = lambda: None

    def check(self, name: str) -> None:
        """Know `cio` alone."""
        if name != "cio":
            raise TowpathError(f"there is no account {name}", code="E0", fix="name another")

    async def app_api(self, name: str) -> AppApi:
        """Stand in for one endpoint of it."""
        self.check(name)
        return cast("AppApi", self)

    async def segment_members(self, segment: int, **query: Any) -> Reply:
        """A page: live ones are null or empty where there is nobody."""
        self.asked.append({"segment": segment, **query})
        told = self.before()
        if asyncio.iscoroutine(told):
            await told
        if self.answers:
            raise Undelivered(self.answers.pop(0))
        start = int(query.get("start", 0))
        some: Sequence[str | None] = self.people[start : start + self.page]
        found = [{"cio_id": f"c{at}", "email": "x@example.com", "id": one} for at, one in enumerate(some)]
        following = str(start + self.page) if start + self.page < len(self.people) else ""
        page = {"identifiers": found or None, "ids": None, "next": following}
        return Reply(200, {}, json.dumps(page).encode())


@pytest.fixture
def workspace(rig: Rig) -> Workspace:
    made = Workspace("u3", None, "u1", "u9", "", "u1")
    rig.accounts = made
    return made


async def devices(rig: Rig, *persons: str) -> None:
    for person in persons:
        await rig.device(f"d-{person}", person)


@pytest.mark.usefixtures("inline")
@pytest.mark.spec("P050")
async def test_it_goes_to_the_members_that_have_devices(rig: Rig, workspace: Workspace) -> None:
    await devices(rig, "u1", "u2", "u3")
    campaign = await rig.launch()
    row = await rig.finish(campaign)
    assert (row.state, row.members, row.enlisted) == ("done", 3, 2)
    assert rig.sender.told == {"t-d-u1": 1, "t-d-u3": 1}
    assert {one["segment"] for one in workspace.asked} == {12}
    assert [one.get("start") for one in workspace.asked] == [None, "2", "4"]
    assert rig.state.campaigns.members(campaign, "", 10) == [], "nothing is kept longer than it is needed"


@pytest.mark.usefixtures("inline")
async def test_an_empty_segment_is_nobody(rig: Rig, workspace: Workspace) -> None:
    """Not everybody; and where nobody is in it, a list is null."""
    await devices(rig, "u1")
    workspace.people = ()
    row = await rig.finish(await rig.launch())
    assert (row.state, row.members, row.enlisted, rig.sender.told) == ("done", 0, 0, {})


@pytest.mark.usefixtures("inline")
@pytest.mark.spec("D19")
async def test_who_was_read_for_a_campaign_that_was_cancelled_is_forgotten_with_it(
    rig: Rig, workspace: Workspace
) -> None:
    campaign = await rig.launch()
    workspace.before = lambda: rig.desk.cancel(campaign) if len(workspace.asked) == 3 else None
    assert (await rig.finish(campaign)).state == "cancelled"
    assert rig.state.campaigns.members(campaign, "", 10) == ["u1", "u3", "u9"]
    rig.state.campaigns.prune(rig.clock.now() + 1)
    assert rig.state.campaigns.members(campaign, "", 10) == []


@pytest.mark.usefixtures("inline")
@pytest.mark.spec("P050")
async def test_what_else_is_said_of_an_audience_holds_too(rig: Rig, workspace: Workspace) -> None:
    await devices(rig, "u1", "u2", "u3")
    campaign = await rig.launch(changes={"audience": {"persons": ["u1", "u2"]}})
    await rig.finish(campaign)
    assert rig.sender.told == {"t-d-u1": 1}


@pytest.mark.usefixtures("inline")
@pytest.mark.spec("P050", "P055")
@pytest.mark.parametrize("where", ["enlist", "begin", "end_enlisting"])
async def test_after_a_crash_it_goes_on_with_the_same_people(
    rig: Rig, workspace: Workspace, where: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Crash(BaseException):
        pass

    def crash(*_: Any) -> None:
        raise Crash

    monkeypatch.setattr("towpath.push.reach.PAGE", 1)
    await devices(rig, "u1", "u2", "u3")
    campaign = await rig.launch()
    with monkeypatch.context() as patch:
        patch.setattr(Campaigns, where, crash)
        with pytest.raises(Crash):
            await rig.work(campaign)
    asked = len(workspace.asked)
    workspace.people = ("u2",)  # it changes meanwhile
    assert (await rig.finish(campaign)).members == 3
    assert rig.sender.told == {"t-d-u1": 1, "t-d-u3": 1}
    assert len(workspace.asked) == asked


@pytest.mark.usefixtures("inline")
@pytest.mark.spec("P050", "P055")
async def test_a_segment_half_read_is_read_again(rig: Rig, workspace: Workspace) -> None:
    await devices(rig, "u1", "u2", "u3")
    campaign = await rig.launch()
    workspace.before = lambda: (
        workspace.answers.append(Retry("busy", 7.0)) if len(workspace.asked) == 2 else None
    )
    assert await rig.work(campaign) == 7.0
    assert (rig.row(campaign).members, rig.sender.told) == (None, {})
    workspace.people = ("u2",)
    assert (await rig.finish(campaign)).members == 1
    assert rig.sender.told == {"t-d-u2": 1}


@pytest.mark.usefixtures("inline")
@pytest.mark.spec("P050", "P053")
@pytest.mark.parametrize("outcome", [Rejected("segment not found", 404), Paused("the key is refused", 401)])
async def test_a_segment_that_cannot_be_read_stops_the_campaign(
    rig: Rig, workspace: Workspace, outcome: Outcome
) -> None:
    await devices(rig, "u1")
    campaign = await rig.launch()
    workspace.answers = [outcome]
    row = await rig.finish(campaign)
    assert (row.state, row.enlisted) == ("stopped", 0)
    assert "segment cio:12 cannot be read" in row.reason
    await rig.desk.resume(campaign)
    assert (await rig.finish(campaign)).state == "done"
    assert rig.sender.told == {"t-d-u1": 1}


@pytest.mark.usefixtures("inline")
@pytest.mark.spec("P050")
async def test_a_pause_ends_the_reading(rig: Rig, workspace: Workspace) -> None:
    await devices(rig, "u1")
    campaign = await rig.launch()
    workspace.before = lambda: rig.desk.pause(campaign) if len(workspace.asked) == 2 else None
    assert (await rig.finish(campaign)).state == "paused"
    assert len(workspace.asked) == 2
    await rig.desk.resume(campaign)
    assert (await rig.finish(campaign)).state == "done"
    assert rig.sender.told == {"t-d-u1": 1}


@pytest.mark.usefixtures("inline")
@pytest.mark.spec("D10")
async def test_who_is_erased_is_in_no_audience_either(rig: Rig, workspace: Workspace) -> None:
    await devices(rig, "u1", "u3")
    campaign = await rig.launch()

    async def erase() -> None:
        if len(workspace.asked) == 3:  # u3 is kept by now, u1 is and comes again
            await rig.job.let_go({"u1", "u3"})
            rig.state.campaigns.forget_people({"u1", "u3"})
            assert rig.state.campaigns.members(campaign, "", 10) == ["u9"]

    workspace.before = erase
    row = await rig.finish(campaign)
    assert (row.members, row.enlisted, rig.sender.told) == (1, 0, {})


@pytest.mark.usefixtures("inline")
@pytest.mark.spec("P057")
async def test_a_rehearsal_counts_them(rig: Rig, workspace: Workspace) -> None:
    await devices(rig, "u1", "u2", "u3")
    found = await rig.desk.rehearse(Launch("hello"))
    assert (found.devices, found.persons, found.skipped) == ({"android": 2}, 2, {"without_id": 2})
    workspace.answers = [Rejected("segment not found", 404)]
    with pytest.raises(TowpathError, match="segment cio:12 cannot be read: segment not found"):
        await rig.desk.rehearse(Launch("hello"))


@pytest.mark.usefixtures("inline")
async def test_an_account_without_segments_is_refused_at_once(rig: Rig) -> None:
    with pytest.raises(TowpathError, match="no account"):
        await rig.launch()
    rig.accounts = Workspace()
    with pytest.raises(TowpathError, match="no account other"):
        await rig.launch(changes={"audience": {"segment": {"account": "other", "id": 1}}})


@pytest.mark.usefixtures("inline")
@pytest.mark.spec("P055")
async def test_who_comes_later_is_not_meant(rig: Rig, workspace: Workspace) -> None:
    """A device that turns up between two attempts of a campaign gets nothing of it, whatever its id."""
    await devices(rig, "u1")
    campaign = await rig.launch(changes={"audience": {"segment": None}})
    rig.sender.script("t-d-u1", BUSY, ACCEPTED)
    assert await rig.work(campaign) is not None
    await rig.device("z-late", "u3")
    assert (await rig.finish(campaign)).enlisted == 1
    assert rig.sender.told == {"t-d-u1": 2}


APART = YAML.replace(
    "accounts:", 'accounts:\n  cio: {{type: customerio, app_api_key: APP_KEY, base_url: "{customerio}"}}'
)


@pytest.mark.spec("P050")
async def test_a_segment_of_a_workspace(tmp_path: Path) -> None:
    text = APART.replace("APP_KEY", DEFAULT.app_api_key)
    async with begun(tmp_path, text) as story:
        await story.say(
            register("d1", "ok-1", "ann"),
            register("d2", "ok-2", "bob"),
            register("d3", "ok-3", "carl"),
            key="wk_server",
        )
        state = story.customerio.state
        members = [story.customerio.find(id=one) for one in ("ann", "carl")]
        state.people["nameless"] = Person(cio_id="nameless", created_at=0)
        ids = {one.cio_id for one in members if one is not None} | {"nameless"}
        state.segments[12] = Segment(id=12, name="Regulars", members=ids)
        audience = {"changes": {"audience": {"segment": SEGMENT}}}
        rehearsed = await ask(
            story.file, "POST", "/push/send", {"code": "welcome", "dry_run": True, **audience}
        )
        assert (rehearsed["devices"], rehearsed["skipped"]) == ({"ios": 2}, {"without_id": 1})
        found = await story.campaign(**audience)
        assert (found["state"], found["members"], found["accepted"]) == ("done", 2, 2)
        assert story.told() == ["ok-1", "ok-3"]
        logs = f"/runs/{found['runs'][0]['run']}/logs"

        async def told() -> bool:
            return "1 more in it have no id" in json.dumps(await ask(story.file, "GET", logs))

        await until(told)
