"""Customer.io's reporting webhooks: who may post, what a report becomes, and that the feed never blocks."""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, ValidationError

from towpath.errors import Unauthorized
from towpath.feed import kept
from towpath.message import Envelope, Message, Record, read
from towpath.sandbox.customerio import CustomerIoSimulator
from towpath.sandbox.customerio_webhooks import EVENTS, SIGNING_KEY
from towpath.source import Heard, Incoming, Unfit
from towpath.sources.customerio_webhooks import (
    CustomerIoWebhooks,
    CustomerIoWebhooksSettings,
    event_name,
)
from towpath.testing.fakes import FakeClock

NOW = 1_613_063_100.0
KEY = "test-signing-key"
PAGE = Path(__file__).parent.parent.parent / "docs" / "customerio-webhooks.md"

# Every pair of Customer.io's OpenAPI of reporting webhooks, with those that only its list of events names.
PAIRS = {
    "email": "drafted attempted sent delivered opened clicked converted bounced dropped spammed failed "
    "undeliverable deferred",
    "push": "drafted attempted sent delivered opened clicked converted bounced dropped failed undeliverable",
    "in_app": "drafted attempted sent opened clicked converted failed undeliverable",
    "sms": "drafted attempted sent delivered clicked converted bounced failed undeliverable replied dropped",
    "whatsapp": "drafted attempted sent delivered clicked converted bounced failed undeliverable replied "
    "opened dropped",
    "slack": "drafted attempted sent clicked failed undeliverable converted",
    "webhook": "drafted attempted sent clicked failed undeliverable converted",
}
TITLES = {
    "email": "Email",
    "push": "Push",
    "in_app": "In-App",
    "sms": "SMS",
    "whatsapp": "WhatsApp",
    "slack": "Slack",
    "webhook": "Webhook",
}
ABOUT_PEOPLE = {
    "subscribed": "Subscribed",
    "unsubscribed": "Unsubscribed",
    "cio_subscription_preferences_changed": "Subscription Preferences Changed",
}
GOLDEN = [
    (channel, metric, f"{TITLES[channel]} {metric[0].upper()}{metric[1:]}")
    for channel, metrics in PAIRS.items()
    for metric in metrics.split()
] + [(channel, metric, name) for channel in ["customer", *PAIRS] for metric, name in ABOUT_PEOPLE.items()]

REPORT: dict[str, Any] = {
    "event_id": "01E4C4CT6YDC7Y5M7FE1GWWPQJ",
    "object_type": "email",
    "metric": "clicked",
    "timestamp": 1613063089,
    "data": {
        "customer_id": "not-the-id",
        "delivery_id": "RPILAgUBcRhIBqSfeiIwdIYJKxTY",
        "action_id": 96,
        "campaign_id": 5,
        "parent_action_id": None,
        "identifiers": {"id": "42", "email": "ann@example.com", "cio_id": "d9c106000001"},
        "recipient": "ann@example.com",
        "subject": "Thanks",
        "href": "https://example.com/",
        "link_id": 1,
        "machine": False,
    },
}


def source(*keys: str, **settings: Any) -> CustomerIoWebhooks:
    """The source with these signing keys."""
    given = {"signing_keys": [*keys] or [KEY], **settings}
    return CustomerIoWebhooks(CustomerIoWebhooksSettings.model_validate(given))


def posted(
    body: bytes, at: float = NOW, key: str = KEY, headers: Mapping[str, str] | None = None
) -> Incoming:
    """A request as Customer.io signs it."""
    digest = hmac.new(key.encode(), b"v0:%d:" % at + body, hashlib.sha256).hexdigest()
    signed = {"x-cio-timestamp": f"{at:.0f}", "x-cio-signature": digest}
    return Incoming("POST", headers={**signed, **(headers or {})}, body=body)


def heard(body: Any) -> Sequence[Heard]:
    """What the source makes of a body."""
    raw = body if isinstance(body, bytes) else msgspec.json.encode(body)
    return list(source().messages(posted(raw), Nothing()))


class Nothing:
    """Known facts nobody asks for."""

    def __getattr__(self, name: str) -> Any:
        raise AssertionError(name)


def one(**changes: Any) -> Message:
    """The message of the sample report, changed."""
    (message,) = heard({**REPORT, **changes})
    assert isinstance(message, Message)
    return message


def about(identifiers: Any) -> Heard:
    """What becomes of a report about this person."""
    (result,) = heard({**REPORT, "data": {**REPORT["data"], "identifiers": identifiers}})
    return result


