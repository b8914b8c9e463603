"""Keys, regions, limits and faults of the simulated Customer.io: who is let in, how often, what fails."""

from __future__ import annotations

import re
from typing import Any

import aiohttp
import pytest

from towpath.sandbox.customerio import DEFAULT, ELSEWHERE, CustomerIoSimulator
from towpath.sandbox.customerio_state import Switches
from towpath.sandbox.serve import sandbox, serve

from .conftest import Client
from .customerio_calls import APP, PIPELINES, TRACK, Workspace, basic

pytestmark = pytest.mark.spec("D12")

UNAUTHORISED = {"meta": {"error": "Unauthorized request"}}
FOREIGN_TRACK = basic(ELSEWHERE.site_id, ELSEWHERE.api_key)
FOREIGN_APP = f"Bearer {ELSEWHERE.app_api_key}"
OF_TRACK = [
    ("PUT", "/api/v1/customers/u1", {}),
    ("POST", "/api/v1/events", {"name": "a", "anonymous_id": "an1"}),
    ("POST", "/api/v2/entity", {"type": "person", "action": "identify", "identifiers": {"id": "u1"}}),
    ("POST", "/api/v2/batch", {"batch": []}),
    ("GET", "/api/v1/accounts/region", None),
]


@pytest.mark.spec("C111", "C092")
@pytest.mark.parametrize(
    "key",
    [
        *("", "Basic", "Basic !!!", basic(DEFAULT.site_id, ""), basic("", DEFAULT.api_key), PIPELINES, APP),
        basic(DEFAULT.site_id, DEFAULT.app_api_key),
        f"Bearer {DEFAULT.api_key}",
    ],
)
@pytest.mark.parametrize(("method", "path", "body"), OF_TRACK)
def test_track_takes_only_its_own_pair_of_keys(method: str, path: str, body: Any, key: str) -> None:
    at = Workspace()
    got = at.call(method, path, body, key=key)
    assert (got.status, got.json) == (401, UNAUTHORISED)
    assert not at.state.people


@pytest.mark.spec("C112")
@pytest.mark.parametrize(
    "key", ["", "Bearer", TRACK, PIPELINES, f"Bearer {DEFAULT.api_key}", basic(DEFAULT.app_api_key, "")]
)
def test_the_app_api_takes_only_its_own_key(key: str) -> None:
    got = Workspace().call("GET", "/v1/campaigns", key=key)
    assert (got.status, got.json) == (401, {"errors": [{"detail": "unauthorized", "status": "401"}]})


@pytest.mark.parametrize("key", ["", TRACK, APP, basic("nobody", "")])
def test_pipelines_says_a_wrong_key_only_when_it_is_strict(key: str) -> None:
    at = Workspace()
    body = {"userId": "u1", "traits": {}}
    assert at.pipelines("identify", body, key=key).status == 401
    got = at.pipelines("identify", body, key=key, strict=False)
    assert (got.status, got.json) == (200, {})
    assert not at.state.people


# -- regions -------------------------------------------------------------------------------------------


@pytest.mark.spec("C093", "C114", "C123", "D18")
@pytest.mark.parametrize(("region", "other"), [("us", "eu"), ("eu", "us")])
def test_the_region_of_an_account_is_told_on_either_host(region: Any, other: str) -> None:
    at = Workspace(region=region)
    own = at.call("GET", "/api/v1/accounts/region", key=TRACK)
    foreign = at.call("GET", "/api/v1/accounts/region", key=FOREIGN_TRACK)
    hosts = {"us": "https://track.customer.io", "eu": "https://track-eu.customer.io"}
    assert own.json == {"url": hosts[region], "region": region, "environment_id": 1}
    assert (foreign.status, foreign.json["region"], foreign.json["url"]) == (200, other, hosts[other])


@pytest.mark.spec("C093", "C123", "D18")
@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_an_account_of_the_other_region_is_redirected_and_nothing_is_written(status: Any) -> None:
    at = Workspace(switches=Switches(track_redirect_status=status))
    got = at.call("PUT", "/api/v1/customers/u1?a=b", {"email": "a@example.com"}, key=FOREIGN_TRACK)
    wanted = "https://track-eu.customer.io/api/v1/customers/u1?a=b"
    assert (got.status, got.headers["location"]) == (status, wanted)
    assert not at.state.people


