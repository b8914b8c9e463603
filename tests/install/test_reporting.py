"""The reporting webhook: registered once, switched on when its key is here."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from towpath.errors import TowpathError
from towpath.http import Http, Reply
from towpath.install.reporting import EVENTS, register
from towpath.sandbox import customerio_webhooks
from towpath.testing.fakes import FakeClock, FakeTransport
from towpath.vendors.customerio import AppApi

HERE = "https://events.example.com/webhooks/customerio"


def workspace(*webhooks: dict[str, Any]) -> tuple[AppApi, FakeTransport]:
    listed = Reply(200, body=msgspec.json.encode({"reporting_webhooks": list(webhooks) or None}))
    network = FakeTransport(("GET", "/v1/reporting_webhooks", listed), ("*", "*", Reply(200, body=b"{}")))
    return AppApi(Http(network, FakeClock()), "http://cio.test", {}), network


@pytest.mark.spec("C106")
@pytest.mark.parametrize("signed", [True, False])
async def test_it_is_off_until_its_key_is_here(signed: bool) -> None:
    app, network = workspace({"id": 1, "endpoint": "https://other.example.com", "disabled": False})
    assert await register(app, HERE, signed=signed) == (
        "registered" if signed else "registered, switched off"
    )
    _, made = network.requests
    sent = msgspec.json.decode(made.body)
    assert (made.method, sent["endpoint"], sent["disabled"]) == ("POST", HERE, not signed)
    assert sent["with_content"] is False


@pytest.mark.spec("C106")
async def test_one_that_is_there_is_switched_on_and_otherwise_left_as_people_made_it() -> None:
    there = {"id": 7, "name": "mine", "endpoint": HERE, "disabled": True, "events": ["email_sent"]}
    app, network = workspace(there)
    assert await register(app, HERE, signed=False) == "as it was"
    assert len(network.requests) == 1
    assert await register(app, HERE, signed=True) == "switched on"
    changed = network.requests[-1]
    assert (changed.method, changed.url) == ("PUT", "http://cio.test/v1/reporting_webhooks/7")
    assert msgspec.json.decode(changed.body) == {**there, "disabled": False}
    app, network = workspace({**there, "disabled": False})
    assert await register(app, HERE, signed=True) == "as it was"
    assert [request.method for request in network.requests] == ["GET"]


@pytest.mark.spec("C106")
async def test_what_customerio_says_against_it_is_said() -> None:
    app, network = workspace()
    network.on("POST", "*", Reply(403, body=b'{"errors":[{"detail":"forbidden","status":"403"}]}'))
    with pytest.raises(TowpathError) as refused:
        await register(app, HERE, signed=True)
    assert "forbidden" in refused.value.why


def test_every_event_is_one_the_vendor_names() -> None:
    assert set(EVENTS) <= customerio_webhooks.EVENTS
    assert len(EVENTS) == len(set(EVENTS))
