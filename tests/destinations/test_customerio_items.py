"""What each message becomes: v2 items, v1 calls where v2 has none, limits, and what is left out."""

from __future__ import annotations

from typing import Any

import pytest

from towpath.destination import Payload
from towpath.destinations._customerio_values import event_id
from towpath.message import Message
from towpath.outcome import Rejected, Skipped
from towpath.sandbox.customerio_state import is_ulid

from .customerio_world import (
    ENTITY,
    EVENTS,
    RECEIVED,
    TRACK,
    customerio,
    identify,
    item_of,
    message,
    prepared,
    reports_of,
    track,
)

AT = int(RECEIVED)


def verdict(given: Message, **settings: Any) -> Payload | Skipped | Rejected:
    return customerio(**settings).prepare(given)


def refusal(given: Message, **settings: Any) -> str:
    answer = verdict(given, **settings)
    assert isinstance(answer, Rejected), answer
    return answer.reason


def skipped(given: Message, **settings: Any) -> str:
    answer = verdict(given, **settings)
    assert isinstance(answer, Skipped), answer
    return answer.reason


# Who.


@pytest.mark.spec("C122")
@pytest.mark.parametrize(
    ("user", "identifiers"),
    [
        ("u1", {"id": "u1"}),
        (42, {"id": "42"}),
        ("a@b.c", {"email": "a@b.c"}),
        ("cio_a3000001", {"cio_id": "a3000001"}),
        ("cio_", {"id": "cio_"}),
        ("+4915112345678", {"id": "+4915112345678"}),
    ],
)
def test_a_user_id_is_one_identifier_by_its_shape(user: Any, identifiers: dict[str, str]) -> None:
    assert item_of(identify({}, userId=user))["identifiers"] == identifiers
    assert item_of(track(userId=user))["identifiers"] == identifiers


@pytest.mark.spec("C122")
def test_without_a_user_id_the_email_names_the_person() -> None:
    given = {"type": "identify", "anonymousId": "an", "traits": {"email": "a@b.c", "plan": "gold"}}
    item = item_of(message(given))
    assert item["identifiers"] == {"email": "a@b.c"}
    assert item["attributes"] == {"plan": "gold", "anonymous_id": "an"}
    tracked = {"type": "track", "event": "E", "anonymousId": "an", "context": {"traits": {"email": "a@b.c"}}}
    assert item_of(message(tracked))["identifiers"] == {"email": "a@b.c"}


@pytest.mark.spec("C122")
def test_an_email_among_the_properties_names_nobody() -> None:
    given = {"type": "track", "event": "Invited", "anonymousId": "an", "properties": {"email": "b@b.c"}}
    assert prepared(customerio(), message(given)).requests[0].url == EVENTS


@pytest.mark.spec("C091", "C122", "D21")
def test_an_anonymous_identify_is_sent_only_when_asked_for() -> None:
    given = message({"type": "identify", "anonymousId": "an", "traits": {"plan": "free"}})
    assert skipped(given) == "anonymous"
    item = item_of(given, anonymous="send")
    assert item["identifiers"] == {"id": "an"}
    assert item["attributes"] == {"plan": "free", "anonymous_id": "an"}


@pytest.mark.spec("C122")
def test_an_identify_of_a_visitor_who_signs_in_joins_what_was_anonymous() -> None:
    assert item_of(identify({}, anonymousId="an"))["attributes"] == {"anonymous_id": "an"}


@pytest.mark.parametrize("kind", ["identify", "track", "page", "screen"])
def test_nobody_at_all_is_rejected(kind: str) -> None:
    assert "userId" in refusal(message({"type": kind, "event": "E", "name": "N"}))


# Times and ids.


@pytest.mark.spec("C120", "C121")
def test_times_are_whole_unix_seconds_and_always_sent() -> None:
    given: dict[str, Any] = {"timestamp": "2024-01-01T00:00:00.900Z"}
    assert item_of(identify({}, **given))["timestamp"] == 1704067200
    assert item_of(track(**given))["timestamp"] == 1704067200
    assert item_of(identify({}))["timestamp"] == item_of(track())["timestamp"] == AT
    assert item_of(identify({}, timestamp="1969-12-31T23:59:59.500Z"))["timestamp"] == -1


