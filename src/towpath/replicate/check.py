"""Whether a key may read what is wanted: the first page of every table is asked for (R005)."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

from ..clock import Clock
from ..destination import Check
from ..http import Reply
from ..vendors.customerio import AppApi, Id
from .chains import AppDoor
from .family import listed
from .gate import Gate
from .people import find_people
from .reading import Ask, Declined, Denied, Missing, Unreachable, Wanted
from .report import DAY_S
from .table import Replicated
from .tables import REPLICATED, in_order

ATTEMPTS = 2
AT_ONCE = 4


class OnceDoor(AppDoor):
    """A door that asks every method once; whatever else is asked with it is as if it were not there."""

    def __init__(self, api: AppApi, clock: Clock, gate: Gate) -> None:
        super().__init__(api, clock, gate, attempts=ATTEMPTS)
        self._asked_before: set[Ask] = set()

    async def _asked(self, rank: int, ask: Ask, *values: Id, **query: Any) -> Reply:
        if ask in self._asked_before:
            raise Missing
        self._asked_before.add(ask)
        return await super()._asked(rank, ask, *values, **query)


async def check(api: AppApi, tables: Sequence[str], *, clock: Clock) -> Sequence[Check]:
    """Ask a page of each table; one that is read under another is asked for under one of its records.

    A table without any record to read it under is taken as readable.
    """
    gate = Gate(clock, AT_ONCE)
    door = AppDoor(api, clock, gate, attempts=ATTEMPTS)
    first: dict[str, Id | None] = {}
    for parent in dict.fromkeys(REPLICATED[name].parent for name in tables):
        if parent:
            first[parent] = await _first(door, REPLICATED[parent], clock.now())
    doors = (OnceDoor(api, clock, gate) for _ in tables)
    found = zip(doors, in_order(tables), strict=True)
    lines = (_line(one, REPLICATED[name], first, clock.now()) for one, name in found)
    return await asyncio.gather(*lines)


async def _line(door: AppDoor, one: Replicated, first: dict[str, Id | None], now: float) -> Check:
    capability, reached, detail = f"read {one.name}", True, ""
    try:
        await _probe(door, one, first.get(one.parent), now)
    except Denied as denied:
        detail = f"this key may not read {one.name}: {denied}"
    except Unreachable as unreachable:
        reached, detail = False, str(unreachable)
    except (Declined, Missing) as refused:
        detail = str(refused) or "Customer.io knows no such list"
    else:
        return Check(one.name, ok=True, capability=capability, detail=one.endpoint)
    return Check(one.name, ok=False, capability=capability, detail=detail, reached=reached)


async def _probe(door: AppDoor, one: Replicated, parent: Id | None, now: float) -> None:
    if one.name == "customers":
        await find_people(door, "", 1)
        return
    wanted = Wanted(until=now, since=now - DAY_S, parents=() if parent is None else (parent,))
    for chain in one.reading.chains(wanted)[:1]:
        async with aclosing(one.reading.read(door, chain, "", wanted)) as steps:
            await anext(steps)


async def _first(door: AppDoor, parent: Replicated, now: float) -> Id | None:
    """The id of any record; None where there is none, or none may be read: its own line says so."""
    try:
        ids = await listed(door, parent.reading, now, most=1)
    except (Declined, Denied, Missing, Unreachable):
        return None
    return next(iter((*ids.ids, *ids.unready)), None)
