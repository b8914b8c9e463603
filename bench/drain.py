"""How fast the backlog of an outage drains at the vendor's limit, and how long live events wait meanwhile.

Virtual time, real store: a day passes in minutes. A vendor allows so many requests in any 60 seconds and is
down for hours, while events keep coming; when it is back they still come, half of them from people who wait
in the backlog, half from people who do not. Checks that every person's order was kept.
Run: python bench/drain.py [--hours 24] [--per-minute 1000] [--share 0.3] [--learn]
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import json
import sys
import tempfile
import time
from collections import deque
from collections.abc import Sequence
from math import ceil
from pathlib import Path

import msgspec
import structlog
from msgspec import Struct

from towpath.budget import Budget
from towpath.connection import Connection
from towpath.deliver import DeliveryLoop
from towpath.destination import Call, Check, Destination, Limits, Payload, Scope, Settings
from towpath.http import Http, Reply, Request
from towpath.identity import Identity
from towpath.log import Entry, Group
from towpath.log.sqlite import SqliteStore
from towpath.message import Envelope, Message
from towpath.testing.fakes import FakeMemory
from towpath.testing.loop import LoopClock, run_virtual

SLOWDOWN_MOST = 1.05
LIVE_P95_MOST_S = 5.0
HOUR_S = 3600.0
WINDOW_S = 60.0
ANSWER_S = 0.05
STEP_S = 1.0
IN_FLIGHT = 16  # as for Kustomer
STUCK_S = 10 * 24 * HOUR_S
EVENT = (
    '{"type":"track","messageId":"m%d","userId":"%s","event":"Seen","properties":{"n":%d,"page":"/shoes"}}'
)


class Plan(Struct, frozen=True):
    """What happens: how long the vendor is down, what it allows, and the part of that which comes in."""

    hours: float
    per_minute: int
    share: float
    persons: int
    learn: bool


class Vendor:
    """Allows `per_minute` requests in any 60 s and says so; over that it answers 429, while down 503."""

    def __init__(self, clock: LoopClock, per_minute: int) -> None:
        self.clock = clock
        self.per_minute = per_minute
        self.down = False
        self.refused = 0
        self.seen: list[tuple[float, int]] = []
        self._taken: deque[float] = deque()

    async def send(self, request: Request, *, timeout_s: float) -> Reply:
        """Answer one request."""
        await asyncio.sleep(ANSWER_S)
        if self.down:
            return Reply(503)
        now_s = self.clock.monotonic()
        while self._taken and self._taken[0] <= now_s - WINDOW_S:
            self._taken.popleft()
        headers = {"x-ratelimit-limit": str(self.per_minute)}
        if len(self._taken) >= self.per_minute:
            self.refused += 1
            wait_s = ceil(self._taken[0] + WINDOW_S - now_s)
            return Reply(429, {**headers, "x-ratelimit-remaining": "0", "retry-after": str(wait_s)})
        self._taken.append(now_s)
        self.seen.append((now_s, msgspec.json.decode(request.body)["n"]))
        return Reply(200, headers)

    async def close(self) -> None:
        """Nothing is open."""


class Plain(Destination[Settings]):
    """One small JSON request for each message."""

    name = "plain"
    Settings = Settings

    def limits(self) -> Limits:
        return Limits(in_flight=IN_FLIGHT)

    def prepare(self, message: Message) -> Payload:
        return Payload((Call("POST", "http://vendor/events", message.properties),))

    async def deliver(self, payload: Payload, scope: Scope) -> None:
        call = payload.requests[0]
        await scope.http.request(call.method, call.url, json=call.json)

    async def check(self, scope: Scope) -> Sequence[Check]:
        return [Check("nothing", ok=True)]


class Traffic:
    """Appends events at an even rate; `sent[n]` is the person of event n, and when it came."""

    def __init__(self, store: SqliteStore, clock: LoopClock, per_s: float, persons: int) -> None:
        self.store = store
        self.clock = clock
        self.sent: list[tuple[str, float]] = []
        self._per_s = per_s
        self._persons = persons
        self._owed = 0.0

    async def step(self, *, mixed: bool) -> None:
        """Append what is due; `mixed`: every other event is of a person of today, not of the outage."""
        self._owed += self._per_s * STEP_S
        now, entries = self.clock.now(), []
        while self._owed >= 1:
            self._owed -= 1
            n = len(self.sent)
            person = f"{'today' if mixed and n % 2 else 'outage'}-{n * 7919 % self._persons}"
            self.sent.append((person, now))
            entries.append(Entry(f"m{n}", (EVENT % (n, person, n)).encode()))
        if entries:
            await self.store.append([Group(Envelope("web", now, "server"), entries)])


class Outcome(Struct, frozen=True):
    """What was measured. `live_s`: waits of people with nothing in the backlog, ascending."""

    backlog: int
    sent: int
    drain_s: float
    live_s: list[float]
    waiting_s: list[float]
    violations: int
    refused: int


async def measure(directory: Path, plan: Plan) -> Outcome:
    """Fill during the outage, let the vendor come back, and wait until the backlog has gone."""
    clock = LoopClock(asyncio.get_running_loop(), 7)
    store = await SqliteStore.begin(directory, clock, inline=True, durable=False)
    await store.connect("web-plain", {"web"}, "earliest")
    vendor = Vendor(clock, plan.per_minute)
    loop = loop_of(plan, clock, store, vendor)
    running = asyncio.create_task(loop.run())
    traffic = Traffic(store, clock, plan.share * plan.per_minute / 60, plan.persons)
    vendor.down = True
    while clock.monotonic() < plan.hours * HOUR_S:
        await traffic.step(mixed=False)
        await asyncio.sleep(STEP_S)
    vendor.down, back_s, backlog = False, clock.monotonic(), len(traffic.sent)
    until = backlog
    while loop.cursor < until:
        if running.done():
            running.result()
        assert clock.monotonic() < back_s + STUCK_S, "it never drained"
        if loop.cursor < backlog:
            await traffic.step(mixed=True)
            until = len(traffic.sent)  # what came meanwhile is waited for, too
        await asyncio.sleep(STEP_S)
    await loop.stop()
    await running
    await store.close()
    return judge(clock, vendor, traffic, backlog, back_s)


def loop_of(plan: Plan, clock: LoopClock, store: SqliteStore, vendor: Vendor) -> DeliveryLoop:
    """The one connection, its allowance known, or told as three times what the vendor's headers will say."""
    connection = Connection(
        name="web-plain",
        sources=frozenset({"web"}),
        destination_name="plain",
        destination=Plain(Settings()),
        start="earliest",
    )
    budget = Budget(clock, plan.per_minute * (3 if plan.learn else 1))
    scope = Scope(Http(vendor, clock, throttles={"": budget}), clock, FakeMemory())
    return DeliveryLoop(connection, store, store, Identity(store), scope)


