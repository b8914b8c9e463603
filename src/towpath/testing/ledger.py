"""The contracts of `Ledger` and of a whole store: what every engine promises about deliveries."""

# ruff: noqa: S101, D102 - asserting is what a contract is for, and the tests' names are sentences
from __future__ import annotations

from collections.abc import Sequence

import msgspec
import pytest

from towpath.http import Exchange
from towpath.log import (
    Balance,
    Dead,
    DeadFilter,
    Done,
    Key,
    Lease,
    Parked,
    Pause,
    Refused,
    Settlement,
    Store,
)
from towpath.message import Record

from .log import HOUR_S, Stores, ids_of

ALL = DeadFilter()


async def lease_of(store: Store, owner: str = "one", connection: str = "out") -> Lease:
    """The lease of a connection that nobody else holds."""
    lease = await store.lease(connection, owner, 30.0)
    assert lease is not None
    return lease


async def settle(store: Store, settlement: Settlement) -> None:
    """Settle on "out" with a lease of one's own."""
    assert await store.settle(await lease_of(store), settlement)


async def balances(store: Store) -> Sequence[Balance]:
    """The balance of the only connection, from the counters and counted again."""
    found = [*await store.balance(), *await store.balance(recount=True)]
    assert found[0] == found[1]
    return found


def park(
    record: Record, due: float = 100.0, *, index: int = 0, person: str = "ann", hold: str = ""
) -> Parked:
    """A parked delivery of a record."""
    return Parked(record.position, index, person, due, 2, 50.0, "500: oops", record, hold=hold, alone=1)


def bury(record: Record, *, index: int = 0, code: int = 400, died_at: float = 60.0) -> Dead:
    """A dead letter of a record."""
    exchange = Exchange("POST", "https://example.com/x", '{"a":1}', code, "no")
    return Dead(record.position, index, "ann", "no", code, 3, 50.0, died_at, record, exchange)


def keys(rows: Sequence[Parked]) -> list[Key]:
    """Their keys."""
    return [(row.position, row.index) for row in rows]


class Ledgers(Stores[Store]):
    """A store with the connection "out", of the source "web"."""

    async def start(self, *ids: str) -> tuple[Lease, Sequence[Record]]:
        """A connection from the first record on, its lease, and these records."""
        await self.store.connect("out", ["web"], "earliest")
        return await lease_of(self.store), await self.keep(*ids)

    async def deaths(self) -> Sequence[Dead]:
        """Three dead letters, newest first."""
        lease, records = await self.start("a", "b", "c")
        letters = [bury(r, code=400 + i, died_at=60.0 + i) for i, r in enumerate(records)]
        done = [Done(letter.position, 0, "dead", "no") for letter in letters]
        await self.store.settle(lease, Settlement(3, done, letters))
        return await self.store.dead(ALL)


