"""A Kustomer that lives in memory: its API as an ASGI app that refuses what Kustomer refuses."""

from __future__ import annotations

import re
import zlib
from collections import deque
from collections.abc import Callable, Collection, Mapping
from typing import Any, TypeAlias
from urllib.parse import parse_qs, unquote

import msgspec
from msgspec import Struct

from towpath.clock import Clock, SystemClock

from .exchange import Answer, ASGIScope, Incoming, Receive, Send
from .faults import Faults
from .front import Front
from .kustomer_bulk import Bulk, Job
from .kustomer_documents import (
    Refusal,
    customer_record,
    event_record,
    identity_document,
    link,
    listing,
    not_found,
    record,
    session_records,
    token_record,
    user_record,
)
from .kustomer_schema import (
    Invalid,
    Meta,
    check_customer,
    check_identity,
    check_merge,
    event_rule,
    identity_event_rule,
    oddities,
)
from .kustomer_search import PAGES_LIMIT, found
from .kustomer_state import Conflict, Customer, KustomerState, Switches, identifiers, stamp

DEFAULT_KEY = "sandbox-kustomer-key"
DEFAULT_ROLES = (
    "org.permission.customer.create",
    "org.permission.customer.read",
    "org.permission.customer.update",
    "org.permission.event.read",
    "org.tracking",
)
BODY_LIMIT_BYTES = 100 * 1024
WINDOW_S = 60
PAGE_SIZE_LIMIT = 500
"""Not documented (the default of 100 is); Kustomer's published tap asks for 300."""

_CREATE = ("org.permission.customer.create", "org.user.customer.write")
_READ = ("org.permission.customer.read", "org.user.customer.read")
_UPDATE = ("org.permission.customer.update", "org.user.customer.write")
_DELETE = ("org.permission.customer.delete", "org.user.customer.delete")
_MERGE = ("org.permission.customer_merge.create", "org.user.customer.write", "org.admin.customer.merge.write")
_SEARCH = ("org.permission.search.create", "org.user.search.read")
_BULK = ("org.permission.bulk.read", "org.user.bulk.read")
_EVENTS = ("org.permission.event.read", "org.user.event.read")
_TRACKING = ("org.tracking",)

_decode = msgspec.json.Decoder().decode
_encode = msgspec.json.Encoder().encode


class Seen(Struct, frozen=True, gc=False):
    """One request as it was handled. `status` 0 means that it was cut before anything was handled."""

    method: str
    path: str
    query: str
    body: bytes
    status: int
    at: float


class Call(Struct, frozen=True, gc=False):
    """A request on its way to an endpoint: the key it came with, and the values of its path, decoded."""

    request: Incoming
    token: str
    values: tuple[str, ...] = ()

    def query(self, name: str, default: str = "") -> str:
        """Return a value of the query."""
        return parse_qs(self.request.query).get(name, [default])[0]


Endpoint: TypeAlias = Callable[[Call], tuple[int, Any]]
Route: TypeAlias = tuple[Endpoint, Collection[str]]


