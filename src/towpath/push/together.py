"""Work asked for by many is done in one go, off the loop: group commit, and group look-up."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from msgspec import Struct

W = TypeVar("W")
R = TypeVar("R")


class _Waiting(Struct, Generic[W, R], eq=False):
    wanted: W
    ended: asyncio.Future[R]


class Together(Generic[W, R]):
    """Does what is asked meanwhile together: while `do` works in its thread, the next lot gathers.

    `do` takes what was asked, at most `most` at once, and returns the answers in order. When it raises, each
    is tried alone, so that one at fault fails nobody else.
    """

    def __init__(self, do: Callable[[Sequence[W]], Sequence[R]], most: int) -> None:
        self._do = do
        self._most = most
        self._queue: list[_Waiting[W, R]] = []
        self._work: asyncio.Task[None] | None = None

    async def ask(self, wanted: W) -> R:
        """Return the answer to one; it is done also when nobody waits for it any more."""
        return (await self.ask_all([wanted]))[0]

    async def ask_all(self, wanted: Sequence[W]) -> list[R]:
        """Return the answers in order. Raises what the first of them came to that failed."""
        loop = asyncio.get_running_loop()
        waiting = [_Waiting(one, loop.create_future()) for one in wanted]
        self._queue += waiting
        if waiting and (self._work is None or self._work.done()):
            self._work = asyncio.create_task(self._run())
        ended = await asyncio.gather(*[one.ended for one in waiting], return_exceptions=True)
        if failed := [answer for answer in ended if isinstance(answer, BaseException)]:
            raise failed[0]
        return [one.ended.result() for one in waiting]

    async def _run(self) -> None:
        while self._queue:
            some, self._queue = self._queue[: self._most], self._queue[self._most :]
            try:
                await self._answer(some)
            except Exception:
                for waiting in some:
                    await self._answer_alone(waiting)

    async def _answer(self, some: Sequence[_Waiting[W, R]]) -> None:
        answers = await asyncio.to_thread(self._do, [waiting.wanted for waiting in some])
        for waiting, answer in zip(some, answers, strict=True):
            if not waiting.ended.done():
                waiting.ended.set_result(answer)

    async def _answer_alone(self, waiting: _Waiting[W, R]) -> None:
        try:
            await self._answer([waiting])
        except Exception as error:  # for who asked, whatever it is
            if not waiting.ended.done():
                waiting.ended.set_exception(error)
