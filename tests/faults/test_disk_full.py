"""A disk that is full, and one that turns read-only, while the server runs and when it starts."""

from __future__ import annotations

import asyncio
import json
import os
import random
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest

from towpath.sandbox.sink import WebhookSink

from ..app.support import KILL, TERM, TOWPATH, ask, post
from .disks import attached, break_off, fill, format_image, memory_disk, missing, resize
from .support import (
    PATIENCE_S,
    accept,
    balances,
    inversions,
    memory_mb,
    numbered,
    repeats,
    scenario,
    settled,
    sink,
    size,
    started,
    steps,
    write,
)

PERSONS = [f"p{number}" for number in range(10)]
BATCH_STEPS = 10
DISK_MB = int(os.environ.get("DISK_MB", "76"))
WAITING = 200  # steps of each person
BIGGER_MB = 2 * DISK_MB
WHY_NO_TMPFS = missing()
WHY_NO_LOOP = missing("losetup", "mkfs.ext4")


async def fill_with_events(address: str, chance: random.Random, first: int) -> tuple[int, dict[str, Any]]:
    """Post batches until one is refused: the next step that was not kept, and the refusal."""
    step = first
    while True:
        batch = numbered(PERSONS, range(step, step + BATCH_STEPS))
        for call in batch:
            call["properties"]["noise"] = chance.randbytes(2000).hex()
        status, headers, text = await asyncio.to_thread(post, address, batch)
        if status != 200:
            return step, {"status": status, "headers": headers, "text": text}
        step += BATCH_STEPS


async def accepts_again(address: str, step: int) -> float:
    """Post one batch until it is answered 200: how long that took."""
    began_s, batch = time.monotonic(), numbered(PERSONS, [step])
    while (await asyncio.to_thread(post, address, batch))[0] != 200:
        assert time.monotonic() - began_s < PATIENCE_S
        await asyncio.sleep(0.05)
    return time.monotonic() - began_s


def holds(receiver: WebhookSink, last: int) -> bool:
    """Whether every step before `last` has come, of every person."""
    found = steps(receiver.received)
    return all(set(found.get(person, ())) >= set(range(last)) for person in PERSONS)


@pytest.mark.skipif(bool(WHY_NO_TMPFS), reason=WHY_NO_TMPFS)
@pytest.mark.spec("D05", "E036", "P1", "P2")
async def test_a_disk_filled_by_events_refuses_them_and_delivers_on(tmp_path: Path) -> None:
    target = "507 with Retry-After, 0 lost, the rest is delivered, accepts again ≤ 5 s after there is room"
    with scenario("disk full, by events", target, __file__) as row, memory_disk(tmp_path / "data", DISK_MB):
        async with sink() as (receiver, url):
            file = write(tmp_path, {"hook": url})
            receiver.faults.add("status", status=503)
            async with started(file) as running:
                last, refusal = await fill_with_events(running.address, random.Random(1), 0)
                assert (refusal["status"], "retry-after" in refusal["headers"]) == (507, True)
                receiver.faults.clear()
                await ask(file, "POST", "/deliveries/retry", {"connection": "hook"})
                await settled(file, ["hook"])
                delivered = len(receiver.received)
                assert (await asyncio.to_thread(post, running.address, numbered(["p0"], [last])))[0] == 507
                resize(tmp_path / "data", BIGGER_MB)
                took_s = await accepts_again(running.address, last)
                await settled(file, ["hook"])
                balance = (await balances(file))["hook"]
            found = steps(receiver.received)
            kept = (last + 1) * len(PERSONS)
            row.injected = f"a {DISK_MB} MiB disk filled by {last * len(PERSONS):,} events, destination down"
            row.measured = (
                f"507 with Retry-After; {kept - sum(len(set(each)) for each in found.values())} lost; "
                f"{delivered:,} delivered while full, {inversions(found)} inversions; "
                f"accepts again after {took_s:.1f} s, no restart"
            )
            assert holds(receiver, last + 1)
            assert (inversions(found), repeats(found), delivered) == (0, 0, last * len(PERSONS))
            assert (balance["accepted"], balance["delivered"], balance["difference"]) == (kept, kept, 0)
            assert took_s <= 5.0


@pytest.mark.skipif(bool(WHY_NO_TMPFS), reason=WHY_NO_TMPFS)
@pytest.mark.spec("D05", "E036", "P1", "P2")
async def test_a_disk_filled_by_others_while_it_runs_lets_deliveries_end(tmp_path: Path) -> None:
    target = "what waited is delivered while full, 507, 0 lost"
    with scenario("disk full, by others", target, __file__) as row, memory_disk(tmp_path / "data", DISK_MB):
        async with sink() as (receiver, url):
            file = write(tmp_path, {"hook": url})
            receiver.faults.add("status", status=503)
            async with started(file) as running:
                await accept(running.address, numbered(PERSONS, range(WAITING)))
                fill(tmp_path / "data")
                receiver.faults.clear()
                await settled(file, ["hook"])
                status, _, _ = await asyncio.to_thread(post, running.address, numbered(["p0"], [WAITING]))
                balance = (await balances(file))["hook"]
            found = steps(receiver.received)
            row.injected = f"{WAITING * len(PERSONS):,} events wait, then 0 bytes free"
            row.measured = (
                f"{balance['delivered']:,} delivered while full; {inversions(found)} inversions, "
                f"{repeats(found)} repeats"
            )
            assert holds(receiver, WAITING)
            assert (status, inversions(found), repeats(found), balance["difference"]) == (507, 0, 0, 0)


