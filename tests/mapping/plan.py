"""A transform that does as each message says, in this process: for tests on virtual time."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Sequence
from typing import Any

import msgspec

from towpath.message import Message
from towpath.transform import Made


class Planned:
    """Makes `properties.parts` messages of each (1 by default), after it has failed `properties.fails` times.

    `parts` changes the number from outside, as new code would; `calls` counts the runs by message id.
    """

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.parts: dict[str, int] = {}
        self.delay_s = 0.0
        self.closed = 0

    async def make(self, messages: Sequence[Message]) -> Sequence[Made]:
        await asyncio.sleep(self.delay_s)
        return [self._made(message) for message in messages]

    async def close(self) -> None:
        self.closed += 1

    def _made(self, message: Message) -> Made:
        asked: dict[str, Any] = message.properties or {}
        self.calls[message.message_id] += 1
        if self.calls[message.message_id] <= asked.get("fails", 0):
            return Made(failure="the function failed")
        parts = self.parts.get(message.message_id, asked.get("parts", 1))
        return Made([_part(message, index) for index in range(parts)])


def _part(message: Message, index: int) -> Message:
    name = f"{message.message_id}-{index}" if index else message.message_id
    return msgspec.structs.replace(message, message_id=name)
