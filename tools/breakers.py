"""The rules of delivery, broken one at a time: what each mutant changes in the running code.

Each is a function that replaces a part of the product; see `tools.mutants`, which asks whether tests notice.
"""

# ruff: noqa: SLF001 - breaking what is inside is what a mutant is for
from __future__ import annotations

from typing import Any

import msgspec


def put(owner: object, name: str, value: object) -> None:
    """Replace a part of the running code."""
    setattr(owner, name, value)


def order_off() -> None:
    """Every message is a person of its own."""
    from towpath.identity import Identity

    async def person(self: Identity, message: Any, position: int) -> str:
        return f"{position}"

    put(Identity, "person", person)


def settle_before_next_off() -> None:
    """The next one starts before the end of the one before is on disk."""
    from towpath.settler import Settler

    put(Settler, "release_after", lambda self, lane: self._release([lane]))


def fence_off() -> None:
    """A loop that lost its lease goes on settling, and does not look at the lease."""
    from towpath import deliver
    from towpath.log.settle import Ends

    settle = Ends.settle

    def unfenced(self: Ends, connection: Any, lease: Any, settlement: Any) -> bool:
        sql = "SELECT epoch, owner FROM lease JOIN connection c ON c.id = lease.connection WHERE c.name = ?"
        epoch, owner = connection.execute(sql, (lease.connection,)).fetchone()
        return settle(self, connection, msgspec.structs.replace(lease, epoch=epoch, owner=owner), settlement)

    async def never(self: object) -> None:
        return None

    put(Ends, "settle", unfenced)
    put(deliver.DeliveryLoop, "_renewing", never)


def lease_ignored() -> None:
    """Calls start however old the lease is."""
    from towpath.dispatch import Dispatch

    put(Dispatch, "allow_until", lambda self, until_s: setattr(self, "_allowed_until_s", float("inf")))


def dedup_off() -> None:
    """Every copy of a message is kept."""
    from towpath.log.sqlite import SqliteStore

    append, count = SqliteStore.append, [0]

    async def renamed(self: SqliteStore, groups: Any, *rest: Any) -> Any:
        count[0] += 1
        fresh = [
            msgspec.structs.replace(
                group,
                entries=[
                    msgspec.structs.replace(entry, message_id=f"{entry.message_id}#{count[0]}")
                    for entry in group.entries
                ],
            )
            for group in groups
        ]
        return await append(self, fresh, *rest)

    put(SqliteStore, "append", renamed)


def retry_dropped() -> None:
    """The first failure is the last."""
    from towpath.retry import RetryPolicy

    put(RetryPolicy, "delay_s", lambda self, tried, now, *, alone, chance: None)


def retry_forever() -> None:
    """Nothing is ever given up."""
    from towpath.retry import RetryPolicy

    put(RetryPolicy, "_spent", lambda self, tried, now, *, alone: False)


def jitter_wild() -> None:
    """The waits are up to twice as long."""
    from towpath.retry import RetryPolicy

    delay = RetryPolicy.delay_s

    def wild(self: RetryPolicy, tried: Any, now: float, *, alone: bool, chance: float) -> float | None:
        return delay(self, tried, now, alone=alone, chance=chance * 5)

    put(RetryPolicy, "delay_s", wild)


def dead_reopened() -> None:
    """A refused delivery is tried again."""
    from towpath.deliver import DeliveryLoop
    from towpath.outcome import Rejected, Retry

    conclude = DeliveryLoop._conclude

    def reopen(self: DeliveryLoop, parcel: Any, outcome: Any) -> None:
        if isinstance(outcome, Rejected) and outcome.code == 422:
            for item in parcel.items:
                self._end(item, parcel.lane.person, outcome)
            outcome = Retry("once more")
        conclude(self, parcel, outcome)

    put(DeliveryLoop, "_conclude", reopen)


def link_merge_off() -> None:
    """A link does not join what waits."""
    from towpath.deliver import DeliveryLoop

    put(DeliveryLoop, "_join", lambda self, old, new: None)


def rows_not_renamed() -> None:
    """A link joins memory, not rows."""
    from towpath.settler import Settler

    put(Settler, "merge", lambda self, old, new: None)


def moved_phone_joins() -> None:
    """A phone that changes hands joins two users."""
    from towpath.identity import Identity

    async def join(self: Identity, old: str, new: str, position: int) -> Any:
        owner, target = await self.resolve(old, position - 1), await self.resolve(new, position - 1)
        if owner == target:
            return None, ""
        await self._link(owner, position, target)
        return (owner, target), ""

    put(Identity, "_join", join)


def follower_rule_off() -> None:
    """A follower of one that died has the whole schedule to itself."""
    from towpath.lanes import Item

    tried = Item.tried
    put(Item, "tried", lambda self: msgspec.structs.replace(tried(self), follower=False))


