"""Segments of Customer.io as audiences: who is in one, read page by page."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from typing import NoReturn, Protocol

from msgspec import Struct

from ..errors import TowpathError
from ..http import Undelivered
from ..state.campaigns import Campaigns
from ..vendors.customerio import AppApi, pages
from .reach import Persons
from .settings import SegmentSettings

LARGEST_PAGE = 30_000


class Accounts(Protocol):
    """The accounts that segments are read from."""

    def check(self, name: str) -> None:
        """Raise `TowpathError` for one that no segments can be read from."""
        ...

    async def app_api(self, name: str) -> AppApi:
        """The App API of an account. Raises `TowpathError` or `Undelivered`."""
        ...


class NoAccounts:
    """Stands where none are configured."""

    def check(self, name: str) -> NoReturn:
        """Raise `TowpathError`."""
        raise TowpathError(f'there is no account "{name}"', code="E5305", data="Nothing was sent.")

    async def app_api(self, name: str) -> NoReturn:
        """Raise `TowpathError`."""
        self.check(name)


class Members(Struct, frozen=True):
    """A page of a segment: the userIds, and how many people have none, who can have no device here."""

    persons: Sequence[str]
    nameless: int


async def members(accounts: Accounts, segment: SegmentSettings) -> AsyncIterator[Members]:
    """Who is in a segment, in no order. Raises `TowpathError` or `Undelivered`."""
    api = await accounts.app_api(segment.account)
    async for page in pages(api.segment_members, segment.id, limit=LARGEST_PAGE):
        found = page.get("identifiers") or ()  # null where a page is empty
        persons = [str(one["id"]) for one in found if isinstance(one, dict) and one.get("id")]
        yield Members(persons, len(found) - len(persons))


async def keep(
    pages: AsyncIterator[Members],
    store: Campaigns,
    campaign: int,
    door: asyncio.Lock,
    is_left: Callable[[str], bool],
) -> tuple[int, int]:
    """Keep the members of a campaign's segment: however often a process dies, they stay the same afterwards.

    Each page is written behind `door`, without those whom `is_left` denies: they were erased meanwhile.
    Returns how many are kept, and how many have no id. Raises `Held`, and what reading raises.
    """
    nameless = 0
    await asyncio.to_thread(store.drop_members, campaign)  # of an attempt that did not end
    async for page in pages:
        async with door:
            persons = [person for person in page.persons if is_left(person)]
            await asyncio.to_thread(store.keep_members, campaign, persons)
        nameless += page.nameless
    return await asyncio.to_thread(store.end_members, campaign), nameless


def kept(store: Campaigns, campaign: int) -> Persons:
    """The members that are kept of a campaign's segment."""

    async def behind(after: str, limit: int) -> Sequence[str]:
        return await asyncio.to_thread(store.members, campaign, after, limit)

    return behind


async def everybody(accounts: Accounts, segment: SegmentSettings) -> Members:
    """The same, all at once."""
    persons: set[str] = set()
    nameless = 0
    async for page in members(accounts, segment):
        persons.update(page.persons)
        nameless += page.nameless
    return Members(sorted(persons), nameless)


def named(segment: SegmentSettings) -> str:
    """How people call a segment."""
    return f"{segment.account}:{segment.id}"


def unreadable(segment: SegmentSettings, error: Undelivered) -> str:
    """What to say where a segment cannot be read."""
    reason = getattr(error.outcome, "reason", "") or str(error)
    return f"the segment {named(segment)} cannot be read: {reason}"
