"""The FCM destination: which events ask for which push, what people are shown of it, and its check."""

from __future__ import annotations

import json
from typing import Any, ClassVar

import msgspec
import pytest
from pydantic import ValidationError

from tests.install.account import ACCOUNT
from towpath.destination import Check, Payload, Scope
from towpath.destinations.fcm import Fcm, FcmAccount, FcmSettings
from towpath.device import PUSH
from towpath.http import Http, Reply, TransportError, Undelivered
from towpath.message import Message
from towpath.notice import Trigger
from towpath.outcome import Delivered, Outcome, Paused, Rejected, Retry, Skipped
from towpath.redaction import setting_secrets
from towpath.sandbox.fcm import FcmSimulator
from towpath.testing import DestinationContract, FakeClock, FakeMemory, FakeTransport
from towpath.testing.fakes import Rule
from towpath.testing.samples import SAMPLES, message

from .test_kustomer_sandbox import InProcess

URL = "https://fcm.googleapis.com/v1/projects/demo-p/messages:send"
TOKEN: Rule = (
    "POST",
    "*/token",
    Reply(200, body=b'{"access_token": "ya29.secret-token", "expires_in": 3599}'),
)
SHIPPED = {"title": "On its way, {traits.first_name|you}", "body": "Order {properties.order_id}", "ttl": "1h"}
SETTINGS: dict[str, Any] = {
    "service_account": ACCOUNT,
    "events": {
        "Order Shipped": SHIPPED,
        "Order Completed": {"title": "Thank you", "link": "shop://thanks"},
        "Signed Up": "welcome",
    },
}
MADE = FcmSettings.model_validate(SETTINGS)  # once: it takes a while to look at a private key


class OverTheWire:
    """A port `push` that asks the network once for each push, as a sender does."""

    def __init__(self, http: Http) -> None:
        self._http = http

    async def push(self, key: str, person: str, content: Any) -> Outcome:
        try:
            await self._http.request("POST", URL, json={"key": key, "to": person, "code": content.code})
        except Undelivered as error:
            return error.outcome
        return Delivered(200)


class Port:
    """A port `push` that says what a test wants."""

    def __init__(self, outcome: Outcome) -> None:
        self.outcome = outcome
        self.asked: list[tuple[str, str, Trigger]] = []

    async def push(self, key: str, person: str, content: Trigger) -> Outcome:
        self.asked.append((key, person, content))
        return self.outcome


@pytest.mark.spec("D02", "D03", "D08", "D11", "P003")
class TestFcmContract(DestinationContract):
    destination = Fcm
    settings: ClassVar[dict[str, Any]] = SETTINGS
    accepted = (TOKEN, ("*", "*", Reply(200, body=b"{}")))
    samples = (*SAMPLES, message("track", event="send_push", properties={"assetId": "c1"}))

    def make(self) -> Fcm:
        """Make the destination with settings that were read once."""
        return Fcm(MADE)

    def scope(self, *rules: Rule) -> tuple[Scope, FakeTransport]:
        """Make a scope whose port sends by the scripted network."""
        made, clock, network = self.make(), FakeClock(), FakeTransport(*rules)
        http = Http(network, clock, headers=made.headers(), secrets=setting_secrets(made.settings))
        return Scope(http, clock, FakeMemory(clock), {PUSH: OverTheWire(http)}), network


def track(event: Any = "Order Shipped", user_id: str | None = "u1", **properties: Any) -> Message:
    return message(
        "track", message_id="m1", user_id=user_id, anonymous_id=None, event=event, properties=properties
    )


def fcm(**settings: Any) -> Fcm:
    return Fcm(FcmSettings.model_validate({**SETTINGS, **settings}) if settings else MADE)


def trigger(of: Message, **settings: Any) -> Trigger:
    payload = fcm(**settings).prepare(of)
    assert isinstance(payload, Payload), payload
    assert payload.capability == "send"
    assert isinstance(payload.data, Trigger)
    return payload.data


async def delivered(outcome: Outcome) -> tuple[Delivered, Port]:
    destination, clock, port = fcm(), FakeClock(), Port(outcome)
    payload = destination.prepare(track(order_id=5))
    assert isinstance(payload, Payload)
    scope = Scope(Http(FakeTransport(), clock), clock, FakeMemory(clock), {PUSH: port})
    return await destination.deliver(payload, scope), port


