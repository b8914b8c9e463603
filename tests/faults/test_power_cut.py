"""Power cuts by the copied-image method: what had not reached the disk when the power went is gone.

The data directory lies on an ext4 in an image file. The server is stopped dead (SIGSTOP) and the image
copied: the copy is what the device held. The server is killed, and a new one starts on the copy. Each round
has images of its own names and gives its loop devices back: a reused name is mounted with a stale cache.
"""

from __future__ import annotations

import asyncio
import os
import random
import signal
from pathlib import Path

import msgspec
import pytest

from towpath.clock import SystemClock
from towpath.log.sqlite import SqliteStore
from towpath.sandbox.serve import Sandbox, sandbox

from ..app.support import KILL, TERM, Hub
from ..app.support import write as write_kustomer
from ..app.test_kill import CLIENTS, PEOPLE, arrived, in_flight, more, repeated
from .disks import attached, command, format_image, missing
from .senders import Senders
from .support import balances, inversions, scenario, settled, size

RATE = 600_000  # a minute: no bound here, where what is asked is what a crash does
ROUNDS = size(1, 10)
IMAGE_MB = 192
WHY_NOT = missing("losetup", "mkfs.ext4", "cp")


async def cut(directory: Path, file: Path, load: Senders, box: Sandbox, events: int) -> set[tuple[str, int]]:
    """Serve under load from one image, and cut the power; what was acknowledged until then."""
    image = directory / "before.img"
    format_image(image, IMAGE_MB)
    with attached(image, directory / "data"):
        running = await asyncio.to_thread(Hub, file)
        try:
            load.address = running.address
            load.start()
            await more(box, events)
            os.kill(running.pid, signal.SIGSTOP)
            await asyncio.to_thread(command, "cp", "--sparse=always", image, directory / "after.img")
            acknowledged = set(load.accepted)
            await asyncio.to_thread(running.end, KILL)
        finally:
            running.close()
    (directory / "data").rmdir()
    return acknowledged


async def stored(directory: Path) -> set[tuple[str | None, int]]:
    """Person and step of every event that a data directory holds."""
    async with SqliteStore.open(directory, SystemClock()) as store:
        calls = [msgspec.json.decode(record.raw) for record in await store.read(0, 1_000_000)]
    return {(call["userId"], call["properties"]["step"]) for call in calls if call["type"] == "track"}


async def recovered(directory: Path, file: Path, load: Senders) -> tuple[set[tuple[str | None, int]], bool]:
    """Start on what the disk held: the events found there, and whether the balance is right at the end."""
    with attached(directory / "after.img", directory / "data"):
        found = await stored(directory / "data")
        running = await asyncio.to_thread(Hub, file)
        try:
            load.address = running.address
            await load.stop()
            await settled(file, ["kustomer"])
            balance = (await balances(file))["kustomer"]
            await asyncio.to_thread(running.end, TERM)
        finally:
            running.close()
    sent = len(load.accepted) + CLIENTS * PEOPLE
    return found, balance["accepted"] == balance["delivered"] == sent and balance["difference"] == 0


@pytest.mark.skipif(bool(WHY_NOT), reason=WHY_NOT)
@pytest.mark.spec("D04", "D05", "P1", "P2", "P3")
async def test_what_was_acknowledged_is_on_the_disk(tmp_path: Path) -> None:
    chance, acknowledged, lost, disordered, doubled, allowed = random.Random(3), 0, 0, 0, 0, 0
    target = "0 acknowledged lost, 0 inversions, difference 0, repeats ≤ calls in flight at the cuts"
    with scenario("power cut (copied image)", target, __file__) as row:
        for number in range(ROUNDS):
            directory = tmp_path / f"cut-{number}"
            directory.mkdir()
            async with sandbox(requests_per_minute=RATE) as box:
                load = Senders(box)
                file = write_kustomer(directory, box, rate=RATE)
                before = await cut(directory, file, load, box, chance.randrange(5, 300))
                found, balanced = await recovered(directory, file, load)
                seen, allowed = arrived(box), allowed + in_flight(file)
                acknowledged, lost = acknowledged + len(before), lost + len(before - found)
                disordered, doubled = disordered + inversions(seen), doubled + repeated(box)
            row.injected = f"{number + 1} cuts under load, {acknowledged:,} events acknowledged before them"
            row.measured = f"{lost} lost, {disordered} inversions, {doubled} repeats (allowed {allowed})"
            assert balanced
            assert (lost, disordered) == (0, 0)
            for image in directory.glob("*.img"):
                image.unlink()
        assert doubled <= allowed
