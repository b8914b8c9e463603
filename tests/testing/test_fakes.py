"""The fakes do what they say, so that tests built on them prove something."""

from __future__ import annotations

import asyncio

import pytest

from towpath.clock import Clock
from towpath.destination import Memory
from towpath.http import Reply, Request, TransportError
from towpath.testing import FakeClock, FakeMemory, FakeTransport

pytestmark = pytest.mark.spec("D12")


async def test_sleepers_wake_in_order_at_their_own_moment() -> None:
    clock, woken = FakeClock(), []

    async def sleeper(delay_s: float) -> None:
        start = clock.now()
        await clock.sleep(delay_s)
        woken.append((delay_s, clock.now() - start))

    tasks = [asyncio.ensure_future(sleeper(delay_s)) for delay_s in (3, 1, 2, 0)]
    await clock.advance(2.5)
    assert woken == [(0, 0.0), (1, 1.0), (2, 2.0)]
    await clock.advance(0.5)
    assert woken[-1] == (3, 3.0)
    await asyncio.gather(*tasks)


async def test_a_sleep_started_during_an_advance_is_part_of_it() -> None:
    clock, ticks = FakeClock(), 0

    async def ticking() -> None:
        nonlocal ticks
        while True:
            await clock.sleep(1)
            ticks += 1

    task = asyncio.ensure_future(ticking())
    await clock.advance(3_600)
    assert ticks == 3_600
    task.cancel()


async def test_drive_skips_every_wait() -> None:
    clock = FakeClock()

    async def long() -> str:
        for _ in range(10):
            await clock.sleep(86_400)
        await asyncio.to_thread(lambda: None)  # something real in between
        return "done"

    started = clock.monotonic()
    assert await clock.drive(long()) == "done"
    assert clock.monotonic() - started == 864_000


async def test_a_cancelled_sleeper_holds_nothing_up() -> None:
    clock = FakeClock()
    task = asyncio.ensure_future(clock.sleep(1))
    await asyncio.sleep(0)
    task.cancel()
    await clock.drive(clock.sleep(2))
    assert clock.monotonic() == 2


def test_chance_repeats_with_the_seed() -> None:
    first, again, other = FakeClock(seed=1), FakeClock(seed=1), FakeClock(seed=2)
    assert first.uniform(0, 1) == again.uniform(0, 1) != other.uniform(0, 1)
    assert first.token(8) == again.token(8) != other.token(8)


async def test_the_first_matching_rule_answers() -> None:
    network = FakeTransport(("GET", "/v1/people/*", Reply(404)), ("*", "*", Reply(200)))
    base = "https://api.example.com/v1/people"
    assert (await network.send(Request("GET", f"{base}/5?x=1"), timeout_s=1)).status == 404
    assert (await network.send(Request("POST", f"{base}/5"), timeout_s=1)).status == 200
    assert (await network.send(Request("GET", base), timeout_s=1)).status == 200
    network.on("GET", "/v1/people/5", Reply(201))
    assert (await network.send(Request("GET", f"{base}/5"), timeout_s=1)).status == 201
    assert [request.method for request in network.requests] == ["GET", "POST", "GET", "GET"]


async def test_answers_may_be_errors_or_functions() -> None:
    async def later(request: Request) -> Reply:
        return Reply(200, body=request.body)

    network = FakeTransport(
        ("GET", "*", TransportError("down", sent=False)),
        ("PUT", "*", lambda request: Reply(200, body=request.url.encode())),
        ("POST", "*", later),
    )
    with pytest.raises(TransportError):
        await network.send(Request("GET", "http://x/"), timeout_s=1)
    assert (await network.send(Request("PUT", "http://x/"), timeout_s=1)).body == b"http://x/"
    assert (await network.send(Request("POST", "http://x/", body=b"b"), timeout_s=1)).body == b"b"


async def test_a_request_without_a_rule_fails_the_test() -> None:
    with pytest.raises(AssertionError, match="no rule answers GET"):
        await FakeTransport().send(Request("GET", "http://x/"), timeout_s=1)


async def test_memory_forgets_in_time() -> None:
    clock = FakeClock()
    memory: Memory = FakeMemory(clock)
    memory.keep("a", "1", 10)
    memory.keep("b", "2", 100)
    assert memory.find("a") == "1"
    await clock.advance(10)
    assert (memory.find("a"), memory.find("b"), memory.find("c")) == (None, "2", None)
    memory.drop("b")
    memory.drop("never kept")
    assert memory.find("b") is None


def test_the_fake_clock_is_a_clock() -> None:
    clock: Clock = FakeClock(now=5.0)
    assert clock.now() == 5.0
