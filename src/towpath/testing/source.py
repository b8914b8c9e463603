"""The contracts of sources that are called, asked or listened to: inherit, name one, give it a world."""

# ruff: noqa: S101 - asserting is what a contract is for
from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from typing import Any, ClassVar, Protocol

import msgspec
import pytest
from pydantic import BaseModel, ValidationError

from towpath.errors import Unauthorized
from towpath.feed import kept
from towpath.http import Http, Reply, Request, Transport, Undelivered
from towpath.message import KINDS, Message
from towpath.redaction import setting_secrets
from towpath.source import (
    Heard,
    Ignored,
    Inbound,
    Incoming,
    Listening,
    Malformed,
    Page,
    Polled,
    SourceScope,
    State,
    Unfit,
)

from .fakes import FakeClock, FakeKnown
from .marks import asynchronous

REQUESTS = 25
"""How many of a walk's requests are made to fail, one in each walk."""
ROUNDS = 200
"""Seconds that a listener is given to hear something."""

STRANGE_BODIES: Mapping[str, bytes] = {
    "empty": b"",
    "text": b"<html>OK</html>",
    "object": b"{}",
    "list": b"[]",
    "list of numbers": b"[1, 2]",
    "list of lists": b"[[[]], {}, null]",
    "null": b"null",
    "true": b"true",
    "infinity": b'{"timestamp": 1e999, "data": 1e999}',
    "surrogate": b'{"id": "\\ud800"}',
    "not Unicode": b"\xff\xfe{}",
    "nested": b"[" * 20_000,
    "nested objects": b'{"a":' * 20_000,
    "long": b'{"data": "' + b"x" * 100_000 + b'"}',
}