@pytest.mark.spec("C120")
def test_the_dedup_id_is_a_ulid_of_source_and_message_id_at_the_time_it_happened() -> None:
    at = "2024-01-01T00:00:00.900Z"
    first = item_of(track(timestamp=at, message_id="m-1"))["id"]
    assert is_ulid(first)
    assert first == item_of(track(timestamp=at, message_id="m-1"))["id"]
    assert first != item_of(track(timestamp=at, message_id="m-2"))["id"]
    digits = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"
    milliseconds = 0
    for digit in first[:10]:
        milliseconds = milliseconds * 32 + digits.index(digit)
    assert milliseconds == 1704067200900


@pytest.mark.spec("C120")
def test_dedup_ids_at_the_ends_of_time() -> None:
    given = track()
    assert event_id(given, -5.0)[:10] == "0000000000"
    assert is_ulid(event_id(given, 1e15))
    other = message({"type": "track", "userId": "u1", "event": "E"})
    assert event_id(given, 1.0) == event_id(other, 1.0)


@pytest.mark.spec("C121")
@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (1577934245, 1577934245),
        (1577934245000, 1577934245),
        (1577934245.9, 1577934245),
        ("1577934245", 1577934245),
        ("1577934245000", 1577934245),
        ("2020-01-02T03:04:05Z", 1577934245),
        ("2020-01-02", 1577923200),
        (0, 0),
        (-86400, -86400),
    ],
)
@pytest.mark.parametrize("name", ["createdAt", "created_at"])
def test_created_at_in_seconds(name: str, value: Any, seconds: int) -> None:
    assert item_of(identify({name: value}))["attributes"] == {"created_at": seconds}


@pytest.mark.spec("C121")
@pytest.mark.parametrize("value", ["junk", True, [], {}, "9999-99-99", 1e300, 10**400, "9" * 400, 4e14])
def test_an_unreadable_created_at_is_left_out_and_reported(value: Any) -> None:
    given = identify({"createdAt": value, "plan": "gold"})
    assert item_of(given)["attributes"] == {"plan": "gold"}
    assert "createdAt left out" in reports_of(given)


# Attributes.


@pytest.mark.spec("C121")
def test_attributes_travel_as_they_are() -> None:
    traits = {"a.b": 1, "c.d.e": 2, "address": {"city": "X"}, "tags": ["a"], "vip": True, "n": 1.5, "e": ""}
    assert item_of(identify(traits))["attributes"] == traits


@pytest.mark.spec("C121", "F037")
def test_null_removes_an_attribute_as_the_empty_text_does() -> None:
    assert item_of(identify({"plan": None, "city": ""}))["attributes"] == {"plan": "", "city": ""}


@pytest.mark.spec("C121")
def test_traits_of_the_context_fill_in() -> None:
    given = identify({"a": 1}, context={"traits": {"a": 2, "b": 3}})
    assert item_of(given)["attributes"] == {"a": 1, "b": 3}


@pytest.mark.spec("C122", "F039")
@pytest.mark.parametrize("empty", ["", "  ", None, [], True])
@pytest.mark.parametrize("name", ["id", "email"])
def test_an_empty_identifier_never_erases_one(name: str, empty: Any) -> None:
    assert item_of(identify({name: empty, "plan": "gold"}))["attributes"] == {"plan": "gold"}


@pytest.mark.spec("C122")
def test_what_customerio_sets_itself_is_left_out() -> None:
    given = identify({"cio_id": "a3", "_timestamp": 1, "_update": True, "email": "none"})
    assert item_of(given)["attributes"] == {"_update": True}
    assert "cio_id left out" in reports_of(given)
    assert "email left out: it is no e-mail address" in reports_of(given)


