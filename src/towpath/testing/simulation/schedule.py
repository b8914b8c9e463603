"""When each delivery may be tried again: the schedule with its jitter, seen from outside (D06, P7)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING

from msgspec import Struct

from towpath.clock import Clock
from towpath.log import Done

from .trace import Trace

if TYPE_CHECKING:
    from .book import Kept

# Written down again, from D06: what the product believes is what is tested.
LONG_S = (5, 30, 120, 600, 1800, 3600, 7200, 18000, 36000, 50400, 72000, 86400)
SHORT_S = (5, 30, 120, 600, 1800, 2700, 3600, 3600, 5400)
LASTS_S = float(sum(LONG_S))
JITTER = 0.2
SLACK_S = 120.0  # for slow calls


class Failure(Struct, frozen=True):
    """The last failed attempt of a delivery: when, the how manieth, and the bounds of the next wait."""

    at_s: float
    earliest_s: float
    latest_s: float


class Schedule:
    """Checks the attempts of one connection. `disturb` says that something else moved its retries.

    A retry that is due may start `late_s` later, for the calls of others that are due before it.
    """

    def __init__(self, clock: Clock, trace: Trace, name: str, late_s: float) -> None:
        self._late_s = late_s
        self.sends: Counter[int] = Counter()
        self.throttled: Counter[int] = Counter()
        self._name = name
        self._clock = clock
        self._trace = trace
        self._failures: dict[int, Failure] = {}
        self._ended_s: dict[int, float] = {}
        self._wishes: dict[int, tuple[float, float]] = {}
        self._disturbed_s = 0.0
        self._lifted_s = 0.0
        self._first_s: dict[int, float] = {}

    def disturb(self, at_s: float | None = None, *, in_s: float = 0.0) -> None:
        """Retries may come at other times: a crash, a pause, a stall, a hurry, a jump, a limit."""
        moment_s = self._clock.monotonic() if at_s is None else at_s
        self._disturbed_s = max(self._disturbed_s, moment_s + in_s)

    def lift(self) -> None:
        """What the vendor asked for does not count any more: somebody wants it now, or the process is new."""
        self._lifted_s = self._clock.monotonic()
        self.disturb()

    def wish(self, position: int, wish_s: float) -> None:
        """The vendor asked to be left alone for so long."""
        now_s = self._clock.monotonic()
        self._wishes[position] = (now_s, now_s + wish_s)

    def ended(self, position: int) -> None:
        """This one is over."""
        self._failures.pop(position, None)
        self._ended_s[position] = self._clock.monotonic()

    def failed(self, position: int, attempts: int, alone: int, wish_s: float) -> None:
        """An attempt failed and counts: the next one is due by the schedule, or the vendor's wish."""
        step, lonely = min(attempts, len(LONG_S)), min(max(alone, 0) + 1, len(SHORT_S))
        waits = sorted((LONG_S[step - 1], SHORT_S[lonely - 1]))
        latest_s = max(waits[1] * (1 + JITTER), wish_s)
        self._failures[position] = Failure(self._clock.monotonic(), max(waits[0], wish_s), latest_s)

    def starts(self, position: int, before: Sequence[int] | None) -> None:
        """An attempt begins; `before` are all that its person had before it, None when that is unclear."""
        now_s = self._clock.monotonic()
        self._first_s.setdefault(position, now_s)
        asked_s, until_s = self._wishes.pop(position, (0.0, 0.0))
        self._trace.expect(
            asked_s <= self._lifted_s or now_s >= until_s - 0.01,
            f"{self._name}: {position} is tried {until_s - now_s:.1f} s before the vendor wants it",
        )
        failure = self._failures.pop(position, None)
        if failure is None or self._disturbed_s >= failure.at_s:
            return
        gap_s = now_s - failure.at_s
        self._trace.saw("retry on schedule")
        self._trace.expect(
            gap_s >= failure.earliest_s - 0.01,
            f"{self._name}: {position} is tried after {gap_s:.1f} s, not {failure.earliest_s:.1f}",
        )
        if before is not None and all(self._ended_s.get(n, now_s) < failure.at_s for n in before):
            self._trace.expect(
                gap_s <= failure.latest_s + self._late_s,
                f"{self._name}: {position} is tried after {gap_s:.1f} s, at most {failure.latest_s:.1f}",
            )

    def gave_up(self, done: Done, message: Kept, jumped_s: float) -> None:
        """The schedule is over for this one: it had its attempts, or it is older than all of them take."""
        now_s = self._clock.monotonic()
        tried_s = now_s - self._first_s.get(done.position, now_s) + jumped_s
        old = now_s - message.at_s + jumped_s >= LASTS_S
        short = done.attempts >= len(SHORT_S) + 1 and done.code >= 500
        long = done.attempts >= len(LONG_S) + 1 and tried_s >= LASTS_S - SLACK_S
        self._trace.saw("gave up after the short schedule" if short else "gave up after 76 hours")
        self._trace.expect(
            old or short or long,
            f"{self._name}: {done.position} given up after {done.attempts} attempts, {tried_s:.0f} s",
        )

    def count(self, done: Done) -> None:
        """No more attempts are counted than were made; being throttled costs none."""
        made = self.sends[done.position] - self.throttled[done.position]
        self._trace.expect(
            done.attempts <= made, f"{self._name}: {done.position} counts {done.attempts} attempts of {made}"
        )
