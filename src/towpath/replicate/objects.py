"""Objects and relationships: found by search, then asked for one by one."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Any

import msgspec
from msgspec import Raw, Struct

from ..vendors.customerio import AppApi, Id
from .people import find_people
from .reading import Chain, Door, Step, Unreachable, Wanted, page
from .reading_lists import ask_page
from .searching import Detail, Details, Found, Searched, all_related, one_by_one

TYPE = "object_type_id"
SEARCH_LIMIT = 100
"""Ids per page: each is a request of its own, and a page is what is done again after a crash."""


class _Object(Struct):
    cio_object_id: str = ""


class _Told(Struct):
    object: Raw


_objects = msgspec.json.Decoder(list[_Object])
_told = msgspec.json.Decoder(_Told)


def _of_type(object_type_id: Id) -> dict[str, Any]:
    """Every object of a type: those that have an attribute, or have not."""
    leaf = {"field": "object_id", "operator": "exists", "type_id": str(object_type_id)}
    has = {"object_attribute": leaf}
    return {"object_type_id": str(object_type_id), "filter": {"or": [has, {"not": has}]}}


async def find_objects(door: Door, object_type_id: Id, place: str) -> Found:
    """One page of the search for the objects of a type: cio_object_ids."""
    chain = Chain(query={"body": _of_type(object_type_id)})
    found = await ask_page(door, AppApi.search_objects, "identifiers", chain, SEARCH_LIMIT, place)
    try:
        ids = [one.cio_object_id for one in _objects.decode(found.records) if one.cio_object_id]
    except msgspec.DecodeError as error:
        raise Unreachable(f"the search's answer names no objects: {error}") from error
    return Found(ids, found.following)


def _per_type(wanted: Wanted) -> Sequence[Chain]:
    return [Chain(str(parent), (parent,)) for parent in wanted.parents]


def _searched(door: Door, chain: Chain, detail: Detail, place: str) -> AsyncGenerator[Step]:
    async def search(place: str) -> Found:
        return await find_objects(door, chain.values[0], place)

    return Searched(search, detail).steps(place)


class Objects(Struct, frozen=True):
    """The objects of each type, with their attributes; `column` holds the type."""

    column: str = TYPE

    def chains(self, wanted: Wanted) -> Sequence[Chain]:
        """One per type."""
        return _per_type(wanted)

    def read(self, door: Door, chain: Chain, place: str, wanted: Wanted) -> AsyncGenerator[Step]:
        """Search, and ask for each."""
        del wanted

        async def one(named: str) -> Details:
            ask, kind = AppApi.object_attributes, chain.values[0]
            reply = await door.ask_aside(ask, kind, named, id_type="cio_object_id")
            try:
                record = bytes(_told.decode(reply.body).object)
            except msgspec.DecodeError as error:
                raise Unreachable(f"the answer describes no object: {error}") from error
            return Details(page(b"[%s]" % record, {self.column: str(kind)}), 1)

        async def detail(ids: Sequence[str]) -> Details:
            return await one_by_one(ids, one)

        return _searched(door, chain, detail, place)


class ObjectRelationships(Struct, frozen=True):
    """Who is related to the objects of each type; `column` holds the type."""

    column: str = TYPE

    def chains(self, wanted: Wanted) -> Sequence[Chain]:
        """One per type."""
        return _per_type(wanted)

    def read(self, door: Door, chain: Chain, place: str, wanted: Wanted) -> AsyncGenerator[Step]:
        """Search, and ask for each."""
        del wanted

        async def one(named: str) -> Details:
            kind = chain.values[0]
            constants = {self.column: str(kind), "cio_object_id": named}
            asked = Chain(named, (kind, named), {"id_type": "cio_object_id"}, constants)
            return await all_related(door, AppApi.object_relationships, asked)

        async def detail(ids: Sequence[str]) -> Details:
            return await one_by_one(ids, one)

        return _searched(door, chain, detail, place)


class CustomerRelationships(Struct, frozen=True):
    """Everybody's relationships: a request per person."""

    def chains(self, wanted: Wanted) -> Sequence[Chain]:
        """One."""
        del wanted
        return [Chain()]

    def read(self, door: Door, chain: Chain, place: str, wanted: Wanted) -> AsyncGenerator[Step]:
        """Search, and ask for each."""
        del chain, wanted

        async def search(place: str) -> Found:
            return await find_people(door, place, SEARCH_LIMIT)

        async def one(cio_id: str) -> Details:
            query = {"id_type": "cio_id"}
            asked = Chain(cio_id, (f"cio_{cio_id}",), query, {"cio_id": cio_id})
            return await all_related(door, AppApi.customer_relationships, asked)

        async def detail(ids: Sequence[str]) -> Details:
            return await one_by_one(ids, one)

        return Searched(search, detail).steps(place)
