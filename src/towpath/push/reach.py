"""The devices a campaign may reach, page by page in an order that can be taken up again."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence

from ..device import Device
from .audience import Audience
from .registry import Registry

PAGE = 500


async def reachable(
    registry: Registry, audience: Audience, after: str = ""
) -> AsyncIterator[tuple[str, Sequence[Device]]]:
    """Pages of devices behind a cursor, each with the cursor behind it; the audience picks from them.

    The cursor is a device's id, or a person's where the audience names persons: then only theirs are read.
    """
    if audience.persons is None:
        while devices := await registry.audience(after, PAGE):
            after = devices[-1].id
            yield after, devices
        return
    left = [person for person in audience.persons if person > after]
    for start in range(0, len(left), PAGE):
        some = left[start : start + PAGE]
        yield some[-1], await registry.of_persons(some)