@pytest.mark.parametrize("event", ["send_push", "SEND_PUSH", " Send_Push "])
@pytest.mark.spec("P050")
def test_send_push_sends_the_campaign_it_names_with_its_fields_as_merge_tags(event: str) -> None:
    sent = track(event, assetId=" summer-26 ", discount=20)
    asked = trigger(sent)
    assert (asked.code, asked.notice, asked.identified) == ("summer-26", None, True)
    assert asked.message == sent
    assert asked.id == "summer-26-m1"
    assert trigger(track(event, assetId=17)).code == "17"


@pytest.mark.parametrize(
    "given", [{}, {"assetId": ""}, {"assetId": " "}, {"assetId": ["a"]}, {"assetId": None}]
)
@pytest.mark.spec("P050")
def test_send_push_without_a_campaign_is_rejected(given: dict[str, Any]) -> None:
    found = fcm().prepare(track("send_push", **given))
    assert isinstance(found, Rejected)
    assert "assetId" in found.reason
    assert isinstance(fcm().prepare(msgspec.structs.replace(track("send_push"), properties=[1])), Rejected)


@pytest.mark.parametrize("event", ["send_push", "Order Shipped", "Signed Up"])
@pytest.mark.spec("D13")
def test_a_client_source_sends_nothing(event: str) -> None:
    sent = msgspec.structs.replace(track(event, assetId="c", order_id=1), trust="client")
    found = fcm().prepare(sent)
    assert isinstance(found, Skipped)
    assert found.reason == "untrusted"
    assert fcm().prepare(msgspec.structs.replace(sent, properties=None)) == found


@pytest.mark.spec("P006", "P050")
def test_send_push_reaches_only_people_who_have_signed_in() -> None:
    for sent in (
        track("send_push", user_id="d1", assetId="c", deviceId="d1"),
        msgspec.structs.replace(track("send_push", assetId="c"), context={"device": {"id": "u1"}}),
    ):
        found = fcm().prepare(sent)
        assert isinstance(found, Skipped)
        assert found.reason == "provisional"
    nobody = fcm().prepare(track("send_push", user_id=None, assetId="c"))
    assert isinstance(nobody, Skipped)
    assert nobody.reason == "anonymous"
    assert trigger(track("send_push", assetId="c", deviceId="d1")).identified


@pytest.mark.parametrize("event", ["order shipped", "ORDER SHIPPED", " Order Shipped "])
@pytest.mark.spec("P050")
def test_events_have_notices_of_their_own_whatever_their_case(event: str) -> None:
    asked = trigger(track(event, order_id=5))
    assert asked.notice is not None
    assert (asked.code, asked.identified) == ("Order Shipped", False)
    assert asked.id == "Order Shipped-m1"
    assert asked.notice.fill(asked.message).title == "On its way, you"
    assert trigger(track("signed up")).code == "welcome"
    assert trigger(track("signed up")).notice is None


def test_everything_else_is_skipped() -> None:
    for sent in (
        message("identify"),
        track("Other"),
        track(5),
        track(""),
        message("page", name="Order Shipped"),
    ):
        found = fcm().prepare(sent)
        assert isinstance(found, Skipped)
        assert found.reason == "unsupported"
    off = fcm(send_push=False).prepare(track("send_push", assetId="c"))
    assert isinstance(off, Skipped)
    assert (
        trigger(track("send_push", assetId="c"), send_push=False, events={"send_push": "mine"}).code == "mine"
    )


@pytest.mark.spec("P051")
def test_a_preview_shows_each_platform_its_request_and_size() -> None:
    payload = fcm().prepare(track(order_id=5))
    assert isinstance(payload, Payload)
    assert [call.url for call in payload.requests] == [URL] * 3
    assert [call.when.split(",")[0] for call in payload.requests] == ["ios", "android", "web"]
    android = payload.requests[1]
    assert android.when == "android, 114 of 4,096 bytes"
    found = android.json["message"]
    tag = found["android"]["notification"].pop("tag")
    assert len(tag) == 64
    assert android.json == {
        "message": {
            "token": "<each device of u1>",
            "notification": {"title": "On its way, {traits.first_name}", "body": "Order 5"},
            "android": {"ttl": "3600s", "notification": {}},
            "fcm_options": {"analytics_label": "Order-Shipped"},
        }
    }
    assert payload.reports == ("{traits.first_name} is filled in when it is sent",)


