"""Whether a NATS server forces to disk before it acknowledges, which no client can see on its own connection.

Looked for with nats-server 2.15.1: `INFO`, `$JS.API.INFO`, `$JS.API.STREAM.INFO`, `$SYS.REQ.USER.INFO` and
`$SYS.REQ.ACCOUNT.PING.STATZ` do not hold `sync_interval`. `/jsz?config=1` does (`config.sync_always`), on the
monitoring port, or as `$SYS.REQ.SERVER.PING.JSZ` for a user of the system account.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import msgspec
from msgspec import Struct

from ...errors import TowpathError
from ...http import Request, TransportError
from ...transport import PyreqwestTransport

Promise: TypeAlias = Literal["always", "relaxed"]
OLDEST = (2, 14)
"""Atomic batches are since 2.12; faults of 2.12 that lose data were repaired up to 2.14."""
_FIX = "set `sync_interval: always` in the server's `jetstream` block and start it again"


class _Config(Struct):
    sync_always: bool = False
    sync_interval: int = 0


class _Statement(Struct):
    server_id: str = ""
    config: _Config | None = None


_statement = msgspec.json.Decoder(_Statement).decode


class NotDurable(TowpathError):
    """The server acknowledges what a power cut would take back, or it is not known that it does not."""


class Durability:
    """Confirms each server once, by its id, which is a new one after every start."""

    def __init__(self, promise: Promise, monitors: Sequence[str]) -> None:
        self._promise = promise
        self._monitors = monitors
        self._confirmed: set[str] = set()

    async def confirm(self, information: Mapping[str, Any]) -> None:
        """Raise `NotDurable` unless the server of this `INFO` is known to force to disk."""
        name = str(information.get("server_id", ""))
        if name in self._confirmed:
            return
        _check_version(str(information.get("version", "0")))
        if self._promise == "always":
            _check(await self._statement_of(name))
        self._confirmed.add(name)

    async def _statement_of(self, server_id: str) -> _Statement:
        """What the monitoring port of this very server says."""
        transport, failures = PyreqwestTransport(), []
        try:
            for monitor in self._monitors:
                try:
                    reply = await transport.send(Request("GET", f"{monitor}/jsz?config=1"), timeout_s=5)
                    if (statement := _statement(reply.body)).server_id == server_id:
                        return statement
                    failures.append(f"{monitor} is the monitoring port of another server")
                except (TransportError, msgspec.DecodeError) as error:
                    failures.append(f"{monitor}: {error}")
        finally:
            await transport.close()
        raise NotDurable(
            "it is not known whether the NATS server forces events to disk before it acknowledges them",
            code="E5041",
            why="; ".join(failures) or "a NATS connection does not tell, and no monitoring port is given",
            fix="name the server's monitoring URL (`http: 127.0.0.1:8222` in its configuration); or accept "
            'with `durability="relaxed"` that a power cut takes back acknowledged events',
            data="Nothing was written.",
        )


def _check(statement: _Statement) -> None:
    config = statement.config or _Config()
    if not config.sync_always:
        raise NotDurable(
            "the NATS server acknowledges events before they are on disk",
            code="E5040",
            why=f"its sync_interval is {config.sync_interval / 1e9:g} s: a power cut takes back what was "
            "acknowledged since then, or the whole stream",
            fix=_FIX,
            data="Nothing was written.",
        )


def _check_version(version: str) -> None:
    numbers = tuple(int(part) for part in version.split("-")[0].split(".")[:2] if part.isdigit())
    if numbers < OLDEST:
        raise TowpathError(
            f"the NATS server is too old: {version}",
            code="E5042",
            why="atomic batches that survive a crash need 2.14 or newer",
            fix="install nats-server 2.14 or newer",
            data="Nothing was written.",
        )