@pytest.mark.spec("C093", "C123", "D18")
def test_the_app_api_answers_the_other_region_with_301_and_a_body() -> None:
    got = Workspace().call("GET", "/v1/customers?email=a", key=FOREIGN_APP)
    assert got.status == 301
    assert got.json == {"errors": [{"detail": "wrong datacenter", "status": "301"}]}
    assert got.headers["location"] == "https://api-eu.customer.io/v1/customers?email=a"


def test_the_other_region_can_be_a_second_simulator() -> None:
    at = Workspace(region="eu", foreign_url="http://127.0.0.1:9")
    assert at.call("DELETE", "/api/v1/customers/u1", key=FOREIGN_TRACK).headers["location"] == (
        "http://127.0.0.1:9/api/v1/customers/u1"
    )


# -- limits --------------------------------------------------------------------------------------------


@pytest.mark.spec("C085")
def test_the_app_api_takes_ten_requests_in_any_second() -> None:
    at = Workspace(app_per_s=10)
    for n in range(10):
        at.clock.at += 0.05
        assert at.app("GET", "/campaigns").status == 200, n
    got = at.app("GET", "/segments")
    (error,) = got.json["errors"]
    assert (got.status, error["status"]) == (429, "429")
    assert re.fullmatch(r"rate limited to 10 requests per 1s \(reference [0-9a-f]{6}\)", error["detail"])
    assert "retry-after" not in got.headers
    at.clock.at += 0.62
    assert [at.app("GET", "/segments").status for _ in range(3)] == [200, 200, 429]


def test_a_429_can_carry_a_retry_after() -> None:
    at = Workspace(app_per_s=0, switches=Switches(retry_after="1"))
    assert at.app("GET", "/campaigns").headers["retry-after"] == "1"


def test_sends_and_triggers_have_rates_of_their_own() -> None:
    at = Workspace(app_per_s=0)
    at.state.broadcasts.append({"id": 3})
    body = {"from": "a", "subject": "b", "body": "c", "to": "d", "identifiers": {"id": "u1"}}
    assert [at.app("POST", "/send/email", body).status for _ in range(101)] == [200] * 100 + [429]
    assert at.app("POST", "/campaigns/3/triggers", {}).status == 200
    assert at.app("POST", "/campaigns/3/triggers", {}).status == 429
    at.clock.at += 10
    assert at.app("POST", "/campaigns/3/triggers", {}).status == 200


@pytest.mark.spec("C084")
def test_the_limit_of_track_is_soft_it_is_looked_at_over_three_seconds() -> None:
    at = Workspace(track_per_s=10)
    assert [at.identify("u1").status for _ in range(31)] == [200] * 30 + [429]
    assert at.call("GET", "/api/v1/accounts/region", key=TRACK).status == 200
    at.clock.at += 3
    assert at.identify("u1").status == 200


# -- over the wire -------------------------------------------------------------------------------------


async def test_it_is_served_with_faults_and_its_state(session: aiohttp.ClientSession) -> None:
    simulator = CustomerIoSimulator(control=True)
    async with serve(simulator) as url:
        client, keys = Client(session, url), {"authorization": TRACK}
        assert (await client("PUT", "/api/v1/customers/a%2Fb", {"plan": "é"}, headers=keys)).json == {}
        simulator.faults.add("status", status=503, person="a/b", count=2)
        statuses = [
            (await client("PUT", f"/api/v1/customers/{path}", {}, headers=keys)).status
            for path in ("a%2Fb", "u2", "a%2Fb", "a%2Fb")
        ]
        simulator.faults.add("drop_answer", path="/api/v2/")
        item = {"type": "person", "action": "event", "identifiers": {"id": "u2"}, "name": "Kept"}
        with pytest.raises(aiohttp.ClientOSError):
            await client("POST", "/api/v2/batch", {"batch": [item]}, headers=keys)
        state = (await client("GET", "/_sandbox/state")).json
    assert simulator.person(id="a/b") == {"id": "a/b", "plan": "é"}
    assert statuses == [503, 200, 503, 200]
    assert state["people"] == {"a/b": [], "u2": ["Kept"]}
    assert (state["profiles"], state["events"], state["region"]) == (2, 1, "us")
    assert [seen.status for seen in simulator.requests] == [200, 503, 200, 503, 200, 200]


async def test_the_sandbox_serves_one_too(session: aiohttp.ClientSession) -> None:
    async with sandbox() as box:
        client = Client(session, box.customerio_url)
        got = await client("PUT", "/api/v1/customers/u1", {}, headers={"authorization": TRACK})
    assert got.status == 200
    assert box.customerio.person(id="u1") == {"id": "u1"}
