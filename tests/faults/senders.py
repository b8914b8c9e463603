"""Senders that keep a server busy without burying it: a crash shall meet both ingest and delivery."""

from __future__ import annotations

from typing import Any

from towpath.sandbox.serve import Sandbox

from ..app.test_kill import Load, count
from .support import until

AHEAD = 400


class Senders(Load):
    """`Load` whose clients wait while so many acknowledged events have not arrived yet."""

    def __init__(self, box: Sandbox) -> None:
        super().__init__()
        self._box = box

    async def _accepted(self, batch: list[dict[str, Any]]) -> None:
        await until(lambda: self.stopping or len(self.accepted) - count(self._box) <= AHEAD)
        await super()._accepted(batch)
