"""The contract of `Log`: what every engine promises. Inherit, and say how one is opened."""

# ruff: noqa: S101, D102 - asserting is what a contract is for, and the tests' names are sentences
from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Generic, TypeVar

import msgspec
import pytest

from towpath.clock import Clock
from towpath.log import Entry, Group, Log, Refused
from towpath.message import Envelope, Record

from .fakes import FakeClock

HOUR_S = 3600.0
L = TypeVar("L", bound=Log)


class Stores(ABC, Generic[L]):
    """Opens logs, or stores of a log and a ledger, and closes at the end of a test what it left open."""

    @abstractmethod
    async def begin(self, directory: Path, clock: Clock) -> L:
        """Open what is kept in this directory, or make it; the window of deduplication is 7 days."""

    @pytest.fixture(autouse=True)
    async def _place(self, tmp_path: Path) -> AsyncIterator[None]:
        self.directory = tmp_path / "data"
        self.clock = FakeClock()
        self.store = await self.begin(self.directory, self.clock)
        yield
        await self.store.close()

    async def reopen(self) -> None:
        """Close the store and open it again."""
        await self.store.close()
        self.store = await self.begin(self.directory, self.clock)

    def group(self, *ids: str, source: str = "web", person: str = "ann") -> Group:
        """A request with one message for each id."""
        return Group(Envelope(source, self.clock.now()), [entry(message_id, person) for message_id in ids])

    async def keep(self, *ids: str, source: str = "web", person: str = "ann") -> Sequence[Record]:
        """Append messages in one request; all records so far."""
        await self.store.append([self.group(*ids, source=source, person=person)])
        return await self.all()

    async def all(self) -> Sequence[Record]:
        """Every record there is."""
        return await self.store.read(0, 1_000_000)


def entry(message_id: str, person: str = "ann") -> Entry:
    """A track call of this person."""
    message = {"type": "track", "event": "Seen", "userId": person, "messageId": message_id}
    return Entry(message_id, msgspec.json.encode(message))


def ids_of(records: Sequence[Record]) -> list[str]:
    """Their message ids."""
    return [record.message_id for record in records]