def judge(clock: LoopClock, vendor: Vendor, traffic: Traffic, backlog: int, back_s: float) -> Outcome:
    """Read what the vendor saw: the drain, the waits, each person's order."""
    offset, ended_s = clock.now() - clock.monotonic(), back_s
    live_s: list[float] = []
    waiting_s: list[float] = []
    last, violations = dict[str, int](), 0
    for at_s, n in vendor.seen:
        person, came = traffic.sent[n]
        violations += last.get(person, -1) >= n
        last[person] = n
        if n < backlog:
            ended_s = max(ended_s, at_s)
        else:
            (live_s if person.startswith("today") else waiting_s).append(at_s + offset - came)
    sent = sum(at_s <= ended_s for at_s, _ in vendor.seen)
    return Outcome(
        backlog, sent, ended_s - back_s, sorted(live_s), sorted(waiting_s), violations, vendor.refused
    )


def at(values: list[float], part: float) -> float:
    """A percentile of ascending values."""
    return values[min(len(values) - 1, int(len(values) * part))] if values else float("inf")


def report(plan: Plan, found: Outcome, real_s: float) -> bool:
    """Print the figures; whether the bars were met."""
    allowed_s = found.sent * 60 / plan.per_minute
    slowdown, p95_s = found.drain_s / allowed_s, at(found.live_s, 0.95)
    print(f"backlog of {plan.hours:g} h: {found.backlog:,} events; {found.sent:,} sent until it had gone")
    print(f"drained in {found.drain_s:,.0f} s; the limit allows {allowed_s:,.0f} s: × {slowdown:.3f}")
    for name, waits in (("nothing in the backlog", found.live_s), ("with a backlog", found.waiting_s)):
        p50, p95, most = at(waits, 0.5), at(waits, 0.95), at(waits, 1.0)
        print(
            f"live, people {name}: {len(waits):,} events, p50 {p50:.1f} s, p95 {p95:.1f} s, max {most:.1f} s"
        )
    print(
        f"{found.violations} order violations, {found.refused} answers 429; took {real_s:.0f} s of real time"
    )
    met = slowdown <= SLOWDOWN_MOST and p95_s <= LIVE_P95_MOST_S and not found.violations
    figures = {"drain_times_the_limit": round(slowdown, 3), "live_p95_s": round(p95_s, 2), "met": met}
    print(json.dumps({**figures, "floor": {"drain": SLOWDOWN_MOST, "live_p95_s": LIVE_P95_MOST_S}}))
    return met


def main() -> int:
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--hours", type=float, default=24.0)
    given.add_argument("--per-minute", type=int, default=1000)
    given.add_argument("--share", type=float, default=0.3, help="traffic as a part of the limit")
    given.add_argument("--persons", type=int, default=20_000)
    given.add_argument(
        "--learn", action="store_true", help="the allowance is learnt from the vendor's answers"
    )
    plan = Plan(**vars(given.parse_args()))
    gc.set_threshold(50_000, 20, 50)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(50))
    with tempfile.TemporaryDirectory() as directory:
        started_s = time.perf_counter()
        found = run_virtual(measure(Path(directory), plan))
    return 0 if report(plan, found, time.perf_counter() - started_s) else 1


if __name__ == "__main__":
    sys.exit(main())
