"""Tracking in the simulator: whom an event goes to, in which order, and what is counted."""

from __future__ import annotations

from typing import Any

import aiohttp
import pytest

from towpath.sandbox.kustomer import KustomerSimulator
from towpath.sandbox.kustomer_state import Switches
from towpath.sandbox.serve import serve

from .conftest import KEY, Client, SetClock

pytestmark = pytest.mark.spec("D12")


def names(kustomer: KustomerSimulator, customer: str) -> list[str]:
    return [event.name for event in kustomer.state.events[customer]]


async def test_an_unknown_person_becomes_a_customer(client: Client, kustomer: KustomerSimulator) -> None:
    await client.track({"externalId": "u-1", "email": "ada@example.com"}, "E1")
    found = await client("GET", "/v1/customers/email=ada%40example.com")
    assert found.attributes["externalId"] == "u-1"
    assert names(kustomer, found.id) == ["E1"]


@pytest.mark.parametrize(
    "identity", [{"externalId": "u-1"}, {"email": "A@b.co"}, {"phone": "1-800-555-1212"}]
)
async def test_a_known_person_is_found(
    client: Client, kustomer: KustomerSimulator, identity: dict[str, Any]
) -> None:
    customer = await client.create(
        externalId="u-1", emails=[{"email": "a@b.co"}], phones=[{"phone": "+18005551212"}]
    )
    await client.track(identity, "E1")
    assert names(kustomer, customer) == ["E1"]
    assert len(kustomer.state.customers) == 1


async def test_events_keep_the_order_of_arrival(client: Client, kustomer: KustomerSimulator) -> None:
    for number in range(20):
        await client.track({"externalId": f"u-{number % 2}"}, f"E{number}")
    orders = [names(kustomer, customer) for customer in kustomer.state.customers]
    assert orders == [[f"E{n}" for n in range(0, 20, 2)], [f"E{n}" for n in range(1, 20, 2)]]


async def test_a_repeated_event_is_kept_and_counted(
    client: Client, kustomer: KustomerSimulator, clock: SetClock
) -> None:
    for identity, meta in [
        ({"externalId": "u-1"}, {"aNum": 1}),
        ({"externalId": "u-1"}, {"aNum": 1}),
        ({"externalId": "u-1"}, {"aNum": 2}),
        ({"externalId": "u-2"}, {"aNum": 1}),
    ]:
        assert (await client.track(identity, "E1", **meta)).status == 201
    assert (kustomer.state.event_count, kustomer.state.duplicates) == (4, 1)
    clock.at += 60.5
    await client.track({"externalId": "u-1"}, "E1", aNum=1)
    assert (kustomer.state.event_count, kustomer.state.duplicates) == (5, 1)
    clock.at += 60
    await client.track({"externalId": "u-1"}, "E1", aNum=1)
    assert kustomer.state.duplicates == 2


@pytest.mark.parametrize(
    ("meta", "warned"),
    [
        ({"product_nameAt": "UNO"}, True),
        ({"purchased": "2020-02-02T00:23:09.544Z"}, True),
        ({"purchasedAt": "2020-02-02T00:23:09.544Z"}, False),
        ({"product_name": "UNO", "revenueNum": 1}, False),
    ],
)
async def test_what_is_not_semantically_correct_is_taken_and_counted(
    client: Client, kustomer: KustomerSimulator, meta: dict[str, Any], *, warned: bool
) -> None:
    assert (await client.track({"externalId": "u-1"}, "E1", **meta)).status == 201
    assert kustomer.state.semantic_warnings == warned
    (events,) = kustomer.state.events.values()
    assert [next(iter(meta)) in oddity for oddity in events[0].oddities] == [True] * warned


