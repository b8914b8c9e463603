"""The simulated Customer.io's Pipelines API: Segment's calls, semantic events, permissive and strict."""

from __future__ import annotations

from typing import Any

import pytest

from .customerio_calls import Workspace

pytestmark = pytest.mark.spec("D12", "C086")

DEVICE = {"device": {"token": "t1", "type": "ios"}}


def track(event: str, **more: Any) -> dict[str, Any]:
    return {"type": "track", "userId": "u1", "event": event, **more}


def test_every_call_does_what_it_says() -> None:
    at = Workspace()
    calls: list[tuple[str, dict[str, Any]]] = [
        ("track", {"anonymousId": "an1", "event": "Looked"}),
        (
            "identify",
            {
                "userId": "u1",
                "anonymousId": "an1",
                "traits": {"email": "a@example.com", "createdAt": "2024-01-01T00:00:00Z"},
            },
        ),
        (
            "track",
            {
                "userId": "u1",
                "event": "Ordered",
                "properties": {"total": 5},
                "timestamp": "2024-05-01T00:00:00Z",
            },
        ),
        ("page", {"userId": "u1", "name": "Cart"}),
        ("screen", {"userId": "u1", "name": "Settings"}),
        ("group", {"userId": "u1", "groupId": "acme", "traits": {"name": "Acme", "objectTypeId": "1"}}),
    ]
    for name, body in calls:
        got = at.pipelines(name, body)
        assert (got.status, got.json) == (200, {})
    assert at.simulator.person(id="u1") == {
        "id": "u1",
        "email": "a@example.com",
        "created_at": 1_704_067_200,
        "anonymous_id": "an1",
    }
    kept = at.simulator.events(id="u1")
    assert {event.name: event.kind for event in kept} == {
        "Looked": "event",
        "Ordered": "event",
        "Cart": "page",
        "Settings": "screen",
    }
    assert next(event for event in kept if event.name == "Ordered").at == 1_714_521_600
    (thing,) = at.state.objects.values()
    assert (thing.object_id, thing.attributes) == ("acme", {"name": "Acme"})
    person = at.simulator.find(id="u1")
    assert person is not None
    assert list(person.relationships) == [thing.cio_object_id]
    at.identify("old@example.com", city="Ghent")
    assert at.pipelines("alias", {"userId": "u1", "previousId": "old@example.com"}).status == 200
    assert (at.simulator.person(id="u1") or {})["city"] == "Ghent"


def test_semantic_events_act_instead_of_being_kept() -> None:
    at = Workspace()
    at.identify("u1")
    at.state.messages.append({"id": "d1"})
    person = at.simulator.find(id="u1")
    assert person is not None
    at.pipelines("track", track("Device Created or Updated", context=DEVICE, properties={"app_version": "2"}))
    assert person.devices["t1"].attributes == {"app_version": "2"}
    at.pipelines("track", track("Device Deleted", context=DEVICE))
    assert not person.devices
    at.pipelines("group", {"userId": "u1", "groupId": "acme"})
    at.pipelines("track", track("Relationship Deleted", properties={"objectId": "acme"}))
    assert not person.relationships
    at.pipelines("track", track("Object Deleted", properties={"objectId": "acme", "objectTypeId": 1}))
    assert not at.state.objects
    at.pipelines("track", track("Report Delivery Event", properties={"deliveryId": "d1", "metric": "opened"}))
    assert "opened" in at.state.messages[0]["metrics"]
    at.pipelines("track", track("User Suppressed"))
    at.pipelines("identify", {"userId": "u1"})
    assert not at.state.people
    at.pipelines("track", track("User Unsuppressed"))
    at.pipelines("identify", {"userId": "u1"})
    at.pipelines("track", track("User Deleted"))
    assert not at.state.people
    assert at.state.event_count == 0


WRONG: list[tuple[str, Any]] = [
    ("identify", {"traits": {}}),
    ("identify", {"userId": 7}),
    ("identify", {"userId": "u1", "traits": []}),
    ("identify", {"userId": "u1", "traits": {"note": "x" * 1001}}),
    ("identify", {"userId": "u1", "traits": {"createdAt": "soon"}}),
    ("identify", {"userId": "u1", "pad": "x" * 33_000}),
    ("track", {"userId": "u1"}),
    ("track", track("Device Deleted")),
    ("track", track("Device Created or Updated", context={"device": {"token": "t", "type": "web"}})),
    ("track", track("Report Delivery Event")),
    ("track", track("Looked", timestamp=5)),
    ("alias", {"userId": "u1"}),
    ("group", {"userId": "u1"}),
    ("batch", {}),
    ("batch", {"batch": [{"type": "dance", "userId": "u1"}]}),
    ("batch", {"batch": ["identify"]}),
    ("batch", []),
]


@pytest.mark.parametrize(("call", "body"), WRONG)
def test_what_is_wrong_is_lost_in_permissive_mode_and_400_in_strict(call: str, body: Any) -> None:
    at = Workspace()
    permissive = at.pipelines(call, body, strict=False)
    assert (permissive.status, permissive.json) == (200, {})
    strict = at.pipelines(call, body)
    assert strict.status == 400
    assert strict.json.keys() == {"code", "message"}
    assert not at.state.people
    assert not at.state.event_count


def test_a_batch_takes_its_good_items_and_shares_its_context() -> None:
    at = Workspace()
    items = [
        {"type": "identify", "userId": "u1", "traits": {"plan": "pro"}},
        track("Device Created or Updated"),
        {"type": "track", "event": "Looked"},
    ]
    got = at.pipelines("batch", {"batch": items, "context": DEVICE})
    assert (got.status, got.json["message"]) == (400, "batch[2]: userId or anonymousId is required")
    person = at.simulator.find(id="u1")
    assert person is not None
    assert list(person.devices) == ["t1"]


@pytest.mark.spec("C088")
def test_a_batch_over_500_kb_is_dropped() -> None:
    at = Workspace()
    items = [{"type": "track", "userId": "u1", "event": "e", "properties": {"x": "y" * 30_000}}] * 18
    assert at.pipelines("batch", {"batch": items}, strict=False).status == 200
    assert at.pipelines("batch", {"batch": items}).status == 400
    assert not at.state.event_count
