"""Google's own emulators and clients: what is written there is listed, compared, heard and checked here."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from typing import Any

import firebase_admin  # type: ignore[import-untyped]
import pytest
from firebase_admin import auth
from google.cloud import firestore

from towpath.clock import SystemClock
from towpath.http import Http
from towpath.message import Message
from towpath.source import Page, SourceScope, State
from towpath.sources.firebase import Firebase, FirebaseSettings
from towpath.transport_http1 import Http1Transport

from ..app.support import until
from . import emulators
from .emulators import PROJECT
from .firebase_world import Facts

pytestmark = [pytest.mark.xdist_group("firebase"), pytest.mark.spec("F059")]
PATIENCE_S = 60.0


@pytest.fixture
def documents(firestore_at: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[firestore.Client]:
    """Return Google's client of an empty database."""
    monkeypatch.setenv("FIRESTORE_EMULATOR_HOST", firestore_at)
    for database in ("(default)", "eu"):
        emulators.reset(
            f"http://{firestore_at}/emulator/v1/projects/{PROJECT}/databases/{database}/documents"
        )
    client = firestore.Client(project=PROJECT)
    yield client
    client.close()  # type: ignore[no-untyped-call]


@pytest.fixture
def users(auth_at: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[firebase_admin.App]:
    """Return the Admin SDK's app of a project without users."""
    monkeypatch.setenv("FIREBASE_AUTH_EMULATOR_HOST", auth_at)
    emulators.reset(f"http://{auth_at}/emulator/v1/projects/{PROJECT}/accounts")
    app = firebase_admin.initialize_app(options={"projectId": PROJECT})
    yield app
    firebase_admin.delete_app(app)


class Source:
    """A firebase source asking the emulators, and what it knows."""

    def __init__(self, transport: Http1Transport, clock: SystemClock, **settings: Any) -> None:
        self.firebase = Firebase(FirebaseSettings(project=PROJECT, emulator=True, **settings))
        self.known = Facts()
        self.state: State = {}
        self._http = Http(transport, clock)
        self._clock = clock

    def scope(self, **options: str) -> SourceScope:
        return SourceScope(self._http, self._clock, self.known, options)

    def hear(self, page: Page) -> list[Any]:
        return list(self.firebase.heard(page, self.known))

    async def poll(self, name: str, **options: str) -> list[Message]:
        """Ask for everything; only messages may come of it."""
        heard = [
            one
            async for page in self.firebase.pages(name, {}, self.scope(**options))
            for one in self.hear(page)
        ]
        return [one for one in heard if isinstance(one, Message)]


@asynccontextmanager
async def asking(**settings: Any) -> AsyncIterator[Source]:
    transport = Http1Transport()
    try:
        yield Source(transport, SystemClock(), **settings)
    finally:
        await transport.close()


def brief(messages: Sequence[Message]) -> list[tuple[str, str | None]]:
    return sorted((message.type, message.user_id) for message in messages)


@pytest.mark.spec("F056", "F006", "F055")
async def test_documents_are_listed_compared_and_missed(
    documents: firestore.Client, firestore_at: str
) -> None:
    for number in range(7):
        documents.document(f"users/u{number}").set({"attributes": {"plan": "gold", "n": number}})
    documents.document("orgs/acme/users/nested").set({"attributes": {"plan": "team"}})
    settings = {"firestore_url": f"http://{firestore_at}", "collections": ["users"], "auth": False}
    async with asking(page_size=3, **settings) as source:
        first = await source.poll("backfill")
        assert brief(first) == [("identify", f"u{number}") for number in range(7)]
        assert first[3].traits["plan"] == "gold"
        assert await source.poll("reconcile") == []
        documents.document("users/u1").update({"attributes.plan": firestore.DELETE_FIELD})
        documents.document("users/u4").delete()
        documents.document("users/new").set({"attributes": {"plan": "free"}})
        later = await source.poll("reconcile")
        assert brief(later) == [("delete", "u4"), ("identify", "new"), ("identify", "u1")]
        changed = next(message for message in later if message.user_id == "u1")
        assert changed.traits == {"plan": ""}
        assert await source.poll("reconcile") == []


@pytest.mark.spec("F006")
@pytest.mark.parametrize(
    ("collection", "expected"),
    [
        ("orgs/{org}/users", ["b", "c"]),
        ("orgs/acme/users", ["b"]),
        ({"path": "users", "group": True}, ["a", "b", "c", "d"]),
        ({"path": "users", "database": "eu"}, ["e"]),
    ],
)
async def test_wildcards_groups_and_databases(
    documents: firestore.Client, firestore_at: str, collection: Any, expected: list[str]
) -> None:
    paths = ["users/a", "orgs/acme/users/b", "orgs/zoo/users/c", "orgs/acme/teams/t/users/d"]
    for path in paths:
        documents.document(path).set({"attributes": {"x": 1}})
    named = firestore.Client(project=PROJECT, database="eu")
    named.document("users/e").set({"attributes": {"x": 1}})
    url = f"http://{firestore_at}"
    async with asking(firestore_url=url, collections=[collection], auth=False, page_size=1) as source:
        assert sorted(str(message.user_id) for message in await source.poll("backfill")) == expected
        for path in paths:
            documents.document(path).delete()
        named.document("users/e").delete()
        gone = await source.poll("reconcile", empty="delete")
        assert brief(gone) == [("delete", user_id) for user_id in expected]
    named.close()  # type: ignore[no-untyped-call]


@pytest.mark.spec("F040")
async def test_every_kind_of_value(documents: firestore.Client, firestore_at: str) -> None:
    attributes = {
        "text": "ü",
        "count": 2**53,
        "share": 0.5,
        "on": True,
        "none": None,
        "at": datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC),
        "place": firestore.GeoPoint(47.5, -8.25),
        "friend": documents.document("users/b"),
        "blob": b"\x00",
        "tags": ["a", 1],
        "map": {"inner": {"deep": 1}},
        "odd name.with`dots": 1,
        "nan": float("nan"),
    }
    documents.document("users/a").set({"attributes": attributes, "unmapped": "x"})
    url = f"http://{firestore_at}"
    async with asking(firestore_url=url, collections=["users"], auth=False) as source:
        [message] = await source.poll("backfill")
    del message.traits["created_at"]
    assert message.traits == {
        "text": "ü",
        "count": 2**53,
        "share": 0.5,
        "on": True,
        "none": None,
        "at": 1_767_323_045,
        "place": "47.5,-8.25",
        "friend": "users/b",
        "tags": ["a", 1],
        "map": {"inner": {"deep": 1}},
        "odd name.with`dots": 1,
        "nan": None,
    }


