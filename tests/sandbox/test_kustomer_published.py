"""The simulator against what Kustomer published: the examples of its documents and replies of the real API.

Requests and answers are from Kustomer's OpenAPI document "Core Resources" 1.0; errors marked as recorded are
replies of the real API of 2020-10-01, kept in the public test fixtures of nebulab/solidus_kustomer.
"""

from __future__ import annotations

import re
from typing import Any

import pytest

from .conftest import Client

pytestmark = pytest.mark.spec("D12")

CUSTOMER: dict[str, Any] = {
    "name": "Ada Example",
    "externalId": "u-1",
    "username": "ada",
    "signedUpAt": "2026-01-01T00:00:00.000Z",
    "birthdayAt": "1988-02-21T00:00:00.000Z",
    "gender": "f",
    "locale": "en_US",
    "avatarUrl": "https://example.com/a.png",
    "emails": [{"type": "home", "email": "ada@example.com"}],
    "phones": [{"type": "mobile", "phone": "+18005551212"}],
    "socials": [
        {
            "type": "twitter",
            "username": "@ada",
            "userid": "100",
            "url": "http://twitter.com/ada",
            "verified": True,
        }
    ],
    "urls": [{"type": "website", "url": "https://example.com"}],
    "locations": [{"type": "home", "address": "1 Main St Springfield IL 62701"}],
    "tags": ["vip"],
    "sentiment": {"polarity": 1, "confidence": 0.9},
    "custom": {"planStr": "gold", "seatsNum": 3, "lastOrderAt": "2026-01-01T00:00:00Z", "optInBool": True},
}
SHOWN = (
    "name displayName externalId externalIds sharedExternalIds emails sharedEmails phones sharedPhones "
    "whatsapps facebookIds instagramIds socials sharedSocials urls locations activeUsers watchers "
    "recentLocation createdAt updatedAt modifiedAt lastActivityAt lastConversation conversationCounts tags "
    "progressiveStatus verified rev"
)
RECORDED_404 = {
    "status": 404,
    "source": {"parameter": "externalId"},
    "code": "notfound",
    "title": "Not Found",
}
RECORDED_400 = {
    "status": 400,
    "source": {"parameter": "notAnActualAttribute"},
    "code": "badparam",
    "title": "Additional properties not allowed",
    "detail": "/properties/custom/additionalProperties",
}


async def test_the_example_customer_is_created_and_shown_with_the_documented_attributes(
    client: Client,
) -> None:
    got = await client("POST", "/v1/customers", CUSTOMER)
    assert got.status == 201
    data = got.json["data"]
    assert data["type"] == "customer"
    assert re.fullmatch(r"[0-9a-f]{24}", data["id"])
    assert data["links"] == {"self": f"/v1/customers/{data['id']}"}
    assert set(SHOWN.split()) <= data["attributes"].keys()
    assert data["attributes"]["externalIds"] == [{"externalId": "u-1", "verified": True}]
    assert data["attributes"]["rev"] == 1
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z", data["attributes"]["createdAt"])
    assert {"org", "messages", "createdBy", "modifiedBy"} <= data["relationships"].keys()


async def test_the_example_update_answers_200_and_counts_the_revision(client: Client) -> None:
    customer = await client.create(**CUSTOMER)
    got = await client("PUT", f"/v1/customers/{customer}", {"name": "Ada Example", "tags": ["vip"]})
    assert (got.status, got.attributes["rev"], got.attributes["tags"]) == (200, 2, ["vip"])


@pytest.mark.parametrize("path", ["email=ada%40example.com", "externalId=u-1", "phone=18005551212"])
async def test_the_example_lookups_find_the_customer(client: Client, path: str) -> None:
    customer = await client.create(**CUSTOMER)
    got = await client("GET", f"/v1/customers/{path}")
    assert (got.status, got.id) == (200, customer)


async def test_the_example_identity_event_answers_201_with_the_identity(client: Client) -> None:
    body = {
        "identity": {"externalId": "u-1", "email": "ada@example.com"},
        "event": {
            "name": "Order-Completed",
            "sessionId": "s-1",
            "trackingId": "t-1",
            "meta": {"revenueNum": 20.5, "purchasedAt": "2026-01-01T00:00:00.000Z", "coupon": "X"},
        },
    }
    got = await client("POST", "/v1/tracking/identityEvent", body)
    assert got.status == 201
    data = got.json["data"]
    assert data["type"] == "identity"
    assert data["attributes"].keys() == {
        "trackingId", "email", "status", "statusAt", "createdAt", "updatedAt",
    }  # fmt: skip
    assert data["attributes"]["email"] == "ada@example.com"
    assert data["relationships"]["customer"]["data"]["type"] == "customer"
    assert data["links"] == {"self": f"/v1/tracking/identity/{data['id']}"}


