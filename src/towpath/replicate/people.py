"""People: searched for, and asked for by a hundred; or exported, where they are many."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from typing import Any

import msgspec
from msgspec import Raw, Struct

from ..vendors.customerio import AppApi
from .reading import Chain, Door, Step, Unreachable, Wanted, answer, page
from .reading_lists import ask_page
from .searching import Details, Found, Searched

SEARCH_LIMIT = 1000
BATCH = 100
"""The most people whom one request tells the attributes of."""
EVERYBODY = {"and": [{"attribute": {"field": "cio_id", "operator": "exists"}}]}


class _Person(Struct):
    cio_id: str = ""


class _Identifiers(Struct):
    cio_id: str
    id: Any = None
    email: Any = None


class _Profile(Struct):
    """A person as it is asked for; the `id` beside its identifiers says nothing new."""

    identifiers: _Identifiers
    attributes: Raw = Raw(b"{}")
    timestamps: Raw = Raw(b"{}")
    devices: Raw = Raw(b"[]")
    unsubscribed: Any = None


class Customer(Struct):
    """A record of the table `customers`."""

    cio_id: str
    id: Any
    email: Any
    unsubscribed: Any
    attributes: Raw
    timestamps: Raw
    devices: Raw


_people = msgspec.json.Decoder(list[_Person])
_profiles = msgspec.json.Decoder(list[_Profile])
_encode = msgspec.json.Encoder().encode


async def find_people(door: Door, place: str, limit: int) -> Found:
    """One page of the search for everybody: cio_ids; entries without one are left out."""
    chain = Chain(query={"body": {"filter": EVERYBODY}})
    found = await ask_page(door, AppApi.search_customers, "identifiers", chain, limit, place)
    try:
        ids = [one.cio_id for one in _people.decode(found.records) if one.cio_id]
    except msgspec.DecodeError as error:
        raise Unreachable(f"the search's answer names no people: {error}") from error
    return Found(ids, found.following)


class People(Struct, frozen=True):
    """Everybody, with attributes, timestamps and devices: 11 requests per 1,000 people."""

    def chains(self, wanted: Wanted) -> Sequence[Chain]:
        """One."""
        del wanted
        return [Chain()]

    def read(self, door: Door, chain: Chain, place: str, wanted: Wanted) -> AsyncGenerator[Step]:
        """Search, and ask for a hundred at a time."""
        del wanted, chain

        async def search(place: str) -> Found:
            return await find_people(door, place, SEARCH_LIMIT)

        async def detail(ids: Sequence[str]) -> Details:
            batches = [ids[first : first + BATCH] for first in range(0, len(ids), BATCH)]
            told = await asyncio.gather(*(_customers(door, batch) for batch in batches))
            pages = tuple(one for each in told for one in page(_encode(each), {}))
            return Details(pages, sum(map(len, told)))

        return Searched(search, detail).steps(place)


async def _customers(door: Door, ids: Sequence[str]) -> list[Customer]:
    """The records of at most 100 people; whom nobody knows any more is not among them."""
    reply = await door.ask_aside(AppApi.customers_attributes, body={"ids": ids}, id_type="cio_id")
    try:
        return [_customer(profile) for profile in _profiles.decode(answer(reply, "customers").records)]
    except msgspec.DecodeError as error:
        raise Unreachable(f"the answer describes no people: {error}") from error


def _customer(profile: _Profile) -> Customer:
    named = profile.identifiers
    rest = (profile.attributes, profile.timestamps, profile.devices)
    return Customer(named.cio_id, named.id, named.email, profile.unsubscribed, *rest)
