"""The webhook destination: the contract, the shape, the signature."""

from __future__ import annotations

import base64
from typing import Any, ClassVar

import msgspec
import pytest
from pydantic import ValidationError
from standardwebhooks.webhooks import Webhook as Verifier

from towpath.destination import Payload, Scope
from towpath.destinations.webhook import Webhook
from towpath.http import Http, Reply, Request, Undelivered
from towpath.message import KINDS, Envelope, Message, Record, read
from towpath.outcome import Paused
from towpath.testing import DestinationContract, FakeClock, FakeMemory, FakeTransport
from towpath.testing.samples import AWKWARD_ID, message

SECRET = "whsec_" + base64.b64encode(b"a signing secret of 28 bytes").decode()
SETTINGS: dict[str, Any] = {
    "url": "https://example.com/hooks",
    "secret": SECRET,
    "headers": {"Authorization": "Bearer receiver-token"},
}


@pytest.mark.spec("D02", "D03", "D08", "D11")
class TestWebhookContract(DestinationContract):
    destination = Webhook
    settings: ClassVar[dict[str, Any]] = SETTINGS


def make(**settings: Any) -> Webhook:
    return Webhook(Webhook.Settings.model_validate({**SETTINGS, **settings}))


def scope(network: FakeTransport, destination: Webhook) -> Scope:
    clock = FakeClock()
    return Scope(Http(network, clock, headers=destination.headers()), clock, FakeMemory(clock))


async def post(sent: Message, answer: Reply = Reply(200)) -> Request:  # noqa: B008
    network = FakeTransport(("POST", "https://example.com/hooks", answer))
    destination = make()
    payload = destination.prepare(sent)
    assert isinstance(payload, Payload)
    await destination.deliver(payload, scope(network, destination))
    [request] = network.requests
    return request


def verify(request: Request, monkeypatch: pytest.MonkeyPatch) -> Any:
    """As a receiver does, at the moment of sending."""
    moment = FakeClock().now()
    import datetime as dates

    class Now(dates.datetime):
        @classmethod
        def now(cls, tz: dates.tzinfo | None = None) -> Now:
            return cls.fromtimestamp(moment, tz)

    monkeypatch.setattr("standardwebhooks.webhooks.datetime", Now)
    return Verifier(SECRET).verify(request.body, dict(request.headers))


@pytest.mark.spec("D07")
async def test_a_receiver_can_verify_the_signature(monkeypatch: pytest.MonkeyPatch) -> None:
    request = await post(message("track", event="Signed Up", message_id="m-1"))
    assert verify(request, monkeypatch)["event"] == "Signed Up"
    assert request.headers["webhook-id"] == "m-1"
    assert request.headers["content-type"] == "application/json"
    assert request.headers["authorization"] == "Bearer receiver-token"


async def test_a_changed_body_does_not_verify(monkeypatch: pytest.MonkeyPatch) -> None:
    request = await post(message("track", event="Signed Up"))
    forged = msgspec.structs.replace(request, body=request.body.replace(b"Signed", b"Singed"))
    with pytest.raises(Exception, match="No matching signature"):
        verify(forged, monkeypatch)


@pytest.mark.parametrize("identifier", ["a\r\nx-injected: 1", "naïve id", AWKWARD_ID, "💡", "100%"])
async def test_any_message_id_makes_a_valid_header(identifier: str, monkeypatch: pytest.MonkeyPatch) -> None:
    request = await post(message("track", event="E", message_id=identifier))
    assert request.headers["webhook-id"].isascii()
    assert "\n" not in request.headers["webhook-id"]
    assert verify(request, monkeypatch)["messageId"] == identifier


async def test_every_kind_is_posted_in_the_shape_of_the_spec() -> None:
    for kind in KINDS:
        assert msgspec.json.decode((await post(message(kind))).body)["type"] == kind


async def test_the_body_is_the_message_by_its_spec_names() -> None:
    raw = b"""{"type":"track","event":"Signed Up","userId":"u1","properties":{"plan":"pro"},
        "context":{"ip":"203.0.113.7"},"integrations":{"All":true},
        "originalTimestamp":"2026-01-01T10:00:00Z","sentAt":"2026-01-01T10:00:30Z"}"""
    sent = read(Record(1, "m-1", Envelope("web", 1_767_261_630.0), raw))
    assert msgspec.json.decode((await post(sent)).body) == {
        "type": "track",
        "messageId": "m-1",
        "userId": "u1",
        "event": "Signed Up",
        "properties": {"plan": "pro"},
        "traits": {},
        "context": {"ip": "203.0.113.7"},
        "integrations": {"All": True},
        "originalTimestamp": "2026-01-01T10:00:00Z",
        "sentAt": "2026-01-01T10:00:30Z",
        "timestamp": "2026-01-01T10:00:00.000Z",
        "receivedAt": "2026-01-01T10:00:30.000Z",
    }


@pytest.mark.spec("D03")
async def test_a_gone_endpoint_pauses() -> None:
    with pytest.raises(Undelivered) as raised:
        await post(message("track", event="E"), Reply(410))
    assert raised.value.outcome == Paused("endpoint gone (410)", 410)
    assert raised.value.exchange is not None


@pytest.mark.spec("D03")
async def test_check_posts_a_signed_ping_that_is_no_message(monkeypatch: pytest.MonkeyPatch) -> None:
    network = FakeTransport(("POST", "*", Reply(204)))
    destination = make()
    [line] = await destination.check(scope(network, destination))
    [request] = network.requests
    assert line.ok
    assert verify(request, monkeypatch)["type"] == "towpath.check"


@pytest.mark.spec("D03")
@pytest.mark.parametrize(
    ("status", "ok"), [(200, True), (400, True), (422, True), (404, False), (410, False)]
)
async def test_check_tells_a_refused_ping_from_a_refused_signature(status: int, *, ok: bool) -> None:
    destination = make()
    [line] = await destination.check(scope(FakeTransport(("*", "*", Reply(status))), destination))
    assert line.ok is ok


@pytest.mark.spec("D08")
@pytest.mark.parametrize("secret", ["top-secret-value", "whsec_dG9vIHNob3J0", "whsec_not base64 at all"])
def test_a_bad_secret_is_refused_without_being_shown(secret: str) -> None:
    with pytest.raises(ValidationError) as raised:
        make(secret=secret)
    assert secret not in str(raised.value)


@pytest.mark.parametrize(
    "url", ["ftp://example.com", "https://user:pw@example.com/", "example.com", "https://"]
)
def test_a_url_that_cannot_be_called_is_refused(url: str) -> None:
    with pytest.raises(ValidationError):
        make(url=url)


def test_private_addresses_need_a_setting() -> None:
    assert not make().allow_private()
    assert make(allow_private=True).allow_private()