async def test_the_example_identity_answers_201(client: Client) -> None:
    got = await client("POST", "/v1/tracking/identity", {"externalId": "u-1", "email": "ada@example.com"})
    assert (got.status, got.attributes["status"]) == (201, "updated")


async def test_the_example_event_answers_204_without_a_body(client: Client) -> None:
    body = {
        "trackingId": "58290b8a91113b1900bbee48",
        "sessionId": "s-1",
        "name": "Cart-Viewed",
        "meta": {"total_valueNum": 2000},
    }
    got = await client("POST", "/v1/tracking/event", body)
    assert (got.status, got.json) == (204, None)


async def test_the_documented_meta_is_read_back(client: Client) -> None:
    got = await client.track({"externalId": "u-1"}, "Order-Completed", statusStr="Silver")
    customer = got.json["data"]["relationships"]["customer"]["data"]["id"]
    read = await client("GET", f"/v1/customers/{customer}/events")
    attributes = read.json["data"][0]["attributes"]
    assert attributes["name"] == "kustomer.tracking.identified.event"
    assert attributes["trackingEvent"] == "tracking.Order-Completed"
    assert attributes["meta"] == {"statusStr": "Silver"}


async def test_the_recorded_404_is_reproduced(client: Client) -> None:
    got = await client("GET", "/v1/customers/externalId=nobody")
    assert (got.status, got.json) == (404, {"errors": [RECORDED_404]})


async def test_the_recorded_400_is_reproduced(client: Client) -> None:
    got = await client("POST", "/v1/customers", {"custom": {"notAnActualAttribute": 1}})
    assert (got.status, got.json) == (400, {"errors": [RECORDED_400]})


async def test_the_recorded_headers_are_there(client: Client) -> None:
    got = await client("GET", "/v1/customers/externalId=nobody")
    assert got.headers["Content-Type"] == "application/json; charset=utf-8"
    assert got.headers["X-Kustomer-Pod"] == "prod1"
    assert (got.headers["X-Ratelimit-Limit"], got.headers["X-Ratelimit-Remaining"]) == ("1000", "999")
    assert "Etag" in got.headers
    assert "X-Ratelimit-Reset" not in got.headers
    assert "Retry-After" not in got.headers


async def test_the_documented_token_answer_lists_the_roles(client: Client) -> None:
    got = await client("GET", "/v1/auth/tokens/current")
    assert got.status == 200
    assert got.attributes["roles"] == ["org"]
    assert {"lastTokenChars", "name", "ipAddress", "userAgent", "lastAccessedAt"} <= got.attributes.keys()


async def test_the_documented_merge_lets_the_target_win_and_unites_lists(client: Client) -> None:
    source = await client.create(
        name="Old", externalId="u-0", tags=["a"], custom={"planStr": "free", "nNum": 1}
    )
    target = await client.create(name="Ada", externalId="u-1", tags=["b"], custom={"planStr": "gold"})
    got = await client("POST", "/v1/customers/merges", {"source": source, "target": target})
    assert (got.status, got.json["data"]["type"], got.attributes["status"]) == (
        201,
        "customer_merge",
        "success",
    )
    merged = (await client("GET", f"/v1/customers/{target}")).attributes
    assert (merged["name"], merged["externalId"]) == ("Ada", "u-1")
    assert merged["custom"] == {"planStr": "gold", "nNum": 1}
    assert sorted(merged["tags"]) == ["a", "b"]
    assert {item["externalId"] for item in merged["externalIds"]} == {"u-0", "u-1"}
    assert (await client("GET", "/v1/customers/externalId=u-0")).id == target
    assert (await client("GET", f"/v1/customers/{source}")).status == 404


async def test_the_documented_bulk_example_names_the_duplicate(client: Client) -> None:
    await client.create(externalId="u-2")
    items = [
        {"_clientRef": "r1", "name": "A", "externalId": "u-1"},
        {"_clientRef": "r2", "name": "B", "externalId": "u-2"},
    ]
    got = await client("POST", "/v1/customers/bulk", items)
    assert (got.status, got.json["data"]["type"], got.attributes["status"]) == (201, "bulk", "queued")
