"""Pages on their way: little is held, loads overlap with reading, who comes next is told of a failure."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import pytest

from tests.replicate.fake_warehouse import FakeWarehouse
from towpath.replicate import gathering
from towpath.replicate.gathering import Gathering, Held
from towpath.replicate.table_workspace import WORKSPACE
from towpath.testing.fakes import FakeClock
from towpath.warehouse import Load, Lost, Page, Shape

PAGE = Page(b'["203.0.113.1"]', wrap="ip")


class Bench:
    """A slow warehouse, and what gathers for it."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.held = Held()
        self.warehouse = FakeWarehouse()
        self.warehouse.clock, self.warehouse.load_s = self.clock, 1.0

    def gathering(self) -> Gathering:
        def made(pages: tuple[Page, ...], state: Mapping[str, str | None]) -> Load:
            return Load("ip_addresses", "main", "r1", pages, state=dict(state))

        return Gathering(self.warehouse, self.clock, self.held, made, lambda tally: {"place": "1"})

    async def prepare(self) -> None:
        table = next(one.table for one in WORKSPACE if one.name == "ip_addresses")
        await self.warehouse.prepare([Shape(table)])


@pytest.fixture
async def bench() -> Bench:
    made = Bench()
    await made.prepare()
    return made


@pytest.mark.spec("R054")
async def test_what_is_held_stays_small(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "BYTES", 100)
    monkeypatch.setattr(gathering, "HELD_BYTES", 400)
    most = 0

    async def bring(gathered: Gathering) -> None:
        nonlocal most
        for _ in range(40):
            await gathered.add([PAGE], 1)
            most = max(most, bench.held.bytes)

    async def table() -> None:
        async with bench.gathering() as gathered:
            await asyncio.gather(*(bring(gathered) for _ in range(4)))
            await gathered.settle()

    await bench.clock.drive(_all(table(), table(), table()))
    assert bench.held.bytes == 0
    assert most < 3 * (2 * 100 + 5 * len(PAGE.records))
    assert sum(len(load.pages) for load in bench.warehouse.loads) == 480


async def test_reading_goes_on_while_a_load_is_under_way(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gathering, "ROWS", 2)

    async def work() -> float:
        async with bench.gathering() as gathered:
            for _ in range(3):
                await gathered.add([PAGE], 1)
            return bench.clock.monotonic()

    assert await bench.clock.drive(work()) == 0.0


@pytest.mark.spec("R044")
async def test_what_trickles_in_is_loaded_after_two_seconds(bench: Bench) -> None:
    async with bench.gathering() as gathered:
        await gathered.add([PAGE], 1)
        await bench.clock.advance(1.9)
        assert not bench.warehouse.loads
        await bench.clock.advance(1.2)
        assert bench.warehouse.states["place"] == "1"


@pytest.mark.spec("R044")
async def test_a_state_without_rows_is_kept_too(bench: Bench) -> None:
    async with bench.gathering() as gathered:
        await gathered.add((), 0)
        await bench.clock.drive(gathered.settle())
    assert bench.warehouse.states["place"] == "1"
    assert not bench.warehouse.loads


async def test_a_load_that_failed_is_told_to_who_comes_next(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gathering, "ROWS", 1)
    bench.warehouse.lose_after = 0

    async def work() -> None:
        async with bench.gathering() as gathered:
            await gathered.add([PAGE], 1)
            await gathered.add([PAGE], 1)

    with pytest.raises(Lost):
        await bench.clock.drive(work())


async def _all(*work: object) -> None:
    await asyncio.gather(*work)  # type: ignore[call-overload]