@pytest.mark.spec("C122")
def test_another_id_among_the_traits_is_sent_and_doubted() -> None:
    given = identify({"id": "inner"})
    assert item_of(given)["attributes"] == {"id": "inner"}
    assert "keeps the id" in reports_of(given)
    assert item_of(identify({"id": 7}, userId="7"))["attributes"] == {}


@pytest.mark.spec("C121")
def test_relationships_beside_an_identify() -> None:
    related = [{"identifiers": {"object_type_id": "1", "object_id": "acme"}}]
    assert item_of(identify({"cio_relationships": related}))["cio_relationships"] == related
    v1 = {"action": "add_relationships", "relationships": related}
    assert item_of(identify({"cio_relationships": v1}))["cio_relationships"] == related
    gone = identify({"cio_relationships": {"action": "delete_relationships", "relationships": related}})
    assert "cio_relationships" not in item_of(gone)
    assert "cio_relationships left out" in reports_of(gone)


# Limits.


@pytest.mark.spec("C120", "F040")
@pytest.mark.parametrize(
    ("traits", "words"),
    [
        ({f"a{n}": n for n in range(301)}, ["301", "300"]),
        ({"n" * 151: 1}, ["name", "151", "150"]),
        ({"é" * 76: 1}, ["name", "152", "150"]),
        ({"bio": "x" * 1001}, ["'bio'", "1001", "1000"]),
        ({"bio": "é" * 501}, ["'bio'", "1002", "1000"]),
        ({f"a{n}": "x" * 1000 for n in range(40)}, ["bytes as JSON", "32000"]),
    ],
)
def test_too_much_is_rejected_and_named(traits: dict[str, Any], words: list[str]) -> None:
    said = refusal(identify(traits))
    assert all(word in said for word in words), said


@pytest.mark.spec("C120")
def test_what_just_fits_is_sent() -> None:
    traits = {**{f"a{n}": n for n in range(298)}, "n" * 150: 1, "bio": "é" * 500}
    assert item_of(identify(traits))["attributes"] == traits


@pytest.mark.spec("C120", "C121")
def test_names_are_rejected_never_cut() -> None:
    assert "101 bytes" in refusal(track(event="x" * 101))
    assert item_of(track(event=f" {'x' * 100} "))["name"] == "x" * 100
    assert "userId has 151 bytes" in refusal(track(userId="u" * 151))
    assert "bytes as JSON" in refusal(track({"text": "x" * 32_000}))
    for name in ("", "  ", None, 5, {"a": 1}):
        assert "event name" in refusal(track(event=name))
        assert "event name" in refusal(message({"type": "track", "userId": "u1", "event": name}, "client"))
    assert "properties must be an object" in refusal(track([1]))


# Events.


@pytest.mark.spec("C061", "C063", "C121")
def test_an_event_of_a_person() -> None:
    payload = prepared(customerio(), track({"total": 5, "nested": {"a": [1]}}))
    item = payload.requests[0].json
    assert payload.requests[0].url == ENTITY
    assert (item["type"], item["action"], item["name"]) == ("person", "event", "Order Completed")
    assert item["attributes"] == {"total": 5, "nested": {"a": [1]}}
    assert "attributes" not in item_of(track())


@pytest.mark.spec("C062", "C121", "D21")
@pytest.mark.parametrize(("kind", "v1"), [("track", "event"), ("page", "page"), ("screen", "screen")])
def test_events_of_nobody_known_go_as_anonymous_events(kind: str, v1: str) -> None:
    given = {"type": kind, "anonymousId": "an", "event": "Name", "name": "Name", "properties": {"a": 1}}
    (call,) = prepared(customerio(), message(given)).requests
    assert (call.method, call.url) == ("POST", EVENTS)
    body = dict(call.json)
    assert is_ulid(body.pop("id"))
    expected = {"name": "Name", "type": v1, "timestamp": AT, "anonymous_id": "an", "data": {"a": 1}}
    assert body == expected


