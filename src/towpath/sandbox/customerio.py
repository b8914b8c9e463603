"""A Customer.io that lives in memory: its three APIs as one ASGI app, refusing what Customer.io refuses."""

from __future__ import annotations

import base64
import binascii
import zlib
from collections import deque
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

import msgspec
from msgspec import Struct

from towpath.clock import Clock, SystemClock

from .customerio_app import App
from .customerio_exchange import (
    Allowance,
    Answered,
    Call,
    Refusal,
    Routes,
    app_error,
    inflated,
    track_error,
)
from .customerio_identity import Profiles
from .customerio_limits import Invalid
from .customerio_objects import Objects
from .customerio_pipelines import STRICT_HEADER, Pipelines
from .customerio_state import CustomerIoState, Event, Identifiers, Person, Switches
from .customerio_track import ItemFault, Track
from .customerio_webhooks import Webhooks
from .exchange import Answer, ASGIScope, Incoming, Receive, Send
from .faults import Faults
from .front import Front
from .kustomer import Seen

Region: TypeAlias = Literal["us", "eu"]
TRACK_URLS: Mapping[str, str] = {"us": "https://track.customer.io", "eu": "https://track-eu.customer.io"}
APP_URLS: Mapping[str, str] = {"us": "https://api.customer.io", "eu": "https://api-eu.customer.io"}
REGION_PATH = "/api/v1/accounts/region"
TRACK_WINDOW_S = 3.0
"""The soft limit of the Track API: so many requests a second, looked at over three."""
APP_PER_S = 10
SENDS_PER_S = 100
TRIGGER_EVERY_S = 10.0

_JSON = [(b"content-type", b"application/json; charset=utf-8")]
_encode = msgspec.json.Encoder().encode


class Credentials(Struct, frozen=True, kw_only=True):
    """The credentials of one account: each API has its own kind."""

    site_id: str = "sandbox-site"
    api_key: str = "sandbox-track-key"
    app_api_key: str = "sandbox-app-key"
    write_key: str = "sandbox-write-key"


DEFAULT = Credentials()
ELSEWHERE = Credentials(
    site_id="elsewhere-site",
    api_key="elsewhere-track-key",
    app_api_key="elsewhere-app-key",
    write_key="elsewhere-write-key",
)


