"""Ingest end to end: HTTP → checked → durable in SQLite → 200, in batches of 100 and one by one.

Run with `python bench/ingest.py [seconds]`; needs `wrk` on the path. The floors are 100,000 events/s in
batches and 10,000 single requests/s on two cores, load generator included.
"""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import random
import re
import shutil
import subprocess
import sys
import tempfile
import time
import uuid
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, NamedTuple

import uvicorn

from towpath.clock import SystemClock
from towpath.ingest import Ingest
from towpath.ingest.protocol import BoundedHttp
from towpath.log.sqlite import SqliteStore
from towpath.sources.segment import SegmentSource

BATCH = 100
CONNECTIONS = 64
FLOORS = {"batch": 100_000, "single": 10_000}
# wrk sends one of the prepared bodies after the other with ids of its own, so that nothing is a duplicate.
SCRIPT = """
local f = io.open("%s", "rb"); local body = f:read("*a"); f:close()
local thread, n = 0, 0
function setup(t) t:set("thread", thread); thread = thread + 1 end
function request()
  n = n + 1
  local id = string.format("%s%%02x%%010x", thread, n)
  return wrk.format("POST", "%s", {["Authorization"] = "Basic d2s6"}, (string.gsub(body, "MESSAGE_ID__", id)))
end
"""


def event(chance: random.Random, number: int) -> dict[str, Any]:
    """One track event of about 550 bytes with ten properties and an unknown field."""
    properties = {
        "order_id": f"o{number}",
        "total": round(chance.random() * 100, 2),
        "currency": "EUR",
        "coupon": "SUMMER",
        "quantity": chance.randrange(9),
        "category": "shoes/run",
        "name": "Runner € 42",
        "nested": {"a": 1, "b": "x"},
        "tags": ["a", "b"],
        "vip": True,
    }
    return {
        "type": "track",
        "messageId": f"MESSAGE_ID__-{number:03d}-{uuid.UUID(int=chance.getrandbits(128))}",
        "userId": f"user-{chance.randrange(20_000)}",
        "anonymousId": str(uuid.UUID(int=chance.getrandbits(128))),
        "event": chance.choice(["Product Viewed", "Order Completed", "Cart Viewed"]),
        "timestamp": "2026-11-21T10:11:12.345Z",
        "originalTimestamp": "2026-11-21T10:11:12.345Z",
        "properties": properties,
        "context": {"ip": "203.0.113.7", "locale": "de-DE", "library": {"name": "py", "version": "2.3"}},
        "x_custom": "keep me",
    }


def bodies() -> dict[str, tuple[str, Any, int]]:
    """Name → path, body, events in it."""
    chance = random.Random(7)
    batch = [event(chance, number) for number in range(BATCH)]
    return {
        "batch": ("/v1/batch", {"batch": batch, "sentAt": "2026-11-21T10:11:13.000Z"}, BATCH),
        "single": ("/v1/track", event(chance, 1), 1),
    }


async def _serve(pipe: Connection, directory: str) -> None:
    clock = SystemClock()
    async with SqliteStore.open(Path(directory), clock) as store:
        ingest = Ingest(store, {"web": SegmentSource.model_validate({"write_keys": ["wk"]})}, clock)
        config = uvicorn.Config(
            ingest, host="127.0.0.1", port=0, http=BoundedHttp, loop="uvloop", lifespan="off", log_config=None
        )
        server = uvicorn.Server(config)
        # Bound and listening before it serves: the first requests wait in the socket's queue.
        listener = config.bind_socket()
        listener.listen(1024)
        serving = asyncio.create_task(server.serve([listener]))
        pipe.send((os.getpid(), listener.getsockname()[1], store.last()))
        await asyncio.to_thread(pipe.recv)
        server.should_exit = True
        await serving
        counts = await store.counts()
        pipe.send((store.last(), counts["web"]["duplicates"]))


def serve(pipe: Connection, directory: str) -> None:
    """Serve until told to end; tells (process, port, records), at the end (records, duplicates)."""
    import uvloop

    uvloop.run(_serve(pipe, directory))


def cpu_s(pid: int) -> float:
    """CPU seconds a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def memory_mb(pid: int) -> float:
    """Highest resident memory of a process, in MB."""
    status = Path(f"/proc/{pid}/status").read_text(encoding="utf-8")
    found = re.search(r"VmHWM:\s+(\d+)", status)
    return int(found[1]) / 1024 if found else 0.0


def drive(port: int, path: str, body: Any, seconds: int, folder: Path) -> tuple[int, float]:
    """Load one path with wrk; answers requests done and seconds taken. Any status but 200 ends the bench."""
    text, script = folder / "body.json", folder / "load.lua"
    text.write_text(json.dumps(body, ensure_ascii=False, separators=(",", ":")), encoding="utf-8")
    script.write_text(SCRIPT % (text, uuid.uuid4().hex[:8], path), encoding="utf-8")
    command = [
        "wrk",
        "-t1",
        f"-c{CONNECTIONS}",
        f"-d{seconds}s",
        "--latency",
        "-s",
        str(script),
        f"http://127.0.0.1:{port}{path}",
    ]
    said = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    done = re.search(r"(\d+) requests in ([\d.]+)s", said)
    if not done or "Non-2xx" in said or "Socket errors" in said:
        raise SystemExit(said)
    print("   ", " ".join(line.strip() for line in said.splitlines() if re.match(r"\s+(50|99)%", line)))
    return int(done[1]), float(done[2])


class Figures(NamedTuple):
    """What one load showed: events per second, CPU µs per event, the most memory in MB."""

    rate: float
    cpu_us: float
    memory_mb: float


def load(name: str, directory: Path, seconds: int) -> Figures:
    """Drive one kind of load against a server of its own on this data directory."""
    path, body, events = bodies()[name]
    ours, theirs = multiprocessing.Pipe()
    process = multiprocessing.Process(target=serve, args=(theirs, str(directory)), daemon=True)
    process.start()
    pid, port, known = ours.recv()
    before = cpu_s(pid)
    with tempfile.TemporaryDirectory() as folder:
        requests, took = drive(port, path, body, seconds, Path(folder))
    spent, memory = cpu_s(pid) - before, memory_mb(pid)
    ours.send("end")
    records, duplicates = ours.recv()
    process.join()
    if duplicates or records - known < requests * events:
        raise SystemExit(f"{records - known} records, {duplicates} duplicates of {requests * events} events")
    return Figures(requests * events / took, spent / requests / events * 1e6, memory)


def main() -> None:
    """Print the figures; exit 1 below a floor."""
    if not shutil.which("wrk"):
        raise SystemExit("wrk is not on the path (Debian: apt install wrk)")
    seconds = int(sys.argv[1]) if len(sys.argv) > 1 else 5
    started, low = time.strftime("%Y-%m-%d %H:%M"), False
    print(f"ingest, {started}, load {os.getloadavg()[0]:.1f}, {os.cpu_count()} cores")
    for name, floor in FLOORS.items():
        with tempfile.TemporaryDirectory() as folder:
            seen = load(name, Path(folder) / "data", seconds)
        low = low or seen.rate < floor
        figures = f"{seen.rate:9,.0f} events/s  {seen.cpu_us:6.1f} µs CPU per event  {seen.memory_mb:5.0f} MB"
        print(f"{name:7} {figures}  (floor {floor:,})")
    sys.exit(low)


if __name__ == "__main__":
    main()
