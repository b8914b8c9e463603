"""What the Kustomer tests share: a destination, messages as ingest reads them, a scripted Kustomer."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from towpath.destination import Payload, Scope
from towpath.destinations.kustomer import Kustomer
from towpath.http import Http, Reply, Request, Undelivered
from towpath.message import Envelope, Message, Record, Trust, read
from towpath.outcome import Delivered, Outcome
from towpath.testing.fakes import FakeClock, FakeMemory, FakeTransport, Rule

US = "https://api.kustomerapp.com"
TRACKED = f"{US}/v1/tracking/identityEvent"
CUSTOMERS = f"{US}/v1/customers"
NOT_FOUND = Reply(404, body=b'{"errors":[{"status":404,"code":"notfound","title":"Not Found"}]}')


def kustomer(**settings: Any) -> Kustomer:
    """Make a destination; an API key is filled in."""
    return Kustomer(Kustomer.Settings.model_validate({"api_key": "secret-key", **settings}))


def message(fields: Mapping[str, Any], trust: Trust = "server") -> Message:
    """Read a message as a source took it in."""
    envelope = Envelope("web", 1_767_261_600.0, trust)
    return read(Record(1, "m-1", envelope, msgspec.json.encode(fields)))


def track(properties: Any = None, **fields: Any) -> Message:
    """Make a track of user u1."""
    given = {"type": "track", "userId": "u1", "event": "Order-Completed", "properties": properties}
    return message({**given, **fields})


def identify(traits: Any = None, *, trust: Trust = "server", **fields: Any) -> Message:
    """Make an identify of user u1."""
    return message({"type": "identify", "userId": "u1", "traits": traits or {}, **fields}, trust)


def prepared(destination: Kustomer, given: Message) -> Payload:
    """Prepare a message that must lead to a payload."""
    payload = destination.prepare(given)
    assert isinstance(payload, Payload), payload
    return payload


def body_of(destination: Kustomer, given: Message) -> Any:
    """The body of the last request that a message leads to."""
    return prepared(destination, given).requests[-1].json


def reports_of(destination: Kustomer, given: Message) -> str:
    """All reports of a message as one text."""
    return "\n".join(prepared(destination, given).reports)


def answer(status: int, json: Any = None, **headers: str) -> Reply:
    """Make a JSON reply; underscores in header names stand for hyphens."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return Reply(status, named, b"" if json is None else msgspec.json.encode(json))


def customer(customer_id: str = "C1", company: str = "", **attributes: Any) -> dict[str, Any]:
    """Make a customer as Kustomer shows it."""
    related = {"company": {"data": {"type": "company", "id": company}}} if company else {}
    return {"data": {"id": customer_id, "attributes": attributes, "relationships": related}}


class World:
    """One connection to a scripted Kustomer; what was sent can be read, the memory outlasts a delivery."""

    def __init__(self, *rules: Rule, **settings: Any) -> None:
        self.destination = kustomer(**settings)
        self.clock = FakeClock()
        self.network = FakeTransport(*rules)
        self.memory = FakeMemory(self.clock)
        self.reports: list[str] = []
        http = Http(self.network, self.clock, headers=self.destination.headers())
        self.scope = Scope(http, self.clock, self.memory)

    async def deliver(self, given: Message) -> Outcome:
        """Prepare and deliver one message; the outcome the loop would see."""
        return await self.deliver_payload(prepared(self.destination, given))

    async def deliver_payload(self, payload: Payload) -> Outcome:
        """Deliver one payload; the outcome the loop would see."""
        try:
            delivered = await self.destination.deliver(payload, self.scope)
        except Undelivered as error:
            return error.outcome
        self.reports += delivered.reports
        return Delivered(delivered.code)

    def calls(self) -> list[str]:
        """What was sent, as `METHOD /path`, oldest first; reading empties it."""
        found = [f"{request.method} {request.url.removeprefix(US)}" for request in self.network.requests]
        self.network.requests.clear()
        return found

    def bodies(self, method: str) -> list[Any]:
        """The bodies sent with a method, oldest first."""
        return [json_of(request) for request in self.network.requests if request.method == method]


def json_of(request: Request) -> Any:
    """The JSON body of a request."""
    return msgspec.json.decode(request.body)