@pytest.mark.spec("P050")
def test_a_preview_of_a_campaign_names_it_and_its_merge_tags() -> None:
    payload = fcm().prepare(track("send_push", assetId="c1", discount=20))
    assert isinstance(payload, Payload)
    (call,) = payload.requests
    assert call.json == {
        "message": {
            "token": "<each device of u1>",
            "campaign": "c1",
            "merge_tags": {"assetId": "c1", "discount": 20},
        }
    }


@pytest.mark.parametrize(
    ("order_id", "why"),
    [
        (None, "there is no properties.order_id"),
        ("x" * 9_000, "body: has"),
        ({"a": 1}, None),
        ("é" * 2100, "FCM"),
    ],
)
@pytest.mark.spec("P051")
def test_what_fcm_would_refuse_becomes_a_dead_letter_before_it_is_sent(
    order_id: Any, why: str | None
) -> None:
    events = {"Order Shipped": {"body": "Order {properties.order_id}"}}
    found = fcm(events=events).prepare(track(order_id=order_id))
    assert isinstance(found, Payload if why is None else Rejected)
    assert why is None or (isinstance(found, Rejected) and why in found.reason)


@pytest.mark.spec("P051")
def test_what_only_one_platform_would_refuse_is_reported() -> None:
    events = {"Order Shipped": {"title": "Hi", "data": {"a": "{properties.a}"}}}
    payload = fcm(events=events).prepare(track(a='"' * 2500))  # what Apple gets is JSON, twice as long
    assert isinstance(payload, Payload)
    (report,) = payload.reports
    assert report.startswith("ios: message has 5,")


@pytest.mark.spec("P055")
async def test_the_port_is_asked_once_and_its_word_is_the_outcome() -> None:
    said = Delivered(200, ("device d2: UNREGISTERED",))
    found, port = await delivered(said)
    assert found is said
    ((key, person, asked),) = port.asked
    assert (key, person, asked.code) == ("Order Shipped-m1", "u1", "Order Shipped")


@pytest.mark.parametrize(
    "outcome",
    [Skipped("no_devices"), Retry("later", 60.0), Rejected("wrong", 400), Paused("no role", 403)],
    ids=lambda outcome: type(outcome).__name__,
)
async def test_what_the_port_could_not_do_is_undelivered(outcome: Outcome) -> None:
    with pytest.raises(Undelivered) as raised:
        await delivered(outcome)
    assert raised.value.outcome is outcome


# The check.


def body(code: int, text: str, status: str, error_code: str = "") -> Reply:
    detail = {"@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError", "errorCode": error_code}
    error = {"code": code, "message": text, "status": status, "details": [detail] if error_code else []}
    return Reply(code, body=json.dumps({"error": error}).encode())


UNUSED = body(
    403, "Firebase Cloud Messaging API has not been used in project 1 or it is disabled.", "PERMISSION_DENIED"
)
FORBIDDEN = body(403, "Permission 'cloudmessaging.messages.create' denied on resource", "PERMISSION_DENIED")


async def checked(*rules: Rule, **settings: Any) -> tuple[list[Check], FakeTransport]:
    network, clock = FakeTransport(*rules), FakeClock()
    scope = Scope(Http(network, clock), clock, FakeMemory(clock))
    return list(await fcm(**settings).check(scope)), network


@pytest.mark.parametrize(
    "answer",
    [
        body(
            400,
            "The registration token is not a valid FCM registration token",
            "INVALID_ARGUMENT",
            "INVALID_ARGUMENT",
        ),
        body(404, "Requested entity was not found.", "NOT_FOUND", "UNREGISTERED"),
        body(403, "SenderId mismatch", "PERMISSION_DENIED", "SENDER_ID_MISMATCH"),
        Reply(200, body=b'{"name": "projects/demo-p/messages/fake"}'),
    ],
    ids=["invalid", "unregistered", "mismatch", "accepted"],
)
@pytest.mark.spec("P003")
async def test_a_key_works_when_fcm_gets_as_far_as_the_address(answer: Reply) -> None:
    lines, network = await checked(TOKEN, ("POST", URL, answer))
    assert [line.ok for line in lines] == [True, True]
    assert lines[0].detail == "signed in as reader@demo-p.example.com"
    assert lines[1].name == "Firebase Cloud Messaging: project demo-p"
    assert lines[1].capability == "send"
    asked = json.loads(network.requests[-1].body)
    assert asked["validate_only"] is True
    assert "notification" not in asked["message"]


