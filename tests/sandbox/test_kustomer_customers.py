"""Customers of the simulator: found, unique, merged by an update, listed, searched, and made in bulk."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import quote

import aiohttp
import pytest

from towpath.sandbox.kustomer import KustomerSimulator
from towpath.sandbox.kustomer_state import Switches
from towpath.sandbox.serve import serve

from .conftest import KEY, Client, Got, SetClock

pytestmark = pytest.mark.spec("D12")

TAKEN: list[dict[str, Any]] = [
    {"emails": [{"email": "ADA@example.com"}]},
    {"phones": [{"phone": "1 (800) 555-1212", "type": "home"}]},
    {"externalId": "u-1"},
    {"externalIds": [{"externalId": "u-1"}]},
    {"socials": [{"type": "twitter", "username": "@Ada"}]},
    {"whatsapps": [{"phone": "18005551212"}]},
]
ADA: dict[str, Any] = {
    "externalId": "u-1",
    "emails": [{"email": "ada@example.com"}],
    "phones": [{"phone": "+18005551212"}],
    "whatsapps": [{"phone": "+18005551212"}],
    "socials": [{"type": "twitter", "username": "@ada"}],
}


async def with_switches(
    session: aiohttp.ClientSession, switches: Switches, work: Callable[[Client], Awaitable[Got]]
) -> Got:
    async with serve(KustomerSimulator(api_keys={KEY: ["org"]}, switches=switches)) as url:
        return await work(Client(session, url))


@pytest.mark.parametrize("clash", TAKEN)
async def test_a_second_customer_with_the_same_identifier_is_409(
    client: Client, kustomer: KustomerSimulator, clash: dict[str, Any]
) -> None:
    await client.create(**ADA)
    other = await client.create(name="Other", externalId="u-2")
    created = await client("POST", "/v1/customers", {"name": "Twin", **clash})
    updated = await client("PUT", f"/v1/customers/{other}?replace=false", {"name": "Twin", **clash})
    assert (created.status, updated.status) == (409, 409)
    expected = next(iter(clash)).replace("externalId", "externalIds").replace("Idss", "Ids")
    assert created.error["source"]["parameter"] == expected
    assert len(kustomer.state.customers) == 2
    assert (await client("GET", f"/v1/customers/{other}")).attributes["name"] == "Other"


async def test_a_duplicate_can_be_400(session: aiohttp.ClientSession) -> None:
    async def twice(client: Client) -> Got:
        await client.create(**ADA)
        return await client("POST", "/v1/customers", ADA)

    got = await with_switches(session, Switches(duplicate_status=400), twice)
    assert (got.status, got.error["source"]["parameter"]) == (400, "emails")


async def test_shared_contact_points_are_not_unique(client: Client) -> None:
    shared = {"sharedEmails": [{"email": "desk@example.com"}], "sharedPhones": [{"phone": "+18005551212"}]}
    await client.create(**shared)
    await client.create(**shared)


async def test_an_identifier_is_free_again_when_it_is_given_up(client: Client) -> None:
    first = await client.create(**ADA)
    await client("PUT", f"/v1/customers/{first}", {"emails": [{"email": "new@example.com"}]})
    await client.create(emails=ADA["emails"])
    assert (await client("DELETE", f"/v1/customers/{first}")).status == 204
    await client.create(externalId="u-1", emails=[{"email": "new@example.com"}])
    assert (await client("GET", f"/v1/customers/{first}")).error["source"]["parameter"] == "id"


async def test_put_merges_and_replaces_arrays(client: Client) -> None:
    customer = await client.create(name="Ada", tags=["a"], custom={"aNum": 1, "bNum": 2}, **ADA)
    changes = {"tags": ["b"], "custom": {"bNum": None}, "username": "ada"}
    got = await client("PUT", f"/v1/customers/{customer}?replace=false", changes)
    kept = got.attributes
    assert (kept["name"], kept["tags"], kept["username"]) == ("Ada", ["b"], "ada")
    assert kept["custom"] == {"aNum": 1, "bNum": None}
    assert kept["emails"] == ADA["emails"]


async def test_replace_true_replaces_the_document(client: Client) -> None:
    customer = await client.create(name="Ada", **ADA)
    got = await client("PUT", f"/v1/customers/{customer}?replace=true", {"username": "ada"})
    assert "name" not in got.attributes
    assert got.attributes["emails"] == []
    assert (await client("GET", "/v1/customers/externalId=u-1")).status == 404


async def test_arrays_can_be_united(session: aiohttp.ClientSession) -> None:
    async def united(client: Client) -> Got:
        customer = await client.create(tags=["a"])
        return await client("PATCH", f"/v1/customers/{customer}", {"tags": ["b"]})

    got = await with_switches(session, Switches(unite_arrays=True), united)
    assert sorted(got.attributes["tags"]) == ["a", "b"]


@pytest.mark.parametrize("keep", [False, True])
async def test_a_company_left_out_is_unlinked_unless_the_switch_keeps_it(
    session: aiohttp.ClientSession, *, keep: bool
) -> None:
    async def update(client: Client) -> Got:
        customer = await client.create(name="Ada", company="58224b3eaa5f92110005d61e")
        return await client("PATCH", f"/v1/customers/{customer}", {"name": "A"})

    got = await with_switches(session, Switches(keep_company=keep), update)
    assert ("company" in got.json["data"]["relationships"]) is keep


async def test_a_company_sent_again_stays_linked(client: Client) -> None:
    company = "58224b3eaa5f92110005d61e"
    customer = await client.create(name="Ada", company=company)
    got = await client("PUT", f"/v1/customers/{customer}", {"company": company})
    assert got.json["data"]["relationships"]["company"]["data"] == {"type": "company", "id": company}


async def test_a_stale_revision_is_409(client: Client) -> None:
    customer = await client.create(name="Ada")
    first = await client("PUT", f"/v1/customers/{customer}", {"name": "A", "rev": 1})
    stale = await client("PUT", f"/v1/customers/{customer}", {"name": "B", "rev": 1})
    assert (first.status, stale.status, stale.error["source"]["parameter"]) == (200, 409, "rev")


async def test_another_external_id_takes_the_place_of_the_first(client: Client) -> None:
    customer = await client.create(externalId="u-1")
    got = await client("PUT", f"/v1/customers/{customer}", {"externalId": "u-2"})
    assert got.attributes["externalIds"] == [{"externalId": "u-2", "verified": True}]
    assert (await client("GET", "/v1/customers/externalId=u-1")).status == 404


@pytest.mark.parametrize("external_id", ["a/b", "a b", "a%b", "ü?=&#", "../x", "email=x"])
async def test_path_values_are_percent_decoded_once(client: Client, external_id: str) -> None:
    customer = await client.create(externalId=external_id)
    got = await client("GET", f"/v1/customers/externalId={quote(external_id, safe='')}")
    assert (got.status, got.id) == (200, customer)


async def test_an_email_is_found_without_regard_to_case(client: Client) -> None:
    customer = await client.create(emails=[{"email": "Ada+1@Example.com"}])
    got = await client("GET", "/v1/customers/email=ada%2B1%40example.com")
    assert got.id == customer


@pytest.mark.parametrize("parameter", ["email", "externalId", "phone"])
async def test_a_missing_customer_names_the_lookup(client: Client, parameter: str) -> None:
    got = await client("GET", f"/v1/customers/{parameter}=1")
    assert (got.status, got.error["source"]["parameter"]) == (404, parameter)


async def test_the_list_has_pages(client: Client) -> None:
    made = [await client.create(name=f"n{n}") for n in range(5)]
    pages = [(await client("GET", f"/v1/customers?page={n}&pageSize=2")).json for n in (1, 2, 3, 4)]
    assert [[item["id"] for item in page["data"]] for page in pages] == [made[:2], made[2:4], made[4:], []]
    assert pages[0]["links"]["prev"] is None
    assert pages[0]["links"]["next"] == "/v1/customers?page=2&pageSize=2"
    assert pages[2]["links"]["next"] is None
    assert (await client("GET", "/v1/customers?page=0")).status == 400


async def test_search_finds_by_time_and_identifier(client: Client, clock: SetClock) -> None:
    first = await client.create(externalId="u-1", emails=[{"email": "a@b.c"}])
    clock.at += 10
    second = await client.create(externalId="u-2")
    since = {"customer_updated_at": {"gte": "2026-01-01T10:00:05.000Z"}}
    queries: list[tuple[dict[str, Any], list[str]]] = [
        ({"and": [since]}, [second]),
        ({"not": [since]}, [first]),
        ({"and": [{"customer_email": {"equals": "a@b.c"}}]}, [first]),
        ({"or": [{"customer_external_id": {"equals": e}} for e in ("u-1", "u-2")]}, [first, second]),
        ({"sort": [{"customer_updated_at": "desc"}]}, [second, first]),
    ]
    for query, expected in queries:
        got = await client("POST", "/v1/customers/search", query)
        assert [item["id"] for item in got.json["data"]] == expected, query
        assert got.json["meta"]["total"] == len(expected)
    assert (await client("POST", "/v1/customers/search?page=101", {})).status == 400
    assert (await client("POST", "/v1/customers/search", {"and": [{"color": {"equals": "x"}}]})).status == 400


async def test_bulk_is_done_later_and_names_each_item(client: Client, clock: SetClock) -> None:
    await client.create(externalId="u-2")
    items = [
        {"_clientRef": "r1", "externalId": "u-1"},
        {"_clientRef": "r2", "externalId": "u-2"},
        {"_clientRef": "r3", "gender": "male"},
    ]
    job = (await client("POST", "/v1/customers/bulk", items)).id
    assert (await client("GET", "/v1/customers/externalId=u-1")).status == 404
    clock.at += 0.15
    assert (await client("GET", f"/v1/bulk/{job}")).attributes["status"] == "running"
    clock.at += 0.15
    assert (await client("GET", f"/v1/bulk/{job}")).attributes["status"] == "complete"
    batch = (await client("GET", f"/v1/bulk/{job}/batches")).json["data"][0]["attributes"]
    assert (batch["successCount"], batch["failureCount"]) == (1, 2)
    created, duplicate, invalid = batch["results"]
    assert (created["_clientRef"], created["status"]) == ("r1", "created")
    assert duplicate == {"_clientRef": "r2", "status": "error", "error": "duplicate detected"}
    assert invalid["error"].startswith("gender: ")
    assert (await client("GET", "/v1/customers/externalId=u-1")).id == created["objectId"]


async def test_bulk_updates_and_deletes(client: Client, kustomer: KustomerSimulator, clock: SetClock) -> None:
    made = [await client.create(name=f"n{n}") for n in range(3)]
    await client("PUT", "/v1/customers/bulk", [{"id": made[0], "name": "first"}, {"id": "nobody"}])
    await client("PUT", f"/v1/customers/bulk?ids={made[1]},{made[2]}", {"name": "both"})
    clock.at += 1
    kustomer.bulk.settle()
    names = [kustomer.state.customers[customer].attributes["name"] for customer in made]
    assert names == ["first", "both", "both"]
    assert (await client("DELETE", f"/v1/customers/bulk?ids={made[0]},{made[1]}")).status == 201
    clock.at += 1
    kustomer.bulk.settle()
    assert list(kustomer.state.customers) == made[2:]


@pytest.mark.parametrize(
    "items",
    [
        [],
        {},
        ["a"],
        [{}] * 101,
        [{"_clientRef": "r1"}, {}],
        [{"_clientRef": "r1"}, {"_clientRef": "r1"}],
        [{"_clientRef": "r" * 256}],
        [{"_clientRef": 1}],
    ],
)
async def test_a_bulk_list_outside_its_bounds_is_400(client: Client, items: Any) -> None:
    assert (await client("POST", "/v1/customers/bulk", items)).status == 400


async def test_a_bulk_request_costs_one_request(client: Client) -> None:
    got = await client("POST", "/v1/customers/bulk", [{} for _ in range(100)])
    assert (got.status, got.headers["X-Ratelimit-Remaining"]) == (201, "999")


async def test_merging_moves_events_in_the_order_they_happened(client: Client, clock: SetClock) -> None:
    for name, external_id in (("E1", "u-1"), ("E2", "u-2"), ("E3", "u-1")):
        await client.track({"externalId": external_id}, name)
        clock.at += 1
    ids = [(await client("GET", f"/v1/customers/externalId=u-{n}")).id for n in (1, 2)]
    assert (await client("POST", "/v1/customers/merges", {"source": ids[0], "target": ids[1]})).status == 201
    events = (await client("GET", f"/v1/customers/{ids[1]}/events")).json["data"]
    assert [event["attributes"]["trackingEvent"] for event in events] == [
        "tracking.E1",
        "tracking.E2",
        "tracking.E3",
    ]
    again = await client("POST", "/v1/customers/merges", {"source": ids[0], "target": ids[1]})
    assert (again.status, again.error["source"]["parameter"]) == (404, "source")
    same = await client("POST", "/v1/customers/merges", {"source": ids[1], "target": ids[1]})
    assert same.status == 400
