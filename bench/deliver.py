"""Deliveries per second of one connection: log on disk → lanes → one request each → settled. About 15 s.

The receiver is a thin server in a process of its own. Checks that every person's order was kept.
Run: python bench/deliver.py [--messages 20000] [--persons 2500] [--rounds 3] [--transport http1] [--profile]
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import gc
import json
import pstats
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from random import Random
from typing import Any

import structlog
import uvloop

from towpath.clock import SystemClock
from towpath.connection import Connection
from towpath.deliver import DeliveryLoop
from towpath.destination import Call, Check, Destination, Limits, Payload, Scope, Settings
from towpath.http import Http, Transport
from towpath.identity import Identity
from towpath.log import Entry, Group
from towpath.log.sqlite import SqliteStore
from towpath.message import Envelope, Message
from towpath.testing.fakes import FakeMemory
from towpath.transport import PyreqwestTransport
from towpath.transport_aiohttp import AiohttpTransport
from towpath.transport_http1 import Http1Transport

FLOOR = 10_000
IN_FLIGHT = 64
EVENT = (
    '{"type":"track","messageId":"%s","userId":"user-%d","event":"Order Completed","timestamp":'
    '"2026-01-01T10:11:12.345Z","properties":{"order_id":"o%d","total":12.5,"currency":"EUR","quantity":3,'
    '"category":"shoes/run","name":"Runner","tags":["a","b"],"vip":true},"context":{"ip":"203.0.113.7",'
    '"library":{"name":"analytics-python","version":"2.3.4"},"locale":"de-DE"}}'
)
TRANSPORTS: dict[str, Callable[[], Transport]] = {
    "http1": Http1Transport,
    "pyreqwest": PyreqwestTransport,
    "aiohttp": AiohttpTransport,
}
seen: dict[str, list[int]] = {}


class Plain(Destination[Settings]):
    """One small JSON request for each message."""

    name = "plain"
    Settings = Settings

    def __init__(self, url: str) -> None:
        super().__init__(Settings())
        self.url = url

    def limits(self) -> Limits:
        return Limits(in_flight=IN_FLIGHT)

    def prepare(self, message: Message) -> Payload:
        body = {"customer": message.user_id, "event": message.event, "meta": message.properties}
        return Payload((Call("POST", self.url, body),), data=message)

    async def deliver(self, payload: Payload, scope: Scope) -> None:
        call = payload.requests[0]
        message = payload.data
        seen.setdefault(message.user_id, []).append(int(message.properties["order_id"][1:]))
        await scope.http.request(call.method, call.url, json=call.json)

    async def check(self, scope: Scope) -> Sequence[Check]:
        return [Check("nothing", ok=True)]


async def answer(
    scope: dict[str, Any], receive: Callable[[], Awaitable[Any]], send: Callable[[Any], Any]
) -> None:
    """Read the body and say yes."""
    while (await receive()).get("more_body"):
        pass
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"2")]})
    await send({"type": "http.response.body", "body": b"{}"})


def serve(descriptor: int) -> None:
    """Be the receiver on a listening socket handed down."""
    import uvicorn

    config = uvicorn.Config(answer, log_level="error", lifespan="off", loop="uvloop", http="httptools")
    uvicorn.Server(config).run([socket.socket(fileno=descriptor)])


@contextmanager
def receiver() -> Iterator[str]:
    with socket.create_server(("127.0.0.1", 0), backlog=256) as listening:
        descriptor = listening.fileno()
        command = [sys.executable, __file__, "--serve", str(descriptor)]
        process = subprocess.Popen(command, pass_fds=[descriptor])
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/v1/events"
        finally:
            process.kill()
            process.wait()


async def fill(store: SqliteStore, messages: int, persons: int) -> None:
    chance = Random(7)
    for start in range(0, messages, 100):
        numbers = range(start, min(start + 100, messages))
        entries = [
            Entry(f"{n:032x}", (EVENT % (f"{n:032x}", chance.randrange(persons), n)).encode())
            for n in numbers
        ]
        await store.append([Group(Envelope("web", time.time()), entries)])


async def deliver(
    url: str, directory: Path, messages: int, persons: int, transport: Transport
) -> tuple[float, float]:
    """Seconds of wall time and of CPU for all messages."""
    clock = SystemClock()
    async with SqliteStore.open(directory, clock) as store:
        await store.connect("web-plain", {"web"}, "earliest")
        await fill(store, messages, persons)
        connection = Connection(
            name="web-plain",
            sources=frozenset({"web"}),
            destination_name="plain",
            destination=Plain(url),
            start="earliest",
        )
        scope = Scope(Http(transport, clock), clock, FakeMemory())
        loop = DeliveryLoop(connection, store, store, Identity(store), scope)
        wall_s, cpu_s = time.perf_counter(), time.process_time()
        running = asyncio.create_task(loop.run())
        while loop.cursor < messages or (await store.balance())[0].delivered < messages:
            if running.done():
                running.result()
            await asyncio.sleep(0.02)
        wall_s, cpu_s = time.perf_counter() - wall_s, time.process_time() - cpu_s
        await loop.stop()
        await running
        await transport.close()
        assert len(await store.deliveries(None, None, messages + 1)) == messages
    return wall_s, cpu_s


def main() -> int:
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--messages", type=int, default=20_000)
    given.add_argument("--persons", type=int, default=2_500)
    given.add_argument("--rounds", type=int, default=3)
    given.add_argument("--transport", choices=TRANSPORTS, default="http1")
    given.add_argument("--profile", action="store_true")
    given.add_argument("--serve", type=int, help=argparse.SUPPRESS)
    options = given.parse_args()
    if options.serve is not None:
        serve(options.serve)
        return 0
    gc.set_threshold(50_000, 20, 50)
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(40))
    best, profile = 0.0, cProfile.Profile()
    with receiver() as url:
        for _ in range(options.rounds):
            seen.clear()
            gc.collect()
            with tempfile.TemporaryDirectory() as directory:
                transport = TRANSPORTS[options.transport]()
                work = deliver(url, Path(directory), options.messages, options.persons, transport)
                if options.profile:
                    profile.enable()
                wall_s, cpu_s = uvloop.run(work)
                profile.disable()
            violations = sum(orders != sorted(orders) for orders in seen.values())
            rate = options.messages / wall_s
            best = max(best, rate)
            print(
                f"{rate:8,.0f} deliveries/s  {cpu_s / options.messages * 1e6:6.1f} us CPU each  "
                f"{len(seen)} persons  {violations} order violations",
                flush=True,
            )
            if violations:
                return 1
    if options.profile:
        pstats.Stats(profile).sort_stats("tottime").print_stats(45)
    print(json.dumps({"deliveries_per_s": round(best), "floor": FLOOR, "met": best >= FLOOR}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
