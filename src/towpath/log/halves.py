"""What a ledger away from its log does for the store of both: each call is one transaction of the ledger."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Protocol, TypeAlias

from msgspec import Struct

from . import Ledger


class Trimming(Struct, frozen=True, tag="trim"):
    """An intent: drop records received before a Unix time, by partition up to a position all have settled."""

    before: float
    upto: dict[int, int]


class Erasing(Struct, frozen=True, tag="erase"):
    """An intent: erase who has one of these ids."""

    ids: frozenset[str]


Intent: TypeAlias = Trimming | Erasing
"""What is written down before it is begun in two places, and struck out when both have it."""


class Scope(Struct, frozen=True):
    """Records of `source` with since < position <= until (None: open), all of one partition.

    `base` and `final` are how many the source had put into that partition at both ends.
    """

    source: str
    since: int
    until: int | None
    base: int
    final: int | None

    def holds(self, source: str, position: int) -> bool:
        """Whether a record of this partition is in it."""
        return (
            source == self.source and self.since < position and (self.until is None or position <= self.until)
        )


class Stand(Struct, frozen=True):
    """What is known of a connection before its sources change: its cursors by partition, and its scopes.

    Both are empty for a new one. `open` tells of intents not yet carried out.
    """

    generation: int
    open: bool
    cursors: Mapping[int, int]
    scopes: Mapping[int, Sequence[Scope]]


class Change(Struct, frozen=True):
    """What becomes of a connection: cursors of partitions it has not been in, scopes that begin or end.

    `untried`: the positions of the ended scopes' records beyond the cursor, as far as the log shows them.
    """

    cursors: Mapping[int, int]
    opened: Sequence[Scope]
    closed: Sequence[Scope]
    untried: Sequence[int]


class Place(Struct, frozen=True):
    """A connection in a partition: its cursor, its scopes, and the first deliveries tried beyond the cursor.

    `tried` counts those whose record an open scope shows; `keys` (of a recount) are the positions of all.
    """

    partition: int
    cursor: int
    scopes: Sequence[Scope]
    tried: int = 0
    keys: frozenset[int] = frozenset()


class Tally(Struct, frozen=True):
    """One connection's side of the balance; `counts` by kind and reason, from the counters or the rows."""

    connection: str
    counts: Mapping[tuple[int, str], int]
    parked: int
    places: Sequence[Place]


class View(Struct, frozen=True):
    """The ledger at one instant. `gone`, by source: positions being erased, in the log or not any more."""

    generation: int
    gone: Mapping[str, frozenset[int]]
    tallies: Sequence[Tally]


class LedgerHalf(Ledger, Protocol):
    """A ledger as the store of a log elsewhere needs it."""

    async def stand(self, connection: str) -> Stand:
        """What is known of a connection."""
        ...

    async def change(self, connection: str, stand: Stand, change: Change) -> bool:
        """Make a connection known, or change it; False, and no change, when it stands otherwise by now."""
        ...

    async def disconnect(self, connection: str) -> bool:
        """Forget a connection with its rows, letters and counters; False when it is unknown."""
        ...

    async def prune(self, before: float) -> int:
        """Delete dead letters older than this Unix time; how many."""
        ...

    async def view(self, *, recount: bool) -> View:
        """Everything the balance needs, of one instant."""
        ...

    async def generation(self) -> int:
        """The generation now: as long as it stays, the log loses no record the last view did not know of."""
        ...

    async def shown(self, below: Mapping[int, int]) -> Mapping[str, int]:
        """Per connection: first deliveries below these positions whose record is counted nowhere else."""
        ...

    async def intents(self) -> Sequence[tuple[int, Intent]]:
        """What has been begun and not struck out, oldest first."""
        ...

    async def intend_trim(self, before: float, upto: Mapping[int, int]) -> tuple[int, Trimming]:
        """Write down a trim; in each partition no further than every connection's cursor."""
        ...

    async def intend_erase(self, ids: frozenset[str]) -> int:
        """Write down an erase."""
        ...

    async def trimmed(self, intent: int, upto: Mapping[int, int]) -> None:
        """The log has dropped all up to these positions: rows move to the past, the intent is struck out."""
        ...

    async def mark(self, intent: int, records: Collection[tuple[int, str]]) -> int:
        """These records (position, source) are being erased: their deliveries end. How many were parked."""
        ...

    async def strike(self, ids: frozenset[str]) -> int:
        """Delete the parked and dead copies whose message is of one of these ids; how many."""
        ...

    async def erased(self, intent: int, ids: frozenset[str]) -> Sequence[tuple[str, str, str]]:
        """The log has erased them: their links go too, and the intent is struck out."""
        ...

    async def close(self) -> None:
        """Close."""
        ...