def short_budget_off() -> None:
    """A poison message has the long schedule."""
    from towpath.health import Health

    put(Health, "healthy_within", lambda self, span_s, now: False)


def pause_dropped() -> None:
    """A confirmed refusal rejects."""
    from towpath import pauses

    confirm = pauses.Pauses.confirm

    async def accept(self: Any, capability: str, refusal: Any) -> Any:
        await confirm(self, capability, refusal)
        self._in_force.pop(capability, None)
        return pauses.Verdict.ACCEPTED

    put(pauses.Pauses, "confirm", accept)


def stall_off() -> None:
    """An outage is treated like many single failures."""
    from towpath.health import Health

    def failed(self: Health, person: str, now: float) -> bool:
        return False

    put(Health, "failed", failed)


def catch_up_off() -> None:
    """After a restart rows go before what lies ahead of them is read again."""
    from towpath.intake import Intake

    begin = Intake.begin

    def hasty(self: Intake, progress: Any) -> None:
        begin(self, progress)
        self._horizon = 0
        self._caught_up()
        self._progress = progress

    put(Intake, "begin", hasty)
    put(Intake, "_catching_up", property(lambda self: True))


def settled_forgotten() -> None:
    """After a restart what ended beyond the cursor is sent again."""
    from towpath.intake import Intake

    put(Intake, "_is_known", lambda self, record: False)


def cursor_hasty() -> None:
    """The cursor passes what is still in memory."""
    from towpath.lanes import Cursor

    put(Cursor, "advance", lambda self: self._read)


def ticket_ignored() -> None:
    """An outdated load of rows is believed."""
    from towpath.parking import Parking

    load = Parking.load

    async def believe(self: Parking, lane: Any, ticket: int, *, early: bool) -> None:
        await load(self, lane, lane.ticket, early=early)

    put(Parking, "load", believe)


def stored_ignored() -> None:
    """A row stored while its lane loads is not looked for."""
    from towpath.parking import Parking

    load = Parking.load

    async def forget(self: Parking, lane: Any, ticket: int, *, early: bool) -> None:
        proceed = self._proceed

        def proceed_without(found: Any) -> None:
            found.rows = False
            self._proceed = proceed
            proceed(found)

        self._proceed = proceed_without
        await load(self, lane, ticket, early=early)
        self._proceed = proceed

    put(Parking, "load", forget)


def stop_forgets() -> None:
    """A stop does not wait for the last settlement."""
    from towpath.settler import Settler

    async def nothing(self: Settler) -> None:
        return None

    put(Settler, "finish", nothing)


def merge_across_events() -> None:
    """Coalescing looks past what cannot be merged."""
    from towpath.dispatch import Dispatch

    pack = Dispatch._pack

    def reach(self: Dispatch, lane: Any, payload: Any) -> Any:
        lane.items = type(lane.items)(sorted(lane.items, key=lambda item: item.message.type != "identify"))
        return pack(self, lane, payload)

    put(Dispatch, "_pack", reach)


def throttle_counts() -> None:
    """A rate limit costs an attempt."""
    from towpath.deliver import DeliveryLoop

    failed = DeliveryLoop._failed

    def count(self: DeliveryLoop, parcel: Any, outcome: Any) -> None:
        parcel.items[0].attempts += outcome.throttled
        failed(self, parcel, outcome)

    put(DeliveryLoop, "_failed", count)


def bisection_off() -> None:
    """A batch refused as a whole is rejected as a whole."""
    from towpath import courier

    put(courier, "_refuses_a_batch", lambda outcome: False)


def synced_too_late() -> None:
    """An append is answered before it is on disk."""
    from towpath.log.writer import Writer

    submit = Writer.submit

    def hasty(self: Writer, apply: Any, finished: Any = None) -> Any:
        future = submit(self, apply, finished)
        if finished is not None and not future.done():
            from towpath.log import Appended

            future.set_result(Appended(1, 0, 1))
        return future

    put(Writer, "submit", hasty)


def unsynced() -> None:
    """The disk is not asked to keep anything."""
    from towpath.log import database
    from towpath.log.schema import open_writer

    put(database, "open_writer", lambda path, *, durable: open_writer(path, durable=False))


def retry_after_ignored() -> None:
    """The vendor's wish is not heard."""
    from towpath import http

    put(http, "retry_after", lambda value, now: None)


def pause_forgotten() -> None:
    """A pause does not outlive a restart."""
    from towpath.pauses import Pauses

    async def nothing(self: Pauses) -> None:
        return None

    put(Pauses, "restore", nothing)


def pause_ignored() -> None:
    """A paused capability is called all the same."""
    from towpath.pauses import Pauses

    put(Pauses, "blocks", lambda self, capability: False)
    put(Pauses, "everything", property(lambda self: False))


