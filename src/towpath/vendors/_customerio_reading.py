"""How Customer.io's App API is read: paths under /v1, page parameters, long answers."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any, TypedDict

from towpath.http import LARGEST_READ_BYTES, Reply

from ._customerio_api import Body, Id, VendorApi


class Paging(TypedDict, total=False):
    """Which page: `start` is the `next` of the page before."""

    start: str
    limit: int


class Reading(VendorApi):
    """One family of App API endpoints; they share the allowance of 10 requests a second per key."""

    bucket = "app"
    answer_bytes = LARGEST_READ_BYTES

    async def read(self, *parts: Id, allow: Collection[int] = (), **query: Any) -> Reply:
        """GET what lies at the parts of a path."""
        return await self.call("GET", self.url("v1", *parts, **query), allow=allow)

    async def post(self, *parts: Id, body: Body | None = None, **query: Any) -> Reply:
        """POST to the parts of a path."""
        return await self.call("POST", self.url("v1", *parts, **query), body)

    async def put(self, *parts: Id, body: Body) -> Reply:
        """PUT to the parts of a path."""
        return await self.call("PUT", self.url("v1", *parts), body)

    async def remove(self, *parts: Id) -> Reply:
        """DELETE what lies at the parts of a path."""
        return await self.call("DELETE", self.url("v1", *parts))
