"""Asking a Firebase project for everything: the backfill, and the comparison with what is known."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from ..errors import TowpathError
from ..http import Undelivered
from ..source import Page, Poll, SourceScope, State, Unfit
from ._firebase_lists import Listed, Listing, Seen, UserList, unseen
from ._firebase_project import Project

BACKFILL = "backfill"
RECONCILE = "reconcile"
USERS = "users"
ONLY = {"only": "One list alone: `auth`, `auth/TENANT`, or a collection's path as it is configured."}
FULL = {"full": "`true` tells everybody whole again, also where nothing changed: for a new destination."}
EMPTY = {"empty": "`delete` believes a list that came back empty, and deletes who was in it."}
BAD_REQUEST = 400
YES = ("true", "yes", "1")


def polls(project: Project) -> Sequence[Poll]:
    """What a project can be asked for; nothing where no credential is there to ask with."""
    if project.credential is None:
        return ()
    settings = project.settings
    every_s = settings.reconcile.total_seconds() or None
    about = "Compare users and documents with what is known, and find what is gone."
    users = Poll(
        USERS,
        "Compare the users alone: Firebase tells of no change of a user by itself.",
        settings.reconcile_users.total_seconds() or None,
        EMPTY,
    )
    return (
        Poll(
            BACKFILL,
            "Import every user and document there is; whatever changes meanwhile wins.",
            options=ONLY | FULL,
        ),
        Poll(RECONCILE, about, every_s, ONLY | EMPTY),
        *((users,) if settings.auth else ()),
    )


async def pages(project: Project, poll: str, state: State, scope: SourceScope) -> AsyncIterator[Page]:
    """Everything of one poll, list by list, as its options say.

    Raises `TowpathError` for a list there is none of, `Undelivered` for what Google refuses.
    """
    lists = chosen(project.lists(scope), scope.options.get("only"))
    if poll == USERS:
        lists, poll = [listing for listing in lists if isinstance(listing, UserList)], RECONCILE
    walk = Walk(lists, poll, scope)
    async for page in walk.pages(state):
        yield page


def chosen(lists: Sequence[Listing], only: str | None) -> Sequence[Listing]:
    """The list of this name, or all. Raises `TowpathError`."""
    if only is None:
        return lists
    if found := [listing for listing in lists if listing.name == only]:
        return found
    names = ", ".join(listing.name for listing in lists) or "none"
    raise TowpathError(
        f"there is no list {only!r} in this source",
        why=f"its lists are: {names}",
        fix="name one of them, or add the collection to the source's `collections`",
        data="nothing was asked for and nothing changed",
    )


class Place(Struct, frozen=True, omit_defaults=True):
    """Where a walk is: in which list, behind what; `listed` of it so far; `swept` once it is at its end."""

    list: str = ""
    after: str = ""
    listed: int = 0
    swept: str | None = None
    total: int | None = None


class Walk:
    """One way through some lists, from where the last attempt stopped.

    Behind each list a reconciliation asks by name for every known key that was not in it: only what Google
    then says does not exist is deleted. So nothing hangs on a list being whole (D14), and an attempt that
    was cut off loses nothing but time.
    """

    def __init__(self, lists: Sequence[Listing], poll: str, scope: SourceScope) -> None:
        self.lists = lists
        self.poll = poll
        self.scope = scope
        self.place = Place()
        self._resumed = False

    async def pages(self, state: State) -> AsyncIterator[Page]:
        """Every page; the last one is empty, and what comes after it begins anew."""
        for listing in await self._left(state):
            if self.place.list != listing.name:
                self.place = Place(listing.name, total=self.place.total)
            seen = Seen()
            async for page in self._list(listing, seen):
                yield page
            if self.poll == RECONCILE:
                async for page in self._sweep(listing, seen):
                    yield page
        yield Page((), {}, self.place.total)

    async def _left(self, state: State) -> Sequence[Listing]:
        """The lists still to walk; the place is that in the first of them."""
        place = msgspec.convert(dict(state), Place)
        names = [listing.name for listing in self.lists]
        if place.list not in names:
            self.place = Place(total=await total(self.lists))
            return self.lists
        self.place, self._resumed = place, bool(place.after)
        return self.lists[names.index(place.list) :]

    async def _list(self, listing: Listing, seen: Seen) -> AsyncIterator[Page]:
        while self.place.swept is None:
            found = await self._next(listing)
            seen.add(found.keys)
            listed = self.place.listed + len(found.keys)
            end = None if found.after else ""
            yield self._page(self._told(found.items), after=found.after, listed=listed, swept=end)

    def _told(self, items: Sequence[Any]) -> Sequence[Any]:
        """What was listed, to be told whole where that was asked for."""
        if self.poll != BACKFILL or self.scope.options.get("full", "").lower() not in YES:
            return items
        return [item if isinstance(item, Unfit) else replace(item, full=True) for item in items]

    async def _next(self, listing: Listing) -> Listed:
        resumed, self._resumed = self._resumed, False
        epoch = self.poll == BACKFILL
        try:
            return await listing.page(self.place.after, epoch=epoch)
        except Undelivered as error:
            # A page token of the attempt before does not hold for ever.
            if not resumed or getattr(error.outcome, "code", 0) != BAD_REQUEST:
                raise
        return await listing.page("", epoch=epoch)

    async def _sweep(self, listing: Listing, seen: Seen) -> AsyncIterator[Page]:
        empty = not self.place.listed and self.scope.options.get("empty") != "delete"
        async for keys in unseen(listing, seen, self.scope.known, self.place.swept or ""):
            if empty:
                yield self._page([await _nothing_there(listing, self.scope)])
                return
            if gone := await listing.gone(keys):
                yield self._page(gone, swept=keys[-1])

    def _page(self, items: Sequence[Any], **moved: Any) -> Page:
        self.place = msgspec.structs.replace(self.place, **moved)
        return Page(items, msgspec.to_builtins(self.place), self.place.total)


async def total(lists: Sequence[Listing]) -> int | None:
    """How many items the lists have together; None where one cannot be counted."""
    counts = []
    for listing in lists:
        try:
            counts.append(await listing.count())
        except Undelivered:  # what is really refused shows when the list itself is asked for
            return None
    known = [count for count in counts if count is not None]
    return sum(known) if len(known) == len(counts) else None


async def _nothing_there(listing: Listing, scope: SourceScope) -> Unfit:
    count = await asyncio.to_thread(scope.known.count, listing.prefix)
    return Unfit(
        "empty_list",
        f"{listing.name} came back empty while {count} of it are known; that looks like a wrong project, "
        "database or emulator, so nobody was deleted. Where it is true, run the poll with empty=delete",
    )
