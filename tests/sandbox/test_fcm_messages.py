"""What the FCM simulator takes and refuses: every field, strict JSON, the rules, the sizes."""

from __future__ import annotations

import json
from typing import Any

import pytest

from towpath.sandbox.fcm_rules import TTL_LIMIT_S

from .fcm_calls import Fcm

pytestmark = pytest.mark.spec("P060", "D12")

LABELLED = {"analytics_label": "spring-sale_1.0~%"}
EVERYTHING: dict[str, Any] = {
    "name": "",
    "token": "d1:APA91",
    "data": {"a": "1", "b": ""},
    "notification": {"title": "T", "body": "B", "image": "https://example.com/i.png"},
    "fcm_options": LABELLED,
    "android": {
        "collapse_key": "news",
        "priority": "HIGH",
        "ttl": "3.5s",
        "restricted_package_name": "com.example",
        "data": {"c": "3"},
        "notification": {
            **dict.fromkeys(("title", "body", "icon", "sound", "tag", "click_action", "ticker"), "x"),
            **dict.fromkeys(("body_loc_key", "title_loc_key", "channel_id", "image"), "x"),
            **{key: ["x", "y"] for key in ("body_loc_args", "title_loc_args")},
            **dict.fromkeys(("sticky", "local_only", "default_sound"), True),
            **dict.fromkeys(("default_vibrate_timings", "default_light_settings"), False),
            "color": "#a1B2c3",
            "event_time": "2026-01-01T10:00:00.123456Z",
            "notification_priority": "PRIORITY_MAX",
            "vibrate_timings": ["0.5s", "1s"],
            "visibility": "SECRET",
            "notification_count": 3,
            "light_settings": {
                "color": {"red": 1, "green": 0.5, "blue": 0, "alpha": 1},
                "light_on_duration": "1s",
                "light_off_duration": "0.25s",
            },
            "proxy": "IF_PRIORITY_LOWERED",
        },
        "fcm_options": LABELLED,
        "direct_boot_ok": True,
        "bandwidth_constrained_ok": True,
        "restricted_satellite_ok": False,
    },
    "apns": {
        "headers": {
            "apns-priority": "10",
            "apns-expiration": "1767261600",
            "apns-collapse-id": "c" * 64,
            "apns-push-type": "alert",
        },
        "payload": {"aps": {"alert": {"title": "T"}, "badge": 1, "mutable-content": 1}, "mine": [1, {}]},
        "fcm_options": {**LABELLED, "image": "https://example.com/i.png"},
        "live_activity_token": "abc",
    },
    "webpush": {
        "headers": {"TTL": "60", "Urgency": "high"},
        "data": {"d": "4"},
        "notification": {"title": "T", "actions": [{"action": "a", "title": "b"}], "silent": None},
        "fcm_options": {**LABELLED, "link": "https://example.com/"},
    },
}


def camel(value: Any) -> Any:
    """Write names as lowerCamelCase, except those of maps and free objects."""
    if not isinstance(value, dict):
        return value
    kept = {"data", "headers", "payload"}
    written = {}
    for name, held in value.items():
        first, *rest = name.split("_")
        written[first + "".join(map(str.capitalize, rest))] = held if name in kept else camel(held)
    return written


@pytest.mark.parametrize("written", [EVERYTHING, camel(EVERYTHING)], ids=["snake_case", "lowerCamelCase"])
def test_every_field_is_taken(written: dict[str, Any]) -> None:
    fcm = Fcm()
    got = fcm.send(written)
    assert got.status == 200, got.json
    assert got.json["name"].startswith("projects/demo-towpath/messages/")
    (entry,) = fcm.state.accepted
    assert (entry.name, entry.address, entry.tag) == (got.json["name"], "d1:APA91", "x")
    assert (entry.collapse_key, entry.collapse_id) == ("news", "c" * 64)
    assert entry.message() == written


@pytest.mark.parametrize("target", [{"fid": "f1"}, {"topic": "news"}, {"condition": "'a' in topics"}])
def test_every_target_is_taken(target: dict[str, str]) -> None:
    fcm = Fcm()
    assert fcm.send({**target, "data": {"a": "1"}}).status == 200
    assert [(entry.kind, entry.address) for entry in fcm.state.accepted] == list(target.items())


