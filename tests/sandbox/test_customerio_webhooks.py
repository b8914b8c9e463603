"""Reporting webhooks of the simulated Customer.io: who gets which, signatures, order, retries of a week."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import json
from collections.abc import Mapping
from typing import Any

import pytest

from towpath.sandbox.customerio_state import Switches
from towpath.sandbox.customerio_webhooks import KEPT_S, SIGNING_KEY
from towpath.sandbox.serve import sandbox, serve
from towpath.sandbox.sink import WebhookSink

from .conftest import until
from .customerio_calls import Workspace

pytestmark = pytest.mark.spec("D12", "C080", "C116")

HOUR_S = 3600


class Receiver:
    """Answers with the statuses it was given, then 200; an exception in their place is raised."""

    def __init__(self, *answers: int | Exception) -> None:
        self.answers = list(answers)
        self.taken: list[tuple[str, Mapping[str, str], bytes]] = []

    async def __call__(self, url: str, headers: Mapping[str, str], body: bytes) -> int:
        self.taken.append((url, headers, body))
        answer = self.answers.pop(0) if self.answers else 200
        if isinstance(answer, Exception):
            raise answer
        return answer

    def metrics(self) -> list[str]:
        return [json.loads(body)["metric"] for _, _, body in self.taken]


def subscribed(at: Workspace, *events: str, **more: Any) -> None:
    given = {"name": "hub", "endpoint": "http://hub/hook", "events": list(events), **more}
    assert at.app("POST", "/reporting_webhooks", given).status == 200


def posting(*answers: int | Exception, events: tuple[str, ...] = ("email_sent", "email_delivered")) -> Any:
    at = Workspace()
    subscribed(at, *events)
    receiver = at.simulator.webhooks.post = Receiver(*answers)
    at.identify("u1", email="a@example.com")
    return at, receiver


async def test_a_webhook_is_one_signed_object() -> None:
    at, receiver = posting()
    person = at.simulator.find(id="u1")
    event_id = at.simulator.webhooks.emit("email", "sent", person, delivery_id="d1", campaign_id=5)
    await at.simulator.webhooks.deliver()
    ((url, headers, body),) = receiver.taken
    stamp = headers["x-cio-timestamp"]
    digest = hmac.new(SIGNING_KEY.encode(), f"v0:{stamp}:".encode() + body, hashlib.sha256)
    assert (url, stamp) == ("http://hub/hook", str(int(at.clock.now())))
    assert headers["x-cio-signature"] == digest.hexdigest()
    assert json.loads(body) == {
        "event_id": event_id,
        "object_type": "email",
        "metric": "sent",
        "timestamp": int(at.clock.now()),
        "data": {
            "customer_id": "u1",
            "identifiers": {"id": "u1", "email": "a@example.com", "cio_id": at.cio_id(id="u1")},
            "delivery_id": "d1",
            "campaign_id": 5,
        },
    }


async def test_only_what_was_asked_for_is_sent_and_nothing_to_a_disabled_endpoint() -> None:
    at, receiver = posting()
    subscribed(at, "email_sent", disabled=True)
    for metric in ("sent", "opened", "delivered"):
        at.simulator.webhooks.emit("email", metric)
    at.simulator.webhooks.emit("push", "sent")
    await at.simulator.webhooks.deliver()
    assert receiver.metrics() == ["sent", "delivered"]


async def test_opens_come_once_per_delivery_unless_all_are_asked_for() -> None:
    at = Workspace()
    subscribed(at, "email_opened")
    subscribed(at, "email_opened", full_resolution=True, endpoint="http://all/hook")
    receiver = at.simulator.webhooks.post = Receiver()
    for delivery in ("d1", "d1", "d2"):
        at.simulator.webhooks.emit("email", "opened", delivery_id=delivery)
    await at.simulator.webhooks.deliver()
    assert [url for url, _, _ in receiver.taken].count("http://hub/hook") == 2
    assert len(receiver.taken) == 5


async def test_content_comes_only_when_asked_for() -> None:
    at = Workspace()
    subscribed(at, "email_sent")
    subscribed(at, "email_sent", with_content=True)
    receiver = at.simulator.webhooks.post = Receiver()
    at.simulator.webhooks.emit("email", "sent", content="<b>Hi</b>")
    await at.simulator.webhooks.deliver()
    assert ["content" in json.loads(body)["data"] for _, _, body in receiver.taken] == [False, True]


async def test_consent_that_changes_is_told_by_itself() -> None:
    names = ("customer_subscribed", "customer_unsubscribed", "customer_subscription_preferences_changed")
    at, receiver = posting(events=names)
    at.identify("u1", unsubscribed=True)
    at.identify("u1", unsubscribed=True)
    at.identify("u1", unsubscribed=False)
    at.identify("u1", **{"cio_subscription_preferences.topics.topic_1": False})
    at.simulator.webhooks.emit("email", "unsubscribed", at.simulator.find(id="u1"))
    await at.simulator.webhooks.deliver()
    assert receiver.metrics() == [
        "unsubscribed",
        "subscribed",
        "cio_subscription_preferences_changed",
        "unsubscribed",
    ]
    preferences = json.loads(receiver.taken[2][2])
    assert preferences["object_type"] == "customer"
    assert preferences["data"]["content"] == '{"topics":{"topic_1":false}}'
    assert preferences["data"]["email_address"] == "a@example.com"


HOURLY = [
    400,
    401,
    402,
    403,
    404,
    405,
    410,
    429,
    500,
    502,
    521,
    ConnectionResetError(),
    ConnectionRefusedError(),
]


@pytest.mark.parametrize("answer", HOURLY, ids=str)
async def test_after_these_the_retry_waits_an_hour_and_all_later_ones_behind_it(
    answer: int | Exception,
) -> None:
    at, receiver = posting(answer)
    for metric in ("sent", "delivered"):
        at.simulator.webhooks.emit("email", metric)
    await at.simulator.webhooks.deliver()
    assert (receiver.metrics(), at.simulator.webhooks.waiting()) == (["sent"], 2)
    at.clock.at += HOUR_S - 1
    await at.simulator.webhooks.deliver()
    assert receiver.metrics() == ["sent"]
    at.clock.at += 1
    await at.simulator.webhooks.deliver()
    assert receiver.metrics() == ["sent", "sent", "delivered"]
    assert at.simulator.webhooks.waiting() == 0
    assert len({json.loads(body)["event_id"] for _, _, body in receiver.taken[:2]}) == 1


@pytest.mark.parametrize("answer", [TimeoutError(), 503, 302], ids=str)
async def test_after_others_the_waits_double(answer: int | Exception) -> None:
    at, _ = posting(*[answer] * 3)
    at.simulator.webhooks.emit("email", "sent")
    waits = []
    for _ in range(3):
        await at.simulator.webhooks.deliver()
        due = at.simulator.webhooks.due()
        waits.append(due - at.clock.at)
        at.clock.at = due
    await at.simulator.webhooks.deliver()
    assert waits == [10, 20, 40]
    assert [attempt.status for attempt in at.simulator.webhooks.sent][-1] == 200
    assert at.simulator.webhooks.due() is None


async def test_a_week_later_it_gives_up_and_goes_on() -> None:
    at, receiver = posting(*[500] * (KEPT_S // HOUR_S + 1))
    at.simulator.webhooks.emit("email", "sent")
    while receiver.answers:
        await at.simulator.webhooks.deliver()
        at.clock.at = at.simulator.webhooks.due() or at.clock.at
    at.simulator.webhooks.emit("email", "delivered")
    await at.simulator.webhooks.deliver()
    assert at.simulator.webhooks.given_up == 1
    assert receiver.metrics()[-1] == "delivered"


@pytest.mark.parametrize(("restamp", "moved"), [(True, HOUR_S), (False, 0)])
async def test_a_retry_is_stamped_anew_or_not(restamp: bool, moved: int) -> None:
    at = Workspace(switches=Switches(restamp=restamp))
    subscribed(at, "email_sent")
    receiver = at.simulator.webhooks.post = Receiver(500)
    at.simulator.webhooks.emit("email", "sent")
    await at.simulator.webhooks.deliver()
    at.clock.at += HOUR_S
    await at.simulator.webhooks.deliver()
    first, second = (int(headers["x-cio-timestamp"]) for _, headers, _ in receiver.taken)
    assert second - first == moved


async def test_one_slow_endpoint_does_not_hold_up_another() -> None:
    at = Workspace()
    for name in ("a", "b"):
        subscribed(at, "email_sent", endpoint=f"http://{name}/hook")
    receiver = at.simulator.webhooks.post = Receiver(500)
    for _ in range(2):
        at.simulator.webhooks.emit("email", "sent")
    await at.simulator.webhooks.deliver()
    assert [url for url, _, _ in receiver.taken] == ["http://a/hook", "http://b/hook", "http://b/hook"]


async def test_over_the_wire_a_refused_connection_waits_an_hour() -> None:
    at, sink = Workspace(), WebhookSink()
    async with serve(sink) as url:
        subscribed(at, "email_sent", endpoint=f"{url}/cio")
        at.simulator.webhooks.emit("email", "sent")
        await at.simulator.webhooks.deliver()
    assert [(each.path, each.json()["metric"]) for each in sink.received] == [("/cio", "sent")]
    at.simulator.webhooks.emit("email", "sent")
    await at.simulator.webhooks.deliver()
    assert [attempt.status for attempt in at.simulator.webhooks.sent] == [200, 0]
    assert at.simulator.webhooks.due() == at.clock.at + HOUR_S


async def test_the_sandbox_sends_by_itself() -> None:
    async with sandbox() as box:
        webhook = {"id": 1, "endpoint": f"{box.webhook_url}/cio", "events": ["customer_unsubscribed"]}
        box.customerio.state.reporting_webhooks.append(webhook)
        await asyncio.sleep(0)
        box.customerio.profiles.identify(("id", "u1"), {"unsubscribed": True})
        await until(lambda: box.webhook.received)
    assert box.webhook.received[0].json()["data"]["identifiers"]["id"] == "u1"
