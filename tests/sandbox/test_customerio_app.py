"""The simulated Customer.io's App API about people: the live shapes, pages, filters, activities, segments."""

from __future__ import annotations

import base64
from typing import Any

import pytest

from towpath.sandbox.customerio_state import Segment, Switches

from .customerio_calls import Workspace

pytestmark = pytest.mark.spec("D12")

EVERYBODY = {"and": [{"attribute": {"field": "cio_id", "operator": "exists"}}]}


def crowd(count: int, **settings: Any) -> Workspace:
    """A workspace with people u0, u1, …; every third has only an e-mail."""
    at = Workspace(**settings)
    for n in range(count):
        at.identify(f"u{n}" if n % 3 else f"u{n}@example.com", number=n, odd=bool(n % 2))
    return at


def pages(at: Workspace, method: str, path: str, body: Any = None, **query: Any) -> list[Any]:
    """All pages of a list, followed by `next` as the vendor says: until it is empty."""
    found = [at.app(method, path, body, **query).json]
    while found[-1]["next"]:
        found.append(at.app(method, path, body, **query, start=found[-1]["next"]).json)
    return found


@pytest.mark.spec("C068")
def test_a_person_is_shown_with_strings() -> None:
    at = Workspace()
    at.identify(
        "u1",
        email="a@example.com",
        created_at=1489014595,
        pro=True,
        score=1.5,
        _timestamp=1_700_000_000,
        cio_subscription_preferences={"topics": {"topic_7": False}},
    )
    device = {"id": "t1", "platform": "ios", "last_used": 5}
    at.track("PUT", "/customers/u1/devices", {"device": device})
    cio_id = at.cio_id(id="u1")
    shown = at.app("GET", "/customers/u1/attributes").json["customer"]
    assert shown["attributes"] == {
        "id": "u1",
        "email": "a@example.com",
        "cio_id": cio_id,
        "created_at": "1489014595",
        "pro": "true",
        "score": "1.5",
        "cio_subscription_preferences": '{"topics":{"topic_7":false}}',
    }
    assert shown["identifiers"] == {"id": "u1", "email": "a@example.com", "cio_id": cio_id}
    assert shown["timestamps"]["pro"] == 1_700_000_000
    assert (shown["id"], shown["unsubscribed"]) == ("u1", False)
    assert shown["devices"] == [{"id": "t1", "platform": "ios", "last_used": 5, "attributes": {}}]


@pytest.mark.spec("C068")
def test_a_path_names_a_person_by_id_type() -> None:
    at = Workspace()
    at.identify("u1", email="a+b@example.com")
    cio_id = at.cio_id(id="u1")
    for name, kind in (("u1", "id"), ("A%2Bb%40example.com", "email"), (f"cio_{cio_id}", "cio_id")):
        assert at.app("GET", f"/customers/{name}/attributes", id_type=kind).status == 200
    for name, kind in ((cio_id, "cio_id"), ("u1", "email"), ("a+b@example.com", "id")):
        got = at.app("GET", f"/customers/{name}/attributes", id_type=kind)
        assert (got.status, got.json) == (404, {"errors": [{"detail": "not found", "status": "404"}]})
    assert at.app("GET", "/customers/u1/attributes", id_type="phone").status == 400


def test_a_hundred_people_are_read_at_once_and_unknown_ones_are_left_out() -> None:
    at = crowd(4)
    got = at.app("POST", "/customers/attributes", {"ids": ["u1", "nobody", "u2"]})
    assert [each["id"] for each in got.json["customers"]] == ["u1", "u2"]
    assert "customer" not in got.json["customers"][0]
    by_cio_id = [at.cio_id(id="u1"), at.cio_id(email="u3@example.com")]
    found = at.app("POST", "/customers/attributes?id_type=cio_id", {"ids": by_cio_id})
    assert [each["id"] for each in found.json["customers"]] == ["u1", ""]
    assert at.app("POST", "/customers/attributes", {"ids": ["u"] * 100}).status == 200
    assert at.app("POST", "/customers/attributes", {"ids": ["u"] * 101}).status == 400
    assert at.app("POST", "/customers/attributes", {"ids": "u1"}).status == 400
    assert at.app("POST", "/customers/attributes", {"ids": []}).json == {"customers": []}


