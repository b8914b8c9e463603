"""The simulated Customer.io's Track v1: every path, what it does, and what it refuses in which words."""

from __future__ import annotations

from typing import Any

import pytest

from .customerio_calls import TRACK, Workspace

pytestmark = pytest.mark.spec("D12", "C060", "C061", "C062")

KB = "x" * 1000


@pytest.mark.parametrize(
    ("identifier", "kind", "value"),
    [
        ("u1", "id", "u1"),
        ("a%2Fb%20c%3F", "id", "a/b c?"),
        ("%C3%A9%E2%82%AC", "id", "é€"),
        ("a%2Bb%40example.com", "email", "a+b@example.com"),
        ("a@example.com", "email", "a@example.com"),
    ],
)
def test_what_a_path_names_is_read_by_its_shape(identifier: str, kind: str, value: str) -> None:
    at = Workspace()
    assert at.identify(identifier, plan="pro").status == 200
    assert at.simulator.person(**{kind: value}) == {kind: value, "plan": "pro"}


TOO_MANY = {f"a{n}": n for n in range(301)}


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({"id": 7}, "id attribute must be a string value"),
        ({"id": ""}, "id attribute cannot be an empty string"),
        ({"id": "é" * 76}, "id attribute cannot be longer than 150 bytes"),
        (TOO_MANY, "cannot identify more than 300 attributes in one request"),
        ({"é" * 76: 1}, "attribute name cannot be longer than 150 bytes"),
        ({"note": KB + "x"}, "value for attribute 'note' cannot be longer than 1000 bytes"),
        ({"note": "é" * 501}, "value for attribute 'note' cannot be longer than 1000 bytes"),
        ({"note": [KB]}, "value for attribute 'note' cannot be longer than 1000 bytes"),
        ({"_timestamp": "now"}, "_timestamp must be an integer"),
        ([], "the body must be a hash"),
    ],
)
def test_identify_refuses_in_the_vendors_words(body: Any, text: str) -> None:
    at = Workspace()
    got = at.track("PUT", "/customers/u1", body)
    assert (got.status, got.json) == (400, {"meta": {"errors": [text]}})
    assert not at.state.people


def test_what_is_just_within_the_limits_is_taken() -> None:
    at = Workspace()
    body = {f"a{n}": n for n in range(297)} | {"é" * 75: KB, "note": "é" * 500, "list": ["x" * 996]}
    assert at.track("PUT", "/customers/" + "%C3%A9" * 75, body).status == 200
    assert at.track("PUT", "/customers/" + "%C3%A9" * 76, {}).status == 400


@pytest.mark.parametrize(
    ("body", "text"),
    [
        ({}, "name cannot be blank"),
        ({"name": "  "}, "event name must not be blank"),
        ({"name": 7}, "event name must not be blank"),
        ({"name": "é" * 51}, "event name cannot be longer than 100 bytes"),
        ({"name": "x" * 500, "type": "page"}, "event name must be less than 500 characters"),
        ({"name": "a", "data": [1]}, "event data must be a hash"),
        ({"name": "a", "data": {"x": "y" * 100_000}}, "event data cannot be longer than 100000 bytes"),
        ({"name": "a", "timestamp": 1.5}, "timestamp must be an integer"),
        ({"name": "a", "type": "click"}, "type must be one of event, page, screen"),
    ],
)
@pytest.mark.parametrize("path", ["/customers/u1/events", "/events"])
def test_track_refuses_in_the_vendors_words(path: str, body: dict[str, Any], text: str) -> None:
    at = Workspace()
    got = at.track("POST", path, {"anonymous_id": "an1", **body})
    assert (got.status, got.json) == (400, {"meta": {"errors": [text]}})
    assert not at.state.event_count


def test_events_pages_and_screens_are_kept_with_their_time_and_data() -> None:
    at = Workspace()
    at.event("u1", "  Ordered ", data={"total": 5}, timestamp=1_700_000_000)
    at.event("u1", "https://example.com/" + "x" * 200, type="page")
    at.event("u1", "Checkout", type="screen")
    kept = at.simulator.events(id="u1")
    assert [event.kind for event in kept] == ["event", "page", "screen"]
    assert (kept[0].name, kept[0].data, kept[0].at) == ("Ordered", {"total": 5}, 1_700_000_000)
    assert kept[1].at == int(at.clock.now())
    assert [each["type"] for each in at.activities()[:2]] == ["screen", "page"]


