"""The line of a listening source: whether it hears, since when, and if not, why and when it tries again."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import structlog

from ..clock import Clock
from ..views import moment

HOLDS_S = 10.0
"""How long a line that was down has to hold before it is said to be back: one that flaps is told of once."""

log = structlog.get_logger("towpath.sources")


class Line:
    """Follows one line. Each change is logged and told once, however often it is tried in between.

    A line hears once something came over it; after it was down, also not before it has held for `HOLDS_S`.
    """

    def __init__(self, source: str, clock: Clock, tell: Callable[[Mapping[str, Any]], None]) -> None:
        self.source = source
        self.state: Literal["starting", "hearing", "down"] = "starting"
        self.since = clock.now()
        self.why = ""
        self._clock = clock
        self._tell = tell
        self._again_at = 0.0
        self._began_s = clock.monotonic()
        self._heard = False

    def begin(self) -> None:
        """An attempt begins."""
        self._began_s, self._heard, self._again_at = self._clock.monotonic(), False, 0.0

    def heard(self) -> None:
        """Something came over it."""
        self._heard = True
        if self.state == "starting" or self._clock.monotonic() - self._began_s >= HOLDS_S:
            self._hears()

    async def hold(self) -> None:
        """To be run with an attempt, and cancelled where that ends: after a while the line has held."""
        await self._clock.sleep(HOLDS_S)
        if self._heard:
            self._hears()

    def _hears(self) -> None:
        if self.state == "hearing":
            return
        was_down, down_s = self.state == "down", self._clock.now() - self.since
        self._change("hearing", "")
        if was_down:
            log.info("a source hears again", source=self.source, was_down_s=round(down_s, 1))
            self._tell({"line": self.source, **self.shown()})

    def failed(self, why: str, again_in_s: float) -> None:
        """The attempt ended; the next one begins in so many seconds."""
        self._again_at = self._clock.now() + again_in_s
        if self.state == "down" and why == self.why:
            return
        was_down = self.state == "down"
        since = self.since
        self._change("down", why)
        if was_down:
            self.since = since  # another reason, the same silence
        log.warning(
            "a source does not hear: its line is down and is tried again",
            source=self.source, why=why, again_in_s=again_in_s,
        )  # fmt: skip
        self._tell({"line": self.source, **self.shown()})

    def _change(self, state: Literal["hearing", "down"], why: str) -> None:
        self.state, self.why, self.since = state, why, self._clock.now()

    def shown(self) -> dict[str, Any]:
        """As the API shows it; `next_try` is empty while one is under way."""
        return {
            "state": self.state,
            "since": moment(self.since),
            "why": self.why,
            "next_try": moment(self._again_at),
        }