@pytest.mark.spec("F021", "F055", "F010")
async def test_users_are_listed_compared_and_missed(users: firebase_admin.App, auth_at: str) -> None:
    for number in range(5):
        auth.create_user(uid=f"u{number}", email=f"u{number}@x.com", display_name=f"User {number}")
    async with asking(auth_url=f"http://{auth_at}/identitytoolkit.googleapis.com", page_size=2) as source:
        first = await source.poll("backfill")
        assert brief(first) == [("identify", f"u{number}") for number in range(5)]
        found = next(message.traits for message in first if message.user_id == "u2")
        assert (found["email"], found["display_name"], found["disabled"]) == ("u2@x.com", "User 2", False)
        assert await source.poll("reconcile") == []
        auth.update_user("u2", email="new@x.com", phone_number="+41790000001", disabled=True)
        auth.delete_user("u3")
        later = await source.poll("reconcile")
        assert brief(later) == [("delete", "u3"), ("identify", "u2")]
        changed = next(message.traits for message in later if message.user_id == "u2")
        assert changed == {"email": "new@x.com", "phone": "+41790000001", "disabled": True}


@pytest.mark.spec("F008")
async def test_the_check_counts(
    users: firebase_admin.App, documents: firestore.Client, auth_at: str, firestore_at: str
) -> None:
    auth.create_user(uid="u", email="u@x.com")
    documents.document("users/u").set({})
    urls = {
        "auth_url": f"http://{auth_at}/identitytoolkit.googleapis.com",
        "firestore_url": f"http://{firestore_at}",
    }
    async with asking(collections=["users", "orgs/{org}/users"], **urls) as source:
        lines = await source.firebase.check(source.scope())
    assert [(line.name, line.ok, line.detail) for line in lines] == [
        ("sign-in", True, "none: emulator"),
        ("list auth", True, "users: 1"),
        ("list users", True, "documents: 1"),
        ("list orgs/{org}/users", True, "readable"),
    ]


class Heard:
    """What a listener has brought so far, told by type and person."""

    def __init__(self, source: Source, pages: AsyncIterator[Page]) -> None:
        self.messages: list[Message] = []
        self._source = source
        self._following = asyncio.create_task(self._follow(pages))

    async def _follow(self, pages: AsyncIterator[Page]) -> None:
        async for page in pages:
            self.messages += [one for one in self._source.hear(page) if isinstance(one, Message)]
            self._source.state = page.state

    async def end(self) -> None:
        self._following.cancel()
        await asyncio.gather(self._following, return_exceptions=True)

    async def brings(self, expected: list[tuple[str, str]]) -> list[Message]:
        """Wait for so many messages, and take them."""
        await until(lambda: len(self.messages) >= len(expected) or self._following.done(), PATIENCE_S)
        if self._following.done():
            await self._following
        taken, self.messages = self.messages, []
        assert brief(taken) == expected
        return taken


