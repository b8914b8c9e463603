"""Appends and settles as fast as it can until it is killed; prints the ids it was told are kept."""

from __future__ import annotations

import asyncio
import sys
import uuid
from pathlib import Path

from towpath.clock import SystemClock
from towpath.log import Done, Group, Settlement
from towpath.log.sqlite import SqliteStore
from towpath.message import Envelope
from towpath.testing.ledger import lease_of, park
from towpath.testing.log import entry


async def appending(store: SqliteStore) -> None:
    while True:
        ids = [uuid.uuid4().hex for _ in range(7)]
        await store.append([Group(Envelope("web", SystemClock().now()), [entry(i) for i in ids])])
        print(" ".join(ids), flush=True)


async def settling(store: SqliteStore) -> None:
    lease = await lease_of(store)
    progress = await store.progress(lease)
    for key in sorted(progress.parked):
        await store.settle(lease, Settlement(progress.cursor, [Done(*key, "delivered")]))
    after = progress.cursor
    while True:
        await store.wait(after)
        records = await store.read(after, 50)
        after = records[-1].position
        done = [Done(record.position, 0, "delivered") for record in records if record.position % 5]
        parked = [park(record) for record in records if not record.position % 5]
        await store.settle(lease, Settlement(after, done, parked=parked))


async def main() -> None:
    store = await SqliteStore.begin(Path(sys.argv[1]), SystemClock())
    await store.connect("out", ["web"], "earliest")
    await asyncio.gather(settling(store), *[appending(store) for _ in range(8)])


asyncio.run(main())
