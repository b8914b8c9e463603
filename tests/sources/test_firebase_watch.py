"""Listening to Firestore: what becomes of each response, back-pressure, silence, going on where it was."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest
from google.cloud.firestore_v1.types import ListenResponse

from towpath.errors import TowpathError
from towpath.http import Reply, Undelivered
from towpath.outcome import Paused, Rejected
from towpath.source import Page, State
from towpath.sources._firebase_changes import DocumentChange
from towpath.sources._firebase_watch import MOST_AT_ONCE, MOST_WAITING, Watch, listen
from towpath.vendors.firestore_stream import Ended, Target

from .google_world import LOOKED, PROJECT, ROOT, World, document

pytestmark = pytest.mark.spec("F054")

MOMENT = {"seconds": 1_767_323_045, "nanos": 123_456_000}
SAID = "2026-01-02T03:04:05.123456Z"


def response(**fields: Any) -> Any:
    return ListenResponse.pb()(**fields)


def changed(path: str, plan: str = "gold", *, targets: Sequence[int] = (1,)) -> Any:
    found = {"name": ROOT + path, "fields": {"plan": {"string_value": plan}}}
    document = {**found, "create_time": MOMENT, "update_time": MOMENT}
    return response(document_change={"document": document, "target_ids": targets})


def deleted(path: str) -> Any:
    gone = {"document": ROOT + path, "read_time": MOMENT, "removed_target_ids": [1]}
    return response(document_delete=gone)


def removed(path: str) -> Any:
    gone = {"document": ROOT + path, "read_time": MOMENT, "removed_target_ids": [1]}
    return response(document_remove=gone)


def token(value: bytes, *targets: int) -> Any:
    return response(target_change={"resume_token": value, "target_ids": targets})


def current(*targets: int) -> Any:
    return response(target_change={"target_change_type": 3, "target_ids": targets or (1,)})


def begun_again(*targets: int) -> Any:
    return response(target_change={"target_change_type": 4, "target_ids": targets, "resume_token": b"reset"})


def refused(code: int) -> Any:
    cause = {"code": code, "message": "no"}
    return response(target_change={"target_change_type": 2, "target_ids": [1], "cause": cause})


class Firestore:
    """The other side of the streams: what it is asked, and what it says on the last connection."""

    def __init__(self) -> None:
        self.asked: list[tuple[str, Sequence[Target]]] = []
        self.open = 0
        self.said: dict[str, asyncio.Queue[Any]] = {}
        self.taken = 0

    async def connect(self, database: str, targets: Sequence[Target]) -> AsyncGenerator[Any, None]:
        self.asked.append((database, targets))
        said = asyncio.Queue[Any]()
        self.said[database] = said
        self.open += 1
        try:
            while True:
                heard = await said.get()
                if isinstance(heard, Exception):
                    raise heard
                if heard is None:
                    return
                self.taken += 1
                yield heard
        finally:
            self.open -= 1

    def say(self, *responses: Any, database: str = "(default)") -> None:
        for one in responses:
            self.said[f"projects/{PROJECT}/databases/{database}"].put_nowait(one)

    @property
    def tokens(self) -> list[list[bytes]]:
        return [[target.resume_token for target in targets] for _, targets in self.asked]


@pytest.fixture(autouse=True)
def no_threads(monkeypatch: pytest.MonkeyPatch) -> None:
    """Read what is known on the loop, so that virtual time sees it happen."""

    async def inline(work: Callable[..., Any], *given: Any) -> Any:
        return work(*given)

    monkeypatch.setattr(asyncio, "to_thread", inline)


class Listening:
    """A watch under way, its pages and its end."""

    def __init__(self, world: World, state: State | None = None) -> None:
        self.world = world
        self.state: State = state or {}
        self.firestore = Firestore()
        watch = Watch(world.project, world.scope(), self.firestore.connect)
        self.pages = watch.pages(self.state)
        self.next: asyncio.Task[Page] | None = None

    async def begin(self) -> None:
        """Ask for the next page as far as it goes, passing those that only say how far it is."""
        while self.next is None or self._is_mere_state(self.next):
            self.next = asyncio.ensure_future(anext(self.pages))
            await self.world.clock.advance(0)
        await self.world.clock.advance(0)
        if self._is_mere_state(self.next):
            await self.begin()

    async def advance(self, seconds: float) -> None:
        """Let time pass while pages are taken."""
        await self.begin()
        await self.world.clock.advance(seconds)
        await self.begin()

    def _is_mere_state(self, asked: asyncio.Task[Page]) -> bool:
        if not asked.done() or asked.exception() is not None or asked.result().items:
            return False
        self.state = asked.result().state
        return True

    async def page(self) -> list[Any]:
        await self.begin()
        assert self.next is not None
        assert self.next.done(), "no page came"
        task, self.next = self.next, None
        page = await task
        self.state = page.state
        return list(page.items)

    async def end(self) -> None:
        if self.next is not None:
            self.next.cancel()
            await asyncio.gather(self.next, return_exceptions=True)
        if isinstance(self.pages, AsyncGenerator):
            await self.pages.aclose()
        assert self.firestore.open == 0


@asynccontextmanager
async def listening(*known: str, **settings: Any) -> AsyncIterator[Listening]:
    given = {"collections": ["users"], "listen": True, "silence": "5m", **settings}
    under_way = Listening(World(*known, **given))
    try:
        await under_way.begin()
        yield under_way
    finally:
        await under_way.end()


async def test_changes_and_deletions_come_as_they_are() -> None:
    async with listening() as under_way:
        under_way.firestore.say(changed("users/a"), deleted("users/b"))
        assert await under_way.page() == [
            DocumentChange("(default)", "users/a", {"plan": {"stringValue": "gold"}}, SAID, SAID),
            DocumentChange("(default)", "users/b", None, SAID),
        ]


def known(*paths: str) -> list[str]:
    return [document(f"users/{path}") for path in paths]


@pytest.mark.spec("F055", "D14")
async def test_what_a_whole_set_lacks_is_asked_for_and_gone() -> None:
    async with listening(*known("a", "b", "there")) as under_way:
        under_way.world.google.put("users/there")
        under_way.firestore.say(changed("users/a"))
        assert len(await under_way.page()) == 1
        under_way.firestore.say(current())
        assert await under_way.page() == [DocumentChange("(default)", "users/b", None, LOOKED)]
        under_way.world.known.drop(known("b")[0])
        under_way.firestore.say(begun_again(), changed("users/there"), current())
        found = await under_way.page()
        assert [item.path for item in found] == ["users/there", "users/a"]


@pytest.mark.spec("D14")
async def test_a_first_set_that_is_empty_is_not_believed_but_a_later_one_is() -> None:
    async with listening(*known("a")) as under_way:
        under_way.firestore.say(current(), begun_again(1), current())
        assert [item.path for item in await under_way.page()] == ["users/a"]
        assert len(under_way.world.transport.requests) == 1


@pytest.mark.spec("D14")
async def test_an_empty_set_in_place_of_a_token_is_not_believed() -> None:
    async with listening(*known("a")) as under_way:
        under_way.world.google.put("users/a")
        under_way.firestore.say(changed("users/a"), current(), token(b"t"), None)
        await under_way.page()
        await under_way.advance(2)
        assert under_way.firestore.tokens[-1] == [b"t"]
        under_way.world.google.documents.clear()
        under_way.firestore.say(begun_again(1), current())
        await under_way.advance(2)
        assert under_way.world.transport.requests == []


@pytest.mark.spec("D14")
async def test_a_set_that_broke_off_deletes_nobody() -> None:
    async with listening(*known("a", "b")) as under_way:
        under_way.firestore.say(changed("users/a"), Ended("UNAVAILABLE", "gone"))
        await under_way.page()
        await under_way.begin()
        await under_way.advance(2)
        under_way.firestore.say(token(b"t"))
        await under_way.advance(2)
        assert under_way.world.transport.requests == []


async def test_no_token_is_kept_before_a_set_is_whole() -> None:
    async with listening(collections=["users", "staff"]) as under_way:
        under_way.firestore.say(token(b"t0"), current(1), token(b"t1"), begun_again(1), token(b"t2", 1), None)
        await under_way.advance(2)
        assert under_way.firestore.tokens[-1] == [b"t1", b""]


@pytest.mark.spec("F055")
async def test_a_set_that_goes_on_from_a_token_is_no_whole_one() -> None:
    async with listening(*known("a", "b")) as under_way:
        under_way.world.google.put("users/b")
        under_way.firestore.say(changed("users/b"), current(), token(b"t"), None)
        await under_way.page()
        await under_way.begin()
        asked = len(under_way.world.transport.requests)
        await under_way.advance(2)
        under_way.firestore.say(changed("users/b"), current())
        await under_way.advance(2)
        assert len(under_way.world.transport.requests) == asked


async def test_what_is_listened_to() -> None:
    collections = [
        "users",
        "orgs/{org}/users",
        {"path": "staff", "database": "eu"},
        {"path": "pets", "group": True},
    ]
    async with listening(collections=collections) as under_way:
        base = f"projects/{PROJECT}/databases"
        assert under_way.firestore.asked == [
            (
                f"{base}/(default)",
                [
                    Target(1, f"{base}/(default)/documents", "users"),
                    Target(2, f"{base}/(default)/documents", "users", everywhere=True),
                    Target(3, f"{base}/(default)/documents", "pets", everywhere=True),
                ],
            ),
            (f"{base}/eu", [Target(1, f"{base}/eu/documents", "staff")]),
        ]


@pytest.mark.spec("F006")
async def test_documents_that_are_not_meant_are_left_out() -> None:
    async with listening(collections=["orgs/{org}/users"]) as under_way:
        under_way.firestore.say(changed("users/a"), deleted("users/b"), changed("orgs/o/users/c"))
        assert [item.path for item in await under_way.page()] == ["orgs/o/users/c"]


@pytest.mark.spec("D14")
async def test_what_left_the_view_is_only_gone_when_google_says_so() -> None:
    async with listening() as under_way:
        under_way.world.google.put("users/there")
        under_way.firestore.say(removed("users/there"), removed("users/gone"), removed("others/x"))
        assert await under_way.page() == [DocumentChange("(default)", "users/gone", None, LOOKED)]


@pytest.mark.spec("D14")
async def test_a_change_that_is_of_no_target_any_more_is_asked_about() -> None:
    async with listening() as under_way:
        under_way.firestore.say(changed("users/gone", targets=()))
        assert await under_way.page() == [DocumentChange("(default)", "users/gone", None, LOOKED)]


async def test_a_token_of_the_sign_in_that_expired_is_fetched_anew() -> None:
    forgotten: list[str] = []
    async with listening() as under_way:
        credential = under_way.world.project.credential
        assert credential is not None
        credential.forget = lambda: forgotten.append("it")  # type: ignore[method-assign]
        under_way.firestore.say(Ended("UNAVAILABLE", "down"))
        await under_way.advance(2)
        assert forgotten == []
        under_way.firestore.say(Ended("UNAUTHENTICATED", "expired"))
        await under_way.advance(3)
        assert forgotten == ["it"]


async def test_a_failed_question_about_what_left_begins_the_stream_anew() -> None:
    async with listening() as under_way:
        under_way.world.google.fault = lambda request: Reply(503)
        under_way.firestore.say(removed("users/gone"))
        await under_way.advance(2)
        assert len(under_way.firestore.asked) == 2


async def test_databases_share_the_pages() -> None:
    async with listening(collections=["users", {"path": "users", "database": "eu"}]) as under_way:
        under_way.firestore.say(changed("users/a"))
        root = f"projects/{PROJECT}/databases/eu/documents/users/b"
        under_way.firestore.say(
            response(document_change={"document": {"name": root}, "target_ids": [1]}), database="eu"
        )
        assert [(item.database, item.path) for item in await under_way.page()] == [
            ("(default)", "users/a"),
            ("eu", "users/b"),
        ]


@pytest.mark.parametrize("end", [None, Ended("UNAVAILABLE", "gone"), Ended("UNAUTHENTICATED", "expired")])
async def test_a_stream_that_ends_goes_on_from_what_was_kept(end: Exception | None) -> None:
    async with listening() as under_way:
        firestore = under_way.firestore
        firestore.say(changed("users/a"), current(), token(b"t1"))
        await under_way.page()
        firestore.say(changed("users/b"))
        await under_way.begin()
        firestore.say(token(b"t2"), end)
        await under_way.page()
        await under_way.world.clock.advance(2)
        # Of `b` and `t2` nothing was kept when it ended: the page was taken, the next one not asked for.
        assert firestore.tokens[-1] == [b"t1"]
        firestore.say(None)
        await under_way.begin()
        await under_way.advance(4)
        assert firestore.tokens[-1] == [b"t2"]
        assert [*under_way.state.values()] == ["dDI="]


async def test_a_token_for_one_target_is_not_one_for_all() -> None:
    async with listening(collections=["users", "staff"]) as under_way:
        under_way.firestore.say(current(1, 2), token(b"t", 2), None)
        await under_way.advance(2)
        assert under_way.firestore.tokens[-1] == [b"", b"t"]


async def test_tokens_outlive_the_listener() -> None:
    world = World(collections=["users"], listen=True)
    first = Listening(world)
    await first.begin()
    first.firestore.say(current(), token(b"t"))
    await first.advance(0)
    await first.end()
    second = Listening(world, first.state)
    await second.begin()
    assert second.firestore.tokens == [[b"t"]]
    await second.end()


async def test_a_silent_stream_is_begun_anew() -> None:
    async with listening() as under_way:
        firestore = under_way.firestore
        await under_way.advance(299)
        assert len(firestore.asked) == 1
        firestore.say(current(), token(b"alive"))
        await under_way.advance(299)
        assert len(firestore.asked) == 1
        await under_way.advance(3)
        assert firestore.tokens == [[b""], [b"alive"]]
        assert firestore.open == 1
        firestore.say(changed("users/a"))
        assert len(await under_way.page()) == 1


async def test_a_stream_held_back_is_not_silent() -> None:
    async with listening() as under_way:
        firestore, clock = under_way.firestore, under_way.world.clock
        firestore.say(changed("users/first"))
        await under_way.page()
        firestore.say(*[changed(f"users/{number}") for number in range(3 * MOST_WAITING)])
        await clock.advance(3600)
        assert len(firestore.asked) == 1
        assert firestore.taken == 1 + MOST_WAITING + 1


async def test_nothing_is_read_far_ahead_and_nothing_lost() -> None:
    async with listening() as under_way:
        firestore = under_way.firestore
        count = 3 * MOST_WAITING
        firestore.say(*[changed(f"users/{number}") for number in range(count)])
        found: list[str] = []
        while len(found) < count:
            page = await under_way.page()
            assert len(page) <= MOST_AT_ONCE
            found += [item.path for item in page]
        assert found == [f"users/{number}" for number in range(count)]


async def test_pauses_grow_until_something_is_heard() -> None:
    async with listening() as under_way:
        clock, firestore = under_way.world.clock, under_way.firestore
        begun: list[float] = []
        for _ in range(9):
            firestore.say(Ended("UNAVAILABLE", "down"))
            count = len(firestore.asked)
            before = clock.monotonic()
            while len(firestore.asked) == count:
                await clock.advance(0.5)
            begun.append(clock.monotonic() - before)
        assert begun[0] <= 1.5
        assert begun[:6] == sorted(begun[:6])
        assert 60 <= begun[-1] <= 72.5
        firestore.say(token(b"t"), None)
        await clock.advance(1.5)
        assert len(firestore.asked) == 11


@pytest.mark.parametrize(("code", "kind"), [("PERMISSION_DENIED", Paused), ("NOT_FOUND", Rejected)])
async def test_what_is_refused_for_good_ends_it(code: str, kind: type) -> None:
    async with listening() as under_way:
        under_way.firestore.say(changed("users/a"), Ended(code, "no"))
        await under_way.page()
        with pytest.raises(Undelivered) as ended:
            await under_way.page()
        assert isinstance(ended.value.outcome, kind)
        assert "(default)" in str(ended.value.outcome)


@pytest.mark.parametrize(("number", "kind"), [(7, Paused), (3, Rejected)])
async def test_a_target_that_is_refused_ends_it(number: int, kind: type) -> None:
    async with listening() as under_way:
        under_way.firestore.say(refused(number))
        with pytest.raises(Undelivered) as ended:
            await under_way.page()
        assert isinstance(ended.value.outcome, kind)


async def test_a_resume_token_that_is_not_taken_is_dropped_once() -> None:
    async with listening() as under_way:
        firestore = under_way.firestore
        firestore.say(current(), token(b"old"))
        await under_way.advance(0)
        firestore.say(Ended("INVALID_ARGUMENT", "token"))
        await under_way.advance(2)
        assert firestore.tokens == [[b""], [b""]]
        firestore.say(Ended("INVALID_ARGUMENT", "something else"))
        with pytest.raises(Undelivered):
            await under_way.page()


async def test_a_fault_of_ours_is_not_swallowed() -> None:
    async with listening() as under_way:
        under_way.firestore.say(RuntimeError("odd"))
        with pytest.raises(RuntimeError, match="odd"):
            await under_way.page()


@pytest.mark.parametrize("settings", [{"listen": False}, {"collections": []}])
def test_without_need_nothing_is_listened_to(settings: dict[str, Any]) -> None:
    world = World(**{"collections": ["users"], "listen": True, **settings})
    assert listen(world.project, {}, world.scope()) is None


def test_without_grpc_the_extra_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(collections=["users"], listen=True)
    monkeypatch.setitem(sys.modules, "grpc", None)
    with pytest.raises(TowpathError) as missing:
        listen(world.project, {}, world.scope())
    assert "towpath[firebase]" in missing.value.fix