class InboundContract:
    """Inherit in a class `Test…`, set `source` and `settings`, and write `genuine`.

    `proofs` are the headers of a genuine request without which it proves nothing. `signs_body` says that the
    proof covers the body.
    """

    source: ClassVar[type[Inbound[Any]]]
    settings: ClassVar[Mapping[str, Any]]
    now: ClassVar[float] = 1_760_000_000.0
    proofs: ClassVar[Sequence[str]]
    signs_body: ClassVar[bool] = True

    @abstractmethod
    def genuine(self, body: bytes | None = None) -> Incoming:
        """Make a request of the vendor's own at `now`: with this body, or one that holds messages."""

    def make(self) -> Inbound[Any]:
        """Make the source with the contract's settings."""
        return self.source(self.source.Settings.model_validate(dict(self.settings)))

    def heard(self, request: Incoming) -> list[Heard]:
        """Read a request that nothing is known before. Raises `Malformed`."""
        return list(self.make().messages(request, FakeKnown()))

    def test_it_has_a_name_and_settings(self) -> None:
        """Each field says what it is for; an unknown key is refused."""
        assert self.source.name
        assert issubclass(self.source.Settings, BaseModel)
        for name, field in self.source.Settings.model_fields.items():
            assert field.description, f"{name} has no description"
        with pytest.raises(ValidationError):
            self.source.Settings.model_validate({**self.settings, "no_such_setting": 1})

    def test_a_genuine_request_is_accepted(self) -> None:
        """And holds at least one message."""
        request = self.genuine()
        self.make().verify(request, self.now)
        assert any(isinstance(one, Message) for one in self.heard(request))

    def test_without_its_proof_it_is_refused(self) -> None:
        """Header by header, and with each of them changed."""
        request = self.genuine()
        for name in self.proofs:
            for value in (None, "", "x", request.headers[name] + "x", request.headers[name][:-1]):
                headers = {key: held for key, held in request.headers.items() if key != name}
                if value is not None:
                    headers[name] = value
                with pytest.raises(Unauthorized):
                    self.make().verify(msgspec.structs.replace(request, headers=headers), self.now)

    def test_a_changed_body_is_refused(self) -> None:
        """Where the proof covers the body."""
        request = self.genuine()
        changed = msgspec.structs.replace(request, body=request.body + b" ")
        if not self.signs_body:
            self.make().verify(changed, self.now)
            return
        with pytest.raises(Unauthorized):
            self.make().verify(changed, self.now)

    def test_a_refusal_shows_no_secret(self) -> None:
        """Neither the settings nor what the sender should have shown."""
        request, made = self.genuine(), self.make()
        secrets = {secret for secret in setting_secrets(made.settings) if len(secret) > 3}
        with pytest.raises(Unauthorized) as refused:
            made.verify(msgspec.structs.replace(request, headers={}), self.now)
        shown = [*refused.value.lines(), repr(made.settings), str(made.settings)]
        assert not [secret for secret in secrets for text in shown if secret in text]
        assert not [name for name in self.proofs if request.headers[name] in refused.value.title]

    def test_messages_can_be_kept(self) -> None:
        """Each has a kind, an id, a person, and fields that are JSON."""
        for one in self.heard(self.genuine()):
            if isinstance(one, Message):
                assert one.type in KINDS
                assert one.user_id or one.anonymous_id
                assert msgspec.json.decode(kept(one))["type"] == one.type

    def test_the_same_request_twice_has_the_same_ids(self) -> None:
        """So that the log keeps one of them (D07)."""

        def ids() -> list[str]:
            return [one.message_id for one in self.heard(self.genuine()) if isinstance(one, Message)]

        assert ids() == ids()
        assert len(set(ids())) == len(ids())

    def test_its_parts_say_together_what_a_request_says(self) -> None:
        """So that one at fault costs nothing but itself; strange bodies have parts, too."""
        request, made = self.genuine(), self.make()
        said = [one for part in made.parts(request) for one in self.heard(part)]
        assert said == self.heard(request)
        assert all(made.parts(self.genuine(body)) for body in STRANGE_BODIES.values())

    @pytest.mark.parametrize("name", sorted(STRANGE_BODIES))
    def test_strange_bodies_are_read_or_called_malformed(self, name: str) -> None:
        """Nothing that a sender can write makes the source fail."""
        request = self.genuine(STRANGE_BODIES[name])
        try:
            found = self.heard(request)
        except Malformed:
            return
        assert all(isinstance(one, Message | Unfit | Ignored) for one in found)
        for one in found:
            if isinstance(one, Message):
                kept(one)


class Taken:
    """What has been taken in of a source: messages by id, what is known by them, and where to go on."""

    def __init__(self) -> None:
        self.messages: dict[str, bytes] = {}
        self.known = FakeKnown()
        self.state: State = {}

    def scope(self, transport: Transport, clock: FakeClock, options: Mapping[str, str]) -> SourceScope:
        """Make what asking and listening may touch."""
        return SourceScope(Http(transport, clock), clock, Shown(self.known), options)

    def take(self, source: Polled[Any], page: Page, *, moves: bool = True) -> None:
        """Keep a page as the feed does: all of it or nothing; and then its state, unless a crash comes first.

        Raises `AssertionError` for messages that cannot be kept, and for a state that is no JSON.
        """
        turn = FakeKnown()
        turn.values |= self.known.values
        heard = list(source.heard(page, turn))
        assert all(isinstance(one, Message | Unfit | Ignored) for one in heard)
        messages = [one for one in heard if isinstance(one, Message)]
        for message in messages:
            assert message.type in KINDS
            assert message.user_id or message.anonymous_id
            self.messages.setdefault(message.message_id, kept(message))
        self.known.values.clear()
        self.known.values |= turn.values
        back = msgspec.json.decode(msgspec.json.encode(page.state))
        assert back == page.state, "a state has to be JSON"
        self.state = back if moves else self.state