@pytest.mark.spec("C062", "C120")
def test_limits_of_anonymous_events() -> None:
    given = {"type": "track", "anonymousId": "an", "event": "E", "properties": {"text": "x" * 90_000}}
    assert isinstance(verdict(message(given)), Payload)
    given["properties"] = {"text": "x" * 100_000}
    assert "100000" in refusal(message(given))
    assert "anonymousId has 151" in refusal(message({**given, "properties": {}, "anonymousId": "a" * 151}))


@pytest.mark.spec("C121")
@pytest.mark.parametrize(
    ("fields", "name"),
    [
        ({"name": "Home", "properties": {"url": "http://x"}}, "Home"),
        ({"properties": {"name": "Home", "url": "http://x"}}, "Home"),
        ({"properties": {"url": "http://x/?q=1"}}, "http://x/?q=1"),
        ({"properties": {"url": f"http://x/p?{'q' * 100}"}}, "http://x/p"),
        ({"properties": {"url": f"http://x/{'p' * 100}", "path": "/p", "title": "T"}}, "/p"),
        ({"context": {"page": {"url": "http://x"}}}, "http://x"),
    ],
)
def test_a_page_is_named(fields: dict[str, Any], name: str) -> None:
    item = item_of(message({"type": "page", "userId": "u1", **fields}))
    assert (item["action"], item["name"]) == ("page", name)


@pytest.mark.spec("C121")
def test_pages_and_screens_without_a_name_are_rejected() -> None:
    assert "no name" in refusal(message({"type": "page", "userId": "u1"}))
    assert "page's name" in refusal(message({"type": "page", "userId": "u1", "name": "x" * 101}))
    assert "screen's name" in refusal(message({"type": "screen", "userId": "u1"}))
    long = {"type": "page", "userId": "u1", "properties": {"url": f"http://x/p?{'q' * 100}"}}
    assert "without its query" in reports_of(message(long))


@pytest.mark.spec("C121")
@pytest.mark.parametrize("fields", [{"name": "Main"}, {"event": "Main"}, {"properties": {"name": "Main"}}])
def test_a_screen_is_a_screen(fields: dict[str, Any]) -> None:
    item = item_of(message({"type": "screen", "userId": "u1", **fields}))
    assert (item["action"], item["name"]) == ("screen", "Main")


# Devices.


PHONE = {"device": {"token": "tok", "type": "iOS", "model": "X"}}


@pytest.mark.spec("C121")
@pytest.mark.parametrize("event", ["Application Installed", "Application Opened", "Token Set"])
def test_device_events_add_a_device(event: str) -> None:
    item = item_of(track({"app": "1.0"}, event=event, context=PHONE), device_token_event="Token Set")
    assert item == {
        "type": "person",
        "action": "add_device",
        "identifiers": {"id": "u1"},
        "device": {"token": "tok", "platform": "ios", "last_used": AT, "attributes": {"app": "1.0"}},
    }


@pytest.mark.spec("C121")
def test_device_events_can_stay_events() -> None:
    installed = track(event="Application Installed", context=PHONE)
    assert item_of(installed, device_events=False)["action"] == "event"
    own = track(event="Device Created or Updated", context=PHONE)
    assert item_of(own, device_events=False)["action"] == "add_device"


@pytest.mark.spec("C121")
def test_customerios_own_device_events() -> None:
    device = item_of(track({"push_enabled": "true"}, event="Device Created or Updated", context=PHONE))[
        "device"
    ]
    assert device["attributes"] == {"model": "X", "push_enabled": "true"}
    inside = track({"device": {"token": "tok", "type": "android"}}, event="Device Created or Updated")
    assert item_of(inside)["device"] == {"token": "tok", "platform": "android", "last_used": AT}
    gone = item_of(track(event="Device Deleted", context=PHONE))
    assert (gone["action"], gone["device"]) == ("delete_device", {"token": "tok"})
    gone = item_of(track(event="Application Uninstalled", context=PHONE))
    assert (gone["action"], gone["device"]) == ("delete_device", {"token": "tok"})


