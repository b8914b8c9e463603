"""A seeded simulation of delivery: traffic, faults of every kind, and the promises checked at each step.

`simulate(seed, directory)` lives one history on virtual time and returns what was seen and the hash of its
trace: the same seed gives the same hash. It raises `Broken` when a promise does not hold. See
docs/simulation.md.
"""

# ruff: noqa: S311 - randomness here must be repeatable, not secret
from __future__ import annotations

import asyncio
import shutil
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from random import Random
from typing import Any

from msgspec import Struct

from ..loop import LoopClock, run_virtual
from .scenarios import SCENARIOS, Plan, Scenario, plan
from .steps import STEPS
from .trace import Broken, Trace
from .world import OpenStore, World, sqlite

__all__ = [
    "SCENARIOS",
    "Broken",
    "History",
    "OpenStore",
    "Plan",
    "Scenario",
    "plan",
    "shrink",
    "simulate",
]


class History(Struct, frozen=True):
    """What was lived: the hash of every event, how often which kind was seen, and the events if kept."""

    digest: str
    seen: Mapping[str, int]
    lines: Sequence[str] = ()


def simulate(
    seed: int,
    directory: Path,
    *,
    store: OpenStore = sqlite,
    steps: Collection[int] | None = None,
    keep: bool = False,
) -> History:
    """Live the history of a seed; `steps` leaves out all others of its plan. Raises `Broken`.

    `store` opens log and ledger in a directory; whatever it opens must answer without letting virtual time
    pass. With `keep` the events of the trace are returned, and hang on a `Broken` as its `lines`.
    """

    async def run() -> History:
        trace = Trace(LoopClock(asyncio.get_running_loop()), keep=keep)
        world = World(seed, plan(seed), directory, store, trace)
        living = asyncio.ensure_future(_live(world, steps))
        either: list[asyncio.Future[Any]] = [living, trace.broken]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if trace.broken.done():
            living.cancel()
            await asyncio.wait([living])
            raise trace.broken.result()
        living.result()
        return History(trace.digest, dict(trace.seen), trace.lines)

    return run_virtual(run())


async def _live(world: World, only: Collection[int] | None) -> None:
    await world.begin()
    for number, (name, seed) in enumerate(world.plan.steps):
        if only is None or number in only:
            chance = Random(seed)
            world.trace.note("step", number, name)
            await STEPS[name](world, chance)
            await world.check(recount=chance.random() < 0.1)
    await world.heal()
    await world.end()


def shrink(seed: int, directory: Path, *, store: OpenStore = sqlite, tries: int = 40) -> list[int]:
    """Find few steps of a seed's plan that still break a promise, trying at most so many histories."""
    kept = list(range(len(plan(seed).steps)))
    size = max(1, len(kept) // 2)
    while tries > 0 and size > 0:
        first = 0
        while first < len(kept) and tries > 0:
            fewer = kept[:first] + kept[first + size :]
            tries -= 1
            if _breaks(seed, directory / f"shrink-{tries}", store, fewer):
                kept = fewer
            else:
                first += size
        size //= 2
    return kept


def _breaks(seed: int, directory: Path, store: OpenStore, steps: Collection[int]) -> bool:
    try:
        simulate(seed, directory, store=store, steps=steps)
    except Broken:
        return True
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    return False
