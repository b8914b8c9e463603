"""Firebase Cloud Messaging, HTTP v1: where a message is sent, and what an answer says, as data."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import quote

import msgspec
from msgspec import Struct

from towpath.http import JSON_TYPE

FCM_URL = "https://fcm.googleapis.com"
SCOPES = ("https://www.googleapis.com/auth/firebase.messaging",)
FCM_ERROR = "google.firebase.fcm.v1.FcmError"
BAD_REQUEST = "google.rpc.BadRequest"
QUOTA_FAILURE = "google.rpc.QuotaFailure"


class Violation(Struct, frozen=True):
    """A field of the request that FCM refuses, and why."""

    field: str
    description: str


class Fault(Struct, frozen=True):
    """An error body of FCM's. What it does not say is empty.

    `error_code` is that of the `FcmError` detail (UNREGISTERED …), `status` Google's general one
    (NOT_FOUND …), `message` a sentence for people, `quotas` what is said of each quota that is used up.
    Source: firebase.google.com/docs/reference/fcm/rest/v1, `ErrorCode` and `FcmError`.
    """

    error_code: str = ""
    status: str = ""
    message: str = ""
    violations: tuple[Violation, ...] = ()
    quotas: tuple[str, ...] = ()


def send_path(project: str) -> str:
    """Path of `messages:send`; `project` is an id or a number."""
    return f"/v1/projects/{quote(project, safe='')}/messages:send"


def send_headers(authorization: Mapping[str, str]) -> dict[str, str]:
    """Headers of `messages:send` beside the credential's."""
    return {"content-type": JSON_TYPE, **authorization}


def read_name(body: bytes) -> str:
    """Read the name of an accepted message, `projects/P/messages/ID`; empty where there is none."""
    return _text(_mapping(_decoded(body)).get("name"))


def read_fault(body: bytes) -> Fault | None:
    """Read an error body; None where it is none of Google's."""
    error = _mapping(_decoded(body)).get("error")
    if not isinstance(error, dict):
        return None
    details = [detail for detail in _sequence(error.get("details")) if isinstance(detail, dict)]
    return Fault(
        next(
            (code for detail in _of_type(details, FCM_ERROR) if (code := _text(detail.get("errorCode")))), ""
        ),
        _text(error.get("status")),
        _text(error.get("message")),
        tuple(violation for detail in _of_type(details, BAD_REQUEST) for violation in _violations(detail)),
        tuple(quota for detail in _of_type(details, QUOTA_FAILURE) for quota in _quotas(detail)),
    )


def _of_type(details: list[dict[str, Any]], name: str) -> Iterator[dict[str, Any]]:
    return (detail for detail in details if _text(detail.get("@type")).rpartition("/")[2] == name)


def _violations(detail: Mapping[str, Any]) -> Iterator[Violation]:
    for violation in _sequence(detail.get("fieldViolations")):
        said = _mapping(violation)
        yield Violation(_text(said.get("field")), _text(said.get("description")))


def _quotas(detail: Mapping[str, Any]) -> Iterator[str]:
    for violation in _sequence(detail.get("violations")):
        said = _mapping(violation)
        yield f"{_text(said.get('subject'))} {_text(said.get('description'))}".strip()


def _decoded(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _sequence(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _text(value: Any) -> str:
    return value if isinstance(value, str) else ""