@asynccontextmanager
async def hearing(source: Source) -> AsyncIterator[Heard]:
    pages = source.firebase.listen(source.state, source.scope())
    assert pages is not None
    heard = Heard(source, pages)
    try:
        yield heard
    finally:
        await heard.end()


@pytest.mark.spec("F054")
async def test_changes_are_heard_as_they_happen(documents: firestore.Client, firestore_at: str) -> None:
    write = asyncio.to_thread
    one = documents.document("users/one")
    await write(one.set, {"attributes": {"plan": "gold"}})
    url = f"http://{firestore_at}"
    async with asking(firestore_url=url, collections=["users"], auth=False, listen=True) as source:
        async with hearing(source) as heard:
            await heard.brings([("identify", "one")])
            await write(one.set, {"attributes": {"plan": "free"}})
            [message] = await heard.brings([("identify", "one")])
            assert message.traits == {"plan": "free"}
            await write(one.delete)
            await heard.brings([("delete", "one")])
        await write(documents.document("users/two").set, {"attributes": {"plan": "gold"}})
        async with hearing(source) as heard:
            await heard.brings([("identify", "two")])


async def test_a_listener_goes_on_where_a_process_before_it_was(
    documents: firestore.Client, firestore_at: str
) -> None:
    write = asyncio.to_thread
    await write(documents.document("users/a").set, {"attributes": {"plan": "gold"}})
    settings = {"firestore_url": f"http://{firestore_at}", "collections": ["users"], "auth": False}
    async with asking(listen=True, **settings) as before, asking(listen=True, **settings) as after:
        async with hearing(before) as heard:
            await heard.brings([("identify", "a")])
            await until(lambda: bool(before.state), PATIENCE_S)
        after.known, after.state = before.known, before.state
        await write(documents.document("users/b").set, {"attributes": {"plan": "gold"}})
        async with hearing(after) as heard:
            await heard.brings([("identify", "b")])
            await write(documents.document("users/a").delete)
            await heard.brings([("delete", "a")])


@pytest.mark.spec("F055")
async def test_what_was_deleted_while_nobody_listened_is_found(
    documents: firestore.Client, firestore_at: str
) -> None:
    for name in ("a", "b", "c"):
        documents.document(f"users/{name}").set({"attributes": {"plan": "gold"}})
    settings = {"firestore_url": f"http://{firestore_at}", "collections": ["users"], "auth": False}
    async with asking(listen=True, **settings) as before, asking(listen=True, **settings) as after:
        async with hearing(before) as heard:
            await heard.brings([("identify", "a"), ("identify", "b"), ("identify", "c")])
        documents.document("users/b").delete()
        after.known = before.known
        async with hearing(after) as heard:
            await heard.brings([("delete", "b")])


class Line:
    """A TCP relay to the emulator that can fall silent without closing, as networks do."""

    def __init__(self, target: str) -> None:
        self.connections = 0
        self.silent = False
        host, _, port = target.rpartition(":")
        self._target = (host, int(port))
        self._tasks: set[asyncio.Task[None]] = set()

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        theirs = await asyncio.open_connection(*self._target)
        ways = ((reader, theirs[1]), (theirs[0], writer))
        await asyncio.gather(*(self._carry(*way, number=self.connections) for way in ways))

    async def _carry(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, number: int) -> None:
        try:
            while data := await reader.read(65536):
                if not (self.silent and number == 1):
                    writer.write(data)
                    await writer.drain()
        except OSError:
            pass
        finally:
            writer.close()


@pytest.mark.spec("F054")
async def test_a_line_that_fell_silent_is_replaced(documents: firestore.Client, firestore_at: str) -> None:
    write = asyncio.to_thread
    line = Line(firestore_at)
    async with await asyncio.start_server(line.serve, "127.0.0.1", 0) as server:
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
        settings = {"collections": ["users"], "auth": False, "listen": True, "silence": "2s"}
        async with asking(firestore_url=url, **settings) as source, hearing(source) as heard:
            await write(documents.document("users/before").set, {"attributes": {"plan": "gold"}})
            await heard.brings([("identify", "before")])
            line.silent = True
            await write(documents.document("users/after").set, {"attributes": {"plan": "gold"}})
            await heard.brings([("identify", "after")])
            assert line.connections >= 2
