"""Ids of records, handed from the tables that were read to those that are read under them."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from contextlib import aclosing
from math import inf

from ..warehouse import Page
from .reading import Door, Reading, Wanted, column
from .state import Ids

BUILDING = frozenset({"build", "build_queued"})
"""States of a segment whose people Customer.io is still looking for: what it tells of it is out of date."""


class Collected:
    """The ids of a table's records, as they come; those whose `state` says so are unready."""

    def __init__(self, known: Ids | None = None) -> None:
        self._ready = dict.fromkeys(known.ids if known else ())
        self._unready = dict.fromkeys(known.unready if known else ())

    def __len__(self) -> int:
        return len(self._ready) + len(self._unready)

    def take(self, pages: Sequence[Page]) -> None:
        """Remember the ids of pages."""
        for page in pages:
            states = column(page.records, "state")
            for number, state in zip(column(page.records, "id"), states, strict=True):
                if isinstance(number, int | str) and number != "":
                    (self._unready if state in BUILDING else self._ready)[number] = None

    def ids(self, run: str) -> Ids:
        """Return what was found, under the name of a run."""
        return Ids(run, tuple(self._ready), tuple(self._unready))


class Family:
    """Which ids each table of this run has; told once each of them is at its end, or known from before."""

    def __init__(self, tables: Collection[str], known: Mapping[str, Ids]) -> None:
        loop = asyncio.get_running_loop()
        self._told: dict[str, asyncio.Future[Ids | None]] = {name: loop.create_future() for name in tables}
        self._known = known

    def tell(self, table: str, ids: Ids | None) -> None:
        """Say what a table has; None where that is not known, as it failed."""
        if not self._told[table].done():
            self._told[table].set_result(ids)

    async def of(self, table: str) -> Ids | None:
        """Wait for a table's ids; None where this run does not read it."""
        return await self._told[table] if table in self._told else self._known.get(table)


async def listed(door: Door, reading: Reading, now: float, most: float = inf) -> Ids:
    """Read a table for its ids alone, until there are `most`."""
    collected, wanted = Collected(), Wanted(until=now)
    for chain in reading.chains(wanted):
        async with aclosing(reading.read(door, chain, "", wanted)) as steps:
            async for step in steps:
                collected.take(step.pages)
                if len(collected) >= most:
                    return collected.ids("")
    return collected.ids("")