def test_a_plus_that_is_not_encoded_finds_nobody() -> None:
    at = Workspace()
    at.identify("a%2Bb@example.com")
    assert at.call("GET", "/v1/customers?email=a+b@example.com", key="").status == 401
    assert at.app("GET", "/customers?email=a+b@example.com").json == {"results": []}
    (found,) = at.app("GET", "/customers", email="A+B@example.com").json["results"]
    assert (found["id"], found["email"]) == (None, "a+b@example.com")


def test_search_pages_have_empty_ids_and_empty_pages_between() -> None:
    at = crowd(5)
    found = pages(at, "POST", "/customers", {"filter": EVERYBODY}, limit=2)
    assert [page["ids"] for page in found] == [["", "u1"], None, ["u2", ""], None, ["u4"]]
    assert [len(page["identifiers"] or ()) for page in found] == [2, 0, 2, 0, 1]
    assert base64.b64decode(found[0]["next"]) == b"0:2"
    assert found[0]["identifiers"][0] == {"id": None, "email": "u0@example.com", "cio_id": "a300000001"}
    nobody = {"attribute": {"field": "number", "operator": "eq", "value": 99}}
    assert at.app("POST", "/customers", {"filter": nobody}).json == {
        "identifiers": None,
        "ids": None,
        "next": "",
    }


def test_the_empty_pages_can_be_left_out() -> None:
    at = crowd(5, switches=Switches(empty_pages=False))
    assert len(pages(at, "POST", "/customers", {"filter": EVERYBODY}, limit=2)) == 3
    assert at.app("POST", "/customers", {"filter": EVERYBODY}, start="no token").status == 400
    assert at.app("POST", "/customers", {"filter": EVERYBODY}, limit="few").status == 400


@pytest.mark.parametrize(
    ("given", "numbers"),
    [
        ({"attribute": {"field": "number", "operator": "eq", "value": "2"}}, [2]),
        ({"attribute": {"field": "odd", "operator": "eq", "value": True}}, [1, 3]),
        ({"attribute": {"field": "email", "operator": "eq", "value": "U3@example.com"}}, [3]),
        ({"attribute": {"field": "id", "operator": "exists"}}, [1, 2, 4]),
        ({"not": {"attribute": {"field": "id", "operator": "exists"}}}, [0, 3]),
        ({"segment": {"id": 7}}, [1, 3]),
        ({"and": [{"segment": {"id": 7}}, {"attribute": {"field": "id", "operator": "exists"}}]}, [1]),
        (
            {
                "or": [
                    {"segment": {"id": 7}},
                    {"attribute": {"field": "number", "operator": "eq", "value": 4}},
                ]
            },
            [1, 3, 4],
        ),
        ({"segment": {"id": 8}}, [2]),
    ],
)
def test_filters_join_segments_and_attributes(given: Any, numbers: list[int]) -> None:
    at = crowd(5)
    odd = {"attribute": {"field": "odd", "operator": "eq", "value": "true"}}
    at.state.segments[7] = Segment(id=7, name="Odd", type="dynamic", filter=odd)
    at.state.segments[8] = Segment(id=8, name="Two", members={at.cio_id(id="u2")})
    found = at.app("POST", "/customers", {"filter": given}).json["identifiers"]
    assert [int(each["cio_id"][-1], 16) for each in found] == [
        int(at.cio_id(**name)[-1], 16) for name in (_who(n) for n in numbers)
    ]


def _who(number: int) -> dict[str, str]:
    return {"id": f"u{number}"} if number % 3 else {"email": f"u{number}@example.com"}


