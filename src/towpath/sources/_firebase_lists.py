"""The lists a Firebase project has: users, and documents of a collection; page by page, and who is gone."""

from __future__ import annotations

import asyncio
import re
from abc import ABC, abstractmethod
from array import array
from bisect import bisect_left
from collections.abc import AsyncIterator, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import islice, takewhile
from typing import Any, ClassVar, TypeAlias

from msgspec import Struct

from ..http import Reply, Undelivered
from ..message import format_time
from ..outcome import Retry
from ..source import Known, Unfit
from ..vendors.firebase import MOST_LOOKED_UP, AuthApi, FirestoreApi
from ..vendors.google import skew_s, unreadable
from ._firebase_changes import Change, DocumentChange, UserChange, document_key, user_key
from ._firebase_settings import DEFAULT_DATABASE, WHOLE_DOCUMENT, Collection, FirebaseSettings

Row: TypeAlias = Mapping[str, Any]

AT_ONCE = 100
"""Keys of one look-up."""
READ_AHEAD = 2000
EXACT_S = 2.0
"""The Date of an answer has whole seconds: a smaller difference of the clocks cannot be seen."""
_PLAIN_NAME = re.compile(r"[A-Za-z_][A-Za-z_0-9]*").fullmatch
_NO_FIELDS = ("__name__",)


class Seen:
    """Which keys a list had, eight bytes each. Where two keys look alike, the other is taken for seen too."""

    def __init__(self) -> None:
        self._hashes = array("q")
        self._sorted = True

    def add(self, keys: Iterable[str]) -> None:
        """Note keys."""
        self._hashes.extend(map(hash, keys))
        self._sorted = False

    def __len__(self) -> int:
        return len(self._hashes)

    def __contains__(self, key: str) -> bool:
        if not self._sorted:
            self._hashes, self._sorted = array("q", sorted(self._hashes)), True
        index = bisect_left(self._hashes, hash(key))
        return index < len(self._hashes) and self._hashes[index] == hash(key)


class Listed(Struct, frozen=True):
    """One page of a list. `keys` are those of `Known`; the list goes on behind `after`, empty at its end."""

    items: Sequence[Change | Unfit]
    keys: Sequence[str]
    after: str = ""


class Listing(ABC):
    """A list that can be walked. `name` is for people and states, its keys in `Known` begin with `prefix`.

    `role` is what Google calls the role that may read it, `items` what people call its items.
    """

    name: str
    prefix: str
    role: ClassVar[str]
    items: ClassVar[str]

    @abstractmethod
    async def probe(self) -> None:
        """Ask for one item. Raises `Undelivered`."""

    @abstractmethod
    async def count(self) -> int | None:
        """How many items it will have; None where nobody knows. Raises `Undelivered`."""

    @abstractmethod
    async def page(self, after: str, *, epoch: bool) -> Listed:
        """The next items. Raises `Undelivered`, also for an answer that is not whole."""

    @abstractmethod
    def holds(self, key: str) -> bool:
        """Whether something of this key would be in this list."""

    @abstractmethod
    async def gone(self, keys: Sequence[str]) -> Sequence[Change]:
        """Deletions of those, of at most 100, that the vendor says do not exist. Raises `Undelivered`."""


class UserList(Listing):
    """The users of a project, or of one of its tenants."""

    role = "Firebase Authentication Viewer (roles/firebaseauth.viewer)"
    items = "users"

    def __init__(self, api: AuthApi, tenant: str, settings: FirebaseSettings) -> None:
        self.api = api
        self.tenant = tenant
        self.size = settings.page_size
        self.name = f"auth/{tenant}" if tenant else "auth"
        self.prefix = user_key(tenant, "")

    async def probe(self) -> None:
        """A page of one."""
        await self.api.users(tenant=self.tenant, limit=1)

    async def count(self) -> int | None:
        """By `accounts:query`."""
        return _number(_object(await self.api.count(tenant=self.tenant), self.name).get("recordsCount"))

    async def page(self, after: str, *, epoch: bool) -> Listed:
        """Users as of the moment the page was asked for."""
        asked_at = self.api.http.clock.now()
        reply = await self.api.users(tenant=self.tenant, page_token=after, limit=self.size)
        answer, at = _object(reply, self.name), self._moment(reply, asked_at)
        users, token = answer.get("users", []), answer.get("nextPageToken", "")
        if not isinstance(users, list) or (token and token == after):
            raise unreadable(reply, self.name)
        items = [
            UserChange(uid, user, at, tenant=self.tenant, epoch=epoch)
            for uid, user in _by_uid(users, reply, self.name)
        ]
        keys = [user_key(self.tenant, item.uid) for item in items]
        return Listed(items, keys, token if isinstance(token, str) else "")

    def holds(self, key: str) -> bool:
        """Every key of its prefix is a user's."""
        return key.startswith(self.prefix)

    async def gone(self, keys: Sequence[str]) -> Sequence[Change]:
        """By `accounts:lookup`, which leaves out whom it does not know."""
        uids = [key.removeprefix(self.prefix) for key in keys[:MOST_LOOKED_UP]]
        asked_at = self.api.http.clock.now()
        reply = await self.api.lookup(uids, tenant=self.tenant)
        answer = _object(reply, self.name)
        if "kind" not in answer and "users" not in answer:
            raise unreadable(reply, self.name)
        found = {uid for uid, _ in _by_uid(answer.get("users", []), reply, self.name)}
        at = self._moment(reply, asked_at)
        return [UserChange(uid, None, at, tenant=self.tenant) for uid in uids if uid not in found]

    def _moment(self, reply: Reply, asked_at: float) -> str:
        """When it was asked by Google's clock, which the times of its events are of."""
        ahead_s = skew_s(reply, self.api.http.clock.now()) or 0.0
        if abs(ahead_s) > EXACT_S:
            asked_at -= ahead_s
        return format_time(datetime.fromtimestamp(asked_at, UTC))


