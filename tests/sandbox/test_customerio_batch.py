"""The simulated Customer.io's Track v2: one item or many, objects, and the 207 that names the bad ones."""

from __future__ import annotations

import json
from typing import Any

import pytest

from .customerio_calls import TRACK, Workspace

pytestmark = pytest.mark.spec("D12", "C063")

PERSON = {"type": "person", "identifiers": {"id": "42"}}
OBJECT = {"type": "object", "identifiers": {"object_type_id": "1", "object_id": "acme"}}
ROLE = {"role": "admin"}
TOKEN = "a83b219c-e756-4c5b-a8e3-d1a5c5b2f3c1"

# The examples that Customer.io's own Track OpenAPI document gives for each action, in its order.
PUBLISHED: list[dict[str, Any]] = [
    {
        **PERSON,
        "action": "identify",
        "attributes": {"first_name": "Jane", "last_name": "Doe", "plan": "premium"},
    },
    {**PERSON, "action": "delete"},
    {**PERSON, "action": "event", "name": "purchase", "attributes": {"product": "Widget", "price": 29.99}},
    {**PERSON, "action": "page", "name": "/pricing", "attributes": {"referrer": "https://example.com"}},
    {**PERSON, "action": "screen", "name": "Dashboard", "attributes": {"app_version": "2.1.0"}},
    {
        **PERSON,
        "action": "add_relationships",
        "cio_relationships": [{"identifiers": OBJECT["identifiers"], "relationship_attributes": ROLE}],
    },
    {
        **PERSON,
        "action": "delete_relationships",
        "cio_relationships": [{"identifiers": OBJECT["identifiers"]}],
    },
    {
        **PERSON,
        "action": "add_device",
        "device": {"token": TOKEN, "platform": "ios", "last_used": 1713484800},
    },
    {**PERSON, "action": "delete_device", "device": {"token": TOKEN}},
    {"type": "person", "action": "merge", "primary": {"id": "42"}, "secondary": {"id": "known-user-456"}},
    {**PERSON, "action": "suppress"},
    {**PERSON, "action": "unsuppress"},
    {**OBJECT, "action": "identify", "attributes": {"name": "Acme Corp", "plan": "enterprise", "seats": 50}},
    {**OBJECT, "action": "identify_anonymous", "anonymous_id": "anon-abc-123"},
    {**OBJECT, "action": "delete"},
    {
        **OBJECT,
        "action": "add_relationships",
        "cio_relationships": [{"identifiers": {"id": "42"}, "relationship_attributes": ROLE}],
    },
    {**OBJECT, "action": "delete_relationships", "cio_relationships": [{"identifiers": {"id": "42"}}]},
    {
        "type": "delivery",
        "identifiers": {"id": "RPIyMTM6OjEyMzQ="},
        "action": "event",
        "name": "opened",
        "attributes": {"device_token": TOKEN},
    },
]


@pytest.mark.parametrize("item", PUBLISHED, ids=[f"{item['type']}-{item['action']}" for item in PUBLISHED])
def test_the_published_example_of_each_action_is_taken(item: dict[str, Any]) -> None:
    at = Workspace()
    got = at.call("POST", "/api/v2/entity", item, key=TRACK)
    assert (got.status, got.json) == (200, {})
    assert at.batch(item).json == {}


def test_a_batch_of_all_of_them_is_taken_in_order() -> None:
    at = Workspace()
    assert at.batch(*PUBLISHED).status == 200
    assert at.state.event_count == 3
    assert at.simulator.person(id="42") == {"id": "42"}, "suppressed and freed, then named by an object"


LONG = "x" * 1001


def wrong(changes: dict[str, Any], of: dict[str, Any] | None = None) -> dict[str, Any]:
    item = {**(of or {**PERSON, "action": "identify"}), **changes}
    return {name: value for name, value in item.items() if value is not ...}


EVENT = {**PERSON, "action": "event", "name": "a"}
BAD: list[tuple[dict[str, Any], str, str, str]] = [
    (wrong({"type": ...}), "required", "type", "type is required"),
    (wrong({"action": ...}), "required", "action", "action is required"),
    (wrong({"identifiers": ...}), "required", "identifiers", "identifiers is required"),
    (wrong({"type": "company"}), "invalid", "type", "type must be one of person, object, delivery"),
    (
        wrong({"attributes": {"delivery_suburb": LONG}}),
        "invalid",
        "attributes.delivery_suburb",
        "property value cannot be longer than 1000 bytes",
    ),
    (
        wrong({"identifiers": {"id": "1", "email": "a@b.c"}}),
        "invalid",
        "identifiers",
        "identifiers must have exactly one of id, email, cio_id",
    ),
    (
        wrong({"identifiers": {"anonymous_id": "an1"}}, EVENT),
        "invalid",
        "identifiers",
        "identifiers must have exactly one of id, email, cio_id",
    ),
    (wrong({"identifiers": {"id": True}}), "invalid", "identifiers.id", "id must be a string"),
    (wrong({"identifiers": {"email": "nobody"}}), "invalid", "identifiers.email", "email is not valid"),
    (wrong({"attributes": []}), "invalid", "attributes", "attributes must be a hash"),
    (wrong({"timestamp": "1713484800"}), "invalid", "timestamp", "timestamp must be an integer"),
    (wrong({"name": ...}, EVENT), "required", "name", "name cannot be blank"),
    (wrong({"name": "x" * 101}, EVENT), "invalid", "name", "event name cannot be longer than 100 bytes"),
    (wrong({"attributes": "a"}, EVENT), "invalid", "attributes", "event data must be a hash"),
    (wrong({"action": "add_device"}), "required", "device", "device is required"),
    (
        wrong({"action": "add_relationships"}),
        "required",
        "cio_relationships",
        "cio_relationships is required",
    ),
    (
        {**OBJECT, "action": "identify", "identifiers": {"object_type_id": "7", "object_id": "a"}},
        "invalid",
        "identifiers.object_type_id",
        "object type 7 does not exist",
    ),
]