def budget_off() -> None:
    """The account's allowance is not kept."""
    from towpath.budget import Budget

    async def at_once(self: Budget, cost: float = 1.0) -> None:
        return None

    put(Budget, "acquire", at_once)


def junk_links() -> None:
    """Ids that are nobody's pull people together."""
    from towpath import identity

    put(identity, "JUNK", frozenset[str]())


def links_uncapped() -> None:
    """A person may have any number of links."""
    from towpath.log.ledger import SqliteLedger

    async def none(self: SqliteLedger, person: str, before: int) -> int:
        return 0

    put(SqliteLedger, "linked", none)


def clients_join_users() -> None:
    """A copied client key may join any two users."""
    from towpath.identity import Identity

    wanted = Identity._wanted

    def trusting(self: Identity, message: Any) -> Any:
        return wanted(self, msgspec.structs.replace(message, trust="server"))

    put(Identity, "_wanted", trusting)


def erased_in_memory_stays() -> None:
    """An erase leaves alone what a loop holds in memory."""
    from towpath.deliver import DeliveryLoop

    put(DeliveryLoop, "forget", lambda self, ids, erased: None)


def erased_on_the_way_is_retried() -> None:
    """What was on the way during an erase is tried again."""
    from towpath.deliver import DeliveryLoop
    from towpath.lanes import Item

    forget = DeliveryLoop.forget

    def forget_less(self: DeliveryLoop, ids: frozenset[str], erased: Any) -> None:
        flying, self._flying = self._flying, set()
        forget(self, ids, erased)
        self._flying = flying

    put(DeliveryLoop, "forget", forget_less)
    put(Item, "erased", property(lambda self: False, lambda self, value: None))


def erased_rows_stay() -> None:
    """An erase leaves parked rows and dead letters alone."""
    from towpath.log import erase, sqlite

    put(sqlite, "search_copies", lambda *_: erase.Copies({}, [], []))
    put(erase, "_parked", lambda *_: [])


def suppress_off() -> None:
    """Suppressed people get everything."""
    from towpath.dispatch import Dispatch

    unwanted = Dispatch._unwanted

    def forgiving(self: Dispatch, item: Any) -> Any:
        found = unwanted(self, item)
        return None if found is not None and found.reason == "suppressed" else found

    put(Dispatch, "_unwanted", forgiving)


def max_age_off() -> None:
    """A cart reminder goes out after a 60-hour outage."""
    from towpath.connection import Connection

    put(Connection, "stale", lambda self, message, now: None)


def separation_off() -> None:
    """A merged call that is refused is rejected with all its parts."""
    from towpath.deliver import DeliveryLoop

    conclude = DeliveryLoop._conclude

    def reject(self: DeliveryLoop, parcel: Any, outcome: Any) -> None:
        put(DeliveryLoop, "_separate", lambda self, parcel: self._succeed(parcel, outcome))
        conclude(self, parcel, outcome)

    put(DeliveryLoop, "_conclude", reject)


def replay_backwards() -> None:
    """Later letters are replayed before earlier ones."""
    from towpath.log import letters

    chosen = letters.chosen
    put(letters, "chosen", lambda connection, where: chosen(connection, where)[::-1])


def replay_twice() -> None:
    """A replayed letter stays a letter, and can be replayed again."""
    from towpath.log import letters

    reopen = letters._reopen

    def copied(connection: Any, id_: int, *key: int) -> int:
        row = connection.execute("SELECT * FROM dead WHERE id = ?", (id_,)).fetchone()
        outside = reopen(connection, id_, *key)
        connection.execute("INSERT INTO dead VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)", row)
        return outside

    put(letters, "_reopen", copied)


def trim_unguarded() -> None:
    """Retention drops what a connection has not settled."""
    from towpath.log import trim
    from towpath.log.scope import rows

    def everything(connection: Any, before: float, upto: int | None = None) -> Any:
        return [row for row in rows(connection, 0, limit=1024) if row.received_max < before]

    put(trim, "_droppable", everything)


def added_source_from_nowhere() -> None:
    """A source that is added starts behind what the connection stands at."""
    from towpath.log import scope

    opened = scope._open

    def later(connection: Any, codec: Any, target: int, found: Any) -> None:
        last = int(connection.execute("SELECT last FROM log").get)
        opened(connection, codec, target, msgspec.structs.replace(found, since=last))

    put(scope, "_open", later)


def repeated_settlement_counts() -> None:
    """A settlement that comes a second time, because its answer was lost, is counted again."""
    from towpath.log import settle

    tally = settle._tally

    def twice(ended: Any, new: Any, target: int, released: Any, counts: Any) -> Any:
        again = {(done.position, done.index) for done in ended}
        return tally(ended, again, target, released, counts)

    put(settle, "_tally", twice)


