"""What the Customer.io tests share: a destination, messages as ingest reads them, a scripted Customer.io."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from towpath.budget import Budget
from towpath.destination import Ended, Payload, Scope
from towpath.destinations.customerio import CustomerIo
from towpath.http import Http, Reply, Request, Throttle, Undelivered
from towpath.message import Envelope, Message, Record, Trust, read
from towpath.outcome import Outcome
from towpath.redaction import setting_secrets
from towpath.testing.fakes import FakeClock, FakeMemory, FakeTransport, Rule

TRACK, TRACK_EU = "https://track.customer.io", "https://track-eu.customer.io"
APP, CDP = "https://api.customer.io", "https://cdp.customer.io"
ENTITY, BATCH, EVENTS = f"{TRACK}/api/v2/entity", f"{TRACK}/api/v2/batch", f"{TRACK}/api/v1/events"
RECEIVED = 1_767_261_600.0
KEYS: dict[str, Any] = {"site_id": "site", "api_key": "track-secret"}
WITH_APP: dict[str, Any] = {"app_api_key": "app-secret"}


def answer(status: int, body: Any = None) -> Reply:
    """Make a JSON reply."""
    return Reply(status, {}, msgspec.json.encode({} if body is None else body))


REGION = ("GET", "/api/v1/accounts/region", answer(200, {"region": "us", "url": TRACK}))
REGION_EU = ("GET", "/api/v1/accounts/region", answer(200, {"region": "eu", "url": TRACK_EU}))
TAKES: tuple[Rule, ...] = (REGION, ("*", "*", answer(200)))

NOBODY: tuple[Rule, ...] = (
    ("GET", "/v1/customers?email=*", answer(200, {"results": []})),
    (
        "GET",
        "/v1/customers/*/attributes?*",
        answer(404, {"errors": [{"detail": "not found", "status": "404"}]}),
    ),
)
"""What the App API of a workspace without people says."""


def customerio(**settings: Any) -> CustomerIo:
    """Make a destination; its keys are filled in."""
    return CustomerIo(CustomerIo.Settings.model_validate({**KEYS, **settings}))


def message(fields: Mapping[str, Any], trust: Trust = "server", message_id: str = "m-1") -> Message:
    """Read a message as a source took it in."""
    return read(Record(1, message_id, Envelope("web", RECEIVED, trust), msgspec.json.encode(fields)))


def track(properties: Any = None, *, message_id: str = "m-1", **fields: Any) -> Message:
    """Make a track of user u1."""
    given = {"type": "track", "userId": "u1", "event": "Order Completed", "properties": properties}
    return message({**given, **fields}, message_id=message_id)


def identify(
    traits: Any = None, *, trust: Trust = "server", message_id: str = "m-1", **fields: Any
) -> Message:
    """Make an identify of user u1."""
    return message({"type": "identify", "userId": "u1", "traits": traits or {}, **fields}, trust, message_id)


def prepared(destination: CustomerIo, given: Message) -> Payload:
    """Prepare a message that must lead to a payload."""
    payload = destination.prepare(given)
    assert isinstance(payload, Payload), payload
    return payload


def items_of(given: Message, **settings: Any) -> list[Any]:
    """The bodies that a message leads to."""
    return [call.json for call in prepared(customerio(**settings), given).requests]


def item_of(given: Message, **settings: Any) -> Any:
    """The one body that a message leads to."""
    (item,) = items_of(given, **settings)
    return item


def reports_of(given: Message, **settings: Any) -> str:
    """All reports of a message as one text."""
    return "\n".join(prepared(customerio(**settings), given).reports)


def json_of(request: Request) -> Any:
    """The body of a request."""
    return msgspec.json.decode(request.body) if request.body else None


class World:
    """A destination and a scripted Customer.io; the region is answered unless rules say otherwise."""

    def __init__(self, *rules: Rule, budgeted: bool = False, **settings: Any) -> None:
        self.destination = customerio(**settings)
        self.clock = FakeClock(RECEIVED)
        self.network = FakeTransport(*rules, *TAKES)
        throttles: dict[str, Throttle] = {}
        if budgeted:
            budgets = self.destination.budgets().items()
            throttles = {bucket: Budget(self.clock, per_minute) for bucket, per_minute in budgets}
        self.http = Http(
            self.network,
            self.clock,
            headers=self.destination.headers(),
            throttles=throttles,
            secrets=setting_secrets(self.destination.settings),
        )
        self.memory = FakeMemory(self.clock)
        self.scope = Scope(self.http, self.clock, self.memory)

    async def deliver(self, given: Message) -> Outcome:
        """Deliver one message by itself."""
        try:
            return await self.destination.deliver(prepared(self.destination, given), self.scope)
        except Undelivered as error:
            return error.outcome

    async def deliver_batch(self, given: Sequence[Message]) -> Sequence[Ended]:
        """Deliver messages together."""
        payloads = [prepared(self.destination, each) for each in given]
        return await self.destination.deliver_batch(payloads, self.scope)

    @property
    def sent(self) -> list[Request]:
        """All requests but those for the region."""
        return [request for request in self.network.requests if "accounts/region" not in request.url]

    @property
    def urls(self) -> list[str]:
        """Where they went."""
        return [request.url for request in self.sent]


def outcome_of(ended: Ended) -> Outcome | None:
    """What became of one payload of a batch."""
    assert not isinstance(ended, Exception) or isinstance(ended, Undelivered), ended
    return ended.outcome if isinstance(ended, Undelivered) else ended
