"""Whatever a client sends, what goes out is what Kustomer's own schema takes; the sandbox is the judge."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from towpath.destination import Payload
from towpath.destinations._kustomer_profile import KNOWN_TRAITS
from towpath.outcome import Rejected, Skipped
from towpath.sandbox.kustomer_schema import Meta, check_customer, identity_event_rule

from .kustomer_world import kustomer, message

ADVANCED = kustomer(set_identity_email=True, lookup_phone=True)
PLAIN = kustomer(advanced_transform=False)
check_event = identity_event_rule(Meta())

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
TELLING = st.sampled_from(
    [
        *("", " ", "a@b.io", "a@b", "+15005550006", "phone", "m", "FEMALE", "home", "twitter", "mobile"),
        *("2020-01-02", "2020-01-02T10:11", "2020-02-02T00:23:09.544Z", "9999-99-99", "21-02-1988"),
        *("www.a.example", "https://a.example/ü", "HTTP://A.example", "x" * 300, "é" * 1100, "Num", "a b"),
    ]
)
SCALARS = (
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats(allow_nan=False) | TEXTS | TELLING
)
KEYS = TEXTS | st.sampled_from(
    [
        *(
            "email",
            "type",
            "phone",
            "verified",
            "username",
            "userid",
            "url",
            "name",
            "street",
            "city",
            "pageId",
        ),
        *(
            "userId",
            "threadId",
            "polarity",
            "confidence",
            "aStr",
            "aNum",
            "aAt",
            "aBool",
            "aUrl",
            "id",
            "a b",
        ),
        *(
            "kustomerSessionId",
            "kustomer_tracking_id",
            "event",
            "incomeNum",
            "income",
            "createdAt",
            "created",
        ),
    ]
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=12) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=12,
)
TRAITS = st.dictionaries(st.sampled_from(sorted(KNOWN_TRAITS)) | KEYS, JSON, max_size=8)
MESSAGES = st.fixed_dictionaries(
    {"type": st.sampled_from(["track", "page", "screen", "identify"])},
    optional={
        "userId": JSON,
        "anonymousId": SCALARS,
        "event": JSON,
        "name": JSON,
        "category": JSON,
        "properties": st.dictionaries(KEYS, JSON, max_size=8) | JSON,
        "traits": TRAITS | JSON,
        "context": JSON
        | st.fixed_dictionaries(
            {}, optional={"traits": TRAITS, "sessionId": JSON, "externalId": JSON, "locale": JSON}
        ),
    },
)


def texts_under_numbers(meta: Mapping[str, Any]) -> list[str]:
    return [key for key, value in meta.items() if isinstance(value, str) and key.endswith("Num")]


def assert_fits(payload: Payload) -> None:
    """Kustomer takes it; but texts under keys of numbers stay as they are and are reported (K022)."""
    for call in payload.requests:
        body = msgspec.json.decode(msgspec.json.encode(call.json))
        if payload.capability == "customers":
            check_customer(body)
            continue
        for key in texts_under_numbers(body["event"]["meta"]):
            assert any("holds a string" in report for report in payload.reports)
            del body["event"]["meta"][key]
        check_event(body)


@pytest.mark.spec("K070", "K022", "K055", "K068")
@settings(max_examples=150, deadline=None)
@given(MESSAGES)
def test_what_is_sent_fits_kustomers_schema(fields: dict[str, Any]) -> None:
    given_message = message(fields)
    before = msgspec.json.encode(given_message)
    verdict = ADVANCED.prepare(given_message)
    if isinstance(verdict, Payload):
        assert_fits(verdict)
        assert all(isinstance(report, str) for report in verdict.reports)
    else:
        assert isinstance(verdict, Rejected)
        assert verdict.reason
    assert msgspec.json.encode(given_message) == before


@pytest.mark.spec("K009", "K010", "K016", "K020")
@settings(max_examples=75, deadline=None)
@given(JSON.filter(lambda value: isinstance(value, dict)) | MESSAGES)
def test_any_json_object_has_an_answer(fields: dict[str, Any]) -> None:
    verdict = PLAIN.prepare(message(fields))
    assert isinstance(verdict, Payload | Rejected | Skipped)


@pytest.mark.spec("K070")
@settings(max_examples=75, deadline=None)
@given(st.dictionaries(st.sampled_from(sorted(KNOWN_TRAITS)), JSON, min_size=1, max_size=20))
def test_one_field_never_costs_the_whole_identify(traits: dict[str, Any]) -> None:
    traits.pop("userId", None)
    verdict = ADVANCED.prepare(
        message({"type": "identify", "userId": "u1", "traits": {**traits, "userName": "ada"}})
    )
    assert isinstance(verdict, Payload)
    assert verdict.requests[0].json["username"] == "ada"
    assert_fits(verdict)
