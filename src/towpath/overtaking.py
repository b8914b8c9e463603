"""Overtaking: lets people with nothing in a long unread stretch of the log pass it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from hashlib import blake2b

from msgspec import Struct

from .clock import Clock
from .health import Health
from .identity import Place
from .lanes import Cursor
from .log import Log
from .log.blob import Damaged
from .message import Message, Record, Unreadable

LATE_S = 2.0  # as long as reading has to wait for memory before anybody may pass
FULL_S = 1.0  # between two looks whether some of those who passed have ended
CHUNK = 256
BITS = 23  # of the filter's size: 1 MiB, wrong for 1 of 40 with a million persons
PROBES = 4


class Sight(Struct, frozen=True):
    """A record looked at: its message, where it belongs, and whether this connection delivers it."""

    message: Message
    place: Place
    mine: bool

    @property
    def names(self) -> set[str]:
        """Its person, and everybody it links."""
        return {self.place.person, *(name for merge in self.place.merges for name in merge)}


class Seen:
    """A Bloom filter of persons: says "never" only of those who were not added."""

    def __init__(self) -> None:
        self._bits = bytearray((1 << BITS) // 8)

    def add(self, person: str) -> None:
        """Remember a person."""
        for bit in _bits(person):
            self._bits[bit >> 3] |= 1 << (bit & 7)

    def __contains__(self, person: str) -> bool:
        return all(self._bits[bit >> 3] >> (bit & 7) & 1 for bit in _bits(person))


class Marks:
    """Positions that were taken ahead, a bit for each from the first on."""

    def __init__(self) -> None:
        self._first = self._last = 0
        self._bits = bytearray()

    def add(self, position: int) -> None:
        """Mark a position; they come ascending."""
        if not self._bits:
            self._first = position
        at = position - self._first
        self._bits.extend(bytes((at >> 3) + 1 - len(self._bits)))
        self._bits[at >> 3] |= 1 << (at & 7)
        self._last = position

    def __contains__(self, position: int) -> bool:
        if not self._first <= position <= self._last or not self._bits:
            return False
        at = position - self._first
        return bool(self._bits[at >> 3] >> (at & 7) & 1)

    def drop(self, position: int) -> None:
        """Forget everything, once the last one lies behind this position."""
        if self._bits and self._last <= position:
            self._bits = bytearray()


class Overtaking:
    """A second reader of one connection's log, at work while the first one waits for memory.

    It runs through the stretch that the first has not read, and remembers whose records lie there. Behind it,
    `take` gets the records of those who have none. `sight` looks at a record as of its position; `first` is
    where the first reader stands; `most` is how many of those who passed may be open at once. Everything that
    stays behind, or is damaged, or cannot be read, is the first reader's.
    """

    def __init__(
        self,
        log: Log,
        clock: Clock,
        health: Health,
        *,
        sight: Callable[[Record], Awaitable[Sight | None]],
        take: Callable[[Record, Sight], None],
        first: Callable[[], int],
        cursor: Callable[[], Cursor],
        most: int,
    ) -> None:
        self._log = log
        self._clock = clock
        self._health = health
        self._sight = sight
        self._take = take
        self._first = first
        self._cursor = cursor
        self._most = max(1, most)
        self._waits = asyncio.Event()
        self._turn = 0  # changes when a look at a record that is under way no longer counts
        self._active = False
        self._seen = Seen()
        self._marks = Marks()
        self._read = 0
        self._end = 0  # of the stretch in which everybody stays

    # -- the first reader --------------------------------------------------------------------------------

    async def wait(self, room: asyncio.Event) -> None:
        """Wait for room in memory: a wait that lasts lets others pass."""
        if not room.is_set():
            self._waits.set()
            await room.wait()
            self._waits.clear()

    def until(self, position: int) -> int | None:
        """How far the first reader, now here, may read; None when nobody is ahead of it."""
        self._marks.drop(position)
        if self._active and position >= self._read:
            self._active = False
            self._turn += 1
        return self._read if self._active else None

    def took(self, position: int) -> bool:
        """Whether the record at this position went ahead."""
        return position in self._marks

    def look_again(self) -> None:
        """Who is who has changed for what was read already (an erased person's links are gone)."""
        if self._active:
            read = self._read
            self._begin()
            self._end = max(self._end, read)  # the first reader may have some of these in its hands

    # -- the second reader -------------------------------------------------------------------------------

    async def run(self) -> None:
        """Wait until the first reader is held up, let others pass until it has caught up, for ever."""
        while True:
            await self._held_up()
            self._begin()
            with suppress(Damaged):  # nobody knows who is in there: the first reader says so when it comes
                while self._active:
                    await self._go_on()
            self._active = False

    async def _held_up(self) -> None:
        while True:
            await self._waits.wait()
            first = self._first()
            await self._clock.sleep(LATE_S)
            await self._health.working.wait()
            await self._log.wait(first)
            if self._waits.is_set() and first == self._first():
                return

    def _begin(self) -> None:
        self._active = True
        self._turn += 1
        self._seen = Seen()
        self._read, self._end = self._first(), self._before_newest()

    def _before_newest(self) -> int:
        """Everybody stays up to here: the newest records came when the outage may have been over already."""
        return self._log.last() - self._most // 4

    async def _go_on(self) -> None:
        await self._health.working.wait()
        room = CHUNK
        if self._read >= self._end:
            room = min(CHUNK, self._most - self._cursor().ahead)
        if room <= 0:
            await self._clock.sleep(FULL_S)
            return
        last = self._log.last()
        if last - self._read > self._most:
            # Too many to pass: they wait like those of the stretch.
            self._end = max(self._end, self._before_newest())
        turn = self._turn
        records = await self._log.read(self._read, room)
        await self._look(records, turn)
        await self._clock.sleep(0)
        if not records and turn == self._turn:
            self._read = max(self._read, last)  # what is missing up to there was erased
            await self._log.wait(self._read)

    async def _look(self, records: Sequence[Record], turn: int) -> None:
        """Judge what was read in a turn, as long as that lasts."""
        if turn != self._turn:
            return
        for record in records:
            try:
                sight = await self._sight(record)
            except Unreadable:
                sight = None
            if turn != self._turn:
                return
            if sight is not None and not self.took(record.position):
                self._judge(record, sight)
            self._read = record.position

    def _judge(self, record: Record, sight: Sight) -> None:
        """Let a record pass, or remember all whose order it concerns."""
        names = sight.names
        if record.position > self._end and not any(name in self._seen for name in names):
            self._marks.add(record.position)
            self._take(record, sight)
        else:
            for name in names:
                self._seen.add(name)


def _bits(person: str) -> list[int]:
    digest = int.from_bytes(blake2b(person.encode("utf-8", "surrogatepass"), digest_size=12).digest())
    return [digest >> BITS * n & (1 << BITS) - 1 for n in range(PROBES)]
