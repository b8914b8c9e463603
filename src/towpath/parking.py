"""Parking: deliveries that wait as rows of the ledger, so that the cursor and all others can pass them."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import Any

from .clock import Clock
from .lanes import Item, Lane, Lanes, Stand
from .log import Ledger, Parked
from .settler import Settler

PAGE = 32  # rows brought into memory at once, and deliveries of one person that stay there
DUE_MAX = 100_000
NEVER = 1e12  # a due time that only a resume brings forward
UNKNOWN = 0.0  # one that shows when the lane is loaded
PAST = -1.0  # one that has come, whatever the wall clock says since
EARLY_S = 0.001


class Parking:
    """Moves one connection's deliveries between memory and rows.

    `admit` puts a row back into its lane (and says whether it is the first), `proceed` lets a lane go on,
    `spawn` runs a coroutine of the loop, `blocked` says whether a capability is paused. While not `loadable`,
    and in an outage, rows stay where they are.
    """

    def __init__(
        self,
        ledger: Ledger,
        clock: Clock,
        settler: Settler,
        lanes: Lanes,
        *,
        admit: Callable[[Lane, Parked, bool], None],
        proceed: Callable[[Lane], None],
        spawn: Callable[[Coroutine[Any, Any, None]], object],
        stalled: Callable[[], bool],
        blocked: Callable[[str], bool],
    ) -> None:
        self._ledger = ledger
        self._clock = clock
        self._settler = settler
        self._lanes = lanes
        self._admit = admit
        self._proceed = proceed
        self._spawn = spawn
        self._stalled = stalled
        self._blocked = blocked
        self.loadable = True

    def store(self, lane: Lane, item: Item) -> float:
        """Write a delivery as a row of its lane, for the caller to forget; when it is due (Unix seconds)."""
        due = self._clock.now() + max(0.0, item.due_s - self._clock.monotonic())
        # Whoever follows is due no sooner than the one it waits for.
        lane.due = NEVER if lane.hold else max(due, lane.due)
        self._settler.park(item.parked(lane.person, lane.due, lane.hold), known=item.row)
        lane.rows = lane.stored = True
        if item.names(lane.person):
            lane.own = max(lane.own, item.record.position)
        return lane.due

    def store_all(self, lane: Lane) -> float:
        """Move what a lane has in memory into rows; when the first of them is due."""
        dues = [self.store(lane, item) for item in lane.items]
        self._lanes.count(-len(lane.items))
        lane.items.clear()
        return dues[0] if dues else 0.0

    def store_behind(self, lane: Lane, further: Sequence[Item]) -> None:
        """Write what the head's message makes besides it as rows, and everything that comes after them."""
        head = lane.items.popleft()
        self.store_all(lane)
        for item in further:
            self.store(lane, item)
        lane.items.append(head)

    def park(self, lane: Lane) -> None:
        """Park a whole lane until its head is due, or its hold is lifted."""
        lane.due, others = 0.0, lane.rows
        due = self.store_all(lane)
        if others:
            # A link may have joined rows to this lane that come first, and are due at another time.
            self.open(lane)
        else:
            self.wait(lane, due)

    def wait(self, lane: Lane, due: float) -> None:
        """Let a lane of rows wait until `due` (Unix seconds)."""
        lane.stop_waiting()
        lane.stand, lane.due = Stand.PARKED, due
        if due < NEVER:
            delay_s = max(0.0, due - self._clock.now())
            lane.timer = asyncio.get_running_loop().call_later(delay_s, self._came_due, lane)

    def open(self, lane: Lane, *, early: bool = False) -> None:
        """Load a lane, unless its rows have to stay; `early`: even so, and when it is not due (a probe)."""
        if early or (self.loadable and not self._stalled()):
            lane.stop_waiting()
            lane.stand = Stand.LOADING
            self._spawn(self.load(lane, lane.ticket, early=early))
        else:
            lane.stand, lane.due = Stand.PARKED, UNKNOWN

    def _came_due(self, lane: Lane) -> None:
        # By the timer, not by the wall clock: that may have been put back meanwhile.
        lane.timer = None
        if lane.joined is None and lane.stand is Stand.PARKED and not lane.flights:
            lane.due = PAST
            if self.loadable and not self._stalled():
                self.open(lane, early=True)

    def open_due(self) -> None:
        """Load the lanes whose time came while they had to stay."""
        if not self.loadable:
            return
        now = self._clock.now()
        for lane in self._lanes.standing(Stand.PARKED):
            if lane.due <= now:
                self.open(lane, early=lane.due == PAST)

    async def load(self, lane: Lane, ticket: int, *, early: bool) -> None:
        """Bring a person's next rows into memory if the first is due (or `early`) and the ticket valid."""
        if lane.ticket != ticket:
            return
        lane.stored = False
        await self._settler.flush()
        rows = await self._ledger.parked(self._settler.held(), lane.person, PAGE + 1)
        if lane.ticket != ticket:
            return
        if rows and (due := self._due(rows[0], early=early)) > self._clock.now() + EARLY_S:
            lane.hold = rows[0].hold
            self.wait(lane, due)
            return
        lane.rows = len(rows) > PAGE or lane.stored
        lane.hold, lane.due, lane.stand = "", 0.0, Stand.IDLE
        for row in rows[:PAGE]:
            self._admit(lane, row, row is rows[0])
        self._proceed(lane)

    def _due(self, row: Parked, *, early: bool) -> float:
        if row.hold:
            return NEVER if self._blocked(row.hold) else 0.0
        return 0.0 if early else row.due

    async def refresh(self) -> None:
        """Notice rows that became due from outside: a replay, a resume, a retry by hand."""
        if self._settler.lease is None:
            return  # they are found when the loop begins
        await self._settler.flush()
        for person, due in await self._ledger.due(self._settler.held(), self._clock.now(), DUE_MAX):
            lane = self._lanes.open(person)
            lane.rows = lane.stored = True
            if lane.stand in (Stand.IDLE, Stand.PARKED) and not lane.items and not lane.flights:
                self.wait(lane, due)
