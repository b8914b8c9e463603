"""The embedded log's rates: durable appends, settlements beside them, deduplication at size. About 15 s.

Run: python bench/log.py [--directory DIRECTORY] [--ids 10]
"""

from __future__ import annotations

import argparse
import asyncio
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from hashlib import blake2b
from pathlib import Path
from random import Random

from towpath.clock import SystemClock
from towpath.log import Done, Entry, Group, Settlement
from towpath.log.dedup import Deduplication
from towpath.log.runs import Span, write
from towpath.log.sqlite import SqliteStore
from towpath.message import Envelope

RANDOM = Random(7)
EVENTS_TEXT = """{"type":"track","messageId":"%s","userId":"user-%d","event":"Order Completed",\
"timestamp":"2026-01-01T10:11:12.345Z","properties":{"order_id":"o%d","total":%d.5,"currency":"EUR",\
"coupon":"SUMMER","quantity":3,"category":"shoes/run","name":"Runner","tags":["a","b"],"vip":true},\
"context":{"ip":"203.0.113.7","library":{"name":"analytics-python","version":"2.3.4"},\
"userAgent":"Mozilla/5.0 (X11; Linux x86_64)","locale":"de-DE","timezone":"Europe/Berlin"}}"""


def entry() -> Entry:
    message_id = f"{RANDOM.getrandbits(128):032x}"
    values = (message_id, RANDOM.randrange(20000), RANDOM.randrange(10**6), RANDOM.randrange(100))
    return Entry(message_id, (EVENTS_TEXT % values).encode())


@contextmanager
def measured(label: str, count: int) -> Iterator[None]:
    wall, cpu = time.perf_counter(), time.process_time()
    yield
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    memory = int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize() >> 20
    print(
        f"{label:50} {count / wall:10,.0f}/s {cpu / count * 1e6:7.2f} us CPU each {memory:6} MB", flush=True
    )


async def share(work: list[Group], workers: int, run: Callable[[Group], Awaitable[object]]) -> None:
    queue = iter(work)

    async def worker() -> None:
        for group in queue:
            await run(group)

    await asyncio.gather(*[worker() for _ in range(workers)])


def groups(count: int, size: int) -> list[Group]:
    return [Group(Envelope("web", time.time()), [entry() for _ in range(size)]) for _ in range(count)]


async def settle_beside(store: SqliteStore, work: list[Group]) -> None:
    lease = await store.lease("out", "bench", 60)
    assert lease is not None
    appending = asyncio.create_task(share(work, 16, lambda group: store.append([group])))
    with measured("settle 300 a time while appends run", 30_000):
        for first in range(1, 30_001, 300):
            now = time.time()
            done = [Done(p, 0, "delivered", code=200, ms=12, at=now) for p in range(first, first + 300)]
            await store.settle(lease, Settlement(first + 299, done))
    await appending


async def read_all(store: SqliteStore) -> None:
    last, after = store.last(), 0
    with measured("read in order, 500 a time", last):
        while records := await store.read(after, 500):
            after = records[-1].position


async def appends(directory: Path) -> None:
    store = await SqliteStore.begin(directory, SystemClock())
    await store.connect("out", ["web"], "earliest")
    for size, workers, count in ((100, 64, 1500), (100, 8, 400), (1, 64, 20_000)):
        work = groups(count, size)
        with measured(f"append {size} a call, {workers} callers, dedup on", size * count):
            await share(work, workers, lambda group: store.append([group]))
    await settle_beside(store, groups(300, 100))
    await read_all(store)
    with measured("balance", 1):
        assert all(balance.difference == 0 for balance in await store.balance())
    with measured("balance recounted from rows and blobs", store.last()):
        assert all(balance.difference == 0 for balance in await store.balance(recount=True))
    print(f"{'log.db':52} {(directory / 'log.db').stat().st_size / store.last():10.0f} bytes an event")
    start = time.perf_counter()
    await store.close()
    await (store := await SqliteStore.begin(directory, SystemClock())).append(groups(1, 1))
    print(f"{'close, open, first append':52} {time.perf_counter() - start:10.2f} s")
    await store.close()


def dedup_at_size(directory: Path, millions: int) -> None:
    """Deduplication alone with this many million ids on disk, asked about new ones."""
    directory.mkdir()
    now, step = time.time(), 2_000_000
    for i in range(millions * 1_000_000 // step):
        data = sorted([RANDOM.randbytes(16) for _ in range(step)])
        span = Span(i * step, (i + 1) * step, now, now)
        write(directory / f"{i + 1:08d}.run", span, [b"".join(data)])
    # in its own process, so that its memory is its own
    subprocess.run([sys.executable, __file__, "--ask", str(directory)], check=True)


def ask(directory: Path) -> None:
    dedup = Deduplication(directory, 7 * 86400, lambda task: task())
    start = time.perf_counter()
    dedup.load(time.time(), 1 << 60, lambda *_: iter(()))
    held = dedup.held
    label = f"dedup: open {held / 1e6:.0f} M ids, filter made again"
    print(f"{label:52} {time.perf_counter() - start:10.2f} s")
    dedup.save()
    start = time.perf_counter()
    dedup.load(time.time(), 1 << 60, lambda *_: iter(()))
    print(f"{'  with the filter saved':52} {time.perf_counter() - start:10.2f} s")
    work = [[group] for group in groups(1000, 100)]
    with measured(f"dedup: decide with {held / 1e6:.0f} M ids on disk", 100_000):
        for group in work:
            pending = dedup.begin(dedup.admit(group, time.time()))  # type: ignore[arg-type]
            dedup.finish(pending, 1 << 60)
    hasher = blake2b(b"web\0", digest_size=16)
    with measured("  of which hashing", 100_000):
        for group in work:
            for each in group[0].entries:
                copy = hasher.copy()
                copy.update(each.message_id.encode())
                copy.digest()


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--directory", help="where to write, on the disk to be measured")
    arguments.add_argument("--ids", type=int, default=4, help="million ids for the deduplication part")
    arguments.add_argument("--ask", type=Path, help=argparse.SUPPRESS)
    given = arguments.parse_args()
    if given.ask is not None:
        ask(given.ask)
        return
    with tempfile.TemporaryDirectory(dir=given.directory) as directory:
        asyncio.run(appends(Path(directory) / "data"))
        dedup_at_size(Path(directory) / "ids", given.ids)


if __name__ == "__main__":
    main()