# -- who may post --------------------------------------------------------------------------------------


@pytest.mark.spec("C116")
def test_a_signature_made_by_another_tool_is_taken() -> None:
    # By openssl: printf 'v0:1613063089:{"event_id":"01E4"}' | openssl dgst -sha256 -hmac test-signing-key
    digest = "5c00ec45537fbc7495ea1bc0527623a80ef9dd6e158c96ae822afa484e77bf9f"
    headers = {"x-cio-timestamp": "1613063089", "x-cio-signature": digest}
    request = Incoming("POST", headers=headers, body=b'{"event_id":"01E4"}')
    source().verify(request, NOW)
    upper = msgspec.structs.replace(request, headers={**headers, "x-cio-signature": digest.upper()})
    source().verify(upper, NOW)


@pytest.mark.spec("C116")
@pytest.mark.parametrize(
    "headers",
    [
        {"x-cio-signature": "0" * 64},
        {"x-cio-signature": ""},
        {"x-cio-signature": "é" * 64},
        {"x-cio-timestamp": f"{NOW - 1:.0f}"},
        {"x-cio-timestamp": ""},
        {"x-cio-timestamp": "soon"},
        {"x-cio-timestamp": "9" * 40},
        {"x-cio-timestamp": "١٦١٣٠٦٣١٠٠"},
    ],
)
def test_a_forged_request_is_refused(headers: Mapping[str, str]) -> None:
    with pytest.raises(Unauthorized):
        source(tolerance=0).verify(posted(b"{}", headers=headers), NOW)


@pytest.mark.spec("C116")
def test_another_body_or_key_is_refused_and_nothing_of_it_is_told() -> None:
    changed = msgspec.structs.replace(posted(b'{"a":1}'), body=b'{"a":2}')
    for request in (changed, posted(b"{}", key="another")):
        with pytest.raises(Unauthorized) as told:
            source().verify(request, NOW)
        assert KEY not in str(told.value.lines())


@pytest.mark.spec("C116")
def test_only_the_raw_bytes_count_not_the_json() -> None:
    body = b'{ "b": 1,\n"a": 2 }'
    source().verify(posted(body), NOW)
    again = msgspec.json.encode(msgspec.json.decode(body))
    with pytest.raises(Unauthorized):
        source().verify(msgspec.structs.replace(posted(body), body=again), NOW)


@pytest.mark.spec("C116")
@pytest.mark.parametrize("away_s", [-7 * 86400 + 1, 7 * 86400 - 1])
def test_a_timestamp_within_the_tolerance_is_taken(away_s: int) -> None:
    source().verify(posted(b"{}", NOW + away_s), NOW)


@pytest.mark.spec("C116")
@pytest.mark.parametrize("away_s", [-301, 301])
def test_one_beyond_it_is_refused_unless_the_tolerance_is_off(away_s: int) -> None:
    request = posted(b"{}", NOW + away_s)
    with pytest.raises(Unauthorized, match="5m"):
        source(tolerance="5m").verify(request, NOW)
    source(tolerance="0").verify(request, NOW)
    source(tolerance="8d").verify(request, NOW)


@pytest.mark.spec("C116")
def test_while_a_key_is_rotated_both_are_taken() -> None:
    for key in ("old", "new"):
        source("old", "new").verify(posted(b"{}", key=key), NOW)
    with pytest.raises(Unauthorized):
        source("new").verify(posted(b"{}", key="old"), NOW)


def test_settings() -> None:
    settings = CustomerIoWebhooksSettings.model_validate({"signing_key": "one"})
    assert settings.signing_keys == [SecretStr("one")]
    assert (settings.trust, settings.tolerance.total_seconds()) == ("server", 7 * 86400)
    wrongs: list[dict[str, Any]] = [{}, {"signing_keys": []}, {"signing_keys": [" "]}]
    for wrong in [*wrongs, {"signing_keys": ["k"], "x": 1}]:
        with pytest.raises(ValidationError):
            CustomerIoWebhooksSettings.model_validate(wrong)


# -- what a report becomes -----------------------------------------------------------------------------


