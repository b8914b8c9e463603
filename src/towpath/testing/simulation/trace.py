"""What a history leaves behind: the hash of every event with its time, what was seen, and what broke."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import Sequence

from towpath.clock import Clock


class Broken(AssertionError):
    """A promise does not hold; says when and what was seen. `lines` are the events before it, if kept."""

    lines: Sequence[str] = ()


class Trace:
    """The events of one history, in order. `lines` are kept only when asked for; the hash always is.

    `seen` counts the kinds of faults and of answers to them that really occurred.
    """

    def __init__(self, clock: Clock, *, keep: bool = False) -> None:
        self.seen: Counter[str] = Counter()
        self.lines: list[str] = []
        self.broken: asyncio.Future[Broken] = asyncio.get_running_loop().create_future()
        self._clock = clock
        self._keep = keep
        self._hash = hashlib.sha256()

    @property
    def digest(self) -> str:
        """The hash of everything noted so far."""
        return self._hash.hexdigest()

    def note(self, *event: object) -> None:
        """Write an event down."""
        line = f"{self._clock.monotonic():.6f} {' '.join(map(str, event))}"
        self._hash.update(line.encode() + b"\n")
        if self._keep:
            self.lines.append(line)

    def saw(self, kind: str, times: int = 1) -> None:
        """A kind of fault, or of what follows from one, occurred."""
        self.seen[kind] += times

    def expect(self, holds: object, what: str) -> None:
        """A promise. Raises `Broken`."""
        if not holds:
            broken = Broken(f"at {self._clock.monotonic():.3f} s: {what}")
            broken.lines = self.lines
            # Raised inside a vendor it would count as a bug of the destination: this ends the history.
            if not self.broken.done():
                self.broken.set_result(broken)
            raise broken