async def test_an_identity_adds_what_is_new_and_leaves_what_others_own(
    client: Client, kustomer: KustomerSimulator
) -> None:
    ada = await client.create(externalId="u-1", company="c-1", tags=["a"])
    await client.create(emails=[{"email": "bo@example.com"}])
    await client(
        "POST", "/v1/tracking/identity", {"externalId": "u-1", "email": "ada@example.com", "tags": ["b"]}
    )
    kept = (await client("GET", f"/v1/customers/{ada}")).attributes
    assert [item["email"] for item in kept["emails"]] == ["ada@example.com"]
    assert sorted(kept["tags"]) == ["a", "b"]
    assert kustomer.state.customers[ada].attributes["company"] == "c-1"
    assert kustomer.state.identity_conflicts == 0
    await client.track({"externalId": "u-1", "email": "bo@example.com"}, "E1")
    assert kustomer.state.identity_conflicts == 1
    assert names(kustomer, ada) == []


async def test_anonymous_events_wait_for_their_identity(client: Client, kustomer: KustomerSimulator) -> None:
    for name in ("E1", "E2"):
        assert (await client("POST", "/v1/tracking/event", {"name": name, "trackingId": "t-1"})).status == 204
    assert not kustomer.state.customers
    await client("POST", "/v1/tracking/identity", {"externalId": "u-1", "trackingId": "t-1"})
    await client("POST", "/v1/tracking/event", {"name": "E3", "trackingId": "t-1"})
    (customer,) = kustomer.state.customers
    assert names(kustomer, customer) == ["E1", "E2", "E3"]
    assert not kustomer.state.anonymous


async def test_a_tracking_id_from_an_identity_leads_back_to_the_customer(
    client: Client, kustomer: KustomerSimulator
) -> None:
    tracking_id = (await client("POST", "/v1/tracking/identity", {"externalId": "u-1"})).attributes[
        "trackingId"
    ]
    await client("POST", "/v1/tracking/event", {"name": "E1", "trackingId": tracking_id})
    (customer,) = kustomer.state.customers
    assert names(kustomer, customer) == ["E1"]


async def test_sessions_are_given_or_made_by_the_time_between_events(client: Client, clock: SetClock) -> None:
    for pause in (0, 60, 3600):
        clock.at += pause
        await client.track({"externalId": "u-1"}, "E1", aNum=pause)
    body = {"identity": {"externalId": "u-1"}, "event": {"name": "E2", "sessionId": "mine"}}
    await client("POST", "/v1/tracking/identityEvent", body)
    customer = (await client("GET", "/v1/customers/externalId=u-1")).id
    sessions = (await client("GET", f"/v1/customers/{customer}/sessions")).json["data"]
    assert [session["attributes"]["count"] for session in sessions] == [2, 1, 1]
    assert sessions[2]["attributes"]["sessionId"] == "mine"
    events = (await client("GET", f"/v1/customers/{customer}/sessions/mine/events")).json["data"]
    assert [event["attributes"]["trackingEvent"] for event in events] == ["tracking.E2"]
    one = await client("GET", f"/v1/customers/{customer}/events/{events[0]['id']}")
    assert one.json["data"] == events[0]
    assert (await client("GET", f"/v1/customers/{customer}/events/none")).status == 404


@pytest.mark.parametrize(
    ("switches", "meta", "status"),
    [
        (Switches(boolean_meta=True), {"flagBool": True}, 201),
        (Switches(null_meta=False), {"nothing": None}, 400),
        (Switches(), {"nothing": None}, 201),
    ],
)
async def test_switches_for_what_is_not_documented_of_meta(
    session: aiohttp.ClientSession, switches: Switches, meta: dict[str, Any], status: int
) -> None:
    async with serve(KustomerSimulator(api_keys={KEY: ["org"]}, switches=switches)) as url:
        assert (await Client(session, url).track({"externalId": "u-1"}, "E1", **meta)).status == status


async def test_the_request_log_is_bounded_and_holds_the_newest(session: aiohttp.ClientSession) -> None:
    simulator = KustomerSimulator(api_keys={KEY: ["org"]}, kept_requests=2)
    async with serve(simulator) as url:
        client = Client(session, url)
        for number in range(3):
            await client("GET", f"/v1/customers/externalId={number}?a=b")
    assert [(seen.method, seen.path, seen.query, seen.status) for seen in simulator.requests] == [
        ("GET", f"/v1/customers/externalId={number}", "a=b", 404) for number in (1, 2)
    ]
