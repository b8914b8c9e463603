"""What the tests of the whole program stand on: a sandbox, a configuration, a hub here or in a process."""

from __future__ import annotations

import asyncio
import base64
import http.client
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

from towpath.cli.client import Client
from towpath.config import load
from towpath.sandbox.kustomer import DEFAULT_KEY
from towpath.sandbox.serve import Sandbox, sandbox
from towpath.secrets import stored
from towpath.serve import Serving, serving

KEY = "wk_test"
SECRET = "whsec_c2VjcmV0LW9mLWEtdGVzdC1zZWNyZXQtb2YtYS10ZXN0"
RATE = 60_000
PATIENCE_S = 30.0
TOWPATH = (sys.executable, "-c", "from towpath.cli import main; main()")

YAML = """\
version: 1
server: {{listen: "127.0.0.1:0"}}
storage: ./data
sources:
  web: {{type: segment, write_keys: [{key}], trust: server}}
destinations:
  kustomer: {{type: kustomer, api_key: {api_key}, base_url: "{kustomer}", rate: {rate}}}
connections:
  - {{from: web, to: [kustomer], start: earliest}}
"""
HOOK = """\
version: 1
server: {{listen: "127.0.0.1:0"}}
storage: ./data
sources:
  web: {{type: segment, write_keys: [{key}], trust: server}}
destinations:
  hook: {{type: webhook, url: "{webhook}/hook", secret: "{secret}", allow_private: true}}
connections:
  - {{from: web, to: [hook], start: earliest}}
"""


def offline(directory: Path, listen: str = "127.0.0.1:0") -> Path:
    """Write a configuration whose destination is never there."""
    text = HOOK.format(key=KEY, secret=SECRET, webhook="http://127.0.0.1:9")
    file = directory / "towpath.yaml"
    file.write_text(text.replace("127.0.0.1:0", listen))
    return file


def write(directory: Path, box: Sandbox, text: str = YAML, **values: Any) -> Path:
    """Write a configuration that points at the sandbox."""
    given = {"key": KEY, "api_key": DEFAULT_KEY, "rate": RATE, "secret": SECRET, **values}
    file = directory / "towpath.yaml"
    file.write_text(text.format(kustomer=box.kustomer_url, webhook=box.webhook_url, **given))
    return file


@asynccontextmanager
async def hub(file: Path) -> AsyncIterator[Serving]:
    """Serve a configuration in this loop."""
    async with serving(load(file, secrets=stored), lambda: load(file, secrets=stored)) as running:
        yield running


@asynccontextmanager
async def world(
    directory: Path, text: str = YAML, **values: Any
) -> AsyncIterator[tuple[Serving, Sandbox, Path]]:
    """Run a sandbox and a hub that delivers to it."""
    async with sandbox(requests_per_minute=RATE) as box:
        file = write(directory, box, text, **values)
        async with hub(file) as running:
            yield running, box, file


def post(
    address: str, calls: Sequence[Mapping[str, Any]], key: str = KEY, headers: Mapping[str, str] | None = None
) -> tuple[int, dict[str, str], str]:
    """Post a batch over HTTP: status, headers and body of the answer."""
    connection = http.client.HTTPConnection(address, timeout=30)
    credentials = base64.b64encode(f"{key}:".encode()).decode()
    try:
        body = json.dumps({"batch": calls})
        connection.request(
            "POST", "/v1/batch", body, {"authorization": f"Basic {credentials}", **(headers or {})}
        )
        response = connection.getresponse()
        return response.status, dict(response.getheaders()), response.read().decode()
    finally:
        connection.close()


async def send(address: str, *calls: Mapping[str, Any], key: str = KEY) -> tuple[int, dict[str, str], str]:
    """Post a batch beside the loop."""
    return await asyncio.to_thread(post, address, calls, key)


def track(person: str, event: str = "Clicked", **properties: Any) -> dict[str, Any]:
    """Make one track call."""
    return {"type": "track", "userId": person, "event": event, "properties": properties}


async def ask(file: Path, method: str, where: str, body: Mapping[str, Any] | None = None) -> Any:
    """Call the admin API beside the loop, as the CLI does."""
    return await asyncio.to_thread(lambda: Client(file).call(method, where, body))


async def until(condition: Callable[[], Any], patience_s: float = PATIENCE_S) -> None:
    """Wait until something holds; fail when it never does."""
    deadline = time.monotonic() + patience_s
    while True:
        found = condition()
        if isinstance(found, Awaitable):
            found = await found
        if found:
            return
        assert time.monotonic() < deadline, "it never came true"
        await asyncio.sleep(0.02)


async def delivered(file: Path, recount: bool = False) -> dict[str, Any]:
    """Wait until nothing waits on the only connection; its balance."""
    rows: list[dict[str, Any]] = []

    async def settled() -> bool:
        rows[:] = await ask(file, "GET", f"/balance?recount={'true' if recount else ''}")
        return not any(row["waiting"] for row in rows)

    await until(settled)
    return rows[0]


class Hub:
    """`towpath run` in a process of its own."""

    def __init__(self, file: Path, env: Mapping[str, str] | None = None) -> None:
        self.file = file
        self._errors = (file.parent / "stderr").open("ab")
        self._process = subprocess.Popen(
            [*TOWPATH, "run", "--json", "--config", str(file)],
            stdout=subprocess.PIPE,
            stderr=self._errors,
            env={**os.environ, **(env or {})},
        )
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            self.close()
            raise AssertionError((file.parent / "stderr").read_text())
        self.address: str = json.loads(line)["events"]

    @property
    def pid(self) -> int:
        return self._process.pid

    def end(self, number: int) -> int:
        """Send a signal and wait for the end; the exit code."""
        self._process.send_signal(number)
        try:
            return self._process.wait(60)
        finally:
            self.close()

    def close(self) -> None:
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait(60)
        if self._process.stdout is not None:
            self._process.stdout.close()
        self._errors.close()


@contextmanager
def process(file: Path, env: Mapping[str, str] | None = None) -> Iterator[Hub]:
    """Run `towpath run` while the block lasts."""
    running = Hub(file, env)
    try:
        yield running
    finally:
        running.close()


def run(*words: str, cwd: Path, stdin: bytes = b"", **env: str) -> subprocess.CompletedProcess[bytes]:
    """Run one command to its end in a process of its own."""
    return subprocess.run(
        [*TOWPATH, *words],
        cwd=cwd,
        input=stdin,
        capture_output=True,
        check=False,
        timeout=120,
        env={**os.environ, **env},
    )


KILL, TERM, HUP = signal.SIGKILL, signal.SIGTERM, signal.SIGHUP
