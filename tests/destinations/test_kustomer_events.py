"""track, page and screen: names, identity, session, meta, in plain and in advanced mode."""

from __future__ import annotations

from typing import Any

import pytest

from towpath.message import Message
from towpath.outcome import Rejected, Skipped
from towpath.vendors.kustomer_schema import is_date_time

from .kustomer_world import TRACKED, World, answer, body_of, kustomer, message, prepared, reports_of, track

ADVANCED = kustomer()
PLAIN = kustomer(advanced_transform=False)
ISO = "2020-02-02T00:23:09.544Z"


def meta_of(properties: Any, **settings: Any) -> Any:
    return body_of(kustomer(**settings), track(properties))["event"].get("meta")


def named(kind: str, **fields: Any) -> Message:
    return message({"type": kind, "userId": "u1", **fields})


def name_of(given: Message, **settings: Any) -> str:
    return str(body_of(kustomer(**settings), given)["event"]["name"])


def refusal(given: Message, **settings: Any) -> str:
    verdict = kustomer(**settings).prepare(given)
    assert isinstance(verdict, Rejected), verdict
    return verdict.reason


# The request.


@pytest.mark.spec("K011")
@pytest.mark.parametrize("kind", ["track", "page", "screen"])
def test_one_call_to_identity_event(kind: str) -> None:
    payload = prepared(ADVANCED, named(kind, event="Order-Completed", properties={"a": "b"}))
    (call,) = payload.requests
    assert (call.method, call.url, payload.look_ups, payload.capability) == ("POST", TRACKED, (), "tracking")
    assert call.json["identity"] == {"externalId": "u1"}
    assert call.json["event"]["meta"] == {"a": "b"}


@pytest.mark.spec("K011", "K001", "K067")
async def test_what_preview_shows_is_what_is_sent() -> None:
    world = World(("POST", TRACKED, answer(201, {"data": {"id": "i"}})))
    given = track({"total": 3, "vip": True})
    await world.deliver(given)
    (request,) = world.network.requests
    assert request.headers["authorization"] == "Bearer secret-key"
    assert request.headers["content-type"] == "application/json"
    assert world.bodies("POST") == [prepared(world.destination, given).requests[0].json]


@pytest.mark.spec("K010")
@pytest.mark.parametrize("kind", ["group", "alias", "delete"])
def test_other_kinds_are_skipped(kind: str) -> None:
    verdict = ADVANCED.prepare(named(kind, groupId="g", previousId="p"))
    assert isinstance(verdict, Skipped)
    assert verdict.reason == "unsupported"
    assert f"{kind} is not supported" in verdict.detail
    assert "K010" in verdict.detail


@pytest.mark.spec("K009")
@pytest.mark.parametrize("kind", ["track", "page", "screen", "identify"])
def test_nobody_is_rejected(kind: str) -> None:
    reason = refusal(message({"type": kind, "event": "Order-Completed"}))
    assert "userId" in reason
    assert "anonymousId" in reason


@pytest.mark.spec("K012")
@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"userId": "u", "traits": {"userId": "t"}, "anonymousId": "a"}, "u"),
        ({"traits": {"userId": "t", "id": "i"}, "anonymousId": "a"}, "t"),
        ({"traits": {"id": "i"}, "context": {"traits": {"userId": "c"}}, "anonymousId": "a"}, "i"),
        ({"context": {"traits": {"userId": "c", "id": "ci"}}, "anonymousId": "a"}, "c"),
        ({"context": {"traits": {"id": 7}}, "anonymousId": "a"}, "7"),
        ({"anonymousId": "a"}, "a"),
        ({"userId": 12}, "12"),
        ({"userId": "", "anonymousId": "a"}, "a"),
    ],
)
def test_external_id_is_the_first_there_is(fields: dict[str, Any], expected: str) -> None:
    given = message({"type": "track", "event": "Order-Completed", **fields})
    assert body_of(ADVANCED, given)["identity"]["externalId"] == expected


@pytest.mark.spec("K012", "K070")
def test_external_id_has_a_limit() -> None:
    assert body_of(ADVANCED, track(userId="u" * 256))
    assert "257 characters, Kustomer takes 256" in refusal(track(userId="u" * 257))


@pytest.mark.spec("K020")
def test_no_timestamp_and_no_message_id_is_sent() -> None:
    body = body_of(ADVANCED, track({"a": "b"}, timestamp=ISO, messageId="m-7"))
    assert body == {
        "identity": {"externalId": "u1"},
        "event": {"name": "Order-Completed", "meta": {"a": "b"}},
    }