class LogContract(Stores[Log]):
    """What a log promises on its own. Inherit in a class `Test…` and implement `begin`."""

    # Keeping and reading

    @pytest.mark.spec("D05")
    async def test_what_was_appended_is_read_back_in_order_and_byte_for_byte(self) -> None:
        raws = [b'{ "userId":"ann", "e":"\\u00e9 \xc3\xa9" }', b"{}", b"[" * 300 + b"\xff"]
        groups = [Group(Envelope("web", 1.5), [Entry(f"m{i}", raw) for i, raw in enumerate(raws)])]
        appended = await self.store.append(groups)
        assert (appended.stored, appended.duplicates, appended.last) == (3, 0, 3)
        records = await self.all()
        assert [record.raw for record in records] == raws
        assert [record.position for record in records] == [1, 2, 3]

    async def test_the_envelope_and_the_id_come_back_as_given(self) -> None:
        envelope = Envelope(
            "web", 12.25, "server", "identify", "::1", "key-1", "2026-01-01", b'{"a":1}', b'{"All":true}'
        )
        await self.store.append([Group(envelope, [Entry("made-here", b'{"userId":"ann"}')])])
        (record,) = await self.all()
        assert record == Record(1, "made-here", envelope, b'{"userId":"ann"}')

    async def test_positions_have_no_gaps_across_calls_and_groups(self) -> None:
        await self.store.append([self.group("a", "b"), self.group("c", source="app")])
        await self.store.append([self.group("d")])
        assert [(r.position, r.message_id, r.source) for r in await self.all()] == [
            (1, "a", "web"),
            (2, "b", "web"),
            (3, "c", "app"),
            (4, "d", "web"),
        ]

    async def test_read_starts_after_a_position_and_keeps_to_its_limit(self) -> None:
        await self.keep(*"abcdef")
        assert ids_of(await self.store.read(2, 3)) == ["c", "d", "e"]
        assert await self.store.read(6, 3) == []
        assert await self.store.read(0, 0) == []

    async def test_an_empty_log_is_empty(self) -> None:
        assert (self.store.last(), await self.all(), await self.store.latest(5)) == (0, [], [])
        assert (await self.store.append([])).last == 0

    async def test_many_callers_at_once_lose_nothing(self) -> None:
        groups = [self.group(*[f"{caller}-{i}" for i in range(20)]) for caller in range(40)]
        await asyncio.gather(*[self.store.append([group]) for group in groups])
        records = await self.all()
        assert [r.position for r in records] == list(range(1, 801))
        assert sorted(ids_of(records)) == sorted(e.message_id for group in groups for e in group.entries)

    @pytest.mark.spec("D04")
    async def test_the_order_within_a_call_is_kept_among_many_callers(self) -> None:
        groups = [self.group(*[f"{caller}-{i:02d}" for i in range(20)]) for caller in range(20)]
        await asyncio.gather(*[self.store.append([group]) for group in groups])
        stored = ids_of(await self.all())
        for caller in range(20):
            own = [message_id for message_id in stored if message_id.startswith(f"{caller}-")]
            assert own == sorted(own)

    async def test_a_large_call_is_kept(self) -> None:
        raw = b'{"x":"' + b"y" * 60_000 + b'"}'
        group = Group(Envelope("web", 1.0), [Entry(str(i), raw) for i in range(100)])
        assert (await self.store.append([group])).stored == 100
        assert [(r.message_id, r.raw) for r in await self.all()] == [(str(i), raw) for i in range(100)]

    @pytest.mark.spec("D05")
    async def test_everything_is_there_after_reopening(self) -> None:
        before = await self.keep("a", "b", "c")
        await self.reopen()
        assert await self.all() == before
        assert self.store.last() == 3
        assert (await self.keep("d"))[-1].position == 4

    async def test_wait_returns_once_something_is_there(self) -> None:
        waiter = asyncio.ensure_future(self.store.wait(1))
        await self.keep("a")
        await asyncio.sleep(0)
        assert not waiter.done()
        await self.keep("b")
        await asyncio.wait_for(waiter, 10)
        await asyncio.wait_for(self.store.wait(1), 10)

    async def test_latest_and_find_are_newest_first(self) -> None:
        await self.keep("a", "b", "c")
        await self.keep("a", source="app")
        assert ids_of(await self.store.latest(2)) == ["a", "c"]
        assert ids_of(await self.store.latest(2, before=3)) == ["b", "a"]
        assert [r.position for r in await self.store.find("a")] == [4, 1]
        assert [r.position for r in await self.store.find("a", source="web")] == [1]
        assert [r.position for r in await self.store.find("a", limit=1)] == [4]
        assert await self.store.find("nothing") == []

    # Deduplication

    @pytest.mark.spec("D07")
    async def test_a_known_id_of_the_same_source_is_kept_once(self) -> None:
        await self.keep("a", "b")
        appended = await self.store.append([self.group("b", "c")])
        assert (appended.stored, appended.duplicates, appended.last) == (1, 1, 3)
        assert ids_of(await self.keep("a", "b", "c", source="app")) == ["a", "b", "c", "a", "b", "c"]

    @pytest.mark.spec("D07")
    async def test_copies_in_one_call_are_kept_once(self) -> None:
        appended = await self.store.append([self.group("a", "a"), self.group("a"), self.group("b")])
        assert (appended.stored, appended.duplicates) == (2, 2)
        assert ids_of(await self.all()) == ["a", "b"]

    @pytest.mark.spec("D07")
    async def test_copies_at_the_same_time_are_kept_once(self) -> None:
        results = await asyncio.gather(*[self.store.append([self.group("x", f"own-{i}")]) for i in range(20)])
        assert sum(appended.stored for appended in results) == 21
        assert sorted(ids_of(await self.all())) == sorted(["x", *[f"own-{i}" for i in range(20)]])

    @pytest.mark.spec("D07")
    async def test_ids_are_known_after_reopening_until_the_window_has_passed(self) -> None:
        await self.keep("a")
        await self.reopen()
        await self.clock.advance(167 * HOUR_S)
        assert (await self.store.append([self.group("a")])).duplicates == 1
        await self.clock.advance(24 * HOUR_S)
        assert (await self.store.append([self.group("a")])).stored == 1

    @pytest.mark.spec("D07", "D19")
    async def test_ids_outlive_their_records(self) -> None:
        await self.keep("a", "b")
        await self.clock.advance(HOUR_S)
        assert await self.store.trim(self.clock.now()) == 2
        assert (await self.store.append([self.group("a")])).duplicates == 1
        await self.reopen()
        assert (await self.store.append([self.group("b")])).duplicates == 1

    # Sources

    async def test_sources_are_counted(self) -> None:
        refused = [Refused("web", 3, "E1301", "too long", b"x" * 100_000, 5.0)]
        await self.store.append([self.group("a", "b"), self.group("a")], refused)
        await self.reopen()
        counts = await self.store.counts()
        assert dict(counts["web"]) == {"accepted": 2, "duplicates": 1, "refused": 1}

    @pytest.mark.spec("E035")
    async def test_refused_items_are_kept_newest_first(self) -> None:
        items = [Refused("web", i, "E1301", "too deep", b"[" * i, float(i)) for i in range(3)]
        await self.store.append([], items)
        await self.store.append([], [Refused("app", 9, "E1302", "no", b"", 9.0)])
        assert [(r.source, r.index) for r in await self.store.refusals()] == [
            ("app", 9),
            ("web", 2),
            ("web", 1),
            ("web", 0),
        ]
        (newest,) = await self.store.refusals("web", limit=1)
        assert (newest.code, newest.reason, newest.raw, newest.at) == ("E1301", "too deep", b"[[", 2.0)
        await self.store.append([], [Refused("big", 0, "E1303", "long", b"x" * 100_000, 1.0)])
        assert len((await self.store.refusals("big"))[0].raw) == 65_536

    async def test_the_state_of_a_polled_source_goes_with_its_append(self) -> None:
        assert await self.store.source_state("poll") == {}
        await self.store.append([self.group("a", source="poll")], state=("poll", {"page": 3, "seen": ["x"]}))
        await self.reopen()
        assert await self.store.source_state("poll") == {"page": 3, "seen": ["x"]}

    # What a ledger elsewhere needs

    @pytest.mark.spec("D05")
    async def test_standing_and_counts_agree(self) -> None:
        await self.keep("a", "b", "c")
        await self.store.append([self.group("a", "d", source="app"), self.group("b", "e")])
        standing = await self.store.standing()
        assert (standing.last, dict(standing.accepted)) == (6, {"web": 4, "app": 2})
        assert [await self.store.count("web", after) for after in (0, 2, 3, 6)] == [4, 2, 1, 0]
        assert [await self.store.count(source, 0) for source in ("app", "none")] == [2, 0]
        assert await self.store.positions("web", 2) == [3, 6]
        assert await self.store.positions("app", 0) == [4, 5]

    @pytest.mark.spec("D19")
    async def test_trim_stops_where_it_is_told(self) -> None:
        await self.keep("a", "b")
        await self.keep("c", "d")
        await self.clock.advance(HOUR_S)
        assert await self.store.trim(self.clock.now(), {0: 0}) == 0
        assert await self.store.trim(self.clock.now(), {0: 2}) == 2
        assert ids_of(await self.all()) == ["c", "d"]
        assert (await self.store.standing()).accepted == {"web": 4}
        assert await self.store.count("web", 0) == 2

    @pytest.mark.spec("E035", "D19")
    async def test_refused_items_are_forgotten_by_age(self) -> None:
        await self.store.append([], [Refused("web", i, "E1301", "no", b"", float(i)) for i in range(3)])
        assert await self.store.forget_refusals(2.0) == 2
        assert [refused.index for refused in await self.store.refusals()] == [2]

    # Erasing

    @pytest.mark.spec("D10")
    async def test_erase_removes_exactly_one_person(self) -> None:
        raws = [
            b'{"userId":"ann"}',
            b'{"anonymousId":" ann "}',
            b'{"previousId":"\\u0061nn"}',
            b'{"userId":"anna"}',
            b'{"userId":"bob","traits":{"friend":"ann"}}',
            b'{"userId":7}',
            b'{"userId":70}',
        ]
        await self.store.append(
            [Group(Envelope("web", 1.0), [Entry(str(i), raw) for i, raw in enumerate(raws)])]
        )
        erased = await self.store.erase(["ann", "7"])
        assert (erased.records, erased.copies) == (4, 0)
        assert sorted(erased.gone) == [(position, "web") for position in (1, 2, 3, 6)]
        assert [(r.position, r.message_id) for r in await self.all()] == [(4, "3"), (5, "4"), (7, "6")]
        await self.reopen()
        assert [r.position for r in await self.store.read(3, 2)] == [4, 5]
        assert (await self.keep("new"))[-1].position == 8
