"""FCM's answers as data: the fields of its error bodies, whatever else is in them."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from towpath.vendors.fcm import (
    BAD_REQUEST,
    FCM_ERROR,
    Fault,
    Violation,
    read_fault,
    read_name,
    send_headers,
    send_path,
)

pytestmark = pytest.mark.spec("P053")
PREFIX = "type.googleapis.com/"


def body(*details: Any, **fields: Any) -> bytes:
    return json.dumps({"error": {**fields, "details": list(details)}}).encode()


@pytest.mark.spec("D11")
@pytest.mark.parametrize(
    ("project", "path"),
    [
        ("demo-push", "/v1/projects/demo-push/messages:send"),
        ("123456789012", "/v1/projects/123456789012/messages:send"),
        ("a/../b?c#d é", "/v1/projects/a%2F..%2Fb%3Fc%23d%20%C3%A9/messages:send"),
    ],
)
def test_the_project_is_encoded_in_the_path(project: str, path: str) -> None:
    assert send_path(project) == path


def test_headers_are_the_credentials_and_the_type() -> None:
    assert send_headers({"authorization": "Bearer x"}) == {
        "authorization": "Bearer x",
        "content-type": "application/json",
    }


@pytest.mark.parametrize(
    ("content", "name"),
    [
        (b'{"name": "projects/p/messages/0:1%2"}', "projects/p/messages/0:1%2"),
        (b'{"name": null}', ""),
        (b"{}", ""),
        (b"[]", ""),
        (b'"name"', ""),
        (b"", ""),
        (b"\xff\xfe", ""),
    ],
)
def test_the_name_of_an_accepted_message(content: bytes, name: str) -> None:
    assert read_name(content) == name


def test_an_error_is_read_whole() -> None:
    violations = [{"field": "message.data", "description": "too big"}, {"description": "no field"}]
    content = body(
        {"@type": PREFIX + "google.rpc.ErrorInfo", "errorCode": "NOT_THIS", "reason": "X"},
        {"@type": PREFIX + FCM_ERROR, "errorCode": "INVALID_ARGUMENT"},
        {"@type": PREFIX + BAD_REQUEST, "fieldViolations": violations},
        code=400,
        message="It is wrong.",
        status="INVALID_ARGUMENT",
    )
    found = (Violation("message.data", "too big"), Violation("", "no field"))
    assert read_fault(content) == Fault("INVALID_ARGUMENT", "INVALID_ARGUMENT", "It is wrong.", found)


@pytest.mark.parametrize(
    "type_name",
    ["", "google.firebase.fcm.v1.FcmErrors", f"{PREFIX}x{FCM_ERROR}", f"{PREFIX}{FCM_ERROR}/x", BAD_REQUEST],
)
def test_only_an_fcm_error_has_a_code(type_name: str) -> None:
    fault = read_fault(body({"@type": type_name, "errorCode": "UNREGISTERED"}, status="NOT_FOUND"))
    assert fault == Fault("", "NOT_FOUND")


@pytest.mark.parametrize(
    "content", [b"", b"<html>", b"[]", b'{"error": "x"}', b'{"error": null}', b"\x80", b"[" * 100_000]
)
def test_what_is_no_error_of_googles(content: bytes) -> None:
    assert read_fault(content) is None


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)
DETAIL = st.fixed_dictionaries(
    {"@type": st.sampled_from([PREFIX + FCM_ERROR, PREFIX + BAD_REQUEST]) | JSON},
    optional={"errorCode": JSON, "fieldViolations": JSON},
)


@given(JSON, JSON, st.lists(DETAIL | JSON, max_size=3) | JSON)
def test_any_shape_is_read_without_an_error(message: Any, status: Any, details: Any) -> None:
    fault = read_fault(
        json.dumps({"error": {"message": message, "status": status, "details": details}}).encode()
    )
    assert isinstance(fault, Fault)
    assert fault.message == (message if isinstance(message, str) else "")
    assert fault.status == (status if isinstance(status, str) else "")
