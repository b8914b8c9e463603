"""Which Kustomer customer an identify is about, and writing it there: look-ups, a cache, and clashes."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeAlias

import msgspec
from msgspec import Struct

from towpath.destination import Memory
from towpath.http import Reply, Undelivered
from towpath.outcome import Rejected, Retry
from towpath.vendors.kustomer import NOT_FOUND, KustomerApi
from towpath.vendors.kustomer_schema import is_e164

KNOWN_FOR_S = 24 * 3600.0
ANONYMOUS_FOR_S = 400 * 24 * 3600.0
_NAMED = re.compile(r"\b(email|phone|whatsapp|social|externalId)s?\b").findall
# Must be unique as well, but cannot be looked up, or only in one of their forms.
_UNSEEN = frozenset({"phones", "whatsapps", "socials"})

Key: TypeAlias = tuple[str, str]
Report: TypeAlias = Callable[[str], None]


class Person(Struct, frozen=True):
    """One identify made ready. `keys` are the look-ups in order; `customer_id` is set where none is needed.

    `anonymous` says that externalId is an anonymousId; `own_ids` are all ids of this person in the message;
    `trusted` says that the source may speak for anybody (D13).
    """

    body: dict[str, Any]
    keys: tuple[Key, ...]
    customer_id: str = ""
    anonymous: bool = False
    own_ids: frozenset[str] = frozenset()
    trusted: bool = False


class Customer(Struct, frozen=True, array_like=True):
    """What a look-up or a write showed of a customer; kept in memory for a day."""

    id: str
    external_id: str = ""
    company: str = ""


def customer_in(reply: Reply) -> Customer | None:
    """The customer of a reply `{data: {id, attributes, relationships}}`; None when it shows no id."""
    answer = reply.json()
    data = _object(_object(answer).get("data"))
    found = data.get("id")
    if not isinstance(found, str) or not found:
        return None
    attributes = _object(data.get("attributes"))
    company = _object(_object(_object(data.get("relationships")).get("company")).get("data")).get("id")
    linked = _string(attributes.get("company")) or _string(company)
    return Customer(found, _string(attributes.get("externalId")), linked)


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _string(value: Any) -> str:
    return value if isinstance(value, str) else ""


class KnownCustomers:
    """Who an e-mail or externalId was yesterday, and which externalIds are anonymousIds.

    Losing the first costs look-ups. The second is kept nowhere else: without it, a client's user does not get
    the customer that the same person was as a visitor elsewhere.
    """

    def __init__(self, memory: Memory) -> None:
        self._memory = memory

    def find(self, key: Key) -> Customer | None:
        """The customer last seen under this key."""
        kept = self._memory.find("=".join(key))
        try:
            return None if kept is None else msgspec.json.decode(kept, type=Customer)
        except msgspec.DecodeError:  # written by another version
            return None

    def keep(self, key: Key, customer: Customer) -> None:
        """Remember a customer under this key."""
        self._memory.keep("=".join(key), msgspec.json.encode(customer).decode(), KNOWN_FOR_S)

    def drop(self, key: Key) -> None:
        """Forget this key."""
        self._memory.drop("=".join(key))

    def keep_anonymous(self, external_id: str) -> None:
        """Remember that towpath itself gave a customer this anonymousId as externalId."""
        self._memory.keep(f"anonymous={external_id}", "1", ANONYMOUS_FOR_S)

    def keep_user(self, external_id: str) -> None:
        """Remember that somebody has this externalId as userId, so that it counts as anonymous no longer."""
        self._memory.drop(f"anonymous={external_id}")

    def is_anonymous(self, external_id: str) -> bool:
        """Whether this externalId is known to be an anonymousId, hence nobody's userId."""
        return self._memory.find(f"anonymous={external_id}") is not None