class LedgerContract(Ledgers):
    """What a ledger promises of deliveries from a log.

    Inherit in a class `Test…` and implement `begin`, with any log that keeps to its own contract.
    """

    # Leases

    async def test_one_holder_at_a_time(self) -> None:
        first, _ = await self.start()
        assert await self.store.lease("out", "two", 30.0) is None
        await self.clock.advance(31.0)
        second = await self.store.lease("out", "two", 30.0)
        assert second is not None
        assert second.epoch > first.epoch
        assert await self.store.lease("out", "one", 30.0) is None

    async def test_a_lease_is_renewed_by_its_holder(self) -> None:
        lease, _ = await self.start("a")
        for _ in range(3):
            await self.clock.advance(20.0)
            assert await self.store.lease("out", "one", 30.0) == lease
        assert await self.store.lease("out", "two", 30.0) is None
        assert await self.store.settle(lease, Settlement(1, [Done(1, 0, "delivered")]))

    async def test_a_released_lease_is_free(self) -> None:
        lease, _ = await self.start("a")
        await self.store.release(lease)
        assert (await lease_of(self.store, "two")).epoch > lease.epoch
        assert not await self.store.settle(lease, Settlement(1, [Done(1, 0, "delivered")]))

    @pytest.mark.spec("D05")
    async def test_an_older_lease_changes_nothing(self) -> None:
        stale, records = await self.start("a", "b", "c")
        await self.clock.advance(31.0)
        lease = await lease_of(self.store, "two")
        late = Settlement(
            3, [Done(1, 0, "dead", "no")], [bury(records[0])], [park(records[1])], [("ann", "x")]
        )
        assert not await self.store.settle(stale, late)
        assert await self.store.progress(lease) == await self.store.progress(stale)
        assert (await self.store.progress(lease)).cursor == 0
        assert [b.waiting for b in await balances(self.store)] == [3, 3]
        assert (await self.store.dead(ALL), await self.store.waiting(None, 5)) == ([], [])

    # Settling

    @pytest.mark.spec("D05")
    async def test_balance_holds_at_every_step(self) -> None:
        lease, records = await self.start("a", "b", "c", "d", "e", "f")
        seen = []
        for settlement in (
            Settlement(0),
            Settlement(1, [Done(1, 0, "delivered"), Done(4, 0, "skipped", "filtered")]),
            Settlement(2, [Done(3, 0, "dead", "no")], [bury(records[2])], [park(records[1])]),
            Settlement(4, [Done(2, 0, "delivered")]),
            Settlement(6, [Done(5, 0, "skipped", "stale"), Done(6, 0, "skipped", "filtered")]),
        ):
            assert await self.store.settle(lease, settlement)
            for balance in await balances(self.store):
                assert balance.difference == 0
            seen.append((balance.delivered, balance.waiting, balance.dead, dict(balance.skipped)))
        assert seen == [
            (0, 6, 0, {}),
            (1, 4, 0, {"filtered": 1}),
            (1, 3, 1, {"filtered": 1}),
            (2, 2, 1, {"filtered": 1}),
            (2, 0, 1, {"filtered": 2, "stale": 1}),
        ]

    @pytest.mark.spec("D05")
    async def test_settling_twice_counts_once_and_reopens_nothing(self) -> None:
        lease, records = await self.start("a", "b")
        ended = Settlement(2, [Done(1, 0, "delivered"), Done(2, 0, "dead", "no")], [bury(records[1])])
        again = Settlement(2, [Done(2, 0, "delivered"), Done(1, 0, "dead", "no")], [bury(records[0])])
        for settlement in (ended, ended, again, Settlement(2, parked=[park(records[0]), park(records[1])])):
            assert await self.store.settle(lease, settlement)
        for balance in await balances(self.store):
            assert (balance.delivered, balance.dead, balance.waiting, balance.difference) == (1, 1, 0, 0)
        assert [letter.position for letter in await self.store.dead(ALL)] == [2]
        assert await self.store.waiting(None, 5) == []

    async def test_progress_says_where_to_go_on(self) -> None:
        lease, records = await self.start("a", "b", "c", "d")
        parked = [park(records[1], 70.0), park(records[3], 40.0), park(records[2], 90.0, person="bob")]
        await self.store.settle(lease, Settlement(1, [Done(1, 0, "delivered")], parked=parked[:1]))
        await self.store.settle(lease, Settlement(0, [Done(4, 1, "delivered")], parked=parked[1:]))
        await self.reopen()
        progress = await self.store.progress(await lease_of(self.store))
        assert progress.cursor == 1
        assert progress.settled == {(4, 1)}
        assert progress.parked == {(2, 0), (3, 0), (4, 0)}
        assert progress.waiting == {"ann": 70.0, "bob": 90.0}

    @pytest.mark.spec("D05")
    async def test_several_deliveries_of_one_message_are_counted_each(self) -> None:
        lease, records = await self.start("a", "b")
        done = [Done(1, 0, "delivered"), Done(1, 1, "delivered"), Done(1, 2, "dead", "no")]
        await self.store.settle(
            lease, Settlement(1, done, [bury(records[0], index=2)], [park(records[1], index=1)])
        )
        for balance in await balances(self.store):
            assert (balance.accepted, balance.delivered, balance.dead, balance.waiting) == (5, 2, 1, 2)
            assert balance.difference == 0

    async def test_deliveries_are_listed_newest_first(self) -> None:
        lease, _ = await self.start("a", "b")
        rows = [Done(1, 0, "delivered", "", 200, 2, 31, 70.5), Done(2, 0, "skipped", "filtered", at=71.25)]
        await self.store.settle(lease, Settlement(2, rows))
        assert await self.store.deliveries(None, None, 10) == [("out", rows[1]), ("out", rows[0])]
        assert await self.store.deliveries("out", 1, 10) == [("out", rows[0])]
        assert await self.store.deliveries("out", None, 1) == [("out", rows[1])]
        assert await self.store.deliveries("other", None, 10) == []

    # Parked

    async def test_a_parked_row_comes_back_as_given(self) -> None:
        lease, records = await self.start("a", "b")
        row = Parked(
            1, 0, "ann", 90.5, 3, 12.0, "503: busy", records[0], follower=True, hold="track", alone=2
        )
        await self.store.settle(lease, Settlement(1, parked=[row]))
        assert await self.store.parked(lease, "ann") == [row]
        assert await self.store.waiting(None, 5) == [("out", row)]
        changed = msgspec.structs.replace(row, due=95.0, attempts=4, person="bob")
        await self.store.settle(lease, Settlement(1, parked=[changed]))
        assert (await self.store.parked(lease, "ann"), await self.store.parked(lease, "bob")) == (
            [],
            [changed],
        )

    @pytest.mark.spec("D04")
    async def test_only_a_persons_first_parked_delivery_is_due(self) -> None:
        lease, records = await self.start("a", "b", "c", "d")
        rows = [park(records[0], 80.0), park(records[1], 10.0), park(records[2], 50.0, person="bob")]
        await self.store.settle(lease, Settlement(3, parked=rows))
        assert await self.store.due(lease, 79.0) == [("bob", 50.0)]
        assert await self.store.due(lease, 80.0) == [("bob", 50.0), ("ann", 80.0)]
        assert await self.store.due(lease, 80.0, limit=1) == [("bob", 50.0)]
        await self.store.settle(lease, Settlement(3, [Done(1, 0, "delivered")]))
        assert await self.store.due(lease, 79.0) == [("ann", 10.0), ("bob", 50.0)]

    async def test_parked_rows_of_a_person_are_in_order_of_key(self) -> None:
        lease, records = await self.start("a", "b", "c")
        rows = [park(records[i], 10.0 - i, index=j) for i in (2, 0, 1) for j in (1, 0)]
        await self.store.settle(lease, Settlement(3, parked=rows))
        assert keys(await self.store.parked(lease, "ann")) == [(1, 0), (1, 1), (2, 0), (2, 1), (3, 0), (3, 1)]
        assert keys(await self.store.parked(lease, "ann", limit=2)) == [(1, 0), (1, 1)]

    async def test_a_merge_renames_parked_rows(self) -> None:
        lease, records = await self.start("a", "b", "c")
        rows = [park(records[0], 60.0, person="anon"), park(records[1], 40.0)]
        await self.store.settle(lease, Settlement(2, parked=rows))
        await self.store.settle(lease, Settlement(2, merges=[("anon", "ann")], parked=[park(records[2])]))
        assert keys(await self.store.parked(lease, "ann")) == [(1, 0), (2, 0), (3, 0)]
        assert await self.store.parked(lease, "anon") == []
        assert await self.store.due(lease, 100.0) == [("ann", 60.0)]

    async def test_hurry_makes_waiting_rows_due(self) -> None:
        lease, records = await self.start("a", "b", "c")
        people = ["ann", "bob", "cid"]
        rows = [
            park(r, 900.0, person=p, hold=h)
            for r, p, h in zip(records, people, ["", "push", ""], strict=True)
        ]
        await self.store.settle(lease, Settlement(3, parked=rows))
        assert await self.store.hurry("out", 100.0, "push") == 1
        assert await self.store.due(lease, 100.0) == [("bob", 100.0)]
        assert await self.store.hurry("out", 100.0) == 2
        assert sorted(await self.store.due(lease, 100.0)) == [(person, 100.0) for person in people]
        assert await self.store.hurry("out", 100.0) == 0

    # Dead letters

    async def test_a_dead_letter_comes_back_as_given(self) -> None:
        lease, records = await self.start("a")
        letter = bury(records[0])
        await self.store.settle(lease, Settlement(1, [Done(1, 0, "dead", "no", 400)], [letter]))
        (found,) = await self.store.dead(ALL)
        assert found.id > 0
        assert msgspec.structs.replace(found, id=0, connection="") == letter
        assert found.connection == "out"

    async def test_dead_letters_are_chosen_by_every_condition(self) -> None:
        newest, middle, oldest = await self.deaths()
        for where, expected in (
            (DeadFilter(limit=2), [newest, middle]),
            (DeadFilter(ids=[oldest.id, newest.id]), [newest, oldest]),
            (DeadFilter(ids=[]), []),
            (DeadFilter(connection="out", code=401), [middle]),
            (DeadFilter(connection="other"), []),
            (DeadFilter(message_id="a"), [oldest]),
            (DeadFilter(since=61.0), [newest, middle]),
            (DeadFilter(person="ann", reason="no", code=402), [newest]),
            (DeadFilter(person="ann", reason="yes"), []),
        ):
            assert await self.store.dead(where) == expected

    @pytest.mark.spec("D06")
    async def test_replay_opens_a_delivery_again_once(self) -> None:
        _, _, oldest = await self.deaths()
        where = DeadFilter(ids=[oldest.id])
        assert await self.store.replay(where, 500.0) == {"out": 1}
        assert await self.store.replay(where, 500.0) == {}
        lease = await lease_of(self.store)
        (row,) = await self.store.parked(lease, "ann")
        assert (row.position, row.due, row.attempts, row.record) == (1, 500.0, 0, oldest.record)
        assert await self.store.due(lease, 500.0) == [("ann", 500.0)]
        assert [(b.dead, b.waiting, b.difference) for b in await balances(self.store)] == [(2, 1, 0)] * 2
        await settle(self.store, Settlement(3, [Done(1, 0, "delivered")]))
        assert [(b.dead, b.delivered, b.waiting) for b in await balances(self.store)] == [(2, 1, 0)] * 2

    @pytest.mark.spec("D06", "D04")
    async def test_replay_takes_all_that_fit_and_keeps_their_order(self) -> None:
        lease, records = await self.start("a", "b", "c", "d")
        for record in (records[2], records[0], records[3], records[1]):  # in which they died
            done = Done(record.position, 0, "dead", "no")
            await self.store.settle(lease, Settlement(0, [done], [bury(record)]))
        assert await self.store.replay(DeadFilter(person="ann", limit=1), 500.0) == {"out": 4}
        assert await self.store.dead(ALL) == []
        assert keys(await self.store.parked(lease, "ann")) == [(1, 0), (2, 0), (3, 0), (4, 0)]
        assert await self.store.due(lease, 500.0) == [("ann", 500.0)]

    async def test_drop_takes_all_that_fit(self) -> None:
        newest, _, _ = await self.deaths()
        assert await self.store.drop(DeadFilter(code=newest.code, limit=1)) == 1
        assert await self.store.drop(DeadFilter(limit=1)) == 2
        assert [(b.dead, b.waiting, b.difference) for b in await balances(self.store)] == [(3, 0, 0)] * 2

    # Connections

    async def test_a_new_connection_starts_now_or_at_the_first_record(self) -> None:
        await self.keep("a", "b")
        await self.store.connect("early", ["web"], "earliest")
        await self.store.connect("late", ["web"], "now")
        await self.keep("c")
        for name, cursor in (("early", 0), ("late", 2)):
            assert (await self.store.progress(await lease_of(self.store, connection=name))).cursor == cursor
        for recount in (False, True):
            found = await self.store.balance(recount=recount)
            assert [(b.connection, b.accepted, b.waiting) for b in found] == [("early", 3, 3), ("late", 1, 1)]

    async def test_connecting_again_changes_nothing(self) -> None:
        lease, _ = await self.start("a", "b")
        await self.store.settle(lease, Settlement(1, [Done(1, 0, "delivered")]))
        await self.store.connect("out", ["web"], "now")
        assert (await self.store.progress(lease)).cursor == 1
        assert [(b.accepted, b.delivered, b.waiting) for b in await balances(self.store)] == [(2, 1, 1)] * 2

    @pytest.mark.spec("D05")
    async def test_only_records_of_its_sources_are_a_connections(self) -> None:
        await self.start("a")
        await self.keep("b", source="app")
        assert [(b.accepted, b.waiting) for b in await balances(self.store)] == [(1, 1)] * 2

    @pytest.mark.spec("D05")
    async def test_the_balance_holds_when_sources_come_and_go(self) -> None:
        lease, records = await self.start("a", "b", "c")
        await self.store.settle(lease, Settlement(1, [Done(1, 0, "delivered")], parked=[park(records[2])]))
        await self.keep("d", source="app")
        seen: list[tuple[int, int, int]] = []
        for sources in (["app"], ["app", "web"], ["web"], ["app"]):
            await self.store.connect("out", sources, "now")
            await self.keep(f"web-{len(seen)}")
            await self.keep(f"app-{len(seen)}", source="app")
            for balance in await balances(self.store):
                assert balance.difference == 0
            seen.append((balance.accepted, balance.waiting, sum(balance.skipped.values())))
        assert seen == [(5, 3, 1), (8, 6, 1), (9, 4, 4), (11, 3, 7)]

    # Pauses, suppressed ids, links

    async def test_pauses_are_remembered_until_resumed(self) -> None:
        await self.start()
        by_hand, refused = Pause("out", "*", "by hand", 5.0), Pause("out", "track", "401", 6.0)
        for pause in (by_hand, refused, by_hand):
            await self.store.pause(pause)
        await self.reopen()
        assert await self.store.pauses() == [by_hand, refused]
        await self.store.resume("out")
        assert await self.store.pauses() == [refused]
        await self.store.resume("out", "track")
        assert await self.store.pauses() == []

    @pytest.mark.spec("D10")
    async def test_suppressed_ids_are_remembered(self) -> None:
        await self.store.suppress(["ann", "bob"])
        await self.store.suppress(["ann"])
        assert await self.store.suppressed() == {"ann", "bob"}
        await self.store.unsuppress(["bob", "nobody"])
        await self.reopen()
        assert await self.store.suppressed() == {"ann"}

    async def test_links_are_kept_by_position(self) -> None:
        for position, person in ((5, "ann"), (2, "bob"), (5, "ann")):
            await self.store.link("anon", position, person)
        await self.reopen()
        assert await self.store.links("anon") == [(2, "bob"), (5, "ann")]
        assert await self.store.links("nobody") == []
        assert [await self.store.linked("ann", before) for before in (5, 6)] == [0, 1]
        await self.store.link("other", 3, "eve")
        found = await self.store.links_of(["anon", "nobody", "other", "anon"])
        assert found == {"anon": [(2, "bob"), (5, "ann")], "other": [(3, "eve")]}
        assert await self.store.links_of([]) == {}

    @pytest.mark.spec("D15")
    async def test_ids_that_lead_to_a_person_are_counted_as_of_a_position(self) -> None:
        for identifier, position, person in (("b", 2, "a"), ("c", 3, "b"), ("d", 4, "c"), ("a", 5, "d")):
            await self.store.link(identifier, position, person)
        assert [await self.store.identifiers("a", before, 9) for before in (2, 3, 5, 6)] == [1, 2, 4, 4]
        assert await self.store.identifiers("a", 6, 3) == 3
        assert await self.store.identifiers("nobody", 6, 3) == 1


