"""Backfill of 100,000 Firestore documents into Customer.io: the hub's CPU per profile, requests, a re-run.

Google's answers are prerecorded bytes (`:runQuery` pages of 500); Customer.io is the simulator, in a process
of its own. Taking in is list → decode → compare → log and what is known, on disk; delivering is log → batches
→ settled. About 40 s. Run: python bench/backfill.py [--documents 100000] [--profile]
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import gc
import json
import math
import pstats
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import msgspec
import structlog
import uvloop

from towpath.clock import SystemClock
from towpath.connection import Connection
from towpath.deliver import DeliveryLoop
from towpath.destination import Scope
from towpath.destinations.customerio import BATCH, CustomerIo, CustomerIoSettings
from towpath.feed import Feed
from towpath.http import Http, Reply, Request
from towpath.identity import Identity
from towpath.log.sqlite import SqliteStore
from towpath.sandbox.customerio import DEFAULT
from towpath.source import SourceScope
from towpath.sources.firebase import Collection, Firebase, FirebaseSettings
from towpath.state import State
from towpath.testing.fakes import FakeMemory
from towpath.transport_http1 import Http1Transport

BATCHES = "/api/v2/batch"
FLOOR = 20_000
PAGE = 500
ROOT = "projects/demo-bench/databases/(default)/documents/users/"


class Recorded:
    """Google, prerecorded: each query is answered with the page that begins behind its cursor."""

    def __init__(self, documents: int) -> None:
        self.pages = [
            msgspec.json.encode([document(number) for number in range(start, min(start + PAGE, documents))])
            for start in range(0, documents, PAGE)
        ] + [b'[{"readTime":"2026-02-01T00:00:00.000000Z"}]']
        self.total = documents

    async def send(self, request: Request, *, timeout_s: float) -> Reply:
        asked = msgspec.json.decode(request.body)
        if "structuredAggregationQuery" in asked:
            counted = {"n": {"integerValue": str(self.total)}}
            return Reply(200, body=msgspec.json.encode([{"result": {"aggregateFields": counted}}]))
        cursor = asked["structuredQuery"].get("startAt")
        behind = int(cursor["values"][0]["referenceValue"].rpartition("u")[2]) + 1 if cursor else 0
        return Reply(200, body=self.pages[math.ceil(behind / PAGE)])

    async def close(self) -> None:
        """Nothing is open."""


class Counted:
    """A transport that counts the requests to each path."""

    def __init__(self) -> None:
        self.paths: Counter[str] = Counter()
        self._transport = Http1Transport()

    async def send(self, request: Request, *, timeout_s: float) -> Reply:
        self.paths[urlsplit(request.url).path] += 1
        return await self._transport.send(request, timeout_s=timeout_s)

    async def close(self) -> None:
        await self._transport.close()


def document(number: int) -> dict[str, Any]:
    attributes = {
        "first_name": {"stringValue": f"Ada{number}"},
        "last_name": {"stringValue": "Lovelace"},
        "email": {"stringValue": f"ada{number}@example.com"},
        "plan": {"stringValue": "basic" if number % 3 else "gold"},
        "logins": {"integerValue": str(number % 97)},
        "score": {"doubleValue": number / 7},
        "vip": {"booleanValue": number % 10 == 0},
        "trial_ends": {"timestampValue": "2026-03-01T00:00:00.123456Z"},
    }
    return {
        "document": {
            "name": f"{ROOT}u{number:07d}",
            "fields": {"attributes": {"mapValue": {"fields": attributes}}, "internal": {"stringValue": "x"}},
            "createTime": "2026-01-01T00:00:00.000001Z",
            "updateTime": f"2026-01-02T00:00:{number % 60:02d}.{number % 1_000_000:06d}Z",
        },
        "readTime": "2026-02-01T00:00:00.000000Z",
    }


def serve(descriptor: int) -> None:
    """Be Customer.io on a listening socket handed down."""
    import uvicorn

    from towpath.sandbox.customerio import CustomerIoSimulator

    app = CustomerIoSimulator(control=True, kept_requests=1_000_000)
    config = uvicorn.Config(app, log_level="error", lifespan="off", loop="uvloop", http="httptools")
    uvicorn.Server(config).run([socket.socket(fileno=descriptor)])


@contextmanager
def customerio() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listening:
        descriptor = listening.fileno()
        command = [sys.executable, __file__, "--serve", str(descriptor)]
        process = subprocess.Popen(command, pass_fds=[descriptor])
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}"
        finally:
            process.kill()
            process.wait()


class Spent:
    """Wall and CPU seconds of a block."""

    def __enter__(self) -> Spent:
        self._wall_s, self._cpu_s = time.perf_counter(), time.process_time()
        return self

    def __exit__(self, *_: object) -> None:
        self.wall_s = time.perf_counter() - self._wall_s
        self.cpu_s = time.process_time() - self._cpu_s

    def said(self, what: str, count: int) -> str:
        per_cpu_s, each_us = count / self.cpu_s, self.cpu_s / count * 1e6
        return f"{what:14s} {per_cpu_s:9,.0f} per CPU-second  {each_us:6.1f} µs each  {self.wall_s:5.1f} s"


class Hub:
    """One source, one log, one destination."""

    def __init__(self, store: SqliteStore, state: State, url: str, documents: int) -> None:
        clock = SystemClock()
        self.store = store
        self.source = Firebase(
            FirebaseSettings(
                project="demo-bench", emulator=True, auth=False, collections=[Collection(path="users")]
            )
        )
        self.facts = state.facts("firebase")
        self.feed = Feed("firebase", "server", store, self.facts, clock)
        self.asking = SourceScope(Http(Recorded(documents), clock), clock, self.facts.turn())
        settings = CustomerIoSettings.model_validate(
            {"site_id": DEFAULT.site_id, "api_key": DEFAULT.api_key, "base_url": url, "rate": 1000}
        )
        self.destination = CustomerIo(settings)
        connection = Connection(
            name="customerio",
            sources=frozenset({"firebase"}),
            destination_name="customerio",
            destination=self.destination,
            start="earliest",
        )
        self.sent = Counted()
        scope = Scope(Http(self.sent, clock, headers=self.destination.headers()), clock, FakeMemory())
        self.loop = DeliveryLoop(connection, store, store, Identity(store), scope)

    async def take_in(self) -> int:
        """Everything there is; how many messages it became."""
        messages = 0
        async for page in self.source.pages("backfill", {}, self.asking):
            fed = await self.feed.take(partial(self.source.heard, page))
            messages += fed.messages
        return messages

    async def deliver(self, messages: int) -> None:
        running = asyncio.create_task(self.loop.run())
        while (await self.store.balance())[0].delivered < messages:
            if running.done():
                running.result()
            await asyncio.sleep(0.05)
        await self.loop.stop()
        await running


async def run(url: str, documents: int, profile: cProfile.Profile | None) -> int:
    with tempfile.TemporaryDirectory() as directory:
        state = State.open(Path(directory))
        async with SqliteStore.open(Path(directory), SystemClock()) as store:
            await store.connect("customerio", {"firebase"}, "earliest")
            hub = Hub(store, state, url, documents)
            if profile:
                profile.enable()
            with Spent() as taking:
                messages = await hub.take_in()
            with Spent() as delivering:
                await hub.deliver(messages)
            if profile:
                profile.disable()
            with Spent() as again:
                repeated = await hub.take_in()
        state.close()
    return report(url, documents, (messages, repeated), (taking, delivering, again), hub.sent.paths)


def report(
    url: str, documents: int, messages: tuple[int, int], spent: Sequence[Spent], paths: Mapping[str, int]
) -> int:
    taking, delivering, again = spent
    first, repeated = messages
    with urllib.request.urlopen(f"{url}/_sandbox/state") as answer:
        state = json.load(answer)
    both = documents / (taking.cpu_s + delivering.cpu_s)
    least = math.ceil(documents / BATCH)
    print(taking.said("taken in", documents))
    print(delivering.said("delivered", documents))
    print(again.said("re-run", documents), f" {repeated} messages")
    print(f"both: {both:,.0f} profiles per CPU-second (floor {FLOOR:,}{'' if both >= FLOOR else ' MISSED'})")
    print(f"requests to Customer.io: {paths[BATCHES]} batches (least {least}), {_others(paths)}")
    assert state["profiles"] == documents
    return 0 if (first, repeated, paths[BATCHES]) == (documents, 0, least) else 1


def _others(paths: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {path}" for path, count in paths.items() if path != BATCHES) or "nothing else"


def main() -> int:
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--documents", type=int, default=100_000)
    given.add_argument("--profile", action="store_true")
    given.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    options = given.parse_args()
    if options.serve is not None:
        serve(options.serve)
        return 0
    gc.set_threshold(50_000, 20, 50)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    profile = cProfile.Profile() if options.profile else None
    with customerio() as url:
        code = uvloop.run(run(url, options.documents, profile))
    if profile:
        pstats.Stats(profile).sort_stats("tottime").print_stats(45)
    return code


if __name__ == "__main__":
    sys.exit(main())
