"""Transform: a Python function between the log and a destination, run in a process that can be stopped."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Collection, Iterator, Sequence
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
SUSPECTS_MAX = 10_000
PASSED = frozenset(
    {"HOME", "LANG", "LANGUAGE", "LD_LIBRARY_PATH", "PATH", "PYTHONHOME", "PYTHONPATH", "TMPDIR", "TZ",
     "VIRTUAL_ENV"}
)  # fmt: skip
"""The environment variables that a function sees, besides LC_*: none of them holds a credential."""
PARTING = frozenset({"alias", "delete"})  # they merge and delete people: nothing else is made into one

_encode = msgspec.json.Encoder().encode
_set = msgspec.structs.force_setattr


class Made(Struct, frozen=True):
    """What a transform made of one message, in order; or why it failed.

    `failure` holds nothing of the message and may be kept; `detail` may quote it, and is for whoever tries
    the function out. `final`: trying again does not help. `stopped`: it cost the process its life.
    """

    messages: Sequence[Message] = ()
    reports: Sequence[str] = ()
    failure: str = ""
    detail: str = ""
    final: bool = False
    stopped: bool = False


class Transform(Protocol):
    """Makes none, one or several messages of each."""

    async def make(self, messages: Sequence[Message]) -> Sequence[Made]:
        """What becomes of the first messages, in order: of all, or up to and with one that stopped it.

        Never raises for what the function does.
        """
        ...

    def suspect(self, message: Message) -> bool:
        """Whether a message of this person stopped it, and none has passed since: let nobody wait for it."""
        ...

    async def close(self) -> None:
        """Stop what runs; a later `make` starts it again, with the code as it is then."""
        ...


class _Answer(Struct, frozen=True):
    messages: list[msgspec.Raw] = []
    failed: str = ""
    detail: str = ""
    final: bool = False


_decode = msgspec.json.Decoder(_Answer).decode


class Unanswered(Exception):
    """The process gave no (readable) answer; says why, and whether it may still be `alive`."""

    def __init__(self, why: str, *, alive: bool = False) -> None:
        super().__init__(why)
        self.alive = alive


class ProcessTransform:
    """Runs `module:function` in a child process, for at most `timeout_s` seconds a message.

    The process is started with the first message and kept. When it is too slow, dies or writes nonsense it is
    killed, the message at fault fails, and a new process goes on with the next one. Messages of persons whose
    last one did that run in a process apart: nobody else waits for them. Of the environment the function sees
    `PASSED` and the variables named in `environment`. A `delete` passes by it: no code keeps it back (D10).
    """

    def __init__(
        self, target: str, directory: Path, timeout_s: float = 1.0, environment: Collection[str] = ()
    ) -> None:
        self._child = Child(target, directory, timeout_s, environment)
        self._apart = Child(target, directory, timeout_s, environment)
        self._suspects: dict[str, None] = {}

    async def make(self, messages: Sequence[Message]) -> Sequence[Made]:
        """What becomes of the first messages, in order: of all, or up to and with one that stopped it."""
        shown = [message for message in messages if message.type != "delete"]
        child = self._apart if all(map(self.suspect, shown)) else self._child
        made = await child.run(shown) if shown else []
        for message, each in zip(shown, made, strict=False):
            self._note(message, stopped=each.stopped)
        return list(_in_order(messages, made))

    def suspect(self, message: Message) -> bool:
        """Whether a message of this person stopped the process, and none has passed since."""
        return any(known in self._suspects for known in _ids(message))

    def _note(self, message: Message, *, stopped: bool) -> None:
        for known in _ids(message):
            self._suspects.pop(known, None)
            if stopped:
                self._suspects[known] = None
        while len(self._suspects) > SUSPECTS_MAX:
            del self._suspects[next(iter(self._suspects))]

    async def close(self) -> None:
        """Stop what runs; a later `make` starts it again, with the code as it is then."""
        await asyncio.gather(self._child.close(), self._apart.close())


class Child:
    """One process that runs the function: started when it is needed, stopped when it does not answer."""

    def __init__(
        self, target: str, directory: Path, timeout_s: float, environment: Collection[str] = ()
    ) -> None:
        # -P: import from its directory, not from ours. -B: bytecode left behind could be older than the code.
        self._command = (sys.executable, "-P", "-B", "-m", "towpath.transforming", target, str(directory))
        self._target = target
        self._timeout_s = timeout_s
        self._environment = environment
        self._process: Process | None = None
        self._end: asyncio.Task[None] | None = None
        self._one_at_a_time = asyncio.Lock()
        self._broken_until_s = 0.0
        self._broken = ""

    async def run(self, messages: Sequence[Message]) -> list[Made]:
        """What one process makes of messages, up to and with the first it does not survive."""
        async with self._one_at_a_time:
            return await self._run(messages)

    async def close(self) -> None:
        """Stop the process; a later `run` starts it again, with the code as it is then."""
        async with self._one_at_a_time:
            self._broken_until_s = 0.0
            await self._stop(LEAVE_S)

    async def _run(self, messages: Sequence[Message]) -> list[Made]:
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
            made.append(Made(failure=f"the transform {self._target} failed: {error}", stopped=True))
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
            *self._command, stdin=PIPE, stdout=PIPE, limit=ANSWER_BYTES, start_new_session=True,
            env=_environment(self._environment),
        )  # fmt: skip
        self._end = asyncio.create_task(_ended(process))
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
        """Hand over all at once; the pipe's transport holds what is not read yet. Raises `Unanswered`."""
        if process.stdin is not None:
            bodies = [_encode(_shown(message)) for message in messages]
            try:
                process.stdin.writelines(part for body in bodies for part in (len(body).to_bytes(4), body))
            except (RuntimeError, OSError):  # uvloop's, for a pipe whose other end has gone
                raise Unanswered(GONE) from None

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
        """End the process and what it has started: let it end by itself for a while, then kill them."""
        process, self._process = self._process, None
        end, self._end = self._end, None
        if process is None or end is None:
            return
        if process.stdin is not None:
            process.stdin.close()
        try:
            await asyncio.wait([end], timeout=patience_s)
        finally:
            if not end.done():
                _kill(process)
        await end