@pytest.mark.spec("C121")
@pytest.mark.parametrize(
    ("context", "platform"),
    [
        ({"device": {"token": "t", "type": "tvOS"}}, "ios"),
        ({"device": {"token": "t", "type": "Android"}}, "android"),
        ({"device": {"token": "t"}, "os": {"name": "iPadOS"}}, "ios"),
    ],
)
def test_platforms_are_ios_and_android(context: dict[str, Any], platform: str) -> None:
    given = track(event="Device Created or Updated", context=context)
    assert item_of(given)["device"]["platform"] == platform


@pytest.mark.spec("C121")
def test_what_is_no_device_stays_an_event_or_is_rejected() -> None:
    web = {"device": {"token": "t", "type": "Web"}}
    assert "ios or android" in refusal(track(event="Device Created or Updated", context=web))
    opened = track(event="Application Opened", context=web)
    assert item_of(opened)["action"] == "event"
    assert "no device was added" in reports_of(opened)
    assert item_of(track(event="Application Opened"))["action"] == "event"
    assert "token is missing" in refusal(track(event="Device Deleted"))
    assert "token is missing" in refusal(track(event="Device Created or Updated"))
    nobody = {"type": "track", "anonymousId": "an", "event": "Application Opened", "context": PHONE}
    assert prepared(customerio(), message(nobody)).requests[0].url == EVENTS
    assert "names nobody known" in reports_of(message(nobody))


# Groups and objects.


def group(traits: dict[str, Any] | None = None, **fields: Any) -> Message:
    return message({"type": "group", "userId": "u1", "groupId": "acme", "traits": traits or {}, **fields})


@pytest.mark.spec("C121")
def test_a_group_is_an_object_with_a_relationship() -> None:
    traits = {"name": "Acme", "createdAt": "2020-01-02", "relationshipAttributes": {"role": "admin"}}
    assert item_of(group(traits)) == {
        "type": "object",
        "action": "identify",
        "identifiers": {"object_type_id": "1", "object_id": "acme"},
        "attributes": {"name": "Acme", "created_at": 1577923200},
        "cio_relationships": [{"identifiers": {"id": "u1"}, "relationship_attributes": {"role": "admin"}}],
    }


@pytest.mark.spec("C121")
@pytest.mark.parametrize(
    "fields",
    [
        {"traits": {"objectTypeId": 2}},
        {"traits": {"object_type_id": "2"}},
        {"properties": {"objectTypeId": "2"}},
        {"context": {"objectTypeId": 2}},
    ],
)
def test_the_type_of_an_object(fields: dict[str, Any]) -> None:
    given = message({"type": "group", "userId": "u1", "groupId": "acme", **fields})
    item = item_of(given)
    assert item["identifiers"] == {"object_type_id": "2", "object_id": "acme"}
    assert item["attributes"] == {}


@pytest.mark.spec("C121")
@pytest.mark.parametrize("kind", ["0", "-1", "x", [], "²", "1" * 5000])
def test_a_type_that_is_no_number_is_rejected(kind: Any) -> None:
    assert "objectTypeId" in refusal(group({"objectTypeId": kind}))


@pytest.mark.spec("C121")
def test_actions_of_a_group() -> None:
    for action in ("add_relationships", "delete_relationships"):
        item = item_of(group({"action": action, "name": "Acme"}))
        assert item["action"] == action
        assert item["cio_relationships"] == [{"identifiers": {"id": "u1"}}]
        assert "attributes" not in item
    assert item_of(group({"action": "delete"})) == {
        "type": "object",
        "action": "delete",
        "identifiers": {"object_type_id": "1", "object_id": "acme"},
    }
    assert "traits.action" in refusal(group({"action": "zap"}))
    assert "traits.action" in refusal(group({"action": []}))
    nobody = message({"type": "group", "groupId": "acme", "traits": {"action": "add_relationships"}})
    assert "needs a userId" in refusal(nobody)


