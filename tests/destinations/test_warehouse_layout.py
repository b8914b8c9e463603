"""The rows that messages become: golden ones by kind, nesting, names that clash, privacy, settings."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from pydantic import ValidationError

from towpath.destination import Payload
from towpath.destinations.warehouse import WarehouseSettings
from towpath.outcome import Rejected, Skipped

from .warehouse_world import AT, made, message, rows

COMMON = {
    "id": "m1",
    "anonymous_id": "a1",
    "user_id": "u1",
    "original_timestamp": "2026-01-02T03:04:00.000Z",
    "sent_at": "2026-01-02T03:04:01.000Z",
    "received_at": "2026-01-02T03:04:06.000Z",
    "timestamp": AT,
    "_workspace": "app",
}
TIMES = {"original_timestamp": "2026-01-02T03:04:00Z", "sent_at": "2026-01-02T04:04:01+01:00"}
CONTEXT = {"ip": "203.0.113.7", "library": {"name": "web", "version": "1"}, "page": {"tags": ["a"]}}
FLAT = {
    "context_ip": "203.0.113.7",
    "context_library_name": "web",
    "context_library_version": "1",
    "context_page_tags": ["a"],
}


def told(kind: str, **fields: Any) -> Any:
    return message(kind, anonymous_id="a1", context=CONTEXT, **TIMES, **fields)


@pytest.mark.spec("R056")
def test_a_track_is_in_tracks_and_in_its_events_table() -> None:
    event = told("track", event="Order Completed", properties={"orderId": "o1", "total": 25.5, "gift": None})
    named = {"event": "order_completed", "event_text": "Order Completed"}
    assert rows(event) == {
        "order_completed": {**COMMON, **named, **FLAT, "order_id": "o1", "total": 25.5},
        "tracks": {**COMMON, **named, **FLAT},
    }


@pytest.mark.spec("R056")
def test_an_identify_is_in_identifies_and_makes_its_user() -> None:
    traits = {"email": "ada@example.com", "address": {"city": "Wien"}}
    identify = told("identify", traits=traits)
    flat = {"email": "ada@example.com", "address_city": "Wien"}
    user = {key: COMMON[key] for key in ("received_at", "timestamp", "_workspace")}
    assert rows(identify) == {
        "identifies": {**COMMON, **FLAT, **flat},
        "users": {**user, "id": "u1", **flat},
    }
    assert set(rows(msgspec.structs.replace(identify, user_id=None))) == {"identifies"}


@pytest.mark.spec("R056")
def test_traits_in_the_context_count_as_traits() -> None:
    identify = message("identify", context={"traits": {"plan": "free", "age": 5}}, traits={"plan": "pro"})
    found = rows(identify)
    assert (found["users"]["plan"], found["users"]["age"]) == ("pro", 5)
    assert (found["identifies"]["plan"], found["identifies"]["context_traits_plan"]) == ("pro", "free")


@pytest.mark.spec("R056")
@pytest.mark.parametrize(
    ("kind", "fields", "table", "own"),
    [
        ("page", {"name": "Home", "properties": {"title": "H"}}, "pages", {"name": "Home", "title": "H"}),
        ("screen", {"category": "Shop"}, "screens", {"category": "Shop"}),
        ("group", {"group_id": "g1", "traits": {"seats": 5}}, "groups", {"group_id": "g1", "seats": 5}),
        ("alias", {"previous_id": "a1"}, "aliases", {"previous_id": "a1"}),
    ],
)
def test_the_other_calls_have_a_table_each(
    kind: str, fields: dict[str, Any], table: str, own: dict[str, Any]
) -> None:
    found = rows(told(kind, **fields))
    assert set(found) == {table}
    assert {key: value for key, value in found[table].items() if value is not None} == {
        **COMMON,
        **FLAT,
        **own,
    }


@pytest.mark.spec("R056")
def test_objects_are_entered_three_deep_and_arrays_stay_json() -> None:
    deep = {"a": {"b": {"c": {"d": 1}}, "list": [{"e": 1}]}, "none": {}, "empty": []}
    found = rows(message(event="Deep", properties=deep))["deep"]
    assert (found["a_b_c"], found["a_list"], found["empty"]) == ({"d": 1}, [{"e": 1}], [])
    assert "none" not in found
    shallow = rows(message(event="Deep", properties=deep), levels=1)["deep"]
    assert shallow["a"] == deep["a"]


@pytest.mark.spec("R056")
def test_what_a_column_cannot_have_gets_another_or_stays_in_extra() -> None:
    given = {"id": 5, "context_ip": 1, "firstName": "A", "first_name": "B", "event": "inner"}
    found = rows(message(event="Clash", properties=given))["clash"]
    assert found["id"] == "m1"
    assert (found["property_id"], found["property_context_ip"], found["property_event"]) == (5, 1, "inner")
    assert (found["first_name"], found["_extra"]) == ("B", {"properties.firstName": "A"})
    traits = rows(message("identify", traits={"id": 5, "timestamp": 6}))["users"]
    assert (traits["id"], traits["trait_id"], traits["trait_timestamp"]) == ("u1", 5, 6)


@pytest.mark.spec("R056")
def test_properties_without_a_table_of_their_own_stay_in_tracks() -> None:
    properties = {"a": {"b": 1}}
    for told_, settings in (
        (message(event="Any", properties=properties), {"tables": {"per_event": False}}),
        (message(event=None, properties=properties), {}),
        (message(event={"odd": 1}, properties=properties), {}),
    ):
        found = rows(told_, **settings)
        assert set(found) == {"tracks"}
        assert found["tracks"]["properties"] == properties
    assert rows(message(event={"odd": 1}))["tracks"]["event_text"] == '{"odd":1}'
    assert set(rows(message(event=42))) == {"event_42", "tracks"}


@pytest.mark.spec("R056")
def test_times_that_are_none_are_kept_beside() -> None:
    found = rows(message(event="Odd", timestamp="yesterday", sent_at=5, original_timestamp={"x": 1}))["odd"]
    assert found["sent_at"] is None
    assert found["timestamp"] == "2026-01-02T03:04:06.000Z"
    assert found["_extra"] == {"timestamp": "yesterday", "sentAt": 5, "originalTimestamp": {"x": 1}}


@pytest.mark.spec("R056", "R051")
def test_what_is_excluded_is_nowhere_in_a_row() -> None:
    secret = {"email": "ada@example.com", "deep": {"er": {"st": {"email": "x@example.com"}}}}
    listed = {"people": [{"email": "y@example.com", "n": 1}], "address": {"street": "z@example.com"}}
    context = {"ip": "203.0.113.7", "traits": {"email": "t@example.com"}}
    settings = {"exclude": ["email", "context_ip", "people_email", "address", "deep_er_st_email"]}
    for told_ in (
        message(event="Any", properties=secret | listed, context=context),
        message(event=None, properties=secret | listed, context=context),
        message("identify", traits=secret | listed, context=context),
    ):
        found = msgspec.json.encode(rows(told_, **settings)).decode()
        assert "example.com" not in found
        assert "203.0.113.7" not in found
        assert '"n":1' in found
    assert "user_id" not in rows(message(event="Seen"), exclude=["user_id"])["seen"]
    assert set(rows(message("identify"), exclude=["user_id"])) == {"identifies"}


@pytest.mark.spec("R056")
@pytest.mark.parametrize(
    "settings",
    [{"exclude": ["id"]}, {"hash": ["email"]}, {"prefix": "1x"}, {"max_columns": 5}, {"contract": "strict"}],
)
def test_settings_that_cannot_be(settings: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        WarehouseSettings.model_validate({"duckdb": "events.duckdb", **settings})


@pytest.mark.spec("R056")
def test_messages_without_rows_are_skipped() -> None:
    off = made(tables={"pages": False}, skip_events=["Heartbeat"])
    assert isinstance(off.prepare(message("page")), Skipped)
    assert isinstance(off.prepare(message(event="Heartbeat")), Skipped)
    assert isinstance(off.prepare(message(event="Other")), Payload)
    assert isinstance(off.prepare(message(event="Other", message_id="")), Rejected)
    assert isinstance(off.prepare(message("delete", user_id=None)), Skipped)


@pytest.mark.spec("R056")
def test_a_prefix_names_every_table() -> None:
    assert set(rows(message(event="Users"), prefix="web_")) == {"web_event_users", "web_tracks"}
