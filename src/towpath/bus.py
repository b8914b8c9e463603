"""The bus: what happens, as it happens, for those who listen; nobody listening costs nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import Any, TypeAlias

from .lanes import Item
from .outcome import Outcome

BACKLOG = 10_000

_Line: TypeAlias = Mapping[str, Any]


class Bus:
    """Hands every delivery's outcome to every listener. A listener that is too slow loses the oldest."""

    def __init__(self) -> None:
        self._listeners: set[asyncio.Queue[_Line | None]] = set()

    def observe(self, connection: str, item: Item, outcome: Outcome) -> None:
        """Take one outcome from a delivery loop."""
        if not self._listeners:
            return
        message = item.message
        self.tell(
            {
                "connection": connection,
                "position": item.record.position,
                "message_id": item.record.message_id,
                "type": message.type,
                "event": message.event if isinstance(message.event, str) else None,
                "person": message.user_id or message.anonymous_id,
                "source": item.record.source,
                "outcome": type(outcome).__name__.lower(),
                "reason": getattr(outcome, "reason", ""),
                "code": getattr(outcome, "code", 0),
                "attempts": item.attempts,
                "ms": item.ms,
            }
        )

    def close(self) -> None:
        """Let every listener end after what it has not read yet."""
        self._put(None)

    def tell(self, line: _Line) -> None:
        """Tell every listener of something else."""
        self._put(line)

    def _put(self, line: _Line | None) -> None:
        for queue in self._listeners:
            if queue.full():
                queue.get_nowait()
            queue.put_nowait(line)

    async def listen(self) -> AsyncIterator[_Line]:
        """Every outcome from now on, until the bus is closed."""
        queue: asyncio.Queue[_Line | None] = asyncio.Queue(BACKLOG)
        self._listeners.add(queue)
        try:
            while (line := await queue.get()) is not None:
                yield line
        finally:
            self._listeners.discard(queue)
