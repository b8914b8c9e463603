"""One stream that only we write: each append is stored whole, and once, also when the answer was lost."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Mapping, Sequence
from typing import Any
from uuid import uuid4

from msgspec import Struct

from ...errors import TowpathError
from .. import LogFull
from .durability import NotDurable
from .wire import Denied, Lost, Outgoing, Unreachable, Wire, answer_of

WRONG_SEQUENCE = 10071
KNOWN_ID = 10201
NO_STREAM = 10059
NO_MESSAGE = frozenset({10037, 10043, 10057})
BATCH = 1000
"""The most messages of one atomic batch (a fixed limit of the server)."""


class Attempt(Struct, frozen=True):
    """An append under way: its name, the sequence it follows, and how many messages it has."""

    name: str
    after: int
    count: int


class Doubt(Exception):
    """The server went away before it was known whether this attempt was stored."""

    def __init__(self, attempt: Attempt, why: str) -> None:
        super().__init__(why)
        self.attempt = attempt


class Fenced(TowpathError):
    """Somebody else wrote into the stream."""

    def __init__(self, stream: str) -> None:
        super().__init__(
            f"another process writes into the stream {stream}",
            code="E5044",
            why="the stream has messages that this process did not send",
            fix="run one towpath for each stream, then start this one again",
            data="Nothing of this call was kept; what was acknowledged before is.",
        )


class Stream:
    """A stream and the sequence of its last message.

    Every append names the sequence it expects to follow (`Nats-Expected-Last-Sequence`). A repeated one can
    therefore not be stored twice, whichever copy arrives first, and a second writer is noticed.
    """

    def __init__(self, wire: Wire, name: str) -> None:
        self.wire = wire
        self.name = name
        self.last = 0

    async def open(self, config: Mapping[str, Any]) -> Mapping[str, Any]:
        """Make the stream if there is none; its configuration, as the server keeps it."""
        try:
            information = await self.wire.api(f"STREAM.INFO.{self.name}")
        except Denied as error:
            if error.code != NO_STREAM:
                raise
            information = await self.wire.api(f"STREAM.CREATE.{self.name}", {"name": self.name, **config})
        self.last = int(information["state"]["last_seq"])
        found: Mapping[str, Any] = information["config"]
        return found

    async def append(self, messages: Sequence[Outgoing]) -> int:
        """Store all of them or none; the sequence of the first.

        Raises `LogFull` (nothing stored), `Doubt` (not known), `Fenced`.
        """
        attempt = Attempt(uuid4().hex, self.last, len(messages))
        until = time.monotonic() + self.wire.patience_s
        try:
            await self.wire.ready()
        except (Unreachable, NotDurable) as error:
            raise LogFull(f"{error}: {error.why}") from error
        while not await self._stored(messages, attempt):
            if time.monotonic() > until:
                raise Doubt(attempt, "the NATS server does not answer")
            await asyncio.sleep(0.02)
        return self.settled(attempt)

    async def _stored(self, messages: Sequence[Outgoing], attempt: Attempt) -> bool:
        """Send once; whether it, or an earlier copy of it, is stored."""
        fence = {"Nats-Expected-Last-Sequence": str(attempt.after), "Nats-Msg-Id": attempt.name}
        try:
            answer_of(await send(self.wire, messages, fence))
        except Denied as error:
            if error.code not in (WRONG_SEQUENCE, KNOWN_ID):
                raise LogFull(f"the NATS server does not take it: {error}") from error
        except Lost:
            pass
        else:
            return True
        return await self.kept(attempt)

    def settled(self, attempt: Attempt) -> int:
        """Take an attempt that was stored into account; the sequence of its first message."""
        self.last = attempt.after + attempt.count
        return attempt.after + 1

    async def kept(self, attempt: Attempt) -> bool:
        """Whether an attempt whose answer was lost is in the stream. Raises `Doubt`, `Fenced`."""
        try:
            await self.wire.ready()
            information = await self.wire.api(f"STREAM.INFO.{self.name}")
            if (last := int(information["state"]["last_seq"])) == attempt.after:
                return False
            found = await self.wire.fetch(self.name, {"seq": attempt.after + 1})
        except (Unreachable, NotDurable) as error:
            raise Doubt(attempt, f"{error}: {error.why}") from error
        except Denied as error:
            raise Doubt(attempt, str(error)) from error
        ours = bool(found) and found[0].headers.get("Nats-Msg-Id") == attempt.name
        if not ours or last != attempt.after + attempt.count:
            raise Fenced(self.name)
        return True

    async def delete(self, sequence: int) -> None:
        """Overwrite a message on disk (`no_erase` is off) and forget it; nothing when it is gone already."""
        try:
            await self.wire.api(f"STREAM.MSG.DELETE.{self.name}", {"seq": sequence, "no_erase": False})
        except Denied as error:
            if error.code not in NO_MESSAGE:
                raise

    async def purge(self, subject: str, below: int) -> None:
        """Drop the messages of a subject before a sequence."""
        await self.wire.api(f"STREAM.PURGE.{self.name}", {"filter": subject, "seq": below})


async def send(wire: Wire, messages: Sequence[Outgoing], first: Mapping[str, str]) -> Any:
    """Send as one atomic batch, or plainly when it is a single message; `first` are its first headers.

    The plain one is five times faster: the server needs no staging (measured with 2.15.1).
    """
    if len(messages) == 1:
        return await wire.ask(messages[0].subject, messages[0].body, {**messages[0].headers, **first})
    batch = uuid4().hex
    for number, message in enumerate(messages, 1):
        headers = {**message.headers, "Nats-Batch-Id": batch, "Nats-Batch-Sequence": str(number)}
        if number == 1:
            headers |= first
        if number < len(messages):
            await wire.push(message, headers)
    return await wire.ask(messages[-1].subject, messages[-1].body, {**headers, "Nats-Batch-Commit": "1"})