class Shown(FakeKnown):
    """What is known, to be looked at only."""

    def __init__(self, known: FakeKnown) -> None:
        self.values = known.values

    def keep(self, key: str, value: bytes, ttl_s: float | None = None) -> None:
        """Raise: only `heard` changes what is known."""
        raise AssertionError("what is known changes in `heard` alone")

    def drop(self, key: str) -> None:
        """Raise: only `heard` changes what is known."""
        raise AssertionError("what is known changes in `heard` alone")


class Failing:
    """A network on which the request of a number meets something else; it counts them."""

    def __init__(self, transport: Transport, number: int, met: Callable[[], Awaitable[Reply]]) -> None:
        self.count = 0
        self._transport = transport
        self._number = number
        self._met = met

    async def send(self, request: Request, *, timeout_s: float) -> Reply:
        """Answer as the network does, but once."""
        self.count += 1
        if self.count == self._number:
            return await self._met()
        return await self._transport.send(request, timeout_s=timeout_s)

    async def close(self) -> None:
        """Close the network."""
        await self._transport.close()


@asynchronous
class PolledContract:
    """Inherit in a class `Test…`, set `source`, `settings` and `poll`, and write `vendor`."""

    source: ClassVar[type[Polled[Any]]]
    settings: ClassVar[Mapping[str, Any]]
    poll: ClassVar[str]
    options: ClassVar[Mapping[str, str]] = {}

    @abstractmethod
    def vendor(self) -> Transport:
        """Make the vendor: each time the same, with people on at least two pages."""

    def make(self) -> Polled[Any]:
        """Make the source with the contract's settings."""
        return self.source(self.source.Settings.model_validate(dict(self.settings)))

    async def walk(
        self, taken: Taken, transport: Transport, *, pages: int | None = None, moves: bool = True
    ) -> int:
        """Take so many pages, or all, with a source of its own as after a start; how many came."""
        clock = FakeClock()
        return await clock.drive(self._walk(taken, taken.scope(transport, clock, self.options), pages, moves))

    async def _walk(self, taken: Taken, scope: SourceScope, pages: int | None, moves: bool) -> int:  # noqa: FBT001
        made, count = self.make(), 0
        async with _closing(made.pages(self.poll, taken.state, scope)) as found:
            while count != pages and (page := await anext(found, None)) is not None:
                count += 1
                taken.take(made, page, moves=moves)
        return count

    async def whole(self) -> tuple[Taken, int]:
        """Walk once without trouble: what was taken, in how many pages."""
        taken = Taken()
        return taken, await self.walk(taken, self.vendor())

    async def test_a_walk_brings_messages_in_several_pages(self) -> None:
        """Else nothing of what follows shows anything."""
        taken, pages = await self.whole()
        assert len(taken.messages) > 1
        assert pages > 1
        assert self.poll in [poll.name for poll in self.make().polls()]

    async def test_it_goes_on_from_any_page(self) -> None:
        """After a start the rest comes, without what came before, and nothing is left out."""
        whole, pages = await self.whole()
        for kept_pages in range(1, pages):
            taken, vendor = Taken(), self.vendor()
            await self.walk(taken, vendor, pages=kept_pages)
            rest = await self.walk(taken, vendor)
            assert rest < pages, "it begins anew, whatever state it is given"
            assert taken.messages == whole.messages
            assert taken.known.values == whole.known.values

    async def test_a_crash_before_a_state_is_kept_loses_and_doubles_nothing(self) -> None:
        """The page comes again, with the same ids."""
        whole, pages = await self.whole()
        for kept_pages in range(pages):
            taken, vendor = Taken(), self.vendor()
            await self.walk(taken, vendor, pages=kept_pages)
            await self.walk(taken, vendor, pages=1, moves=False)
            await self.walk(taken, vendor)
            assert taken.messages == whole.messages
            assert taken.known.values == whole.known.values

    async def test_a_walk_of_what_did_not_change_brings_nothing_new(self) -> None:
        """Not from where the last one ended, and not from the beginning."""
        taken, vendor = Taken(), self.vendor()
        await self.walk(taken, vendor)
        before = dict(taken.messages)
        for state in (taken.state, {}):
            taken.state = state
            await self.walk(taken, vendor)
            assert taken.messages == before

    async def test_a_request_that_fails_ends_the_walk_and_the_next_one_goes_on(self) -> None:
        """Wherever it fails: either it is told, or nothing is missing."""
        whole, _ = await self.whole()

        async def down() -> Reply:
            return Reply(503)

        for number in range(1, REQUESTS):
            taken, network = Taken(), Failing(self.vendor(), number, down)
            with suppress(Undelivered):
                await self.walk(taken, network)
                assert taken.messages == whole.messages, f"failure {number} ended the walk without a word"
            if network.count < number:
                return
            await self.walk(taken, network)
            assert taken.messages == whole.messages

    async def test_cancellation_ends_a_walk_promptly_and_leaves_nothing_behind(self) -> None:
        """Whichever request is under way."""

        async def hang() -> Reply:
            never: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
            return await never

        for number in range(1, REQUESTS):
            network, clock, taken = Failing(self.vendor(), number, hang), FakeClock(), Taken()
            others, scope = asyncio.all_tasks(), taken.scope(network, clock, self.options)
            walking = asyncio.ensure_future(self._walk(taken, scope, None, moves=True))
            while network.count < number and not walking.done():
                await clock.advance(1.0)
                await asyncio.wait([walking], timeout=0.001)
            if network.count < number:
                return
            await _cancelled(walking)
            await _nothing_left(others)


