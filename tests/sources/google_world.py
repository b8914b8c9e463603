"""A Google in memory behind a fake transport: users and documents, listed, looked up, counted."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator, Callable, Collection, Iterator, Mapping
from email.utils import formatdate
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

from towpath.http import Http, Reply, Request, Undelivered
from towpath.source import Page, SourceScope
from towpath.sources._firebase_changes import DocumentChange, UserChange, document_key, user_key
from towpath.sources._firebase_polls import pages
from towpath.sources._firebase_project import Project
from towpath.sources._firebase_settings import FirebaseSettings
from towpath.testing.fakes import FakeClock, FakeTransport

PROJECT = "demo-towpath"
ROOT = f"projects/{PROJECT}/databases/(default)/documents/"
WRITTEN = "2026-01-02T03:04:05.123456Z"
LOOKED = "2026-02-03T04:05:06.654321Z"
Fault = Callable[[Request], Reply | None]


class KnownInMemory:
    """What a source remembers, in a dict."""

    def __init__(self, *keys: str) -> None:
        self.values = dict.fromkeys(keys, b"")

    def load(self, keys: Collection[str]) -> None:
        del keys

    def find(self, key: str) -> bytes | None:
        return self.values.get(key)

    def keep(self, key: str, value: bytes, ttl_s: float | None = None) -> None:
        del ttl_s
        self.values[key] = value

    def drop(self, key: str) -> None:
        self.values.pop(key, None)

    def keys(self, prefix: str = "") -> Iterator[str]:
        return iter(sorted(key for key in self.values if key.startswith(prefix)))

    def count(self, prefix: str = "") -> int:
        return sum(key.startswith(prefix) for key in self.values)


class Google:
    """What Google holds. `fault` may answer in its place."""

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.users: dict[str, dict[str, Any]] = {"": {}}
        self.documents: dict[str, dict[str, Any]] = {}
        self.fault: Fault = lambda request: None
        self.ahead_s = 0.0

    def put(self, path: str, **fields: Any) -> None:
        self.documents[ROOT + path] = {name: {"stringValue": value} for name, value in fields.items()}

    def user(self, uid: str, tenant: str = "", **fields: Any) -> None:
        self.users.setdefault(tenant, {})[uid] = {"localId": uid, **fields}

    def __call__(self, request: Request) -> Reply:
        if (answer := self.fault(request)) is not None:
            return answer
        url = urlsplit(request.url)
        path = unquote(url.path)
        body = json.loads(request.body or b"{}")
        verb = path.rpartition(":")[2]
        if "/accounts:" in path:
            tenant = path.partition("/tenants/")[2].partition("/")[0]
            users = self.users[tenant]
            asked = {name: found[0] for name, found in parse_qs(url.query).items()}
            return self._reply(
                {"batchGet": self._users, "lookup": _lookup, "query": _users_count}[verb](users, asked | body)
            )
        answers = {"runQuery": self._query, "runAggregationQuery": self._count, "batchGet": self._get}
        return self._reply(answers[verb](path, body))

    def _reply(self, answer: Any) -> Reply:
        date = formatdate(self.clock.now() - self.ahead_s, usegmt=True)
        return Reply(200, {"date": date}, json.dumps(answer).encode())

    def _users(self, users: Mapping[str, Any], asked: Mapping[str, Any]) -> Any:
        most, after = int(asked["maxResults"]), asked.get("nextPageToken", "")
        some = [users[uid] for uid in sorted(users) if uid > after][:most]
        more = {"nextPageToken": some[-1]["localId"]} if len(some) == most else {}
        return {"kind": "identitytoolkit#DownloadAccountResponse", "users": some, **more}

    def _query(self, path: str, body: Any) -> Any:
        query = body["structuredQuery"]
        assert query["orderBy"] == [{"field": {"fieldPath": "__name__"}}]
        after = query.get("startAt", {"values": [{"referenceValue": ""}]})["values"][0]["referenceValue"]
        names = [name for name in self._selected(path, query) if name.split("/") > after.split("/")]
        wanted = [field["fieldPath"] for field in query.get("select", {}).get("fields", ())]
        found = [
            {"document": self._document(name, wanted), "readTime": LOOKED} for name in names[: query["limit"]]
        ]
        return found or [{"readTime": LOOKED}]

    def _selected(self, path: str, query: Any) -> list[str]:
        below = path.removeprefix("/v1/").rpartition(":")[0] + "/"
        [source] = query["from"]

        def meant(name: str) -> bool:
            parts = name.removeprefix(below).split("/")
            deep = source["allDescendants"] or len(parts) == 2
            return name.startswith(below) and deep and parts[-2] == source["collectionId"]

        return sorted(filter(meant, self.documents), key=lambda name: name.split("/"))

    def _document(self, name: str, wanted: Collection[str]) -> Any:
        fields = self.documents[name]
        shown = {key: value for key, value in fields.items() if not wanted or key in wanted}
        return {"name": name, "fields": shown, "createTime": WRITTEN, "updateTime": WRITTEN}

    def _count(self, path: str, body: Any) -> Any:
        found = self._selected(path, body["structuredAggregationQuery"]["structuredQuery"])
        return [{"result": {"aggregateFields": {"n": {"integerValue": str(len(found))}}}, "readTime": LOOKED}]

    def _get(self, path: str, body: Any) -> Any:
        del path
        return [
            {"found": self._document(name, ["__name__"]), "readTime": LOOKED}
            if name in self.documents
            else {"missing": name, "readTime": LOOKED}
            for name in body["documents"]
        ]


def _lookup(users: Mapping[str, Any], asked: Mapping[str, Any]) -> Any:
    found = [users[uid] for uid in asked["localId"] if uid in users]
    return {"kind": "identitytoolkit#GetAccountInfoResponse", **({"users": found} if found else {})}


def _users_count(users: Mapping[str, Any], asked: Mapping[str, Any]) -> Any:
    assert asked == {"returnUserInfo": False}
    return {"recordsCount": str(len(users))}


class World:
    """A project at that Google, what is known of it, and how it is asked."""

    def __init__(self, *known: str, **settings: Any) -> None:
        self.clock = FakeClock()
        self.google = Google(self.clock)
        self.transport = FakeTransport(("*", "*", self.google))
        self.known = KnownInMemory(*known)
        self.settings = FirebaseSettings(project=PROJECT, emulator=True, **settings)
        self.project = Project(self.settings)

    def scope(self, **options: str) -> SourceScope:
        return SourceScope(Http(self.transport, self.clock), self.clock, self.known, options)

    async def pages(
        self, poll: str, state: Mapping[str, Any] | None = None, **options: str
    ) -> AsyncIterator[Page]:
        """Walk, keeping after each page what it brought, as the feed does."""
        async for page in pages(self.project, poll, state or {}, self.scope(**options)):
            for item in page.items:
                self.take(item)
            yield page

    async def all(self, poll: str, state: Mapping[str, Any] | None = None, **options: str) -> list[Any]:
        """Every item of a walk."""
        return [item async for page in self.pages(poll, state, **options) for item in page.items]

    async def attempt(self, poll: str) -> tuple[list[Any], Mapping[str, Any], Undelivered]:
        """A walk that fails: what it brought, where it goes on, and how it failed."""
        taken: list[Any] = []
        state: Mapping[str, Any] = {}
        try:
            async for page in self.pages(poll):
                taken += page.items
                state = page.state
        except Undelivered as error:
            return taken, state, error
        raise AssertionError("the walk did not fail")

    def take(self, item: Any) -> None:
        match item:
            case DocumentChange():
                self._keep(document_key(item.database, item.path), item.fields)
            case UserChange():
                self._keep(user_key(item.tenant, item.uid), item.user)

    def _keep(self, key: str, found: Any) -> None:
        if found is None:
            self.known.drop(key)
        else:
            self.known.keep(key, b"")


def document(path: str) -> str:
    return document_key("(default)", path)


def user(uid: str) -> str:
    return user_key("", uid)
