"""One attempt at a job, as the job sees it: where to begin, what to keep, how far it is, whether to stop."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, Generic, Literal, TypeAlias, TypeVar

import msgspec
from msgspec import Struct

from ..clock import Clock
from ..destination import Settings

S = TypeVar("S", bound=Settings)

CHECKPOINT_BYTES_MAX = 1024 * 1024
LINES_MAX = 5000
LINE_CHARACTERS_MAX = 2000
WINDOW_S = 60.0
SAMPLE_S = 0.5

Level: TypeAlias = Literal["debug", "info", "warning", "error"]
Persist: TypeAlias = Callable[[str], Awaitable[None]]


class LeaseLost(Exception):
    """Another process works on this run now; nothing that this one says is kept any more."""


class Said(Struct, frozen=True):
    """Something the run said, `at` Unix seconds."""

    at: float
    level: Level
    text: str


class Counts(Struct):
    """What a run has handled so far."""

    read: int = 0
    written: int = 0
    skipped: int = 0
    failed: int = 0


class Measure(Struct, omit_defaults=True):
    """How far something is. `total` is None while nobody knows; `rate_per_s` is that of the last minute."""

    done: float = 0.0
    total: float | None = None
    unit: str = ""
    rate_per_s: float = 0.0

    @property
    def eta_s(self) -> float | None:
        """Seconds until the end at this rate; None when it cannot be said."""
        if self.total is None or self.rate_per_s <= 0:
            return None
        return max(self.total - self.done, 0.0) / self.rate_per_s


class Part(Measure, omit_defaults=True):
    """How far a named part of a run is, like one table of many."""

    ended: bool = False


class Progress(Measure, omit_defaults=True):
    """How far a run is, with what it counted and its parts, where it has any."""

    counts: Counts = msgspec.field(default_factory=Counts)
    said: int = 0
    parts: dict[str, Part] = msgspec.field(default_factory=dict)


class Kept(Struct, omit_defaults=True):
    """A checkpoint as it is stored: the job's state with the progress that belongs to it."""

    state: Any
    progress: Progress


class Pace:
    """The rate of the last minute, or of the last two steps when they are rarer."""

    def __init__(self, at_s: float, done: float) -> None:
        self._samples = deque([(at_s, done)])

    def note(self, at_s: float, done: float) -> None:
        """Remember how far it is now."""
        if done != self._samples[-1][1] and at_s - self._samples[-1][0] >= SAMPLE_S:
            self._samples.append((at_s, done))
        while len(self._samples) > 2 and at_s - self._samples[1][0] > WINDOW_S:
            self._samples.popleft()

    def rate_per_s(self, at_s: float, done: float) -> float:
        """Units per second; 0 before there is enough to tell."""
        first_s, first = self._samples[0]
        return max(done - first, 0.0) / (at_s - first_s) if at_s - first_s >= SAMPLE_S else 0.0


class Run(Generic[S]):
    """One attempt. `checkpoint` is what was saved last, by this attempt or an earlier one; None at first."""

    def __init__(
        self,
        number: int,
        settings: S,
        clock: Clock,
        *,
        attempt: int = 1,
        kept: str | None = None,
        persist: Persist,
        redact: Callable[[str], str] = str,
    ) -> None:
        found = Kept(None, Progress()) if kept is None else msgspec.json.decode(kept, type=Kept)
        self.number = number
        self.attempt = attempt
        self.settings = settings
        self.clock = clock
        self.checkpoint: Any = found.state
        self.state = found.progress
        self.saved = False
        self.changed = False
        self.lines: list[Said] = []
        self._persist = persist
        self._redact = redact
        self._stopping: Callable[[], bool] = bool
        self._pace = Pace(clock.monotonic(), self.state.done)
        self._paces: dict[str, Pace] = {}

    async def save(self, state: Any, *, done: float | None = None, total: float | None = None) -> None:
        """Keep a checkpoint, any JSON value, with the progress; it is on disk when this returns.

        Raises `LeaseLost` when another process works on this run by now, with nothing kept.
        """
        if done is not None or total is not None:
            self.progress(self.state.done if done is None else done, total)
        kept = msgspec.json.encode(Kept(state, self.measured()))
        if len(kept) > CHECKPOINT_BYTES_MAX:
            raise ValueError(f"a checkpoint may have {CHECKPOINT_BYTES_MAX} bytes, not {len(kept)}")
        await self._persist(kept.decode())
        self.checkpoint, self.saved = state, True

    def progress(self, done: float, total: float | None = None, unit: str = "") -> None:
        """Say how far it is; a total or a unit once said holds until another is said."""
        self.state.done = done
        self.state.total = self.state.total if total is None else total
        self.state.unit = unit or self.state.unit
        self._pace.note(self.clock.monotonic(), done)
        self.changed = True

    def part(
        self, name: str, done: float, total: float | None = None, *, unit: str = "", ended: bool = False
    ) -> None:
        """Say how far a part of it is; parts are shown in the order in which they were first named."""
        now = self.clock.monotonic()
        part = self.state.parts.setdefault(name, Part(unit=unit))
        pace = self._paces.setdefault(name, Pace(now, part.done))
        part.done, part.total, part.ended = done, part.total if total is None else total, ended
        pace.note(now, done)
        self.changed = True

    def count(self, *, read: int = 0, written: int = 0, skipped: int = 0, failed: int = 0) -> None:
        """Add to what was handled."""
        counts = self.state.counts
        counts.read += read
        counts.written += written
        counts.skipped += skipped
        counts.failed += failed
        self.changed = True

    def log(self, text: str, level: Level = "info") -> None:
        """Say something to those who follow the run; secrets and addresses are taken out."""
        self.state.said += 1
        if self.state.said > LINES_MAX:
            return
        if self.state.said == LINES_MAX:
            text, level = f"no more than {LINES_MAX} lines of one run are kept", "warning"
        self.lines.append(Said(self.clock.now(), level, self._redact(text)[:LINE_CHARACTERS_MAX]))
        self.changed = True

    def check(self) -> None:
        """Raise `CancelledError` when the run is to stop: for loops that await nothing."""
        if self._stopping():
            raise asyncio.CancelledError

    def stop_when(self, stopping: Callable[[], bool]) -> None:
        """Set what `check` asks."""
        self._stopping = stopping

    def measured(self) -> Progress:
        """The progress with its rate as of now."""
        now = self.clock.monotonic()
        self.state.rate_per_s = self._pace.rate_per_s(now, self.state.done)
        for name, pace in self._paces.items():
            part = self.state.parts[name]
            part.rate_per_s = pace.rate_per_s(now, part.done)
        return self.state

    def unsaid(self) -> list[Said]:
        """Take the lines that are not stored yet."""
        lines, self.lines = self.lines, []
        return lines
