"""Firestore's values: as attributes, and from protobuf as Google's own library writes it."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from typing import Any

import pytest
from google.cloud.firestore_v1 import GeoPoint, _helpers
from google.cloud.firestore_v1.types import Document
from google.cloud.firestore_v1.vector import Vector
from google.protobuf import json_format  # type: ignore[import-untyped]
from hypothesis import given, settings
from hypothesis import strategies as st

from towpath.sources._firebase_values import DROPPED, Unreadable, attribute, document, instant, rfc3339, wire

from .firebase_world import typed


def ours(value: Any) -> Any:
    """A value through Google's types and our protobuf reader, as an attribute."""
    message = Document(name="n", fields=_helpers.encode_dict({"v": value}))
    return attribute(document(Document.serialize(message))["fields"]["v"])


@pytest.mark.spec("F040")
@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("", ""),
        ("Grüße\n", "Grüße\n"),
        (True, True),
        (False, False),
        (None, None),
        (0, 0),
        (-1, -1),
        (2**63 - 1, 2**63 - 1),
        (-(2**63), -(2**63)),
        (1.5, 1.5),
        (-0.1, -0.1),
        (float("nan"), None),
        (float("inf"), None),
        (float("-inf"), None),
        (datetime(2026, 11, 20, 10, 0, 0, 999999, tzinfo=UTC), 1_795_168_800),
        (datetime(1969, 12, 31, 23, 59, 59, 500000, tzinfo=UTC), -1),
        (GeoPoint(52.52, 13.405), "52.52,13.405"),
        (GeoPoint(0, -120), "0,-120"),
        (GeoPoint(-0.1, 0.000001), "-0.1,1e-06"),
        ({}, {}),
        ([], []),
        ({"a": {"b": [1, {"c": None}]}}, {"a": {"b": [1, {"c": None}]}}),
        ({"a": b"x", "b": 1}, {"b": 1}),
        ([b"x", 1], [1]),
        (Vector([1.0, 2.0]), [1.0, 2.0]),
    ],
)
def test_values_as_attributes(value: Any, expected: Any) -> None:
    found = ours(value)
    assert found == expected
    assert type(found) is type(expected)


@pytest.mark.spec("F040")
def test_bytes_are_dropped_and_references_are_paths() -> None:
    assert attribute(typed(b"x")) is DROPPED
    name = "projects/p/databases/(default)/documents/users/u1"
    assert attribute({"referenceValue": name}) == "users/u1"


@pytest.mark.spec("F040")
def test_timestamps_as_iso() -> None:
    value = {"timestampValue": "2026-11-20T10:00:00.123456Z"}
    assert attribute(value, iso=True) == "2026-11-20T10:00:00.123456Z"
    assert attribute({"arrayValue": {"values": [value]}}, iso=True) == ["2026-11-20T10:00:00.123456Z"]


@pytest.mark.parametrize(
    "value",
    [
        None,
        7,
        "text",
        {},
        {"a": 1, "b": 2},
        {"noValue": 1},
        {"integerValue": "x"},
        {"integerValue": None},
        {"doubleValue": "x"},
        {"booleanValue": "x"},
        {"timestampValue": "yesterday"},
        {"timestampValue": 7},
        {"geoPointValue": "x"},
        {"arrayValue": []},
        {"mapValue": {"fields": {"a": None}}},
    ],
)
def test_what_is_no_value_is_unreadable(value: Any) -> None:
    with pytest.raises(Unreadable):
        attribute(value)


def test_a_value_nested_beyond_any_document_is_unreadable() -> None:
    value: dict[str, Any] = {"nullValue": None}
    for _ in range(5000):
        value = {"arrayValue": {"values": [value]}}
    with pytest.raises(Unreadable):
        attribute(value)


SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=5)
    | st.binary(max_size=5)
    | st.datetimes(timezones=st.just(UTC))
)
NAMES = st.text(st.characters(categories=["L", "Nd"]), min_size=1, max_size=4)
VALUES = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(NAMES, inner, max_size=3),
    max_leaves=8,
)


@pytest.mark.spec("F054", "F059")
@settings(max_examples=150, deadline=None)
@given(st.dictionaries(NAMES, VALUES, max_size=4))
def test_protobuf_is_read_as_googles_own_library_reads_it(fields: dict[str, Any]) -> None:
    moments = {
        "create_time": datetime(2026, 1, 1, tzinfo=UTC),
        "update_time": datetime(2026, 1, 2, tzinfo=UTC),
    }
    message = Document(name="n", fields=_helpers.encode_dict(fields), **moments)
    expected = json_format.MessageToDict(Document.pb(message))
    found = document(Document.serialize(message))
    assert found["createTime"] == expected["createTime"]
    assert found["updateTime"] == expected["updateTime"]
    assert attributes(found["fields"]) == attributes(expected.get("fields", {}))


def attributes(fields: dict[str, Any]) -> dict[str, Any]:
    decoded = {name: attribute(value, iso=True) for name, value in fields.items()}
    return {name: shortened(value) for name, value in decoded.items()}


def shortened(value: Any) -> Any:
    """Times with a fraction of three digits, as Google's library writes some of them, like those with six."""
    if isinstance(value, str) and len(value) == 24 and value[10] == "T" and value.endswith("Z"):
        return value[:-1] + "000Z"
    if isinstance(value, list):
        return [shortened(item) for item in value]
    if isinstance(value, dict):
        return {name: shortened(item) for name, item in value.items()}
    return value


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_unreadable(data: bytes) -> None:
    for read in (document, lambda held: list(wire(held))):
        try:
            read(data)
        except Unreadable:
            continue


@pytest.mark.spec("F050")
@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1970-01-01T00:00:00Z", 0),
        ("1970-01-01T00:00:01.5Z", 1_500_000_000),
        ("1970-01-01T00:00:00.000001Z", 1_000),
        ("1970-01-01T00:00:00.000000001Z", 1),
        ("1970-01-01T01:00:00+01:00", 0),
        ("1970-01-01T00:00:00.000001+00:00", 1_000),
        ("1969-12-31T23:59:59.25Z", -750_000_000),
    ],
)
def test_instants(text: str, expected: int) -> None:
    assert instant(text) == expected


@pytest.mark.parametrize("text", ["", "Z", "now", None, 7, "2026-13-01T00:00:00Z", "1970-01-01T00:00:00.Z5Z"])
def test_what_is_no_time(text: Any) -> None:
    with pytest.raises(Unreadable):
        instant(text)


def test_times_of_protobuf() -> None:
    assert rfc3339(0) == "1970-01-01T00:00:00Z"
    assert rfc3339(1, 1000) == "1970-01-01T00:00:01.000001Z"
    assert rfc3339(1, 1) == "1970-01-01T00:00:01.000000001Z"
    assert rfc3339(-62_135_596_800) == "0001-01-01T00:00:00Z"
    with pytest.raises(Unreadable):
        rfc3339(10**15)
    assert not math.isnan(instant(rfc3339(0)))