class KustomerSimulator:
    """One Kustomer organisation: an ASGI app, its `state`, its `requests` (the newest), its `faults`.

    `api_keys` maps keys to roles; `foreign_keys` maps keys of other regions to their pod. The limits are per
    minute of `clock`: the organisation's, the updates of one customer by one key (the number is not
    published), and searches. Bulk jobs are done `bulk_delay_s` after their request. `control` adds the routes
    under `/_sandbox/`; they know no authentication and are for development only.
    """

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        api_keys: Mapping[str, Collection[str]] | None = None,
        foreign_keys: Mapping[str, str] | None = None,
        pod: str = "prod1",
        requests_per_minute: int = 1000,
        updates_per_minute: int = 120,
        searches_per_minute: int = 100,
        bulk_delay_s: float = 0.2,
        switches: Switches | None = None,
        seed: int = 0,
        kept_requests: int = 10_000,
        control: bool = False,
    ) -> None:
        self.clock = clock or SystemClock()
        self.switches = switches or Switches()
        self.state = KustomerState(self.clock, self.switches)
        self.faults = Faults(self.clock, seed)
        self.requests: deque[Seen] = deque(maxlen=kept_requests)
        self.api_keys = {
            key: tuple(roles) for key, roles in (api_keys or {DEFAULT_KEY: DEFAULT_ROLES}).items()
        }
        self.foreign_keys = dict(foreign_keys or {})
        self.pod = pod
        self.bulk = Bulk(self.state, self.clock, bulk_delay_s)
        self.requests_per_minute = requests_per_minute
        self.updates_per_minute = updates_per_minute
        self.searches_per_minute = searches_per_minute
        self._window = 0
        self._spent = 0
        self._spent_on: dict[tuple[str, str], int] = {}
        meta = Meta(booleans=self.switches.boolean_meta, nulls=self.switches.null_meta)
        self._check_event = event_rule(meta)
        self._check_identity_event = identity_event_rule(meta)
        self._exact, self._patterns = self._routes()
        self._front = Front(
            self.answer,
            self.faults,
            names=self._concerns,
            met=self._remember,
            summary=self.summary if control else None,
        )

    async def __call__(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        await self._front(scope, receive, send)

    def answer(self, request: Incoming) -> Answer:
        """Handle one request as if there were no faults."""
        self.bulk.settle()
        try:
            status, document = self._handled(request)
            body = b"" if document is None else _encode(document)
        except Refusal as refusal:
            status, body = refusal.status, refusal.body(self.switches.error_shape)
        self._remember(request, status)
        return Answer(status, body, self._headers(status, body))

    def summary(self) -> dict[str, Any]:
        """Return counts, and per person (the newest 1,000) the names of the newest 100 events in order."""
        newest = list(self.state.customers.values())[-1000:]
        return {
            "customers": len(self.state.customers),
            "events": self.state.event_count,
            "duplicates": self.state.duplicates,
            "semantic_warnings": self.state.semantic_warnings,
            "requests": len(self.requests),
            "faults": self.faults.met,
            "people": {
                self.state.names(customer): [event.name for event in self.state.events[customer.id][-100:]]
                for customer in newest
            },
        }

    def _remember(self, request: Incoming, status: int) -> None:
        now = self.clock.now()
        self.requests.append(Seen(request.method, request.path, request.query, request.body, status, now))

    def _concerns(self, request: Incoming, person: str) -> bool:
        """Tell whether a request names a person, in its body or by its path."""
        if _encode(person) in request.body:
            return True
        last = unquote(request.path.rpartition("/")[2])
        if person in {last, last.partition("=")[2]}:
            return True
        customer = self.state.customers.get(last)
        return customer is not None and person in {value for _, value in identifiers(customer.attributes)}

    def _headers(self, status: int, body: bytes) -> list[tuple[bytes, bytes]]:
        left = max(0, self.requests_per_minute - self._spent)
        headers = [
            (b"content-type", b"application/json; charset=utf-8"),
            (b"cache-control", b"no-cache,private"),
            (b"etag", b'W/"%x-%08x"' % (len(body), zlib.crc32(body))),
            (b"x-kustomer-pod", self.pod.encode()),
            (b"x-ratelimit-limit", b"%d" % self.requests_per_minute),
            (b"x-ratelimit-remaining", b"%d" % left),
        ]
        if status == 429:
            headers.append((b"x-ratelimit-reset", b"%d" % ((self._window + 1) * WINDOW_S)))
        return headers

    def _handled(self, request: Incoming) -> tuple[int, Any]:
        token, roles = self._authenticated(request)
        self._spend()
        (endpoint, needed), values = self._routed(request)
        self._authorize(roles, needed)
        if request.size > BODY_LIMIT_BYTES:
            raise Refusal(413, "toolarge", "request entity too large")
        try:
            return endpoint(Call(request, token, values))
        except Invalid as problem:
            raise Refusal(400, "badparam", problem.title, problem.parameter, problem.path) from None
        except Conflict as conflict:
            status = self.switches.duplicate_status if conflict.parameter != "rev" else 409
            raise Refusal(status, "conflict", "Conflict", conflict.parameter, conflict.detail) from None

    def _authenticated(self, request: Incoming) -> tuple[str, tuple[str, ...]]:
        scheme, _, token = request.header(b"authorization").partition(" ")
        roles = self.api_keys.get(token)
        if roles is not None and scheme.lower() == "bearer":
            return token, roles
        if token in self.foreign_keys:
            pods = f"pod {self.foreign_keys[token]} but request is being handled by {self.pod}"
            raise Refusal(401, "unauthorized", f"Auth token associated with {pods}")
        raise Refusal(401, "unauthorized", "Unauthorized", "", "invalid auth token")

    def _spend(self) -> None:
        window = int(self.clock.now() // WINDOW_S)
        if window != self._window:
            self._window, self._spent = window, 0
            self._spent_on.clear()
        if self._spent >= self.requests_per_minute:
            raise Refusal(429, "toomanyrequests", "Too Many Requests", "", "organisation rate limit")
        self._spent += 1

    def _spend_on(self, what: str, token: str, limit: int) -> None:
        spent = self._spent_on.get((what, token), 0)
        if spent >= limit:
            raise Refusal(429, "toomanyrequests", "Too Many Requests", "", f"{what} rate limit")
        self._spent_on[what, token] = spent + 1

    def _routed(self, request: Incoming) -> tuple[Route, tuple[str, ...]]:
        path = request.path.rstrip("/")
        route = self._exact.get((request.method, path))
        if route is not None:
            return route, ()
        for method, pattern, candidate in self._patterns:
            match = pattern.fullmatch(path) if method == request.method else None
            if match:
                return candidate, tuple(map(unquote, match.groups()))
        raise not_found("url")

    def _authorize(self, roles: Collection[str], needed: Collection[str]) -> None:
        if needed and not any(_grants(role, wanted) for role in roles for wanted in needed):
            detail = f"missing role, one of {', '.join(needed)}"
            raise Refusal(self.switches.missing_role_status, "forbidden", "Forbidden", "", detail)

    def _routes(self) -> tuple[dict[tuple[str, str], Route], list[tuple[str, re.Pattern[str], Route]]]:
        exact: dict[tuple[str, str], Route] = {
            ("GET", "/v1/auth/tokens/current"): (self._current_token, ()),
            ("GET", "/v1/users/current"): (self._current_user, ()),
            ("POST", "/v1/customers"): (self._create, _CREATE),
            ("GET", "/v1/customers"): (self._list, _READ),
            ("POST", "/v1/customers/bulk"): (self._bulk_create, _CREATE),
            ("PUT", "/v1/customers/bulk"): (self._bulk_update, _UPDATE),
            ("DELETE", "/v1/customers/bulk"): (self._bulk_delete, _DELETE),
            ("POST", "/v1/customers/merges"): (self._merge, _MERGE),
            ("POST", "/v1/customers/search"): (self._search, _SEARCH),
            ("POST", "/v1/tracking/identity"): (self._identity, _TRACKING),
            ("POST", "/v1/tracking/event"): (self._event, _TRACKING),
            ("POST", "/v1/tracking/identityEvent"): (self._identity_event, _TRACKING),
        }
        patterns: list[tuple[str, str, Route]] = [
            ("GET", "/v1/customers/(email|externalId|phone)=([^/]+)", (self._look_up, _READ)),
            ("GET", "/v1/customers/([^/]+)", (self._read, _READ)),
            ("PUT", "/v1/customers/([^/]+)", (self._update, _UPDATE)),
            ("PATCH", "/v1/customers/([^/]+)", (self._update, _UPDATE)),
            ("DELETE", "/v1/customers/([^/]+)", (self._delete, _DELETE)),
            ("GET", "/v1/customers/([^/]+)/events", (self._events, _EVENTS)),
            ("GET", "/v1/customers/([^/]+)/events/([^/]+)", (self._one_event, _EVENTS)),
            ("GET", "/v1/customers/([^/]+)/sessions", (self._sessions, _EVENTS)),
            ("GET", "/v1/customers/([^/]+)/sessions/([^/]+)/events", (self._session_events, _EVENTS)),
            ("GET", "/v1/bulk/([^/]+)", (self._bulk_status, _BULK)),
            ("GET", "/v1/bulk/([^/]+)/batches", (self._bulk_batches, _BULK)),
        ]
        return exact, [(method, re.compile(pattern), route) for method, pattern, route in patterns]

    def _current_token(self, call: Call) -> tuple[int, Any]:
        at = stamp(self.clock.now())
        return 200, {"data": token_record(call.token, self.api_keys[call.token], at)}

    def _current_user(self, call: Call) -> tuple[int, Any]:
        return 200, {"data": user_record(self.api_keys[call.token], stamp(self.clock.now()))}

    def _identity_event(self, call: Call) -> tuple[int, Any]:
        body = _json(call.request)
        self._check_identity_event(body)
        identity, event = body["identity"], body["event"]
        customer = self.state.identify(identity)
        self.state.track(customer, event, oddities(event.get("meta") or {}))
        return 201, self._identified(customer, identity)

    def _identity(self, call: Call) -> tuple[int, Any]:
        identity = _json(call.request)
        check_identity(identity)
        return 201, self._identified(self.state.identify(identity), identity)

    def _event(self, call: Call) -> tuple[int, Any]:
        event = _json(call.request)
        self._check_event(event)
        self.state.track_anonymous(event, oddities(event.get("meta") or {}))
        return 204, None

    def _identified(self, customer: Customer, identity: Mapping[str, Any]) -> dict[str, Any]:
        at = stamp(self.clock.now())
        return identity_document(customer, self.state.new_id(), identity.get("email"), at)

    def _create(self, call: Call) -> tuple[int, Any]:
        body = _json(call.request)
        check_customer(body)
        return 201, {"data": customer_record(self.state.create(body))}

    def _read(self, call: Call) -> tuple[int, Any]:
        return 200, {"data": customer_record(self._customer(call))}

    def _look_up(self, call: Call) -> tuple[int, Any]:
        parameter, value = call.values
        kind = {"email": "emails", "externalId": "externalIds", "phone": "phones"}[parameter]
        customer = self.state.find(kind, value)
        if customer is None:
            raise not_found(parameter)
        return 200, {"data": customer_record(customer)}

    def _list(self, call: Call) -> tuple[int, Any]:
        page, size = _page(call)
        customers = list(self.state.customers.values())
        return 200, listing("/v1/customers", customers, customer_record, page, size)

    def _update(self, call: Call) -> tuple[int, Any]:
        customer = self._customer(call)
        body = _json(call.request)
        check_customer(body)
        self._spend_on(f"customer {customer.id}", call.token, self.updates_per_minute)
        replace = call.request.method == "PUT" and call.query("replace") == "true"
        self.state.update(customer, body, replace=replace)
        return 200, {"data": customer_record(customer)}

    def _delete(self, call: Call) -> tuple[int, Any]:
        self.state.delete(self._customer(call))
        return 204, None

    def _merge(self, call: Call) -> tuple[int, Any]:
        body = _json(call.request)
        check_merge(body)
        pair = [self.state.customers.get(body[side]) for side in ("source", "target")]
        if pair[0] is None or pair[1] is None:
            raise not_found("source" if pair[0] is None else "target")
        if pair[0] is pair[1]:
            raise Refusal(400, "badparam", "source and target are the same customer", "target")
        self.state.merge(pair[0], pair[1])
        at, merge_id = stamp(self.clock.now()), self.state.new_id()
        sides = {side: link("customer", "customers", body[side]) for side in ("source", "target")}
        attributes = {"status": "success", "createdAt": at, "updatedAt": at}
        path = f"/v1/customers/merges/{merge_id}"
        return 201, {"data": record("customer_merge", merge_id, attributes, sides, path)}

    def _search(self, call: Call) -> tuple[int, Any]:
        self._spend_on("search", call.token, self.searches_per_minute)
        page, size = _page(call)
        if page > PAGES_LIMIT:
            raise Refusal(400, "badparam", f"a search has at most {PAGES_LIMIT} pages", "page")
        customers = found(self.state.customers.values(), _json(call.request))
        pages = max(1, -(-len(customers) // size))
        more = {"pageSize": size, "page": page, "total": len(customers), "totalPages": pages}
        document = listing("/v1/customers/search", customers, customer_record, page, size)
        return 200, {**document, "meta": {**more, "aggregations": {}}}

    def _events(self, call: Call) -> tuple[int, Any]:
        return self._event_list(call, "")

    def _session_events(self, call: Call) -> tuple[int, Any]:
        return self._event_list(call, call.values[1])

    def _event_list(self, call: Call, session_id: str) -> tuple[int, Any]:
        customer = self._customer(call)
        page, size = _page(call)
        kept = [event for event in self.state.events[customer.id] if session_id in {"", event.session_id}]
        return 200, listing(call.request.path, kept, lambda event: event_record(customer, event), page, size)

    def _one_event(self, call: Call) -> tuple[int, Any]:
        customer = self._customer(call)
        for event in self.state.events[customer.id]:
            if event.id == call.values[1]:
                return 200, {"data": event_record(customer, event)}
        raise not_found("eventId")

    def _sessions(self, call: Call) -> tuple[int, Any]:
        customer = self._customer(call)
        page, size = _page(call)
        sessions = session_records(customer, self.state.events[customer.id])
        return 200, listing(call.request.path, sessions, dict, page, size)

    def _bulk_create(self, call: Call) -> tuple[int, Any]:
        return 201, self.bulk.document(self.bulk.take("create", _json(call.request)))

    def _bulk_update(self, call: Call) -> tuple[int, Any]:
        body, ids = _json(call.request), _ids(call)
        if ids and not isinstance(body, dict):
            raise Refusal(400, "badparam", "with ids in the query the body is one object", "body")
        items = [{**body, "id": customer_id} for customer_id in ids] if ids else body
        return 201, self.bulk.document(self.bulk.take("update", items))

    def _bulk_delete(self, call: Call) -> tuple[int, Any]:
        items = [{"id": customer_id} for customer_id in _ids(call)]
        return 201, self.bulk.document(self.bulk.take("delete", items))

    def _bulk_status(self, call: Call) -> tuple[int, Any]:
        return 200, self.bulk.document(self._job(call))

    def _bulk_batches(self, call: Call) -> tuple[int, Any]:
        return 200, self.bulk.batches(self._job(call))

    def _job(self, call: Call) -> Job:
        job = self.bulk.jobs.get(call.values[0])
        if job is None:
            raise not_found("id")
        return job

    def _customer(self, call: Call) -> Customer:
        customer = self.state.customers.get(call.values[0])
        if customer is None:
            raise not_found("id")
        return customer


def _grants(role: str, wanted: str) -> bool:
    """Tell whether a role is the wanted one or a parent of it (that parents grant is likely, not certain)."""
    return role == wanted or wanted.startswith(role + ".")


def _json(request: Incoming) -> Any:
    if not request.header(b"content-type").lower().startswith("application/json"):
        raise Refusal(400, "badparam", "the body must be JSON, with Content-Type: application/json", "body")
    try:
        return _decode(request.body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        raise Refusal(400, "badparam", "the body is no JSON", "body") from None


def _ids(call: Call) -> list[str]:
    return [customer_id for customer_id in call.query("ids").split(",") if customer_id]


def _page(call: Call) -> tuple[int, int]:
    page, size = call.query("page", "1"), call.query("pageSize", "100")
    if not (page.isdecimal() and size.isdecimal() and int(page) >= 1 and 1 <= int(size) <= PAGE_SIZE_LIMIT):
        raise Refusal(400, "badparam", f"page starts at 1, pageSize is 1 to {PAGE_SIZE_LIMIT}", "page")
    return int(page), int(size)