@pytest.mark.parametrize(
    "given",
    [
        None,
        {},
        {"and": []},
        {"and": [{}]},
        {"or": {}},
        {"segment": {"id": 99}},
        {"attribute": {"field": "a", "operator": "gt", "value": 1}},
        {"attribute": {"field": "a", "operator": "eq"}},
        {"and": [], "or": []},
        {"name": "a"},
    ],
)
def test_a_filter_that_is_none_is_400(given: Any) -> None:
    assert Workspace().app("POST", "/customers", {"filter": given}).status == 400


# -- activities ----------------------------------------------------------------------------------------


@pytest.mark.spec("C069")
def test_activities_are_newest_first_and_new_ones_do_not_move_the_pages() -> None:
    at = Workspace()
    for n in range(7):
        at.event("u1", f"e{n}", timestamp=1000 + n)
    at.event("u2", "Other", timestamp=1)
    first = at.app("GET", "/customers/u1/activities", type="event", limit=3).json
    at.event("u1", "Newest", timestamp=2000)
    assert [each["name"] for each in first["activities"]] == ["e6", "e5", "e4"]
    assert first["next"].isdecimal()
    second = at.app("GET", "/customers/u1/activities", type="event", limit=3, start=first["next"]).json
    assert [each["name"] for each in second["activities"]] == ["e3", "e2", "e1"]
    last = at.app("GET", "/customers/u1/activities", type="event", limit=3, start=second["next"]).json
    assert [each["name"] for each in last["activities"]] == ["e0"]
    after = at.app("GET", "/customers/u1/activities", type="event", limit=3, start=last["next"]).json
    assert after == {"activities": [], "next": ""}, "the last page with rows has a next all the same"
    assert at.app("GET", "/customers/nobody/activities").status == 404
    assert at.app("GET", "/activities", start="x").status == 400


@pytest.mark.spec("C069")
def test_activities_are_found_by_type_name_and_person() -> None:
    at = Workspace()
    at.identify("u1", email="a@example.com", plan="pro")
    at.event("u1", "Looked", data={"page": 1})
    at.event("u2", "Looked")
    (seen,) = at.app("GET", "/activities", name="Looked", customer_id="a@example.com", id_type="email").json[
        "activities"
    ]
    assert (seen["type"], seen["name"], seen["data"], seen["customer_id"]) == (
        "event",
        "Looked",
        {"page": 1},
        "u1",
    )
    assert seen["customer_identifiers"]["email"] == "a@example.com"
    (change,) = at.activities(name="plan")
    assert change["data"]["plan"] == {"from": "", "to": "pro"}
    assert at.app("GET", "/activities", customer_id="nobody").json == {"activities": [], "next": ""}
    at.event("u3", "e")
    assert len(at.app("GET", "/activities").json["activities"]) <= 10


# -- segments ------------------------------------------------------------------------------------------


@pytest.mark.spec("C066", "C067")
def test_manual_segments_are_made_read_and_deleted() -> None:
    at = crowd(5)
    given = {"segment": {"name": "VIP", "description": "the best"}}
    made = at.app("POST", "/segments", given).json["segment"]
    assert (made["id"], made["type"], made["name"]) == (1, "manual", "VIP")
    assert made["deduplicate_id"] == f"1:{made['updated_at']}"
    empty = at.app("GET", "/segments/1/membership").json
    assert empty == {"segment_id": 1, "ids": None, "identifiers": None, "next": ""}
    at.track("POST", "/segments/1/add_customers", {"ids": ["u1", "u2", "u4"]})
    at.track("POST", "/segments/1/add_customers?id_type=email", {"ids": ["u3@example.com"]})
    found = pages(at, "GET", "/segments/1/membership", limit=3)
    assert [page["ids"] for page in found] == [["u1", "u2", ""], None, ["u4"]]
    assert found[0]["identifiers"][2]["email"] == "u3@example.com"
    assert at.app("GET", "/segments/1/customer_count").json == {"segment_id": 1, "count": 4}
    assert [each["id"] for each in at.app("GET", "/segments").json["segments"]] == [1]
    assert at.app("GET", "/customers/u1/segments").json["segments"] == [
        {"id": 1, "name": "VIP", "description": "the best"}
    ]
    at.state.campaigns.append({"id": 5, "trigger_segment_ids": [1]})
    used = at.app("GET", "/segments/1/used_by").json["used_by"]
    assert used == {"campaigns": [5], "sent_newsletters": [], "draft_newsletters": []}
    assert at.app("DELETE", "/segments/1").status == 204
    assert at.app("GET", "/segments/1/membership").status == 404
    assert at.app("POST", "/segments", {"segment": {}}).status == 400


