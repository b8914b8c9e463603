"""The contracts of sources catch each mistake they are there for: sources broken in one way fail a test."""

from __future__ import annotations

import asyncio
import uuid
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, ClassVar
from urllib.parse import parse_qs, urlsplit

import msgspec
import pytest

from towpath.http import Reply, Request, Transport, Undelivered
from towpath.message import Message
from towpath.source import (
    Heard,
    Ignored,
    Known,
    Listening,
    Page,
    Poll,
    Polled,
    SourceScope,
    SourceSettings,
    State,
)
from towpath.testing import FakeTransport, ListeningContract, PolledContract

pytestmark = pytest.mark.spec("P1", "D07")
URL = "https://crm.example/people"
PEOPLE = tuple(f"p{number}" for number in range(7))


def crm(request: Request) -> Reply:
    """Three people at a time, and behind whom to go on."""
    query = parse_qs(urlsplit(request.url).query)
    after = query.get("after", [""])[0]
    found = [person for person in PEOPLE if person > after][:3]
    return Reply(200, body=msgspec.json.encode({"people": found, "more": found[-1:] != [PEOPLE[-1]]}))


class Crm(Polled[SourceSettings]):
    """Asks for people page by page, and tells of those it does not know."""

    name: ClassVar[str] = "crm"
    Settings: ClassVar[type[Any]] = SourceSettings

    def polls(self) -> Sequence[Poll]:
        return [Poll("people", "Ask for everybody.")]

    async def pages(self, poll: str, state: State, scope: SourceScope) -> AsyncIterator[Page]:
        after, more = str(state.get("after", "")), True
        while more:
            found = await self.ask(after, scope)
            if found is None:
                return
            after, more = (found["people"] or [after])[-1], found["more"]
            yield Page(found["people"], {"after": after} if more else {})

    async def ask(self, after: str, scope: SourceScope) -> Any:
        return (await scope.http.request("GET", f"{URL}?after={after}")).json()

    def heard(self, page: Page, known: Known) -> Iterable[Heard]:
        for person in page.items:
            if known.find(person) is not None:
                yield Ignored("known")
                continue
            known.keep(person, b"")
            yield Message(type="identify", message_id=self.message_id(person), user_id=person)

    def message_id(self, person: str) -> str:
        return f"crm-{person}"


class CrmContract(PolledContract):
    source = Crm
    settings: ClassVar[Mapping[str, Any]] = {}
    poll = "people"

    def vendor(self) -> Transport:
        return FakeTransport(("GET", "/people*", crm))


class TestCrm(CrmContract):
    pass


class BeginsAnew(Crm):
    def pages(self, poll: str, state: State, scope: SourceScope) -> AsyncIterator[Page]:
        return super().pages(poll, {}, scope)


class StatesTooMuch(Crm):
    async def pages(self, poll: str, state: State, scope: SourceScope) -> AsyncIterator[Page]:
        async for page in super().pages(poll, state, scope):
            further = {"after": str(page.state["after"])[:1] + "5"} if page.state else {}
            yield Page(page.items, further)


class StatesATime(Crm):
    async def pages(self, poll: str, state: State, scope: SourceScope) -> AsyncIterator[Page]:
        async for page in super().pages(poll, state, scope):
            yield Page(page.items, {**page.state, "at": datetime.now(UTC)})


class RemembersItself(Crm):
    """Tells nobody twice by itself, so that nobody whose page was not kept is told at all."""

    told: ClassVar[set[str]] = set()

    def heard(self, page: Page, known: Known) -> Iterable[Heard]:
        fresh = [person for person in page.items if person not in self.told]
        self.told.update(fresh)
        return super().heard(Page(fresh), known)


class MakesIds(Crm):
    def heard(self, page: Page, known: Known) -> Iterable[Heard]:
        for person in page.items:
            yield Message(type="identify", message_id=str(uuid.uuid4()), user_id=person)


class TellsNobody(Crm):
    def heard(self, page: Page, known: Known) -> Iterable[Heard]:
        for person in page.items:
            yield Message(type="identify", message_id=f"crm-{person}")


class SwallowsFailures(Crm):
    async def ask(self, after: str, scope: SourceScope) -> Any:
        try:
            return await super().ask(after, scope)
        except Undelivered:
            return None


class SwallowsCancellation(Crm):
    async def ask(self, after: str, scope: SourceScope) -> Any:
        try:
            return await super().ask(after, scope)
        except asyncio.CancelledError:
            return None


class LeavesTasks(Crm):
    async def ask(self, after: str, scope: SourceScope) -> Any:
        self.asking = asyncio.ensure_future(super().ask(after, scope))
        return await asyncio.shield(self.asking)


class KeepsOnItsWay(Crm):
    async def ask(self, after: str, scope: SourceScope) -> Any:
        scope.known.keep("asked", b"")
        return await super().ask(after, scope)


