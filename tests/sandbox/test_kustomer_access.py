"""Keys, roles, regions and limits of the simulator: who is let in, and how often."""

from __future__ import annotations

import io
from typing import Any

import aiohttp
import pytest

from towpath.sandbox.kustomer import DEFAULT_KEY, KustomerSimulator
from towpath.sandbox.kustomer_state import Switches
from towpath.sandbox.serve import serve

from .conftest import KEY, Client, SetClock

pytestmark = pytest.mark.spec("D12")

TRACK = {"identity": {"externalId": "u-1"}, "event": {"name": "Order-Completed"}}
ID = "5" * 24


@pytest.mark.parametrize("header", ["", "Bearer", "Bearer nobody", f"Basic {KEY}", KEY, "Bearer "])
async def test_an_unknown_token_is_401_and_leaves_no_trace(
    client: Client, kustomer: KustomerSimulator, header: str
) -> None:
    got = await client("POST", "/v1/tracking/identityEvent", TRACK, headers={"authorization": header})
    assert (got.status, got.error["status"]) == (401, 401)
    assert not kustomer.state.customers
    assert [seen.status for seen in kustomer.requests] == [401]


async def test_a_key_of_another_region_is_told_so(session: aiohttp.ClientSession) -> None:
    async with serve(KustomerSimulator(foreign_keys={"k-eu": "prod2"})) as url:
        got = await Client(session, url)("GET", "/v1/auth/tokens/current", key="k-eu")
    text = "Auth token associated with pod prod2 but request is being handled by prod1"
    assert (got.status, got.error["title"]) == (401, text)


ROLES: list[tuple[str, str, Any, str]] = [
    ("POST", "/v1/customers", {"name": "Ada"}, "org.permission.customer.create"),
    ("POST", "/v1/customers", {"name": "Ada"}, "org.user.customer.write"),
    ("GET", "/v1/customers", None, "org.permission.customer.read"),
    ("GET", f"/v1/customers/{ID}", None, "org.user.customer.read"),
    ("GET", "/v1/customers/email=a", None, "org.permission.customer.read"),
    ("PUT", f"/v1/customers/{ID}", {}, "org.permission.customer.update"),
    ("PATCH", f"/v1/customers/{ID}", {}, "org.permission.customer"),
    ("DELETE", f"/v1/customers/{ID}", None, "org.permission.customer.delete"),
    ("POST", "/v1/customers/merges", {"source": ID, "target": ID}, "org.permission.customer_merge.create"),
    ("POST", "/v1/customers/search", {}, "org.permission.search.create"),
    ("POST", "/v1/customers/bulk", [{}], "org.permission.customer.create"),
    ("PUT", "/v1/customers/bulk", [{}], "org.permission.customer.update"),
    ("DELETE", "/v1/customers/bulk?ids=a", None, "org.permission.customer.delete"),
    ("GET", f"/v1/bulk/{ID}", None, "org.permission.bulk.read"),
    ("GET", f"/v1/customers/{ID}/events", None, "org.permission.event.read"),
    ("POST", "/v1/tracking/identity", {}, "org.tracking"),
    ("POST", "/v1/tracking/event", {"name": "ab"}, "org.tracking"),
    ("POST", "/v1/tracking/identityEvent", TRACK, "org.tracking"),
    ("POST", "/v1/tracking/identityEvent", TRACK, "org"),
]


@pytest.mark.parametrize(("method", "path", "body", "role"), ROLES)
async def test_each_endpoint_asks_for_its_role(
    session: aiohttp.ClientSession, method: str, path: str, body: Any, role: str
) -> None:
    keys = {"with": [role], "without": ["org.trackin", "org.permission.message.create"]}
    async with serve(KustomerSimulator(api_keys=keys)) as url:
        client = Client(session, url)
        allowed = await client(method, path, body, key="with")
        refused = await client(method, path, body, key="without")
    assert allowed.status in {200, 201, 204, 404}
    assert refused.status == 403
    assert "missing role" in refused.error["detail"]


async def test_a_missing_role_can_be_401_as_in_the_old_docs(session: aiohttp.ClientSession) -> None:
    switches = Switches(missing_role_status=401)
    async with serve(KustomerSimulator(api_keys={"k": []}, switches=switches)) as url:
        assert (await Client(session, url)("GET", "/v1/customers", key="k")).status == 401


async def test_the_two_calls_about_oneself_need_no_role(session: aiohttp.ClientSession) -> None:
    async with serve(KustomerSimulator(api_keys={"k": []})) as url:
        client = Client(session, url)
        assert (await client("GET", "/v1/auth/tokens/current", key="k")).attributes["roles"] == []
        assert (await client("GET", "/v1/users/current", key="k")).json["data"]["type"] == "user"


