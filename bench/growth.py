"""What size costs: ingest on a log of ten million events beside an empty one, disk per event, recovery.

Run: python bench/growth.py [--millions 10] [--persons 1000000] [--seconds 5]; needs `wrk`; four minutes.
Floors: at least 80 % of the empty log's rate, 150 bytes an event batched or single, ready 3 s after kill -9.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import os
import sys
import tempfile
import time
from pathlib import Path
from random import Random

import uvloop

import ingest
from towpath.clock import SystemClock
from towpath.log import Entry, Group
from towpath.log.sqlite import SqliteStore
from towpath.message import Envelope

CALLERS = 64
KEPT_RATE, BYTES_AN_EVENT, RECOVERY_S = 0.8, 150, 3.0
EVENT = (
    '{"type":"track","messageId":"%s","userId":"user-%d","anonymousId":"%s","event":"%s","timestamp":'
    '"2026-01-01T10:11:12.345Z","properties":{"order_id":"o%d","total":12.5,"currency":"EUR","quantity":3,'
    '"category":"shoes/run","name":"Runner","tags":["a","b"],"vip":true},"context":{"ip":"203.0.113.7",'
    '"library":{"name":"analytics-python","version":"2.3.4"},"locale":"de-DE"}}'
)
NAMES = ("Product Viewed", "Order Completed", "Cart Viewed")


def group(chance: Random, persons: int, size: int) -> Group:
    """One request of a shop's traffic: the same shape every time, another person and ids in each event."""
    entries = []
    for _ in range(size):
        name, person = f"{chance.getrandbits(128):032x}", chance.randrange(persons)
        raw = EVENT % (name, person, f"{person * 7919:032x}", NAMES[person % 3], chance.randrange(10**9))
        entries.append(Entry(name, raw.encode()))
    return Group(Envelope("web", time.time()), entries)


async def fill(directory: Path, events: int, persons: int, size: int) -> float:
    """Append so many events, `size` a call; bytes on disk for each."""
    chance = Random(7)
    async with SqliteStore.open(directory, SystemClock()) as store:
        await store.connect("out", ["web"], "now")
        left = iter(range(events // size))

        async def call() -> None:
            for _ in left:
                await store.append([group(chance, persons, size)])

        await asyncio.gather(*[call() for _ in range(CALLERS)])
    return size_bytes(directory) / events


def size_bytes(directory: Path) -> int:
    """All files of a data directory."""
    return sum(file.stat().st_size for file in directory.rglob("*") if file.is_file())


def recovery_s(directory: Path) -> float:
    """Kill a server in the middle of its work; seconds until the next one has taken its first event."""
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=ingest.serve, args=(theirs, str(directory)), daemon=True)
    process.start()
    _, port, _ = ours.recv()
    path, body, _ = ingest.bodies()["batch"]
    with tempfile.TemporaryDirectory() as folder:
        ingest.drive(port, path, body, 2, Path(folder))
    process.kill()
    process.join()
    began = time.perf_counter()
    uvloop.run(first_event(directory))
    return time.perf_counter() - began


async def first_event(directory: Path) -> None:
    """Open the store and keep one event."""
    async with SqliteStore.open(directory, SystemClock()) as store:
        await store.append([group(Random(), 1, 1)])
        os.sync()


def row(name: str, seen: float, floor: float, *, most: bool) -> bool:
    """Print one figure beside its floor; whether it holds."""
    holds = seen <= floor if most else seen >= floor
    bound = f"({'at most' if most else 'at least'} {floor:g})"
    print(f"{name:46} {seen:12,.2f}  {bound} {'' if holds else 'MISSED'}")
    return holds


def main() -> int:
    """Print the figures; 1 when one misses its floor."""
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--millions", type=float, default=10)
    given.add_argument("--persons", type=int, default=1_000_000)
    given.add_argument("--seconds", type=int, default=5)
    options = given.parse_args()
    events = int(options.millions * 1_000_000)
    with tempfile.TemporaryDirectory() as folder:
        small, large, single = (Path(folder) / name for name in ("small", "large", "single"))
        began = time.perf_counter()
        batched_bytes = uvloop.run(fill(large, events, options.persons, 100))
        print(f"{events:,} events of {options.persons:,} persons kept in {time.perf_counter() - began:.0f} s")
        single_bytes = uvloop.run(fill(single, events // 100, options.persons, 1))
        empty = ingest.load("batch", small, options.seconds)
        full = ingest.load("batch", large, options.seconds)
        print(f"empty {empty.rate:,.0f} events/s, {empty.cpu_us:.1f} µs CPU, {empty.memory_mb:.0f} MB")
        print(f"full  {full.rate:,.0f} events/s, {full.cpu_us:.1f} µs CPU, {full.memory_mb:.0f} MB")
        holds = [
            row("ingest on the full log / on an empty one", full.rate / empty.rate, KEPT_RATE, most=False),
            row("bytes an event, 100 a call", batched_bytes, BYTES_AN_EVENT, most=True),
            row("bytes an event, one a call", single_bytes, BYTES_AN_EVENT, most=True),
            row("seconds from kill -9 to the next event kept", recovery_s(large), RECOVERY_S, most=True),
        ]
    return 0 if all(holds) else 1


if __name__ == "__main__":
    sys.exit(main())
