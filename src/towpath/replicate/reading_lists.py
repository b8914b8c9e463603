"""Lists: whole or in pages, by offset, by windows of time, and newest first."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, Iterator, Mapping, Sequence
from contextlib import aclosing
from itertools import product
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import msgspec
from msgspec import Raw, Struct

from ..vendors.customerio import Id
from ..warehouse import salvage
from .reading import (
    Answer,
    Ask,
    Chain,
    Door,
    Reading,
    Step,
    Unreachable,
    Wanted,
    answer,
    column,
    onwards,
    page,
)

DAY_S = 86_400
BEGINNING = 1_325_376_000
"""2012-01-01: Customer.io is not older, so this is where everything begins."""
NARROWEST_S = 3600
EMPTY_IN_A_ROW = 1000


class Listed(Struct, frozen=True):
    """A list under the key `at`, in as many pages as name a `next`, with `limit` records each.

    A page may be empty and name a `next` all the same; with `until_empty` an empty page is the end, as the
    vendor names a `next` even after the last record. There is a chain for each of `variants` of the query,
    with what they say in common of their records. `wrap` is the column that records become which are no
    objects; of the URL `private_url` user and password are cut off.
    """

    ask: Ask
    at: str
    limit: int = 0
    variants: tuple[Mapping[str, Any], ...] = ({},)
    until_empty: bool = False
    wrap: str = ""
    private_url: str = ""

    def chains(self, wanted: Wanted) -> Sequence[Chain]:
        """One, or one for each variant."""
        del wanted
        return [Chain(_word(query), query=query) for query in self.variants]

    async def read(self, door: Door, chain: Chain, place: str, wanted: Wanted) -> AsyncGenerator[Step]:
        """Follow `next`."""
        del wanted
        known, paging = {place} if place else set(), Paging()
        while True:
            found = await ask_page(door, self.ask, self.at, chain, self.limit, place)
            paging.follow(found)
            ended = not found.following or (self.until_empty and not found.count)
            if not ended:
                onwards(found.following, known)
            place = found.following
            records = _without_credentials(found.records, self.private_url)
            yield Step(page(records, chain.constants, self.wrap), None if ended else place, found.count)
            if ended:
                return


class Paging:
    """Sees to it that pages come to an end: the vendor may name a next one for ever."""

    def __init__(self) -> None:
        self._before = b""
        self._empty = 0

    def follow(self, found: Answer) -> None:
        """Take a page. Raises `Unreachable` where it is the one before it again, or one empty too many."""
        self._empty = 0 if found.count else self._empty + 1
        if self._empty > EMPTY_IN_A_ROW:
            raise Unreachable(f"Customer.io names another page after {self._empty} empty ones")
        if found.count and found.records == self._before:
            raise Unreachable("Customer.io gives the same page again and again")
        self._before = found.records


async def ask_page(
    door: Door, ask: Ask, at: str, chain: Chain, limit: int, place: str, *, aside: bool = False
) -> Answer:
    """Ask one page of a chain."""
    paging: dict[str, Any] = {"limit": limit} if limit else {}
    if place:
        paging["start"] = place
    asking = door.ask_aside if aside else door.ask
    return answer(await asking(ask, *chain.values, **chain.query, **paging), at)


def _word(query: Mapping[str, Any]) -> str:
    return "&".join(f"{name}={str(value).lower()}" for name, value in query.items())


def _without_credentials(records: bytes, key: str) -> bytes:
    """Cut `user:password@` off a URL of each record."""
    if not key:
        return records
    return b"[%s]" % b",".join(_without(record, key) for record in salvage.split(records))


def _without(record: bytes, key: str) -> bytes:
    try:
        found = salvage.fields(record)
        url = salvage.value(found.get(key, Raw(b"null")))
    except salvage.Unreadable:
        return b"null" if b"@" in record else record  # refused either way
    if not isinstance(url, str) or "@" not in url:
        return record
    return msgspec.json.encode({**found, key: _plain(url)})


def _plain(url: str) -> str:
    try:
        parts = urlsplit(url)
    except ValueError:
        return url.rpartition("@")[2]  # no URL, but what stands before the @ may be a password all the same
    return urlunsplit(parts._replace(netloc=parts.netloc.rpartition("@")[2]))


class Offset(Struct, frozen=True):
    """A list by offset, for each of some kinds, which are the method's first argument and a column.

    A page that is not full is the last; an empty list is null. Where the run names domains there is a chain
    for each kind and domain.
    """

    ask: Ask
    at: str
    column: str
    kinds: tuple[str, ...]
    limit: int

    def chains(self, wanted: Wanted) -> Sequence[Chain]:
        """One per kind and domain."""
        return [self._chain(kind, domain) for kind, domain in product(self.kinds, wanted.domains or ("",))]

    def _chain(self, kind: str, domain: str) -> Chain:
        query = {"domain": domain} if domain else {}
        named = f"{kind}/{domain}" if domain else kind
        return Chain(named, (kind,), query, {self.column: kind, "domain": domain})

    async def read(self, door: Door, chain: Chain, place: str, wanted: Wanted) -> AsyncGenerator[Step]:
        """Go on behind what was read, to a page that is not full."""
        del wanted
        offset, paging = int(place or 0), Paging()
        while True:
            reply = await door.ask(self.ask, *chain.values, **chain.query, limit=self.limit, offset=offset)
            found = answer(reply, self.at)
            paging.follow(found)
            offset += found.count
            last = found.count < self.limit
            yield Step(page(found.records, chain.constants), None if last else str(offset), found.count)
            if last:
                return


class Windows(Struct, frozen=True):
    """A list that takes `start_ts` and `end_ts`, both included, and silently cuts a long range to six months.

    The range is cut into windows of at most 30 days, and into as many as are read beside each other, which
    hides the latency of answers.
    """

    ask: Ask
    at: str
    limit: int
    longest_s: int = 30 * DAY_S

    def chains(self, wanted: Wanted) -> Sequence[Chain]:
        """One per window, the newest first."""
        since = BEGINNING if wanted.since is None else math.floor(wanted.since)
        until = max(since, math.floor(wanted.until))
        return [_window(first, last) for first, last in self._windows(since, until, wanted.parts)]

    def _windows(self, since: int, until: int, parts: int) -> Iterator[tuple[int, int]]:
        wide = max(NARROWEST_S, min(self.longest_s, math.ceil((until - since + 1) / max(parts, 1))))
        last = until
        while last >= since:
            first = max(since, last - wide + 1)
            yield first, last
            last = first - 1

    def read(self, door: Door, chain: Chain, place: str, wanted: Wanted) -> AsyncGenerator[Step]:
        """Follow `next`."""
        return Listed(self.ask, self.at, self.limit).read(door, chain, place, wanted)


def _window(first: int, last: int) -> Chain:
    return Chain(f"{first}-{last}", query={"start_ts": first, "end_ts": last})


class NewestFirst(Struct, frozen=True):
    """A list that goes from the newest record back, and knows no filter of time.

    It ends with the first page that lies below `since` as a whole: one record dated too early does not end
    it, and one dated in the future does not either. The vendor names a `next` even behind the last record.
    """

    ask: Ask
    at: str
    limit: int
    stamp: str
    query: Mapping[str, Any] = {}

    def chains(self, wanted: Wanted) -> Sequence[Chain]:
        """One."""
        del wanted
        return [Chain(query=self.query)]

    async def read(self, door: Door, chain: Chain, place: str, wanted: Wanted) -> AsyncGenerator[Step]:
        """Go back until it is known."""
        listed = Listed(self.ask, self.at, self.limit, until_empty=True)
        async with aclosing(listed.read(door, chain, place, wanted)) as steps:
            async for step in steps:
                known = bool(step.pages) and self._known(step.pages[0].records, wanted.since)
                yield msgspec.structs.replace(step, place=None) if known else step
                if known:
                    return

    def _known(self, records: bytes, since: float | None) -> bool:
        stamps = [stamp for stamp in column(records, self.stamp) if isinstance(stamp, int | float)]
        return since is not None and bool(stamps) and max(stamps) < since


class Whole(Struct, frozen=True):
    """One answer that is one record as a whole; `wrap` is the column it becomes, where it is to be one."""

    ask: Ask
    wrap: str = ""

    def chains(self, wanted: Wanted) -> Sequence[Chain]:
        """One."""
        del wanted
        return [Chain()]

    async def read(self, door: Door, chain: Chain, place: str, wanted: Wanted) -> AsyncGenerator[Step]:
        """Ask once."""
        del place, wanted
        reply = await door.ask(self.ask, *chain.values, **chain.query)
        record = b'{"%s":%s}' % (self.wrap.encode(), reply.body) if self.wrap else reply.body
        yield Step(page(b"[%s]" % record, chain.constants), None, 1)


class PerParent(Struct, frozen=True):
    """A list below each record of another table; `column` holds the parent's id."""

    column: str
    each: Reading

    def chains(self, wanted: Wanted) -> Sequence[Chain]:
        """One per parent."""
        return [self._below(parent, chain) for parent in wanted.parents for chain in self.each.chains(wanted)]

    def _below(self, parent: Id, chain: Chain) -> Chain:
        name = f"{parent}/{chain.name}" if chain.name else str(parent)
        return Chain(name, (parent, *chain.values), chain.query, {**chain.constants, self.column: parent})

    def read(self, door: Door, chain: Chain, place: str, wanted: Wanted) -> AsyncGenerator[Step]:
        """As the list of one parent is read."""
        return self.each.read(door, chain, place, wanted)