class CustomerIoSimulator:
    """One Customer.io workspace in one region: an ASGI app that serves Track, App and Pipelines at one URL.

    `state` holds the records, `profiles` finds people, `webhooks` sends reporting webhooks; `requests` are
    the newest, `faults` those in force, `refuse_item` makes a batch answer 207. An account of the other
    region (`foreign`) is answered with the vendor's redirects to `foreign_url`, by default the vendor's own
    host. `identifiers` and `email_updates_by_id` are settings of the workspace. Track takes `track_per_s`
    requests a second over three seconds, the App API ten a second per key. Exports are done
    `export_delay_s` after their request. `control` adds the routes under `/_sandbox/`; they know no
    authentication and are for development only.
    """

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        region: Region = "us",
        credentials: Credentials = DEFAULT,
        foreign: Credentials = ELSEWHERE,
        foreign_url: str = "",
        identifiers: Identifiers = "email_or_id",
        email_updates_by_id: bool = False,
        track_per_s: int = 1000,
        app_per_s: int = APP_PER_S,
        export_delay_s: float = 1.0,
        switches: Switches | None = None,
        seed: int = 0,
        kept_requests: int = 1000,
        control: bool = False,
    ) -> None:
        self.clock = clock or SystemClock()
        self.region: Region = region
        self.credentials = credentials
        self.foreign = foreign
        self.switches = switches or Switches()
        self.state = CustomerIoState(self.clock, identifiers, self.switches)
        self.profiles = Profiles(self.state, email_updates_by_id=email_updates_by_id)
        self.objects = Objects(self.state, self.profiles)
        self.webhooks = Webhooks(self.state)
        self.faults = Faults(self.clock, seed)
        self.requests: deque[Seen] = deque(maxlen=kept_requests)
        self.foreign_url = foreign_url
        self._track = Track(self.state, self.profiles, self.objects)
        self._app = App(self.state, self.profiles, self.objects, export_delay_s)
        self._pipelines = Pipelines(self.state, self.profiles, self.objects, self._track.report)
        self._track_allowance = Allowance(self.clock, int(track_per_s * TRACK_WINDOW_S), TRACK_WINDOW_S)
        self._app_allowance = Allowance(self.clock, app_per_s, 1.0)
        self._app_per_s = app_per_s
        self._send_allowance = Allowance(self.clock, SENDS_PER_S, 1.0)
        self._trigger_allowance = Allowance(self.clock, 1, TRIGGER_EVERY_S)
        summary = self.summary if control else None
        self._front = Front(
            self.answer, self.faults, names=self._concerns, met=self._remember, summary=summary
        )

    async def __call__(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        await self._front(scope, receive, send)

    def answer(self, request: Incoming) -> Answer:
        """Handle one request as if there were no faults."""
        headers: Sequence[tuple[bytes, bytes]] = ()
        try:
            if request.path.startswith("/exports/"):
                return self._download(request)
            status, document = self._handled(request)
        except Refusal as refusal:
            status, document, headers = refusal.status, refusal.document, refusal.headers
        self._remember(request, status)
        body = b"" if document is None else _encode(document)
        return Answer(status, body, [*_JSON, *headers])

    def find(self, **identifier: str) -> Person | None:
        """Find a profile by one of id, email, phone and cio_id."""
        ((kind, value),) = identifier.items()
        return self.profiles.find(kind, value)

    def person(self, **identifier: str) -> dict[str, Any] | None:
        """Return a person's attributes by one of id, email, phone and cio_id; None where there is none."""
        found = self.find(**identifier)
        return None if found is None else dict(found.attributes)

    def events(self, **identifier: str) -> list[Event]:
        """Return the events, pages and screens of a person in the order they are kept; none for nobody."""
        found = self.find(**identifier)
        return [] if found is None else list(found.events)

    def knows(self, method: str, path: str) -> bool:
        """Tell whether there is such an endpoint, whatever the call would be answered."""
        request = Incoming(method, path, "", [], b"", 0)
        parts = (self._track.routes, self._pipelines.routes, self._app.routes)
        return path == REGION_PATH or any(routes.find(request) is not None for routes in parts)

    def refuse_item(self, index: int, **error: str) -> None:
        """Refuse the `index`-th item (from 0) of the next batch; `error` gives reason, field and message."""
        self._track.item_faults.append(ItemFault(index=index, **error))

    def summary(self) -> dict[str, Any]:
        """Return counts, and per person (the newest 1,000) the names of the newest 100 events in order."""
        state = self.state
        newest = list(state.people.values())[-1000:]
        return {
            "region": self.region,
            "people": {_name(each): [event.name for event in each.events[-100:]] for each in newest},
            "profiles": len(state.people),
            "events": state.event_count,
            "duplicates": state.duplicates,
            "ignored": state.ignored,
            "failed_attribute_changes": state.failures,
            "objects": len(state.objects),
            "segments": len(state.segments),
            "suppressed": len(self.profiles.suppressed()),
            "webhooks": {"sent": len(self.webhooks.sent), "waiting": self.webhooks.waiting()},
            "requests": len(self.requests),
            "faults": self.faults.met,
        }

    def _remember(self, request: Incoming, status: int) -> None:
        now = self.clock.now()
        self.requests.append(Seen(request.method, request.path, request.query, request.body, status, now))

    def _concerns(self, request: Incoming, person: str) -> bool:
        """Tell whether a request names a person, in its body or by its path."""
        call = Call(request, tuple(request.path.split("/")))
        return _encode(person) in request.body or person in call.decoded()

    def _handled(self, request: Incoming) -> Answered:
        if request.path.startswith(("/api/", "/unsubscribe/")):
            return self._handled_by_track(request)
        found = self._pipelines.routes.find(request)
        if found is not None:
            return self._handled_by_pipelines(request, found[1])
        return self._handled_by_app(request)

    # -- Track -----------------------------------------------------------------------------------------

    def _handled_by_track(self, request: Incoming) -> Answered:
        if (request.method, request.path) == ("GET", REGION_PATH):
            return self._region(request)
        if not request.path.startswith("/unsubscribe/"):
            self._admit_to_track(request)
        if not self._track_allowance.take():
            raise self._too_many(track_error(429, "too many requests", single=True))
        endpoint, call = _routed(self._track.routes, request, track_error(404, "not found", single=True))
        return self._track.answer(call, endpoint)

    def _region(self, request: Incoming) -> Answered:
        given = _basic(request)
        if given == self._pair(self.credentials):
            return 200, {"url": TRACK_URLS[self.region], "region": self.region, "environment_id": 1}
        if given == self._pair(self.foreign):
            return 200, {"url": TRACK_URLS[self._elsewhere], "region": self._elsewhere, "environment_id": 2}
        raise track_error(401, "Unauthorized request", single=True)

    def _admit_to_track(self, request: Incoming) -> None:
        given = _basic(request)
        if given == self._pair(self.foreign):
            raise self._redirect(request, self.switches.track_redirect_status, {}, TRACK_URLS)
        if given != self._pair(self.credentials):
            raise track_error(401, "Unauthorized request", single=True)

    @property
    def _elsewhere(self) -> Region:
        return "eu" if self.region == "us" else "us"

    @staticmethod
    def _pair(credentials: Credentials) -> str:
        return f"{credentials.site_id}:{credentials.api_key}"

    def _redirect(self, request: Incoming, status: int, document: Any, urls: Mapping[str, str]) -> Refusal:
        query = f"?{request.query}" if request.query else ""
        url = f"{self.foreign_url or urls[self._elsewhere]}{request.path}{query}"
        return Refusal(status, document, [(b"location", url.encode())])

    def _too_many(self, refusal: Refusal) -> Refusal:
        if self.switches.retry_after:
            refusal.headers = [(b"retry-after", self.switches.retry_after.encode())]
        return refusal

    # -- Pipelines -------------------------------------------------------------------------------------

    def _handled_by_pipelines(self, request: Incoming, call: Call) -> Answered:
        strict = request.header(STRICT_HEADER) == "1"
        if not self._admits_to_pipelines(request):
            if strict:
                raise Refusal(401, {"code": "unauthorized", "message": "Unauthorized request"})
            return 200, {}
        try:
            return self._pipelines.post(Call(inflated(request), call.values))
        except (Invalid, ValueError) as problem:
            if strict:
                raise Refusal(400, {"code": "invalid", "message": str(problem)}) from None
            return 200, {}

    def _admits_to_pipelines(self, request: Incoming) -> bool:
        """Write keys come as Basic; the newer ones, of pk_ or sk_, as Bearer: so the clients send them."""
        key = self.credentials.write_key
        if key.startswith(("pk_", "sk_")):
            return request.header(b"authorization") == f"Bearer {key}"
        return _basic(request) == f"{key}:"

    # -- App -------------------------------------------------------------------------------------------

    def _download(self, request: Incoming) -> Answer:
        number = request.path.removeprefix("/exports/").removesuffix(".csv")
        text = self._app.download(Call(request, (number,)))
        self._remember(request, 200)
        return Answer(200, text.encode(), [(b"content-type", b"text/csv")])

    def _handled_by_app(self, request: Incoming) -> Answered:
        scheme, _, key = request.header(b"authorization").partition(" ")
        redirected = self.switches.app_region_status == 301
        if scheme.lower() == "bearer" and key == self.foreign.app_api_key and redirected:
            document = app_error(301, "wrong datacenter").document
            raise self._redirect(request, 301, document, APP_URLS)
        if scheme.lower() != "bearer" or key != self.credentials.app_api_key:
            raise app_error(401, "unauthorized")
        self._spend_on_app(request)
        if request.path.startswith(tuple(self.state.forbidden)):
            raise app_error(403, "forbidden")
        endpoint, call = _routed(self._app.routes, request, app_error(404, "not found"))
        return self._app.answer(call, endpoint)

    def _spend_on_app(self, request: Incoming) -> None:
        if request.path.startswith("/v1/send/"):
            allowance, calls, window_s = self._send_allowance, SENDS_PER_S, 1
        elif request.method == "POST" and request.path.endswith("/triggers"):
            allowance, calls, window_s = self._trigger_allowance, 1, int(TRIGGER_EVERY_S)
        else:
            allowance, calls, window_s = self._app_allowance, self._app_per_s, 1
        if not allowance.take():
            reference = f"{zlib.crc32(request.path.encode()) & 0xFFFFFF:06x}"
            detail = f"rate limited to {calls} requests per {window_s}s (reference {reference})"
            raise self._too_many(app_error(429, detail))


def _routed(routes: Routes, request: Incoming, missing: Refusal) -> tuple[Any, Call]:
    found = routes.find(request)
    if found is None:
        raise missing
    return found


def _basic(request: Incoming) -> str:
    """Return `user:password` of Basic credentials; empty where there are none."""
    scheme, _, encoded = request.header(b"authorization").partition(" ")
    if scheme.lower() != "basic":
        return ""
    try:
        return base64.b64decode(encoded, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return ""


def _name(person: Person) -> str:
    given = person.attributes
    return str(given.get("id") or given.get("email") or person.cio_id)