@pytest.mark.spec("K020")
@pytest.mark.parametrize("properties", ["abc", [1], 5, True])
def test_properties_that_are_no_object_are_rejected(properties: Any) -> None:
    assert "properties must be an object" in refusal(track(properties))


# E-mail.


@pytest.mark.spec("K003", "K013")
@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"traits": {"email": "t@x.io"}, "context": {"traits": {"email": "c@x.io"}}}, "t@x.io"),
        ({"context": {"traits": {"email": "c@x.io"}}, "properties": {"email": "p@x.io"}}, "c@x.io"),
        ({"properties": {"email": "p@x.io"}}, "p@x.io"),
    ],
)
def test_identity_email_is_the_first_there_is(fields: dict[str, Any], expected: str) -> None:
    given = named("track", event="Order-Completed", **fields)
    assert body_of(kustomer(set_identity_email=True), given)["identity"] == {
        "externalId": "u1",
        "email": expected,
    }
    assert body_of(ADVANCED, given)["identity"] == {"externalId": "u1"}


@pytest.mark.spec("K003", "K013")
@pytest.mark.parametrize("fields", [{}, {"context": {"externalId": [{"type": "kustomerId", "id": "KID"}]}}])
def test_no_email_no_key(fields: dict[str, Any]) -> None:
    assert body_of(kustomer(set_identity_email=True), track(**fields))["identity"] == {"externalId": "u1"}


@pytest.mark.spec("K003", "K070")
@pytest.mark.parametrize("email", ["nobody", "a b@c.de", "a@b", 5, {"a": 1}])
def test_an_identity_email_that_is_none_is_left_out_and_reported(email: Any) -> None:
    destination = kustomer(set_identity_email=True)
    given = track({"email": email})
    assert "email" not in body_of(destination, given)["identity"]
    assert "identity.email left out" in reports_of(destination, given)


@pytest.mark.spec("K004", "K038")
@pytest.mark.parametrize("advanced", [True, False])
def test_the_email_property_can_be_left_out_by_itself(advanced: bool) -> None:
    settings = {"disable_email_as_tracking_property": True, "advanced_transform": advanced}
    assert meta_of({"email": "a@b.io", "plan": "pro"}, **settings) == {"plan": "pro"}
    assert meta_of({"email": ISO}, **settings) == {}  # removed before it could be renamed to emailAt
    assert meta_of(None, **settings) == ({} if advanced else None)


@pytest.mark.spec("K004", "K003")
def test_leaving_the_property_out_keeps_it_as_identity() -> None:
    destination = kustomer(set_identity_email=True, disable_email_as_tracking_property=True)
    body = body_of(destination, track({"email": "a@b.io"}))
    assert (body["identity"]["email"], body["event"]["meta"]) == ("a@b.io", {})


# Session and tracking ids.


@pytest.mark.spec("K015")
@pytest.mark.parametrize("kind", ["track", "page", "screen"])
@pytest.mark.parametrize("advanced", [True, False])
@pytest.mark.parametrize(
    "keys", [("kustomerSessionId", "kustomerTrackingId"), ("kustomer_session_id", "kustomer_tracking_id")]
)
def test_kustomers_ids_move_out_of_the_properties(kind: str, advanced: bool, keys: tuple[str, str]) -> None:
    properties = {keys[0]: "s1", keys[1]: "t1", "a": "b"}
    given = named(kind, event="Order-Completed", properties=properties, context={"sessionId": "other"})
    event = body_of(kustomer(advanced_transform=advanced), given)["event"]
    assert (event["sessionId"], event["trackingId"], event["meta"]) == ("s1", "t1", {"a": "b"})
    assert given.properties == properties


@pytest.mark.spec("K015", "K070")
def test_session_id_comes_from_the_context_as_a_string() -> None:
    event = body_of(ADVANCED, track(context={"sessionId": 1767261600123}))["event"]
    assert event["sessionId"] == "1767261600123"
    assert "trackingId" not in event


@pytest.mark.spec("K015", "K070")
def test_ids_that_are_no_strings_are_made_strings_or_left_out() -> None:
    given = track({"kustomerSessionId": 5, "kustomerTrackingId": {"a": 1}})
    event = body_of(ADVANCED, given)["event"]
    assert event == {"name": "Order-Completed", "sessionId": "5", "meta": {}}
    assert "kustomerTrackingId left out" in reports_of(ADVANCED, given)