@pytest.mark.parametrize(
    ("source", "test"),
    [
        (BeginsAnew, "test_it_goes_on_from_any_page"),
        (StatesTooMuch, "test_it_goes_on_from_any_page"),
        (StatesATime, "test_a_walk_brings_messages_in_several_pages"),
        (RemembersItself, "test_a_crash_before_a_state_is_kept_loses_and_doubles_nothing"),
        (MakesIds, "test_a_walk_of_what_did_not_change_brings_nothing_new"),
        (TellsNobody, "test_a_walk_brings_messages_in_several_pages"),
        (SwallowsFailures, "test_a_request_that_fails_ends_the_walk_and_the_next_one_goes_on"),
        (SwallowsCancellation, "test_cancellation_ends_a_walk_promptly_and_leaves_nothing_behind"),
        (LeavesTasks, "test_cancellation_ends_a_walk_promptly_and_leaves_nothing_behind"),
        (KeepsOnItsWay, "test_a_walk_brings_messages_in_several_pages"),
    ],
)
async def test_a_broken_poll_is_caught(source: type[Polled[Any]], test: str) -> None:
    contract = type("Contract", (CrmContract,), {"source": source})()
    with pytest.raises(AssertionError):
        await getattr(contract, test)()
    if source is LeavesTasks:
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)


class Bell:
    """Keeps what happened in order, and rings everybody who listens."""

    def __init__(self) -> None:
        self.transport: Transport = FakeTransport()
        self.happened: list[int] = []
        self.rung = asyncio.Event()
        self.lines = 0

    def happens(self, number: int) -> None:
        self.happened.append(number)
        self.rung.set()

    def cut(self) -> None:
        self.lines += 1
        self.rung.set()

    async def after(self, count: int) -> Sequence[int]:
        """What happened beyond the first so many. Raises `ConnectionError` when the line is lost."""
        line = self.lines
        while len(self.happened) <= count:
            self.rung.clear()
            await self.rung.wait()
            if line != self.lines:
                raise ConnectionError
        return self.happened[count:]


class Porter(Listening[SourceSettings]):
    """Hears who rings."""

    name: ClassVar[str] = "porter"
    Settings: ClassVar[type[Any]] = SourceSettings
    bell: Bell

    def polls(self) -> Sequence[Poll]:
        return ()

    async def pages(self, poll: str, state: State, scope: SourceScope) -> AsyncIterator[Page]:
        yield Page(())

    async def listen(self, state: State, scope: SourceScope) -> AsyncIterator[Page]:
        count = state.get("count", 0)
        while True:
            items = await self.bell.after(count)
            count += len(items)
            yield Page(items, {"count": count})

    def heard(self, page: Page, known: Known) -> Iterable[Heard]:
        for number in page.items:
            yield Message(type="track", message_id=f"ring-{number}", user_id=f"p{number}", event="Rang")


class PorterContract(ListeningContract):
    source = Porter
    settings: ClassVar[Mapping[str, Any]] = {}

    def line(self) -> Bell:
        return Bell()

    def make(self, line: Any) -> Listening[Any]:
        made = super().make(line)
        assert isinstance(made, Porter)
        made.bell = line
        return made


class TestPorter(PorterContract):
    pass


class Deaf(Porter):
    async def listen(self, state: State, scope: SourceScope) -> AsyncIterator[Page]:
        await asyncio.Event().wait()
        yield Page(())


class HearsOnlyNow(Porter):
    def listen(self, state: State, scope: SourceScope) -> AsyncIterator[Page]:
        return super().listen({"count": len(self.bell.happened)} if state else {}, scope)


class TrustsItself(Porter):
    """Goes on from what it read, though that was perhaps not kept."""

    count = 0

    async def listen(self, state: State, scope: SourceScope) -> AsyncIterator[Page]:
        async for page in super().listen({"count": max(self.count, state.get("count", 0))}, scope):
            self.count = page.state["count"]
            yield page


class HearsAnew(Porter):
    """Begins with everything, under other ids."""

    def listen(self, state: State, scope: SourceScope) -> AsyncIterator[Page]:
        return super().listen({}, scope)

    def heard(self, page: Page, known: Known) -> Iterable[Heard]:
        for number in page.items:
            yield Message(type="track", message_id=str(uuid.uuid4()), user_id=f"p{number}", event="Rang")


class HoldsOn(Porter):
    async def listen(self, state: State, scope: SourceScope) -> AsyncIterator[Page]:
        try:
            async for page in super().listen(state, scope):
                yield page
        except asyncio.CancelledError:
            yield Page(())


class ListensOn(Porter):
    async def listen(self, state: State, scope: SourceScope) -> AsyncIterator[Page]:
        self.listening = asyncio.ensure_future(asyncio.Event().wait())
        async for page in super().listen(state, scope):
            yield page


@pytest.mark.parametrize(
    ("source", "test"),
    [
        (Deaf, "test_what_happens_is_heard"),
        (HearsOnlyNow, "test_after_a_start_it_hears_what_happened_meanwhile"),
        (HearsOnlyNow, "test_a_line_that_was_lost_goes_on"),
        (TrustsItself, "test_a_page_that_was_not_kept_comes_again"),
        (HearsAnew, "test_a_line_that_was_lost_goes_on"),
        (HearsAnew, "test_when_nothing_happened_nothing_is_heard"),
        (HoldsOn, "test_cancellation_ends_it_promptly_and_leaves_nothing_behind"),
        (ListensOn, "test_cancellation_ends_it_promptly_and_leaves_nothing_behind"),
    ],
)
async def test_a_broken_listener_is_caught(source: type[Listening[Any]], test: str) -> None:
    contract = type("Contract", (PorterContract,), {"source": source})()
    with pytest.raises(AssertionError):
        await getattr(contract, test)()
    left = asyncio.all_tasks() - {asyncio.current_task()}
    for task in left:
        task.cancel()
    await asyncio.gather(*left, return_exceptions=True)