@pytest.mark.spec("C121")
def test_a_group_of_somebody_unknown_or_of_nobody() -> None:
    item = item_of(message({"type": "group", "anonymousId": "an", "groupId": "acme"}))
    assert item["action"] == "identify_anonymous"
    assert item["cio_relationships"] == [{"identifiers": {"anonymous_id": "an"}}]
    alone = item_of(message({"type": "group", "groupId": "acme", "traits": {"email": "info@acme.io"}}))
    assert alone["action"] == "identify"
    assert "cio_relationships" not in alone
    assert alone["attributes"] == {"email": "info@acme.io"}


# Alias, delete and the other events of Customer.io.


@pytest.mark.spec("C121", "D17")
def test_an_alias_merges() -> None:
    given = message({"type": "alias", "userId": "u1", "previousId": "a@b.c"})
    assert item_of(given) == {
        "type": "person",
        "action": "merge",
        "primary": {"id": "u1"},
        "secondary": {"email": "a@b.c"},
    }
    assert "previousId" in refusal(message({"type": "alias", "userId": "u1"}))
    assert skipped(message({"type": "alias", "userId": "u1", "previousId": "u1"})) == "unsupported"


@pytest.mark.spec("C121", "D13")
@pytest.mark.parametrize("trust", ["client", "server"])
def test_an_alias_of_ones_own_anonymous_id_joins_it(trust: Any) -> None:
    fields = {"type": "alias", "userId": "u1", "previousId": "an", "anonymousId": "an"}
    item = item_of(message(fields, trust))
    assert item["action"] == "identify"
    assert item["attributes"] == {"anonymous_id": "an"}


@pytest.mark.spec("C121", "D10")
def test_a_delete_deletes() -> None:
    expected = {"type": "person", "action": "delete", "identifiers": {"id": "u1"}}
    assert item_of(message({"type": "delete", "userId": "u1"})) == expected
    assert item_of(track(event="User Deleted")) == expected
    assert skipped(message({"type": "delete", "anonymousId": "an"})) == "unsupported"


@pytest.mark.spec("C121", "D10")
@pytest.mark.parametrize(
    ("event", "action"), [("User Suppressed", "suppress"), ("User Unsuppressed", "unsuppress")]
)
def test_suppress_and_unsuppress(event: str, action: str) -> None:
    assert item_of(track(event=event, userId="a@b.c")) == {
        "type": "person",
        "action": action,
        "identifiers": {"email": "a@b.c"},
    }
    nobody = {"type": "track", "anonymousId": "an", "event": event}
    assert event in refusal(message(nobody))


@pytest.mark.spec("C121")
@pytest.mark.parametrize(
    "fields",
    [
        {"properties": {"objectId": "acme", "objectTypeId": 2}},
        {"properties": {"object_id": "acme", "object_type_id": 2}},
        {"groupId": "acme", "properties": {"objectTypeId": 2}},
        {"context": {"groupId": "acme"}, "properties": {"objectTypeId": 2}},
    ],
)
def test_objects_and_relationships_that_end(fields: dict[str, Any]) -> None:
    identifiers = {"object_type_id": "2", "object_id": "acme"}
    given = {"type": "track", "userId": "u1", **fields}
    assert item_of(message({**given, "event": "Object Deleted"})) == {
        "type": "object",
        "action": "delete",
        "identifiers": identifiers,
    }
    assert item_of(message({**given, "event": "Relationship Deleted"})) == {
        "type": "object",
        "action": "delete_relationships",
        "identifiers": identifiers,
        "cio_relationships": [{"identifiers": {"id": "u1"}}],
    }
    assert "objectId" in refusal(track(event="Object Deleted"))