def test_names_are_never_the_same() -> None:
    fcm = Fcm()
    assert len({fcm.to("ok")[1]["name"] for _ in range(50)}) == 50


def test_null_is_absent_and_enums_are_taken_in_any_case() -> None:
    fcm = Fcm()
    assert fcm.to("ok", data=None, android={"priority": "high", "ttl": None}).status == 200
    assert fcm.to("ok", android={"priority": 2}).status == 200
    assert fcm.to("ok", android={"notification": {"notification_count": "7"}}).status == 200
    assert fcm.to("ok", android={"notification": {"body_loc_args": "one"}}).status == 200


def test_validate_only_checks_and_keeps_nothing() -> None:
    fcm = Fcm()
    got = fcm.send({"token": "ok"}, validate_only=True)
    assert got.json == {"name": "projects/demo-towpath/messages/fake_message_id"}
    assert fcm.send({"token": "ok", "data": {"a": 1}}, validateOnly=True).status == 400
    assert fcm.send({"token": "gone"}, validate_only=True).code == "UNREGISTERED"
    assert fcm.state.accepted == []
    assert fcm.simulator.summary()["validated"] == 1


# -- strict JSON ---------------------------------------------------------------------------------------

NAMELESS = "Invalid JSON payload received. Unknown name"
LISTED = "Proto field is not repeating, cannot start list."
OF_FCM = "type.googleapis.com/google.firebase.fcm.v1"


@pytest.mark.parametrize(
    ("part", "field", "said"),
    [
        ({"key": 1}, "message", f"{NAMELESS} \"key\" at 'message': Cannot find field."),
        (
            {"android": {"notification": {"content_available": True}}},
            "message.android.notification",
            f"{NAMELESS} \"content_available\" at 'message.android.notification': Cannot find field.",
        ),
        (
            {"data": {"a": 12}},
            "message.data[0].value",
            "Invalid value at 'message.data[0].value' (TYPE_STRING), 12",
        ),
        (
            {"data": {"a": "x", "b": {"c": "d"}}},
            "message.data[1].value",
            "Invalid value at 'message.data[1].value' (TYPE_STRING), Starting an object on a scalar field",
        ),
        ({"data": ["a"]}, "message", f"{NAMELESS} \"data\" at 'message': {LISTED}"),
        (
            {"notification": {"title": True}},
            "message.notification.title",
            "Invalid value at 'message.notification.title' (TYPE_STRING), true",
        ),
        (
            {"notification": {"title": ["x"]}},
            "message.notification",
            f"{NAMELESS} \"title\" at 'message.notification': {LISTED}",
        ),
        (
            {"notification": "x"},
            "message.notification",
            f"Invalid value at 'message.notification' ({OF_FCM}.Notification), \"x\"",
        ),
        (
            {"android": {"priority": "LOUD"}},
            "message.android.priority",
            f"Invalid value at 'message.android.priority' ({OF_FCM}.AndroidMessagePriority), \"LOUD\"",
        ),
        (
            {"android": {"ttl": "3600"}},
            "message.android.ttl",
            (
                "Invalid value at 'message.android.ttl' (type.googleapis.com/google.protobuf.Duration), "
                "Field 'ttl', Illegal duration format; duration must end with 's'"
            ),
        ),
        (
            {"android": {"ttl": 3600}},
            "message.android.ttl",
            "Invalid value at 'message.android.ttl' (type.googleapis.com/google.protobuf.Duration), 3600",
        ),
        (
            {"android": {"direct_boot_ok": "yes"}},
            "message.android.direct_boot_ok",
            "Invalid value at 'message.android.direct_boot_ok' (TYPE_BOOL), \"yes\"",
        ),
        (
            {"android": {"notification": {"notification_count": 1.5}}},
            "message.android.notification.notification_count",
            "Invalid value at 'message.android.notification.notification_count' (TYPE_INT32), 1.5",
        ),
        (
            {"android": {"notification": {"body_loc_args": ["a", 2]}}},
            "message.android.notification.body_loc_args[1]",
            "Invalid value at 'message.android.notification.body_loc_args[1]' (TYPE_STRING), 2",
        ),
        (
            {"android": {"notification": {"event_time": "yesterday"}}},
            "message.android.notification.event_time",
            (
                "Invalid value at 'message.android.notification.event_time' "
                "(type.googleapis.com/google.protobuf.Timestamp), Field 'eventTime', "
                "Invalid time format: yesterday"
            ),
        ),
        (
            {"apns": {"payload": "x"}},
            "message.apns.payload",
            "Invalid value at 'message.apns.payload' (type.googleapis.com/google.protobuf.Struct), \"x\"",
        ),
        (
            {"topic": "news"},
            "message",
            "Invalid value at 'message' (oneof), oneof field 'target' is already set. Cannot set 'topic'",
        ),
    ],
)
def test_what_does_not_fit_the_schema(part: dict[str, Any], field: str, said: str) -> None:
    fcm = Fcm()
    got = fcm.send({"token": "ok", **part})
    assert (got.status, got.error["status"], got.error["message"]) == (400, "INVALID_ARGUMENT", said)
    assert got.violations == [(field, said)]
    assert got.code == ""
    assert fcm.state.accepted == []