def wall_clock_waits() -> None:
    """Waits end by the wall clock, which may be set back."""
    from towpath.parking import Parking

    def come_due(self: Parking, lane: Any) -> None:
        lane.timer = None
        if lane.due > self._clock.now():
            self.wait(lane, lane.due)
        elif lane.joined is None and not lane.flights and self.loadable and not self._stalled():
            self.open(lane)

    put(Parking, "_came_due", come_due)


def link_wakes_rows() -> None:
    """Rows that a link brings to a lane are due when what the lane held is."""
    from towpath.parking import Parking

    def park(self: Parking, lane: Any) -> None:
        lane.due = 0.0
        self.wait(lane, self.store_all(lane))

    put(Parking, "park", park)


def filter_forgets() -> None:
    """The filter says of everybody that they have nothing in the backlog."""
    from towpath.overtaking import Seen

    put(Seen, "__contains__", lambda self, person: False)


def marks_forgotten() -> None:
    """Who went ahead is delivered again when reading comes there."""
    from towpath.overtaking import Marks

    put(Marks, "__contains__", lambda self, position: False)


def until_ignored() -> None:
    """The first reader runs into the stretch where the second one is at work."""
    from towpath.overtaking import Overtaking

    def nowhere(self: Overtaking, position: int) -> None:
        self._marks.drop(position)

    put(Overtaking, "until", nowhere)


def linked_names_pass() -> None:
    """Whom a record in the backlog links may pass it."""
    from towpath.overtaking import Sight

    put(Sight, "names", property(lambda self: {self.place.person}))


def newest_wait() -> None:
    """Whoever comes first in the newest of the stretch waits for all of it."""
    from towpath.overtaking import Overtaking

    put(Overtaking, "_before_newest", lambda self: self._log.last())


def erase_not_looked_again() -> None:
    """What an erase takes apart is not looked at again."""
    from towpath.overtaking import Overtaking

    put(Overtaking, "look_again", lambda self: None)


def old_turn_counts() -> None:
    """What was being read when the second reader began again is judged all the same."""
    from towpath.overtaking import Overtaking

    look = Overtaking._look

    async def anyhow(self: Overtaking, records: Any, turn: int) -> None:
        await look(self, records, self._turn)

    put(Overtaking, "_look", anyhow)


def guard_off() -> None:
    """As many people are deleted as anybody sends deletions of."""
    from towpath.deletes import DeleteGuard

    put(DeleteGuard, "holds", lambda self, payload, position: False)


def guard_forgets() -> None:
    """After a restart deletions are counted anew."""
    from towpath.deletes import Window

    put(Window, "restore", lambda self, dated: None)


def guard_counts_the_landed() -> None:
    """Deletions on the way do not count."""
    from towpath.deletes import DeleteGuard

    def lands(self: DeleteGuard, parcel: Any, outcome: Any) -> None:
        self._flying.clear()
        if outcome is not None and type(outcome).__name__ == "Delivered":
            self._window.add()
            self.keep()

    put(DeleteGuard, "departs", lambda self, parcel: None)
    put(DeleteGuard, "lands", lands)


def guard_resumed_by_the_way() -> None:
    """Whoever resumes a destination lets all deletions go, too."""
    from towpath.pauses import Pauses

    async def resume(self: Pauses) -> None:
        await self.restore()
        for capability in list(self._in_force):
            await self.lift(capability)

    put(Pauses, "resume", resume)


def guard_probed() -> None:
    """A credential that works lets all deletions go."""
    from towpath import pauses

    recheck = pauses.Pauses.recheck

    async def careless(self: pauses.Pauses) -> None:
        await recheck(self)
        if pauses.DELETES in self._in_force:
            await self.lift(pauses.DELETES)

    put(pauses.Pauses, "recheck", careless)


def guard_held_for_good() -> None:
    """A yes lets nobody go."""
    from towpath.deletes import DeleteGuard

    async def nothing(self: DeleteGuard, *, discard: bool) -> None:
        self.keep()

    put(DeleteGuard, "decide", nothing)


def discarded_anyway() -> None:
    """What was discarded goes all the same."""
    from towpath.deletes import DeleteGuard

    put(DeleteGuard, "discards", lambda self, payload, position: False)


def guard_ignores_persons() -> None:
    """However many people are known, the count alone holds."""
    from towpath.connection import DeleteLimit

    put(DeleteLimit, "most", lambda self, persons: self.count)


def guard_window_for_good() -> None:
    """A deletion counts for ever."""
    from towpath.deletes import Window

    put(Window, "total", property(lambda self: sum(count for _, count in self._pieces)))


def deletions_merge() -> None:
    """A deletion travels in one call with what comes before and after it."""
    from towpath.dispatch import Dispatch

    def merged(self: Dispatch, payload: Any, item: Any) -> Any:
        return item.payload and self._connection.destination.merge(payload, item.payload)

    put(Dispatch, "_merged", merged)