class Line(Protocol):
    """The vendor at the other end of a line."""

    transport: Transport
    """The network beside the line."""

    def happens(self, number: int) -> None:
        """Something happens to one person; each number is somebody else. It lasts, heard or not."""
        ...

    def cut(self) -> None:
        """Lose every connection there is."""
        ...


class Ear:
    """Listens for a contract as towpath does: keeps pages, and begins again when the line is lost."""

    def __init__(self, made: Listening[Any], line: Line, taken: Taken) -> None:
        self.clock = FakeClock()
        self.asked: asyncio.Task[Page] | None = None
        self._made = made
        self._line = line
        self._taken = taken
        self._pages: AsyncIterator[Page] | None = None

    async def hears(self, count: int) -> None:
        """Take pages until so many messages have come in all. Raises `AssertionError`."""
        for _ in range(ROUNDS):
            if len(self._taken.messages) >= count:
                return
            await self.listen()
        came = len(self._taken.messages)
        raise AssertionError(f"{came} messages came in {ROUNDS} seconds, not {count}")

    async def listen(self) -> None:
        """Let a second pass, and take the page that came, if one did."""
        task = await self.ask()
        if not task.done():
            return
        self.asked = None
        try:
            page = task.result()
        except (StopAsyncIteration, Exception):
            await self.end()
        else:
            self._taken.take(self._made, page)

    async def ask(self) -> asyncio.Task[Page]:
        """Let a second pass for the next page."""
        if self._pages is None:
            scope = self._taken.scope(self._line.transport, self.clock, {})
            self._pages = self._made.listen(self._taken.state, scope)
            assert self._pages is not None, "these settings do not listen"
        if self.asked is None:
            self.asked = asyncio.ensure_future(_next(self._pages))
        await self.clock.advance(1.0)
        await asyncio.wait([self.asked], timeout=0.001)  # for what asks a thread
        return self.asked

    async def end(self) -> None:
        """Hang up."""
        if self.asked is not None:
            self.asked.cancel()
            await asyncio.gather(self.asked, return_exceptions=True)
        if isinstance(self._pages, AsyncGenerator):
            await self._pages.aclose()
        self.asked = self._pages = None


