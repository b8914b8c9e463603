"""The four server SDKs behind one way to drive them: calls of the Segment spec in, errors out."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Callable, Mapping, Sequence
from copy import deepcopy
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

import rudderstack.analytics.client as rudder
import segment.analytics.client as segment

from .npm import NODE

Calls = Sequence[Mapping[str, Any]]

_DRIVER = Path(__file__).parent / "drive.cjs"
_SNAKE = {
    "userId": "user_id",
    "anonymousId": "anonymous_id",
    "groupId": "group_id",
    "previousId": "previous_id",
}


class Server(NamedTuple):
    """One SDK: its name, whether it gzips by itself, and whether it sends one batch after the other."""

    name: str
    client: str
    gzips: bool
    in_turn: bool = True

    @property
    def on_node(self) -> bool:
        return self.name.endswith("node")


SERVERS = [
    Server("segment-python", "analytics-python/2.4.0", gzips=False),
    Server("rudder-python", "analytics-python/2.1.9", gzips=True),
    Server("segment-node", "analytics-node-next/latest", gzips=False, in_turn=False),
    Server("rudder-node", "analytics-node/3.0.13", gzips=True),
]


async def drive(
    server: Server, modules: Callable[[], Path], url: str, key: str, calls: Calls, *, batch: int = 100
) -> list[str]:
    """Make these calls and end as a program ends, with all sent or given up; the SDK's errors."""
    if server.on_node:
        return await _on_node(server, modules(), url, key, calls, batch)
    return await asyncio.to_thread(_on_python, server, url, key, calls, batch)


async def _on_node(server: Server, modules: Path, url: str, key: str, calls: Calls, batch: int) -> list[str]:
    options = {"flushAt": batch, "flushInterval": 60_000}
    sdk = server.name.partition("-")[0]
    plan = {"sdk": sdk, "url": url, "key": key, "calls": calls, "options": options}
    process = await asyncio.create_subprocess_exec(
        NODE,
        _DRIVER,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "NODE_PATH": str(modules)},
    )
    try:
        said, complaints = await asyncio.wait_for(process.communicate(json.dumps(plan).encode()), 60)
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, complaints.decode()
    errors: list[str] = json.loads(said)
    return errors


def _on_python(server: Server, url: str, key: str, calls: Calls, batch: int) -> list[str]:
    errors: list[str] = []
    made = segment.Client if server.name.startswith("segment") else rudder.Client
    client = made(
        key,
        host=url,
        on_error=lambda error, items: errors.append(str(error)),
        timeout=10,
        upload_size=batch,
        upload_interval=0.2,
    )
    for call in deepcopy(list(calls)):  # both write their library into the context they are given
        given = {_SNAKE.get(name, name): value for name, value in call.items() if name != "type"}
        if "timestamp" in given:
            given["timestamp"] = datetime.fromisoformat(given["timestamp"])
        getattr(client, call["type"])(**given)
    client.flush()
    client.shutdown()
    return errors
