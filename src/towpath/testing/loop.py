"""An asyncio loop on virtual time: days pass in milliseconds, and a seed replays a history exactly."""

from __future__ import annotations

import asyncio
import random
import selectors
from collections.abc import Callable, Coroutine, Mapping
from functools import wraps
from typing import Any, ParamSpec, TypeVar

T = TypeVar("T")
P = ParamSpec("P")

START = 1_760_000_000.0  # 2025-10-09T08:53:20Z
STUCK_AFTER_S = 5.0


class Stuck(RuntimeError):
    """Everything waits for something that will never come."""


class VirtualSelector(selectors.BaseSelector):
    """Where a loop would sleep, move its time instead; real sockets and threads still get a turn."""

    def __init__(self) -> None:
        self._inner = selectors.DefaultSelector()
        self.now_s = 0.0

    def register(self, fileobj: Any, events: int, data: Any = None) -> selectors.SelectorKey:
        """Watch a file."""
        return self._inner.register(fileobj, events, data)

    def unregister(self, fileobj: Any) -> selectors.SelectorKey:
        """Stop watching a file."""
        return self._inner.unregister(fileobj)

    def get_map(self) -> Mapping[Any, selectors.SelectorKey]:
        """Return what is watched."""
        return self._inner.get_map()

    def close(self) -> None:
        """Close the real selector."""
        self._inner.close()

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        """Return what is ready; else skip to the next timer. Raises `Stuck` when there is no timer."""
        found = self._inner.select(0)
        if found or timeout == 0:
            return found
        if timeout is None:
            # Only a thread or a socket can go on from here: give it some real time.
            if found := self._inner.select(STUCK_AFTER_S):
                return found
            raise Stuck("every task waits, and no timer is set")
        self.now_s += max(timeout, 0.0)
        return found


class VirtualLoop(asyncio.SelectorEventLoop):
    """An event loop whose `time()` moves only when everything waits."""

    def __init__(self) -> None:
        self._virtual = VirtualSelector()
        super().__init__(self._virtual)

    def time(self) -> float:
        """Return virtual seconds since the loop was made."""
        return self._virtual.now_s


class LoopClock:
    """The clock of a virtual loop: wall time, delays, chance and ids all follow from the seed.

    `jump` moves the wall time alone, as an administrator would.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop, seed: int = 0, start: float = START) -> None:
        self._loop = loop
        self._random = random.Random(seed)  # noqa: S311 - repeatable on purpose
        self._start = start

    def now(self) -> float:
        """Return virtual Unix seconds."""
        return self._start + self._loop.time()

    def monotonic(self) -> float:
        """Return the loop's virtual seconds."""
        return self._loop.time()

    async def sleep(self, delay_s: float) -> None:
        """Wait this many virtual seconds."""
        await asyncio.sleep(delay_s)

    def uniform(self, low: float, high: float) -> float:
        """Pick from the seeded randomness."""
        return self._random.uniform(low, high)

    def token(self, size: int) -> bytes:
        """Return bytes from the seeded randomness."""
        return self._random.randbytes(size)

    def jump(self, seconds: float) -> None:
        """Move the wall time, not the monotonic one."""
        self._start += seconds


def run_virtual(work: Coroutine[Any, Any, T]) -> T:
    """Run a coroutine to its end on a virtual loop of its own, and end what it left running."""
    with asyncio.Runner(loop_factory=VirtualLoop) as runner:
        return runner.run(work)


def virtual(test: Callable[P, Coroutine[Any, Any, T]]) -> Callable[P, T]:
    """Let an async test run on virtual time."""

    @wraps(test)
    def run(*args: P.args, **kwargs: P.kwargs) -> T:
        return run_virtual(test(*args, **kwargs))

    return run