@pytest.mark.parametrize(("item", "reason", "field", "message"), BAD)
def test_a_bad_item_is_400_alone_and_named_in_a_batch(
    item: dict[str, Any], reason: str, field: str, message: str
) -> None:
    at = Workspace()
    error = {"reason": reason, "field": field, "message": message}
    alone = at.call("POST", "/api/v2/entity", item, key=TRACK)
    assert (alone.status, alone.json) == (400, {"errors": [error]})
    good = {"type": "person", "identifiers": {"id": "good"}, "action": "event", "name": "After"}
    got = at.batch(good, item, good)
    assert (got.status, got.json) == (207, {"errors": [{"batch_index": 1, **error}]})
    assert at.names(id="good") == ["After", "After"]
    assert len(at.state.people) == 1, "a refused item has no effect at all"


def test_items_of_one_person_have_effect_in_their_order() -> None:
    at = Workspace()
    steps = [{**PERSON, "action": "identify", "attributes": {"step": n}} for n in range(50)]
    at.batch(
        *steps, {**PERSON, "action": "delete"}, {**PERSON, "action": "identify", "attributes": {"new": 1}}
    )
    assert at.simulator.person(id="42") == {"id": "42", "new": 1}


@pytest.mark.spec("C088")
def test_an_item_has_32_kb_and_a_batch_500() -> None:
    at = Workspace()

    def item(size: int) -> bytes:
        filling = {f"a{n}": "x" * 900 for n in range(33)}
        start = json.dumps({**PERSON, "action": "event", "name": "a", "attributes": filling})
        return (start[:-2] + f', "pad": "{"x" * (size - len(start) - 11)}"' + start[-2:]).encode()

    fits, over = item(32 * 1024), item(32 * 1024 + 1)
    assert (len(fits), len(over)) == (32_768, 32_769)
    for raw, status in ((fits, 200), (over, 400)):
        assert at.call("POST", "/api/v2/entity", key=TRACK, raw=raw).status == status
    mixed = at.call("POST", "/api/v2/batch", key=TRACK, raw=b'{"batch":[%b,%b]}' % (over, fits))
    assert (mixed.status, [each["batch_index"] for each in mixed.json["errors"]]) == (207, [0])
    assert at.state.event_count == 2
    frame = b'{"batch":[' + b",".join([fits] * 15) + b"]}"
    assert at.call("POST", "/api/v2/batch", key=TRACK, raw=frame.ljust(512_000)).status == 200
    refused = at.call("POST", "/api/v2/batch", key=TRACK, raw=frame.ljust(512_001))
    assert (refused.status, refused.json["errors"][0]["field"]) == (400, "batch")
    assert at.state.event_count == 17


@pytest.mark.parametrize(
    "raw", [b"", b"[]", b"{}", b'{"batch":[]}', b'{"batch":{}}', b'{"batch":[', b"[" * 99_999]
)
def test_a_batch_that_is_none_is_400_and_nothing_is_taken(raw: bytes) -> None:
    got = Workspace().call("POST", "/api/v2/batch", key=TRACK, raw=raw)
    assert got.status == 400
    assert {"reason", "field", "message"} == got.json["errors"][0].keys()


@pytest.mark.spec("C120")
def test_an_item_can_be_refused_on_request() -> None:
    at = Workspace()
    at.simulator.refuse_item(1, field="attributes.plan", message="no such plan")
    at.simulator.refuse_item(7)
    items = [{"type": "person", "identifiers": {"id": f"u{n}"}, "action": "identify"} for n in range(3)]
    got = at.batch(*items)
    error = {"batch_index": 1, "reason": "invalid", "field": "attributes.plan", "message": "no such plan"}
    assert (got.status, got.json) == (207, {"errors": [error]})
    assert at.simulator.person(id="u1") is None
    assert at.batch(*items).status == 200, "it is met once"
    assert at.simulator.person(id="u1") is not None


# -- objects -------------------------------------------------------------------------------------------


def test_objects_have_attributes_and_people() -> None:
    at = Workspace()
    at.batch(
        {
            **OBJECT,
            "action": "identify",
            "attributes": {"name": "Acme", "plan": "free"},
            "cio_relationships": [
                {"identifiers": {"email": "a@example.com"}, "relationship_attributes": ROLE},
                {"identifiers": {"anonymous_id": "an1"}},
            ],
        },
        {**OBJECT, "action": "identify", "attributes": {"plan": "", "seats": 5}},
    )
    (thing,) = at.state.objects.values()
    assert thing.attributes == {"name": "Acme", "seats": 5}
    person = at.simulator.find(email="a@example.com")
    assert person is not None
    assert person.relationships == {thing.cio_object_id: ROLE}
    at.identify("u9", anonymous_id="an1")
    later = at.simulator.find(id="u9")
    assert later is not None
    assert list(later.relationships) == [thing.cio_object_id]
    at.entity("object", "delete", {"cio_object_id": thing.cio_object_id})
    assert not person.relationships
    assert not at.state.objects


def test_an_older_update_of_an_object_does_not_overwrite() -> None:
    at = Workspace()
    for stamp, plan in ((200, "pro"), (100, "free")):
        at.entity("object", "identify", OBJECT["identifiers"], attributes={"plan": plan}, timestamp=stamp)
    assert next(iter(at.state.objects.values())).attributes == {"plan": "pro"}
    at.entity("object", "identify", {"cio_object_id": "nobody"}, attributes={"plan": "pro"})
    assert len(at.state.objects) == 1