def test_every_breach_is_named_at_once() -> None:
    got = Fcm().send({"token": "ok", "x": 1, "y": 2}, z=3)
    assert [field for field, _ in got.violations] == ["message", "message", ""]
    assert got.error["message"] == "\n".join(said for _, said in got.violations)


@pytest.mark.parametrize("body", [b"{", b'{"message": {"token": "\xff"}}', b"[]", b'"x"'])
def test_what_is_no_json_object(body: bytes) -> None:
    got = Fcm().post(body)
    assert got.status == 400
    assert got.error["message"].startswith("Invalid JSON payload received.")
    assert got.violations[0][0] == ""


# -- rules ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("request_", [{}, {"message": {}}, {"message": {"data": {}, "token": ""}}])
def test_a_message_without_target(request_: dict[str, Any]) -> None:
    got = Fcm().send(**request_)
    said = "Recipient of the message is not set."
    assert got.json == {
        "error": {
            "code": 400,
            "message": said,
            "status": "INVALID_ARGUMENT",
            "details": [
                {
                    "@type": "type.googleapis.com/google.rpc.BadRequest",
                    "fieldViolations": [{"field": "message", "description": said}],
                },
                {
                    "@type": "type.googleapis.com/google.firebase.fcm.v1.FcmError",
                    "errorCode": "INVALID_ARGUMENT",
                },
            ],
        }
    }


@pytest.mark.parametrize(
    ("part", "field"),
    [
        *[({"data": {key: "x"}}, "message.data") for key in ("from", "message_type", "google.x")],
        ({"data": {"gcm.notification.title": "x"}}, "message.data"),
        ({"android": {"data": {"from": "x"}}}, "message.android.data"),
        ({"webpush": {"data": {"from": "x"}}}, "message.webpush.data"),
        ({"android": {"ttl": f"{TTL_LIMIT_S + 1}s"}}, "message.android.ttl"),
        ({"android": {"ttl": "-1s"}}, "message.android.ttl"),
        ({"android": {"notification": {"color": "red"}}}, "message.android.notification.color"),
        ({"fcm_options": {"analytics_label": "a b"}}, "message.fcm_options.analytics_label"),
        (
            {"android": {"fcm_options": {"analytics_label": "x" * 51}}},
            "message.android.fcm_options.analytics_label",
        ),
        ({"apns": {"fcm_options": {"analytics_label": "ä"}}}, "message.apns.fcm_options.analytics_label"),
        (
            {"webpush": {"fcm_options": {"analytics_label": "a/b"}}},
            "message.webpush.fcm_options.analytics_label",
        ),
        ({"webpush": {"fcm_options": {"link": "http://example.com"}}}, "message.webpush.fcm_options.link"),
        ({"webpush": {"headers": {"TTL": "-1"}}}, "message.webpush.headers.TTL"),
        ({"webpush": {"headers": {"Urgency": "loud"}}}, "message.webpush.headers.Urgency"),
        ({"apns": {"headers": {"apns-priority": "7"}}}, "message.apns.headers"),
        ({"apns": {"headers": {"apns-expiration": "soon"}}}, "message.apns.headers"),
        ({"apns": {"headers": {"apns-collapse-id": "c" * 65}}}, "message.apns.headers"),
        ({"apns": {"payload": {"aps": "x"}}}, "message.apns.payload"),
        (
            {
                "apns": {
                    "headers": {"apns-priority": "10"},
                    "payload": {"aps": {"content-available": 1}},
                }
            },
            "message.apns.headers",
        ),
    ],
)
def test_what_breaks_a_rule(part: dict[str, Any], field: str) -> None:
    fcm = Fcm()
    got = fcm.send({"token": "ok", **part})
    assert (got.status, got.code) == (400, "INVALID_ARGUMENT")
    assert got.violations == [(field, got.error["message"])]
    assert fcm.state.accepted == []


