"""The Pipelines API as the way to write: the same meaning, in Segment's shape, always in strict mode."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import structs

from towpath.destinations._customerio_values import event_id, occurred_s
from towpath.http import Undelivered
from towpath.message import Message
from towpath.outcome import Delivered, Rejected, Skipped
from towpath.sandbox.customerio import DEFAULT

from .customerio_world import CDP, World, answer, identify, json_of, message, prepared, track
from .test_customerio_conflicts import Workspace
from .test_customerio_items import PHONE, group

SETTINGS: dict[str, Any] = {"api": "pipelines", "pipelines_write_key": "write-secret"}
AT = "2026-01-01T10:00:00.000Z"


def call_of(given: Message) -> Any:
    """The one call that a message becomes."""
    (call,) = prepared(World(**SETTINGS).destination, given).requests
    return call.json


@pytest.mark.spec("C086", "C111", "C120")
async def test_calls_go_to_the_batch_in_strict_mode() -> None:
    world = World(**SETTINGS)
    given = [track(userId="u1", message_id="m-1"), identify({"plan": "gold"}, userId="u2", message_id="m-2")]
    assert list(await world.deliver_batch(given)) == [Delivered(200)] * 2
    (request,) = world.sent
    assert request.url == f"{CDP}/v1/batch"
    assert request.headers["x-strict-mode"] == "1"
    assert request.headers["authorization"] == "Basic d3JpdGUtc2VjcmV0Og=="
    calls = json_of(request)["batch"]
    assert [call["type"] for call in calls] == ["track", "identify"]
    assert [call["messageId"] for call in calls] == [event_id(each, occurred_s(each)) for each in given]
    await world.deliver(track())
    assert world.urls[-1] == f"{CDP}/v1/batch"


@pytest.mark.spec("C121")
@pytest.mark.parametrize(
    ("given", "expected"),
    [
        (
            track({"a": 1}),
            {"type": "track", "userId": "u1", "event": "Order Completed", "properties": {"a": 1}},
        ),
        (
            identify({"createdAt": 1577934245000, "email": "a@b.c"}, anonymousId="an"),
            {
                "type": "identify",
                "userId": "u1",
                "anonymousId": "an",
                "traits": {"email": "a@b.c", "createdAt": "2020-01-02T03:04:05.000Z"},
            },
        ),
        (identify({}, userId="cio_a3"), {"type": "identify", "userId": "cio_a3", "traits": {}}),
        (
            message({"type": "page", "userId": "a@b.c", "properties": {"url": "http://x"}}),
            {"type": "page", "userId": "a@b.c", "name": "http://x", "properties": {"url": "http://x"}},
        ),
        (
            message({"type": "screen", "anonymousId": "an", "name": "Main"}),
            {"type": "screen", "anonymousId": "an", "name": "Main", "properties": {}},
        ),
        (
            message({"type": "track", "anonymousId": "an", "event": "E", "properties": {"a": 1}}),
            {"type": "track", "anonymousId": "an", "event": "E", "properties": {"a": 1}},
        ),
        (
            group({"name": "Acme", "objectTypeId": 2, "relationshipAttributes": {"role": "admin"}}),
            {
                "type": "group",
                "userId": "u1",
                "groupId": "acme",
                "traits": {"name": "Acme", "objectTypeId": "2", "relationshipAttributes": {"role": "admin"}},
            },
        ),
        (
            message({"type": "group", "anonymousId": "an", "groupId": "acme"}),
            {"type": "group", "anonymousId": "an", "groupId": "acme", "traits": {"objectTypeId": "1"}},
        ),
        (
            message({"type": "group", "groupId": "acme"}),
            {"type": "group", "anonymousId": "m-1", "groupId": "acme", "traits": {"objectTypeId": "1"}},
        ),
        (
            message({"type": "delete", "userId": "u1"}),
            {"type": "track", "userId": "u1", "event": "User Deleted", "properties": {}},
        ),
        (
            track(event="User Suppressed"),
            {"type": "track", "userId": "u1", "event": "User Suppressed", "properties": {}},
        ),
        (
            group({"action": "delete_relationships"}),
            {
                "type": "track",
                "userId": "u1",
                "event": "Relationship Deleted",
                "properties": {"objectId": "acme", "objectTypeId": "1"},
            },
        ),
        (
            group({"action": "delete"}),
            {
                "type": "track",
                "userId": "u1",
                "event": "Object Deleted",
                "properties": {"objectId": "acme", "objectTypeId": "1"},
            },
        ),
        (
            track(
                {"deliveryId": "d1", "metric": "opened", "actionName": "go"}, event="Report Delivery Event"
            ),
            {
                "type": "track",
                "userId": "u1",
                "event": "Report Delivery Event",
                "properties": {"deliveryId": "d1", "metric": "opened", "actionName": "go"},
            },
        ),
    ],
)
def test_each_kind(given: Message, expected: dict[str, Any]) -> None:
    assert call_of(given) == {**expected, "messageId": event_id(given, occurred_s(given)), "timestamp": AT}


@pytest.mark.spec("D07", "C086")
def test_two_sources_with_one_message_id_are_told_apart() -> None:
    given = track()
    web, app = [call_of(structs.replace(given, source=source)) for source in ("web", "app")]
    assert web["messageId"] == call_of(given)["messageId"]
    assert web["messageId"] != app["messageId"]


@pytest.mark.spec("C121")
def test_devices_travel_in_the_context() -> None:
    call = call_of(track({"app": "1.0"}, event="Application Installed", context={**PHONE, "locale": "de"}))
    assert call["event"] == "Device Created or Updated"
    assert call["context"] == {"device": {"token": "tok", "type": "ios"}, "locale": "de"}
    assert call["properties"] == {"app": "1.0"}
    call = call_of(track(event="Application Uninstalled", context=PHONE))
    assert call["event"] == "Device Deleted"
    assert call["context"] == {"device": {"token": "tok"}}


@pytest.mark.spec("C121")
async def test_an_alias_is_a_call_of_its_own() -> None:
    world = World(**SETTINGS)
    alias = message({"type": "alias", "userId": "u1", "previousId": "old"})
    assert (
        list(await world.deliver_batch([alias, track(userId="u9"), track(userId="u8")]))
        == [Delivered(200)] * 3
    )
    assert world.urls == [f"{CDP}/v1/batch", f"{CDP}/v1/alias"]
    assert json_of(world.sent[1]) == {
        "type": "alias",
        "userId": "u1",
        "previousId": "old",
        "messageId": event_id(alias, occurred_s(alias)),
        "timestamp": AT,
    }


@pytest.mark.spec("D13")
def test_the_second_call_of_a_clients_identify_has_its_own_message_id() -> None:
    given = identify({"email": "a@b.c"}, trust="client")
    payload, known_as = prepared(World(**SETTINGS).destination, given), event_id(given, occurred_s(given))
    assert [call.json["messageId"] for call in payload.requests] == [known_as, f"{known_as}-1"]
    assert [call.json["traits"] for call in payload.requests] == [{}, {"email": "a@b.c"}]


@pytest.mark.spec("C088", "C120")
def test_a_call_that_is_too_big_with_its_context_is_rejected() -> None:
    verdict = World(**SETTINGS).destination.prepare(track(context={"text": "x" * 32_000}))
    assert isinstance(verdict, Rejected)
    assert "32000" in verdict.reason


@pytest.mark.spec("D21")
def test_an_anonymous_identify_is_skipped_here_too() -> None:
    verdict = World(**SETTINGS).destination.prepare(message({"type": "identify", "anonymousId": "an"}))
    assert isinstance(verdict, Skipped)


@pytest.mark.spec("C120", "D03")
async def test_a_refused_batch_is_the_loops_to_halve() -> None:
    world = World(("POST", "/v1/batch", answer(400, {"code": "invalid", "message": "no"})), **SETTINGS)
    with pytest.raises(Undelivered) as raised:
        await world.deliver_batch([track(userId="u1"), track(userId="u2")])
    assert isinstance(raised.value.outcome, Rejected)
    assert raised.value.outcome.code == 400


def test_identifies_are_not_merged() -> None:
    destination = World(**SETTINGS).destination
    assert destination.merge(prepared(destination, identify({})), prepared(destination, identify({}))) is None


@pytest.mark.spec("C086", "C121")
async def test_the_simulated_pipelines_take_every_kind() -> None:
    workspace = Workspace({**SETTINGS, "pipelines_write_key": DEFAULT.write_key})
    given = [
        identify({"email": "a@b.c", "createdAt": "2020-01-02"}, message_id="m-1"),
        track({"a": 1}, message_id="m-2"),
        message({"type": "page", "userId": "u1", "name": "Home"}, message_id="m-3"),
        group({"name": "Acme"}),
        track(event="Device Created or Updated", context=PHONE, message_id="m-5"),
    ]
    for each in given:
        assert await workspace.deliver(each) == Delivered(200), each
    person = workspace.person(id="u1")
    assert person["email"] == "a@b.c"
    assert [event.name for event in workspace.simulator.events(id="u1")] == ["Order Completed", "Home"]
    assert await workspace.deliver(message({"type": "delete", "userId": "u1"})) == Delivered(200)
    assert workspace.simulator.person(id="u1") is None
