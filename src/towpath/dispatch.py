"""Dispatch: which persons may go now, and what of theirs travels in one call."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable

import msgspec

from .clock import Clock
from .connection import Connection, Deletion
from .deletes import DeleteGuard
from .destination import Payload
from .health import Health
from .lanes import Item, Lane, Lanes, Parcel, Stand
from .message import Message
from .outcome import Outcome, Skipped
from .pauses import DELETES, Pauses

_encode = msgspec.json.Encoder(enc_hook=str).encode


class Dispatch:
    """Hands out ready lanes to the workers, in the order they became ready.

    `prepare` makes an item's payload or says why there is none, `ended` hears of deliveries that end without
    a call, `block` of lanes whose head needs a paused capability, or is one
    deletion too many. `make` has the transform run for one that `prepare` says None of.

    A call that could take more than there is waits as long as more is `coming`: as long as the reader has
    records before it, and either room for them or calls under way that make some. `lanes` tells how much
    there is: what waits for anything else counts too, so that in trouble nothing waits for a full call. Nor
    does what came just now, or was tried before.
    """

    def __init__(
        self,
        connection: Connection,
        clock: Clock,
        health: Health,
        pauses: Pauses,
        deletes: DeleteGuard,
        lanes: Lanes,
        *,
        suppressed: Callable[[Message, int], bool],
        prepare: Callable[[Item], Payload | Outcome | None],
        ended: Callable[[Parcel, Outcome], None],
        block: Callable[[Lane, str], None],
        make: Callable[[Parcel], None],
        coming: Callable[[], bool],
    ) -> None:
        self._connection = connection
        self._limits = connection.destination.limits()
        self._clock = clock
        self._health = health
        self._pauses = pauses
        self._deletes = deletes
        self._suppressed = suppressed
        self._prepare = prepare
        self._ended = ended
        self._block = block
        self._make = make
        self._lanes = lanes
        self._coming = coming
        self.aboard = 0  # deliveries in calls under way
        self._urgent = False  # whether something in the queue waits for no others
        self._short = False  # whether somebody waits for a call to be filled
        self._queue = Turns()
        self._idle: deque[asyncio.Future[None]] = deque()
        self._throttled_until_s = 0.0
        self._allowed_until_s = 0.0
        self._probe = False
        self._stopped = False

    # -- who may go ------------------------------------------------------------------------------------

    def ready(self, lane: Lane) -> None:
        """The head of this lane may go."""
        if lane.stand is not Stand.READY:
            lane.stand = Stand.READY
            self._queue.put(lane)
            self._urgent = self._urgent or _waits_for_none(lane)
        self._wake()

    def probe(self, lane: Lane | None = None) -> None:
        """Let one call through in an outage: this lane's, or that of the next one to be ready."""
        self._probe = True
        if lane is not None:
            lane.stand = Stand.READY
            self._queue.put_first(lane)
            self._wake()

    def throttle(self, wait_s: float) -> None:
        """The vendor's rate limit spoke for the whole account: nothing starts until it allows."""
        now_s = self._clock.monotonic()
        self._throttled_until_s = max(self._throttled_until_s, now_s + wait_s)
        asyncio.get_running_loop().call_later(wait_s, self.go_on)

    @property
    def throttled_s(self) -> float:
        """Seconds until the vendor's rate limit allows calls again; 0 when it does."""
        return max(0.0, self._throttled_until_s - self._clock.monotonic())

    def lift(self) -> None:
        """Forget how long the vendor asked us to wait."""
        self._throttled_until_s = 0.0
        self.go_on()

    def allow_until(self, until_s: float) -> None:
        """The lease holds: calls may start until this monotonic second."""
        self._allowed_until_s = until_s
        self.go_on()

    @property
    def may_start(self) -> bool:
        """Whether the lease holds long enough for a call."""
        return self._clock.monotonic() < self._allowed_until_s

    def go_on(self) -> None:
        """Something that held everybody may be over."""
        for _ in range(min(len(self._queue), len(self._idle))):
            self._wake()

    def look_again(self) -> None:
        """Reading went a step on: what waited for more may not have to any longer."""
        if self._short and not self._waits_for_more():
            self.go_on()

    def stop(self) -> None:
        """Hand out nothing more; the workers end."""
        self._stopped = True
        while self._idle:
            self._wake()

    def _wake(self) -> None:
        while self._idle:
            waiter = self._idle.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    def _closed(self) -> bool:
        if self._stopped or self._pauses.everything:
            return True
        if self._clock.monotonic() < self._throttled_until_s or not self.may_start:
            return True
        return self._health.stalled and not self._probe

    def _waits_for_more(self) -> bool:
        """Whether the next call would be short and need not be."""
        enough = min(self._limits.batch, self._lanes.refill)
        if self._lanes.size - self.aboard >= enough or self._urgent or self._probe:
            return False
        return self._coming() and (self.aboard > 0 or self._lanes.room.is_set())

    # -- what travels ----------------------------------------------------------------------------------

    async def next(self) -> list[Parcel]:
        """Wait for the parcels of the next call; empty at a stop."""
        while not self._stopped:
            if parcels := self._take():
                return parcels
            waiter: asyncio.Future[None] = asyncio.get_running_loop().create_future()
            self._idle.append(waiter)
            await waiter
        return []

    def _take(self) -> list[Parcel]:
        """Fill one call: one parcel per lane, more of a lane where the vendor keeps the order in a batch."""
        self._short = bool(self._queue) and self._waits_for_more()
        if self._short:
            return []
        load = Load(self._limits.batch, self._limits.batch_bytes)
        closed = self._closed()
        while not (closed or load.full) and self._queue:
            lane = self._queue.take()
            if lane.stand is not Stand.READY:
                continue
            lane.stand = Stand.IDLE
            if lane.flights or lane.joined is not None:
                continue
            if not self._board(lane, load):
                self._queue.put_first(lane)
                lane.stand = Stand.READY
                break
            if load.parcels and self._probe:
                self._probe = False
                closed = self._closed()
        self._urgent = self._urgent and len(self._queue) > 0
        return load.parcels

    def _board(self, lane: Lane, load: Load) -> bool:
        """Put what may go of a lane into the call; whether there was room for all that."""
        room = load.room if self._limits.ordered_batch else 1
        while lane.items and room > 0:
            item = lane.items[0]
            if lane.flights and item.due_s > self._clock.monotonic():
                break
            found = self._unwanted(item) or self._prepare(item)
            if isinstance(found, Payload) and self._deletes.discards(found, item.record.position):
                found = Skipped("discarded", "somebody discarded this deletion")
            if isinstance(found, Payload) and self._deletes.outlives(item.message):
                found = Skipped("deleted", "it was heard before this person was deleted")
            if not isinstance(found, Payload):
                self._end(lane, item, found)
                break
            if (hold := self._hold(found, item)) is not None:
                if not lane.flights:
                    self._block(lane, hold)
                break
            if lane.flights and found.capability != load.parcels[-1].payload.capability:
                break  # a refused credential would be judged apart for parts of one run
            if not load.fits(found, solo=item.solo):
                return bool(lane.flights)
            load.add(parcel := self._pack(lane, found))
            self._deletes.departs(parcel)
            room -= 1
        return True

    def _hold(self, payload: Payload, item: Item) -> str | None:
        """The paused capability that keeps a delivery back; None when it may go."""
        if self._pauses.blocks(payload.capability):
            return payload.capability
        return DELETES if self._deletes.holds(payload, item.record.position) else None

    def _pack(self, lane: Lane, payload: Payload) -> Parcel:
        """Take the head, and what can be merged with it, off the lane."""
        items = [lane.items.popleft()]
        if self._limits.coalesce and not items[0].solo:
            while lane.items and (merged := self._merged(payload, lane.items[0])) is not None:
                payload = merged
                items.append(lane.items.popleft())
        lane.flights += 1
        if self._limits.ordered_batch:
            payload = msgspec.structs.replace(payload, person=lane.person)
        return Parcel(lane, items, payload)

    def _merged(self, payload: Payload, item: Item) -> Payload | None:
        """One payload that does this item's work too, if there can be one."""
        later = item.payload
        if later is None or item.solo or later.capability != payload.capability:
            return None
        if isinstance(payload, Deletion) or isinstance(later, Deletion):
            return None
        if item.due_s > self._clock.monotonic() or self._unwanted(item) is not None:
            return None
        return self._connection.destination.merge(payload, later)

    def suppresses(self, parcel: Parcel) -> bool:
        """Whether something of a parcel is of somebody who was suppressed since it left."""
        return any(self._suppressed(item.message, item.record.position) for item in parcel.items)

    def _unwanted(self, item: Item) -> Skipped | None:
        if self._suppressed(item.message, item.record.position):
            return Skipped("suppressed", "this person is suppressed")
        left = self._connection.left(item.record.source, item.record.position)
        return left or self._connection.stale(item.message, self._clock.now())

    def _end(self, lane: Lane, item: Item, outcome: Outcome | None) -> None:
        if outcome is None and lane.flights:
            return  # what of this lane is in the call goes first
        lane.items.popleft()
        lane.flights += 1
        parcel = Parcel(lane, [item], Payload(()))
        if outcome is None:
            self._make(parcel)
        else:
            self._ended(parcel, outcome)


