"""How a table is read: chains of answers, each with the place where the chain goes on after it."""

from __future__ import annotations

import functools
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from typing import Any, Protocol, TypeAlias

import msgspec
from msgspec import Raw, Struct

from ..http import Reply
from ..vendors.customerio import Id
from ..warehouse import Page

Ask: TypeAlias = Callable[..., Awaitable[Reply]]
"""A method of `AppApi`, which is its first argument."""

NULL = b"null"
_list = msgspec.json.Decoder(list[Raw])


class Missing(Exception):
    """What is asked about is not there (404)."""


class Declined(Exception):
    """Customer.io does not answer this request as it stands: a 4xx other than 401, 403, 404 and 429."""

    def __init__(self, reason: str, status: int = 0) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status


class Denied(Exception):
    """The key is wrong, or has not the right (401, 403)."""


class Unreachable(Exception):
    """No usable answer came, however often it was asked."""


class Door(Protocol):
    """Where readings ask: retries, pace and count are behind it.

    Raises `Missing`, `Declined`, `Denied` and `Unreachable`.
    """

    async def ask(self, ask: Ask, *values: Id, **query: Any) -> Reply:
        """One request with one of the API's methods; a reply is a 2xx."""
        ...

    async def ask_aside(self, ask: Ask, *values: Id, **query: Any) -> Reply:
        """One request of many that may come in any order, so that all others go first."""
        ...

    async def fetch(self, url: str, headers: Mapping[str, str]) -> Reply:
        """GET a link that the vendor gave, without credentials; a reply is a 2xx or a 416."""
        ...

    async def rest(self, seconds: float) -> None:
        """Wait, while others ask."""
        ...


class Wanted(Struct, frozen=True, omit_defaults=True):
    """What one run of a table is to read, as its state keeps it, so that it can go on after a crash.

    Unix seconds: records from `since` (None: all) to `until`, when the run began. `parts` is how many chains
    a range is cut into at least. `parents` are the ids that a table below others is read under, `unready`
    those that it is not, as Customer.io still builds them.
    """

    until: float
    since: float | None = None
    parts: int = 8
    domains: tuple[str, ...] = ()
    parents: tuple[Id, ...] = ()
    unready: tuple[Id, ...] = ()


class Chain(Struct, frozen=True):
    """Pages that follow one another. `name` tells it from the table's others, in every run the same.

    `values` and `query` are what its requests have in common, `constants` what its records have.
    """

    name: str = ""
    values: tuple[Id, ...] = ()
    query: Mapping[str, Any] = {}
    constants: dict[str, Any] = {}


class Step(Struct, frozen=True):
    """What one answer, or a few that belong together, gave.

    `place` is where the chain goes on after it, None at its end; `records` are how many there are in `pages`.
    """

    pages: tuple[Page, ...]
    place: str | None
    records: int


class Reading(Protocol):
    """How one table is read; declared in the table, and without a state of its own."""

    def chains(self, wanted: Wanted) -> Sequence[Chain]:
        """What a run reads: always the same for the same `wanted`."""
        ...

    def read(self, door: Door, chain: Chain, place: str, wanted: Wanted) -> AsyncGenerator[Step]:
        """Read a chain from a place on; from its beginning where `place` is empty."""
        ...


class Answer(Struct, frozen=True):
    """The records of one answer, a JSON array as it came, how many they are, and the next page's token."""

    records: bytes
    count: int
    following: str


def answer(reply: Reply, at: str) -> Answer:
    """Find the array under the key `at`, and `next`; null is an empty array. Raises `Unreachable`."""
    if reply.cut:
        raise Unreachable(f"the answer is longer than {len(reply.body)} bytes")
    try:
        found = _envelope(at).decode(reply.body)
        raw = bytes(found.records)
        count = 0 if raw == NULL else len(_list.decode(raw)) if raw else -1
    except (msgspec.DecodeError, UnicodeDecodeError):
        count = -1
    if count < 0:
        raise Unreachable(f"the answer holds no list `{at}`: {reply.text(120)}")
    return Answer(raw if count else b"[]", count, "" if found.next is None else str(found.next))


class _Envelope(Struct):
    next: Any = None


@functools.cache
def _envelope(at: str) -> msgspec.json.Decoder[Any]:
    """Decode nothing but where the array is and where the next page is."""
    records = [("records", Raw, Raw(b""))]
    kind = msgspec.defstruct("Envelope", records, bases=(_Envelope,), rename={"records": at}, gc=False)
    return msgspec.json.Decoder(kind)


@functools.cache
def _values(key: str) -> msgspec.json.Decoder[Any]:
    value = [("value", Any, None)]
    kind = msgspec.defstruct("Valued", value, rename={"value": key}, gc=False)
    return msgspec.json.Decoder(list[kind])  # type: ignore[valid-type]


def column(records: bytes, key: str) -> list[Any]:
    """One value of every record, None where it has none. Raises `Unreachable` where they are no objects."""
    try:
        return [each.value for each in _values(key).decode(records)]
    except msgspec.DecodeError as error:
        raise Unreachable(f"the answer's records are no objects: {error}") from error


def page(records: bytes, constants: Mapping[str, Any], wrap: str = "") -> tuple[Page, ...]:
    """One page of records; none where there are none."""
    return () if records == b"[]" else (Page(records, dict(constants), wrap),)


def onwards(following: str, known: set[str]) -> None:
    """Raise `Unreachable` where a page names one as the next that was read already: it would never end."""
    if following in known:
        raise Unreachable("Customer.io names a page as the next one that it had named before")
    known.add(following)
