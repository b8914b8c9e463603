"""A simulated workspace behind a door that counts, delays and cuts, and a warehouse to replicate it into."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection
from typing import Any
from urllib.parse import urlsplit

from tests.replicate.fake_warehouse import FakeWarehouse
from towpath.budget import Budget
from towpath.http import Http, Reply, Request
from towpath.replicate.extract import replicate
from towpath.replicate.report import Options, Report, TableReport
from towpath.replicate.tables import REPLICATED
from towpath.sandbox.customerio import DEFAULT, CustomerIoSimulator
from towpath.sandbox.customerio_seed import populate
from towpath.sandbox.exchange import Incoming
from towpath.testing.fakes import FakeClock
from towpath.vendors.customerio import AppApi, app_credentials
from towpath.warehouse import Shape

NAMES = tuple(REPLICATED)
URL = "https://api.customer.io"


class Cut(BaseException):
    """What a killed process is to a test: nothing of it runs on."""


class Wire:
    """The network: the simulator's answers after `latency_s`. After `cut_after` requests it is over."""

    def __init__(self, simulator: CustomerIoSimulator, clock: FakeClock) -> None:
        self.simulator = simulator
        self.clock = clock
        self.latency_s = 0.0
        self.ranges = True
        self.cut_after: int | None = None
        self.asked: list[Request] = []
        self.answers: list[Reply] = []
        self.instead: Callable[[Request], Reply | None] = lambda request: None

    async def send(self, request: Request, *, timeout_s: float) -> Reply:
        if self.cut_after is not None and len(self.asked) >= self.cut_after:
            raise Cut
        self.asked.append(request)
        if self.latency_s:
            await self.clock.sleep(self.latency_s)
        reply = self.instead(request) or self._answer(request)
        self.answers.append(reply)
        return reply

    def _answer(self, request: Request) -> Reply:
        parts = urlsplit(request.url)
        headers = [(name.encode(), value.encode()) for name, value in request.headers.items()]
        headers.append((b"host", parts.netloc.encode()))
        body = request.body
        incoming = Incoming(request.method, parts.path, parts.query, headers, body, len(body))
        answer = self.simulator.answer(incoming)
        given = {name.decode().lower(): value.decode() for name, value in answer.headers}
        if "range" in request.headers and self.ranges and answer.status == 200:
            first, _, last = request.headers["range"].removeprefix("bytes=").partition("-")
            part = answer.body[int(first) : int(last) + 1]
            return Reply(206 if part else 416, given, part)
        cut = len(answer.body) > request.limit_bytes
        return Reply(answer.status, given, answer.body[: request.limit_bytes], cut)

    async def close(self) -> None:
        pass


class World:
    """Everything a run needs; `run` replicates tables on the virtual clock."""

    def __init__(self, *, per_s: float = 10_000, app_per_s: int = 10**9, **sizes: int) -> None:
        self.clock = FakeClock()
        self.simulator = CustomerIoSimulator(clock=self.clock, app_per_s=app_per_s)
        self.state = self.simulator.state
        populate(self.simulator, seed=1, **sizes)
        self.wire = Wire(self.simulator, self.clock)
        self.warehouse = FakeWarehouse()
        self.budget = Budget(self.clock, per_s * 60)

    @property
    def api(self) -> AppApi:
        http = Http(self.wire, self.clock, throttles={"app": self.budget})
        return AppApi(http, URL, app_credentials(DEFAULT.app_api_key))

    async def run(self, *tables: str, **options: Any) -> Report:
        """Replicate tables; raises `Cut` where the wire is cut."""
        self.wire.asked.clear()
        self.wire.answers.clear()
        given = {"people": "search", **options}
        return await self.clock.drive(
            unchained(replicate(self.api, self.warehouse, asked(tables, **given), clock=self.clock))
        )

    async def one(self, table: str, **options: Any) -> TableReport:
        """Replicate one table, and return what became of it."""
        (report,) = (await self.run(table, **options)).tables
        return report


def asked(tables: Collection[str], **options: Any) -> Options:
    shapes = tuple(Shape(REPLICATED[name].table) for name in tables or NAMES)
    return Options(replication="cio", workspace="main", shapes=shapes, **options)


async def unchained(work: Any) -> Any:
    """Run to the end, and leave no task of it behind, as the end of a process would."""
    before = asyncio.all_tasks()
    try:
        return await work
    finally:
        left = asyncio.all_tasks() - before - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)
