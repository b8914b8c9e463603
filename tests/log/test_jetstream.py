"""JetStreamLog keeps the contract of `Log`, and what it promises about partitions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

import pytest

from towpath.clock import Clock
from towpath.log import Log
from towpath.testing.log import LogContract

from .jetstream_server import NatsServer, running


@pytest.fixture(scope="module", autouse=True)
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[NatsServer]:
    with running(tmp_path_factory.mktemp("nats")) as started:
        TestLog.server = started
        yield started


class TestLog(LogContract):
    server: ClassVar[NatsServer]

    async def begin(self, directory: Path, clock: Clock) -> Log:
        return await self.server.log(directory.parent.name, clock)
