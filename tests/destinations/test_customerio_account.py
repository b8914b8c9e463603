"""The workspace: settings, credentials, hosts, budgets, and the region that is found before any write."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from pydantic import ValidationError

from towpath.destinations.customerio import CustomerIo
from towpath.http import Reply, Stopping, TransportError
from towpath.outcome import Delivered, Paused, Retry

from .customerio_world import (
    APP,
    ENTITY,
    KEYS,
    REGION_EU,
    TRACK,
    TRACK_EU,
    WITH_APP,
    World,
    answer,
    customerio,
    identify,
    prepared,
    track,
)

ASKED = "/api/v1/accounts/region"


@pytest.mark.spec("C114", "D18")
@pytest.mark.parametrize("region", ["auto", "us", "US", " Us "])
async def test_the_region_is_asked_before_the_first_write_and_once(region: str) -> None:
    world = World(region=region)
    await world.deliver(track())
    await world.deliver_batch([track(userId="u2"), track(userId="u3")])
    asked = [request.url for request in world.network.requests if ASKED in request.url]
    assert asked == [TRACK + ASKED]
    assert world.network.requests[0].url == asked[0]
    world.clock._elapsed += 24 * 3600 + 1
    await world.deliver(track())
    assert len([request for request in world.network.requests if ASKED in request.url]) == 2


@pytest.mark.spec("C114", "D18")
async def test_auto_goes_where_the_account_is() -> None:
    world = World(REGION_EU, **WITH_APP)
    await world.deliver(identify({"email": "a@b.c"}))
    assert world.urls[0] == f"{TRACK_EU}/api/v2/entity"
    assert world.urls[1].startswith("https://api-eu.customer.io/v1/")


@pytest.mark.spec("D18")
async def test_a_europe_that_is_configured_is_asked_in_europe() -> None:
    world = World(REGION_EU, datacenter="EU")
    assert await world.deliver(track()) == Delivered(200)
    assert [request.url for request in world.network.requests] == [
        f"{TRACK_EU}{ASKED}",
        f"{TRACK_EU}/api/v2/entity",
    ]


@pytest.mark.spec("C093", "C123", "D18")
async def test_another_region_than_configured_sends_nothing() -> None:
    world = World(REGION_EU, region="us")
    outcome = await world.deliver(track())
    assert isinstance(outcome, Paused)
    assert "wrong region: the settings say us, but this account's data is in the EU" in outcome.reason
    assert world.sent == []


@pytest.mark.spec("C093", "C123", "D18")
@pytest.mark.parametrize("status", [301, 307, 401])
async def test_a_host_that_does_not_know_the_account_is_not_the_last_word(status: int) -> None:
    elsewhere = Reply(status, {"location": f"{TRACK_EU}{ASKED}"})
    world = World(("GET", f"{TRACK}{ASKED}", elsewhere), REGION_EU)
    assert await world.deliver(track()) == Delivered(200)
    assert world.urls == [f"{TRACK_EU}/api/v2/entity"]
    configured = World(("GET", f"{TRACK}{ASKED}", elsewhere), REGION_EU, region="us")
    outcome = await configured.deliver(track())
    assert isinstance(outcome, Paused)
    assert "wrong region" in outcome.reason


@pytest.mark.spec("D18")
@pytest.mark.parametrize(
    "reply", [answer(404), answer(400), Reply(302), answer(200, {"region": "mars"}), answer(200, [])]
)
async def test_a_region_that_is_not_told_costs_no_message(reply: Reply) -> None:
    world = World(("GET", ASKED, reply))
    outcome = await world.deliver(track())
    assert isinstance(outcome, Paused)
    assert "nothing was sent" in outcome.reason
    assert world.sent == []


@pytest.mark.spec("D18")
@pytest.mark.parametrize("met", [answer(503), TransportError("reset", sent=True)])
async def test_a_region_that_cannot_be_asked_now_is_asked_again(met: Any) -> None:
    world = World(("GET", ASKED, met))
    assert isinstance(await world.deliver(track()), Retry)
    assert len(world.network.requests) == 2  # either host may tell


@pytest.mark.spec("C123", "D18")
async def test_redirects_of_writes_are_not_followed() -> None:
    elsewhere = Reply(307, {"location": f"{TRACK_EU}/api/v2/entity"})
    world = World(("POST", "/api/v2/entity", elsewhere))
    for _ in range(2):
        outcome = await world.deliver(track())
        assert isinstance(outcome, Retry)
        assert "another region" in outcome.reason
    assert world.urls == [ENTITY, ENTITY]
    assert len([request for request in world.network.requests if "/region" in request.url]) == 2


async def test_a_stop_keeps_even_the_question_from_being_asked() -> None:
    world = World()
    world.http.stopping = True
    with pytest.raises(Stopping):
        await world.deliver(track())
    assert world.network.requests == []


@pytest.mark.spec("C111", "C112")
async def test_each_api_has_its_own_credentials() -> None:
    world = World(**WITH_APP)
    await world.deliver(identify({"email": "a@b.c"}))
    by_host = {
        request.url.split("/")[2]: request.headers["authorization"] for request in world.network.requests
    }
    basic = base64.b64encode(b"site:track-secret").decode()
    assert by_host["track.customer.io"] == f"Basic {basic}"
    assert by_host["api.customer.io"] == "Bearer app-secret"
    assert APP.endswith("api.customer.io")


@pytest.mark.spec("C084", "C085", "C086")
def test_budgets_are_requests_per_minute_of_each_api() -> None:
    assert customerio().budgets() == {"track": 6000, "app": 600, "pipelines": 6000}
    assert customerio(rate=1000).budgets() == {"track": 60_000, "app": 600, "pipelines": 6000}
    for rate in (0, -1, 1001):
        with pytest.raises(ValidationError):
            customerio(rate=rate)


@pytest.mark.spec("C084", "C085")
async def test_what_is_written_and_read_is_counted_in_its_budget() -> None:
    world = World(budgeted=True, **WITH_APP)
    await world.clock.drive(world.deliver(identify({"email": "a@b.c"})))
    tokens = {bucket: throttle._tokens for bucket, throttle in world.http.throttles.items()}  # type: ignore[attr-defined]
    fresh = World(budgeted=True, **WITH_APP).http.throttles
    spent = {bucket: fresh[bucket]._tokens - left > 0.5 for bucket, left in tokens.items()}  # type: ignore[attr-defined]
    assert spent == {"track": True, "app": True, "pipelines": False}


@pytest.mark.spec("C111")
@pytest.mark.parametrize(
    "spelled",
    [
        {"site_id": "s", "api_key": "k"},
        {"siteID": "s", "apiKey": "k", "datacenter": "EU", "deviceTokenEventName": "T"},
        {"siteId": "s", "trackApiKey": "k", "appApiKey": "a", "dataCenter": "us"},
        {"site_id": " s ", "track_api_key": " k\n", "pipelinesWriteKey": "w", "api": "pipelines"},
    ],
)
def test_spellings_of_the_settings(spelled: dict[str, Any]) -> None:
    settings = CustomerIo.Settings.model_validate(spelled)
    assert (settings.site_id, settings.api_key.get_secret_value()) == ("s", "k")


@pytest.mark.spec("C111", "C113", "C122")
@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"site_id": ""}, "site id"),
        ({"site_id": "s:k"}, "holds a colon"),
        ({"api_key": "a\nb"}, "one line"),
        ({"app_api_key": "schlüssel"}, "plain characters"),
        ({"region": "mars"}, "region"),
        ({"api": "pipelines"}, "needs pipelines_write_key"),
        ({"conflicts": "merge"}, "needs app_api_key"),
        ({"conflicts": "rename"}, "needs app_api_key"),
        (
            {"conflicts": "merge", "app_api_key": "a", "api": "pipelines", "pipelines_write_key": "w"},
            "track only",
        ),
        ({"base_url": "http://track.customer.io"}, "https"),
        ({"track_url": "ftp://127.0.0.1"}, "https"),
        ({"app_url": "https://user@host"}, "https"),
        ({"pipelines_url": "https://host?x=1"}, "https"),
        ({"base_url": "http://10.0.0.1:8080"}, "https"),
        ({"base_url": "http://[::bad"}, "https"),
    ],
)
def test_settings_that_cannot_work(given: dict[str, Any], words: str) -> None:
    with pytest.raises(ValidationError, match=words):
        CustomerIo.Settings.model_validate({**KEYS, **given})


@pytest.mark.spec("C113")
@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9002/", "http://localhost:1", "http://[::1]:1", "https://sim.example"]
)
async def test_another_address_serves_all_three_apis(url: str) -> None:
    world = World(REGION_EU, base_url=url, **WITH_APP)
    assert await world.deliver(identify({"email": "a@b.c"})) == Delivered(200)
    bare = url.rstrip("/")
    assert all(request.url.startswith(f"{bare}/") for request in world.network.requests)
    assert prepared(world.destination, track()).requests[0].url == f"{bare}/api/v2/entity"


async def test_one_address_of_its_own_wins_over_the_common_one() -> None:
    world = World(base_url="http://127.0.0.1:1", track_url="http://127.0.0.1:2")
    await world.deliver(track())
    assert world.urls == ["http://127.0.0.1:2/api/v2/entity"]
