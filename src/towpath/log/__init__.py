"""Log and Ledger: what is kept and what became of it. The promises every engine keeps, in prose.

Log
    * `append` returns when the records are on disk, not before (P1). A message id seen from the same source
      within the window is kept once, also when both copies arrive in one call or at the same time (P8).
    * Positions grow in the order of appending and never change. Those of partition 0 are 1, 2, 3 …; those of
      partition n the same plus n × `PARTITION`, so a position is unique in the whole log and names its
      partition (`partition_of`): a ledger needs no column for it. After an erase a position may be missing.
    * `read` returns only durable records, in order, and passes over nothing silently: where a record cannot
      be read it says so and how far the damage goes; the caller decides whether to go on behind it.
Ledger
    * One holder at a time: `lease` hands out a growing epoch, and `settle` with an older epoch changes
      nothing and says so (the fence).
    * `settle` moves settlement rows, counters, parked rows, dead letters and the cursor in one transaction.
    * A dead letter stays dead until somebody replays it; a second replay of the same one has no effect.
    * Balance (P2): per connection, accepted = delivered + waiting + dead + skipped + erased, at any instant.
Store
    * Log and ledger together, in one place (`sqlite`) or apart (`apart`): what concerns both at once, which
      is connecting, counting, forgetting what is old, and erasing a person.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Literal, Protocol, TypeAlias

from msgspec import Struct

from ..http import Exchange
from ..message import Envelope, Record


class Entry(Struct, frozen=True):
    """One message on its way into the log: its id (the client's, or made here) and its bytes."""

    message_id: str
    raw: bytes


class Group(Struct, frozen=True):
    """The entries of one request, sharing one envelope."""

    envelope: Envelope
    entries: Sequence[Entry]


class Refused(Struct, frozen=True):
    """An item an ingest route would not take; kept like a dead letter, counted per source, in no balance.

    `raw` holds at most the first 64 KiB of it.
    """

    source: str
    index: int
    code: str
    reason: str
    raw: bytes
    at: float
    id: int = 0


class Appended(Struct, frozen=True):
    """What an append did: how many entries were new, how many were known, and the last position."""

    stored: int
    duplicates: int
    last: int


class Erased(Struct, frozen=True):
    """What an erase removed: log records, and parked or dead copies.

    `gone` names the removed records, (position, source), for a ledger that lives elsewhere. `renamed` says
    how the ledger calls the parked rows of others that stood in a person's lane: (connection, before, after).
    `upto` is how far it went in each partition: what the person sent beyond came too late for it, and stays.
    """

    records: int
    copies: int
    gone: Sequence[tuple[int, str]] = ()
    renamed: Sequence[tuple[str, str, str]] = ()
    upto: Mapping[int, int] = {}

    def reached(self, position: int) -> bool:
        """Whether it went as far as this position."""
        return position <= self.upto.get(partition_of(position), 0)


class Standing(Struct, frozen=True):
    """Where a partition stands, of one instant: the newest position, and how many each source ever put in."""

    last: int
    accepted: Mapping[str, int]


PARTITION = 1 << 48
"""How far the positions of two neighbouring partitions are apart; 32 of them fit a JSON number."""


def partition_of(position: int) -> int:
    """The partition of a position."""
    return position // PARTITION


class LogFull(Exception):
    """The log cannot take more (disk full or below the reserve); nothing of the call was kept."""


class LogFailed(OSError):
    """The disk below the log fails (an I/O error, or it turned read-only); nothing of the call was kept."""


State: TypeAlias = Mapping[str, object]


class Log(Protocol):
    """The durable ordered log."""

    async def append(
        self, groups: Sequence[Group], refused: Sequence[Refused] = (), state: tuple[str, State] | None = None
    ) -> Appended:
        """Keep messages; durable when it returns. `state` = (source, its resume state), same transaction.

        Raises `LogFull`, or `LogFailed` where the disk itself fails, with nothing kept.
        """
        ...

    async def read(self, after: int, limit: int, partition: int = 0) -> Sequence[Record]:
        """Records with position > after, in order, at most `limit`; empty when there is none yet.

        Fewer than `limit` come before damage; when the very next record is damaged this raises
        `blob.Damaged`, which names the first and last position concerned. Reading after `last` goes on.
        """
        ...

    async def wait(self, after: int, partition: int = 0) -> None:
        """Return once a record beyond `after` is durable."""
        ...

    def last(self, partition: int = 0) -> int:
        """The position of the newest durable record; 0 when empty."""
        ...

    async def find(self, message_id: str, source: str | None = None, limit: int = 10) -> Sequence[Record]:
        """Records with this message id, newest first (a scan)."""
        ...

    async def latest(self, limit: int, before: int | None = None) -> Sequence[Record]:
        """The newest records, newest first, optionally only those before a position."""
        ...

    async def refusals(self, source: str | None = None, limit: int = 100) -> Sequence[Refused]:
        """Items refused at ingest, newest first."""
        ...

    async def counts(self) -> Mapping[str, Mapping[str, int]]:
        """Per source: accepted, duplicates, refused since the log began."""
        ...

    async def source_state(self, source: str) -> State:
        """The state saved with the last append of a polled source; empty at first."""
        ...

    async def standing(self, partition: int = 0) -> Standing:
        """The newest position and the accepted counts, of one instant."""
        ...

    async def count(self, source: str, after: int, partition: int = 0) -> int:
        """How many records of a source are kept beyond a position."""
        ...

    async def positions(self, source: str, after: int, partition: int = 0) -> Sequence[int]:
        """The positions of a source's kept records beyond a position, ascending."""
        ...

    async def trim(self, before: float, upto: Mapping[int, int] | None = None) -> int:
        """Drop records received before this Unix time; how many. Their ids stay known for the window.

        `upto`: by partition, the position behind which nothing may be dropped yet. Without it, and with the
        ledger in the same place, nothing is that a connection has not settled.
        """
        ...

    async def erase(self, person: Collection[str]) -> Erased:
        """Remove every record whose userId, anonymousId or previousId is one of these exact ids.

        Refused items that hold them too. The bytes are gone, or can never be read again, when it returns.
        """
        ...

    async def forget_refusals(self, before: float) -> int:
        """Delete refused items older than this Unix time; how many."""
        ...

    async def close(self) -> None:
        """Flush and close."""
        ...


DoneState: TypeAlias = Literal["delivered", "skipped", "dead"]
Key: TypeAlias = tuple[int, int]
"""A delivery on one connection: (position, index); index counts what a transform made of one message."""


class Done(Struct, frozen=True, gc=False):
    """A delivery that has ended. `reason`: why it was skipped or died; of a delivered one, what it reports.

    `at` is Unix seconds; `ms` is what the last attempt took.
    """

    position: int
    index: int
    state: DoneState
    reason: str = ""
    code: int = 0
    attempts: int = 1
    ms: int = 0
    at: float = 0.0


class Parked(Struct, frozen=True):
    """A delivery that waits on its own, with its own copy of the record, so that the cursor can move on.

    `due` and `first_at` (first attempt, 0 when none yet) are Unix seconds. `follower` marks one whose
    predecessor died of exhaustion (P7). `hold` names the paused capability it waits for, if any. `alone`
    counts failures with 5xx while the destination was healthy for others (D06).
    """

    position: int
    index: int
    person: str
    due: float
    attempts: int
    first_at: float
    reason: str
    record: Record
    follower: bool = False
    hold: str = ""
    alone: int = 0


class Dead(Struct, frozen=True):
    """A dead letter: the record, why and when, every attempt's line, and the last exchange."""

    position: int
    index: int
    person: str
    reason: str
    code: int
    attempts: int
    first_at: float
    died_at: float
    record: Record
    exchange: Exchange | None = None
    connection: str = ""
    id: int = 0


class Settlement(Struct, frozen=True):
    """One transaction of a connection.

    `done` ends deliveries (parked ones of the same key are removed); `dead` holds the letters for those of
    `done` with state dead; `parked` inserts or replaces rows; `merges` renames the person of parked rows
    (old, new), applied first; `cursor`: every position up to it is done or parked.
    """

    cursor: int
    done: Sequence[Done] = ()
    dead: Sequence[Dead] = ()
    parked: Sequence[Parked] = ()
    merges: Sequence[tuple[str, str]] = ()


class Lease(Struct, frozen=True):
    """The right to settle one connection's partition, with its fence."""

    connection: str
    partition: int
    owner: str
    epoch: int


class Progress(Struct, frozen=True):
    """Where a connection stands when its loop starts: everything needed to go on.

    `settled` and `parked` are keys beyond the cursor; `waiting` maps each person with parked rows to the
    due time of the first one.
    """

    cursor: int
    settled: frozenset[Key]
    parked: frozenset[Key]
    waiting: Mapping[str, float]


class Pause(Struct, frozen=True):
    """A connection stands still: by hand (capability "*") or because a capability is refused."""

    connection: str
    capability: str
    reason: str
    since: float


class Balance(Struct, frozen=True):
    """P2 of one connection, all numbers of the same instant."""

    connection: str
    accepted: int
    delivered: int
    waiting: int
    dead: int
    skipped: Mapping[str, int]
    erased: int

    @property
    def difference(self) -> int:
        """Accepted − everything else; 0 or something is wrong."""
        return (
            self.accepted
            - self.delivered
            - self.waiting
            - self.dead
            - sum(self.skipped.values())
            - self.erased
        )


class DeadFilter(Struct, frozen=True):
    """Which dead letters: all given conditions hold. `ids` are `Dead.id`s; times are Unix seconds.

    `limit` is for showing them (`Ledger.dead`); replaying and dropping take every letter that fits.
    """

    connection: str | None = None
    ids: Sequence[int] | None = None
    code: int | None = None
    reason: str | None = None
    person: str | None = None
    message_id: str | None = None
    since: float | None = None
    limit: int = 1000


class Ledger(Protocol):
    """What became of every delivery."""

    @property
    def short(self) -> bool:
        """Whether room is so short that nothing but ends should be written."""
        ...

    async def lease(self, connection: str, owner: str, ttl_s: float, partition: int = 0) -> Lease | None:
        """Take or renew the lease; None while another owner's has not run out."""
        ...

    async def release(self, lease: Lease) -> None:
        """Give the lease back at a graceful stop."""
        ...

    async def progress(self, lease: Lease) -> Progress:
        """Where to go on."""
        ...

    async def settle(self, lease: Lease, settlement: Settlement) -> bool:
        """Apply one settlement, durably; False (and no change) when the lease is no longer the newest."""
        ...

    async def parked(self, lease: Lease, person: str, limit: int = 64) -> Sequence[Parked]:
        """A person's parked deliveries in this partition, in order of key."""
        ...

    async def due(self, lease: Lease, now: float, limit: int = 256) -> Sequence[tuple[str, float]]:
        """Persons of this partition whose first parked delivery is due, with that time, soonest first."""
        ...

    async def hurry(self, connection: str, now: float, hold: str | None = None) -> int:
        """Make waiting parked rows of every partition due now (all, or those of one hold); how many."""
        ...

    async def dead(self, where: DeadFilter) -> Sequence[Dead]:
        """Dead letters, newest first."""
        ...

    async def replay(self, where: DeadFilter, now: float) -> Mapping[str, int]:
        """Every dead letter that fits becomes parked and due again; connection → how many.

        They go in order of key, so that no later letter of a person is delivered before an earlier one;
        `where.limit` is not heeded. A second call finds none.
        """
        ...

    async def drop(self, where: DeadFilter) -> int:
        """Delete every dead letter that fits for good; their deliveries count as dead for ever. How many.

        `where.limit` is not heeded.
        """
        ...

    async def deliveries(
        self, connection: str | None, position: int | None, limit: int
    ) -> Sequence[tuple[str, Done]]:
        """Ended deliveries (connection, row), newest first, optionally of one position."""
        ...

    async def waiting(
        self, connection: str | None, limit: int, position: int | None = None
    ) -> Sequence[tuple[str, Parked]]:
        """Parked deliveries (connection, row), soonest first, optionally of one position."""
        ...

    async def pause(self, pause: Pause) -> None:
        """Remember that a connection stands still."""
        ...

    async def resume(self, connection: str, capability: str = "*") -> None:
        """Forget a pause."""
        ...

    async def pauses(self) -> Sequence[Pause]:
        """All pauses in force."""
        ...

    async def suppress(self, ids: Collection[str]) -> None:
        """Add exact ids (userId or anonymousId) to the suppressed ones."""
        ...

    async def unsuppress(self, ids: Collection[str]) -> None:
        """Take ids off."""
        ...

    async def suppressed(self) -> frozenset[str]:
        """All suppressed ids."""
        ...

    async def link(self, identifier: str, position: int, person: str) -> None:
        """Remember that from this position on `identifier` belongs to `person` (idempotent)."""
        ...

    async def links(self, identifier: str) -> Sequence[tuple[int, str]]:
        """(position, person) of an identifier, ascending."""
        ...

    async def links_of(self, identifiers: Collection[str]) -> Mapping[str, Sequence[tuple[int, str]]]:
        """The links of those of these identifiers that have any, each as `links` gives them."""
        ...

    async def linked(self, person: str, before: int) -> int:
        """How many links to this person were made before a position."""
        ...

    async def identifiers(self, person: str, before: int, limit: int) -> int:
        """How many ids lead to this person (itself one) by links made before a position; `limit` at most."""
        ...


class Store(Log, Ledger, Protocol):
    """Log and ledger together: what concerns both at once."""

    async def connect(
        self, connection: str, sources: Collection[str], start: Literal["now", "earliest"]
    ) -> None:
        """Make the connection known (idempotent); a new one starts after the newest record, or first."""
        ...

    async def disconnect(self, connection: str) -> bool:
        """Forget a connection with its rows, letters and counters; False when it is unknown."""
        ...

    async def prune(self, before: float) -> int:
        """Delete dead letters and refused items older than this Unix time; how many."""
        ...

    async def balance(self, *, recount: bool = False) -> Sequence[Balance]:
        """P2 per connection, from the counters, or counted again from the rows and the log."""
        ...

    async def trim(self, before: float, upto: Mapping[int, int] | None = None) -> int:
        """Drop records received before this Unix time that every connection has settled; how many."""
        ...

    async def erase(self, person: Collection[str]) -> Erased:
        """Remove a person's records, parked rows, dead letters, refused items and links.

        Deliveries not yet settled count as erased; of these records nothing is parked or buried any more.
        """
        ...