def test_preferences_show_every_topic_with_its_default() -> None:
    at = Workspace()
    at.state.topics += [
        {"id": 1, "identifier": "topic_1", "name": "Offers", "subscribed_by_default": True},
        {"id": 2, "identifier": "topic_2", "name": "News", "subscribed_by_default": False},
    ]
    at.identify("u1", **{"cio_subscription_preferences.topics.topic_1": False})
    shown = at.app("GET", "/customers/u1/subscription_preferences").json["customer"]
    assert [topic["subscribed"] for topic in shown["topics"]] == [False, False]
    at.identify("u2", unsubscribed=True)
    other = at.app("GET", "/customers/u2/subscription_preferences").json["customer"]
    assert ([topic["subscribed"] for topic in other["topics"]], other["unsubscribed"]) == (
        [True, False],
        True,
    )


# -- objects -------------------------------------------------------------------------------------------


def test_objects_are_found_and_their_people_listed() -> None:
    at = Workspace()
    for name, plan in (("acme", "pro"), ("initech", "free")):
        at.entity(
            "object",
            "identify",
            {"object_type_id": "1", "object_id": name},
            attributes={"plan": plan, "seats": 5},
            cio_relationships=[{"identifiers": {"id": "u1"}, "relationship_attributes": {"role": "admin"}}],
        )
    leaf = {"object_attribute": {"field": "plan", "operator": "eq", "value": "pro", "type_id": "1"}}
    found = at.app("POST", "/objects", {"object_type_id": "1", "filter": leaf}).json
    assert (found["ids"], found["next"]) == (["acme"], "")
    cio_object_id = found["identifiers"][0]["cio_object_id"]
    for path in (
        "/objects/1/acme/attributes",
        f"/objects/1/{cio_object_id}/attributes?id_type=cio_object_id",
    ):
        shown = at.app("GET", path).json["object"]
        assert (shown["attributes"], shown["identifiers"]["object_id"]) == (
            {"plan": "pro", "seats": "5"},
            "acme",
        )
    (related,) = at.app("GET", "/objects/1/acme/relationships").json["cio_relationships"]
    assert related["identifiers"]["id"] == "u1"
    both = pages(at, "GET", "/customers/u1/relationships", limit=1)
    assert [page["cio_relationships"][0]["identifiers"]["object_id"] for page in both] == ["acme", "initech"]
    assert both[0]["cio_relationships"][0]["attributes"] == {"role": "admin"}
    assert at.app("GET", "/objects/1/nobody/attributes").status == 404


@pytest.mark.parametrize("path", ["/nothing", "/customers/u1", "/campaigns/1/nothing"])
def test_another_path_is_404(path: str) -> None:
    assert Workspace().app("GET", path).json == {"errors": [{"detail": "not found", "status": "404"}]}


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"[" * 100_000])
def test_a_body_that_is_no_json_object_is_400(raw: bytes) -> None:
    got = Workspace().call("POST", "/v1/customers", key="Bearer sandbox-app-key", raw=raw)
    assert (got.status, got.json["errors"][0]["status"]) == (400, "400")
