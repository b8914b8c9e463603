"""Verdict: what FCM's answer to one message means, and what may be done about the address it went to."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal, TypeAlias

from msgspec import Struct

from ..http import Reply, retry_after
from ..vendors.fcm import Fault, read_fault, read_name
from .pace import THROTTLED_S

Kind: TypeAlias = Literal[
    "accepted",
    "unregistered",
    "invalid_token",
    "mismatch",
    "wrong_message",
    "misconfigured",
    "platform_misconfigured",
    "throttled",
    "device_throttled",
    "unavailable",
    "unknown",
]
"""accepted: FCM has it. unregistered, invalid_token: this address is dead, and these two alone say so.
mismatch: it belongs to another project. wrong_message: the message is at fault. misconfigured: the
credential, its role or the project; platform_misconfigured: only the part of APNs or web push. throttled: too
much for the project, and after_s is for all of it; device_throttled: for this address alone. unavailable: not
taken, try again after after_s. unknown: it may have been taken."""

INVALID_TOKEN = "the registration token is not a valid fcm registration token"  # noqa: S105 - FCM's sentence
DETAIL_LIMIT = 500
# Google's parser repeats a value it does not take, which may be personal.
_REPEATED_VALUE = re.compile(r"(Invalid value at '[^'\n]*' \(TYPE_[A-Z0-9_]+\)),[^\n]*")

_BY_CODE: Mapping[str, Kind] = {
    "UNREGISTERED": "unregistered",
    "INVALID_ARGUMENT": "wrong_message",
    "SENDER_ID_MISMATCH": "mismatch",
    "THIRD_PARTY_AUTH_ERROR": "platform_misconfigured",
    "APNS_AUTH_ERROR": "platform_misconfigured",  # its old name
    "QUOTA_EXCEEDED": "throttled",
    "UNAVAILABLE": "unavailable",
    "INTERNAL": "unavailable",
}
_BY_STATUS: Mapping[str, Kind] = {
    "INVALID_ARGUMENT": "wrong_message",
    "FAILED_PRECONDITION": "wrong_message",
    "OUT_OF_RANGE": "wrong_message",
    "UNAUTHENTICATED": "misconfigured",
    "PERMISSION_DENIED": "misconfigured",
    "NOT_FOUND": "misconfigured",
    "RESOURCE_EXHAUSTED": "throttled",
    "UNAVAILABLE": "unavailable",
    "INTERNAL": "unavailable",
    "UNKNOWN": "unavailable",
    "DEADLINE_EXCEEDED": "unavailable",
    "ABORTED": "unavailable",
    "CANCELLED": "unavailable",
}
_BY_HTTP: Mapping[int, Kind] = {
    400: "wrong_message",
    408: "unavailable",
    413: "wrong_message",
    425: "unavailable",
    429: "throttled",
}
_ADVICE: Mapping[tuple[Kind, int], str] = {
    ("misconfigured", 401): "the service account's key is not accepted: was it revoked?",
    (
        "misconfigured",
        403,
    ): "enable the Firebase Cloud Messaging API (V1) in this project, and give the service "
    "account the role Firebase Cloud Messaging API Admin",
    ("misconfigured", 404): "is `project` the id of the Firebase project?",
    ("platform_misconfigured", 401): "upload the APNs key, or the web push certificate, in the Firebase "
    "console: project settings, Cloud Messaging",
}
NOT_FCM = "that is no answer of FCM's: is the URL right, or a proxy in between?"


class Verdict(Struct, frozen=True, gc=False):
    """What became of one message.

    `code` is FCM's word for it, else Google's, else `HTTP_404`, or a transport's ending; `detail` a sentence
    for people, the same for the same fault, as far as FCM's own is; `name` that of an accepted message.
    `after_s` is how long to wait before the next attempt, where there is one. `status` is the HTTP status, 0
    without an answer.
    """

    kind: Kind
    code: str = ""
    detail: str = ""
    name: str = ""
    after_s: float | None = None
    status: int = 0


def judge(reply: Reply, now: float) -> Verdict:
    """Read an answer of FCM's: by its `FcmError` code, else Google's status, else the HTTP status.

    Source: firebase.google.com/docs/reference/fcm/rest/v1/ErrorCode, and "Manage FCM registration tokens".
    """
    if 200 <= reply.status < 300:
        return _taken(reply)
    fault = read_fault(reply.body)
    kind = _kind(fault or Fault(), reply.status)
    if fault is None:
        code, detail = f"HTTP_{reply.status}", _said_by_others(kind, reply)
    else:
        code = fault.error_code or fault.status or f"HTTP_{reply.status}"
        detail = _said(fault, _ADVICE.get((kind, reply.status), ""))
    return Verdict(kind, code, detail, "", _wish_s(kind, reply, now), reply.status)


def _wish_s(kind: Kind, reply: Reply, now: float) -> float | None:
    if kind not in ("throttled", "device_throttled", "unavailable"):
        return None
    wish_s = retry_after(reply.headers.get("retry-after"), now)
    return THROTTLED_S if wish_s is None and kind != "unavailable" else wish_s


def _taken(reply: Reply) -> Verdict:
    name = read_name(reply.body)
    if name:
        return Verdict("accepted", name=name, status=reply.status)
    detail = f"answered {reply.status} without the name of a message: is this FCM? {reply.text(100)}".strip()
    return Verdict("unknown", "NO_NAME", detail, status=reply.status)


def _said(fault: Fault, advice: str) -> str:
    """Say what FCM said, without the values it repeats, and what to do about it."""
    wrong = [
        f"{each.field}: {each.description}"
        for each in fault.violations
        if each.description not in fault.message
    ]
    said = _REPEATED_VALUE.sub(r"\1", " ".join([fault.message or fault.status, *wrong]).strip())
    return f"{said[:DETAIL_LIMIT]} ({advice})" if advice else said[:DETAIL_LIMIT]


def _said_by_others(kind: Kind, reply: Reply) -> str:
    said = reply.text(100) or f"HTTP status {reply.status}"
    return f"{said} ({NOT_FCM})" if kind == "misconfigured" else said


def _kind(fault: Fault, status: int) -> Kind:
    kind = _BY_CODE.get(fault.error_code) or _BY_STATUS.get(fault.status) or _by_http(status)
    if kind == "wrong_message" and _is_about_the_token(fault):
        return "invalid_token"
    if kind == "throttled" and _is_of_one_device(fault):
        return "device_throttled"
    return kind


def _by_http(status: int) -> Kind:
    if status >= 500:
        return "unavailable"
    # The rest is no answer of FCM's to a message: another URL, another project, something in between.
    return _BY_HTTP.get(status, "misconfigured")


def _is_of_one_device(fault: Fault) -> bool:
    """Whether it is the device's own quota that is used up; in doubt it is the project's.

    All else is the same. That `QuotaFailure` tells which is documented, in which words is not. Source:
    firebase.google.com/docs/reference/fcm/rest/v1/ErrorCode, QUOTA_EXCEEDED.
    """
    said = [one.lower() for one in fault.quotas]
    return bool(said) and all("device" in one and "project" not in one for one in said)


def _is_about_the_token(fault: Fault) -> bool:
    """Whether FCM itself says, in as many words, that the token is none; not that some field is wrong."""
    return (
        fault.error_code == "INVALID_ARGUMENT"
        and fault.message.strip().rstrip(".").lower() == INVALID_TOKEN
        and all(said.field in ("message.token", "message.fid") for said in fault.violations)
    )
