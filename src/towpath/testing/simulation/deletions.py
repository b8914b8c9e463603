"""How many people a connection may delete before somebody confirms (D14), from the rule alone."""

from __future__ import annotations

from towpath.clock import Clock
from towpath.connection import DeleteLimit

from .trace import Trace


class Deletions:
    """Checks the deletions of one connection. `persons` is how many its sources are said to know."""

    def __init__(self, name: str, limit: DeleteLimit, persons: int, clock: Clock, trace: Trace) -> None:
        self.limit = limit
        self.persons = persons
        self._doubled_s = -limit.within_s  # two loops counted apart then
        self._most = max(limit.count, int(limit.share * persons))
        self._name = name
        self._clock = clock
        self._trace = trace
        self._confirmed = 0
        self._held = False
        self._decided = False
        self._discarded: set[int] = set()
        self._sent: set[int] = set()
        self._done_s: list[float] = []

    async def count_persons(self) -> int:
        """Say how many its sources know, as they do: not at once."""
        await self._clock.sleep(0.05)
        return self.persons

    def _expect(self, holds: object, what: str) -> None:
        if not holds:
            self._trace.expect(False, f"{self._name}: {what}")  # noqa: FBT003

    def starts(self, position: int, *, doubled: bool) -> None:
        """A deletion is sent; of two loops, one does not hear what is decided."""
        if doubled:
            self._doubled_s = self._clock.monotonic()
        gone = position in self._discarded and not doubled
        self._expect(not gone, f"{position} deletes somebody though it was discarded")
        if position > self._confirmed:
            held = self._held and not doubled
            self._expect(not held, f"{position} deletes somebody though deletions wait for a yes")
            self._sent.add(position)

    def delivered(self, position: int, jumped_s: float) -> None:
        """A deletion took place, as the loop was told; a clock that jumped may make others look older."""
        if position <= self._confirmed:
            return
        now_s = self._clock.monotonic()
        since_s = now_s - self.limit.within_s + jumped_s
        self._done_s = [at_s for at_s in self._done_s if at_s > since_s] + [now_s]
        apart = now_s - self._doubled_s < self.limit.within_s
        few = len(self._done_s) <= self._most
        self._expect(few or apart, f"{len(self._done_s)} people were deleted, allowed are {self._most}")

    def held(self, *, doubled: bool) -> None:
        """The guard holds what comes now."""
        self._trace.saw("deletions held")
        self._expect(len(self._sent) >= self._most, f"held after only {len(self._sent)} deletions")
        self._held = not doubled

    def decide(self, position: int, *, discard: bool) -> None:
        """Somebody says yes, or no, to all up to a position."""
        self._trace.saw(f"deletions {'discarded' if discard else 'confirmed'}", self._held)
        if discard:
            self._discarded.update(range(self._confirmed + 1, position + 1))
        self._confirmed, self._decided = position, True
        self._sent.clear()
        self._done_s.clear()

    def released(self) -> None:
        """The guard holds nothing any more."""
        self._expect(self._decided or not self._held, "deletions go on though nobody decided about them")
        self._held = self._decided = False

    def discarded(self, position: int) -> bool:
        """Whether somebody said that this one is not to be."""
        return position in self._discarded
