"""Whatever is sent, the simulated Customer.io answers, and its people stay findable."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .customerio_calls import APP, PIPELINES, TRACK, Workspace

pytestmark = pytest.mark.spec("D12")

WORDS = [
    *(
        "person",
        "object",
        "delivery",
        "identify",
        "event",
        "merge",
        "suppress",
        "add_device",
        "delete_device",
    ),
    *(
        "add_relationships",
        "delete_relationships",
        "identify_anonymous",
        "u1",
        "u2",
        "a@b.c",
        "1",
        "cio_1",
        "",
    ),
    *("ios", "User Suppressed", "Device Deleted", "eq", "exists", "MDox", "2024-01-01", "email_sent", "open"),
]
NAMES = [
    *(
        "type",
        "action",
        "identifiers",
        "attributes",
        "id",
        "email",
        "cio_id",
        "name",
        "device",
        "token",
        "data",
    ),
    *(
        "platform",
        "cio_relationships",
        "relationships",
        "object_type_id",
        "object_id",
        "primary",
        "secondary",
    ),
    *("timestamp", "batch", "userId", "anonymousId", "traits", "properties", "context", "event", "groupId"),
    *("filter", "and", "or", "not", "segment", "attribute", "field", "operator", "value", "ids", "filters"),
    *("endpoint", "events", "to", "identifiers", "transactional_message_id", "attachments", "campaign_id"),
    *(
        "unsubscribed",
        "cio_subscription_preferences",
        "cio_subscription_preferences.topics.t",
        "anonymous_id",
    ),
    *(
        "_update",
        "_timestamp",
        "start",
        "end",
        "previousId",
        "objectId",
        "metric",
        "delivery_id",
        "deliveryId",
    ),
]
plain = st.one_of(
    st.none(), st.booleans(), st.integers(-(2**40), 2**40), st.sampled_from(WORDS), st.text(max_size=4)
)
names = st.one_of(st.sampled_from(NAMES), st.text(max_size=3))
anything: st.SearchStrategy[Any] = st.recursive(
    plain,
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(names, inner, max_size=5)),
    max_leaves=12,
)
body = st.dictionaries(names, anything, max_size=6)
item = st.builds(
    lambda kind, action, more: {**more, "type": kind, "action": action},
    st.sampled_from(WORDS[:3]),
    st.sampled_from(WORDS[3:12]),
    body,
)
PATHS = [
    *(("PUT", "/api/v1/customers/u1", TRACK), ("POST", "/api/v1/customers/a@b.c/events", TRACK)),
    *(("PUT", "/api/v1/customers/u2/devices", TRACK), ("POST", "/api/v1/events", TRACK)),
    *(("POST", "/api/v1/merge_customers", TRACK), ("POST", "/api/v1/metrics", TRACK)),
    *(("POST", "/api/v1/push/events", TRACK), ("POST", "/api/v1/segments/1/add_customers", TRACK)),
    *(
        ("POST", "/api/v1/forms/f/submit", TRACK),
        ("POST", "/unsubscribe/d1", ""),
        ("POST", "/api/v2/entity", TRACK),
    ),
    *(
        ("POST", f"/v1/{name}", PIPELINES)
        for name in ("identify", "track", "page", "screen", "group", "alias", "batch")
    ),
    *(("POST", f"/v1/{name}", APP) for name in ("customers", "customers/attributes", "segments", "objects")),
    *(("POST", f"/v1/exports/{name}", APP) for name in ("customers", "deliveries")),
    *(("POST", f"/v1/send/{name}", APP) for name in ("email", "push", "sms")),
    *(
        ("POST", "/v1/reporting_webhooks", APP),
        ("POST", "/v1/collections", APP),
        ("PUT", "/v1/snippets", APP),
    ),
    *(("GET", f"/v1/{name}?start=x", APP) for name in ("activities", "messages", "newsletters")),
    ("POST", "/v1/campaigns/3/triggers", APP),
]


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.tuples(st.sampled_from(PATHS), body), max_size=5), st.lists(item, max_size=6))
def test_it_answers_and_keeps_every_person_under_its_identifiers(
    calls: list[tuple[tuple[str, str, str], Any]], items: list[Any]
) -> None:
    at = Workspace()
    at.app("POST", "/segments", {"segment": {"name": "VIP"}})
    at.state.broadcasts.append({"id": 3})
    for (method, path, key), given_body in calls:
        got = at.call(method, path, given_body, key=key, x_strict_mode="1")
        assert got.status in {200, 204, 400, 403, 404, 413, 422, 429}
    assert at.batch(*items).status == (200 if items else 400) or items
    for person in at.state.people.values():
        for kind in at.state.kinds:
            if kind in person.attributes:
                assert at.simulator.profiles.find(kind, person.attributes[kind]) is person
        assert set(person.relationships) <= set(at.state.objects)
        named = at.app("GET", f"/customers/cio_{person.cio_id}/attributes", id_type="cio_id")
        assert named.json["customer"]["identifiers"] == person.identifiers
    assert at.state.segments[1].members <= set(at.state.people)
    assert at.app("GET", "/activities", deleted="true", limit=100).status == 200