@pytest.mark.skipif(bool(WHY_NO_TMPFS), reason=WHY_NO_TMPFS)
@pytest.mark.parametrize("end", [KILL, TERM], ids=["after a kill", "after a stop"])
@pytest.mark.spec("D05", "E036", "P1", "P2")
async def test_it_starts_on_a_disk_without_one_free_byte(tmp_path: Path, end: int) -> None:
    how = "kill -9" if end == KILL else "SIGTERM"
    target = "starts, delivers what waited, 507, 0 lost, accepts again without restart when there is room"
    with (
        scenario(f"start on a full disk after {how}", target, __file__) as row,
        memory_disk(tmp_path / "data", DISK_MB),
    ):
        async with sink() as (receiver, url):
            file = write(tmp_path, {"hook": url})
            receiver.faults.add("status", status=503)
            async with started(file) as running:
                await accept(running.address, numbered(PERSONS, range(WAITING)))
                ballast = fill(tmp_path / "data")
                assert await asyncio.to_thread(running.end, end) == (-KILL if end == KILL else 0)
            receiver.faults.clear()
            async with started(file) as running:
                await ask(file, "POST", "/deliveries/retry", {"connection": "hook"})
                await settled(file, ["hook"])
                status, headers, _ = await asyncio.to_thread(
                    post, running.address, numbered(["p0"], [WAITING])
                )
                assert (status, "retry-after" in headers) == (507, True)
                ballast.unlink()
                resize(tmp_path / "data", BIGGER_MB)
                took_s = await accepts_again(running.address, WAITING)
                await settled(file, ["hook"])
                balance = (await balances(file))["hook"]
                peak_mb = memory_mb(running.pid, "VmHWM")
            found = steps(receiver.received)
            row.injected = f"{WAITING * len(PERSONS):,} events wait, then 0 bytes free, {how}, start"
            row.measured = (
                f"started; all delivered while full; {inversions(found)} inversions, "
                f"{repeats(found)} repeats; "
                f"accepts again after {took_s:.1f} s; {peak_mb:.0f} MiB"
            )
            assert holds(receiver, WAITING + 1)
            assert (inversions(found), repeats(found), balance["difference"]) == (0, 0, 0)
            assert balance["accepted"] == balance["delivered"] == (WAITING + 1) * len(PERSONS)


@pytest.mark.skipif(bool(WHY_NO_LOOP), reason=WHY_NO_LOOP)
@pytest.mark.spec("D05", "E036", "P1", "P2")
async def test_a_disk_that_turns_read_only_loses_nothing(tmp_path: Path) -> None:
    image, data = tmp_path / "disk.img", tmp_path / "data"
    target = "503 or 507 with Retry-After, 0 acknowledged lost, a start on it says what is wrong"
    with scenario("disk turns read-only", target, __file__) as row:
        format_image(image, 160)
        async with sink() as (receiver, url):
            receiver.faults.add("status", status=503)
            file = write(tmp_path, {"hook": url})
            with attached(image, data):
                async with started(file) as running:
                    last = size(20, 200)
                    await accept(running.address, numbered(PERSONS, range(last)))
                    break_off(data)
                    status, headers, _ = await asyncio.to_thread(
                        post, running.address, numbered(PERSONS, [last])
                    )
                    assert (status in (503, 507), "retry-after" in headers) == (True, True)
                    await asyncio.to_thread(running.end, KILL)
                refused = await asyncio.to_thread(refusal_to_start, file)
            data.rmdir()
            receiver.faults.clear()
            with attached(image, data):
                async with started(file) as running:
                    took_s = await accepts_again(running.address, last)
                    await ask(file, "POST", "/deliveries/retry", {"connection": "hook"})
                    await settled(file, ["hook"])
                    balance = (await balances(file))["hook"]
                    await asyncio.to_thread(running.end, TERM)
            found = steps(receiver.received)
            row.injected = f"ext4 aborted (remount,abort) after {last * len(PERSONS):,} acknowledged events"
            row.measured = (
                f"{status} with Retry-After; {(last + 1) * len(PERSONS) - balance['accepted']} lost; "
                f"start refused with {refused}; after mounting again all delivered, {took_s:.1f} s to accept"
            )
            assert refused == "E5005"
            assert balance["accepted"] == balance["delivered"] == (last + 1) * len(PERSONS)
            assert (inversions(found), balance["difference"]) == (0, 0)


def refusal_to_start(file: Path) -> str:
    """Start where that cannot succeed: the code of the error it ends with."""
    done = subprocess.run(
        [*TOWPATH, "run", "--json", "--config", str(file)], capture_output=True, check=False, timeout=60
    )
    assert done.returncode != 0
    code: str = json.loads(done.stdout)["code"]
    return code
