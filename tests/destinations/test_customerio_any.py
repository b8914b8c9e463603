"""Whatever JSON comes: an answer, within the limits, and the same from both ways of writing."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from towpath.destination import Payload
from towpath.destinations._customerio_items import GROUP_ACTIONS, METRICS
from towpath.destinations._customerio_values import EVENT_DATA_BYTES, ITEM_BYTES
from towpath.outcome import Rejected, Skipped
from towpath.testing.samples import KINDS_AND_MORE

from .customerio_world import customerio, message

IDS = st.sampled_from(["u1", "a@b.c", "cio_a3", "", "x" * 151, 7, None, "cio_", "@"])
WORDS = st.sampled_from(
    [
        *("Device Created or Updated", "Device Deleted", "User Deleted", "Relationship Deleted"),
        *("Object Deleted", "Report Delivery Event", "Application Installed", "Application Uninstalled"),
        *("E", "", "x" * 101),
    ]
)
SCALARS = st.one_of(st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=8))
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)
NAMES = st.sampled_from(
    [
        *("email", "id", "createdAt", "created_at", "cio_relationships", "unsubscribed", "action", "device"),
        *(
            "objectTypeId",
            "objectId",
            "deliveryId",
            "metric",
            "url",
            "name",
            "title",
            "token",
            "type",
            "traits",
        ),
        *(
            "relationshipAttributes",
            "objectAttributes",
            "groupId",
            "os",
            "page",
            "_update",
            "anonymous_id",
            "",
        ),
    ]
)
TELLING = st.one_of(JSON, IDS, st.sampled_from([*GROUP_ACTIONS, *METRICS, "ios", 1577934245]))
OBJECTS = st.dictionaries(NAMES, TELLING | st.dictionaries(NAMES, TELLING, max_size=3), max_size=4)
MESSAGES = st.fixed_dictionaries(
    {"type": st.sampled_from(KINDS_AND_MORE)},
    optional={
        "userId": IDS,
        "anonymousId": IDS,
        "previousId": IDS,
        "groupId": IDS,
        "event": st.one_of(WORDS, JSON),
        "name": st.one_of(WORDS, JSON),
        "traits": OBJECTS,
        "context": OBJECTS,
        "properties": st.one_of(OBJECTS, JSON),
        "timestamp": st.sampled_from(["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "junk", None]),
    },
)
TRACK = customerio(device_token_event="E", anonymous="send")
PIPELINES = customerio(api="pipelines", pipelines_write_key="w", device_token_event="E", anonymous="send")


@pytest.mark.spec("C120", "C121", "C122", "D02")
@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(fields=MESSAGES, trust=st.sampled_from(["client", "server"]))
def test_any_message_is_answered_within_the_limits(fields: dict[str, Any], trust: Any) -> None:
    read = message(fields, trust)
    answer, other = TRACK.prepare(read), PIPELINES.prepare(read)
    assert isinstance(answer, Payload | Skipped | Rejected)
    assert type(answer) is type(other)
    for payload in (answer, other):
        if isinstance(payload, Payload):
            assert [msgspec.json.encode(call.json) for call in payload.requests] == list(payload.data.encoded)
            limit = EVENT_DATA_BYTES if payload.data.call == "events" else ITEM_BYTES
            assert all(len(item) <= limit for item in payload.data.encoded)
            identifiers = [call.json.get("identifiers", {}) for call in payload.requests]
            assert all(len(each) in (0, 1) or "object_id" in each for each in identifiers)
