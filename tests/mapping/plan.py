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

    They are of `properties.type`; with `properties.large` they are too large.

    `parts` changes the number from outside, as new code would; `calls` counts the runs by message id, and
    `runs` has the ids of each run. A message of `hangs` takes `hang_s`, fails, and ends the run; nobody waits
    for what is of one of `suspects`.
    """

    def __init__(self) -> None:
        self.calls: Counter[str] = Counter()
        self.parts: dict[str, int] = {}
        self.delay_s = 0.0
        self.hang_s = 1.1
        self.hangs: set[str] = set()
        self.suspects: set[str] = set()
        self.runs: list[list[str]] = []
        self.closed = 0

    async def make(self, messages: Sequence[Message]) -> Sequence[Made]:
        await asyncio.sleep(self.delay_s)
        self.runs.append([message.message_id for message in messages])
        made: list[Made] = []
        for message in messages:
            made.append(self._made(message))
            if message.message_id in self.hangs:
                await asyncio.sleep(self.hang_s)
                self.suspects.add(message.user_id or "")
                return [*made[:-1], Made(failure="it took too long", stopped=True)]
        return made

    def suspect(self, message: Message) -> bool:
        return message.user_id in self.suspects

    async def close(self) -> None:
        self.closed += 1

    def _made(self, message: Message) -> Made:
        asked: dict[str, Any] = message.properties or {}
        self.calls[message.message_id] += 1
        if self.calls[message.message_id] <= asked.get("fails", 0):
            return Made(failure="the function failed")
        if asked.get("large"):
            return Made(failure="it returned too much", final=True)
        parts = self.parts.get(message.message_id, asked.get("parts", 1))
        kind = asked.get("type", message.type)
        return Made([_part(message, index, kind) for index in range(parts)])


def _part(message: Message, index: int, kind: str) -> Message:
    name = f"{message.message_id}-{index}" if index else message.message_id
    return msgspec.structs.replace(message, message_id=name, type=kind)
