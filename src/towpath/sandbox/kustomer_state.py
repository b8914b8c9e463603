"""What the simulated Kustomer organisation holds: customers, their events, merges and bulk jobs."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, Literal

import msgspec
from msgspec import Struct

from towpath.clock import Clock

DUPLICATE_WINDOW_S = 60.0
_SESSION_GAP_S = 1800.0
_LISTS = {
    "emails": "email",
    "phones": "phone",
    "whatsapps": "phone",
    "socials": "username",
    "externalIds": "externalId",
}


class Switches(Struct, frozen=True, kw_only=True):
    """Behaviour that Kustomer does not document; the defaults are the likelier or the less kind reading."""

    missing_role_status: Literal[403, 401] = 403
    duplicate_status: Literal[409, 400] = 409
    error_shape: Literal[1, 2] = 2
    unite_arrays: bool = False
    keep_company: bool = False
    boolean_meta: bool = False
    null_meta: bool = True


class Event(Struct, frozen=True, gc=False):
    """One tracking event as it was kept. `at` is the arrival in Unix seconds: Kustomer has no other time."""

    id: str
    name: str
    meta: dict[str, Any]
    at: float
    session_id: str
    tracking_id: str
    oddities: tuple[str, ...] = ()


class Customer(Struct):
    """One customer. `attributes` are those that were written; times are Unix seconds."""

    id: str
    attributes: dict[str, Any]
    tracking_id: str
    created_at: float
    updated_at: float
    rev: int = 1
    session_id: str = ""
    last_event_at: float = 0.0


class Conflict(Exception):
    """A write that would give a second customer the same identifier, or that carries a stale `rev`."""

    def __init__(self, parameter: str, detail: str = "duplicate detected") -> None:
        super().__init__(detail)
        self.parameter = parameter
        self.detail = detail


def stamp(at: float) -> str:
    """Write Unix seconds as Kustomer writes times: UTC with milliseconds."""
    second = int(at // 1)
    return f"{_second(second)}.{int((at - second) * 1000):03d}Z"


@lru_cache(maxsize=1024)
def _second(at: int) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def normal(kind: str, value: str) -> str:
    """Return an identifier as it is compared: e-mails without case, phones by their digits."""
    if kind in {"phones", "whatsapps"}:
        return "".join(filter(str.isdigit, value))
    return value if kind == "externalIds" else value.strip().lower()


def identifiers(attributes: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield what must be unique in the organisation, as (attribute, value as compared)."""
    for kind, key in _LISTS.items():
        for item in attributes.get(kind) or ():
            value = normal(kind, item[key])
            yield kind, f"{item['type']}:{value}" if kind == "socials" else value


