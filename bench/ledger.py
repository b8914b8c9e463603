"""Settlements a second: the ledger in SQLite and the one on PostgreSQL, the same batches, both with fsync.

Run: python bench/ledger.py [--deliveries 60000]
"""

from __future__ import annotations

import argparse
import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from functools import partial
from pathlib import Path

from towpath.clock import SystemClock
from towpath.log import Done, Entry, Group, Lease, Parked, Settlement, Store
from towpath.log.apart import ApartStore
from towpath.log.postgres import PostgresLedger
from towpath.log.sqlite import SqliteStore
from towpath.message import Envelope, Record
from towpath.testing.postgres import PostgresServer

SIZES = (1, 30, 300)
CONNECTIONS = 3
PARKED = 500


async def leases(store: Store) -> Sequence[Lease]:
    found: list[Lease] = []
    for number in range(CONNECTIONS):
        await store.connect(f"c{number}", ["web"], "earliest")
        lease = await store.lease(f"c{number}", "bench", 3600.0)
        assert lease is not None
        found.append(lease)
    return found


async def measure(label: str, count: int, work: Callable[[], Awaitable[object]]) -> None:
    wall, cpu = time.perf_counter(), time.process_time()
    await work()
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    print(f"{label:58} {count / wall:9,.0f}/s {cpu / count * 1e6:7.1f} us CPU of ours each", flush=True)


async def settle(store: Store, lease: Lease, first: int, count: int, size: int) -> None:
    for start in range(first, first + count, size):
        now = time.time()
        done = [Done(p, 0, "delivered", code=200, ms=12, at=now) for p in range(start, start + size)]
        assert await store.settle(lease, Settlement(start + size - 1, done))


async def park(store: Store, lease: Lease, first: int) -> None:
    """Park rows a hundred at a time, and deliver them."""
    raw = b'{"type":"track","event":"Seen","userId":"ann","properties":{"total":12.5}}'
    for start in range(first, first + PARKED, 100):
        positions = range(start, start + 100)
        records = [Record(position, str(position), Envelope("web", 1.0), raw) for position in positions]
        rows = [Parked(r.position, 0, f"u:{r.position % 20}", 9.0, 1, 1.0, "503", r) for r in records]
        assert await store.settle(lease, Settlement(start + 99, parked=rows))
        done = [Done(position, 0, "delivered") for position in positions]
        assert await store.settle(lease, Settlement(start + 99, done))


async def run(name: str, store: Store, deliveries: int) -> None:
    held = await leases(store)
    first = 1
    for size in SIZES:
        count = max(size, min(deliveries, deliveries * size // 30) // size * size)
        work = partial(settle, store, held[0], first, count, size)
        await measure(f"{name}: {size} a settlement, one connection", count, work)
        first += count
    together = [settle(store, lease, first, deliveries // 300 * 300, 300) for lease in held]
    await measure(
        f"{name}: 300 a settlement, {CONNECTIONS} connections at once",
        CONNECTIONS * (deliveries // 300 * 300), lambda: asyncio.gather(*together),
    )  # fmt: skip
    first += deliveries
    await measure(f"{name}: parked and delivered", 2 * PARKED, lambda: park(store, held[0], first))


async def main(deliveries: int) -> None:
    clock = SystemClock()
    entries = [Entry("one", b"{}")]
    with tempfile.TemporaryDirectory() as directory:
        async with SqliteStore.open(Path(directory) / "sqlite", clock) as sqlite:
            await sqlite.append([Group(Envelope("web", 1.0), entries)])
            await run("sqlite", sqlite, deliveries)
        server = PostgresServer()
        try:
            server.create()
            server.start()
            log = await SqliteStore.begin(Path(directory) / "apart", clock)
            store = await ApartStore.begin(log, await PostgresLedger.begin(server.dsn, clock))
            await run("postgres", store, deliveries)
            await store.close()
        finally:
            server.remove()


if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--deliveries", type=int, default=60_000)
    asyncio.run(main(arguments.parse_args().deliveries))
