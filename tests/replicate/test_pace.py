"""How a run uses the API's allowance: answers on their way cost no time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest

from tests.replicate.world import World
from towpath.budget import Budget
from towpath.http import Reply, Request
from towpath.replicate.course import together
from towpath.replicate.gate import Gate
from towpath.testing.fakes import START, FakeClock

SINCE = START - 30 * 86_400
FEW = {"people": 100, "messages": 0, "activities": 0, "campaigns": 5, "broadcasts": 2, "newsletters": 40,
       "senders": 20, "segments": 5, "objects": 3}  # fmt: skip
LISTS = (
    "campaigns",
    "campaign_actions",
    "newsletters",
    "newsletter_variants",
    "segments",
    "sender_identities",
)
PER_S = 10.0


def long_lists(messages: int, activities: int) -> Callable[[Request], Reply | None]:
    """Answer with so many pages of messages in all, as many in every second, and of activities."""

    def answer(request: Request) -> Reply | None:
        parts = urlsplit(request.url)
        query = {name: values[0] for name, values in parse_qs(parts.query).items()}
        if parts.path not in ("/v1/messages", "/v1/activities"):
            return None
        number = int(query.get("start", 1))
        if parts.path == "/v1/messages":
            share = (int(query["end_ts"]) - int(query["start_ts"]) + 1) / (START - SINCE)
            return page("messages", number, round(messages * share), created=int(query["start_ts"]))
        return page("activities", number, activities, timestamp=START)

    return answer


def page(name: str, number: int, pages: int, **fields: float) -> Reply:
    record = {"id": f"{name}-{number}", **fields}
    following = str(number + 1) if number < pages else ""
    return Reply(200, {}, msgspec.json.encode({name: [record], "next": following}))


@pytest.mark.spec("R045", "R054")
@pytest.mark.parametrize(
    ("tables", "people", "messages", "activities"),
    [
        (("messages",), 0, 160, 0),
        (("messages", "activities"), 0, 130, 35),
        (("customers",), 2000, 0, 0),
        (("customers", "messages", "activities", *LISTS), 500, 60, 25),
    ],
    ids=["messages", "with activities", "people", "all"],
)
async def test_answers_of_300_ms_leave_little_of_the_allowance_unused(
    tables: tuple[str, ...], people: int, messages: int, activities: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("towpath.replicate.people.SEARCH_LIMIT", 100)
    monkeypatch.setattr("towpath.replicate.people.BATCH", 10)
    world = World(per_s=PER_S, **{**FEW, "people": people or 10})
    world.wire.latency_s = 0.3
    world.wire.instead = long_lists(messages, activities)
    report = await world.run(*tables, start_at=SINCE)
    assert report.good
    assert report.requests > 100
    assert report.requests / (report.ended_at - report.started_at) >= 0.9 * PER_S


async def test_what_can_be_asked_little_at_a_time_goes_first() -> None:
    clock = FakeClock()
    gate, order = Gate(clock, 1), list[int]()

    async def ask(rank: int) -> None:
        async with gate.through(rank):
            order.append(rank)
            await clock.sleep(0.1)

    await clock.drive(together(ask(rank) for rank in (5, 4, 1, 3, 2)))
    assert order == [5, 1, 2, 3, 4]


@pytest.mark.parametrize(("answer_s", "busiest"), [(0.05, 3), (0.3, 4), (0.7, 8), (5.0, 8)])
async def test_places_follow_the_time_that_answers_take(answer_s: float, busiest: int) -> None:
    clock = FakeClock()
    budget, gate = Budget(clock, PER_S * 60), Gate(clock, 8)
    inside, most = 0, [0]

    async def ask() -> None:
        nonlocal inside
        async with gate.through(1):
            inside += 1
            most.append(inside)
            await budget.acquire()
            await clock.sleep(answer_s)
            inside -= 1

    await clock.drive(together(ask() for _ in range(150)))
    assert max(most[60:]) in (busiest - 1, busiest, min(busiest + 1, 8))


async def test_who_leaves_while_waiting_takes_no_place() -> None:
    clock = FakeClock()
    gate = Gate(clock, 1)

    async def hold() -> None:
        async with gate.through(1):
            await clock.sleep(1)

    tasks = [asyncio.create_task(hold()) for _ in range(4)]
    await clock.advance(0.5)
    tasks[1].cancel()
    await clock.advance(0.5)
    tasks[2].cancel()
    await clock.advance(10)
    assert [task.cancelled() for task in tasks] == [False, True, True, False]
    await clock.drive(hold())
