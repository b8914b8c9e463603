"""Budgets in virtual time: never more than allowed in any minute, nearly all of it used, in turn."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Mapping

import pytest
from hypothesis import given, settings
from hypothesis import strategies as some

from towpath.budget import Budget, Patient
from towpath.testing import FakeClock

pytestmark = pytest.mark.spec("D12")


async def test_another_allowance_holds_at_once_and_forgets_no_block() -> None:
    clock = FakeClock()
    budget = Budget(clock, 60.0)
    budget.learn(429, {"retry-after": "30"})
    budget.change(6000.0)
    assert (budget.per_minute, budget.blocked_s) == (6000.0, 30.0)
    budget.change(120.0)
    budget.lift()
    grants = await take(budget, clock, 60.0)
    assert len(grants) <= 120
    budget.learn(200, {"x-ratelimit-limit": "30"})
    budget.change(120.0)
    assert budget.rate_in_force <= 30


async def take(budget: Budget, clock: FakeClock, seconds: float, callers: int = 4) -> list[float]:
    """Grants while so many callers want more all the time: seconds since the start."""
    start, grants = clock.now(), []

    async def caller() -> None:
        while True:
            await budget.acquire()
            grants.append(clock.now() - start)

    tasks = [asyncio.ensure_future(caller()) for _ in range(callers)]
    await clock.advance(seconds)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    return grants


def most(grants: list[float], window_s: float) -> int:
    """The largest number of grants in any window of that many seconds, one end included."""
    ends, found = 0, 0
    for index, grant in enumerate(grants):
        while grants[ends] <= grant - window_s + 1e-6:
            ends += 1
        found = max(found, index - ends + 1)
    return found


@given(
    per_minute=some.floats(1, 700),
    burst=some.none() | some.floats(1, 100),
    pauses=some.lists(some.floats(0, 90), max_size=3),
)
@settings(max_examples=15, deadline=None)
def test_no_minute_has_more_than_the_allowance(
    per_minute: float, burst: float | None, pauses: list[float]
) -> None:
    async def check() -> None:
        clock = FakeClock()
        budget = Budget(clock, per_minute, burst)
        start, grants = clock.now(), []
        for pause_s in [*pauses, 0.0]:
            await clock.advance(pause_s)
            began = clock.now() - start
            grants += [began + grant for grant in await take(budget, clock, 70)]
        assert most(grants, 60) <= math.ceil(per_minute)

    asyncio.run(check())


@given(per_minute=some.integers(600, 6_000))
@settings(max_examples=4, deadline=None)
def test_no_second_has_more_than_its_share_without_a_burst(per_minute: int) -> None:
    async def check() -> None:
        clock = FakeClock()
        grants = await take(Budget(clock, per_minute), clock, 10)
        assert most(grants, 1) <= math.ceil(per_minute / 60)

    asyncio.run(check())


@pytest.mark.spec("P10", "K066")
@pytest.mark.parametrize("per_minute", [1, 10, 60, 300, 1_000, 3_000])
async def test_at_least_95_percent_is_used_under_load(per_minute: int) -> None:
    clock = FakeClock()
    minutes = max(2, 120 // per_minute)
    grants = await take(Budget(clock, per_minute), clock, minutes * 60)
    assert len(grants) >= 0.95 * per_minute * minutes - 1


async def test_it_is_smooth() -> None:
    clock = FakeClock()
    grants = await take(Budget(clock, 600), clock, 60)
    assert most(grants, 6) <= 61


async def test_first_come_first_served() -> None:
    clock, served = FakeClock(), []
    budget = Budget(clock, 60)

    async def caller(number: int) -> None:
        await budget.acquire()
        served.append(number)

    tasks = [asyncio.ensure_future(caller(number)) for number in range(20)]
    await clock.advance(60)
    assert served == list(range(20))
    await asyncio.gather(*tasks)


async def test_a_free_budget_does_not_wait() -> None:
    clock = FakeClock()
    await asyncio.wait_for(Budget(clock, 1).acquire(), 5)


async def test_a_cancelled_wait_takes_nothing_and_blocks_nobody() -> None:
    clock, served = FakeClock(), []
    budget = Budget(clock, 60)
    await budget.acquire()

    async def caller(number: int) -> None:
        await budget.acquire()
        served.append((number, round(clock.now() - start)))

    start = clock.now()
    tasks = [asyncio.ensure_future(caller(number)) for number in range(4)]
    await clock.advance(0.5)
    for gone in (tasks[0], tasks[2]):  # the head of the queue, and one within it
        gone.cancel()
    await clock.advance(10)
    assert served == [(1, 1), (3, 2)]
    await asyncio.gather(*tasks, return_exceptions=True)


async def test_a_cost_above_the_burst_is_taken_on_credit() -> None:
    clock = FakeClock()
    budget, start = Budget(clock, 60), clock.now()
    await budget.acquire(10)
    await clock.drive(budget.acquire())
    assert clock.now() - start == pytest.approx(10 / 0.97, abs=0.1)


def test_an_allowance_must_be_positive() -> None:
    with pytest.raises(ValueError, match="positive"):
        Budget(FakeClock(), 0)


# Learning


def in_seconds(clock: FakeClock, seconds: float) -> str:
    return str(int(clock.now() + seconds))


@pytest.mark.spec("D03")
@pytest.mark.parametrize(
    ("status", "headers", "blocked_s"),
    [
        (429, {"retry-after": "17"}, 17),
        (429, {"retry-after": "17", "x-ratelimit-reset": "+40"}, 17),
        (429, {"x-ratelimit-reset": "+40"}, 40),
        (429, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "+40"}, 40),
        (429, {}, 2),
        (429, {"retry-after": "soon", "x-ratelimit-reset": "junk"}, 2),
        (429, {"x-ratelimit-reset": "-40"}, 2),
        (429, {"retry-after": "0"}, 1),
        (429, {"retry-after": "99999999"}, 86_400),
        (429, {"x-ratelimit-remaining": "3", "retry-after": "17"}, 0),
        (200, {"x-ratelimit-remaining": "0", "x-ratelimit-reset": "+25"}, 25),
        (200, {"x-ratelimit-remaining": "0"}, 0),
        (200, {"x-ratelimit-remaining": "1", "x-ratelimit-reset": "+25"}, 0),
        (200, {"x-ratelimit-remaining": "\u00b2", "x-ratelimit-limit": "NaN"}, 0),
        (503, {"retry-after": "17"}, 0),
        (200, {}, 0),
    ],
)
async def test_the_vendor_s_word_blocks_the_bucket(
    status: int, headers: Mapping[str, str], blocked_s: float
) -> None:
    clock = FakeClock()
    budget, start = Budget(clock, 6_000), clock.now()
    moments = {"+40": in_seconds(clock, 40), "-40": in_seconds(clock, -40), "+25": in_seconds(clock, 25)}
    budget.learn(status, {name: moments.get(value, value) for name, value in headers.items()})
    assert budget.blocked_s == pytest.approx(blocked_s, abs=0.01)
    await clock.drive(budget.acquire())
    assert clock.now() - start == pytest.approx(blocked_s, abs=0.05)


async def test_a_block_holds_those_already_waiting() -> None:
    clock = FakeClock()
    budget, start = Budget(clock, 60), clock.now()
    await budget.acquire()
    waiting = asyncio.ensure_future(budget.acquire())
    await clock.advance(0.5)
    budget.learn(429, {"retry-after": "30"})
    await clock.drive(asyncio.wait_for(waiting, None))
    assert clock.now() - start == pytest.approx(30.5, abs=0.01)


async def test_a_429_lowers_the_rate_once_and_it_recovers() -> None:
    clock = FakeClock()
    budget = Budget(clock, 1_000)
    for _ in range(64):  # all that were in flight
        budget.learn(429, {"retry-after": "1"})
    assert budget.rate_in_force == pytest.approx(700)
    assert budget.per_minute == 1_000  # the allowance stays what it was given
    await clock.advance(10)
    assert budget.rate_in_force == pytest.approx(750)
    await clock.advance(60)
    assert budget.rate_in_force == 1_000


async def test_a_storm_of_429_never_stops_it_for_good() -> None:
    clock = FakeClock()
    budget = Budget(clock, 1_000)
    for _ in range(200):
        budget.learn(429, {})
        await clock.advance(2.5)
    assert 50 <= budget.rate_in_force < 100


async def test_an_object_limit_does_not_lower_the_rate() -> None:
    budget = Budget(FakeClock(), 1_000)
    budget.learn(429, {"x-ratelimit-remaining": "500"})
    assert budget.rate_in_force == 1_000


async def test_a_lower_limit_of_the_vendor_is_used_and_a_higher_one_is_not() -> None:
    clock = FakeClock()
    budget = Budget(clock, 1_000)
    budget.learn(200, {"x-ratelimit-limit": "300"})
    assert budget.rate_in_force == 300
    assert most(await take(budget, clock, 120), 60) <= 300
    budget.learn(200, {"x-ratelimit-limit": "2000"})
    assert budget.rate_in_force == 1_000


async def test_a_changed_limit_is_followed_within_a_minute() -> None:
    """A vendor that halves its limit and says so only by 429: most of what it allows is soon used again."""
    clock, allowed = FakeClock(), 300
    budget = Budget(clock, 600)
    seen: list[float] = []
    refusals = 0
    start = clock.now()

    async def caller() -> None:
        nonlocal refusals
        while True:
            await budget.acquire()
            now = clock.now() - start
            recent = [at for at in seen if at > now - 60]
            if len(recent) >= allowed:
                refusals += 1
                budget.learn(429, {"retry-after": str(int(recent[0] + 60 - now) + 1)})
            else:
                seen.append(now)

    task = asyncio.ensure_future(caller())
    await clock.advance(600)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert len(seen) >= 0.9 * allowed * 9
    assert refusals < 30


# -- what can wait -----------------------------------------------------------------------------------------


@pytest.mark.spec("R045")
async def test_what_can_wait_lets_everybody_else_go_first() -> None:
    clock = FakeClock()
    budget = Budget(clock, 600.0)
    patient, order = Patient(budget), list[str]()

    async def ask(name: str, throttle: Budget | Patient, times: int) -> None:
        for _ in range(times):
            await throttle.acquire()
            order.append(name)

    waiting = [asyncio.ensure_future(ask("later", patient, 10)) for _ in range(3)]
    await clock.advance(0.05)
    begun = len(order)
    urgent = asyncio.ensure_future(ask("now", budget, 10))
    await clock.advance(2.0)
    assert urgent.done()
    assert order[begun : begun + 11].count("now") == 10
    await clock.advance(4.0)
    assert all(task.done() for task in waiting)


@pytest.mark.spec("R045")
async def test_what_can_wait_is_never_starved_and_uses_what_nobody_wants() -> None:
    clock = FakeClock()
    budget = Budget(clock, 600.0)
    alone = asyncio.ensure_future(take_patiently(Patient(budget), clock))
    await clock.advance(60.0)
    alone.cancel()
    assert 0.9 * 600 <= len(PATIENT) <= 600
    PATIENT.clear()
    starved = asyncio.ensure_future(take_patiently(Patient(budget), clock))
    urgent = await take(budget, clock, 60.0, callers=8)
    starved.cancel()
    assert len(PATIENT) >= 8
    assert most(sorted([*urgent]), 1.0) <= 10


PATIENT: list[float] = []


async def take_patiently(patient: Patient, clock: FakeClock) -> None:
    while True:
        await patient.acquire()
        PATIENT.append(clock.now())
