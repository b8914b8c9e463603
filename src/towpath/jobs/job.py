"""What the author of a job writes: a name, its settings, and one `run` that goes on from its checkpoint."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar, Generic, Literal, TypeAlias, TypeVar

from ..destination import Settings

if TYPE_CHECKING:
    from .run import Run

Pool: TypeAlias = Literal["work", "push", "upkeep"]
"""Jobs of one pool share its places, so that long ones of one kind never keep another kind waiting."""
RETRIES_S = (10.0, 60.0, 300.0, 1800.0, 7200.0)

S = TypeVar("S", bound=Settings)


class NoSettings(Settings):
    """The settings of a job that takes none."""


class Snooze(Exception):
    """Raised by a job: go on later from the last checkpoint; it counts as no failure."""

    def __init__(self, after_s: float, reason: str = "") -> None:
        super().__init__(reason)
        self.after_s = after_s
        self.reason = reason


class GiveUp(Exception):
    """Raised by a job: it will never work as it is; no other attempt is made."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Job(ABC, Generic[S]):
    """A kind of work. One instance is registered under its `name` and makes every run of it.

    `kind` says what it is, `name` which one (by default the kind; a job of a connector has a name of its
    own). `about` is one sentence for people. `Settings` are the arguments of one run: they are kept as text,
    so no secret may be among them. `pool` says with which others it shares places. `retries_s` are the pauses
    after failures in a row; a checkpoint saved in between begins them anew, and after the last the run has
    failed.
    """

    kind: ClassVar[str]
    about: ClassVar[str] = ""
    Settings: ClassVar[type[Any]] = NoSettings
    pool: ClassVar[Pool] = "work"
    retries_s: tuple[float, ...] = RETRIES_S

    @property
    def name(self) -> str:
        """What commands call it. Not a number: those are runs."""
        return self.kind

    def key(self, settings: S) -> str | None:
        """At most one run of a key lives at a time; None lets any number run beside each other."""
        del settings
        return self.name

    @abstractmethod
    async def run(self, run: Run[S]) -> None:
        """Do the work. Returning means succeeded.

        Begin at `run.checkpoint` (None at first) and `await run.save(…)` after each step that need not be
        done again; whatever is done after the last save is done again when the process dies, so steps must
        bear repeating. `run.settings` are the arguments. Cancelling and a stop of the server arrive as
        `asyncio.CancelledError` at the next await; work without awaits calls `run.check()`. `Snooze` goes
        on later, `GiveUp` fails for good, anything else is tried again.
        """