class Identification:
    """One identify under way."""

    def __init__(
        self, person: Person, api: KustomerApi, known: KnownCustomers, report: Report, *, keep_company: bool
    ) -> None:
        self.person = person
        self.body = dict(person.body)
        self.api = api
        self.known = known
        self.report = report
        self.keep_company = keep_company

    async def run(self) -> None:
        """Update the customer there is, or create one. Raises `Undelivered`."""
        if self.person.customer_id:
            await self._update_by_id()
            return
        found = await self._find()
        if found is not None:
            try:
                await self._update(found)
                return
            except Undelivered as error:
                if _status(error) != NOT_FOUND:
                    raise
            # Merged or deleted since it was seen: look again, once.
            self._forget()
            found = await self._find()
        await (self._create() if found is None else self._update(found))

    async def _update_by_id(self) -> None:
        """Update without a look-up; an anonymousId might replace an externalId there, so it stays out."""
        body = self._without_anonymous_id() if self.person.anonymous else self.body
        await self._write(Customer(self.person.customer_id), body)

    async def _find(self) -> Customer | None:
        """The first customer that one of the keys leads to (K061)."""
        for key in self.person.keys:
            found = self.known.find(key) or await self._look_up(key)
            if found is None:
                continue
            if self._may_have(key, found):
                return found
            self._leave(key)
        return None

    async def _look_up(self, key: Key) -> Customer | None:
        reply = await self.api.find_customer(*key)
        if reply.status == NOT_FOUND:
            return None
        if (found := customer_in(reply)) is None:
            wrong = Retry(f"the look-up answered {reply.status} without a customer's id", code=reply.status)
            raise Undelivered(wrong)
        return found

    def _may_have(self, key: Key, found: Customer) -> bool:
        """Whether this person may be the customer found.

        One with another userId only where a look-up key led there (K061), and only for a trusted source: a
        client, with a userId or without, never takes what another userId holds (D13).
        """
        person, owner = self.person, found.external_id
        if key[0] == "externalId" or not owner or owner in person.own_ids or self.known.is_anonymous(owner):
            return True
        return person.trusted and key in person.keys

    async def _update(self, customer: Customer) -> None:
        body = self.body
        if self.person.anonymous and customer.external_id:
            body = self._without_anonymous_id()
        if self.keep_company and customer.company and "company" not in body:
            body = {**body, "company": customer.company}
        await self._write(customer, body)

    def _without_anonymous_id(self) -> dict[str, Any]:
        return {key: value for key, value in self.body.items() if key != "externalId"}

    async def _write(self, customer: Customer, body: dict[str, Any]) -> None:
        """PUT; refused as a duplicate, once more without what another customer holds (K071)."""
        try:
            reply = await self.api.update_customer(customer.id, body)
        except Undelivered as error:
            if (named := _clash(error, body)) is None:
                raise
            body = await self._without_clash(customer, body, named, error)
            reply = await self.api.update_customer(customer.id, body)
        self._remember(reply, customer, body)

    async def _create(self) -> None:
        """POST; refused as a duplicate, look for the customer there is and update it (K071)."""
        try:
            reply = await self.api.create_customer(self.body)
        except Undelivered as error:
            if (named := _clash(error, self.body)) is None:
                raise
            await self._create_after_clash(named, error)
        else:
            self._remember(reply, customer_in(reply), self.body)

    async def _create_after_clash(self, named: frozenset[str], clash: Undelivered) -> None:
        before = dict(self.body)
        for key in dict.fromkeys((*self.person.keys, *_identifiers(before))):
            if (holder := await self._look_up(key)) is None:
                continue
            if self._may_have(key, holder):
                await self._update(holder)
                return
            self._leave(key)
        if self.body == before:
            self.body = self._without_named(before, named & _UNSEEN, clash)
        reply = await self.api.create_customer(self.body)
        self._remember(reply, customer_in(reply), self.body)

    async def _without_clash(
        self, customer: Customer, body: dict[str, Any], named: frozenset[str], clash: Undelivered
    ) -> dict[str, Any]:
        """The body without the identifiers that other customers hold."""
        left = dict(body)
        for key in _identifiers(body):
            if named and _field(key) not in named:
                continue
            holder = await self._look_up(key)
            if holder is not None and holder.id != customer.id:
                left = _without(left, key)
                self._report_left(key[0])
        if left != body:
            return left
        return self._without_named(body, named, clash)

    def _without_named(
        self, body: Mapping[str, Any], named: frozenset[str], clash: Undelivered
    ) -> dict[str, Any]:
        """The body without whole fields. Raises the clash where it has none of them."""
        if not (fields := named & body.keys()):
            raise clash
        for field in sorted(fields):
            self._report_left(field)
        return {field: value for field, value in body.items() if field not in fields}

    def _leave(self, key: Key) -> None:
        self.body = _without(self.body, key)
        self._report_left(key[0])

    def _report_left(self, name: str) -> None:
        self.report(f"{name} left out: another customer at Kustomer holds it; nothing was merged")

    def _remember(self, reply: Reply, customer: Customer | None, body: Mapping[str, Any]) -> None:
        """Keep who this was under the keys that now lead there, and only under these."""
        self._forget()
        seen = customer_in(reply)
        if (before := customer or seen) is None:
            return
        after = seen or Customer(before.id)
        external_id = after.external_id or body.get("externalId") or before.external_id
        company = after.company or body.get("company") or before.company
        held = {("externalId", external_id), *_identifiers(body)}
        for key in self.person.keys:
            if key in held:
                self.known.keep(key, Customer(before.id, external_id, company))
        if "externalId" in body:
            keep = self.known.keep_anonymous if self.person.anonymous else self.known.keep_user
            keep(body["externalId"])

    def _forget(self) -> None:
        for key in self.person.keys:
            self.known.drop(key)


def _status(error: Undelivered) -> int:
    return error.outcome.code if isinstance(error.outcome, Rejected) else 0


def _clash(error: Undelivered, body: Mapping[str, Any]) -> frozenset[str] | None:
    """The identifier fields that a refused duplicate names, maybe none; None when it is no such refusal.

    Kustomer's status for it is not documented: 409 most likely, 400 possible. A 409 is also the answer to a
    stale `rev`.
    """
    answer = error.exchange.answer if error.exchange else ""
    named = frozenset("externalId" if name == "externalId" else f"{name}s" for name in _NAMED(answer))
    status = _status(error)
    if status == 409 and (named or "rev" not in body):
        return named
    return named if status == 400 and named else None


def _identifiers(body: Mapping[str, Any]) -> Iterator[Key]:
    """What must be unique at Kustomer in this body, as look-up keys."""
    for item in body.get("emails", ()):
        yield "email", item["email"]
    if "externalId" in body:
        yield "externalId", body["externalId"]
    for item in body.get("phones", ()):
        if is_e164(item["phone"]):
            yield "phone", item["phone"]


def _field(key: Key) -> str:
    return "externalId" if key[0] == "externalId" else f"{key[0]}s"


def _without(body: dict[str, Any], key: Key) -> dict[str, Any]:
    """The body without one identifier; a list that would be empty goes with it, for an empty one clears."""
    field, name = _field(key), key[0]
    if field == name:
        return {kept: value for kept, value in body.items() if kept != field}
    items = [item for item in body.get(field, ()) if item[name] != key[1]]
    return {kept: items if kept == field else value for kept, value in body.items() if kept != field or items}
