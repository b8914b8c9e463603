"""The program's side of warehouses: one loading process for each target, shared, and gone when it is idle."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any, TypeAlias

import msgspec

from towpath.clock import Clock
from towpath.errors import TowpathError

from . import faults
from .loading import Counted, Gone, Load, Warehouse, Wrote
from .settings import DltTarget, DuckDbTarget, ParquetTarget, PostgresTarget, in_the_clear
from .table import Shape
from .wire import HEAD, MOST_BYTES, RESULTS, Begin, Failure, Finish, Opening, Reset, decode, encode, framed

IDLE_S = 5.0
LEAVE_S = 15.0  # for the work in hand, when it is told to end
WITHHELD = frozenset({"TOWPATH_KEY"})  # of the environment: libraries of vendors run there
IN_HAND = 2  # calls sent and not answered: while one is loaded, the next is there already
TWO_KEYS = "E5616"
CLOSED = "E5617"
TWO_WAYS = "E5626"

AnyTarget: TypeAlias = DuckDbTarget | PostgresTarget | ParquetTarget | DltTarget

_answer = msgspec.msgpack.Decoder(tuple[bool, msgspec.Raw]).decode


class LoadingProcess:
    """A target, loaded by a process of its own, that starts with the first call and ends after `idle_s` idle.

    Calls are done in the order they were made, whoever makes them. Raises `TowpathError`; one that is a
    `Lost` too may go well later. A caller that is cancelled leaves its call to be done.
    """

    def __init__(
        self, target: AnyTarget, hash_key: str, clock: Clock,
        *, directory: Path | None = None, idle_s: float = IDLE_S,
    ) -> None:  # fmt: skip
        self._opening = encode(Opening(in_the_clear(target.model_dump(by_alias=True)), hash_key))
        self._clock = clock
        self._directory = directory
        self._idle_s = idle_s
        self._room = asyncio.Semaphore(IN_HAND)
        self._starting = asyncio.Lock()
        self._child: Child | None = None
        self._idling: asyncio.Task[None] | None = None
        self._calls = 0
        self._closed = False

    @property
    def process_id(self) -> int | None:
        """Of the process, while there is one."""
        return self._child.process_id if self._child is not None else None

    async def close(self) -> None:
        """End the process once its calls are done; there is no other one after it."""
        self._closed = True
        await self._leave()

    async def _leave(self) -> None:
        """End the process; a later call starts another one."""
        async with self._starting:
            if (idling := self._idling) is not None and idling is not asyncio.current_task():
                idling.cancel()
            child, self._child = self._child, None
            if child is not None:
                await child.close()

    async def _call(self, method: str, argument: Any = None) -> Any:
        frame = framed(encode((method, argument)))
        self._calls += 1
        try:
            async with self._room:
                answered = await self._sent(frame)
                passed, value = _answer(await asyncio.shield(answered))
        finally:
            self._calls -= 1
            self._rest()
        if not passed:
            raise decode(value, type=Failure).error()
        return decode(value, type=RESULTS[method])

    async def _sent(self, frame: bytes) -> asyncio.Future[bytes]:
        """Send a call to the process, started when there is none; what it will answer."""
        async with self._starting:
            if self._closed:
                raise TowpathError(
                    "the warehouse is closed", code=CLOSED, why="towpath is ending",
                    fix="try again once it is started", data=faults.NOTHING_LOST,
                )  # fmt: skip
            if self._child is None or self._child.gone:
                self._child = await Child.start(self._opening, self._directory)
            return self._child.send(frame)

    def _rest(self) -> None:
        """Begin to wait for the end of idleness, if nobody calls."""
        if self._calls == 0 and not self._closed:
            if self._idling is not None:
                self._idling.cancel()
            self._idling = asyncio.create_task(self._leave_when_idle())

    async def _leave_when_idle(self) -> None:
        await self._clock.sleep(self._idle_s)
        if self._calls == 0:
            await self._leave()

    # The methods of a loader

    async def prepare(self, shapes: Sequence[Shape]) -> None:
        """Make tables and columns."""
        await self._call("prepare", list(shapes))

    async def state(self, prefix: str) -> Mapping[str, str]:
        """Return what is kept."""
        found: Mapping[str, str] = await self._call("state", prefix)
        return found

    async def keep(self, state: Mapping[str, str | None]) -> None:
        """Keep or drop states."""
        await self._call("keep", dict(state))

    async def load(self, load: Load) -> Wrote:
        """Write a batch with its state."""
        wrote: Wrote = await self._call("load", load)
        return wrote

    async def begin(self, table: str, workspace: str, run: str) -> None:
        """Begin to remember keys."""
        await self._call("begin", Begin(table, workspace, run))

    async def finish(
        self,
        table: str,
        workspace: str,
        run: str,
        *,
        unread: Sequence[Mapping[str, Any]] = (),
        most: float = 1.0,
        state: Mapping[str, str | None],
    ) -> Gone:
        """Mark or remove what was not seen."""
        gone: Gone = await self._call("finish", Finish(table, workspace, run, unread, most, dict(state)))
        return gone

    async def erase(self, ids: Sequence[str]) -> Mapping[str, int]:
        """Remove persons."""
        erased: Mapping[str, int] = await self._call("erase", list(ids))
        return erased

    async def counts(self) -> Sequence[Counted]:
        """How full every table is."""
        counts: Sequence[Counted] = await self._call("counts")
        return counts

    async def execute(self, statements: Sequence[str]) -> None:
        """Run statements of ours."""
        await self._call("execute", list(statements))

    async def reset(self, tables: Sequence[str], workspace: str | None, prefixes: Sequence[str]) -> None:
        """Empty tables and drop states."""
        await self._call("reset", Reset(tables, workspace, prefixes))


class Child:
    """One process, from its start to its end. What it answers belongs to its calls in their order."""

    def __init__(self, process: Process) -> None:
        self._process = process
        self._waiting: deque[asyncio.Future[bytes]] = deque()
        self._reading = asyncio.create_task(self._read())
        self.gone = False

    @classmethod
    async def start(cls, opening: bytes, directory: Path | None) -> Child:
        """Start a process and give it its target, on its input alone: command lines are seen by everybody."""
        try:
            process = await asyncio.create_subprocess_exec(
                # -P: import from where towpath is, not from the directory it was started in.
                sys.executable, "-P", "-m", "towpath.warehouse.process",
                stdin=PIPE, stdout=PIPE, cwd=directory, start_new_session=True,
                env={name: value for name, value in os.environ.items() if name not in WITHHELD},
            )  # fmt: skip
        except OSError as error:
            raise faults.ended(f"it cannot be started: {error.strerror}") from error
        child = cls(process)
        child._write(framed(opening))
        return child

    @property
    def process_id(self) -> int:
        """Of the process."""
        return self._process.pid

    def send(self, frame: bytes) -> asyncio.Future[bytes]:
        """Send a call, whole or not at all; what it will be answered."""
        answered: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        answered.add_done_callback(_looked_at)
        self._waiting.append(answered)
        self._write(frame)
        return answered

    def _write(self, frame: bytes) -> None:
        if self._process.stdin is not None:
            with suppress(RuntimeError, OSError):  # it has gone, which its output tells
                self._process.stdin.write(frame)

    async def _read(self) -> None:
        """Give answers to those who wait for them, until there are no more."""
        answers = self._process.stdout
        try:
            while answers is not None:
                size = HEAD.unpack(await answers.readexactly(HEAD.size))[0]
                if size > MOST_BYTES:
                    break
                body = await answers.readexactly(size)
                if not (waiting := self._waiting.popleft()).done():
                    waiting.set_result(body)
        except (asyncio.IncompleteReadError, OSError, IndexError):
            pass
        finally:
            self.gone = True
            await self._ended()

    async def _ended(self) -> None:
        self._kill()
        code = await self._process.wait()
        while self._waiting:
            if not (waiting := self._waiting.popleft()).done():
                waiting.set_exception(faults.ended(_said(code)))

    async def close(self) -> None:
        """Let it do what it was given and end; kill it when it does not."""
        if self._process.stdin is not None:
            self._process.stdin.close()
        try:
            await asyncio.wait([self._reading], timeout=LEAVE_S)
        finally:
            self._kill()
        await self._reading

    def _kill(self) -> None:
        """Kill the process with all of its session; its id is its own until it was waited for."""
        if self._process.returncode is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, signal.SIGKILL)


class Desk:
    """Every warehouse of a program. The same target is loaded by the same process, whoever asks for it."""

    def __init__(self, clock: Clock, directory: Path | None = None, *, idle_s: float = IDLE_S) -> None:
        self._clock = clock
        self._directory = directory
        self._idle_s = idle_s
        self._opened: dict[str, tuple[str, LoadingProcess]] = {}
        self._files: dict[str, str] = {}

    def warehouse(self, target: AnyTarget, hash_key: str = "") -> Warehouse:
        """Return the warehouse of a target; nothing is started before it is used. Raises `TowpathError`."""
        name = _named(target)
        if name not in self._opened:
            self._see_alone(target)
            opened = LoadingProcess(
                target, hash_key, self._clock, directory=self._directory, idle_s=self._idle_s
            )
            self._opened[name] = (hash_key, opened)
            self._files[name] = getattr(target, "path", "")
        key, found = self._opened[name]
        if key != hash_key:
            raise TowpathError(
                f"two accounts name the same {target.kind} warehouse with different hash keys",
                code=TWO_KEYS,
                why="the same value would be hashed in two ways, and tables could not be joined",
                fix="give both accounts the same hash_key, or name one account only",
                data="nothing was written",
            )
        return found

    def _see_alone(self, target: AnyTarget) -> None:
        """Raise `TowpathError` where another process has the same file: each would lock the other out."""
        path = getattr(target, "path", "")
        if path and path in (self._files[name] for name in self._opened):
            raise TowpathError(
                f"two accounts name the same {target.kind} file in different ways",
                code=TWO_WAYS,
                why=f"{path} can be open in one loading process only, which has one schema",
                fix="give the two the same settings, or each a file of its own",
                data="nothing was written",
            )

    async def retain(self, wanted: Iterable[tuple[AnyTarget, str]]) -> None:
        """End the processes of all other warehouses (targets with hash keys), once their calls are done."""
        named = {(_named(target), hash_key) for target, hash_key in wanted}
        gone = [name for name, (hash_key, _) in self._opened.items() if (name, hash_key) not in named]
        left = [self._opened.pop(name)[1] for name in gone]
        await asyncio.gather(*[process.close() for process in left])

    async def close(self) -> None:
        """End every process, once its calls are done."""
        opened = [process for _, process in self._opened.values()]
        self._opened.clear()
        await asyncio.gather(*[process.close() for process in opened])


def _named(target: AnyTarget) -> str:
    return msgspec.json.encode(in_the_clear(target.model_dump(by_alias=True)), order="sorted").decode()


def _looked_at(answered: asyncio.Future[bytes]) -> None:
    """An answer that nobody waits for any more is no error."""
    if not answered.cancelled():
        answered.exception()


def _said(code: int) -> str:
    if code < 0:
        return f"it was ended by {signal.Signals(-code).name}"
    return f"it ended with code {code}"
