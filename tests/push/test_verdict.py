"""Verdicts: every body that FCM is known to send, by the table; and nothing else takes an address away."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, get_args

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from towpath.http import Reply
from towpath.push.pace import THROTTLED_S
from towpath.push.verdict import Kind, Verdict, judge
from towpath.vendors.fcm import BAD_REQUEST, FCM_ERROR

pytestmark = pytest.mark.spec("P053")
NOW = 1_760_000_000.0
TOKEN_SENTENCE = "The registration token is not a valid FCM registration token"
REMOVING = {"unregistered", "invalid_token"}


def fcm_error(code: str) -> dict[str, Any]:
    return {"@type": f"type.googleapis.com/{FCM_ERROR}", "errorCode": code}


def bad_request(*fields: str) -> dict[str, Any]:
    violations = [{"field": field, "description": f"{field} is wrong"} for field in fields]
    return {"@type": f"type.googleapis.com/{BAD_REQUEST}", "fieldViolations": violations}


def body(code: int, message: str, status: str, *details: Mapping[str, Any]) -> bytes:
    error: dict[str, Any] = {"code": code, "message": message, "status": status}
    return json.dumps({"error": {**error, **({"details": details} if details else {})}}).encode()


def verdict(status: int, content: bytes, **headers: str) -> Verdict:
    return judge(
        Reply(status, {name.replace("_", "-"): value for name, value in headers.items()}, content), NOW
    )


# Published bodies, as they were sent.
UNREGISTERED = (
    b'{"error":{"code":404,"message":"Requested entity was not found.","status":"NOT_FOUND","details":'
    b'[{"@type":"type.googleapis.com/google.firebase.fcm.v1.FcmError","errorCode":"UNREGISTERED"}]}}'
)
BAD_TOKEN = (
    b'{"error":{"code":400,"message":"The registration token is not a valid FCM registration token",'
    b'"status":"INVALID_ARGUMENT","details":[{"@type":"type.googleapis.com/google.firebase.fcm.v1.FcmError",'
    b'"errorCode":"INVALID_ARGUMENT"}]}}'
)
BAD_VALUE = (
    b'{"error":{"code":400,"message":"Invalid value at \'message.data[0].value\' (TYPE_STRING), 12",'
    b'"status":"INVALID_ARGUMENT","details":[{"@type":"type.googleapis.com/google.rpc.BadRequest",'
    b'"fieldViolations":[{"field":"message.data[0].value","description":'
    b"\"Invalid value at 'message.data[0].value' (TYPE_STRING), 12\"}]}]}}"
)
UNKNOWN_NAME = (
    b'{"error":{"code":400,"message":"Invalid JSON payload received. Unknown name \\"key\\" at \'message\': '
    b'Cannot find field.","status":"INVALID_ARGUMENT","details":[{"@type":"type.googleapis.com/'
    b'google.rpc.BadRequest","fieldViolations":[{"field":"message","description":"Invalid JSON payload '
    b'received. Unknown name \\"key\\" at \'message\': Cannot find field."}]}]}}'
)
MISMATCH = (
    b'{"error":{"code":403,"message":"SenderId mismatch","status":"PERMISSION_DENIED","details":'
    b'[{"@type":"type.googleapis.com/google.firebase.fcm.v1.FcmError","errorCode":"SENDER_ID_MISMATCH"}]}}'
)
NO_ROLE = body(
    403,
    "Permission 'cloudmessaging.messages.create' denied on resource '//cloudresourcemanager.googleapis.com/"
    "projects/demo' (or it may not exist).",
    "PERMISSION_DENIED",
)
OAUTH = body(
    401, "Request had invalid authentication credentials. Expected OAuth 2 access token.", "UNAUTHENTICATED"
)
WRONG_PROJECT = body(404, "Requested entity was not found.", "NOT_FOUND")
APNS = body(
    401, "Auth error from APNS or Web Push Service", "UNAUTHENTICATED", fcm_error("THIRD_PARTY_AUTH_ERROR")
)
OLD_APNS = body(401, "Auth error from APNS", "UNAUTHENTICATED", fcm_error("APNS_AUTH_ERROR"))
QUOTA = body(
    429,
    "Quota exceeded",
    "RESOURCE_EXHAUSTED",
    fcm_error("QUOTA_EXCEEDED"),
    {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": [{"subject": "project:1"}]},
)


def quota(*violations: dict[str, str]) -> bytes:
    failure = {"@type": "type.googleapis.com/google.rpc.QuotaFailure", "violations": list(violations)}
    return body(429, "Quota exceeded", "RESOURCE_EXHAUSTED", fcm_error("QUOTA_EXCEEDED"), failure)


OF_A_DEVICE = quota({"subject": "device", "description": "Message rate exceeded."})
BUSY = body(503, "The service is currently unavailable.", "UNAVAILABLE", fcm_error("UNAVAILABLE"))
BROKEN = body(500, "Internal error encountered.", "INTERNAL", fcm_error("INTERNAL"))
UNSPECIFIED = body(503, "?", "UNAVAILABLE", fcm_error("UNSPECIFIED_ERROR"))
GFE_404 = b"<!DOCTYPE html><title>Error 404 (Not Found)!!1</title>"


@pytest.mark.spec("P012", "P013", "P014")
@pytest.mark.parametrize(
    ("status", "content", "kind", "code"),
    [
        (404, UNREGISTERED, "unregistered", "UNREGISTERED"),
        (400, BAD_TOKEN, "invalid_token", "INVALID_ARGUMENT"),
        (400, BAD_VALUE, "wrong_message", "INVALID_ARGUMENT"),
        (400, UNKNOWN_NAME, "wrong_message", "INVALID_ARGUMENT"),
        (400, body(400, "too big", "INVALID_ARGUMENT", fcm_error("INVALID_ARGUMENT")), "wrong_message", None),
        (400, body(400, TOKEN_SENTENCE, "INVALID_ARGUMENT"), "wrong_message", "INVALID_ARGUMENT"),
        (413, b"Request Too Large", "wrong_message", "HTTP_413"),
        (400, b"<html>Bad Request</html>", "wrong_message", "HTTP_400"),
        (403, MISMATCH, "mismatch", "SENDER_ID_MISMATCH"),
        (403, NO_ROLE, "misconfigured", "PERMISSION_DENIED"),
        (404, WRONG_PROJECT, "misconfigured", "NOT_FOUND"),
        (404, GFE_404, "misconfigured", "HTTP_404"),
        (401, OAUTH, "misconfigured", "UNAUTHENTICATED"),
        (301, b"", "misconfigured", "HTTP_301"),
        (405, b"", "misconfigured", "HTTP_405"),
        (401, APNS, "platform_misconfigured", "THIRD_PARTY_AUTH_ERROR"),
        (401, OLD_APNS, "platform_misconfigured", "APNS_AUTH_ERROR"),
        (429, QUOTA, "throttled", "QUOTA_EXCEEDED"),
        (429, b"", "throttled", "HTTP_429"),
        (429, OF_A_DEVICE, "device_throttled", "QUOTA_EXCEEDED"),
        (429, quota({"description": "Device message rate"}), "device_throttled", "QUOTA_EXCEEDED"),
        (429, quota({"subject": "device"}, {"subject": "project:1"}), "throttled", "QUOTA_EXCEEDED"),
        (429, quota({"subject": "devices of the project"}), "throttled", "QUOTA_EXCEEDED"),
        (429, quota({"subject": "topic"}), "throttled", "QUOTA_EXCEEDED"),
        (429, quota(), "throttled", "QUOTA_EXCEEDED"),
        (503, BUSY, "unavailable", "UNAVAILABLE"),
        (500, BROKEN, "unavailable", "INTERNAL"),
        (503, UNSPECIFIED, "unavailable", "UNSPECIFIED_ERROR"),
        (400, body(400, "?", "INVALID_ARGUMENT", fcm_error("BRAND_NEW")), "wrong_message", "BRAND_NEW"),
        (502, b"<html>Bad Gateway</html>", "unavailable", "HTTP_502"),
        (408, b"", "unavailable", "HTTP_408"),
    ],
)
def test_each_known_answer(status: int, content: bytes, kind: Kind, code: str | None) -> None:
    found = verdict(status, content)
    assert (found.kind, found.status) == (kind, status)
    assert code is None or found.code == code


def test_an_accepted_message_has_its_name() -> None:
    found = verdict(200, b'{\n  "name": "projects/demo/messages/0:15%31bd"\n}\n')
    assert found == Verdict("accepted", name="projects/demo/messages/0:15%31bd", status=200)


@pytest.mark.parametrize(
    "content", [b"", b"{}", b'{"name": 5}', b"<html>Sign in to the Wi-Fi</html>", b"\xff"]
)
def test_a_good_status_without_a_name_is_not_believed(content: bytes) -> None:
    assert verdict(200, content).kind == "unknown"


@pytest.mark.spec("P013")
def test_a_token_message_beside_another_wrong_field_removes_nothing() -> None:
    of_token = body(
        400,
        TOKEN_SENTENCE + ".",
        "INVALID_ARGUMENT",
        fcm_error("INVALID_ARGUMENT"),
        bad_request("message.token"),
    )
    of_data = body(
        400, TOKEN_SENTENCE, "INVALID_ARGUMENT", fcm_error("INVALID_ARGUMENT"), bad_request("message.data")
    )
    assert verdict(400, of_token).kind == "invalid_token"
    assert verdict(400, of_data).kind == "wrong_message"


@pytest.mark.parametrize(
    ("status", "content", "headers", "after_s"),
    [
        (429, QUOTA, {"retry_after": "7"}, 7.0),
        (429, QUOTA, {}, THROTTLED_S),
        (429, OF_A_DEVICE, {}, THROTTLED_S),
        (429, OF_A_DEVICE, {"retry_after": "7"}, 7.0),
        (429, QUOTA, {"retry_after": "Thu, 09 Oct 2025 08:53:50 GMT"}, 30.0),
        (503, BUSY, {"retry_after": "30"}, 30.0),
        (503, BUSY, {}, None),
        (404, UNREGISTERED, {"retry_after": "30"}, None),
    ],
)
def test_what_may_be_tried_again_says_when(
    status: int, content: bytes, headers: dict[str, str], after_s: float | None
) -> None:
    assert verdict(status, content, **headers).after_s == after_s


@pytest.mark.parametrize(
    ("status", "content", "said", "advice"),
    [
        (404, WRONG_PROJECT, "Requested entity was not found.", "`project`"),
        (403, NO_ROLE, "cloudmessaging.messages.create", "Firebase Cloud Messaging API Admin"),
        (401, OAUTH, "invalid authentication credentials", "revoked"),
        (401, APNS, "Auth error from APNS", "upload the APNs key"),
        (404, GFE_404, "Error 404", "URL"),
        (301, b"", "HTTP status 301", "URL"),
        (400, UNKNOWN_NAME, 'Unknown name "key"', ""),
        (
            400,
            body(400, "Bad.", "INVALID_ARGUMENT", bad_request("message.android.ttl")),
            "message.android.ttl",
            "",
        ),
    ],
)
def test_the_detail_says_what_fcm_said_and_what_to_do(
    status: int, content: bytes, said: str, advice: str
) -> None:
    detail = verdict(status, content).detail
    assert said in detail
    assert advice in detail


@pytest.mark.spec("D08", "P013")
def test_a_value_that_google_repeats_is_left_out() -> None:
    """It may be personal; and the same fault of every message reads the same."""
    detail = verdict(400, BAD_VALUE).detail
    assert detail == "Invalid value at 'message.data[0].value' (TYPE_STRING)"
    assert verdict(400, BAD_VALUE.replace(b", 12", b", true")).detail == detail


TEXTS = st.sampled_from(
    ["", "UNREGISTERED", "INVALID_ARGUMENT", "NOT_FOUND", "SENDER_ID_MISMATCH", TOKEN_SENTENCE, FCM_ERROR]
) | st.text(max_size=20)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 600) | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)
TYPES = st.sampled_from(
    [f"type.googleapis.com/{FCM_ERROR}", FCM_ERROR, f"x{FCM_ERROR}", BAD_REQUEST, "", "FcmError"]
)
DETAILS = st.lists(
    st.fixed_dictionaries(
        {}, optional={"@type": TYPES | JSON, "errorCode": TEXTS | JSON, "fieldViolations": JSON}
    )
    | JSON,
    max_size=3,
)
ERRORS = st.fixed_dictionaries(
    {}, optional={"code": JSON, "message": TEXTS | JSON, "status": TEXTS | JSON, "details": DETAILS | JSON}
)
BODIES = st.one_of(
    st.binary(max_size=40),
    JSON.map(lambda value: json.dumps(value).encode()),
    st.fixed_dictionaries({"error": ERRORS | JSON}).map(lambda value: json.dumps(value).encode()),
)


def says_so(content: bytes) -> bool:
    """Whether FCM itself says that the address is dead: the rule once more, written another way."""
    try:
        error = json.loads(content)["error"]
        codes = [
            detail["errorCode"]
            for detail in error["details"]
            if isinstance(detail, dict)
            and isinstance(detail.get("@type"), str)
            and detail["@type"].split("/")[-1] == FCM_ERROR
            and isinstance(detail.get("errorCode"), str)
            and detail["errorCode"]
        ]
    except (ValueError, KeyError, TypeError):
        return False
    if codes[:1] == ["UNREGISTERED"]:
        return True
    return codes[:1] == ["INVALID_ARGUMENT"] and error.get("message") == TOKEN_SENTENCE


@pytest.mark.spec("P012", "P013", "P014")
@given(status=st.integers(100, 599), content=BODIES, wish=st.text(max_size=12))
def test_no_other_answer_takes_an_address_away(status: int, content: bytes, wish: str) -> None:
    found = verdict(status, content, retry_after=wish)
    assert found.kind in get_args(Kind)
    if found.kind in REMOVING:
        assert says_so(content)
        assert not 200 <= status < 300


@pytest.mark.spec("P053")
@given(status=st.sampled_from([400, 401, 403, 404]), content=BODIES)
def test_what_fcm_refuses_for_good_is_never_tried_again(status: int, content: bytes) -> None:
    assume(not any(word in content for word in (b"UNAVAILABLE", b"INTERNAL", b"QUOTA", b"EXHAUSTED")))
    assert verdict(status, content).kind not in {"throttled", "unavailable", "accepted"}
