"""Who is who, as of a position in the log: whose a message is, and which lanes a link joins."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Protocol, TypeAlias

from msgspec import Struct

from .message import Message, Record

JUNK = frozenset(
    {"undefined", "null", "none", "nan", "0", "-1", "true", "false", "anonymous", "guest", "unknown", "test"}
    | {"[object object]", "00000000-0000-0000-0000-000000000000", "00000000000000000000000000000000"}
)
CACHE_SIZE = 50_000
LINKING = frozenset({"identify", "alias"})

Links: TypeAlias = Sequence[tuple[int, str]]


class LinkStore(Protocol):
    """Where links are kept (the ledger)."""

    async def link(self, identifier: str, position: int, person: str) -> None:
        """Remember that from this position on `identifier` belongs to `person` (idempotent)."""
        ...

    async def links(self, identifier: str) -> Links:
        """(position, person) of an identifier, ascending."""
        ...

    async def links_of(self, identifiers: Collection[str]) -> Mapping[str, Links]:
        """The links of those of these identifiers that have any, each as `links` gives them."""
        ...

    async def linked(self, person: str, before: int) -> int:
        """How many links to this person were made before a position."""
        ...

    async def identifiers(self, person: str, before: int, limit: int) -> int:
        """How many ids lead to this person (itself one) by links made before a position; `limit` at most."""
        ...


class Place(Struct, frozen=True, gc=False):
    """Where a message belongs: its person, the lanes (old, new) its link joins, why a link was refused."""

    person: str
    merges: Sequence[tuple[str, str]] = ()
    refused: str = ""


class Identity:
    """Resolves ids to persons. A pure function of the log up to a position, whoever asks and when.

    Ids live in two namespaces, `u:` for userId and `a:` for anonymousId. An anonymousId belongs to the last
    userId that identified with it; a userId joins another userId only by a server's alias (D13, D15).
    """

    def __init__(
        self,
        store: LinkStore,
        *,
        junk: Collection[str] = (),
        links_max: int = 500,
        identifiers_max: int = 1000,
    ) -> None:
        self._store = store
        self._identifiers_max = identifiers_max
        self._junk = JUNK | {word.lower() for word in junk}
        self._links_max = links_max
        self._cache: OrderedDict[str, Links] = OrderedDict()
        self._changes = 0

    async def place(self, message: Message, position: int, *, keep: bool = True) -> Place:
        """The person of a message at a position, linking first where the message links.

        `keep=False` only says what a message that was read already came to.
        """
        wanted = self._wanted(message) if message.type in LINKING else ()
        if not wanted:
            return Place(await self.person(message, position))
        merges: list[tuple[str, str]] = []
        refused = ""
        for old, new in wanted:
            merge, why = await self._join(old, new, position, keep=keep)
            merges += [merge] if merge else []
            refused = refused or why
        return Place(await self.person(message, position), merges, refused)

    async def look_up(self, messages: Iterable[Message]) -> None:
        """Read at once whom these messages name, so that `place` finds it in memory; changes no answer."""
        missing = self._unread(name for message in messages for name in self._names(message))
        while missing:
            changes = self._changes
            found = await self._store.links_of(missing)
            if changes != self._changes:
                return  # another connection may have linked some meanwhile
            self._remember({name: found.get(name, ()) for name in missing})
            missing = self._unread(person for links in found.values() for _, person in links)

    def _unread(self, names: Iterable[str]) -> set[str]:
        return {name for name in names if name not in self._cache}

    def _names(self, message: Message) -> list[str]:
        """The identifiers that placing a message begins with."""
        own = f"u:{message.user_id}" if message.user_id else f"a:{message.anonymous_id}"
        if message.type not in LINKING:
            return [own]
        return [own, *(name for pair in self._wanted(message) for name in pair)]

    async def person(self, message: Message, position: int) -> str:
        """The person whose lane a message takes: by userId, else anonymousId."""
        if message.user_id:
            return await self.resolve(f"u:{message.user_id}", position)
        return await self.resolve(f"a:{message.anonymous_id}", position)

    async def resolve(self, identifier: str, position: int) -> str:
        """Follow the links that hold at a position; an unlinked identifier is its own person."""
        seen = {identifier}
        while True:
            links = self._cache.get(identifier)
            if links is None:
                links = await self._links(identifier)
            owner = _as_of(links, position) if links else ""
            if not owner or owner in seen:
                return identifier
            seen.add(owner)
            identifier = owner

    async def successors(self, person: str, after: int, until: int) -> list[str]:
        """Whom this person's history was joined to between two positions, nearest first."""
        found: list[str] = []
        while joined := _first_between(await self._links(person), after, until):
            if joined in found:
                break
            found.append(joined)
            person = joined
        return found

    def forget(self) -> None:
        """Links were erased in the store."""
        self._cache.clear()
        self._changes += 1

    def _wanted(self, message: Message) -> list[tuple[str, str]]:
        """Return the (old, new) identifiers this message asks to join."""
        user, own, previous = message.user_id, message.anonymous_id, message.previous_id
        if message.type == "identify" and user and own:
            return [(f"a:{own}", f"u:{user}")]
        if message.type == "alias" and user and previous:
            if message.trust == "server":
                return [(f"u:{previous}", f"u:{user}"), (f"a:{previous}", f"u:{user}")]
            if previous == own:
                return [(f"a:{own}", f"u:{user}")]
        return []

    async def _join(
        self, old: str, new: str, position: int, *, keep: bool
    ) -> tuple[tuple[str, str] | None, str]:
        """Link `old` to `new` from this position on; the lanes to merge, or why it was refused."""
        before = position - 1
        owner, target = await self.resolve(old, before), await self.resolve(new, before)
        if owner == target:
            return None, ""
        moved = old.startswith("a:") and owner != old
        if why := await self._brake(old, new, old if moved else owner, target, position):
            return None, why
        if keep:
            await self._link(old if moved else owner, position, target)
        # An anonymousId that changes hands leaves its history where it was: joining would merge two users.
        return (None if moved else (owner, target)), ""

    async def _brake(self, old: str, new: str, joined: str, target: str, position: int) -> str:
        """Why `joined` must not become the target's (D15); empty when it may."""
        for identifier in (old, new):
            if identifier[2:].strip().lower() in self._junk:
                return f"{identifier[2:]!r} is not an id of one person; no link was made"
        if await self._store.linked(target, position) >= self._links_max:
            return f"{target[2:]!r} already has {self._links_max} linked ids; no further link was made"
        limit = self._identifiers_max + 1
        known = await self._store.identifiers(target, position, limit)
        if known + await self._store.identifiers(joined, position, limit) > self._identifiers_max:
            return f"{target[2:]!r} would have over {self._identifiers_max} ids; no further link was made"
        return ""

    async def _link(self, identifier: str, position: int, person: str) -> None:
        await self._store.link(identifier, position, person)
        self._cache.pop(identifier, None)
        self._changes += 1

    async def _links(self, identifier: str) -> Links:
        known = self._cache.get(identifier)
        if known is None:
            changes = self._changes
            known = await self._store.links(identifier)
            if changes == self._changes:  # else another connection may have linked it meanwhile
                self._remember({identifier: known})
        return known

    def _remember(self, links: Mapping[str, Links]) -> None:
        self._cache.update(links)
        while len(self._cache) > CACHE_SIZE:
            self._cache.popitem(last=False)


def may_link(record: Record) -> bool:
    """Whether a record may link ids, without reading it: then every connection must look at it."""
    return record.envelope.type in LINKING or b"dentify" in record.raw or b"lias" in record.raw


def _as_of(links: Links, position: int) -> str:
    for made_at, person in reversed(links):
        if made_at <= position:
            return person
    return ""


def _first_between(links: Links, after: int, until: int) -> str:
    return next((person for made_at, person in links if after < made_at <= until), "")
