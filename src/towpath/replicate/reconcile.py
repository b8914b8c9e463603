"""Whether the warehouse has what Customer.io counts (R052): people, and members of segments."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

import msgspec
from msgspec import Struct

from ..clock import Clock
from ..vendors.customerio import AppApi, Id
from ..warehouse import Warehouse
from .chains import AppDoor
from .family import listed
from .gate import Gate
from .plan import counted
from .reading import Declined, Denied, Missing, Unreachable
from .report import Options
from .tables import REPLICATED

SHARE, FEW = 0.02, 10
"""What may differ: Customer.io's counts are up to two hours old, and people come and go."""
SEGMENTS = 200
AT_ONCE = 4
PEOPLE, MEMBERSHIPS = "customers", "segment_memberships"


class Compared(Struct, frozen=True):
    """Rows of a table beside what Customer.io counts, None where it cannot be asked; and what that means."""

    table: str
    rows: int
    counted: int | None
    good: bool
    words: str


class _Count(Struct):
    count: int


async def reconcile(
    api: AppApi, warehouse: Warehouse, options: Options, *, clock: Clock
) -> tuple[Compared, ...]:
    """Compare those tables of a workspace that Customer.io counts: a request, and one per segment."""
    door = AppDoor(api, clock, Gate(clock, AT_ONCE))
    rows = {one.table: one.rows for one in await warehouse.counts() if one.workspace == options.workspace}
    names = {shape.table.name: shape.name for shape in options.shapes}
    found: list[Compared] = []
    if PEOPLE in names:
        people = (await counted(door)).people or None
        found.append(compared(PEOPLE, _rows(rows, names, PEOPLE), people, "workspaces.people"))
    if MEMBERSHIPS in names:
        members = await _members(door, clock.now())
        found.append(compared(MEMBERSHIPS, _rows(rows, names, MEMBERSHIPS), members, "the segments' counts"))
    return tuple(found)


def _rows(rows: Mapping[str, int], names: Mapping[str, str], table: str) -> int:
    return rows.get(table, rows.get(names[table], 0))


def compared(table: str, rows: int, counted: int | None, of: str) -> Compared:
    """Judge a difference."""
    if counted is None:
        return Compared(table, rows, None, good=True, words=f"{rows} rows; {of} could not be asked")
    apart = abs(rows - counted)
    good = apart <= max(FEW, SHARE * counted)
    verdict = "which fits" if good else "which does not fit: read the table again with --full"
    return Compared(table, rows, counted, good, f"{rows} rows, {counted} by {of}, {verdict}")


async def _members(door: AppDoor, now: float) -> int | None:
    """How many members all segments have that are not being built; None where there are too many to ask."""
    try:
        ids = (await listed(door, REPLICATED["segments"].reading, now)).ids
        if len(ids) > SEGMENTS:
            return None
        return sum(await asyncio.gather(*(_count(door, number) for number in ids)))
    except (Declined, Denied, Unreachable, msgspec.DecodeError):
        return None


async def _count(door: AppDoor, segment: Id) -> int:
    try:
        reply = await door.ask(AppApi.segment_count, segment)
    except Missing:
        return 0
    return msgspec.json.decode(reply.body, type=_Count).count
