"""Readings that keep what they find day by day."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from datetime import UTC, datetime

import msgspec
from msgspec import Struct

from .reading import Chain, Door, Reading, Step, Wanted


class Daily(Struct, frozen=True):
    """Another reading, whose records also have the `day` (UTC) on which the run began."""

    each: Reading

    def chains(self, wanted: Wanted) -> Sequence[Chain]:
        """Those of the other, with the day."""
        day = datetime.fromtimestamp(wanted.until, UTC).date().isoformat()
        return [
            msgspec.structs.replace(chain, constants={**chain.constants, "day": day})
            for chain in self.each.chains(wanted)
        ]

    def read(self, door: Door, chain: Chain, place: str, wanted: Wanted) -> AsyncGenerator[Step]:
        """As the other reads."""
        return self.each.read(door, chain, place, wanted)
