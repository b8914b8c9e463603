"""Fakes of what the product is given: a clock that never waits, a scripted network, a memory in a dict."""

from __future__ import annotations

import asyncio
import heapq
import random
import re
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterator
from inspect import isawaitable
from typing import Any, TypeAlias, TypeVar

from towpath.http import Reply, Request

T = TypeVar("T")
Answer: TypeAlias = Reply | BaseException | Callable[[Request], "Reply | Awaitable[Reply]"]
Rule: TypeAlias = tuple[str, str, Answer]

START = 1_760_000_000.0  # 2025-10-09T08:53:20Z
_SPINS_UNSEEN = 50
_SPINS_AT_MOST = 10_000


class FakeClock:
    """Virtual time: `sleep` returns when a test moves the time there, never because real time passed.

    Move it with `await clock.advance(seconds)`, or let `await clock.drive(coroutine)` skip every wait until
    the coroutine ends. The randomness is seeded.
    """

    def __init__(self, now: float = START, seed: int = 0) -> None:
        self._start = now
        self._elapsed = 0.0  # apart from the start, which would swallow microseconds
        self._random = random.Random(seed)  # noqa: S311 - repeatable on purpose
        self._sleepers: list[tuple[float, int, asyncio.Future[None]]] = []
        self._order = 0

    def now(self) -> float:
        """Return the virtual Unix time."""
        return self._start + self._elapsed

    def monotonic(self) -> float:
        """Return the virtual seconds since the clock was made."""
        return self._elapsed

    async def sleep(self, delay_s: float) -> None:
        """Wait until the virtual time is that much later."""
        if delay_s <= 0:
            await asyncio.sleep(0)
            return
        waker: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._order += 1
        heapq.heappush(self._sleepers, (self._elapsed + delay_s, self._order, waker))
        await waker

    def uniform(self, low: float, high: float) -> float:
        """Pick from the seeded randomness."""
        return self._random.uniform(low, high)

    def token(self, size: int) -> bytes:
        """Return bytes from the seeded randomness."""
        return self._random.randbytes(size)

    async def advance(self, seconds: float) -> None:
        """Move the time, waking each sleeper at its own moment and letting its consequences run."""
        end = self._elapsed + seconds
        await _settle()
        while (due := self._next()) is not None and due <= end:
            await self._wake(due)
        self._elapsed = max(self._elapsed, end)
        await _settle()

    async def drive(self, work: Coroutine[Any, Any, T]) -> T:
        """Run a coroutine to its end, moving the time whenever everything waits."""
        task = asyncio.ensure_future(work)
        await _settle()
        while not task.done():
            due = self._next()
            if due is None:
                # Waits for something real (a thread, a socket), not for the clock.
                await asyncio.wait([task], timeout=0.001)
            else:
                await self._wake(due)
            await _settle()
        return await task

    def _next(self) -> float | None:
        while self._sleepers and self._sleepers[0][2].done():
            heapq.heappop(self._sleepers)
        return self._sleepers[0][0] if self._sleepers else None

    async def _wake(self, due: float) -> None:
        self._elapsed = max(self._elapsed, due)
        _, _, waker = heapq.heappop(self._sleepers)
        waker.set_result(None)
        await _settle()


async def _settle() -> None:
    """Let everything that is ready run, and what it made ready."""
    ready = getattr(asyncio.get_running_loop(), "_ready", None)  # uvloop keeps its queue to itself
    for _ in range(_SPINS_UNSEEN if ready is None else _SPINS_AT_MOST):
        await asyncio.sleep(0)
        if ready is not None and not ready:
            return


class FakeTransport:
    """A network that answers by script and remembers every request in `requests`.

    `FakeTransport(("GET", "/v1/customers/*", Reply(404)), ("*", "*", Reply(200)))`: the first rule whose
    method and URL pattern match answers. `*` stands for anything; a pattern matches the end of the URL. An
    answer is a reply, an exception to raise, or a function of the request (also async). A request that no
    rule answers fails the test.
    """

    def __init__(self, *rules: Rule) -> None:
        self.rules: list[Rule] = list(rules)
        self.requests: list[Request] = []
        self.closed = False

    def on(self, method: str, pattern: str, answer: Answer) -> FakeTransport:
        """Add a rule before all others."""
        self.rules.insert(0, (method, pattern, answer))
        return self

    async def send(self, request: Request, *, timeout_s: float) -> Reply:
        """Answer by the first matching rule."""
        self.requests.append(request)
        answer = self._answer(request)
        if isinstance(answer, BaseException):
            raise answer
        if isinstance(answer, Reply):
            return answer
        made = answer(request)
        return await made if isawaitable(made) else made

    async def close(self) -> None:
        """Remember that it was closed."""
        self.closed = True

    def _answer(self, request: Request) -> Answer:
        for method, pattern, answer in self.rules:
            if method in ("*", request.method) and _matches(pattern, request.url):
                return answer
        raise AssertionError(f"no rule answers {request.method} {request.url}")


def _matches(pattern: str, url: str) -> bool:
    expression = ".*".join(re.escape(part) for part in pattern.split("*"))
    return re.search(f"{expression}$", url) is not None


class FakeMemory:
    """A connection's memory in a dict, with expiry by the given clock."""

    def __init__(self, clock: FakeClock | None = None) -> None:
        self._clock = clock or FakeClock()
        self._values: dict[str, tuple[str, float]] = {}

    def find(self, key: str) -> str | None:
        """Return the value, or None when absent or expired."""
        value, until = self._values.get(key, (None, 0.0))
        return value if until > self._clock.monotonic() else None

    def keep(self, key: str, value: str, ttl_s: float) -> None:
        """Keep a value for some seconds."""
        self._values[key] = (value, self._clock.monotonic() + ttl_s)

    def drop(self, key: str) -> None:
        """Forget a key."""
        self._values.pop(key, None)


class FakeKnown:
    """What a source knows, in a dict; a change holds at once, and values have no end."""

    def __init__(self) -> None:
        self.values: dict[str, bytes] = {}

    def load(self, keys: Collection[str]) -> None:
        """Nothing has to be read ahead."""

    def find(self, key: str) -> bytes | None:
        """Return the value, or None."""
        return self.values.get(key)

    def keep(self, key: str, value: bytes, ttl_s: float | None = None) -> None:
        """Remember a value."""
        self.values[key] = value

    def drop(self, key: str) -> None:
        """Forget a key."""
        self.values.pop(key, None)

    def keys(self, prefix: str = "") -> Iterator[str]:
        """List the keys that begin so, in order."""
        return iter(sorted(key for key in self.values if key.startswith(prefix)))

    def count(self, prefix: str = "") -> int:
        """Count the keys that begin so."""
        return sum(key.startswith(prefix) for key in self.values)
