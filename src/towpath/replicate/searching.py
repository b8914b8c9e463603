"""Search and details: pages of ids, and what is asked about each while the search goes on."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Any, TypeAlias

from msgspec import Struct

from ..warehouse import Page
from .reading import Ask, Chain, Door, Missing, Step, onwards, page
from .reading_lists import ask_page

AHEAD = 2
"""Pages of a search that may wait for their details."""
AT_ONCE = 8
RELATED_LIMIT = 100


class Found(Struct, frozen=True):
    """A page of a search: ids, and the next page's token."""

    ids: Sequence[str]
    following: str


class Details(Struct, frozen=True):
    """What was told about the ids of a page."""

    pages: tuple[Page, ...]
    records: int


Search: TypeAlias = Callable[[str], Awaitable[Found]]
Detail: TypeAlias = Callable[[Sequence[str]], Awaitable[Details]]


class Searched:
    """One search on its way: it looks ahead, so that the requests for details never wait for it."""

    def __init__(self, search: Search, detail: Detail) -> None:
        self._search = search
        self._detail = detail
        self._found: asyncio.Queue[tuple[str, asyncio.Future[Details]]] = asyncio.Queue(AHEAD)
        self._tasks: set[asyncio.Future[Any]] = set()

    async def steps(self, place: str) -> AsyncGenerator[Step]:
        """One step per page, in their order."""
        looking = self._begin(self._look(place))
        try:
            while True:
                following, details = await self._next(looking)
                told = await details
                yield Step(told.pages, following or None, told.records)
                if not following:
                    return
        finally:
            for task in self._tasks:
                task.cancel()
            await asyncio.gather(*self._tasks, return_exceptions=True)

    async def _next(self, looking: asyncio.Future[None]) -> tuple[str, asyncio.Future[Details]]:
        """Wait for the next page, or raise what ended the search."""
        waiting = self._begin(self._found.get())
        either: list[asyncio.Future[Any]] = [waiting, looking]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if not waiting.done() and looking.done() and self._found.empty():
            looking.result()  # raises: a search that ends well has put its last page into the queue
        found: tuple[str, asyncio.Future[Details]] = await waiting
        return found

    async def _look(self, place: str) -> None:
        known = {place} if place else set()
        found = await self._search(place)
        while True:
            # The next page is asked for first: the details of this one are many requests.
            ahead = self._ahead(found.following, known)
            await self._found.put((found.following, self._begin(self._detail(found.ids))))
            if ahead is None:
                return
            found = await ahead

    def _ahead(self, following: str, known: set[str]) -> asyncio.Future[Found] | None:
        if not following:
            return None
        onwards(following, known)
        return self._begin(self._search(following))

    def _begin(self, work: Awaitable[Any]) -> asyncio.Future[Any]:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Future[Any]) -> None:
        if not task.cancelled() and task.exception() is None:
            self._tasks.discard(task)


async def one_by_one(ids: Sequence[str], ask: Callable[[str], Awaitable[Details]]) -> Details:
    """Ask about each id, a few at once; who is gone meanwhile has no records."""
    gate = asyncio.Semaphore(AT_ONCE)

    async def one(named: str) -> Details:
        async with gate:
            try:
                return await ask(named)
            except Missing:
                return Details((), 0)

    told = await asyncio.gather(*map(one, ids))
    return Details(tuple(each for one in told for each in one.pages), sum(one.records for one in told))


async def all_related(door: Door, ask: Ask, chain: Chain) -> Details:
    """Every relationship of one person or object, in as many pages as there are."""
    told, place, known = Details((), 0), "", set[str]()
    while True:
        found = await ask_page(door, ask, "cio_relationships", chain, RELATED_LIMIT, place, aside=True)
        told = Details((*told.pages, *page(found.records, chain.constants)), told.records + found.count)
        if not found.following:
            return told
        onwards(found.following, known)
        place = found.following