async def test_the_default_key_can_do_what_a_destination_needs(session: aiohttp.ClientSession) -> None:
    async with serve(KustomerSimulator()) as url:
        client = Client(session, url)
        made = await client("POST", "/v1/customers", {"externalId": "u-1"}, key=DEFAULT_KEY)
        put = await client("PUT", f"/v1/customers/{made.id}?replace=false", {"name": "A"}, key=DEFAULT_KEY)
        sent = await client("POST", "/v1/tracking/identityEvent", TRACK, key=DEFAULT_KEY)
    assert (made.status, put.status, sent.status) == (201, 200, 201)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/v1/nothing"),
        ("GET", "/"),
        ("POST", "/v1/auth/tokens/current"),
        ("GET", "/v1/customers/a/b/c/d"),
    ],
)
async def test_anything_else_is_404_in_the_error_shape(client: Client, method: str, path: str) -> None:
    got = await client(method, path)
    assert (got.status, got.error["code"]) == (404, "notfound")


async def test_a_body_over_100_kb_is_413(client: Client, kustomer: KustomerSimulator) -> None:
    fitting = b'{"name":"Ada"}'.ljust(102_400)
    assert (await client("POST", "/v1/customers", data=fitting)).status == 201
    assert (await client("POST", "/v1/customers", data=fitting + b" ")).status == 413
    assert (await client("POST", "/v1/customers", data=io.BytesIO(b"x" * 6_000_000))).status == 413
    assert len(kustomer.state.customers) == 1


@pytest.mark.parametrize("data", [b"", b"{", b'{"name": NaN}', b'"\xff"', b"[" * 100_000])
async def test_a_body_that_is_no_json_is_400(client: Client, data: bytes) -> None:
    assert (await client("POST", "/v1/customers", data=data)).status == 400


async def test_a_body_of_another_type_is_400(client: Client) -> None:
    got = await client("POST", "/v1/customers", data=b"{}", headers={"content-type": "text/plain"})
    assert got.status == 400


async def test_shape_1_is_the_error_of_the_new_docs(session: aiohttp.ClientSession) -> None:
    switches = Switches(error_shape=1)
    async with serve(KustomerSimulator(api_keys={KEY: ["org"]}, switches=switches)) as url:
        got = await Client(session, url)("POST", "/v1/customers", {"custom": {"colour": 1}})
    assert got.error.keys() == {"code", "message", "meta"}
    assert got.error["code"] == "bad_request"
    assert "colour" in got.error["message"]


async def test_the_organisation_has_a_window_of_60_seconds(
    session: aiohttp.ClientSession, clock: SetClock
) -> None:
    keys = {KEY: ["org"], "other": ["org"]}
    async with serve(KustomerSimulator(clock=clock, api_keys=keys, requests_per_minute=2)) as url:
        client = Client(session, url)
        first = await client("GET", "/v1/customers")
        second = await client("GET", "/v1/customers", key="other")
        third = await client("GET", "/v1/customers")
        reset = int(third.headers["X-Ratelimit-Reset"])
        clock.at = reset - 0.001
        still = await client("GET", "/v1/customers")
        clock.at = reset
        again = await client("GET", "/v1/customers")
    assert [got.status for got in (first, second, third, still, again)] == [200, 200, 429, 429, 200]
    assert [got.headers["X-Ratelimit-Remaining"] for got in (first, second, third, again)] == [
        "1",
        "0",
        "0",
        "1",
    ]
    assert "X-Ratelimit-Reset" not in second.headers
    assert "Retry-After" not in third.headers


async def test_updates_of_one_customer_have_their_own_limit(
    session: aiohttp.ClientSession, clock: SetClock
) -> None:
    async with serve(KustomerSimulator(clock=clock, api_keys={KEY: ["org"]}, updates_per_minute=2)) as url:
        client = Client(session, url)
        hot, other = await client.create(name="Hot"), await client.create(name="Other")
        got = [
            await client(method, f"/v1/customers/{hot}", {"name": "H"}) for method in ("PUT", "PATCH", "PUT")
        ]
        free = await client("PUT", f"/v1/customers/{other}", {"name": "O"})
        clock.at += 60
        later = await client("PUT", f"/v1/customers/{hot}", {"name": "H"})
    assert [answer.status for answer in got] == [200, 200, 429]
    assert int(got[2].headers["X-Ratelimit-Remaining"]) > 0
    assert (free.status, later.status) == (200, 200)


async def test_searches_have_their_own_limit(session: aiohttp.ClientSession, clock: SetClock) -> None:
    async with serve(KustomerSimulator(clock=clock, api_keys={KEY: ["org"]})) as url:
        client = Client(session, url)
        statuses = [(await client("POST", "/v1/customers/search", {})).status for _ in range(101)]
        other = await client("GET", "/v1/customers")
    assert statuses == [200] * 100 + [429]
    assert other.status == 200
