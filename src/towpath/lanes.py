"""Lanes: one person's deliveries of one connection in order, and the cursor over all of them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Collection, Iterator, Sequence
from enum import Enum, auto
from operator import attrgetter

from .destination import Payload
from .http import Exchange
from .log import Key, Parked
from .message import Message, Record
from .outcome import Rejected, Retry, Skipped
from .retry import Attempts

BEHIND = "waits for an earlier delivery of its person"


class Item:
    """One delivery in hand: its record, what is to be sent, and what has been tried."""

    __slots__ = (
        "alone", "attempts", "due_s", "erased", "exchange", "first_at", "follower", "fresh", "index",
        "made", "message", "ms", "payload", "reason", "record", "row", "solo",
    )  # fmt: skip

    def __init__(self, record: Record, message: Message, payload: Payload | None, index: int = 0) -> None:
        self.record = record
        self.message = message
        self.payload = payload
        self.index = index
        self.attempts = 0
        self.alone = 0
        self.first_at = 0.0
        self.ms = 0
        self.due_s = 0.0  # not before this monotonic second
        self.reason = BEHIND
        self.erased = False  # its person was erased while it was on the way
        self.follower = False
        self.fresh = False  # it came just now, and is not of a backlog
        self.row = False  # whether the ledger holds a parked row of it
        self.solo = False  # a call with others failed: it travels alone from now on
        self.exchange: Exchange | None = None
        # What the connection's transform made of the message; None while it has not run.
        self.made: Message | Skipped | Rejected | Retry | None = None

    @property
    def key(self) -> Key:
        """(position, index)."""
        return (self.record.position, self.index)

    def tried(self) -> Attempts:
        """What the retry policy needs to know."""
        return Attempts(
            self.attempts, self.first_at, self.record.envelope.received_at, self.alone, self.follower
        )

    def parked(self, person: str, due: float, hold: str = "") -> Parked:
        """Make the row that keeps this delivery while it waits on its own; `due` is Unix seconds."""
        return Parked(
            self.record.position, self.index, person, due, self.attempts, self.first_at, self.reason,
            self.record, self.follower, hold, self.alone,
        )  # fmt: skip

    def concerns(self, ids: Collection[str]) -> bool:
        """Whether it names one of these exact ids."""
        message = self.message
        return any(
            known in ids for known in (message.user_id, message.anonymous_id, message.previous_id) if known
        )

    def names(self, person: str) -> bool:
        """Whether a lane of this name is named after one of its ids."""
        return person[2:] in (self.message.user_id, self.message.anonymous_id)

    def restore(self, row: Parked) -> None:
        """Take over what a parked row remembers."""
        self.attempts, self.first_at, self.alone = row.attempts, row.first_at, row.alone
        self.follower, self.row, self.reason = row.follower, True, row.reason


class Stand(Enum):
    """What a lane is doing while nothing of it is on the way."""

    IDLE = auto()  # just opened, or something of it is on the way
    READY = auto()  # its head may go
    HELD = auto()  # its head failed and waits in memory
    PARKED = auto()  # its deliveries are rows of the ledger, the first one due later
    LOADING = auto()  # its next rows are on the way into memory
    BLOCKED = auto()  # its head needs a capability that is paused


class Lane:
    """One person's deliveries, oldest first.

    `flights` counts parcels whose end is not yet on disk; nothing else of the lane starts before it is 0.
    `rows` says that later deliveries lie in the ledger, `stored` that one was put there since the last load;
    `own` is the newest position put there of the very id that names the lane, 0 for none; `due` (Unix
    seconds) is when the first of them may go; `follower` that it follows one that died (P7); `hold` is the
    paused capability the head waits for. `ticket` changes when a load under way is outdated.
    """

    __slots__ = (
        "due", "flights", "follower", "hold", "items", "joined", "own", "person", "rows", "stand", "stored",
        "ticket", "timer",
    )  # fmt: skip

    def __init__(self, person: str) -> None:
        self.person = person
        self.items: deque[Item] = deque()
        self.stand = Stand.IDLE
        self.flights = 0
        self.rows = False
        self.stored = False
        self.own = 0
        self.follower = False
        self.due = 0.0
        self.hold = ""
        self.ticket = 0
        self.timer: asyncio.TimerHandle | None = None
        self.joined: Lane | None = None

    def current(self) -> Lane:
        """The lane this one was joined into, or itself."""
        lane = self
        while lane.joined is not None:
            lane = lane.joined
        return lane

    def put_back(self, items: Sequence[Item]) -> None:
        """Return undelivered items to where their positions belong."""
        if not self.items or items[-1].key < self.items[0].key:
            self.items.extendleft(reversed(items))
        else:
            self.items = deque(sorted([*items, *self.items], key=attrgetter("key")))

    def take_in(self, other: Lane) -> None:
        """Join another lane into this one, by position."""
        self.items = deque(sorted([*self.items, *other.items], key=attrgetter("key")))
        other.items.clear()
        self.flights += other.flights
        other.flights = 0
        self.rows = self.rows or other.rows
        self.stored = self.stored or other.stored
        self.own = max(self.own, other.own)
        other.joined = self
        other.stop_waiting()

    def stop_waiting(self) -> None:
        """Whatever it waits for, or is being loaded, no longer counts."""
        self.ticket += 1
        if self.timer is not None:
            self.timer.cancel()
            self.timer = None


class Parcel:
    """What travels as one payload: one delivery, or several merged ones (D20), of one lane.

    `shared` says that it travelled in a call with others.
    """

    __slots__ = ("exchange", "items", "lane", "payload", "shared")

    def __init__(self, lane: Lane, items: list[Item], payload: Payload) -> None:
        self.lane = lane
        self.items = items
        self.payload = payload
        self.shared = False
        self.exchange: Exchange | None = None

    @property
    def erased(self) -> bool:
        """Whether nothing of it is to be sent any more."""
        return all(item.erased for item in self.items)


class Cursor:
    """The highest position up to which every delivery has ended or is parked."""

    def __init__(self, start: int) -> None:
        self.position = start
        self._read = start
        self._order: deque[int] = deque()
        self._open: dict[int, int] = {}
        self._ahead: set[int] = set()

    def opened(self, position: int, deliveries: int = 1) -> None:
        """Count a position whose deliveries are now in memory."""
        self._open[position] = self._open.get(position, 0) + deliveries
        self._order.append(position)

    def closed(self, position: int) -> None:
        """One delivery of this position ended or was parked; unknown ones (parked earlier) are fine."""
        left = self._open.get(position)
        if left is None:
            return
        if left > 1:
            self._open[position] = left - 1
        else:
            del self._open[position]
            self._ahead.discard(position)

    def passed(self, position: int) -> None:
        """Count a position that went ahead: one delivery in memory, but reading has not come there yet."""
        self._open[position] = 1
        self._ahead.add(position)

    def reached(self, position: int) -> None:
        """Reading has come to a position that went ahead."""
        if position in self._open:
            self._ahead.discard(position)
            self._order.append(position)

    @property
    def ahead(self) -> int:
        """How many of those that went ahead are open still."""
        return len(self._ahead)

    def read_to(self, position: int) -> None:
        """Everything up to here has been read."""
        self._read = position

    def advance(self) -> int:
        """Move over what has closed; the new position."""
        while self._order and self._order[0] not in self._open:
            self._order.popleft()
        self.position = self._order[0] - 1 if self._order else self._read
        return self.position

    def __len__(self) -> int:
        return len(self._open)


class Lanes:
    """All lanes of one connection, by person."""

    def __init__(self, window: int) -> None:
        self._lanes: dict[str, Lane] = {}
        self._window = window
        self.refill = max(1, window // 2)  # with less than this in memory again, reading goes on
        self.size = 0  # items in memory, those on the way included
        self.room = asyncio.Event()
        self.room.set()

    @property
    def full(self) -> bool:
        """Whether memory holds as many deliveries as it may."""
        return self.size >= self._window

    def count(self, change: int) -> None:
        """Count deliveries that came into memory or left it; `room` follows."""
        self.size += change
        if self.full:
            self.room.clear()
        elif self.size < self.refill:
            self.room.set()

    def __iter__(self) -> Iterator[Lane]:
        return iter(self._lanes.values())

    def __len__(self) -> int:
        return len(self._lanes)

    def find(self, person: str) -> Lane | None:
        """The lane of a person, if there is one."""
        return self._lanes.get(person)

    def open(self, person: str) -> Lane:
        """The lane of a person, made if needed."""
        lane = self._lanes.get(person)
        if lane is None:
            lane = self._lanes[person] = Lane(person)
        return lane

    def close(self, lane: Lane) -> None:
        """Forget a lane with nothing left to do."""
        if self._lanes.get(lane.person) is lane:
            del self._lanes[lane.person]

    def join(self, old: str, new: str) -> Lane | None:
        """Join one person's lane into another's; the joined lane, or None when neither is open."""
        leaving, staying = self._lanes.pop(old, None), self._lanes.get(new)
        if leaving is None:
            return None
        if staying is None:
            leaving.person = new
            self._lanes[new] = leaving
            return leaving
        staying.take_in(leaving)
        return staying

    def standing(self, *stands: Stand) -> list[Lane]:
        """The lanes in one of these stands."""
        return [lane for lane in self._lanes.values() if lane.stand in stands and not lane.flights]