@pytest.mark.spec("C080", "C081", "C106")
def test_a_report_becomes_a_track_event_of_its_person() -> None:
    assert one() == Message(
        type="track",
        message_id="01E4C4CT6YDC7Y5M7FE1GWWPQJ",
        user_id="42",
        event="Email Clicked",
        properties={
            "object_type": "email",
            "metric": "clicked",
            "delivery_id": "RPILAgUBcRhIBqSfeiIwdIYJKxTY",
            "action_id": 96,
            "campaign_id": 5,
            "recipient": "ann@example.com",
            "subject": "Thanks",
            "href": "https://example.com/",
            "link_id": 1,
            "machine": False,
        },
        context={
            "source": "customerio",
            "traits": {"email": "ann@example.com"},
            "externalIds": [
                {"id": "d9c106000001", "type": "cio_id", "collection": "users", "encoding": "none"}
            ],
        },
        timestamp="2021-02-11T17:04:49.000Z",
    )


@pytest.mark.spec("C080")
def test_one_object_or_an_array() -> None:
    second = {**REPORT, "event_id": "02", "metric": "opened"}
    names = [item.message_id for item in heard([REPORT, second]) if isinstance(item, Message)]
    assert names == [REPORT["event_id"], "02"]
    assert heard([]) == []
    assert source().answer() == b"OK"
    assert source().path == "customerio"


@pytest.mark.spec("C081", "C106")
@pytest.mark.parametrize(("channel", "metric", "name"), GOLDEN, ids=[f"{a}-{b}" for a, b, _ in GOLDEN])
def test_every_pair_has_its_name(channel: str, metric: str, name: str) -> None:
    message = one(object_type=channel, metric=metric)
    assert message.event == name
    assert (message.properties["object_type"], message.properties["metric"]) == (channel, metric)


def test_the_page_lists_the_same_names() -> None:
    rows = re.findall(r"^\| `(\w+)` \| `(.+) …` \| (.+) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    shown = {
        (channel, metric, f"{title} {metric.capitalize()}")
        for channel, title, metrics in rows
        for metric in metrics.split(", ")
    }
    assert shown == {row for row in GOLDEN if row[1] not in ABOUT_PEOPLE}
    people = re.findall(r"^\| `(\w+)` \| `([A-Z][\w ]+)` \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    assert dict(people) == ABOUT_PEOPLE


@pytest.mark.spec("C080")
@pytest.mark.parametrize(
    ("object_type", "metric", "name"),
    [
        ("live_notification", "sent", "Customer.io live_notification sent"),
        ("email", "read_aloud", "Customer.io email read_aloud"),
        ("customer", "opened", "Customer.io customer opened"),
        ("", "", "Customer.io"),
    ],
)
def test_what_nobody_knows_is_kept_as_an_event(object_type: str, metric: str, name: str) -> None:
    assert event_name(object_type, metric) == name
    assert one(object_type=object_type, metric=metric).event == name


def test_a_name_has_an_end() -> None:
    assert len(one(object_type="x" * 5000, metric="y" * 5000).event) < 150
    assert one(object_type=None, metric={"a": 1}).event == "Customer.io"


@pytest.mark.spec("C081")
@pytest.mark.parametrize(
    ("identifiers", "person"),
    [
        ({"id": "42", "email": "ann@example.com", "cio_id": "d9"}, "42"),
        ({"id": None, "email": "ann@example.com", "cio_id": "d9"}, "ann@example.com"),
        ({"id": "", "email": "", "cio_id": "d9"}, "cio_d9"),
        ({"cio_id": "cio_d9"}, "cio_d9"),
        ({"id": 42}, "42"),
    ],
)
def test_the_person_is_the_id_else_the_address_else_the_cio_id(
    identifiers: dict[str, Any], person: str
) -> None:
    message = about(identifiers)
    assert isinstance(message, Message)
    assert message.user_id == person


@pytest.mark.spec("C080", "C081")
@pytest.mark.parametrize(
    "identifiers", [None, {}, {"id": " ", "email": None}, "42", ["42"], {"id": {"a": 1}}]
)
def test_a_report_about_nobody_is_set_aside_and_never_goes_by_customer_id(identifiers: Any) -> None:
    letter = about(identifiers)
    assert isinstance(letter, Unfit)
    assert letter.code == "no_person"
    assert msgspec.json.decode(letter.raw)["event_id"] == REPORT["event_id"]
    assert "ann@" not in letter.reason


@pytest.mark.spec("C080")
def test_what_is_no_report_is_set_aside_and_the_rest_goes_on() -> None:
    found = heard([None, 7, REPORT, "x", [REPORT]])
    kinds = [item.code if isinstance(item, Unfit) else "message" for item in found]
    assert kinds == ["not_a_report", "not_a_report", "message", "not_a_report", "not_a_report"]
    assert "item 3" in getattr(found[3], "reason", "")


@pytest.mark.spec("C080")
@pytest.mark.parametrize("body", [b"", b"{", b"\xff", b"[" * 100_000, b'{"a":NaN}', b'{"a":1e999}'])
def test_a_body_that_is_no_json_is_set_aside(body: bytes) -> None:
    (letter,) = heard(body)
    assert isinstance(letter, Unfit)
    assert letter.code == "unreadable"
    assert letter.raw == body[: 64 * 1024]


@pytest.mark.spec("C081", "D07")
def test_a_repeat_has_the_same_id_also_without_one_of_its_own() -> None:
    unusable: list[Any] = [None, "", {}, "x" * 129]
    for event_id in unusable:
        first, again = one(event_id=event_id), one(event_id=event_id)
        other = one(event_id=event_id, timestamp=1613063090)
        assert first.message_id == again.message_id != other.message_id
        assert first.message_id.startswith("cio-")


@pytest.mark.parametrize("timestamp", [None, "now", True, 1e300, -1e300, {}])
def test_without_a_readable_time_the_arrival_counts(timestamp: Any) -> None:
    assert one(timestamp=timestamp).timestamp is None


@pytest.mark.spec("C106")
def test_changed_preferences_are_read() -> None:
    data = {**REPORT["data"], "content": '{"topics":{"topic_1":true,"topic_2":false}}'}
    message = one(object_type="customer", metric="cio_subscription_preferences_changed", data=data)
    assert message.properties["topics"] == {"topic_1": True, "topic_2": False}
    for content in ("<p>mail</p>", "[1]", '{"topics":1}', 7):
        assert "topics" not in one(data={**REPORT["data"], "content": content}).properties


# -- whatever comes ------------------------------------------------------------------------------------

scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
values = st.recursive(
    scalars | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=12), inner, max_size=4),
    max_leaves=12,
)
words = st.sampled_from([*PAIRS, *ABOUT_PEOPLE, "customer", "opened"])
reports = st.fixed_dictionaries(
    {},
    optional={
        "event_id": values,
        "object_type": words | values,
        "metric": words | values,
        "timestamp": values,
        "data": st.fixed_dictionaries(
            {},
            optional={
                "identifiers": st.dictionaries(st.sampled_from(["id", "email", "cio_id"]), values) | values,
                "content": values,
                "properties": values,
            },
        )
        | values,
    },
)