class KustomerState:
    """The organisation's records, and what a test wants to know about them.

    `customers` by id; `events` per customer id in the order they arrived; `anonymous` events per tracking id.
    `duplicates` counts events equal in customer, name, meta and ids to one of the last 60 seconds: Kustomer
    keeps both. `semantic_warnings` counts events taken with values that are "not semantically correct".
    `identity_conflicts` counts identities whose identifiers belong to different customers.
    """

    def __init__(self, clock: Clock, switches: Switches) -> None:
        self.customers: dict[str, Customer] = {}
        self.events: dict[str, list[Event]] = {}
        self.anonymous: dict[str, list[Event]] = {}
        self.event_count = 0
        self.duplicates = 0
        self.semantic_warnings = 0
        self.identity_conflicts = 0
        self._clock = clock
        self._switches = switches
        self._serial = 0
        self._owners: dict[tuple[str, str], str] = {}
        self._tracked: dict[str, str] = {}
        self._recent: dict[tuple[str, bytes], float] = {}
        self._recent_order: deque[tuple[float, tuple[str, bytes]]] = deque()

    def new_id(self) -> str:
        """Make a 24-hex id: the second, then a serial number."""
        self._serial += 1
        return f"{int(self._clock.now()):08x}{self._serial:016x}"

    def find(self, kind: str, value: str) -> Customer | None:
        """Find the customer that owns an identifier."""
        owner = self._owners.get((kind, normal(kind, value)))
        return self.customers[owner] if owner else None

    def create(self, attributes: Mapping[str, Any]) -> Customer:
        """Make a customer. Raises `Conflict` when an identifier is taken."""
        given = _with_external_id({}, attributes)
        self._refuse_taken(given, "")
        now = self._clock.now()
        customer = Customer(self.new_id(), given, self.new_id(), now, now)
        self.customers[customer.id] = customer
        self.events[customer.id] = []
        self._tracked[customer.tracking_id] = customer.id
        self._own(customer)
        return customer

    def update(self, customer: Customer, changes: Mapping[str, Any], *, replace: bool = False) -> None:
        """Change a customer. Raises `Conflict`, with nothing changed."""
        if "rev" in changes and changes["rev"] != customer.rev:
            raise Conflict("rev", f"stale rev {changes['rev']}, the current one is {customer.rev}")
        before = {} if replace else customer.attributes
        given = _without_rev(before, changes)
        if self._switches.unite_arrays:
            given = _united(before, given)
        after = _with_external_id(before, given)
        if not (replace or self._switches.keep_company or "company" in changes):
            after.pop("company", None)
        self._write(customer, after)

    def delete(self, customer: Customer) -> None:
        """Forget a customer and its events."""
        self._disown(customer)
        self._tracked.pop(customer.tracking_id, None)
        del self.customers[customer.id], self.events[customer.id]

    def merge(self, source: Customer, target: Customer) -> None:
        """Join `source` into `target`: the target's single values win, lists are united, events move."""
        joined = {**source.attributes, **_united(source.attributes, target.attributes)}
        if "custom" in joined:
            joined["custom"] = {**source.attributes.get("custom", {}), **target.attributes.get("custom", {})}
        moved = [*self.events[source.id], *self.events[target.id]]
        self.delete(source)
        self._tracked[source.tracking_id] = target.id
        self._write(target, joined)
        self.events[target.id] = sorted(moved, key=lambda event: (event.at, event.id))

    def identify(self, identity: dict[str, Any]) -> Customer:
        """Find the customer of a tracking identity by e-mail, phone or externalId, or make one."""
        customer = self._matching(identity)
        if customer is None:
            customer = self.create(_attributes_of(identity))
        elif identity.keys() - {"externalId", "trackingId", "sessionId", "remember"}:
            self._learn(customer, identity)
        if "trackingId" in identity:
            self._claim(customer, identity["trackingId"])
        return customer

    def track(self, customer: Customer, event: dict[str, Any], oddities: Iterable[str] = ()) -> Event:
        """Keep an event of a customer; a repetition is kept too, and counted."""
        now = self._clock.now()
        self._count_duplicate(customer.id, event, now)
        kept = self._keep(event, now, self._session(customer, event, now), customer.tracking_id, oddities)
        customer.last_event_at = now
        self.events[customer.id].append(kept)
        return kept

    def track_anonymous(self, event: dict[str, Any], oddities: Iterable[str] = ()) -> Event:
        """Keep an event that names nobody: for the customer of its trackingId, else until one claims it."""
        tracking_id = event.get("trackingId", "")
        owner = self.customers.get(self._tracked.get(tracking_id, ""))
        if owner is not None:
            return self.track(owner, event, oddities)
        now = self._clock.now()
        kept = self._keep(event, now, event.get("sessionId", ""), tracking_id, oddities)
        self.anonymous.setdefault(tracking_id, []).append(kept)
        return kept

    def names(self, customer: Customer) -> str:
        """Return what people call a customer: its externalId, else its e-mail, else its id."""
        attributes = customer.attributes
        emails = attributes.get("emails") or [{}]
        return attributes.get("externalId") or emails[0].get("email") or customer.id

    def _write(self, customer: Customer, after: dict[str, Any]) -> None:
        self._refuse_taken(after, customer.id)
        self._disown(customer)
        customer.attributes = after
        customer.rev += 1
        customer.updated_at = self._clock.now()
        self._own(customer)

    def _keep(
        self, event: dict[str, Any], now: float, session_id: str, tracking_id: str, oddities: Iterable[str]
    ) -> Event:
        self.event_count += 1
        found = tuple(oddities)
        self.semantic_warnings += bool(found)
        return Event(
            self.new_id(),
            event["name"],
            event.get("meta") or {},
            now,
            session_id,
            event.get("trackingId", tracking_id),
            found,
        )

    def _session(self, customer: Customer, event: dict[str, Any], now: float) -> str:
        given = event.get("sessionId")
        if given:
            return str(given)
        if not customer.session_id or now - customer.last_event_at > _SESSION_GAP_S:
            customer.session_id = self.new_id()
        return customer.session_id

    def _count_duplicate(self, customer_id: str, event: dict[str, Any], now: float) -> None:
        while self._recent_order and self._recent_order[0][0] < now - DUPLICATE_WINDOW_S:
            at, key = self._recent_order.popleft()
            if self._recent.get(key) == at:
                del self._recent[key]
        key = (customer_id, msgspec.json.encode(event))
        self.duplicates += key in self._recent
        self._recent[key] = now
        self._recent_order.append((now, key))

    def _matching(self, identity: dict[str, Any]) -> Customer | None:
        found = [self.find(kind, value) for kind, value in _identity_values(identity)]
        owners = [customer for customer in found if customer is not None]
        if len({customer.id for customer in owners}) > 1:
            self.identity_conflicts += 1
        if owners or "trackingId" not in identity or found:
            return owners[0] if owners else None
        return self.customers.get(self._tracked.get(identity["trackingId"], ""))

    def _learn(self, customer: Customer, identity: dict[str, Any]) -> None:
        given = _attributes_of(identity)
        for kind in ("emails", "phones", "externalIds"):
            if kind in given and self.find(kind, given[kind][0][_LISTS[kind]]) is not None:
                del given[kind]
        given = {key: value for key, value in given.items() if customer.attributes.get(key) != value}
        if given:
            united = _united(customer.attributes, _without_rev(customer.attributes, given))
            self._write(customer, _with_external_id(customer.attributes, united))

    def _claim(self, customer: Customer, tracking_id: str) -> None:
        self._tracked[tracking_id] = customer.id
        self.events[customer.id].extend(self.anonymous.pop(tracking_id, ()))

    def _refuse_taken(self, attributes: Mapping[str, Any], own_id: str) -> None:
        for kind, value in identifiers(attributes):
            if self._owners.get((kind, value), own_id) != own_id:
                raise Conflict(kind)

    def _own(self, customer: Customer) -> None:
        for identifier in identifiers(customer.attributes):
            self._owners[identifier] = customer.id

    def _disown(self, customer: Customer) -> None:
        for identifier in identifiers(customer.attributes):
            self._owners.pop(identifier, None)