async def _ended(process: Process) -> None:
    """Wait for a process to end, and kill at once what it leaves behind: later its id may be another's."""
    await process.wait()
    _kill(process)


def _kill(process: Process) -> None:
    """Kill a process with all of its session's group."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)


def _environment(names: Collection[str]) -> dict[str, str]:
    """The part of our environment that a function sees."""
    return {
        name: value
        for name, value in os.environ.items()
        if name in PASSED or name in names or name.startswith("LC_")
    }


def _ids(message: Message) -> list[str]:
    return [known for known in (message.user_id, message.anonymous_id) if known]


def _in_order(messages: Sequence[Message], made: Sequence[Made]) -> Iterator[Made]:
    """What was made of messages, and deletes as they are, up to the first of which nothing is known."""
    known = iter(made)
    for message in messages:
        found = Made([message]) if message.type == "delete" else next(known, None)
        if found is None:
            return
        yield found


def _shown(message: Message) -> dict[str, object]:
    """A message as a function sees it: by the spec's names, with source and trust."""
    return {**in_spec_shape(message), "source": message.source, "trust": message.trust}


def _made(message: Message, answer: _Answer) -> Made:
    if answer.failed:
        detail = f"the transform failed: {answer.detail}" if answer.detail else ""
        return Made(failure=f"the transform failed: {answer.failed}", detail=detail, final=answer.final)
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
        raise Unreadable(f"its type is none of {', '.join(sorted(KINDS))}")
    if read_again.type in PARTING and read_again.type != message.type:
        raise Unreadable(f"it turned {message.type} into {read_again.type}; nothing else becomes that")
    return read_again


def _restored(message: Message, made: Message) -> list[str]:
    """Give a made message the ids of its person: a delivery stays in its person's order. What was undone."""
    reports = []
    for field, word in (
        ("user_id", "userId"), ("anonymous_id", "anonymousId"), ("previous_id", "previousId"),
    ):  # fmt: skip
        own, found = getattr(message, field), getattr(made, field)
        if found not in (own, None):
            reports.append(f"the transform changed {word}, which stays the message's own")
        _set(made, field, own)
    return reports