# Names.


@pytest.mark.spec("K016")
@pytest.mark.parametrize("advanced", [True, False])
@pytest.mark.parametrize("event", [None, "", "   ", 5, 0, True, {"a": 1}, ["x"]])
def test_track_needs_a_name(event: Any, advanced: bool) -> None:
    reason = refusal(track(event=event), advanced_transform=advanced)
    assert "`event` must be a string" in reason


@pytest.mark.spec("K017", "K018")
@pytest.mark.parametrize(("kind", "title"), [("page", "Web-Page-Viewed"), ("screen", "Screen-Viewed")])
@pytest.mark.parametrize(
    ("fields", "suffix"),
    [
        ({"event": "E1", "properties": {"event": "E2", "name": "N2"}, "name": "N1"}, "-E1"),
        ({"properties": {"event": "E2", "name": "N2"}, "name": "N1"}, "-E2"),
        ({"properties": {"name": "N2"}, "name": "N1"}, "-N1"),
        ({"properties": {"name": "N2"}}, "-N2"),
        ({"name": 7}, "-7"),
        ({"category": "Shop"}, ""),
        ({"name": " ", "event": {"a": 1}}, ""),
    ],
)
def test_pages_and_screens_are_named_by_title(
    kind: str, title: str, fields: dict[str, Any], suffix: str
) -> None:
    for advanced in (True, False):
        assert name_of(named(kind, **fields), advanced_transform=advanced) == f"{title}{suffix}"


@pytest.mark.spec("K005", "K006")
def test_generic_titles() -> None:
    page, screen = named("page", name="Home"), named("screen", name="Home")
    assert name_of(page, generic_page=True) == "Web-Page-Viewed"
    assert name_of(screen, generic_page=True) == "Screen-Viewed-Home"
    assert name_of(screen, generic_screen=True) == "Screen-Viewed"
    assert name_of(page, generic_screen=True) == "Web-Page-Viewed-Home"


@pytest.mark.spec("K017")
def test_titles_are_not_html_escaped() -> None:
    assert name_of(named("page", name="A&B"), advanced_transform=False) == "Web-Page-Viewed-A&B"


@pytest.mark.spec("K019", "K021", "K027")
@pytest.mark.parametrize(
    ("name", "fits"),
    [
        ("Cart Viewed", False),
        ("Cart-Viewed", True),
        ("Cart_Viewed", True),
        ("1st", False),
        ("Größe", False),
        ("x", False),
    ],
)
def test_plain_mode_sends_the_name_as_given_with_a_warning(name: str, fits: bool) -> None:
    given = track(event=name)
    assert body_of(PLAIN, given)["event"]["name"] == name
    assert ("will be refused" in reports_of(PLAIN, given)) is not fits


@pytest.mark.spec("K019", "K002")
async def test_the_dead_letter_names_the_fix() -> None:
    refused = answer(400, {"errors": [{"status": 400, "title": "invalid name"}]})
    world = World(("POST", TRACKED, refused), advanced_transform=False)
    outcome = await world.deliver(track(event="Cart Viewed"))
    assert isinstance(outcome, Rejected)
    assert "invalid name" in outcome.reason
    assert "no spaces" in outcome.reason
    assert "advanced_transform" in outcome.reason
    outcome = await world.deliver(track({"income": 1}))
    assert isinstance(outcome, Rejected)
    assert "properties as Kustomer wants them" in outcome.reason


@pytest.mark.spec("K031")
@pytest.mark.parametrize(
    ("name", "sent"),
    [
        ("Order Completed", "Order-Completed"),
        ("OrderCompleted", "OrderCompleted"),
        ("Order-Completed", "Order-Completed"),
        ("  Order \t\n Completed ", "Order-Completed"),
    ],
)
def test_whitespace_in_names_becomes_a_hyphen(name: str, sent: str) -> None:
    given = track(event=name)
    assert body_of(ADVANCED, given)["event"]["name"] == sent
    assert ("event name" in reports_of(ADVANCED, given)) is (name != sent)
    assert name_of(named("page", name=f"x {name}")) == f"Web-Page-Viewed-x-{sent}"