@pytest.mark.parametrize(
    ("answer", "advice"),
    [
        (UNUSED, "Enable the Firebase Cloud Messaging API"),
        (FORBIDDEN, "roles/firebasecloudmessaging.admin"),
        (body(404, "Requested entity was not found.", "NOT_FOUND"), "There is no project 'demo-p'"),
        (body(401, "Request had invalid credentials.", "UNAUTHENTICATED"), "create a new one"),
        (body(400, "Invalid JSON payload received.", "INVALID_ARGUMENT"), "400: Invalid JSON"),
        (Reply(403, body=b"<html>"), "roles/firebasecloudmessaging.admin"),
        (Reply(404, body=b""), "There is no project"),
    ],
    ids=["disabled", "role", "project", "key", "json", "html", "empty"],
)
@pytest.mark.spec("P003")
async def test_what_is_missing_is_named(answer: Reply, advice: str) -> None:
    (signed_in, line), _ = await checked(TOKEN, ("POST", URL, answer))
    assert signed_in.ok
    assert not line.ok
    assert line.reached
    assert line.capability == "send"
    assert advice in line.detail


@pytest.mark.spec("P003", "D08")
async def test_a_refused_sign_in_asks_fcm_nothing_and_tells_no_secret() -> None:
    refused = Reply(400, body=b'{"error": "invalid_grant", "error_description": "Invalid JWT Signature."}')
    (line,), network = await checked(("POST", "*/token", refused))
    assert not line.ok
    assert "revoked" in line.detail
    assert len(network.requests) == 1
    echo = body(403, "Bearer ya29.secret-token", "PERMISSION_DENIED")
    lines, _ = await checked(TOKEN, ("POST", URL, echo))
    assert "ya29" not in repr(lines)


async def test_an_outage_says_nothing_about_the_key() -> None:
    (_, line), _ = await checked(TOKEN, ("POST", URL, TransportError("reset", sent=True)))
    assert (line.ok, line.reached) == (False, False)


@pytest.mark.spec("P003", "P060")
async def test_the_simulator_lets_the_check_pass_and_delivers_nothing() -> None:
    simulator, clock = FcmSimulator(clock=FakeClock()), FakeClock()
    url = "http://127.0.0.1:9"
    made = fcm(service_account=simulator.account(url), fcm_url=url, project=simulator.project)
    simulator.tokens.audiences.add(json.loads(simulator.account(url))["token_uri"])
    scope = Scope(Http(InProcess(simulator), clock), clock, FakeMemory(clock))  # type: ignore[arg-type]
    lines = await made.check(scope)
    assert [line.ok for line in lines] == [True, True], lines
    assert simulator.state.accepted == []
    wrong = fcm(service_account=simulator.account(url), fcm_url=url, project="another-project")
    assert [line.ok for line in await wrong.check(scope)] == [True, False]


# The settings.


@pytest.mark.spec("P003")
def test_an_account_knows_its_project_and_its_pace() -> None:
    account = FcmAccount.model_validate({"service_account": ACCOUNT})
    assert (account.project_id, account.rate_per_s) == ("demo-p", 9000.0)
    made = {"service_account": ACCOUNT, "project": "other", "rate": 600, "headroom": "50%"}
    account = FcmAccount.model_validate({**made, "base_url": "http://127.0.0.1:8080/"})
    assert (account.project_id, account.rate_per_s) == ("other", 5.0)
    assert account.fcm_url == "http://127.0.0.1:8080"
    assert json.loads(ACCOUNT)["private_key"] not in repr(account)


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"service_account": "{}"}, "service_account"),
        ({"service_account": "not json"}, "not JSON"),
        ({"service_account": json.dumps({**json.loads(ACCOUNT), "project_id": ""})}, "names no project_id"),
        ({"fcm_url": "http://fcm.example.com"}, "https"),
        ({"rate": 0}, "greater than 0"),
        ({"headroom": "100%"}, "less than 1"),
        ({"events": {"A": {"title": "x"}, " a ": "c"}}, "'a' is there twice"),
        ({"events": {" ": "c"}}, "needs a name"),
        ({"events": {"A": " "}}, "code of a campaign"),
        ({"events": {"A": {"title": "x", "body": "y" * 4090}}}, "4,096"),
        ({"events": {"A": {"title": "{first_name}"}}}, "traits.first_name"),
        ({"events": {"Send_Push": "c"}}, "send_push: false"),
    ],
)
def test_settings_that_cannot_work_are_refused(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        FcmSettings.model_validate({**SETTINGS, **wrong})