def test_an_event_of_nobody_needs_an_anonymous_id_or_a_recipient() -> None:
    at = Workspace()
    assert at.track("POST", "/events", {"name": "Invite"}).status == 400
    assert (
        at.track("POST", "/events", {"name": "Invite", "data": {"recipient": "a@example.com"}}).status == 200
    )


@pytest.mark.parametrize("raw", [b"", b"{", b'"\xff"', b"[" * 100_000, b'{"a": NaN}'])
def test_a_body_that_is_no_json_is_400(raw: bytes) -> None:
    assert Workspace().track("PUT", "/customers/u1", raw=raw).status == 400


def test_devices_come_change_and_go() -> None:
    at = Workspace()
    device = {"id": "tok/1", "platform": "ios", "last_used": 5, "attributes": {"app_version": "1", "os": "x"}}
    assert at.track("PUT", "/customers/u1/devices", {"device": device}).status == 200
    newer = {"id": "tok/1", "platform": "ios", "attributes": {"app_version": "2"}}
    at.track("PUT", "/customers/u1/devices", {"device": newer})
    person = at.simulator.find(id="u1")
    assert person is not None
    assert person.devices["tok/1"].attributes == {"app_version": "2", "os": "x"}
    assert at.track("DELETE", "/customers/u1/devices/tok%2F1").status == 200
    assert at.track("DELETE", "/customers/u1/devices/tok%2F1").status == 200
    assert not person.devices
    actions = [each["data"]["action"] for each in at.activities("device_change")]
    assert actions == ["deleted", "updated", "added"]


@pytest.mark.parametrize(
    "device",
    [
        None,
        {},
        {"id": "t"},
        {"platform": "ios"},
        {"id": "t", "platform": "web"},
        {"id": 1, "platform": "ios"},
    ],
)
def test_a_device_needs_a_token_and_a_known_platform(device: Any) -> None:
    got = Workspace().track("PUT", "/customers/u1/devices", {"device": device})
    assert got.status == 400
    assert got.json["meta"]["errors"]


def test_relationships_come_with_an_identify_and_go_with_one() -> None:
    at = Workspace()
    entry = {
        "identifiers": {"object_type_id": "1", "object_id": "acme"},
        "relationship_attributes": {"role": "admin", "left": None},
    }
    at.identify("u1", cio_relationships={"action": "add_relationships", "relationships": [entry]})
    person = at.simulator.find(id="u1")
    assert person is not None
    assert list(person.relationships.values()) == [{"role": "admin"}]
    assert at.simulator.person(id="u1") == {"id": "u1"}
    at.identify("u1", cio_relationships={"action": "delete_relationships", "relationships": [entry]})
    assert not person.relationships
    kinds = [each["type"] for each in at.activities()]
    assert kinds[:2] == ["delete_relationship", "add_relationship"]


@pytest.mark.parametrize(
    "related",
    [
        [],
        {"action": "replace"},
        {"action": "add_relationships", "relationships": [{"identifiers": {"object_id": "acme"}}]},
        {
            "action": "add_relationships",
            "relationships": [{"identifiers": {"object_type_id": "9", "object_id": "acme"}}],
        },
    ],
)
def test_relationships_that_are_none_refuse_the_whole_identify(related: Any) -> None:
    at = Workspace()
    assert at.identify("u1", cio_relationships=related).status == 400
    assert not at.state.people
    assert not at.state.objects


# -- segments, metrics, forms --------------------------------------------------------------------------


