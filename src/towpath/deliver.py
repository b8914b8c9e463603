"""The one loop of a connection: read → lanes → deliver → settle."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Coroutine
from contextlib import suppress
from typing import Any, TypeAlias

import msgspec
import structlog

from .connection import Connection
from .courier import Courier
from .deletes import DeleteGuard, nobody
from .destination import Payload, Scope
from .dispatch import Dispatch
from .health import Health
from .identity import Identity
from .intake import Intake
from .lanes import Item, Lane, Lanes, Parcel, Stand
from .log import Dead, Done, DoneState, Erased, Lease, Ledger, Log, LogFull, Parked
from .making import Making
from .message import Message, Record, Unreadable, read
from .outage import Outage
from .outcome import LONGEST_WISH_S, Delivered, Outcome, Paused, Rejected, Retry, Skipped
from .parking import NEVER, PAGE, Parking
from .pauses import Pauses, Verdict
from .retry import RetryPolicy
from .settler import Fenced, Settler

WINDOW = 4096
HOLD_S = 10.0  # the longest wait in memory
STALLED_S = 60.0  # the longest wait of one head between two attempts in an outage
THROTTLE_S = 5.0
DOOR_S = 1.0
REPORTS_LIMIT = 1000  # characters
LEASE_S = 60.0
LEASE_POLL_S = 1.0
STOP_POLL_S = 0.02
SETTLE_S = 1.0  # what the disk gets at a stop whose grace was spent on waiting for answers

Observer: TypeAlias = Callable[[str, Item, Outcome], None]
Ending: TypeAlias = Delivered | Skipped | Rejected
log = structlog.get_logger("towpath.deliver")


class DeliveryLoop:
    """Delivers one connection's messages, in each person's order, until stopped.

    A person's next delivery starts only when the end of the one before is on disk, so that even after a crash
    no destination sees an older state of a person after a newer one; but for an `ordered_batch`, which holds
    several of a person: a crash may have it sent again from its oldest on. `window` is how many deliveries
    are held in memory. `persons` says how many persons its sources know, for the delete guard. `owner` names
    the process; each loop takes the lease, for `lease_s` at a time, under a name of its own.
    """

    def __init__(
        self,
        connection: Connection,
        log: Log,
        ledger: Ledger,
        identity: Identity,
        scope: Scope,
        *,
        policy: RetryPolicy | None = None,
        owner: str = "local",
        suppressed: Callable[[Message, int], bool] = lambda *_: False,
        observe: Observer | None = None,
        persons: Callable[[], Awaitable[int]] | None = None,
        window: int = WINDOW,
        lease_s: float = LEASE_S,
    ) -> None:
        self.connection = connection
        self.policy = policy or RetryPolicy()
        self.health = Health()
        self.observe = observe
        self._ledger = ledger
        self._identity = identity
        self._scope = scope
        self._clock = scope.clock
        self._owner = f"{owner}/{scope.clock.token(4).hex()}"
        self._lease_s = lease_s
        self._lanes = Lanes(window)
        self._settler = Settler(ledger, scope.clock, self._released)
        self.pauses = Pauses(connection, ledger, scope, self._unblock)
        self.deletes = DeleteGuard(
            connection, log, scope, self.pauses, persons=persons or nobody, spawn=self._spawn
        )
        self._dispatch = Dispatch(
            connection, scope.clock, self.health, self.pauses, self.deletes, self._lanes,
            suppressed=suppressed, prepare=self._prepare, ended=self._conclude, block=self._block,
            make=self._make, coming=lambda: self._intake.coming,
        )  # fmt: skip
        self._courier = self._sender()
        self._parking = Parking(
            ledger,
            scope.clock,
            self._settler,
            self._lanes,
            admit=self._readmit,
            proceed=self._proceed,
            spawn=self._spawn,
            stalled=lambda: self.health.stalled,
            blocked=self.pauses.blocks,
        )
        self._outage = Outage(
            connection.name,
            scope.clock,
            self.health,
            self._lanes,
            self._dispatch,
            self._parking,
            self._proceed,
        )
        self._making: Making | None = None
        if connection.transform is not None:
            self._making = Making(connection, connection.transform, log, ledger, self._settler)
        self._intake = self._reader(log, window)
        self._flying: set[Parcel] = set()
        self._settling: asyncio.Task[None] | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._ended: asyncio.Future[None] | None = None
        self._stopping = False

    def _sender(self) -> Courier:
        return Courier(
            self.connection.destination,
            self._scope,
            may_start=lambda: self._dispatch.may_start,
            unwanted=self._dispatch.suppresses,
        )

    def _reader(self, log: Log, window: int) -> Intake:
        return Intake(
            self.connection.sources,
            log,
            self._identity,
            self._lanes,
            self._settler,
            self._parking,
            enter=self._enter,
            unreadable=self._end_unread,
            join=self._join,
            full=self._spill,
            stepped=self._dispatch.look_again,
            making=self._making,
            clock=self._clock,
            health=self.health,
            most_ahead=window // 4,
            short=lambda: self._ledger.short,
        )

    # -- life ------------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Deliver until `stop`. Raises `Fenced` when another owner has taken over."""
        ended = self._ended = asyncio.get_running_loop().create_future()
        try:
            await self._begin()
            if self._stopping:
                return await self._release()
            self._settling = self._spawn(self._settler.run())
            for chore in (self._intake.run(), self._renewing(), self.pauses.watch()):
                self._spawn(chore)
            if self._making is None:  # several deliveries of one record cannot go ahead
                self._spawn(self._intake.overtaking.run())
            for _ in range(self.connection.destination.limits().in_flight):
                self._spawn(self._work())
            await ended
        except Exception:
            with suppress(Exception):
                await self._release()
            raise
        finally:
            self._stopping = True
            await self._cancel(self._tasks)
            if self.connection.transform is not None:
                await self.connection.transform.close()

    async def stop(self, grace_s: float = 8.0) -> None:
        """Stop gracefully: nothing new starts, what was sent may end, everything that ended is settled.

        Takes at most `grace_s`, and a second more for the disk.
        """
        self._stopping = True
        self._scope.http.stopping = True
        self._dispatch.stop()
        self.deletes.keep()
        if self._settler.lease is not None and not (self._ended is None or self._ended.done()):
            await self._land_all(grace_s)
            await self._release()
        if self._ended is not None and not self._ended.done():
            self._ended.set_result(None)

    async def _land_all(self, grace_s: float) -> None:
        deadline_s = self._clock.monotonic() + grace_s
        while any(lane.flights for lane in self._lanes) and self._clock.monotonic() < deadline_s:
            await self._clock.sleep(STOP_POLL_S)
        await self._cancel(self._tasks - {self._settling})
        finishing = asyncio.ensure_future(self._settler.finish())
        left_s = deadline_s - self._clock.monotonic()
        await asyncio.wait([finishing], timeout=max(left_s, SETTLE_S))
        if not finishing.done() or finishing.cancelled():
            log.error("stopped before everything was settled", connection=self.connection.name)
            finishing.cancel()

    async def _release(self) -> None:
        if self._settler.lease is not None:
            await self._ledger.release(self._settler.lease)

    async def _cancel(self, tasks: Collection[asyncio.Task[None] | None]) -> None:
        stopped = [task for task in tasks if task is not None]
        for task in stopped:
            task.cancel()
        await asyncio.gather(*stopped, return_exceptions=True)

    async def _begin(self) -> None:
        while (lease := await self._leased()) is None:
            await self._clock.sleep(LEASE_POLL_S)
            if self._stopping:
                return
        self._renewed()
        progress = await self._ledger.progress(lease)
        self._settler.begin(lease, progress.cursor)
        self._intake.begin(progress)
        await self.pauses.restore()
        await self.deletes.restore()
        now = self._clock.now()
        for person, due in progress.waiting.items():
            lane = self._lanes.open(person)
            lane.rows = True
            # A pause may have been lifted meanwhile: loading finds out.
            self._parking.wait(lane, now if due >= NEVER else due)

    async def _renewing(self) -> None:
        while True:
            await self._clock.sleep(self._lease_s / 3)
            try:
                lease = await self._ledger.lease(self.connection.name, self._owner, self._lease_s)
            except Exception as error:
                log.warning("renewing the lease failed", connection=self.connection.name, error=repr(error))
                continue
            if lease is None or lease != self._settler.lease:
                raise Fenced(self.connection.name)
            self._renewed()
            self.deletes.keep_again()

    async def _leased(self) -> Lease | None:
        """Take the lease; None while another holds it, or the ledger cannot be reached."""
        try:
            return await self._ledger.lease(self.connection.name, self._owner, self._lease_s)
        except (OSError, LogFull) as error:
            log.warning("taking the lease failed", connection=self.connection.name, error=repr(error))
            return None

    def _renewed(self) -> None:
        """Calls may start as long as they end before anybody else could take the lease."""
        spare_s = min(self._scope.http.timeout_s, self._lease_s / 2)
        self._dispatch.allow_until(self._clock.monotonic() + self._lease_s - spare_s)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None] | None:
        """Run a part of the loop; what it raises ends the whole loop."""
        if self._stopping:
            work.close()
            return None
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._task_ended)
        return task

    def _task_ended(self, task: asyncio.Task[None]) -> None:
        self._tasks.discard(task)
        error = None if task.cancelled() else task.exception()
        if error is not None and self._ended is not None and not self._ended.done():
            self._ended.set_exception(error)

    async def _work(self) -> None:
        while parcels := await self._dispatch.next():
            aboard = sum([len(parcel.items) for parcel in parcels])
            self._dispatch.aboard += aboard
            await self._fly(parcels)
            self._dispatch.aboard -= aboard

    # -- entering --------------------------------------------------------------------------------------

    def _enter(self, item: Item, person: str) -> None:
        verdict = self._prepare(item)
        if isinstance(verdict, Skipped | Rejected):
            self._end(item, person, verdict)
            return
        lane = self._lanes.open(person)
        if lane.rows or (len(lane.items) >= PAGE and not self.health.stalled and not self._ledger.short):
            self._parking.store(lane, item)
            return
        lane.items.append(item)
        self._lanes.count(1)
        if lane.stand is Stand.IDLE and not lane.flights:
            self._dispatch.ready(lane)

    def _prepare(self, item: Item) -> Payload | Outcome | None:
        """The payload of an item, or why it has none; None when the transform must run for it first.

        A failure of the destination's code is one attempt.
        """
        if item.payload is not None:
            return item.payload
        made = item.made
        if self._making is not None and not isinstance(made, Message):
            return self.connection.skip(item.message) or made
        try:
            verdict = self.connection.payload(item.message, made if isinstance(made, Message) else None)
        except Exception as error:
            return self._courier.unforeseen("preparing", error)
        if isinstance(verdict, Payload):
            item.payload = verdict
        return verdict

    def _make(self, parcel: Parcel) -> None:
        """Run the transform for a delivery that comes from a row, or whose last run failed."""
        self._flying.add(parcel)
        if self._making is not None:
            self._spawn(self._remake(parcel, self._making))

    async def _remake(self, parcel: Parcel, making: Making) -> None:
        item = parcel.items[0]
        further = await making.again(item, parcel.lane.current())
        if item.erased or isinstance(item.made, Skipped | Rejected | Retry):
            done = item.made if isinstance(item.made, Skipped | Rejected | Retry) else Skipped("erased")
            self._conclude(parcel, done)
            return
        lane = self._land(parcel)
        if further:
            self._parking.store_behind(lane, further)
        self._proceed(lane)

    def _spill(self) -> None:
        """Where memory is full of deliveries that wait for a paused capability, let others pass them."""
        if self._may_spill():
            for lane in self._lanes.standing(Stand.BLOCKED):
                self._parking.park(lane)

    def _may_spill(self) -> bool:
        """Whether reading waits for room, and what is paused may make some as rows."""
        if self._lanes.room.is_set() or self.pauses.everything:
            return False
        return not self.health.stalled and not self._ledger.short

    # -- lanes -----------------------------------------------------------------------------------------

    def _join(self, old: str, new: str) -> None:
        """Two histories become one person's: their lanes become one, by position."""
        self._settler.merge(old, new)
        lane = self._lanes.join(old, new)
        if lane is None:
            return
        lane.stop_waiting()
        lane.hold, lane.due = "", 0.0
        if lane.rows:
            # Rows of one may lie between the deliveries of the other: let the ledger sort them.
            self._parking.store_all(lane)
        if lane.stand is not Stand.READY or not lane.items:
            lane.stand = Stand.IDLE
        self._proceed(lane)

    def _proceed(self, lane: Lane) -> None:
        """Let a lane do what comes next, unless something of it is still on the way."""
        if lane.flights:
            return
        if lane.items:
            if lane.items[0].due_s > self._clock.monotonic():
                self._rest(lane)
            else:
                self._dispatch.ready(lane)
        elif lane.rows:
            self._parking.open(lane)
        else:
            self._lanes.close(lane)

    def _rest(self, lane: Lane) -> None:
        """Let a head wait that is not due: a short while, or an outage, in memory; else as rows."""
        lane.stop_waiting()
        head = lane.items[0]
        wait_s = head.due_s - self._clock.monotonic()
        if self.health.stalled:
            lane.stand = Stand.HELD
        elif (wait_s > HOLD_S or head.attempts > 1 or head.row or lane.rows) and self._may_park(lane):
            self._parking.park(lane)
        else:
            lane.stand = Stand.HELD
            lane.timer = asyncio.get_running_loop().call_later(wait_s, self._rested, lane)

    def _may_park(self, lane: Lane) -> bool:
        """Whether there is room for its rows: what has one already takes no more."""
        return not self._ledger.short or all(item.row for item in lane.items)

    def _rested(self, lane: Lane) -> None:
        lane.timer = None
        if lane.joined is None and lane.stand is Stand.HELD and lane.items and not lane.flights:
            lane.items[0].due_s = 0.0
            self._dispatch.ready(lane)

    def _block(self, lane: Lane, capability: str) -> None:
        """The head of this lane needs a capability that is paused."""
        lane.stand, lane.hold = Stand.BLOCKED, capability
        if self._may_spill():
            self._parking.park(lane)

    def _readmit(self, lane: Lane, row: Parked, first: bool) -> None:  # noqa: FBT001
        """Bring one parked delivery back into its lane."""
        try:
            item = Item(row.record, read(row.record), None, row.index)
        except Unreadable as error:
            self._end_unread(row.record, str(error), row.index)
            return
        item.restore(row)
        if first:
            item.follower, lane.follower = item.follower or lane.follower, False
        elif not row.hold:
            item.due_s = self._clock.monotonic() + row.due - self._clock.now()
        verdict = self._prepare(item)
        if isinstance(verdict, Skipped | Rejected):
            self._end(item, lane.person, verdict)
            return
        lane.items.append(item)
        self._lanes.count(1)

    def _released(self, lanes: list[Lane]) -> None:
        """The ends of these lanes' flights are on disk: their persons may go on."""
        for found in lanes:
            lane = found.current()
            lane.flights -= 1
            self._proceed(lane)

    @property
    def lanes(self) -> Lanes:
        """What is held in memory, by person; for looking at."""
        return self._lanes

    @property
    def throttled_s(self) -> float:
        """Seconds until the vendor's rate limit lets this connection go on; 0 when it does."""
        blocked = [throttle.blocked_s for throttle in self._scope.http.throttles.values()]
        return max([self._dispatch.throttled_s, *blocked])

    def lift_throttle(self) -> None:
        """Try again now, whatever wait the vendor asked for: somebody says it works again."""
        for throttle in self._scope.http.throttles.values():
            throttle.lift()
        self._dispatch.lift()

    @property
    def flying(self) -> Collection[Parcel]:
        """What is on the way; for looking at."""
        return self._flying

    @property
    def cursor(self) -> int:
        """The position up to which everything has ended or is parked."""
        return self._settler.cursor.position

    async def refresh(self) -> None:
        """Notice parked deliveries that became due from outside: a replay, a retry by hand."""
        for lane in self._lanes.standing(Stand.HELD):
            if lane.timer is not None:
                lane.stop_waiting()
                self._rested(lane)
        await self._parking.refresh()

    # -- one call --------------------------------------------------------------------------------------

    async def _fly(self, parcels: list[Parcel]) -> None:
        started_s = self._clock.monotonic()
        self._flying.update(parcels)
        for parcel in parcels:
            parcel.shared = len(parcels) > 1
        outcomes = await self._courier.send(parcels)
        ms = round((self._clock.monotonic() - started_s) * 1000)
        for parcel, outcome in zip(parcels, outcomes, strict=True):
            for item in parcel.items:
                item.ms = ms
            self.deletes.lands(parcel, outcome)
            if outcome is None:
                # Unless this loop stops too, somebody else has closed the door we share; it may open again.
                lane = self._land(parcel)
                for item in parcel.items[:1]:
                    item.due_s = self._clock.monotonic() + DOOR_S
                self._proceed(lane)
            else:
                self._conclude(parcel, outcome)

    def _land(self, parcel: Parcel) -> Lane:
        """Put back what has not ended; its lane."""
        self._strike(parcel)
        self._flying.discard(parcel)
        lane = parcel.lane.current()
        if parcel.items:
            lane.put_back(parcel.items)
        lane.flights -= 1
        return lane

    def _strike(self, parcel: Parcel) -> None:
        """Let go of what was erased on the way: the ledger has counted it already."""
        for item in parcel.items:
            if item.erased:
                self._lanes.count(-1)
                self._close(item)
        parcel.items = [item for item in parcel.items if not item.erased]

    def _conclude(self, parcel: Parcel, outcome: Outcome) -> None:
        """What became of a parcel: it ends, or it goes back to its lane."""
        self._strike(parcel)
        for item in parcel.items:
            item.exchange = parcel.exchange
        if isinstance(outcome, Delivered):
            self._succeed(parcel, outcome)
        elif len(parcel.items) > 1 and isinstance(outcome, Rejected):
            self._separate(parcel)
        elif isinstance(outcome, Retry) and parcel.items:
            self._failed(parcel, outcome)
        elif isinstance(outcome, Paused) and parcel.items:
            self._doubt(parcel, outcome)
        else:
            self._succeed(parcel, outcome)

    def _separate(self, parcel: Parcel) -> None:
        """A call for several was refused: send them one by one before anything is rejected."""
        for item in parcel.items:
            item.solo = True
        self._proceed(self._land(parcel))

    def _succeed(self, parcel: Parcel, outcome: Outcome) -> None:
        """The destination answered, or there was nothing to ask: these deliveries have ended."""
        self._flying.discard(parcel)
        lane = parcel.lane.current()
        answered = isinstance(outcome, Delivered) or (isinstance(outcome, Rejected) and outcome.code != 0)
        if answered and self.health.succeeded(self._clock.monotonic()):
            self._outage.over()
            self._spill()
        for item in parcel.items:
            self._lanes.count(-1)
            item.attempts += not isinstance(outcome, Skipped)
            if isinstance(outcome, Ending):
                self._end(item, lane.person, outcome)
        self._settler.release_after(lane)

    def _end(self, item: Item, person: str, outcome: Ending) -> None:
        now = self._clock.now()
        state, reason, code = _ending(outcome)
        dead = None
        if isinstance(outcome, Rejected):
            first_at = item.first_at or now
            dead = Dead(
                *item.key, person, outcome.reason, code, item.attempts, first_at, now, item.record,
                item.exchange,
            )  # fmt: skip
        self._settler.end(Done(*item.key, state, reason, code, item.attempts, item.ms, now), dead)
        self._tell(item, outcome)

    def _end_unread(self, record: Record, why: str, index: int = 0) -> None:
        self._end(
            Item(record, Message(), None, index), "", Rejected(f"the kept message cannot be read: {why}")
        )

    def _tell(self, item: Item, outcome: Outcome) -> None:
        if self.observe is not None:
            self.observe(self.connection.name, item, outcome)

    # -- failures --------------------------------------------------------------------------------------

    def _failed(self, parcel: Parcel, outcome: Retry) -> None:
        lane, head = self._land(parcel), parcel.items[0]
        self._tell(head, outcome)
        wish_s = min(max(outcome.after_s or 0.0, 0.0), LONGEST_WISH_S)
        if outcome.throttled:
            if not self._dispatch.throttled_s:
                name = self.connection.name
                log.warning("throttled by the vendor", connection=name, wait_s=wish_s or THROTTLE_S)
            self._dispatch.throttle(wish_s or THROTTLE_S)
        else:
            for item in parcel.items:
                item.solo = len(parcel.items) > 1
            self._count(lane, head, outcome, wish_s)
        self._proceed(lane)

    def _count(self, lane: Lane, head: Item, outcome: Retry, wish_s: float) -> None:
        """Count a failed attempt, and say when the next one is due; or give up."""
        asked = head.payload is not None  # else preparing it failed, which says nothing of the destination
        if asked and self.health.failed(lane.person, self._clock.monotonic(), outcome.reason[:500]):
            self._spawn(self._outage.probe())
        head.reason = outcome.reason[:500]
        head.made = head.made if isinstance(head.made, Message) else None  # a failed transform runs again
        delay_s = self._delay_s(head, outcome)
        if delay_s is None:
            self._give_up(lane, head, outcome)
            return
        if self.health.stalled:
            # It waits for the probes; but a vendor that comes and goes is not tried at every coming.
            delay_s = min(delay_s, STALLED_S)
            self._outage.wish_s = wish_s if asked else self._outage.wish_s
        head.due_s = self._clock.monotonic() + max(delay_s, wish_s)
        if lane.items[0] is not head:
            head.due_s = lane.items[0].due_s  # a run that failed together goes together again

    def _delay_s(self, item: Item, outcome: Retry) -> float | None:
        """Seconds until the next attempt by the schedule, or None when this was the last."""
        now, now_s = self._clock.now(), self._clock.monotonic()
        healthy = self.health.healthy_within(self.policy.wait_s(item.attempts), now_s)
        alone = healthy and outcome.code >= 500
        item.attempts += 1
        item.alone += alone
        item.first_at = item.first_at or now
        tried = item.tried()
        if self.health.stalled_for_s(now_s) >= self.policy.lasts_s:
            tried = msgspec.structs.replace(tried, follower=True)
        return self.policy.delay_s(tried, now, alone=alone, chance=self._clock.uniform(0.0, 1.0))

    def _give_up(self, lane: Lane, item: Item, outcome: Retry) -> None:
        """The last attempt failed; after the long schedule the next delivery gets one attempt (P7)."""
        lane.items.remove(item)
        if item.alone <= len(self.policy.short_schedule_s):
            if lane.items:
                lane.items[0].follower = True
            else:
                lane.follower = lane.rows
        lane.flights += 1
        self._lanes.count(-1)
        reason = f"gave up after {item.attempts} attempts: {outcome.reason}"
        self._end(item, lane.person, Rejected(reason, outcome.code))
        self._settler.release_after(lane)

    # -- pauses ----------------------------------------------------------------------------------------

    def _doubt(self, parcel: Parcel, outcome: Paused) -> None:
        """A credential was refused: this person waits while the destination's own check is asked."""
        self._tell(parcel.items[0], outcome)
        if self._stopping:
            self._land(parcel)
        else:
            self._spawn(self._judge(parcel, outcome))

    async def _judge(self, parcel: Parcel, outcome: Paused) -> None:
        verdict = await self.pauses.confirm(parcel.payload.capability, outcome)
        if verdict is Verdict.REFUSED:
            self._proceed(self._land(parcel))
        elif verdict is Verdict.ACCEPTED and parcel.shared:
            self._separate(
                parcel
            )  # whose fault it was shows when each goes alone: no batch dies for one of it
        elif verdict is Verdict.ACCEPTED:
            self._conclude(parcel, Rejected(f"{outcome.reason} (the credential itself works)", outcome.code))
        else:
            self._conclude(parcel, Retry(outcome.reason, code=outcome.code))

    def _unblock(self, capability: str) -> None:
        """A capability may go on (or "" and "*": everything)."""
        for lane in self._lanes.standing(Stand.BLOCKED, Stand.PARKED):
            if lane.hold and not self.pauses.blocks(lane.hold):
                lane.hold, lane.due = "", 0.0
                self._proceed(lane)
        self._spill()
        self._spawn(self._hurry(capability))
        self._dispatch.go_on()

    async def _hurry(self, capability: str) -> None:
        """Show in the ledger that the rows held by this capability are due."""
        await self._settler.flush()
        await self._ledger.hurry(self.connection.name, self._clock.now(), capability)

    # -- erasing ---------------------------------------------------------------------------------------

    def forget(self, ids: frozenset[str], erased: Erased) -> None:
        """Drop what was erased of a person from memory; the ledger has counted it as erased already.

        What is on the way may arrive, but is not tried again. What the person sent too late for the erase
        goes on; what others have in the person's lanes does so under another name.
        """
        self._intake.forget(ids, erased)
        self._identity.forget()

        def gone(item: Item) -> bool:
            return item.concerns(ids) and erased.reached(item.record.position)

        for parcel in self._flying:
            for item in parcel.items:
                item.erased = item.erased or gone(item)
        for lane in list(self._lanes):
            self._forget_in(lane, gone)
        for connection, old, new in erased.renamed:
            if connection == self.connection.name:
                self._rename(old, new, back=self._has_more(old, ids, erased))

    def _has_more(self, person: str, ids: frozenset[str], erased: Erased) -> bool:
        """Whether something of an erased person is here that came too late for the erase."""
        lane = self._lanes.find(person)
        if lane is None:
            return False
        flying = (item for parcel in self._flying if parcel.lane.current() is lane for item in parcel.items)
        here = (item for item in (*lane.items, *flying) if not item.erased)
        return any(item.concerns(ids) for item in here) or not erased.reached(lane.own)

    def _rename(self, old: str, new: str, *, back: bool) -> None:
        """The ledger calls a lane's rows otherwise now: so must this loop, to find them.

        Or it has the ledger take it `back`, where what the person sends next must not pass the lane.
        """
        old, new = (new, old) if back else (old, new)
        self._join(old, new)
        lane = self._lanes.open(new)
        lane.rows = lane.stored = True  # a load that came in between may have found none
        if lane.stand in (Stand.IDLE, Stand.PARKED) and not lane.items and not lane.flights:
            self._parking.wait(lane, self._clock.now())

    def _close(self, item: Item) -> None:
        """Let the cursor pass an erased delivery; that of a row it has passed already."""
        if not item.row:
            self._settler.cursor.closed(item.record.position)

    def _forget_in(self, lane: Lane, gone: Callable[[Item], bool]) -> None:
        kept = deque(item for item in lane.items if not gone(item))
        for item in lane.items:
            if gone(item):
                self._close(item)
        self._lanes.count(len(kept) - len(lane.items))
        emptied = bool(lane.items) and not kept
        lane.items = kept
        if emptied or lane.stand is Stand.LOADING:
            lane.stop_waiting()
            lane.stand = Stand.IDLE
            self._proceed(lane)


def _ending(outcome: Ending) -> tuple[DoneState, str, int]:
    match outcome:
        case Delivered(code, reports):
            return "delivered", "; ".join(reports)[:REPORTS_LIMIT], code
        case Skipped(reason):
            return "skipped", reason, 0
        case Rejected(reason, code):
            return "dead", reason[:200], code
