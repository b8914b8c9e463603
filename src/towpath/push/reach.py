"""The devices a campaign may reach, page by page in an order that can be taken up again."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from typing import TypeAlias

from ..device import Device
from .audience import Audience
from .registry import Registry

PAGE = 500

Persons: TypeAlias = Callable[[str, int], Awaitable[Sequence[str]]]
"""Gives so many persons behind one, in an order that stays."""


async def reachable(
    registry: Registry, audience: Audience, after: str = "", members: Persons | None = None
) -> AsyncIterator[tuple[str, Sequence[Device]]]:
    """Pages of devices behind a cursor, each with the cursor behind it; the audience picks from them.

    The cursor is a device's id, or a person's where the audience names persons or has `members`: then only
    theirs are read.
    """
    persons = members or (None if audience.persons is None else listed(audience.persons))
    if persons is None:
        while devices := await registry.audience(after, PAGE):
            after = devices[-1].id
            yield after, devices
        return
    while some := await persons(after, PAGE):
        after = some[-1]
        yield after, await registry.of_persons(some)


def listed(persons: Sequence[str]) -> Persons:
    """Give persons of a list that is in order."""

    async def behind(after: str, limit: int) -> Sequence[str]:
        start = bisect_right(persons, after)
        return persons[start : start + limit]

    return behind