@pytest.mark.spec("C121")
def test_a_reported_delivery() -> None:
    told = {"deliveryId": "d1", "metric": "clicked", "href": "http://x", "actionName": "go", "reason": ""}
    (call,) = prepared(customerio(), track(told, event="Report Delivery Event")).requests
    assert call.url == f"{TRACK}/api/v1/metrics"
    assert call.json == {
        "delivery_id": "d1",
        "metric": "clicked",
        "timestamp": AT,
        "href": "http://x",
        "metadata": {"action_name": "go"},
    }
    assert "deliveryId" in refusal(track(event="Report Delivery Event"))
    assert "metric" in refusal(track({"deliveryId": "d", "metric": ["x"]}, event="Report Delivery Event"))


@pytest.mark.spec("D13")
@pytest.mark.parametrize(
    "fields",
    [
        {"event": "User Deleted"},
        {"event": "User Suppressed"},
        {"event": "User Unsuppressed"},
        {"event": "Object Deleted", "properties": {"objectId": "acme"}},
        {"type": "group", "groupId": "acme", "traits": {"action": "delete"}},
        {"userId": "cio_a3000001", "event": "E"},
        {"userId": "cio_a3000001", "type": "identify", "traits": {"email": "a@b.c"}},
    ],
)
def test_a_copied_client_key_cannot(fields: dict[str, Any]) -> None:
    given = {"type": "track", "userId": "u1", **fields}
    assert skipped(message(given, "client")) == "untrusted"
    assert isinstance(verdict(message(given, "server")), Payload)


@pytest.mark.spec("D13")
def test_an_email_of_a_client_comes_second_so_that_customerio_itself_guards_it() -> None:
    payload = prepared(customerio(), identify({"email": "a@b.c", "plan": "gold"}, trust="client"))
    first, second = [call.json for call in payload.requests]
    assert first["attributes"] == {"plan": "gold"}
    assert second["attributes"] == {"email": "a@b.c"}
    assert first["identifiers"] == second["identifiers"] == {"id": "u1"}


# Merging.


def merged(earlier: Message, later: Message, **settings: Any) -> Any:
    destination = customerio(**settings)
    found = destination.merge(prepared(destination, earlier), prepared(destination, later))
    return None if found is None else found.requests[0].json


@pytest.mark.spec("D20")
def test_two_identifies_become_one() -> None:
    earlier = identify({"plan": "free", "city": "X"}, timestamp="2024-01-01T00:00:00Z")
    later = identify({"plan": "gold", "city": None}, timestamp="2024-01-01T00:00:05Z")
    joined = merged(earlier, later)
    assert joined["attributes"] == {"plan": "gold", "city": ""}
    assert joined["timestamp"] == 1704067205


@pytest.mark.spec("D20")
@pytest.mark.parametrize(
    ("earlier", "later"),
    [
        (identify({"a": 1}), identify({"b": 1}, userId="u2")),
        (identify({"a": 1}), track()),
        (track(), identify({"a": 1})),
        (identify({"a": 1}, trust="client"), identify({"b": 1})),
        (identify({"email": "a@b.c"}), identify({"email": "b@b.c"})),
        (identify({"a": 1}, anonymousId="a1"), identify({"a": 1}, anonymousId="a2")),
        (identify({"a": {"b": 1}}), identify({"a.b": 2})),
        (identify({"_update": True}), identify({"a": 2})),
        (identify({"a": 1}, timestamp="2024-01-02"), identify({"a": 2}, timestamp="2024-01-01")),
        (identify({f"a{n}": n for n in range(200)}), identify({f"b{n}": n for n in range(200)})),
        (
            identify({f"a{n}": "x" * 999 for n in range(20)}),
            identify({f"b{n}": "x" * 999 for n in range(20)}),
        ),
    ],
)
def test_what_would_not_do_the_same_is_not_merged(earlier: Message, later: Message) -> None:
    assert merged(earlier, later) is None


@pytest.mark.spec("D20")
def test_an_identify_without_the_email_keeps_the_earlier_one() -> None:
    assert merged(identify({"email": "a@b.c"}), identify({"a": 1}))["attributes"] == {
        "email": "a@b.c",
        "a": 1,
    }
