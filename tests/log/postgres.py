"""One PostgreSQL server for all tests of a process, started when first asked for."""

from __future__ import annotations

import atexit
import os
import subprocess
from functools import cache
from hashlib import blake2b
from pathlib import Path

import pytest

from towpath.clock import Clock
from towpath.log.apart import ApartStore
from towpath.log.postgres import PostgresLedger
from towpath.log.sqlite import SqliteStore
from towpath.testing.postgres import PostgresServer, programs


@cache
def server() -> PostgresServer:
    """The server; skips the test, loudly, where there is no PostgreSQL and none can be installed."""
    if programs() is None and os.geteuid() == 0:
        for command in (["apt-get", "update"], ["apt-get", "install", "-y", "postgresql"]):
            subprocess.run(command, check=False, stdout=subprocess.DEVNULL)
    if programs() is None:
        pytest.skip("NOT TESTED: PostgreSQL is not installed here (Debian: apt-get install postgresql)")
    found = PostgresServer(durable=False)  # processes die here, no machine does
    atexit.register(found.remove)
    found.create()
    found.start()
    return found


def schema_of(directory: Path) -> str:
    """A schema of its own for each directory."""
    return f"t_{blake2b(str(directory).encode(), digest_size=10).hexdigest()}"


async def begin_ledger(
    directory: Path, clock: Clock, *, inline: bool = False, durable: bool = True
) -> PostgresLedger:
    """The ledger that belongs to a directory."""
    return await PostgresLedger.begin(
        server().dsn, clock, schema_of(directory), inline=inline, durable=durable
    )


async def begin(directory: Path, clock: Clock, *, inline: bool = False, durable: bool = True) -> ApartStore:
    """A log in SQLite and a ledger in PostgreSQL."""
    log = await SqliteStore.begin(directory, clock, inline=inline, durable=durable)
    return await ApartStore.begin(log, await begin_ledger(directory, clock, inline=inline, durable=durable))