@asynchronous
class ListeningContract:
    """Inherit in a class `Test…`, set `source` and `settings`, write `line`, and `make` where it needs that.

    What happens to a person has to be at least one message.
    """

    source: ClassVar[type[Listening[Any]]]
    settings: ClassVar[Mapping[str, Any]]

    @abstractmethod
    def line(self) -> Line:
        """Make a vendor to whom nothing has happened yet."""

    def make(self, line: Line) -> Listening[Any]:
        """Make the source with the contract's settings."""
        return self.source(self.source.Settings.model_validate(dict(self.settings)))

    @asynccontextmanager
    async def listening(self, line: Line, taken: Taken) -> AsyncIterator[Ear]:
        """Listen for a while, with a source of its own as after a start."""
        ear = Ear(self.make(line), line, taken)
        try:
            yield ear
        finally:
            await ear.end()

    async def test_what_happens_is_heard(self) -> None:
        """Before and while it listens."""
        line, taken = self.line(), Taken()
        line.happens(1)
        async with self.listening(line, taken) as ear:
            await ear.hears(1)
            line.happens(2)
            await ear.hears(2)

    async def test_a_line_that_was_lost_goes_on(self) -> None:
        """With what happened meanwhile, and without what was heard before."""
        line, taken = self.line(), Taken()
        async with self.listening(line, taken) as ear:
            for number in range(1, 4):
                line.happens(number)
                await ear.hears(number)
                await ear.listen()
                await ear.ask()
                line.cut()
            line.happens(4)
            await ear.hears(4)
            assert len(taken.messages) == 4

    async def test_after_a_start_it_hears_what_happened_meanwhile(self) -> None:
        """It goes on from the state of the last page that was kept."""
        line, taken = self.line(), Taken()
        for number in range(1, 4):
            line.happens(number)
            async with self.listening(line, taken) as ear:
                await ear.hears(number)
        assert len(taken.messages) == 3

    async def test_a_page_that_was_not_kept_comes_again(self) -> None:
        """Also from the same source: it believes the state that it is given."""
        line, taken = self.line(), Taken()
        async with self.listening(line, taken) as ear:
            line.happens(1)
            await ear.hears(1)
            line.happens(2)
            while not (await ear.ask()).done() or not _items(ear):
                if ear.asked is not None and ear.asked.done():
                    await ear.listen()
            await ear.end()
            await ear.hears(2)

    async def test_when_nothing_happened_nothing_is_heard(self) -> None:
        """Listening again is no news."""
        line, taken = self.line(), Taken()
        line.happens(1)
        for _ in range(2):
            async with self.listening(line, taken) as ear:
                await ear.hears(1)
                for _ in range(10):
                    await ear.listen()
        assert len(taken.messages) == 1

    async def test_cancellation_ends_it_promptly_and_leaves_nothing_behind(self) -> None:
        """Neither while it waits nor while it connects."""
        line, others = self.line(), asyncio.all_tasks()
        ear = Ear(self.make(line), line, Taken())
        asked = await ear.ask()
        while asked.done():
            await ear.listen()
            asked = await ear.ask()
        await _cancelled(asked)
        await ear.end()
        await _nothing_left(others)


def _items(ear: Ear) -> bool:
    return ear.asked is not None and bool(ear.asked.result().items)


async def _next(pages: AsyncIterator[Page]) -> Page:
    return await anext(pages)


async def _cancelled(task: asyncio.Future[Any]) -> None:
    task.cancel()
    await asyncio.wait([task], timeout=1.0)
    assert task.cancelled(), "it goes on though it was cancelled"


async def _nothing_left(others: set[asyncio.Task[Any]]) -> None:
    await asyncio.sleep(0)
    left = asyncio.all_tasks() - others
    assert not left, f"it left tasks behind: {left}"


@asynccontextmanager
async def _closing(pages: AsyncIterator[Page]) -> AsyncIterator[AsyncIterator[Page]]:
    try:
        yield pages
    finally:
        if isinstance(pages, AsyncGenerator):
            await pages.aclose()