@pytest.mark.parametrize(
    "part",
    [
        {"data": {"fromage": "x", "googled": "x", "gcm": "x"}},
        {"android": {"ttl": "0s"}},
        {"android": {"ttl": f"{TTL_LIMIT_S}s"}},
        {"fcm_options": {"analytics_label": "x" * 50}},
        {"apns": {"headers": {"apns-priority": "5"}, "payload": {"aps": {"content-available": 1}}}},
    ],
)
def test_what_just_keeps_a_rule(part: dict[str, Any]) -> None:
    assert Fcm().send({"token": "ok", **part}).status == 200


def test_a_topic_with_other_signs() -> None:
    got = Fcm().send({"topic": "/topics/news"})
    assert got.violations == [("message", "Topic name contains invalid characters.")]


@pytest.mark.parametrize(
    ("condition", "status"),
    [
        ("'a' in topics && ('b' in topics || !('c' in topics))", 200),
        (" || ".join(f"'t{n}' in topics" for n in range(5)), 200),
        (" || ".join(f"'t{n}' in topics" for n in range(6)), 400),
        ("'a' in topic", 400),
        ("('a' in topics", 400),
        (")'a' in topics(", 400),
        ("'a' in topics 'b' in topics", 400),
        ("true", 400),
    ],
)
def test_conditions(condition: str, status: int) -> None:
    got = Fcm().send({"condition": condition})
    assert got.status == status
    if status == 400:
        said = "Request contains an invalid argument."
        assert got.json == {"error": {"code": 400, "message": said, "status": "INVALID_ARGUMENT"}}


# -- sizes ---------------------------------------------------------------------------------------------


def test_a_payload_of_4096_bytes_and_one_more() -> None:
    fcm = Fcm()
    fcm.state.register("phone", "android")
    assert fcm.send({"token": "phone", "data": {"k": "x" * 4095}}).status == 200
    got = fcm.send({"token": "phone", "data": {"k": "x" * 4096}})
    assert (got.status, got.code, got.violations) == (400, "INVALID_ARGUMENT", [])
    assert got.error["message"] == "Message is too large. The maximum is 4K (4096 bytes)."


def test_topics_take_half() -> None:
    fcm = Fcm()
    data = {"k": "x" * 2020}
    assert fcm.send({"topic": "news", "data": data}).status == 200
    assert "2048 bytes" in fcm.send({"topic": "news", "data": {"k": "x" * 2048}}).error["message"]


def test_bytes_count_not_letters() -> None:
    fcm = Fcm()
    fcm.state.register("phone", "android")
    assert fcm.send({"token": "phone", "data": {"k": "é" * 2048}}).status == 400
    assert fcm.send({"token": "phone", "data": {"k": "é" * 2047}}).status == 200


@pytest.mark.parametrize(
    ("platform", "too_large"),
    [
        ("android", {"android": {"data": {"k": "x" * 4096}}}),
        ("android", {"notification": {"body": "x" * 4096}}),
        ("ios", {"apns": {"payload": {"aps": {"alert": "x" * 4090}}}}),
        ("web", {"webpush": {"notification": {"body": "x" * 4096}}}),
    ],
)
def test_each_platform_counts_its_own(platform: Any, too_large: dict[str, Any]) -> None:
    fcm = Fcm()
    for each in ("android", "ios", "web"):
        fcm.state.register(each, each)
    statuses = {each: fcm.send({"token": each, **too_large}).status for each in fcm.state.platforms}
    assert statuses[platform] == 400
    assert fcm.send({"token": "unknown", **too_large}).status == 400
    if "notification" not in too_large:
        assert [each for each, status in statuses.items() if status == 400] == [platform]


def test_the_size_of_the_request_is_not_the_payload() -> None:
    body = {"message": {"token": "ok", "data": {"k": "x" * 4000}}}
    assert Fcm().post(json.dumps(body, indent=200).encode()).status == 200