@pytest.mark.spec("K027")
@pytest.mark.parametrize(
    ("name", "sent"),
    [("Foo & Bar", "Foo-Bar"), ("Cart: viewed!", "Cart-viewed-"), ("a/b//c", "a-b-c"), ("Größe", "Gr-e")],
)
def test_runs_of_other_characters_become_one_hyphen(name: str, sent: str) -> None:
    given = track(event=name)
    assert body_of(ADVANCED, given)["event"]["name"] == sent
    assert f"{sent!r}" in reports_of(ADVANCED, given)


@pytest.mark.spec("K027")
@pytest.mark.parametrize("name", ["x", "1st order", "-x", "é", "_x", "..."])
def test_names_that_still_do_not_fit_are_rejected(name: str) -> None:
    assert "a letter first" in refusal(track(event=name))


@pytest.mark.spec("K027", "K005", "K006")
def test_a_long_title_is_rejected_with_the_way_out() -> None:
    fitting = "x" * (255 - len("Web-Page-Viewed-"))
    assert len(name_of(named("page", name=fitting))) == 255
    reason = refusal(named("page", name=f"{fitting}x"))
    assert "256 characters, Kustomer takes 255" in reason
    assert "generic_page" in reason
    assert "generic_screen" in reason


# Meta.


@pytest.mark.spec("K014")
def test_all_properties_go_to_meta() -> None:
    properties = {"a": "b", "c": None}
    assert meta_of(properties) == properties
    assert meta_of(properties, advanced_transform=False) == properties
    assert meta_of(None) == {}
    assert meta_of(None, advanced_transform=False) is None
    assert meta_of({}, advanced_transform=False) == {}


@pytest.mark.spec("K022", "K023", "K024", "K025", "K026")
@pytest.mark.parametrize(
    ("properties", "doubt"),
    [
        ({"product_nameNum": "UNO"}, "holds a string"),
        ({"product_nameAt": "UNO"}, "holds a string"),
        ({"product_name": "UNO"}, ""),
        ({"purchased": ISO}, "must end with At"),
        ({"purchasedAt": ISO}, ""),
        ({"revenue": 300}, "must end with Num"),
        ({"revenueNum": 30}, ""),
        ({"net revenueNum": 30}, ""),
        ({"items": {"price": 32, "name": "dinner plate"}}, "is nested"),
        ({"items": ["dinner plate", "fork", "spoon"]}, "is nested"),
        ({"rush": True}, "is a boolean"),
        ({"nothing": None}, ""),
    ],
)
def test_plain_mode_sends_as_given_and_says_what_kustomer_will_refuse(
    properties: dict[str, Any], doubt: str
) -> None:
    given = track(properties)
    assert body_of(PLAIN, given)["event"]["meta"] == properties
    reports = reports_of(PLAIN, given)
    assert (next(iter(properties)) in reports) is bool(doubt)
    assert doubt in reports


@pytest.mark.spec("K032", "K033", "K035")
@pytest.mark.parametrize(
    ("key", "value", "renamed"),
    [
        ("income", 500, "incomeNum"),
        ("income Num", 500, "income-Num"),
        ("income-Num", 500, "income-Num"),
        ("income_Num", 500, "income_Num"),
        ("incomenum", 0.5, "incomenumNum"),
        ("catAt", 7, "catAtNum"),
        ("created", ISO, "createdAt"),
        ("created At", ISO, "created-At"),
        ("created-At", ISO, "created-At"),
        ("created_At", ISO, "created_At"),
        ("revenueNum", ISO, "revenueNumAt"),
        ("Cart Name", "Test Cart", "Cart-Name"),
        ("CartName", "Test Cart", "CartName"),
        ("Cart-Name", "Test Cart", "Cart-Name"),
        (" a  b ", "x", "a-b"),
        ("a b", None, "a-b"),
    ],
)
def test_keys_follow_the_type_of_their_value(key: str, value: Any, renamed: str) -> None:
    given = track({key: value})
    assert body_of(ADVANCED, given)["event"]["meta"] == {renamed: value}
    assert (f"{key} → {renamed}" in reports_of(ADVANCED, given)) is (key != renamed)


@pytest.mark.spec("K022")
@pytest.mark.parametrize(("key", "value"), [("sizeNum", "XL"), ("lookAt", "me"), ("flagNum", True)])
def test_texts_under_the_keys_of_other_types_stay_and_are_reported(key: str, value: Any) -> None:
    given = track({key: value})
    assert list(body_of(ADVANCED, given)["event"]["meta"]) == [key]
    assert f"property {key!r} holds a string" in reports_of(ADVANCED, given)


