"""The registry of devices, filled with a million: reports, look-ups, an audience streamed, a sweep.

Run: python bench/devices.py [--devices 1000000]
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import random
import resource
import sys
import tempfile
import time
from collections.abc import Awaitable
from pathlib import Path

from msgspec.structs import astuple

from towpath.clock import SystemClock
from towpath.device import Address, Noted, Registered
from towpath.push.registry import Registry
from towpath.state import FILE
from towpath.state.devices import DeviceRow
from towpath.state.engine import open_engine
from towpath.state.tables import devices, metadata, push_outbox, push_people

PROJECT = "bench"
DAY_S = 86400.0
BATCH = 500
FLOORS = {"new": 5_000, "again": 5_000, "look-up": 10_000}
SWEEP_S = 5.0
AUDIENCE_MB = 300


def token(number: int) -> str:
    return f"{number:016x}:{random.Random(number).randbytes(64).hex()}"


def device(number: int) -> str:
    return f"{random.Random(-number).getrandbits(88):022x}"


def row(number: int, now: float, stale: int) -> DeviceRow:
    """Make one device of a person with two; the first `stale` were not reported for three months."""
    at = now - (90 * DAY_S if number < stale else (number % 40) * DAY_S)
    return DeviceRow(
        device(number), f"user-{number // 2}", claimed=True, kind="token", address=token(number),
        platform="android" if number % 2 else "ios", first_seen=at, registered_at=at, changed_at=at,
        received_at=at, cause=f"m-{number}", seen_at=at, told_at=at, app="shop", app_version="1.0",
        locale="de-AT", timezone="Europe/Vienna",
    )  # fmt: skip


def fill(path: Path, count: int, stale: int) -> None:
    """Fill in order of ids, and index at the end: it is not what is measured."""
    engine = open_engine(path)
    with engine.begin() as connection:
        metadata.create_all(connection, [devices, push_people, push_outbox])
        for index in devices.indexes:
            index.drop(connection)
    names, now = DeviceRow.__struct_fields__, time.time()
    places = ",".join("?" * (len(names) + 1))
    sql = f"INSERT INTO devices (project, {', '.join(names)}) VALUES ({places})"
    numbers = sorted(range(count), key=device)
    with engine.begin() as connection:
        for start in range(0, count, 10_000):
            some = numbers[start : start + 10_000]
            connection.exec_driver_sql(sql, [(PROJECT, *astuple(row(number, now, stale))) for number in some])
        for index in devices.indexes:
            index.create(connection)
    engine.dispose()


def reports(numbers: range, *, fresh: bool) -> list[list[Noted]]:
    now = time.time()
    made = [
        Noted(f"r-{fresh}-{number}", (Registered(
            device=device(number), person=f"user-{number // 2}", address=Address("token", token(number)),
            platform="android" if number % 2 else "ios", at=now,
        ),), now)
        for number in numbers
    ]  # fmt: skip
    return [made[start : start + BATCH] for start in range(0, len(made), BATCH)]


async def timed(work: Awaitable[object]) -> tuple[float, float]:
    wall, cpu = time.perf_counter(), time.process_time()
    await work
    return time.perf_counter() - wall, time.process_time() - cpu


async def apply_all(registry: Registry, batches: list[list[Noted]]) -> None:
    """Four batches at once, as the connection delivers them."""
    left = iter(batches)

    async def some() -> None:
        for batch in left:
            await registry.apply(batch)

    await asyncio.gather(some(), some(), some(), some())


async def look_up(registry: Registry, persons: list[str]) -> None:
    left = iter(persons)

    async def some() -> None:
        for person in left:
            assert len(await registry.of_person(person)) in (1, 2)

    await asyncio.gather(*[some() for _ in range(200)])


async def stream(registry: Registry) -> int:
    """Page through the audience with what is known of its people, as a campaign does."""
    after, total = "", 0
    while page := await registry.audience(after, BATCH):
        after, total = page[-1].id, total + len(page)
    return total


class Table:
    """Prints a line for each measure, and remembers whether one fell short."""

    def __init__(self) -> None:
        self.short = False

    def rate(self, name: str, floor: float, count: int, wall_s: float, cpu_s: float) -> None:
        reached = count / wall_s
        verdict = "ok" if reached >= floor else "SHORT"
        self.short |= reached < floor
        print(f"{name:44} {reached:10,.0f}/s   at least {floor:,.0f}/s   {verdict}   "
              f"{cpu_s / count * 1e6:6.1f} us CPU each", flush=True)  # fmt: skip

    def most(self, name: str, value: float, most: float, unit: str) -> None:
        verdict = "ok" if value <= most else "SHORT"
        self.short |= value > most
        print(f"{name:44} {value:10,.2f} {unit}   at most {most:,.0f} {unit}   {verdict}", flush=True)


async def run(path: Path, count: int, table: Table) -> None:
    engine = open_engine(path)
    registry = Registry(engine, PROJECT, SystemClock())
    sample, stale = max(BATCH, count // 50), count // 10
    chance = random.Random(1)
    for name, numbers in {"new": range(count, count + sample), "again": range(count - sample, count)}.items():
        batches = reports(numbers, fresh=name == "new")
        wall, cpu = await timed(apply_all(registry, batches))
        table.rate(f"register push, {name}, durable, {BATCH} a batch", FLOORS[name], sample, wall, cpu)
    persons = [f"user-{chance.randrange(stale // 2 + 1, count // 2)}" for _ in range(sample)]
    wall, cpu = await timed(look_up(registry, persons))
    table.rate("look-up by person, 200 at once", FLOORS["look-up"], sample, wall, cpu)
    before_mb = peak_mb()
    wall, cpu = await timed(stream(registry))
    print(f"{'audience streamed':44} {count / wall:10,.0f}/s   {cpu / count * 1e6:6.1f} us CPU each")
    table.most("memory while it was streamed", peak_mb(), AUDIENCE_MB, "MB")
    print(f"{'  of which the streaming itself':44} {peak_mb() - before_mb:10,.2f} MB")
    wall, _ = await timed(registry.sweep())
    left = (await registry.counts()).statuses
    assert left["removed"] == stale, left
    table.most(f"sweep of {stale:,} stale", wall, SWEEP_S, "s")
    engine.dispose()


def peak_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--devices", type=int, default=1_000_000)
    count = parser.parse_args().devices
    table = Table()
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / FILE
        filling = multiprocessing.get_context("spawn").Process(target=fill, args=(path, count, count // 10))
        filling.start()  # elsewhere, so that its memory is not counted
        filling.join()
        print(f"{count:,} devices, {path.stat().st_size / 1e6:,.0f} MB")
        asyncio.run(run(path, count, table))
    return int(table.short)


if __name__ == "__main__":
    sys.exit(main())
