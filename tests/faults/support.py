"""What the fault scenarios share: their sizes, their row in the trust report, hubs, senders, receivers."""

from __future__ import annotations

import asyncio
import json
import os
import re
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from itertools import pairwise
from pathlib import Path
from typing import Any

from msgspec import Struct, to_builtins

from towpath.sandbox.serve import serve
from towpath.sandbox.sink import Received, WebhookSink

from ..app.support import KEY, SECRET, Hub, ask, post

FULL = os.environ.get("FAULTS") == "full"
"""The sizes of `make proof`; otherwise those of `make test`."""
PATIENCE_S = 900.0 if FULL else 60.0
RETRY = "{schedule: [0s, 1s, 1s, 1s, 2s, 2s, 5s, 5s, 10s, 10s, 10s, 10s], timeout: 30s}"


def size(short: int, full: int) -> int:
    """How much of a fault: the amount of `make test`, or that of `make proof`."""
    return full if FULL else short


class Row(Struct):
    """One line of docs/trust.md."""

    fault: str
    target: str
    command: str
    injected: str = ""
    measured: str = ""
    held: bool = False


@contextmanager
def scenario(fault: str, target: str, file: str) -> Iterator[Row]:
    """One fault; its row goes to the file that TRUST_REPORT names, whether the target was held or missed."""
    place = Path(file).relative_to(Path(__file__).parents[2])
    command = f"{'FAULTS=full ' if FULL else ''}pytest {place}"
    row = Row(fault, target, command)
    try:
        yield row
        row.held = True
    finally:
        if report := os.environ.get("TRUST_REPORT"):
            with Path(report).open("a", encoding="utf-8") as rows:
                rows.write(json.dumps(to_builtins(row), ensure_ascii=False) + "\n")


def write(
    directory: Path, urls: Mapping[str, str], retry: str = RETRY, text: str = "", kept: str = "./data"
) -> Path:
    """Write a configuration that delivers everything to each of these webhook URLs."""
    hooks = "".join(
        f'  {name}: {{type: webhook, url: "{url}", secret: "{SECRET}", allow_private: true}}\n'
        for name, url in urls.items()
    )
    file = directory / "towpath.yaml"
    file.write_text(
        f'version: 1\nserver: {{listen: "127.0.0.1:0"}}\nstorage: {kept}\nretry: {retry}\n'
        f"sources:\n  web: {{type: segment, write_keys: [{KEY}], trust: server}}\n"
        f"destinations:\n{hooks}connections:\n"
        f"  - {{from: web, to: [{', '.join(urls)}], start: earliest}}\n{text}"
    )
    return file


@asynccontextmanager
async def sink(kept: int = 500_000) -> AsyncIterator[tuple[WebhookSink, str]]:
    """Run a webhook receiver that remembers everything."""
    receiver = WebhookSink(kept=kept)
    async with serve(receiver) as url:
        yield receiver, url


@asynccontextmanager
async def started(file: Path, env: Mapping[str, str] | None = None) -> AsyncIterator[Hub]:
    """Run `towpath run` in a process of its own while the block lasts."""
    running = await asyncio.to_thread(Hub, file, env)
    try:
        yield running
    finally:
        await asyncio.to_thread(running.close)


def numbered(persons: Iterable[str], steps: Iterable[int], **properties: Any) -> list[dict[str, Any]]:
    """Make track calls, one of each person at each step, with message ids that name both."""
    people = list(persons)
    return [
        {
            "type": "track",
            "userId": person,
            "event": "Stepped",
            "messageId": f"{person}-{step}",
            "properties": {"step": step, **properties},
        }
        for step in steps
        for person in people
    ]


async def accept(address: str, calls: Sequence[Mapping[str, Any]], batch: int = 1000) -> None:
    """Post calls in order; each batch must be answered 200."""
    for start in range(0, len(calls), batch):
        status, _, text = await asyncio.to_thread(post, address, calls[start : start + batch])
        assert status == 200, text


def steps(received: Iterable[Received]) -> dict[str, list[int]]:
    """Steps of each person in the order they came, without those that a receiver refused."""
    found: dict[str, list[int]] = {}
    for item in received:
        if not item.refused:
            call = item.json()
            found.setdefault(call["userId"], []).append(call["properties"]["step"])
    return found


def inversions(found: Mapping[str, Sequence[int]]) -> int:
    """How often a step came after a later one of the same person."""
    return sum(earlier > later for each in found.values() for earlier, later in pairwise(each))


def repeats(found: Mapping[str, Sequence[int]]) -> int:
    """How many came more than once, each time counted."""
    return sum(count - 1 for each in found.values() for count in Counter(each).values())


async def until(condition: Callable[[], Any], patience_s: float = PATIENCE_S, step_s: float = 0.05) -> None:
    """Wait until something holds; fail when it never does."""
    deadline_s = time.monotonic() + patience_s
    while not condition():
        assert time.monotonic() < deadline_s, "it never came true"
        await asyncio.sleep(step_s)


async def balances(file: Path) -> dict[str, dict[str, Any]]:
    """The balance of each connection, counted anew from the rows."""
    rows = await ask(file, "GET", "/balance?recount=true")
    return {row["connection"]: row for row in rows}


async def settled(file: Path, connections: Iterable[str], patience_s: float = PATIENCE_S) -> None:
    """Wait until nothing waits on these connections."""
    wanted, deadline_s = set(connections), time.monotonic() + patience_s
    while any(row["waiting"] for row in await ask(file, "GET", "/balance") if row["connection"] in wanted):
        assert time.monotonic() < deadline_s, "deliveries went on waiting"
        await asyncio.sleep(0.2)


def memory_mb(pid: int, field: str = "VmRSS") -> float:
    """Resident memory of a process in MiB now; `VmHWM` for the most it ever was."""
    found = re.search(rf"{field}:\s+(\d+)", Path(f"/proc/{pid}/status").read_text(encoding="utf-8"))
    assert found is not None
    return int(found[1]) / 1024


def p99(values: Sequence[float]) -> float:
    """The value that one of a hundred exceeds."""
    return sorted(values)[min(len(values) - 1, int(len(values) * 0.99))]
