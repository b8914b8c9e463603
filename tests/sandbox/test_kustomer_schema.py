"""Every row of Kustomer's request schemas: a value at the limit is taken, one beyond it is refused."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from towpath.sandbox.exchange import Incoming
from towpath.sandbox.kustomer import KustomerSimulator
from towpath.sandbox.kustomer_schema import is_date_time

from .conftest import Client

pytestmark = pytest.mark.spec("D12")

AT = "2026-01-01T10:00:00.000Z"


def ids(count: int) -> list[dict[str, str]]:
    return [{"externalId": f"e-{index}"} for index in range(count)]


# attribute, a value that is taken, a value that is refused
CUSTOMER: list[tuple[str, Any, Any]] = [
    ("name", "n" * 256, "n" * 257),
    ("name", None, 7),
    ("username", "n" * 256, "n" * 257),
    ("company", "c" * 1000, 5),
    ("externalId", "e" * 256, "e" * 257),
    ("externalId", None, ""),
    ("signedUpAt", AT, "2026-01-01"),
    ("lastActivityAt", "2026-01-01T10:00:00+05:30", "yesterday"),
    ("lastCustomerActivityAt", None, 1767261600),
    ("lastSeenAt", AT, "2026-13-01T10:00:00Z"),
    ("birthdayAt", AT, "21-02-1988"),
    ("createdAt", AT, None),
    ("importedAt", AT, None),
    ("avatarUrl", "https://example.com/a.png", "avatar-url"),
    ("externalIds", ids(10), ids(11)),
    ("externalIds", [{"externalId": "e" * 255, "verified": True}], [{"externalId": "e" * 256}]),
    ("externalIds", ids(1), ids(1) * 2),
    ("externalIds", [], [{"verified": True}]),
    ("sharedExternalIds", ids(10), ids(11)),
    ("emails", [{"email": "a@b", "type": "work", "verified": False}], [{"email": "a@b", "type": "main"}]),
    ("emails", [{"email": "a+b@example.com"}], [{"email": "example.com"}]),
    ("emails", [{"email": f"{n}@b.c"} for n in range(10)], [{"email": f"{n}@b.c"} for n in range(11)]),
    ("emails", [], None),
    ("sharedEmails", [{"email": "a@b.c", "type": "other"}], [{"type": "home"}]),
    ("phones", [{"phone": "+18005551212", "type": "fax"}], [{"phone": "phone"}]),
    ("phones", [{"phone": "+49 (30) 123-45"}], [{"phone": "+1", "kind": "home"}]),
    ("sharedPhones", [{"phone": "18005551212"}], ["18005551212"]),
    ("whatsapps", [{"phone": "+18005551212", "type": "mobile"}], [{"phone": "+18005551212", "type": "home"}]),
    ("facebookIds", [{"pageId": "p", "userId": "u" * 255, "name": "n"}], [{"pageId": "p"}]),
    ("instagramIds", [{"pageId": "p", "threadId": "t", "username": "u"}], [{"pageId": "p", "threadId": "t"}]),
    ("socials", [{"type": "pinterest", "username": "u" * 256}], [{"type": "tiktok", "username": "u"}]),
    ("socials", [{"type": "twitter", "username": "u", "url": "http://t.co/u"}], [{"type": "twitter"}]),
    ("sharedSocials", [{"type": "linkedin", "username": "u"}], [{"type": "linkedin", "username": ""}]),
    ("urls", [{"url": "https://example.com", "type": "blog"}], [{"url": "www.website.com"}]),
    ("urls", [{"url": "http://example.com/a?b"}], [{"url": "http://example.com", "verified": True}]),
    ("locations", [{"address": "a" * 256, "type": None}], [{"address": "a" * 257}]),
    ("locations", [{"countryCode": "DE", "latitude": 52.5}], [{"countryCode": "DEU"}]),
    ("locations", [{"regionCode": "IL", "zipCode": "z" * 30}], [{"zipCode": "z" * 31}]),
    ("locations", [{"cityName": "c" * 128, "countryName": "c" * 64}], [{"countryName": "c" * 65}]),
    ("locations", [{"longitude": -8, "areaCode": "1"}], [{"longitude": "-8"}]),
    ("locations", [{"address2": "a", "address3": "b", "name": "c"}], [{"street": "a"}]),
    ("locale", "l" * 16, "l" * 17),
    ("timeZone", "t" * 64, "t" * 65),
    ("defaultLang", "d" * 100, "d" * 101),
    ("tags", [f"t{n}" for n in range(20)], [f"t{n}" for n in range(21)]),
    ("tags", ["Größe XL/<b>-._1"], [" leading"]),
    ("tags", ["t" * 64], ["t" * 65]),
    ("tags", ["a", "b"], ["a", "a"]),
    ("tags", ["ok"], ["comma,"]),
    ("sentiment", {"polarity": -1, "confidence": 0.5}, {"polarity": 2, "confidence": 0.5}),
    ("sentiment", {"polarity": 0, "confidence": -1}, {"polarity": 0, "confidence": 1.1}),
    ("sentiment", {"polarity": 1, "confidence": 1}, {"polarity": 1}),
    ("gender", "m", "male"),
    ("gender", None, "F"),
    ("custom", {f"k{n}Num": n for n in range(100)}, {f"k{n}Num": n for n in range(101)}),
    ("custom", {"aStr": "s" * 1024}, {"aStr": "s" * 1025}),
    ("custom", {"aTxt": "t", "aUrl": "https://a.b", "aId": "i"}, {"aUrl": "a.b"}),
    ("custom", {"aNum": 1.5, "aBool": False, "aAt": AT}, {"aNum": "1"}),
    ("custom", {"aAt": None}, {"aAt": "soon"}),
    ("custom", {"aBool": True}, {"aBool": "true"}),
    ("custom", {}, []),
    ("rev", 1, "1"),
]

IDENTITY: list[tuple[str, Any, Any]] = [
    ("remember", True, "true"),
    ("trackingId", "t-1", 1),
    ("sessionId", "s-1", 1767261600000),
    ("name", "n" * 300, None),
    ("company", "c", None),
    ("externalId", "e" * 256, "e" * 257),
    ("externalId", "u-1", None),
    ("username", "u" * 256, "u" * 257),
    ("signedUpAt", AT, "2026-01-01"),
    ("birthdayAt", AT, None),
    ("gender", "f", None),
    ("locale", "l" * 16, "l" * 17),
    ("timeZone", "UTC", None),
    ("email", "ada@example.com", None),
    ("email", "ada@example.com", "ada@example"),
    ("phone", "+18005551212", "phone"),
    ("location", {"address": "a" * 256}, {"address": "a" * 257}),
    ("tags", [str(n) for n in range(20)], [str(n) for n in range(21)]),
    ("custom", {"planStr": "gold"}, {"plan": "gold"}),
]

EVENT: list[tuple[str, Any, Any]] = [
    ("name", "ab", "x"),
    ("name", "Order-Completed_1.0", "Order Completed"),
    ("name", "n" * 255, "n" * 256),
    ("name", "Zz", "2nd-Visit"),
    ("name", "A-", "-A"),
    ("name", "Web-Page-Viewed", "Web-Page-Viewed-Foo & Bar"),
    ("name", "Cart", "/cart"),
    ("name", "Cafe", "Café"),
    ("name", "ab", "ab\n"),
    ("name", "ab", None),
    ("trackingId", "t", 1),
    ("sessionId", "s", 1767261600000),
    ("sessionId", "s", None),
    ("timestamp", ..., AT),
    ("messageId", ..., "m-1"),
    ("meta", {f"k{n}": "v" for n in range(100)}, {f"k{n}": "v" for n in range(101)}),
    ("meta", {"product_name": "UNO"}, {"product_nameNum": "UNO"}),
    ("meta", {"revenueNum": 30}, {"revenue": 300}),
    ("meta", {"revenueNum": 0.5}, {"revenue": 0.5}),
    ("meta", {"items": "a,b"}, {"items": {"price": 32, "name": "dinner plate"}}),
    ("meta", {"items": ""}, {"items": ["dinner plate", "fork"]}),
    ("meta", {"flag": "true"}, {"flag": True}),
    ("meta", {"nothing": None}, []),
    ("meta", {}, None),
]


def rows(table: list[tuple[str, Any, Any]]) -> pytest.MarkDecorator:
    return pytest.mark.parametrize(
        ("key", "taken", "refused"), table, ids=[f"{key}-{index}" for index, (key, _, _) in enumerate(table)]
    )


@rows(CUSTOMER)
async def test_customer(client: Client, key: str, taken: Any, refused: Any) -> None:
    bad = await client("POST", "/v1/customers", {key: refused})
    assert bad.status == 400, bad.json
    assert bad.error["detail"].startswith(f"/properties/{key}/")
    good = await client("POST", "/v1/customers", {key: taken})
    assert good.status == 201, good.json


@rows(CUSTOMER[:20])
async def test_an_update_is_held_to_the_same_schema(
    client: Client, key: str, taken: Any, refused: Any
) -> None:
    customer = await client.create(name="Ada")
    bad = await client("PATCH", f"/v1/customers/{customer}", {key: refused})
    good = await client("PUT", f"/v1/customers/{customer}", {key: taken})
    assert (bad.status, good.status) == (400, 200), (bad.json, good.json)


@rows(IDENTITY)
async def test_identity(client: Client, key: str, taken: Any, refused: Any) -> None:
    event = {"name": "Order-Completed"}
    bad = await client("POST", "/v1/tracking/identityEvent", {"identity": {key: refused}, "event": event})
    assert bad.status == 400, bad.json
    assert bad.error["detail"].startswith(f"/properties/identity/properties/{key}/")
    good = await client("POST", "/v1/tracking/identityEvent", {"identity": {key: taken}, "event": event})
    assert good.status == 201, good.json
    alone = [await client("POST", "/v1/tracking/identity", {key: value}) for value in (taken, refused)]
    assert [got.status for got in alone] == [201, 400]


@rows(EVENT)
async def test_event(client: Client, kustomer: KustomerSimulator, key: str, taken: Any, refused: Any) -> None:
    event = {"name": "Order-Completed"}
    bodies = [{**event, key: refused}, {**event, key: taken} if taken is not ... else event]
    who = {"identity": {"externalId": "u-1"}}
    got = [await client("POST", "/v1/tracking/identityEvent", {**who, "event": body}) for body in bodies]
    assert [answer.status for answer in got] == [400, 201], [answer.json for answer in got]
    assert got[0].error["detail"].startswith("/properties/event/")
    assert kustomer.state.event_count == 1
    alone = [await client("POST", "/v1/tracking/event", body) for body in bodies]
    assert [answer.status for answer in alone] == [400, 204]


@pytest.mark.parametrize(
    ("path", "body", "parameter"),
    [
        ("/v1/customers", {"displayName": "Ada"}, "displayName"),
        ("/v1/customers", {"name": "Ada", "presence": "online"}, "presence"),
        ("/v1/tracking/identity", {"firstName": "Ada"}, "firstName"),
        ("/v1/tracking/event", {"name": "ab", "timestamp": AT}, "timestamp"),
        ("/v1/tracking/identityEvent", {"identity": {}, "event": {"name": "ab"}, "at": 1}, "at"),
        ("/v1/tracking/identityEvent", {"identity": {}}, "event"),
        ("/v1/tracking/identityEvent", {"event": {"name": "ab"}}, "identity"),
        ("/v1/tracking/event", {}, "name"),
    ],
)
async def test_bodies_are_closed_and_complete(client: Client, path: str, body: Any, parameter: str) -> None:
    got = await client("POST", path, body)
    assert (got.status, got.error["source"]) == (400, {"parameter": parameter})


@pytest.mark.parametrize(
    ("text", "valid"),
    [
        ("2020-02-02T00:23:09.544Z", True),
        ("2020-02-02t00:23:09z", True),
        ("2020-02-02T00:23:09+05:30", True),
        ("2020-02-30T00:00:00Z", False),
        ("2020-02-02", False),
        ("2020-02-02T00:23Z", False),
        ("2020-02-02T00:23:09", False),
        ("2020-02-02 00:23:09Z", False),
        ("2020", False),
        ("٢٠٢٠-02-02T00:23:09Z", False),
    ],
)
def test_a_date_time_is_whole(text: str, valid: bool) -> None:
    assert is_date_time(text) is valid


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
NAMED = st.dictionaries(
    st.sampled_from(
        [
            "name",
            "externalId",
            "emails",
            "phones",
            "tags",
            "custom",
            "sentiment",
            "locations",
            "identity",
            "event",
            "meta",
            "and",
            "sort",
            "source",
        ]
    ),
    JSON,
    max_size=4,
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    path=st.sampled_from(
        [
            "/v1/customers",
            "/v1/customers/bulk",
            "/v1/customers/merges",
            "/v1/customers/search",
            "/v1/tracking/identity",
            "/v1/tracking/event",
            "/v1/tracking/identityEvent",
        ]
    ),
    body=NAMED | JSON,
)
def test_no_body_breaks_the_simulator(path: str, body: Any) -> None:
    simulator = KustomerSimulator(api_keys={"k": ["org"]})
    raw = msgspec.json.encode(body)
    headers = [(b"authorization", b"Bearer k"), (b"content-type", b"application/json")]
    answer = simulator.answer(Incoming("POST", path, "", headers, raw, len(raw)))
    assert answer.status in {200, 201, 204, 400, 404, 409}