class DocumentList(Listing):
    """The documents of one entry under `collections`, in the order of their names."""

    role = "Cloud Datastore Viewer (roles/datastore.viewer)"
    items = "documents"

    def __init__(self, api: FirestoreApi, collection: Collection, settings: FirebaseSettings) -> None:
        self.api = api
        self.collection = collection
        self.most = settings.page_size
        self.size = settings.page_size
        self.database = collection.database
        shown = f"**/{collection.path}" if collection.group else collection.path
        self.name = shown if self.database == DEFAULT_DATABASE else f"{self.database}:{shown}"
        self._parts = collection.path.split("/")
        self._fixed = list(takewhile(lambda part: not part.startswith("{"), self._parts))
        self._wild = len(self._fixed) < len(self._parts)
        above = "" if collection.group else "".join(f"{part}/" for part in self._fixed)
        self.prefix = document_key(self.database, above)
        self._root = f"{api.root(self.database)}/"

    @property
    def parent(self) -> str:
        """The path of the document below which is searched; empty for the whole database."""
        above = self._fixed[: len(self._fixed) // 2 * 2] if self._wild else self._parts[:-1]
        return "/".join(above)

    @property
    def root(self) -> str:
        """The name of what is searched: a document's, or the database's `…/documents`."""
        return f"{self._root}{self.parent}".rstrip("/")

    @property
    def collection_id(self) -> str:
        """The name of the collection alone."""
        return self._parts[-1]

    @property
    def everywhere(self) -> bool:
        """Whether collections of this name are searched at any depth."""
        return self.collection.group or self._wild

    async def probe(self) -> None:
        """A page of one, without its fields."""
        _rows(await self._ask("", 1, _NO_FIELDS), self.name)

    async def count(self) -> int | None:
        """By aggregation; unknown where wildcards make it search more than it takes."""
        if self._wild:
            return None
        rows = _rows(await self.api.count(self.database, self._from(), parent=self.parent), self.name)
        fields = rows[0].get("result", {}).get("aggregateFields", {})
        return _number(fields.get("n", {}).get("integerValue"))

    async def page(self, after: str, *, epoch: bool) -> Listed:
        """Documents behind the name `after`, fewer at once where they are large."""
        reply = await self._ask(after, self.size)
        while reply.cut and self.size > 1:
            self.size = max(1, self.size // 4)
            reply = await self._ask(after, self.size)
        if reply.cut:
            return await self._too_large(after)
        self.size = min(self.most, self.size * 2)
        found = self._found(reply)
        items = [self._change(path, document, epoch=epoch) for path, document in found if self.has(path)]
        keys = [document_key(self.database, item.path) for item in items]
        return Listed(items, keys, self._root + found[-1][0] if found else "")

    def has(self, path: str) -> bool:
        """Whether the document of this path is in one of the collections that are meant."""
        parts = path.split("/")
        if self.collection.group:
            return len(parts) % 2 == 0 and parts[-2] == self.collection.path
        return len(parts) == len(self._parts) + 1 and all(
            wanted.startswith("{") or wanted == part for wanted, part in zip(self._parts, parts, strict=False)
        )

    def holds(self, key: str) -> bool:
        """Whether it is a document's key and in the list."""
        return key.startswith(self.prefix) and self.has(self._path(key))

    async def gone(self, keys: Sequence[str]) -> Sequence[Change]:
        """By `:batchGet`, which names what is missing and when it looked."""
        names = [self._root + self._path(key) for key in keys]
        reply = await self.api.batch_get(self.database, names, _NO_FIELDS)
        rows = _rows(reply, self.name)
        found = {row["found"].get("name") for row in rows if isinstance(row.get("found"), dict)}
        missing = {row["missing"]: str(row.get("readTime", "")) for row in rows if "missing" in row}
        if found | missing.keys() != set(names) or not all(missing.values()):
            raise unreadable(reply, self.name)
        return [
            DocumentChange(self.database, name.removeprefix(self._root), None, at)
            for name, at in missing.items()
        ]

    def _path(self, key: str) -> str:
        return key.removeprefix(document_key(self.database, ""))

    def _from(self) -> dict[str, Any]:
        return {"from": [{"collectionId": self.collection_id, "allDescendants": self.everywhere}]}

    async def _ask(self, after: str, limit: int, fields: Sequence[str] = ()) -> Reply:
        query = self._from() | {"orderBy": [{"field": {"fieldPath": "__name__"}}], "limit": limit}
        if after:
            query["startAt"] = {"before": False, "values": [{"referenceValue": after}]}
        if wanted := fields or wanted_fields(self.collection):
            query["select"] = {"fields": [{"fieldPath": path} for path in wanted]}
        return await self.api.run_query(self.database, query, parent=self.parent)

    def _found(self, reply: Reply) -> list[tuple[str, Row]]:
        """Every document of an answer with its path. An answer that breaks off is not taken."""
        documents = [row["document"] for row in _rows(reply, self.name) if "document" in row]
        if not all(str(document.get("name", "")).startswith(self._root) for document in documents):
            raise unreadable(reply, self.name)
        return [(document["name"].removeprefix(self._root), document) for document in documents]

    def _change(self, path: str, document: Row, *, epoch: bool) -> DocumentChange:
        return DocumentChange(
            self.database,
            path,
            document.get("fields", {}),
            document.get("updateTime", ""),
            document.get("createTime", ""),
            epoch=epoch,
        )

    async def _too_large(self, after: str) -> Listed:
        """Step over a document that does not fit into an answer; others go on."""
        found = self._found(await self._ask(after, 1, _NO_FIELDS))
        if not found:
            return Listed((), ())
        path = found[0][0]
        where = f"{self.api.project}/{self.database}/{path}"
        reason = f"{where} has more than 8 MiB as JSON: name the fields to take under `fields`"
        key = document_key(self.database, path)
        return Listed([Unfit("document_too_large", reason)], [key], self._root + path)


async def unseen(listing: Listing, seen: Seen, known: Known, after: str = "") -> AsyncIterator[Sequence[str]]:
    """The known keys of a list behind `after` that it did not have, some at once, read off the loop."""
    keys = known.keys(listing.prefix)
    waiting = list[str]()
    while ahead := await asyncio.to_thread(list, islice(keys, READ_AHEAD)):
        waiting += [key for key in ahead if key > after and listing.holds(key) and key not in seen]
        while len(waiting) >= AT_ONCE:
            yield waiting[:AT_ONCE]
            waiting = waiting[AT_ONCE:]
    if waiting:
        yield waiting


def wanted_fields(collection: Collection) -> Sequence[str]:
    """The top-level fields of a document that are read at all; none where it is taken whole."""
    if collection.attributes == WHOLE_DOCUMENT:
        return ()
    mapped = (path.partition(".")[0] for path in collection.fields)
    return list(map(_quoted, dict.fromkeys([collection.identifiers, collection.attributes, *mapped])))


def _quoted(name: str) -> str:
    """A field's name as a field path."""
    if _PLAIN_NAME(name):
        return name
    escaped = name.replace("\\", "\\\\").replace("`", "\\`")
    return f"`{escaped}`"


def _number(found: Any) -> int | None:
    """A count as Google writes it: a number as text."""
    return int(found) if isinstance(found, str) and found.isdecimal() else None


def _object(reply: Reply, what: str) -> dict[str, Any]:
    answer = reply.json()
    if not isinstance(answer, dict):
        raise unreadable(reply, what)
    return answer


def _rows(reply: Reply, what: str) -> list[Row]:
    """The elements of a streamed answer, all of them: one may say that the others do not come."""
    answer = reply.json()
    if not isinstance(answer, list) or not answer or not all(isinstance(row, dict) for row in answer):
        raise unreadable(reply, what)
    for row in answer:
        if "error" in row:
            said = row["error"].get("message", "") if isinstance(row["error"], dict) else ""
            raise Undelivered(Retry(f"{what}: Firestore broke off its answer: {said}", code=reply.status))
    return answer


def _by_uid(users: Any, reply: Reply, what: str) -> Iterator[tuple[str, Row]]:
    for user in users:
        uid = user.get("localId") if isinstance(user, dict) else None
        if not isinstance(uid, str) or not uid:
            raise unreadable(reply, what)
        yield uid, user