def test_people_join_and_leave_a_manual_segment() -> None:
    at = Workspace()
    at.identify("u1", email="a@example.com")
    at.identify("b@example.com")
    at.app("POST", "/segments", {"segment": {"name": "VIP"}})
    path = "/segments/1/add_customers"
    assert at.track("POST", path, {"ids": ["u1", "nobody"]}).status == 200
    assert at.track("POST", f"{path}?id_type=email", {"ids": ["B@example.com"]}).status == 200
    members = at.state.segments[1].members
    assert members == {at.cio_id(id="u1"), at.cio_id(email="b@example.com")}
    cio_id = at.cio_id(email="b@example.com")
    at.track("POST", "/segments/1/remove_customers?id_type=cio_id", {"ids": [cio_id]})
    assert at.state.segments[1].members == {at.cio_id(id="u1")}
    at.track("DELETE", "/customers/u1")
    assert not at.state.segments[1].members


def test_a_segment_takes_1000_ids_and_only_a_manual_one_any() -> None:
    at = Workspace()
    at.app("POST", "/segments", {"segment": {"name": "VIP"}})
    path = "/segments/1/add_customers"
    assert at.track("POST", path, {"ids": ["u"] * 1000}).status == 200
    assert at.track("POST", path, {"ids": ["u"] * 1001}).status == 400
    assert at.track("POST", path, {"ids": "u1"}).status == 400
    assert at.track("POST", "/segments/9/add_customers", {"ids": ["u1"]}).status == 404
    at.state.segments[1].type = "dynamic"
    assert at.track("POST", path, {"ids": ["u1"]}).status == 400


def test_metrics_of_a_delivery_are_reported_once_each() -> None:
    at = Workspace()
    at.state.messages.append({"id": "d1", "created": 1, "customer_identifiers": None})
    for stamp in (50, 60):
        body = {"delivery_id": "d1", "metric": "opened", "timestamp": stamp}
        assert at.track("POST", "/metrics", body).status == 200
    body = {"delivery_id": "d1", "event": "converted", "device_id": "t", "timestamp": 70}
    assert at.track("POST", "/push/events", body).status == 200
    assert at.state.messages[0]["metrics"] == {"opened": 50, "converted": 70}
    assert len(at.state.reported) == 3
    assert at.track("POST", "/metrics", {"delivery_id": "d1", "metric": "liked"}).status == 400
    assert at.track("POST", "/metrics", {"metric": "opened"}).status == 400


def test_a_form_makes_or_updates_a_person() -> None:
    at = Workspace()
    got = at.track("POST", "/forms/f1/submit", {"data": {"email": "a@example.com", "food": "pizza"}})
    assert (got.status, got.json) == (204, None)
    assert at.simulator.person(email="a@example.com") == {"email": "a@example.com", "food": "pizza"}
    assert at.track("POST", "/forms/f1/submit", {"data": {"food": "pizza"}}).status == 400


def test_the_unsubscribe_link_needs_no_key_but_json() -> None:
    at = Workspace()
    at.identify("u1")
    at.state.messages.append({"id": "d1", "customer_identifiers": {"cio_id": at.cio_id(id="u1")}})
    person = at.simulator.find(id="u1")
    assert person is not None
    form = at.call("POST", "/unsubscribe/d1", {"unsubscribe": True}, key="", content_type="text/plain")
    assert form.status == 400
    assert not person.unsubscribed
    assert at.call("POST", "/unsubscribe/d1", {"unsubscribe": True}, key="").status == 200
    assert person.unsubscribed
    assert "unsubscribed" in at.state.messages[0]["metrics"]
    assert at.call("POST", "/unsubscribe/d1", {"unsubscribe": False}, key="").status == 200
    assert not person.unsubscribed


@pytest.mark.parametrize("path", ["/customers", "/customers/u1/orders", "/nothing"])
def test_another_path_is_404(path: str) -> None:
    got = Workspace().track("POST", path, {})
    assert (got.status, got.json) == (404, {"meta": {"error": "not found"}})


def test_a_200_says_nothing() -> None:
    at = Workspace()
    for method, path, body in (
        ("PUT", "/customers/u1", {}),
        ("DELETE", "/customers/u1", None),
        ("POST", "/customers/u1/suppress", None),
        ("POST", "/customers/u1/unsuppress", {}),
    ):
        got = at.call(method, f"/api/v1{path}", body, key=TRACK)
        assert (got.status, got.json) == (200, {})
