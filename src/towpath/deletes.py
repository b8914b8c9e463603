"""The delete guard: more deletions within an hour than is plausible wait until somebody confirms (D14)."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable, Coroutine
from datetime import timedelta
from typing import Any

import msgspec
import structlog
from msgspec import Struct

from .clock import Clock
from .connection import Connection, DeleteLimit, Deletion
from .destination import Memory, Payload, Scope
from .device import PUSH
from .lanes import Parcel
from .log import Key, Log
from .message import Message, parse_time
from .outcome import Delivered, Outcome
from .pauses import DELETES, Pauses
from .units import format_duration, format_share

KEY = "towpath: delete guard"
KEPT_S = 90 * 86400.0  # in the room for what lasts
OUTLIVED_S = 2 * 86400.0  # how far the registry of devices may lie behind; not in that room
PIECES = 60  # of the span that deletions are counted over
ASK_S = 60.0  # how long the number of known persons is good for

log = structlog.get_logger("towpath.deletes")


class Kept(Struct, frozen=True):
    """What outlives the process.

    Every deletion up to the position `confirmed` may go, except those of the stretches `discarded`: behind
    the first position, up to the second one. `deleted` holds (Unix seconds, how many) of late.
    """

    confirmed: int = 0
    discarded: tuple[tuple[int, int], ...] = ()
    deleted: tuple[tuple[float, int], ...] = ()

    def decided(self, position: int, *, discard: bool) -> Kept:
        """The same once somebody has decided about all up to a position: count anew from there."""
        stretch = ((self.confirmed, position),) if discard else ()
        return Kept(position, (*self.discarded, *stretch))

    def discards(self, position: int) -> bool:
        """Whether somebody has said that a deletion is not to be."""
        return any(after < position <= upto for after, upto in self.discarded)


class Window:
    """How many deletions there were within the last `span_s` seconds, in pieces that end a little late."""

    def __init__(self, span_s: float, clock: Clock) -> None:
        self._span_s = span_s
        self._clock = clock
        self._pieces: deque[tuple[float, int]] = deque()  # (monotonic seconds of the last one, how many)
        self._first_s = 0.0

    @property
    def total(self) -> int:
        """How many there are by now."""
        over_s = self._clock.monotonic() - self._span_s
        while self._pieces and self._pieces[0][0] <= over_s:
            self._pieces.popleft()
        return sum(count for _, count in self._pieces)

    def add(self) -> None:
        """Count one more, now."""
        now_s, count = self._clock.monotonic(), 0
        if self._pieces and now_s - self._first_s < self._span_s / PIECES:
            _, count = self._pieces.pop()
        else:
            self._first_s = now_s
        self._pieces.append((now_s, count + 1))

    def clear(self) -> None:
        """Count anew."""
        self._pieces.clear()

    def dated(self) -> tuple[tuple[float, int], ...]:
        """What it holds, by wall time."""
        offset_s = self._clock.now() - self._clock.monotonic()
        return tuple((at_s + offset_s, count) for at_s, count in self._pieces)

    def restore(self, dated: tuple[tuple[float, int], ...]) -> None:
        """Take back what another process counted; a clock put back since then makes nothing younger."""
        now, now_s = self._clock.now(), self._clock.monotonic()
        self._pieces = deque((now_s - max(0.0, now - at), count) for at, count in dated)
        self._first_s = -self._span_s


class DeleteGuard:
    """Counts one connection's deletions, and holds those that would be too many until somebody confirms.

    `persons` says how many persons the connection's sources know; it is asked once a minute at most, and only
    when the limit's own `count` is used up: deletions wait for the answer. A deletion counts while it is on
    the way and, once delivered, for the limit's span. After a crash the count may lack those of the last
    second.
    """

    def __init__(
        self,
        connection: Connection,
        log: Log,
        scope: Scope,
        pauses: Pauses,
        *,
        persons: Callable[[], Awaitable[int]],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
    ) -> None:
        self._name = connection.name
        self._hears_of_devices = PUSH in connection.sources
        self._limit = connection.delete_limit
        self._log = log
        self._clock = scope.clock
        self._memory = scope.memory
        self._pauses = pauses
        self._persons = persons
        self._spawn = spawn
        self._window = Window(self._limit.within_s if self._limit else 0.0, scope.clock)
        self._flying: set[Key] = set()
        self._kept = Kept()
        self._restored = False
        self._known = 0
        self._ask_at_s = 0.0
        self._asking = False

    async def restore(self) -> None:
        """Go on where the process before stopped; a guard that was switched off holds nothing any more."""
        self._kept = _kept(self._memory)
        self._window.restore(self._kept.deleted)
        self._restored = True
        if self._limit is None and self._pauses.guarded:
            await self._pauses.lift(DELETES)

    def holds(self, payload: Payload, position: int) -> bool:
        """Whether this delivery has to wait; the first one that does begins the pause."""
        limit = self._limit
        if limit is None or not isinstance(payload, Deletion) or position <= self._kept.confirmed:
            return False
        if self._pauses.guarded:
            return True
        counted = self._window.total + len(self._flying)
        if counted < limit.count:
            return False
        if self._clock.monotonic() >= self._ask_at_s:
            self._ask()
            return True
        if counted < limit.most(self._known):
            return False
        self._spawn(self._pauses.keep(self._pauses.begin(DELETES, self._reason(limit, counted))))
        return True

    def discards(self, payload: Payload, position: int) -> bool:
        """Whether this delivery is a deletion that somebody has discarded."""
        return isinstance(payload, Deletion) and self._kept.discards(position)

    def outlives(self, message: Message) -> bool:
        """Whether the registry of devices tells of somebody what it heard before they were deleted here.

        It hears of a deletion in its own time: until then, what it tells lies behind the deletion in the log,
        and would make the person anew where they were just deleted.
        """
        if message.source != PUSH or message.user_id is None:
            return False
        deleted, heard = self._memory.find(_deleted(message.user_id)), parse_time(message.sent_at)
        return deleted is not None and heard is not None and heard.timestamp() <= float(deleted)

    def _ask(self) -> None:
        if not self._asking:
            self._asking = True
            self._pauses.hold(DELETES)
            self._spawn(self._count_persons())

    async def _count_persons(self) -> None:
        """Ask how many persons are known; when nobody can say, the limit's own count has to do."""
        try:
            self._known = await self._persons()
        except Exception as error:
            self._known = 0
            log.warning("persons could not be counted", connection=self._name, error=repr(error))
        self._ask_at_s = self._clock.monotonic() + ASK_S
        self._asking = False
        self._pauses.let_go(DELETES)

    def _reason(self, limit: DeleteLimit, counted: int) -> str:
        share = f", {format_share(limit.share)} of {self._known:,} known persons" if self._known else ""
        span = format_duration(timedelta(seconds=limit.within_s))
        return (
            f"towpath connections confirm-deletes {self._name} lets them go, discard-deletes skips them: "
            f"{counted:,} people were deleted within {span}, as many as delete_guard allows (count "
            f"{limit.count:,}{share}); further deletions wait, everything else goes on"
        )

    def departs(self, parcel: Parcel) -> None:
        """A call begins: where it deletes somebody, that counts from now on."""
        if not isinstance(parcel.payload, Deletion):
            return
        item = parcel.items[0]
        if item.record.position > self._kept.confirmed:
            self._flying.add(item.key)
        if self._hears_of_devices and item.message.user_id is not None:
            self._memory.keep(
                _deleted(item.message.user_id), repr(item.record.envelope.received_at), OUTLIVED_S
            )

    def lands(self, parcel: Parcel, outcome: Outcome | None) -> None:
        """A call has ended: what was not delivered counts no more, until it is tried again."""
        if not isinstance(parcel.payload, Deletion) or parcel.items[0].key not in self._flying:
            return
        self._flying.discard(parcel.items[0].key)
        if isinstance(outcome, Delivered):
            self._window.add()
            self.keep()

    async def decide(self, upto: int, *, discard: bool) -> None:
        """Let every deletion go up to a position, or none of them; and count anew from here."""
        self._kept = decide(self._memory, upto, discard=discard)
        self._window.clear()
        self._flying.clear()
        await self._pauses.lift(DELETES)

    def keep(self) -> None:
        """Write down what the next process has to know, once it is known what the last one knew."""
        if self._restored:
            _keep(self._memory, msgspec.structs.replace(self._kept, deleted=self._window.dated()))

    def keep_again(self) -> None:
        """Write it down once more where an erase has emptied the memory."""
        known = self._kept != Kept() or self._window.total
        if known and self._memory.find(KEY) is None:
            self.keep()


def _deleted(person: str) -> str:
    """Where it is kept when somebody's deletion was received. It names them: an erase takes it."""
    return f"deleted: {person}"


async def nobody() -> int:
    """Count the persons of sources that do not keep them."""
    return 0


def decide(memory: Memory, position: int, *, discard: bool) -> Kept:
    """Decide about every deletion up to a position, also of a connection that does not run now."""
    kept = _kept(memory).decided(position, discard=discard)
    _keep(memory, kept)
    return kept


def _kept(memory: Memory) -> Kept:
    found = memory.find(KEY)
    return Kept() if found is None else msgspec.json.decode(found, type=Kept)


def _keep(memory: Memory, kept: Kept) -> None:
    memory.keep(KEY, msgspec.json.encode(kept).decode(), KEPT_S)
