"""The App API by its key alone: where the key is taken is where the account is, asked for once a day."""

from __future__ import annotations

import pytest

from towpath.http import Http, Reply, Undelivered
from towpath.outcome import Paused, Retry
from towpath.testing import FakeClock
from towpath.testing.fakes import FakeMemory, FakeTransport
from towpath.vendors.customerio_account import Account, Keys, Urls

US, EU = "https://api.customer.io", "https://api-eu.customer.io"
KEYS = Keys("", "", "app-key")
JSON = {"content-type": "application/json"}
UNAUTHORIZED = Reply(401, JSON, b'{"errors": [{"detail": "unauthorized", "status": "401"}]}')
WORKSPACES = Reply(200, JSON, b'{"workspaces": []}')

pytestmark = pytest.mark.spec("R006")


def door(transport: FakeTransport) -> Http:
    return Http(transport, FakeClock())


async def test_the_region_that_takes_the_key_is_the_account_s_and_remembered() -> None:
    transport = FakeTransport().on("GET", f"{US}/*", UNAUTHORIZED).on("GET", f"{EU}/*", WORKSPACES)
    memory = FakeMemory()
    api = await Account(KEYS).opened_app(door(transport), memory)
    assert api.base_url == EU
    asked = len(transport.requests)
    again = await Account(KEYS).opened_app(door(transport), memory)
    assert (again.base_url, len(transport.requests)) == (EU, asked)
    other = await Account(Keys("", "", "another-key"), "us").opened_app(door(transport), memory)
    assert other.base_url == US


async def test_a_region_that_is_named_and_an_address_of_one_s_own_are_not_asked_about() -> None:
    transport = FakeTransport()
    eu = await Account(KEYS, "eu").opened_app(door(transport), FakeMemory())
    own = await Account(KEYS, "auto", Urls(app="http://127.0.0.1:9")).opened_app(
        door(transport), FakeMemory()
    )
    assert (eu.base_url, own.base_url, transport.requests) == (EU, "http://127.0.0.1:9", [])


async def test_a_key_that_nobody_takes_is_said_and_nothing_is_remembered() -> None:
    transport, memory = FakeTransport().on("GET", "*", UNAUTHORIZED), FakeMemory()
    with pytest.raises(Undelivered) as caught:
        await Account(KEYS).opened_app(door(transport), memory)
    assert isinstance(caught.value.outcome, Paused)
    healed = FakeTransport().on("GET", f"{US}/*", WORKSPACES)
    assert (await Account(KEYS).opened_app(door(healed), memory)).base_url == US


async def test_a_host_that_is_down_is_no_answer() -> None:
    transport = FakeTransport().on("GET", f"{US}/*", Reply(503)).on("GET", f"{EU}/*", WORKSPACES)
    with pytest.raises(Undelivered) as caught:
        await Account(KEYS).opened_app(door(transport), FakeMemory())
    assert isinstance(caught.value.outcome, Retry)
