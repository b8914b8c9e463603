"""How long a batch of events takes to be durable, below saturation: calls come at fixed times, ready or not.

Run: python bench/latency.py [--seconds 15] [--share 0.7]; needs `wrk`, which finds the rate at saturation.
Then calls are due at that share of the rate; one that finds the server busy counts its waiting too.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import os
import sys
import tempfile
import time
import uuid
from pathlib import Path

import uvloop

import ingest

GOAL_MS = 50
HEAD = b"POST /v1/batch HTTP/1.1\r\nhost: bench\r\nauthorization: Basic d2s6\r\ncontent-length: %d\r\n\r\n"


class Caller:
    """One connection that sends a call and waits for its answer."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer

    async def call(self, body: bytes) -> None:
        """Send a batch; returns with the whole answer. Ends the bench on any status but 200."""
        self.writer.writelines((HEAD % len(body), body))
        head = await self.reader.readuntil(b"\r\n\r\n")
        if not head.startswith(b"HTTP/1.1 200 "):
            raise SystemExit(head.decode())
        length = head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]
        await self.reader.readexactly(int(length))


async def paced(port: int, calls_per_s: float, seconds: int) -> list[float]:
    """Make a call whenever one is due; seconds from then to the answer, sorted."""
    streams = [await asyncio.open_connection("127.0.0.1", port) for _ in range(ingest.CONNECTIONS)]
    idle: asyncio.Queue[Caller] = asyncio.Queue()
    for stream in streams:
        idle.put_nowait(Caller(*stream))
    _, batch, _ = ingest.bodies()["batch"]
    template = json.dumps(batch, ensure_ascii=False, separators=(",", ":")).encode()
    run, began, took = uuid.uuid4().hex[:8], time.perf_counter() + 0.1, []

    async def one(number: int) -> None:
        due = began + number / calls_per_s
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        caller = await idle.get()
        await caller.call(template.replace(b"MESSAGE_ID__", b"%s%012x" % (run.encode(), number)))
        idle.put_nowait(caller)
        took.append(time.perf_counter() - due)

    async with asyncio.TaskGroup() as group:
        for number in range(int(calls_per_s * seconds)):
            group.create_task(one(number))
    for _, writer in streams:
        writer.close()
    return sorted(took)


def measure(share: float, seconds: int, folder: Path) -> list[float]:
    """Find the rate at saturation, then the times at a share of it, against one server."""
    ours, theirs = multiprocessing.Pipe()
    server = multiprocessing.Process(target=ingest.serve, args=(theirs, str(folder / "data")), daemon=True)
    server.start()
    _, port, _ = ours.recv()
    path, body, events = ingest.bodies()["batch"]
    requests, elapsed = ingest.drive(port, path, body, 5, folder)
    rate = requests / elapsed
    print(f"saturated: {rate * events:,.0f} events/s; now {share:.0%} of that: {share * rate * events:,.0f}")
    took = uvloop.run(paced(port, share * rate, seconds))
    ours.send("end")
    ours.recv()
    server.join()
    return took


def main() -> int:
    """Print the figures beside the goal; 1 when p99 misses it."""
    given = argparse.ArgumentParser(description=__doc__)
    given.add_argument("--seconds", type=int, default=15)
    given.add_argument("--share", type=float, default=0.7)
    options = given.parse_args()
    print(f"latency, load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores")
    with tempfile.TemporaryDirectory() as folder:
        took = measure(options.share, options.seconds, Path(folder))
    p50, p99, most = (took[int((len(took) - 1) * part)] * 1e3 for part in (0.5, 0.99, 1))
    print(f"{len(took):,} calls: p50 {p50:.1f} ms, p99 {p99:.1f} ms (goal {GOAL_MS}), max {most:.0f} ms")
    return int(p99 > GOAL_MS)


if __name__ == "__main__":
    sys.exit(main())
