"""Where jobs touch the disk: one thread, in order, so that no event waits for it and no save overtakes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol, TypeVar

T = TypeVar("T")


class Offload(Protocol):
    """Does blocking work for the loop, one piece after the other."""

    async def __call__(self, work: Callable[[], T]) -> T:
        """Do it, whole even when the caller is cancelled; its result or its error."""
        ...


class OneThread:
    """The real one; its thread starts with the first piece of work."""

    def __init__(self) -> None:
        self._pool = ThreadPoolExecutor(1, "towpath-jobs")

    async def __call__(self, work: Callable[[], T]) -> T:
        """Do it in the thread."""
        return await asyncio.shield(asyncio.get_running_loop().run_in_executor(self._pool, work))

    def close(self) -> None:
        """Wait for what is under way."""
        self._pool.shutdown()


async def inline(work: Callable[[], T]) -> T:
    """Do it on the loop, for virtual time; others get a turn."""
    done = work()
    await asyncio.sleep(0)
    return done
