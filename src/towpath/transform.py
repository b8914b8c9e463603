"""Transform: a Python function between the log and a destination, run in a process that can be stopped."""

from __future__ import annotations

import asyncio
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Protocol

import msgspec
from msgspec import Struct

from .message import KINDS, Envelope, Message, Record, Unreadable, in_spec_shape, read

START_S = 10.0
AGAIN_S = 5.0
ANSWER_BYTES = 2 * 1024 * 1024
LEAVE_S = 2.0  # to end by itself once its standard input has ended
GONE = "its process ended"

_encode = msgspec.json.Encoder().encode
_set = msgspec.structs.force_setattr


class Made(Struct, frozen=True):
    """What a transform made of one message, in order; or why it failed."""

    messages: Sequence[Message] = ()
    reports: Sequence[str] = ()
    failure: str = ""


class Transform(Protocol):
    """Makes none, one or several messages of each."""

    async def make(self, messages: Sequence[Message]) -> Sequence[Made]:
        """What becomes of each message, in order. Never raises for what the function does."""
        ...

    async def close(self) -> None:
        """Stop what runs; a later `make` starts it again, with the code as it is then."""
        ...


class _Answer(Struct, frozen=True):
    messages: list[msgspec.Raw] = []
    failed: str = ""


_decode = msgspec.json.Decoder(_Answer).decode


class Unanswered(Exception):
    """The process gave no (readable) answer; says why, and whether it may still be `alive`."""

    def __init__(self, why: str, *, alive: bool = False) -> None:
        super().__init__(why)
        self.alive = alive


class ProcessTransform:
    """Runs `module:function` in a child process, for at most `timeout_s` seconds a message.

    The process is started with the first message and kept. When it is too slow, dies or writes nonsense it is
    killed, the message at fault fails, and a new process goes on with the next one.
    """

    def __init__(self, target: str, directory: Path, timeout_s: float = 1.0) -> None:
        # -P: import from its directory, not from ours. -B: bytecode left behind could be older than the code.
        self._command = (sys.executable, "-P", "-B", "-m", "towpath.transforming", target, str(directory))
        self._target = target
        self._timeout_s = timeout_s
        self._process: Process | None = None
        self._one_at_a_time = asyncio.Lock()
        self._broken_until_s = 0.0
        self._broken = ""

    async def make(self, messages: Sequence[Message]) -> Sequence[Made]:
        """What becomes of each message, in order. Never raises for what the function does."""
        async with self._one_at_a_time:
            made: list[Made] = []
            while len(made) < len(messages):
                made += await self._run(messages[len(made) :])
            return made

    async def close(self) -> None:
        """Stop the process; a later `make` starts it again, with the code as it is then."""
        async with self._one_at_a_time:
            self._broken_until_s = 0.0
            await self._stop(LEAVE_S)

    async def _run(self, messages: Sequence[Message]) -> list[Made]:
        """What one process makes of messages, up to and with the first it does not survive."""
        try:
            process = await self._running()
        except (OSError, Unanswered) as error:
            return [Made(failure=f"the transform {self._target} cannot be loaded: {error}")] * len(messages)
        made: list[Made] = []
        try:
            self._send(process, messages)
            while len(made) < len(messages):
                made.append(_made(messages[len(made)], await self._answer(process, self._timeout_s)))
        except Unanswered as error:
            await self._stop(0.0 if error.alive else LEAVE_S)
            made.append(Made(failure=f"the transform {self._target} failed: {error}"))
        except BaseException:
            await self._stop(0.0)  # what it still answers would be taken for answers to later messages
            raise
        return made

    async def _running(self) -> Process:
        """Return the process, started when there is none. Raises `Unanswered` when it cannot be."""
        if self._process is not None and self._process.returncode is None:
            return self._process
        now_s = asyncio.get_running_loop().time()
        if now_s < self._broken_until_s:
            raise Unanswered(self._broken)
        self._process = process = await asyncio.create_subprocess_exec(
            *self._command, stdin=PIPE, stdout=PIPE, limit=ANSWER_BYTES, start_new_session=True
        )
        try:
            answer = await self._answer(process, START_S)
            if answer.failed:
                raise Unanswered(answer.failed)
        except Unanswered as error:
            self._broken, self._broken_until_s = str(error), now_s + AGAIN_S
            await self._stop(0.0 if error.alive else LEAVE_S)
            raise
        except BaseException:
            await self._stop(0.0)
            raise
        return process

    def _send(self, process: Process, messages: Sequence[Message]) -> None:
        """Hand over all at once; the pipe's transport holds what the process has not read yet."""
        if process.stdin is not None:
            bodies = [_encode(_shown(message)) for message in messages]
            process.stdin.writelines(part for body in bodies for part in (len(body).to_bytes(4), body))

    async def _answer(self, process: Process, within_s: float) -> _Answer:
        """Read the next answer. Raises `Unanswered`."""
        if process.stdout is None:
            raise Unanswered(GONE)
        try:
            async with asyncio.timeout(within_s):
                size = int.from_bytes(await process.stdout.readexactly(4))
                if size > ANSWER_BYTES:
                    raise Unanswered("it wrote something else than an answer", alive=True)
                return _decode(await process.stdout.readexactly(size))
        except TimeoutError:
            raise Unanswered(f"it took longer than {within_s:g} s and was stopped", alive=True) from None
        except (asyncio.IncompleteReadError, ConnectionError):
            raise Unanswered(GONE) from None
        except msgspec.DecodeError:
            raise Unanswered("it wrote something else than an answer", alive=True) from None

    async def _stop(self, patience_s: float) -> None:
        """End the process: let it end by itself for a while, then kill it."""
        process, self._process = self._process, None
        if process is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            async with asyncio.timeout(patience_s):
                await process.wait()
        except TimeoutError:
            with suppress(ProcessLookupError):
                process.kill()
            await process.wait()


def _shown(message: Message) -> dict[str, object]:
    """A message as a function sees it: by the spec's names, with source and trust."""
    return {**in_spec_shape(message), "source": message.source, "trust": message.trust}


def _made(message: Message, answer: _Answer) -> Made:
    if answer.failed:
        return Made(failure=f"the transform failed: {answer.failed}")
    try:
        made = [_read(message, bytes(raw), index) for index, raw in enumerate(answer.messages)]
    except Unreadable as error:
        return Made(failure=f"the transform returned what is no message: {error}")
    reports: dict[str, None] = {}
    for each in made:
        reports |= dict.fromkeys(_restored(message, each))
    return Made(made, list(reports))


def _read(message: Message, raw: bytes, index: int) -> Message:
    """Read a returned message as if a client had sent it; the ids of further ones are told apart."""
    name = f"{message.message_id}-{index}" if index else message.message_id
    read_again = read(Record(0, name, Envelope(message.source, message.received_at, message.trust), raw))
    if read_again.type not in KINDS:
        raise Unreadable(f"the type {read_again.type!r} is none of {', '.join(sorted(KINDS))}")
    return read_again


def _restored(message: Message, made: Message) -> list[str]:
    """Give a made message the ids of its person: a delivery stays in its person's order. What was undone."""
    reports = []
    for field, word in (("user_id", "userId"), ("anonymous_id", "anonymousId")):
        own, found = getattr(message, field), getattr(made, field)
        if found not in (own, None):
            reports.append(f"the transform changed {word}, which stays the message's own")
        _set(made, field, own)
    return reports
