"""Time, sleep and randomness, passed in everywhere so that a simulation can own them."""

from __future__ import annotations

import asyncio
import random
import time
from typing import Protocol


class Clock(Protocol):
    """What the product may know about time and chance."""

    def now(self) -> float:
        """Wall time, Unix seconds: for stamps and schedules that survive a restart."""
        ...

    def monotonic(self) -> float:
        """Seconds that never jump: for delays, budgets and time-outs."""
        ...

    async def sleep(self, delay_s: float) -> None:
        """Wait this many seconds."""
        ...

    def uniform(self, low: float, high: float) -> float:
        """Pick a number in [low, high], for jitter."""
        ...

    def token(self, size: int) -> bytes:
        """Return `size` random bytes, for ids."""
        ...


class SystemClock:
    """The real clock."""

    def __init__(self) -> None:
        self._random = random.SystemRandom()

    def now(self) -> float:
        """Unix seconds."""
        return time.time()

    def monotonic(self) -> float:
        """Seconds of the monotonic clock."""
        return time.monotonic()

    async def sleep(self, delay_s: float) -> None:
        """Sleep on the running loop."""
        await asyncio.sleep(delay_s)

    def uniform(self, low: float, high: float) -> float:
        """Pick from the system's randomness."""
        return self._random.uniform(low, high)

    def token(self, size: int) -> bytes:
        """Return bytes from the system's randomness."""
        return self._random.randbytes(size)
