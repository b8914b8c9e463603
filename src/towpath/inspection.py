"""Looking into a running delivery loop: what it holds in memory, and what stands still."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from . import views
from .deliver import DeliveryLoop
from .lanes import Item
from .pauses import DELETES


def snapshot(loop: DeliveryLoop) -> dict[str, Any]:
    """What one connection is doing now."""
    return {
        "destination": loop.connection.destination_name,
        "state": _state(loop),
        "why": loop.health.reason if loop.health.stalled else "",
        "throttled_s": round(loop.throttled_s, 1),
        "paused": [views.pause(pause) for pause in loop.pauses.in_force],
        "in_memory": loop.lanes.size,
        "people": len(loop.lanes),
        "cursor": loop.cursor,
    }


def _state(loop: DeliveryLoop) -> str:
    if loop.pauses.everything:
        return "paused"
    if loop.health.stalled:
        return "stalled"
    return "throttled" if loop.throttled_s else "delivering"


def deletions_held(loop: DeliveryLoop) -> int:
    """Whose deletion waits for somebody to confirm it, as far as the loop has read."""
    return sum(lane.hold == DELETES for lane in loop.lanes)


def held(loop: DeliveryLoop, position: int) -> list[dict[str, Any]]:
    """The deliveries of one position that are in memory: waiting for their turn, or on the way."""
    return [
        {
            "connection": loop.connection.name,
            "position": position,
            "state": "waiting" if waiting else "on the way",
            "reason": "",
            "code": 0,
            "attempts": item.attempts,
            "ms": item.ms,
            "at": "",
        }
        for item, waiting in _items(loop)
        if item.record.position == position
    ]


def flying(loop: DeliveryLoop, ids: frozenset[str]) -> bool:
    """Whether a call for one of these ids is under way."""
    return any(item.concerns(ids) for item, waiting in _items(loop) if not waiting)


def _items(loop: DeliveryLoop) -> Iterator[tuple[Item, bool]]:
    for lane in loop.lanes:
        for item in lane.items:
            yield item, True
    for parcel in loop.flying:
        for item in parcel.items:
            yield item, False
