"""Intake: reads the log for one connection and finds out whose each record is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Sequence
from contextlib import suppress

from .clock import Clock
from .health import Health
from .identity import Identity, may_link
from .lanes import Item, Lanes
from .log import Erased, Log, Progress
from .making import Making
from .message import Message, Record, Unreadable, read
from .overtaking import Overtaking, Sight
from .parking import Parking
from .settler import Settler

CHUNK = 256
BACKLOG_MAX = 4096  # rows waiting for the disk before reading waits too
BACKLOG_BYTES_MAX = 8 << 20  # the same, of the records in them
LOOK_S = 0.2  # between two looks whether the rows in the way have ended
NOTHING = Progress(0, frozenset(), frozenset(), {})


class Intake:
    """Reads on from where the connection stood.

    `enter` takes a delivery and its person, `unreadable` a record that cannot be read and why, `join` two
    persons (old, new) who are one from here on; `full` hears that reading has to wait for room, `stepped`
    that what was read has entered. `making` runs the connection's transform, where it has one. While the
    ledger is `short` of room, reading waits where going on would write rows.
    """

    def __init__(
        self,
        sources: Collection[str],
        log: Log,
        identity: Identity,
        lanes: Lanes,
        settler: Settler,
        parking: Parking,
        *,
        enter: Callable[[Item, str], None],
        unreadable: Callable[[Record, str], None],
        join: Callable[[str, str], None],
        full: Callable[[], None],
        stepped: Callable[[], None],
        making: Making | None = None,
        clock: Clock,
        health: Health,
        most_ahead: int,
        short: Callable[[], bool],
    ) -> None:
        self._sources = sources
        self._log = log
        self._identity = identity
        self._lanes = lanes
        self._settler = settler
        self._parking = parking
        self._enter = enter
        self._unreadable = unreadable
        self._join = join
        self._full = full
        self._stepped = stepped
        self._making = making
        self._progress = NOTHING
        self._read = 0
        self._horizon = 0
        self._joined_until = 0
        self._erased: list[tuple[Erased, frozenset[str]]] = []
        self._clock = clock
        self._health = health
        self._ahead: dict[int, Message] = {}  # read already, by position
        self._fresh = False
        self._short = short
        self._behind = ""  # whose rows have to end before reading goes on
        self.overtaking = Overtaking(
            log, clock, health,
            sight=self._sight, take=self._pass, first=lambda: self._read, cursor=lambda: settler.cursor,
            most=most_ahead,
        )  # fmt: skip

    def begin(self, progress: Progress) -> None:
        """Start behind the cursor. What lies before the last row is read again before any row goes."""
        self._progress = progress
        self._read = progress.cursor
        self._horizon = max((position for position, _ in progress.settled | progress.parked), default=0)
        self._parking.loadable = self._horizon <= self._read
        self._joined_until = self._log.last() if progress.waiting else 0

    async def run(self) -> None:
        """Read for ever, as memory and the disk allow."""
        while True:
            if not self._lanes.room.is_set():
                self._full()
            await self.overtaking.wait(self._lanes.room)
            await self._until_rows_ended()
            if self._settler.backlog > BACKLOG_MAX or self._settler.backlog_bytes > BACKLOG_BYTES_MAX:
                await self._settler.flush()
            last = self._log.last()
            records = await self._next()
            await self._let_in(records)
            if not records:
                self._read = max(self._read, last)  # what is missing up to there was erased
            self._settler.read_to(self._read)
            self._caught_up()
            self._stepped()
            if records:
                await self._clock.sleep(0)  # a long log must not keep the loop from all others
            else:
                await self._log.wait(self._read)

    @property
    def coming(self) -> bool:
        """Whether records are before it that need no more than room: none that a transform runs for first."""
        return self._making is None and not self._behind and self._log.last() > self._read

    async def _let_in(self, records: Sequence[Record]) -> None:
        """Let records in; where a transform runs for them, a few at a time, and no more than memory takes."""
        while records:
            ready = records if self._making is None else await self._making.ahead(records)
            await self._read_ahead(ready)
            for record in ready:
                await self._take(record)
                if self._behind:
                    return
                self._read = record.position
            records = () if self._lanes.full else records[len(ready) :]

    async def _read_ahead(self, records: Sequence[Record]) -> None:
        """Read what is about to enter, and at once whom it names: for each alone the ledger takes long."""
        self._ahead.clear()
        for record in records:
            if self._concerns(record):
                with suppress(Unreadable):
                    self._ahead[record.position] = read(record)
        await self._identity.look_up(self._ahead.values())

    async def _until_rows_ended(self) -> None:
        """While a record cannot enter for want of room, others may pass it."""
        while self._behind and self._has_no_room_behind(self._behind):
            look = asyncio.Event()
            asyncio.get_running_loop().call_later(LOOK_S, look.set)
            await self.overtaking.wait(look)
        self._behind = ""

    def _has_no_room_behind(self, person: str) -> bool:
        """Whether a delivery of this person would have to become a row and there is no room for it."""
        lane = self._lanes.find(person)
        return lane is not None and lane.rows and self._parking.loadable and self._short()

    async def _next(self) -> Sequence[Record]:
        """Read on, but not beyond where the second reader is at work."""
        until = self.overtaking.until(self._read)
        limit = CHUNK if until is None else min(CHUNK, until - self._read)
        records = await self._log.read(self._read, limit)
        if until is not None:
            records = [record for record in records if record.position <= until]
            if not records:  # what is missing up to there was erased
                self._read = until
                return await self._next()
        self._fresh = len(records) < limit and until is None and not self._health.stalled
        return records

    def forget(self, ids: frozenset[str], erased: Erased) -> None:
        """A person was erased: what was read before of what went does not enter any more."""
        self._erased = [(each, known) for each, known in self._erased if each.reached(self._read + 1)]
        self._erased.append((erased, ids))
        self.overtaking.look_again()

    @property
    def _catching_up(self) -> bool:
        return not self._parking.loadable

    def _caught_up(self) -> None:
        if self._catching_up and self._read >= self._horizon:
            self._progress = NOTHING
            self._parking.loadable = True
            self._parking.open_due()

    async def _take(self, record: Record) -> None:
        """Let a record in, or remember in `_behind` whose rows it has to wait for."""
        if self.overtaking.took(record.position):
            self._settler.cursor.reached(record.position)
            return
        try:
            sight = await self._sight(record)
        except Unreadable as error:
            self._settler.cursor.opened(record.position)
            self._unreadable(record, str(error))
            return
        if sight is None:
            return
        names = [sight.place.person]
        if record.position <= self._joined_until:
            names += await self._identity.successors(names[0], record.position, self._joined_until)
        if sight.mine and self._has_no_room_behind(person := self._lane_name(names)):
            self._behind = person
            return
        for old, new in sight.place.merges:
            self._join(old, new)
        if sight.mine and not self._is_erased(record, sight.message):
            self._enter_all(record, sight.message, self._lane_name(names))

    async def _sight(self, record: Record) -> Sight | None:
        """Look at a record as of its position; None when nothing here depends on it. Raises `Unreadable`."""
        mine = self._is_mine(record)
        if not mine and not may_link(record):
            return None
        try:
            message = self._ahead.pop(record.position, None) or read(record)
        except Unreadable:
            if mine:
                raise
            return None
        if self._is_erased(record, message):
            return None
        return Sight(message, await self._identity.place(message, record.position), mine)

    def _is_mine(self, record: Record) -> bool:
        """Whether this connection has yet to deliver it."""
        return record.source in self._sources and not (self._catching_up and self._is_known(record))

    def _concerns(self, record: Record) -> bool:
        """Whether something here may depend on it, if only a link that it makes."""
        return self._is_mine(record) or may_link(record)

    def _pass(self, record: Record, sight: Sight) -> None:
        """Let in a record ahead of an unread stretch that holds nothing of whom it concerns."""
        for old, new in sight.place.merges:
            self._join(old, new)
        if sight.mine and not self._is_erased(record, sight.message):
            item = Item(record, sight.message, None)
            item.fresh = True
            self._settler.cursor.passed(record.position)
            self._enter(item, sight.place.person)

    def _enter_all(self, record: Record, message: Message, lane: str) -> None:
        """Let in what the record makes: one delivery, or as many as a transform returns messages."""
        items = [Item(record, message, None)]
        if self._making is not None:
            items = self._making.items(record, message, self._progress.settled | self._progress.parked)
        if items:
            self._settler.cursor.opened(record.position, len(items))
        for item in items:
            item.fresh = self._fresh
            self._enter(item, lane)

    def _is_known(self, record: Record) -> bool:
        """Whether a record read again has ended, or is a row; with a transform, `Making` looks."""
        if self._making is not None:
            return False
        key = (record.position, 0)
        return key in self._progress.settled or key in self._progress.parked

    def _lane_name(self, names: Sequence[str]) -> str:
        """Where a record read again belongs: its rows may have been joined to another person's already."""
        if len(names) == 1:
            return names[0]
        return next((name for name in names if self._lanes.find(name) is not None), names[0])

    def _is_erased(self, record: Record, message: Message) -> bool:
        item = Item(record, message, None) if self._erased else None
        return item is not None and any(
            erased.reached(record.position) and item.concerns(ids) for erased, ids in self._erased
        )