@pytest.mark.spec("K034")
@pytest.mark.parametrize(
    "value",
    [
        *("2020-01-02", "2020-01-02T10:11", "2020-01-02T10:11:12", "2020-01-02T10:11:12.123"),
        *("2020-01-02T10:11:12Z", "2020-01-02t10:11:12z", "2020-01-02T10:11Z", "2020-02-29"),
        *("2020-01-02T10:11:12.1234+05:30", "2020-01-02T23:59:59-11:00"),
    ],
)
def test_date_times(value: str) -> None:
    assert is_date_time(value)
    assert meta_of({"d": value}) == {"dAt": value}


@pytest.mark.spec("K034")
@pytest.mark.parametrize(
    "value",
    [
        *("2020", "2020-01", "9999-99-99", "2020-01-02 10:11", "2021-02-29", "0000-01-01", "2020-1-2"),
        *("2020-01-02T10", "2020-01-02T25:00", "2020-01-02T10:61", "2020-01-02T10:11:12+0530", "20200102"),
        *("2020-01-02\n", "x2020-01-02", "٢٠٢٠-٠١-٠٢", "2020-01-02Z"),
    ],
)
def test_strings_that_are_no_date_times(value: str) -> None:
    assert not is_date_time(value)
    assert meta_of({"d": value}) == {"d": value}


@pytest.mark.spec("K036")
@pytest.mark.parametrize(
    ("value", "sent"),
    [
        (True, "true"),
        (False, "false"),
        ({"price": 32, "name": "dinner plate"}, '{"price":32,"name":"dinner plate"}'),
        ({}, "{}"),
        (["dinner plate", "fork", 1, None, {"a": [1]}], '"dinner plate","fork",1,null,{"a":[1]}'),
        ([], ""),
        ([ISO], f'"{ISO}"'),
        ([["a", "b"], "é"], '["a","b"],"é"'),
        (None, None),
    ],
)
def test_other_values_become_strings(value: Any, sent: Any) -> None:
    assert meta_of({"key": value}) == {"key": sent}


@pytest.mark.spec("K037")
@pytest.mark.parametrize(
    ("properties", "meta", "lost"),
    [
        ({"income": 1, "incomeNum": 2}, {"incomeNum": 2}, "income"),
        ({"incomeNum": 2, "income": 1}, {"incomeNum": 2}, "income"),
        ({"a b": "1", "a\tb": "2"}, {"a-b": "1"}, "a\\tb"),
        ({"a b": "1", "a\tb": "2", "a-b": "3"}, {"a-b": "3"}, "a b"),
        ({"income": 1, "incomeNum": ISO}, {"incomeNum": 1, "incomeNumAt": ISO}, ""),
    ],
)
def test_on_a_collision_the_explicit_key_wins_else_the_first(
    properties: dict[str, Any], meta: dict[str, Any], lost: str
) -> None:
    given = track(properties)
    assert body_of(ADVANCED, given)["event"]["meta"] == meta
    reports = reports_of(ADVANCED, given)
    assert (f"property '{lost}' left out" in reports) if lost else ("left out" not in reports)


@pytest.mark.spec("K070", "K014")
@pytest.mark.parametrize("advanced", [True, False])
def test_meta_has_at_most_a_hundred_keys(advanced: bool) -> None:
    hundred = {f"k{number}": "x" for number in range(100)}
    assert len(meta_of(hundred, advanced_transform=advanced)) == 100
    reason = refusal(track({**hundred, "more": "x"}), advanced_transform=advanced)
    assert "101 properties, Kustomer takes 100" in reason


@pytest.mark.spec("K070")
def test_a_body_over_100_kb_is_rejected_with_its_size() -> None:
    around = len('{"identity":{"externalId":"u1"},"event":{"name":"Order-Completed","meta":{"a":""}}}')
    most = 100 * 1024
    assert meta_of({"a": "x" * (most - around)})
    reason = refusal(track({"a": "x" * (most - around + 1)}))
    assert "102,401 bytes" in reason
    assert "102,400" in reason


def test_many_different_keys_and_names_do_not_pile_up() -> None:
    from towpath.destinations._kustomer_event import _KEYS, _NAMES

    for number in range(5_000):
        ADVANCED.prepare(track({f"key {number}": 1}, event=f"Event {number}"))
    ADVANCED.prepare(track({"k" * 10_000: 1}, event="E" * 200))
    assert len(_KEYS) <= 4096
    assert len(_NAMES) <= 4096
    assert max(map(len, [*_KEYS, *_NAMES])) <= 64
