"""Deliveries to the simulated Kustomer, which refuses what Kustomer refuses."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import pytest

from towpath.destination import Scope
from towpath.http import Http, Reply, Request, Undelivered
from towpath.message import Message
from towpath.outcome import Delivered, Outcome, Paused, Retry
from towpath.sandbox.kustomer import DEFAULT_KEY, KustomerSimulator
from towpath.sandbox.kustomer_state import Switches
from towpath.testing.fakes import FakeClock, FakeMemory

from .kustomer_world import identify, kustomer, prepared, track


class InProcess:
    """A transport that calls the simulator as an ASGI app."""

    def __init__(self, simulator: KustomerSimulator) -> None:
        self.simulator = simulator

    async def send(self, request: Request, *, timeout_s: float) -> Reply:
        """One exchange, without a socket."""
        parts = urlsplit(request.url)
        scope: dict[str, Any] = {
            "type": "http",
            "http_version": "1.1",
            "method": request.method,
            "path": parts.path,
            "raw_path": parts.path.encode(),
            "query_string": parts.query.encode(),
            "headers": [(name.encode(), value.encode()) for name, value in request.headers.items()],
        }
        sent: list[dict[str, Any]] = []

        async def receive() -> dict[str, Any]:
            return {"type": "http.request", "body": request.body, "more_body": False}

        async def send(part: Any) -> None:
            sent.append(part)

        await self.simulator(scope, receive, send)
        headers = {name.decode(): value.decode() for name, value in sent[0]["headers"]}
        return Reply(sent[0]["status"], headers, b"".join(part.get("body", b"") for part in sent[1:]))

    async def close(self) -> None:
        """Nothing is open."""


class Connection:
    """The destination connected to one simulated organisation."""

    def __init__(
        self, *, key: str = DEFAULT_KEY, settings: dict[str, Any] | None = None, **organisation: Any
    ) -> None:
        self.clock = FakeClock()
        self.simulator = KustomerSimulator(clock=self.clock, **organisation)
        self.destination = kustomer(**{"api_key": key, **(settings or {})})
        http = Http(InProcess(self.simulator), self.clock, headers=self.destination.headers())
        self.reports: list[str] = []
        self.scope = Scope(http, self.clock, FakeMemory(self.clock))

    async def deliver(self, given: Message) -> Outcome:
        """Prepare and deliver; the outcome the loop would see."""
        try:
            delivered = await self.destination.deliver(prepared(self.destination, given), self.scope)
        except Undelivered as error:
            return error.outcome
        self.reports += delivered.reports
        return Delivered(delivered.code)

    def customers(self) -> list[dict[str, Any]]:
        """What the organisation's customers have, oldest first."""
        return [customer.attributes for customer in self.simulator.state.customers.values()]

    def paths(self) -> list[str]:
        """Method and path of every request so far; reading empties it."""
        found = [f"{seen.method} {seen.path}" for seen in self.simulator.requests]
        self.simulator.requests.clear()
        return found


@pytest.mark.spec("K011", "K031", "K032", "K070")
async def test_events_are_taken() -> None:
    there = Connection(settings={"set_identity_email": True})
    properties = {"total": 3, "vip": True, "items": [1], "at": "2020-01-02T10:11:12Z", "email": "a@b.io"}
    assert await there.deliver(track(properties, event="Order Completed!")) == Delivered()
    assert there.simulator.state.event_count == 1
    assert there.simulator.state.semantic_warnings == 0


@pytest.mark.spec("K061", "K063", "K065")
async def test_a_customer_is_created_once_and_then_updated() -> None:
    there = Connection()
    for traits in ({"email": "a@b.io", "name": "Ada"}, {"email": "a@b.io", "gender": "female"}):
        assert await there.deliver(identify(traits)) == Delivered()
    (customer,) = there.customers()
    assert (customer["name"], customer["gender"], customer["externalId"]) == ("Ada", "f", "u1")
    assert [path.split("/")[0] for path in there.paths()] == ["GET ", "GET ", "POST ", "PUT "]


@pytest.mark.spec("K071")
@pytest.mark.parametrize("status", [409, 400])
@pytest.mark.parametrize("shape", [1, 2])
async def test_a_clash_on_update_keeps_the_rest(status: Any, shape: Any) -> None:
    there = Connection(switches=Switches(duplicate_status=status, error_shape=shape))
    await there.deliver(identify({"email": "a@b.io"}, userId="u1"))
    await there.deliver(identify({"email": "c@d.io"}, userId="u2"))
    both = {"emails": [{"email": "c@d.io"}, {"email": "a@b.io"}], "name": "Ada"}
    assert await there.deliver(identify(both, userId="u2")) == Delivered()
    first, second = there.customers()
    assert [item["email"] for item in first["emails"]] == ["a@b.io"]
    assert [item["email"] for item in second["emails"]] == ["c@d.io"]
    assert second["name"] == "Ada"
    assert len(there.reports) == 1


@pytest.mark.spec("K071", "K063")
@pytest.mark.parametrize("status", [409, 400])
async def test_a_clash_on_create_leaves_the_shared_phone_where_it_is(status: Any) -> None:
    there = Connection(switches=Switches(duplicate_status=status))
    await there.deliver(identify({"phone": "+15005550006"}, userId="u1"))
    assert await there.deliver(identify({"phone": "+15005550006", "name": "Ben"}, userId="u2")) == Delivered()
    first, second = there.customers()
    assert "phones" in first
    assert "phones" not in second
    assert second["name"] == "Ben"


@pytest.mark.spec("K071")
async def test_a_company_is_not_lost_by_an_update() -> None:
    there = Connection()
    await there.deliver(identify({"company": "Acme"}))
    await there.deliver(identify({"name": "Ada"}))
    assert there.customers()[0]["company"] == "Acme"


@pytest.mark.spec("K071", "K066")
async def test_one_busy_customer_delays_only_itself() -> None:
    there = Connection(updates_per_minute=1)
    await there.deliver(identify())
    await there.deliver(identify({"name": "Ada"}))
    outcome = await there.deliver(identify({"name": "Ada L"}))
    assert isinstance(outcome, Retry)
    assert not outcome.throttled
    there = Connection(requests_per_minute=1)
    await there.deliver(track())
    outcome = await there.deliver(track())
    assert isinstance(outcome, Retry)
    assert outcome.throttled


@pytest.mark.spec("K008", "K064")
async def test_roles_and_regions() -> None:
    there = Connection(api_keys={DEFAULT_KEY: ["org.tracking"]})
    assert isinstance(await there.deliver(identify()), Paused)
    assert await there.deliver(track()) == Delivered()
    lines = await there.destination.check(there.scope)
    assert {line.capability for line in lines if not line.ok} == {"customers"}
    there = Connection(key="eu-key", foreign_keys={"eu-key": "prod2"})
    outcome = await there.deliver(track())
    assert isinstance(outcome, Paused)
    assert "wrong region" in outcome.reason
    assert all("wrong region" in line.detail for line in await there.destination.check(there.scope))