def _waits_for_none(lane: Lane) -> bool:
    """Whether the head of a lane goes at once, in a short call if need be."""
    if not lane.items:
        return False
    head = lane.items[0]
    return head.fresh or head.row or head.solo or head.follower or head.attempts > 0


class Turns:
    """Ready lanes in the order they came; those with fresh heads and those of a backlog take turns."""

    def __init__(self) -> None:
        self._fresh: deque[Lane] = deque()
        self._waited: deque[Lane] = deque()
        self._fresh_next = False

    def __len__(self) -> int:
        return len(self._fresh) + len(self._waited)

    def put(self, lane: Lane) -> None:
        """Add a lane behind those of its kind."""
        fresh = bool(lane.items) and lane.items[0].fresh
        (self._fresh if fresh else self._waited).append(lane)

    def put_first(self, lane: Lane) -> None:
        """Add a lane that is to be taken next."""
        self._waited.appendleft(lane)
        self._fresh_next = False

    def take(self) -> Lane:
        """The next lane, off the queue."""
        fresh = bool(self._fresh) and (self._fresh_next or not self._waited)
        self._fresh_next = not fresh
        return (self._fresh if fresh else self._waited).popleft()


class Load:
    """One call being filled, within the destination's limits."""

    def __init__(self, batch: int, batch_bytes: int | None) -> None:
        self.parcels: list[Parcel] = []
        self._batch = batch
        self._bytes_left = batch_bytes
        self._alone = False

    @property
    def room(self) -> int:
        """How many more parcels it takes."""
        return self._batch - len(self.parcels)

    @property
    def full(self) -> bool:
        """Whether it takes no more: it has all it may, or one that travels alone."""
        return self._alone or len(self.parcels) >= self._batch

    def fits(self, payload: Payload, *, solo: bool = False) -> bool:
        """Whether it has the bytes for one more, which is not to travel alone; a first one always fits."""
        if not self.parcels:
            return True
        if solo or self._alone:
            return False
        return self._bytes_left is None or _size_bytes(payload) <= self._bytes_left

    def add(self, parcel: Parcel) -> None:
        """Take one more."""
        self.parcels.append(parcel)
        self._alone = parcel.items[0].solo
        if self._bytes_left is not None:
            self._bytes_left -= _size_bytes(parcel.payload)


def _size_bytes(payload: Payload) -> int:
    """Bytes of its bodies, each with a separator."""
    return payload.size_bytes or sum(len(_encode(call.json)) + 1 for call in payload.requests)