def _identity_values(identity: Mapping[str, Any]) -> Iterator[tuple[str, str]]:
    for key, kind in (("email", "emails"), ("phone", "phones"), ("externalId", "externalIds")):
        if identity.get(key):
            yield kind, identity[key]


def _attributes_of(identity: Mapping[str, Any]) -> dict[str, Any]:
    """Turn a tracking identity into customer attributes."""
    single = {"name", "company", "username", "signedUpAt", "birthdayAt", "gender", "locale", "timeZone"}
    taken = {key: value for key, value in identity.items() if key in single | {"tags", "custom"}}
    for kind, value in _identity_values(identity):
        taken[kind] = [{_LISTS[kind]: value, "verified": kind == "externalIds"}]
    if "location" in identity:
        taken["locations"] = [identity["location"]]
    return taken


def _with_external_id(before: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Apply changes, with the single externalId and the list of them kept in step."""
    after = {**before, **changes}
    single, several = after.get("externalId"), after.get("externalIds") or []
    if "externalId" in changes and "externalIds" not in changes:
        several = [item for item in several if item["externalId"] != before.get("externalId")]
    if single and "externalId" in changes and all(item["externalId"] != single for item in several):
        several = [{"externalId": single, "verified": True}, *several]
    if not single and several:
        after["externalId"] = several[0]["externalId"]
    if several or "externalIds" in after:
        after["externalIds"] = several
    return after


def _without_rev(before: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Return the attributes to write: custom ones join those that are there."""
    given = {key: value for key, value in changes.items() if key != "rev"}
    if "custom" in given:
        given["custom"] = {**before.get("custom", {}), **given["custom"]}
    return given


def _united(before: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """Join the lists of `changes` with those of `before`."""
    return {
        key: _union(value, before.get(key, ())) if isinstance(value, list) else value
        for key, value in changes.items()
    }


def _union(first: Iterable[Any], second: Iterable[Any]) -> list[Any]:
    united = list(first)
    united.extend(item for item in second if item not in united)
    return united