class StoreContract(Ledgers):
    """What log and ledger of one store promise together: retention and erasure reach both.

    Inherit in a class `Test…` and implement `begin`.
    """

    # Retention

    @pytest.mark.spec("D19")
    async def test_trim_drops_old_records_that_are_settled(self) -> None:
        await self.store.connect("out", ["web"], "earliest")
        await self.keep("a", "b")
        await self.clock.advance(HOUR_S)
        await self.keep("c")
        assert await self.store.trim(self.clock.now()) == 0
        await settle(self.store, Settlement(2, [Done(1, 0, "delivered"), Done(2, 0, "delivered")]))
        assert await self.store.trim(self.clock.now()) == 2
        assert ids_of(await self.all()) == ["c"]
        assert [b.difference for b in await balances(self.store)] == [0, 0]

    @pytest.mark.spec("D19")
    async def test_a_forgotten_connection_holds_nothing_back(self) -> None:
        lease, records = await self.start("a", "b", "c")
        ended = [Done(1, 0, "delivered"), Done(2, 0, "dead")]
        rows = [park(records[2])]
        await self.store.settle(lease, Settlement(2, ended, dead=[bury(records[1])], parked=rows))
        assert await self.store.trim(1e12) == 0
        assert await self.store.disconnect("out")
        assert not await self.store.disconnect("out")
        assert not await self.store.settle(lease, Settlement(3, [Done(3, 0, "delivered")]))
        assert (await self.store.balance(), await self.store.dead(ALL)) == ([], [])
        assert await self.store.trim(1e12) == 3

    # Dead letters and refusals

    @pytest.mark.spec("D06", "D19")
    async def test_replay_works_after_the_record_was_trimmed(self) -> None:
        await self.deaths()
        await self.clock.advance(HOUR_S)
        assert await self.store.trim(self.clock.now()) == 3
        assert await self.store.replay(ALL, 500.0) == {"out": 3}
        await settle(self.store, Settlement(3, [Done(1, 0, "delivered"), Done(2, 0, "delivered")]))
        await settle(self.store, Settlement(3, [Done(1, 0, "delivered"), Done(2, 0, "dead", "no")]))
        await self.store.trim(self.clock.now())
        for balance in await balances(self.store):
            assert (balance.accepted, balance.delivered, balance.dead, balance.waiting) == (3, 2, 0, 1)

    async def test_dropped_and_pruned_letters_stay_dead_in_the_balance(self) -> None:
        newest, _, oldest = await self.deaths()
        await self.store.append(
            [], [Refused("web", 0, "E1", "no", b"", 60.0), Refused("web", 1, "E1", "no", b"", 90.0)]
        )
        assert await self.store.drop(DeadFilter(ids=[newest.id])) == 1
        assert await self.store.prune(61.0) == 2
        assert oldest not in await self.store.dead(ALL)
        assert len(await self.store.dead(ALL)) == len(await self.store.refusals()) == 1
        assert [(b.dead, b.difference) for b in await balances(self.store)] == [(3, 0), (3, 0)]

    # Erasing

    @pytest.mark.spec("D10", "D05")
    async def test_erased_deliveries_are_counted(self) -> None:
        await self.store.connect("out", ["web"], "earliest")
        records = await self.keep("a", "b", "c", "d")
        await self.keep("e", person="bob")
        parked = [park(records[1]), park(records[3])]
        done = [Done(1, 0, "delivered"), Done(3, 0, "dead", "no")]
        await settle(self.store, Settlement(1, done, [bury(records[2])], parked))
        erased = await self.store.erase(["ann"])
        assert (erased.records, erased.copies) == (4, 3)
        for balance in await balances(self.store):
            assert (balance.delivered, balance.dead, balance.erased, balance.waiting) == (1, 1, 2, 1)
            assert balance.difference == 0
        assert await self.store.dead(ALL) == []
        assert await self.store.waiting(None, 10) == []

    @pytest.mark.spec("D10")
    async def test_a_letter_of_another_that_names_the_person_loses_its_exchange(self) -> None:
        await self.store.connect("out", ["web"], "earliest")
        records = [*await self.keep("a", person="bob")]
        records = [*await self.keep("b", person="bob")]
        named = Exchange("POST", "https://example.com/x", "[]", 400, '{"failed": [{"id": "ann"}]}')
        other = Exchange("POST", "https://example.com/x", "[]", 400, '{"failed": [{"id": "anna"}]}')
        letters = [
            msgspec.structs.replace(bury(record), exchange=exchange)
            for record, exchange in zip(records, (named, other), strict=True)
        ]
        done = [Done(record.position, 0, "dead", "no") for record in records]
        await settle(self.store, Settlement(2, done, letters))
        await self.store.erase(["ann"])
        assert [letter.exchange for letter in await self.store.dead(ALL)] == [other, None]

    @pytest.mark.spec("D10")
    async def test_settling_what_was_erased_changes_nothing(self) -> None:
        await self.store.connect("out", ["web"], "earliest")
        (record,) = await self.keep("a")
        lease = await lease_of(self.store)
        await self.store.erase(["ann"])
        dead = Settlement(1, [Done(1, 0, "dead", "no")], [bury(record)])
        for late in (Settlement(1, parked=[park(record)]), dead, Settlement(1, [Done(1, 0, "delivered")])):
            assert await self.store.settle(lease, late)
        for balance in await balances(self.store):
            assert (balance.accepted, balance.erased, balance.difference) == (1, 1, 0)
        assert (await self.store.dead(ALL), await self.store.waiting(None, 5)) == ([], [])

    @pytest.mark.spec("D10", "P9")
    async def test_further_deliveries_of_what_was_erased_are_not_kept(self) -> None:
        await self.store.connect("out", ["web"], "earliest")
        records = await self.keep("a", "b", "c")
        lease = await lease_of(self.store)
        first = Settlement(1, [Done(1, 0, "delivered")], parked=[park(records[1])])
        assert await self.store.settle(lease, first)
        await self.store.erase(["ann"])
        for record in records:
            key = (record.position, 1)
            for late in (
                Settlement(1, parked=[park(record, index=1)]),
                Settlement(1, [Done(*key, "dead", "no")], [bury(record, index=1)]),
            ):
                assert await self.store.settle(lease, late)
        for balance in await balances(self.store):
            assert (balance.accepted, balance.delivered, balance.erased) == (3, 1, 2)
            assert balance.difference == 0
        assert (await self.store.dead(ALL), await self.store.waiting(None, 5)) == ([], [])