def fits_the_log(item: Heard) -> bool:
    """Whether the log can keep it and read it again."""
    if isinstance(item, Unfit):
        return 0 < len(item.code) < 20 and len(item.raw) <= 64 * 1024
    assert isinstance(item, Message)
    record = Record(1, item.message_id, Envelope("reports", NOW, "server"), kept(item))
    again = read(record)
    return bool(again.user_id and again.event == item.event and 0 < len(item.message_id) <= 128)


@pytest.mark.spec("C080")
@given(reports | st.lists(reports | values, max_size=3) | values)
def test_any_json_is_taken_in_or_set_aside(body: Any) -> None:
    try:
        raw = msgspec.json.encode(body)
    except (ValueError, OverflowError):  # not every integer of Python's is JSON
        return
    found = heard(raw)
    assert len(found) == (len(body) if isinstance(body, list) else 1)
    assert all(fits_the_log(item) for item in found)


@pytest.mark.spec("C080")
@given(st.binary(max_size=200))
def test_any_bytes_are_taken_in_or_set_aside(body: bytes) -> None:
    assert all(fits_the_log(item) for item in heard(body))


# -- what the simulated Customer.io sends --------------------------------------------------------------


@pytest.mark.spec("C080", "C081", "C106", "C116")
async def test_everything_the_simulator_can_report_is_taken_in_by_its_name() -> None:
    simulator = CustomerIoSimulator(clock=FakeClock())
    state, simulated = simulator.state, simulator.webhooks
    taken = source(SIGNING_KEY)
    found: list[Heard] = []

    async def post(url: str, headers: Mapping[str, str], body: bytes) -> int:
        request = Incoming("POST", headers=headers, body=body)
        taken.verify(request, state.clock.now())
        found.extend(taken.messages(request, Nothing()))
        return 200

    simulated.post = post
    asked = {"id": 1, "endpoint": "http://hub/", "full_resolution": True, "events": sorted(EVENTS)}
    state.reporting_webhooks.append(asked)
    for channel, metric, _ in GOLDEN:
        simulated.emit(channel, metric, None, identifiers={"id": "u1"}, delivery_id="d1")
    await simulated.deliver()
    names = [item.event for item in found if isinstance(item, Message)]
    assert names == [name for _, _, name in GOLDEN]
