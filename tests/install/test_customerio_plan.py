"""Customer.io from credentials to a plan: the region first, keys only in the store."""

from __future__ import annotations

import msgspec
import pytest

from towpath.errors import TowpathError, Unauthorized
from towpath.http import Http, Reply, TransportError
from towpath.install.customerio import CustomerIo, find_region, plan
from towpath.secrets import NAME
from towpath.testing.fakes import FakeClock, FakeTransport, Rule
from towpath.vendors.customerio import track_credentials

GIVEN = CustomerIo("cio", "site", "track-key", "app-key", "signing-key", sources=["web", "app"])
US, EU = "https://track.customer.io", "https://track-eu.customer.io"
WHERE = "/api/v1/accounts/region"
NO = Reply(401, body=b'{"meta":{"error":"Unauthorized request"}}')
AWAY = Reply(301, {"location": f"{EU}{WHERE}"}, b"{}")


def here(region: object) -> Reply:
    return Reply(200, body=msgspec.json.encode({"url": "x", "region": region, "environment_id": 1}))


async def found(given: CustomerIo, *rules: Rule) -> tuple[str, FakeTransport]:
    network = FakeTransport(*rules)
    return await find_region(given, Http(network, FakeClock())), network


def without_keys(given: CustomerIo) -> CustomerIo:
    return msgspec.structs.replace(given, app_api_key="", signing_key="")


@pytest.mark.spec("C028", "C029", "C030", "C031", "D08", "C115")
def test_keys_go_to_the_store_and_the_file_names_them() -> None:
    made = plan(GIVEN, "eu")
    fields = made.entries[0].fields
    assert fields == {
        "type": "customerio",
        "site_id": "site",
        "api_key": "${secret:cio_track_api_key}",
        "app_api_key": "${secret:cio_app_api_key}",
        "region": "eu",
    }
    assert made.entries[1].fields["signing_keys"] == ["${secret:cio_signing_key}"]
    assert [entry.name for entry in made.entries] == ["cio", "cio_webhooks"]
    assert made.secrets == {
        "cio_track_api_key": "track-key",
        "cio_app_api_key": "app-key",
        "cio_signing_key": "signing-key",
    }
    assert made.connections == [{"from": "web", "to": ["cio"]}, {"from": "app", "to": ["cio"]}]


def test_any_name_an_entry_may_have_makes_a_secret_the_store_takes() -> None:
    made = plan(msgspec.structs.replace(GIVEN, name="a+" + "b" * 126), "eu")
    assert all(NAME.fullmatch(name) for name in made.secrets)


def test_what_is_not_given_is_not_written() -> None:
    made = plan(msgspec.structs.replace(without_keys(GIVEN), sources=(), base_url="http://p"), "auto")
    assert [entry.name for entry in made.entries] == ["cio"]
    assert made.entries[0].fields["base_url"] == "http://p"
    assert "app_api_key" not in made.entries[0].fields
    assert list(made.secrets) == ["cio_track_api_key"]
    assert not made.connections


@pytest.mark.spec("D18", "C093", "C114", "F005")
@pytest.mark.parametrize(
    ("us", "eu", "region"),
    [
        (here("us"), NO, "us"),
        (here("EU"), NO, "eu"),
        (NO, here("eu"), "eu"),
        (AWAY, here("eu"), "eu"),
        (TransportError("reset", sent=True), here("eu"), "eu"),
        (here(None), here("eu"), "eu"),
    ],
)
async def test_the_region_is_asked_of_both_hosts_and_no_redirect_is_followed(
    us: Reply, eu: Reply, region: str
) -> None:
    answer, network = await found(GIVEN, ("GET", f"{US}{WHERE}", us), ("GET", f"{EU}{WHERE}", eu))
    assert answer == region
    assert all(request.headers["authorization"].startswith("Basic ") for request in network.requests)
    assert all(not request.body for request in network.requests)
    credentials = track_credentials("site", "track-key")["authorization"]
    assert network.requests[0].headers["authorization"] == credentials


@pytest.mark.spec("D18", "C093")
async def test_another_region_than_the_one_given_is_an_error() -> None:
    given = msgspec.structs.replace(GIVEN, region="us")
    with pytest.raises(TowpathError) as refused:
        await found(given, ("GET", f"{US}{WHERE}", here("eu")))
    assert refused.value.code == "E2406"
    assert "--region eu" in refused.value.fix
    assert "no data was sent" in refused.value.data


@pytest.mark.spec("C090", "C092")
async def test_refused_credentials_are_named_as_such() -> None:
    with pytest.raises(Unauthorized) as refused:
        await found(GIVEN, ("GET", "*", NO))
    assert "Site ID" in refused.value.title
    assert "App API" not in refused.value.why
    assert "track-key" not in str(refused.value.lines())


@pytest.mark.spec("C027", "C092")
async def test_a_key_of_the_app_api_in_the_place_of_the_track_key_is_named() -> None:
    with pytest.raises(Unauthorized) as refused:
        await found(GIVEN, ("GET", f"*{WHERE}", NO), ("GET", "https://api-eu.*", here("")), ("GET", "*", NO))
    assert "is a key of the App API" in refused.value.why


@pytest.mark.parametrize(
    "answer", [TransportError("connection refused", sent=False), Reply(503), here("mars"), AWAY]
)
async def test_credentials_are_not_blamed_while_nobody_answered(answer: Reply) -> None:
    with pytest.raises(TowpathError) as refused:
        await found(GIVEN, ("GET", f"{US}*", NO), ("GET", f"{EU}*", answer), ("GET", "*", NO))
    silent = isinstance(answer, TransportError) or answer.status == 503
    assert refused.value.code == ("E2407" if silent else "E2405")
    assert refused.value.fix


async def test_one_url_for_all_is_the_only_one_asked() -> None:
    given = msgspec.structs.replace(GIVEN, base_url="http://127.0.0.1:9")
    _, network = await found(given, ("GET", f"http://127.0.0.1:9{WHERE}", here("us")))
    assert len(network.requests) == 1
    with pytest.raises(TowpathError):
        await found(given, ("GET", "*", here("mars")))
