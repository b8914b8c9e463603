"""A served Kustomer simulator, a client that speaks to it over loopback, and a clock that tests set."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable, Mapping
from typing import IO, Any, NamedTuple

import aiohttp
import pytest
from yarl import URL

from towpath.sandbox.kustomer import KustomerSimulator
from towpath.sandbox.serve import serve

KEY = "key-of-everything"


class SetClock:
    """Time stands where a test put it; a sleep is over at once, is noted, and moves the time on."""

    def __init__(self) -> None:
        self.at = 1_767_261_600.0
        self.slept: list[float] = []
        self._random = random.Random(1)

    def now(self) -> float:
        return self.at

    def monotonic(self) -> float:
        return self.at

    async def sleep(self, delay_s: float) -> None:
        self.slept.append(delay_s)
        self.at += delay_s
        await asyncio.sleep(0)

    def uniform(self, low: float, high: float) -> float:
        return self._random.uniform(low, high)

    def token(self, size: int) -> bytes:
        return self._random.randbytes(size)


async def until(condition: Callable[[], object]) -> None:
    """Wait for something another task does; ten seconds are a failure."""
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - what is waited for has no event
            await asyncio.sleep(0.001)


class Got(NamedTuple):
    """An answer: `json` is None where there is no body."""

    status: int
    headers: Mapping[str, str]
    json: Any

    @property
    def error(self) -> Any:
        return self.json["errors"][0]

    @property
    def id(self) -> str:
        return str(self.json["data"]["id"])

    @property
    def attributes(self) -> Any:
        return self.json["data"]["attributes"]


class Client:
    """Speaks to one server; `json` is encoded, `data` is sent as it is."""

    def __init__(self, session: aiohttp.ClientSession, url: str) -> None:
        self.session = session
        self.url = url

    async def __call__(
        self,
        method: str,
        path: str,
        json: Any = None,
        *,
        key: str = KEY,
        data: bytes | IO[bytes] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Got:
        given = {"authorization": f"Bearer {key}", **(headers or {})}
        if data is not None:
            given.setdefault("content-type", "application/json")
        url = URL(self.url + path, encoded=True)
        async with self.session.request(method, url, json=json, data=data, headers=given) as reply:
            body = await reply.read()
            return Got(reply.status, reply.headers, await reply.json() if body else None)

    async def create(self, **attributes: Any) -> str:
        """Create a customer and return its id."""
        got = await self("POST", "/v1/customers", attributes)
        assert got.status == 201, got.json
        return got.id

    async def track(self, identity: Mapping[str, Any], name: str, **meta: Any) -> Got:
        """Post an identityEvent."""
        body = {"identity": dict(identity), "event": {"name": name, "meta": meta}}
        return await self("POST", "/v1/tracking/identityEvent", body)


@pytest.fixture
def clock() -> SetClock:
    return SetClock()


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=20)) as opened:
        yield opened


@pytest.fixture
def kustomer(clock: SetClock) -> KustomerSimulator:
    return KustomerSimulator(clock=clock, api_keys={KEY: ["org"]}, control=True)


@pytest.fixture
async def client(kustomer: KustomerSimulator, session: aiohttp.ClientSession) -> AsyncIterator[Client]:
    async with serve(kustomer) as url:
        yield Client(session, url)
