"""Reports of Customer.io as rows of `message_events`."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from towpath.message import Message
from towpath.source import Incoming
from towpath.sources.customerio_webhooks import CustomerIoWebhooks, CustomerIoWebhooksSettings
from towpath.testing.fakes import FakeKnown
from towpath.warehouse.message_events import MESSAGE_EVENTS, row_of

REPORT: dict[str, Any] = {
    "event_id": "01E4C4CT6YDC7Y5M7FE1GWWPQJ",
    "object_type": "email",
    "metric": "clicked",
    "timestamp": 1_613_063_089,
    "data": {
        "customer_id": "not-the-id",
        "identifiers": {"id": "42", "email": "ada@example.com", "cio_id": "a3000001"},
        "delivery_id": "dgTg-0001",
        "campaign_id": 5,
        "recipient": "ada@example.com",
        "subject": "Hello",
        "href": "https://example.com/offer",
        "machine": False,
    },
}


def heard(**changes: Any) -> Message:
    """What the source of reporting webhooks makes of a report."""
    source = CustomerIoWebhooks(CustomerIoWebhooksSettings.model_validate({"signing_keys": ["k"]}))
    body = msgspec.json.encode({**REPORT, **changes})
    (message,) = source.messages(Incoming("POST", headers={}, body=body), FakeKnown())
    assert isinstance(message, Message)
    return message


@pytest.mark.spec("R017")
def test_a_report_is_a_row() -> None:
    assert row_of(heard()) == {
        "id": "01E4C4CT6YDC7Y5M7FE1GWWPQJ",
        "at": "2021-02-11T17:04:49+00:00",
        "delivery_id": "dgTg-0001",
        "object_type": "email",
        "metric": "clicked",
        "person_id": "42",
        "cio_id": "a3000001",
        "email": "ada@example.com",
        "recipient": "ada@example.com",
        "campaign_id": 5,
        "href": "https://example.com/offer",
        "machine": False,
    }


def test_a_row_has_only_what_the_table_has() -> None:
    assert set(row_of(heard()) or ()) <= {column.name for column in MESSAGE_EVENTS.columns}


@pytest.mark.parametrize(
    "message",
    [
        heard(metric="unsubscribed", object_type="customer", data={"identifiers": {"id": "1"}}),
        Message(type="track", event="Email Opened", properties={"delivery_id": "d", "metric": "opened"}),
        Message(type="track", context={"source": "customerio"}, properties=["no", "object"]),
        Message(type="identify", context={"source": "customerio"}, properties={"delivery_id": "d"}),
        Message(type="page", user_id="1"),
    ],
    ids=["about a person", "from elsewhere", "no properties", "no event", "a page"],
)
def test_what_is_about_no_delivery_is_no_row(message: Message) -> None:
    assert row_of(message) is None


def test_odd_external_ids_are_passed_over() -> None:
    message = msgspec.structs.replace(heard(), context={"source": "customerio", "externalIds": ["odd", {}]})
    row = row_of(message)
    assert row is not None
    assert (row["cio_id"], row["email"]) == (None, None)
