"""Pace: even from the first moment, risen over a minute, silent after a 429; and the waits of attempts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from towpath.http import Stopping
from towpath.push.pace import (
    BURST_S,
    FIRST_RETRY_S,
    IDLE_S,
    LONGEST_RETRY_S,
    LOWEST_PER_S,
    RAMP_S,
    RETRY_JITTER,
    Pace,
    quarter_hour,
    retry_s,
)
from towpath.testing.fakes import START, FakeClock

pytestmark = pytest.mark.spec("P054")
HOUR = START - START % 3600


class Crowd:
    """Senders that always have one more message; `times` are the moments at which they were let pass."""

    def __init__(self, pace: Pace) -> None:
        self.pace = pace
        self.times: list[float] = []

    async def send(self) -> None:
        while True:
            await self.pace.admit()
            self.times.append(self.pace.clock.monotonic())
            await asyncio.sleep(0)

    def between(self, since_s: float, until_s: float) -> int:
        return sum(since_s <= moment < until_s for moment in self.times)


@asynccontextmanager
async def crowd(pace: Pace, size: int = 20) -> AsyncIterator[Crowd]:
    made = Crowd(pace)
    tasks = [asyncio.create_task(made.send()) for _ in range(size)]
    try:
        yield made
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await pace.close()


async def test_at_full_speed_it_is_even() -> None:
    clock = FakeClock()
    async with crowd(Pace(clock, 400, ramp_s=0)) as some:
        await clock.advance(10)
        for tenth in range(10, 100):
            assert some.between(tenth / 10, (tenth + 1) / 10) == pytest.approx(40, abs=5)
        assert len(some.times) == pytest.approx(4000, rel=0.02)


@pytest.mark.parametrize("rest_s", [0.0, 3.0, 3600.0])
async def test_nothing_is_front_loaded(rest_s: float) -> None:
    clock = FakeClock()
    pace = Pace(clock, 1000, ramp_s=0)
    await clock.advance(rest_s)
    async with crowd(pace) as some:
        await clock.advance(0)
        assert len(some.times) <= 1000 * BURST_S


async def test_after_idleness_it_rises_over_a_minute() -> None:
    clock = FakeClock()
    async with crowd(Pace(clock, 400), 50) as some:
        await clock.advance(90)
        tens = [some.between(start, start + 10) for start in range(0, 90, 10)]
    assert tens == sorted(tens)
    assert tens[0] < 600
    assert tens[2] == pytest.approx(400 * 10 * 25 / RAMP_S, rel=0.1)
    assert tens[-1] == pytest.approx(4000, rel=0.02)
    assert tens[5] < 4000


async def test_a_quiet_minute_makes_it_rise_anew_and_a_moment_does_not() -> None:
    clock = FakeClock()
    pace = Pace(clock, 400)
    async with crowd(pace, 50):
        await clock.advance(90)
        assert pace.level_per_s == 400
    await clock.advance(IDLE_S)
    assert pace.level_per_s == 400
    await clock.advance(30)
    assert pace.level_per_s == pytest.approx(200, rel=0.02)
    await clock.advance(60)
    assert pace.level_per_s == LOWEST_PER_S


async def test_a_single_message_after_a_rest_goes_at_once() -> None:
    clock = FakeClock()
    pace = Pace(clock, 9000)
    await clock.advance(3600)
    await asyncio.wait_for(pace.admit(), 5)
    assert clock.monotonic() == 3600


async def test_a_slow_project_has_no_ramp_to_wait_for() -> None:
    clock = FakeClock()
    async with crowd(Pace(clock, 2.0)) as some:
        await clock.advance(10)
    assert len(some.times) == pytest.approx(20, abs=2)


@pytest.mark.spec("P053")
async def test_a_pause_holds_for_the_whole_project_and_ends_with_a_ramp() -> None:
    clock = FakeClock()
    pace = Pace(clock, 400)
    async with crowd(pace) as some:
        await clock.advance(90)
        pace.pause(60)
        assert pace.paused_s == 60
        await clock.advance(0.5)
        before = len(some.times)
        await clock.advance(59)
        assert len(some.times) == before
        await clock.advance(10)
        assert 0 < len(some.times) - before < 800


async def test_a_shorter_pause_does_not_shorten_a_longer_one() -> None:
    clock = FakeClock()
    pace = Pace(clock, 400)
    pace.pause(60)
    pace.pause(5)
    assert pace.paused_s == 60


async def test_a_pause_of_nothing_lasts_a_second() -> None:
    clock = FakeClock()
    pace = Pace(clock, 400)
    pace.pause(0)
    assert pace.paused_s == 1


async def test_a_lifted_pause_is_noticed_soon() -> None:
    clock = FakeClock()
    pace = Pace(clock, 400)
    pace.pause(86_400)
    async with crowd(pace) as some:
        await clock.advance(5)
        assert some.times == []
        pace.lift()
        await clock.advance(2)
        assert some.times


@given(
    st.sampled_from([3.0, 60.0, 900.0]),
    st.lists(st.tuples(st.floats(0, 20), st.integers(1, 150), st.sampled_from([0.0, 0.0, 3.0])), max_size=6),
)
@settings(max_examples=30, deadline=None)
def test_whoever_comes_when_no_stretch_of_time_has_more_than_its_share(
    rate: float, arrivals: list[tuple[float, int, float]]
) -> None:
    clock = FakeClock()
    pace = Pace(clock, rate, ramp_s=0)
    times: list[float] = []

    async def one() -> None:
        await pace.admit()
        times.append(clock.monotonic())

    async def come() -> None:
        coming: list[asyncio.Task[None]] = []
        for delay_s, count, pause_s in arrivals:
            await clock.sleep(delay_s)
            if pause_s:
                pace.pause(pause_s)
            coming += [asyncio.create_task(one()) for _ in range(count)]
        await asyncio.gather(*coming)

    asyncio.run(clock.drive(come()))
    most = max(1.0, rate * BURST_S)
    assert len(times) == sum(count for _, count, _ in arrivals)
    for first in range(0, len(times), 7):
        for last in range(first, len(times), 5):
            assert last - first + 1 <= rate * (times[last] - times[first]) + most + 1


async def test_first_come_first_served() -> None:
    clock = FakeClock()
    pace = Pace(clock, 10.0)
    order: list[int] = []

    async def one(number: int) -> None:
        await pace.admit()
        order.append(number)

    await clock.drive(_all([one(number) for number in range(30)]))
    assert order == list(range(30))


async def test_who_gives_up_takes_no_place() -> None:
    clock = FakeClock()
    pace = Pace(clock, 10.0)
    await pace.admit()
    waiting = [asyncio.create_task(pace.admit()) for _ in range(5)]
    await asyncio.sleep(0)
    for task in waiting[:4]:
        task.cancel()
    await clock.advance(0.11)
    assert waiting[4].done()
    await waiting[4]


async def test_who_gives_up_when_it_is_let_pass_gives_its_place_to_another() -> None:
    clock = FakeClock()
    pace = Pace(clock, 1000.0, ramp_s=0)
    await pace.admit()
    others: list[asyncio.Task[None]] = []

    async def first() -> None:
        await pace.admit()
        for task in others:
            task.cancel()

    leading = asyncio.create_task(first())
    others += [asyncio.create_task(pace.admit()) for _ in range(8)]
    await clock.advance(0.0095)
    assert all(task.cancelled() for task in others)
    await leading
    next_ones = [asyncio.create_task(pace.admit()) for _ in range(8)]
    await clock.advance(0)
    assert [task.done() for task in next_ones] == [True] * 8


async def test_closing_sends_everybody_away() -> None:
    clock = FakeClock()
    pace = Pace(clock, 10.0)
    pace.pause(60)
    waiting = asyncio.create_task(pace.admit())
    await asyncio.sleep(0)
    await pace.close()
    with pytest.raises(Stopping):
        await waiting
    with pytest.raises(Stopping):
        await pace.admit()


@pytest.mark.parametrize("rate", [0.0, -1.0])
def test_a_rate_that_is_none(rate: float) -> None:
    with pytest.raises(ValueError, match="positive rate"):
        Pace(FakeClock(), rate)


async def test_those_who_wait_cost_one_timer_for_all() -> None:
    """At 10,000 a second, a timer for each message would be most of the work."""
    clock = FakeClock()
    slept: list[float] = []
    sleep = clock.sleep

    async def counted(delay_s: float) -> None:
        slept.append(delay_s)
        await sleep(delay_s)

    clock.sleep = counted  # type: ignore[method-assign]
    async with crowd(Pace(clock, 10_000, ramp_s=0), 500) as some:
        await clock.advance(1)
    assert len(some.times) == pytest.approx(10_000, rel=0.05)
    assert len(slept) <= 110


@pytest.mark.parametrize(
    ("minute", "second", "left_s"),
    [(0, 0, 120), (1, 59, 1), (2, 0, 0), (12, 59, 0), (13, 0, 240), (14, 30, 150), (58, 0, 240), (52, 30, 0)],
)
def test_quarter_hours_are_known(minute: int, second: int, left_s: float) -> None:
    assert quarter_hour(HOUR + 60 * minute + second) == left_s


@given(st.floats(0, 4e9, allow_nan=False))
def test_after_a_quarter_hour_there_is_none(now: float) -> None:
    assert 0 <= quarter_hour(now) <= 240
    assert quarter_hour(now + quarter_hour(now) + 0.001) == 0


@pytest.mark.spec("P053")
@given(st.integers(-5, 2000), st.floats(0, 1))
def test_waits_begin_at_ten_seconds_double_and_are_spread(attempt: int, chance: float) -> None:
    first, next_one = retry_s(attempt, chance), retry_s(attempt + 1, chance)
    assert FIRST_RETRY_S <= first <= LONGEST_RETRY_S * (1 + RETRY_JITTER)
    assert first <= next_one <= 2 * first + 1e-6
    assert retry_s(1, 0.0) == FIRST_RETRY_S
    assert retry_s(2, 0.0) == 2 * FIRST_RETRY_S
    assert retry_s(1, 1.0) == FIRST_RETRY_S * (1 + RETRY_JITTER)


async def _all(work: list) -> None:  # type: ignore[type-arg]
    await asyncio.gather(*work)


async def test_what_is_urgent_goes_first() -> None:
    clock = FakeClock()
    pace = Pace(clock, 10.0, ramp_s=0.0)
    passed: list[str] = []

    async def ask(name: str, *, urgent: bool = False) -> None:
        await pace.admit(urgent=urgent)
        passed.append(name)

    asked = [asyncio.create_task(ask(f"campaign {number}")) for number in range(4)]
    await asyncio.sleep(0)
    asked += [asyncio.create_task(ask(f"event {number}", urgent=True)) for number in range(2)]
    await asyncio.sleep(0)
    await clock.drive(asyncio.wait(asked))
    assert passed == ["campaign 0", "event 0", "event 1", "campaign 1", "campaign 2", "campaign 3"]


async def test_who_is_urgent_is_sent_away_like_all_at_a_stop() -> None:
    pace = Pace(FakeClock(), 10.0, ramp_s=0.0)
    await pace.admit()
    asked = [asyncio.create_task(pace.admit(urgent=urgent)) for urgent in (True, False)]
    await asyncio.sleep(0)
    await pace.close()
    assert [type(one) for one in await asyncio.gather(*asked, return_exceptions=True)] == [Stopping, Stopping]


async def test_who_is_urgent_alone_waits_for_a_place_and_no_longer() -> None:
    clock = FakeClock()
    pace = Pace(clock, 10.0, ramp_s=0.0)
    await pace.admit()
    began_s = clock.monotonic()
    await clock.drive(asyncio.wait_for(pace.admit(urgent=True), 60))
    assert 0.05 < clock.monotonic() - began_s < 0.2


@pytest.mark.parametrize(
    ("waits", "comes", "at_once"), [(0, 0, False), (1, 1, False), (1, 0, False), (0, 1, True)]
)
async def test_who_comes_later_passes_only_who_is_less_urgent(waits: int, comes: int, at_once: bool) -> None:
    clock = FakeClock()
    pace = Pace(clock, 10.0, ramp_s=0.0)
    await pace.admit()
    waiting = asyncio.create_task(pace.admit(urgent=bool(waits)))
    for _ in range(3):
        await asyncio.sleep(0)
    clock._elapsed += 0.11  # there is a place, and who waits has not been told yet
    later = asyncio.create_task(pace.admit(urgent=bool(comes)))
    await asyncio.sleep(0)
    assert later.done() is at_once
    await clock.drive(asyncio.wait([waiting, later]))
