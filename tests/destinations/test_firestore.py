"""Firestore: an unsubscribe is written back to the person's document, and nothing else is made or sent."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from pydantic import ValidationError

from towpath.destination import Payload, Scope
from towpath.destinations.firestore import Firestore, FirestoreSettings
from towpath.http import Http, Reply, Undelivered
from towpath.message import Message
from towpath.outcome import Rejected, Retry, Skipped
from towpath.testing import DestinationContract
from towpath.testing.fakes import FakeClock, FakeMemory, FakeTransport

SETTINGS = {"project": "demo-p", "collection": "users", "emulator": True}


def unsubscribed(user_id: str | None = "u1", event: Any = "Unsubscribed") -> Message:
    return Message(
        type="track",
        message_id="m1",
        user_id=user_id,
        event=event,
        timestamp="2026-01-02T03:04:05.678Z",
        trust="server",
    )


class TestFirestore(DestinationContract):
    """Statuses, Retry-After, strange answers, stops, cancellation, redirects, secrets."""

    destination = Firestore
    settings = SETTINGS
    samples = (unsubscribed(), unsubscribed("u 2"), unsubscribed(event="Clicked"), Message(type="identify"))


def prepared(message: Message, **settings: Any) -> Payload | Skipped | Rejected:
    return Firestore(FirestoreSettings.model_validate({**SETTINGS, **settings})).prepare(message)


@pytest.mark.spec("F058", "P5")
async def test_a_proxys_page_delivers_nothing() -> None:
    clock = FakeClock()
    http = Http(FakeTransport(("*", "*", Reply(200, body=b"<html>Sign in</html>"))), clock)
    payload = prepared(unsubscribed())
    assert isinstance(payload, Payload)
    destination = Firestore(FirestoreSettings.model_validate(SETTINGS))
    with pytest.raises(Undelivered) as raised:
        await destination.deliver(payload, Scope(http, clock, FakeMemory(clock)))
    assert isinstance(raised.value.outcome, Retry)


@pytest.mark.spec("F058", "D11")
def test_an_unsubscribe_becomes_a_patch_of_a_document_that_exists() -> None:
    payload = prepared(unsubscribed("ü/1".replace("/", " ")))
    assert isinstance(payload, Payload)
    (call,) = payload.requests
    assert call.method == "PATCH"
    assert call.url == (
        "https://firestore.googleapis.com/v1/projects/demo-p/databases/%28default%29/documents/users/%C3%BC%201"
        "?updateMask.fieldPaths=attributes.unsubscribed&currentDocument.exists=true"
    )
    assert call.json == {
        "fields": {"attributes": {"mapValue": {"fields": {"unsubscribed": {"booleanValue": True}}}}}
    }


@pytest.mark.spec("F058")
def test_the_values_of_a_rule_are_typed() -> None:
    fields = {"a.b": None, "a.c": 3, "d": 0.5, "e": "x", "f.g.at": "$time"}
    payload = prepared(unsubscribed(), writes=[{"event": "Unsubscribed", "set": fields}])
    assert isinstance(payload, Payload)
    inner = {"b": {"nullValue": None}, "c": {"integerValue": "3"}}
    at = {"at": {"timestampValue": "2026-01-02T03:04:05.678Z"}}
    assert payload.requests[0].json["fields"] == {
        "a": {"mapValue": {"fields": inner}},
        "d": {"doubleValue": 0.5},
        "e": {"stringValue": "x"},
        "f": {"mapValue": {"fields": {"g": {"mapValue": {"fields": at}}}}},
    }


@pytest.mark.spec("F058")
def test_what_writes_nothing_or_names_no_document_is_skipped() -> None:
    for message in (unsubscribed(event="Subscribed"), Message(type="identify", user_id="u1")):
        assert isinstance(prepared(message), Skipped)
    for user_id in (None, "a/b", "ada@example.com", ".", "..", "__x__"):
        found = prepared(unsubscribed(user_id))
        assert isinstance(found, Skipped)
        assert found.reason == "no_document"


@pytest.mark.spec("D13", "F058")
def test_a_client_source_writes_nothing() -> None:
    found = prepared(msgspec.structs.replace(unsubscribed(), trust="client"))
    assert isinstance(found, Skipped)
    assert found.reason == "untrusted"


@pytest.mark.spec("F020", "F058")
async def test_a_document_that_is_gone_stays_gone() -> None:
    contract = TestFirestore()
    (payload,) = contract.payloads([unsubscribed()])
    outcome, _, network = await contract.deliver(payload, ("PATCH", "*", Reply(404, body=b"{}")))
    assert isinstance(outcome, Skipped)
    assert outcome.reason == "no_document"
    assert [request.method for request in network.requests] == ["PATCH"]


@pytest.mark.parametrize(
    "wrong",
    [
        {"collection": "users/{id}"},
        {"collection": "a/b"},
        {"writes": []},
        {"writes": [{"event": "X", "set": {"a..b": 1}}]},
        {"writes": [{"event": "X", "set": {"a.b": 1, "a": 2}}]},
        {"writes": [{"event": "X", "set": {"a": 1}}, {"event": "X", "set": {"b": 2}}]},
        {"firestore_url": "http://firestore.example.com"},
        {"service_account": "{}"},
    ],
)
def test_settings_that_cannot_work_are_refused(wrong: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        FirestoreSettings.model_validate({**SETTINGS, **wrong})
