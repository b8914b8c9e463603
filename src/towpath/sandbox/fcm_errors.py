"""What the simulated FCM refuses with: Google's error bodies."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, TypeAlias

import msgspec

from .exchange import Answer

Document: TypeAlias = dict[str, Any]
Violation: TypeAlias = tuple[str, str]
"""A field by its path (empty: the whole body) and what is wrong with it."""

JSON = [(b"content-type", b"application/json; charset=UTF-8")]
FCM_ERROR = "type.googleapis.com/google.firebase.fcm.v1.FcmError"
BAD_REQUEST = "type.googleapis.com/google.rpc.BadRequest"
_ERROR_INFO = "type.googleapis.com/google.rpc.ErrorInfo"
_QUOTA_FAILURE = "type.googleapis.com/google.rpc.QuotaFailure"
_STATUSES = {
    400: "INVALID_ARGUMENT",
    401: "UNAUTHENTICATED",
    403: "PERMISSION_DENIED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
}
_CREDENTIAL = (
    "Expected OAuth 2 access token, login cookie or other valid authentication credential."
    " See https://developers.google.com/identity/sign-in/web/devconsole-project."
)
BAD_TOKEN = "The registration token is not a valid FCM registration token"  # noqa: S105 - a sentence


class Refusal(Exception):
    """A request that is answered with an error. `code` names it for counts."""

    def __init__(
        self,
        code: str,
        status: int,
        message: str,
        *details: Document,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.code = code
        self.status = status
        self.document = _document(status, message, details)
        self.headers = headers or {}

    def answer(self) -> Answer:
        """Return it as an HTTP answer."""
        headers = [(name.encode(), value.encode()) for name, value in self.headers.items()]
        return Answer(self.status, msgspec.json.encode(self.document), [*JSON, *headers])


def _document(status: int, message: str, details: Iterable[Document]) -> Document:
    error: Document = {"code": status, "message": message, "status": _STATUSES[status]}
    if listed := list(details):
        error["details"] = listed
    return {"error": error}


def _fcm(code: str) -> Document:
    return {"@type": FCM_ERROR, "errorCode": code}


def _bad_request(*violations: Violation) -> Document:
    listed = [
        {"field": field, "description": said} if field else {"description": said}
        for field, said in violations
    ]
    return {"@type": BAD_REQUEST, "fieldViolations": listed}


def malformed(violations: Iterable[Violation]) -> Refusal:
    """Refuse a body that does not fit the schema: every breach at once, and no FcmError."""
    listed = list(violations)
    return Refusal("malformed", 400, "\n".join(said for _, said in listed), _bad_request(*listed))


def invalid(field: str, message: str) -> Refusal:
    """Refuse a message that fits the schema and breaks a rule of FCM."""
    return Refusal("invalid_argument", 400, message, _bad_request((field, message)), _fcm("INVALID_ARGUMENT"))


def too_large(limit_bytes: int) -> Refusal:
    """Refuse a payload over the limit; the BadRequest of it names no field."""
    message = f"Message is too large. The maximum is {limit_bytes // 1024}K ({limit_bytes} bytes)."
    return Refusal("too_large", 400, message, {"@type": BAD_REQUEST}, _fcm("INVALID_ARGUMENT"))


def bad_condition() -> Refusal:
    """Refuse a condition that is none: without any details."""
    return Refusal("invalid_argument", 400, "Request contains an invalid argument.")


def bad_token(kind: str, shape: str) -> Refusal:
    """Refuse an address that is none. `shape` is `current`, `plain` (FcmError alone) or `older`."""
    field = f"message.{kind}"
    fcm = _fcm("INVALID_ARGUMENT")
    if shape == "older":
        violation = _bad_request((field, "Invalid registration token"))
        return Refusal("invalid_token", 400, "Request contains an invalid argument.", fcm, violation)
    details = [fcm] if shape == "plain" else [fcm, _bad_request((field, BAD_TOKEN))]
    return Refusal("invalid_token", 400, BAD_TOKEN, *details)


def unregistered() -> Refusal:
    """Refuse an address that was one."""
    return Refusal("unregistered", 404, "Requested entity was not found.", _fcm("UNREGISTERED"))


def no_project() -> Refusal:
    """Refuse a project that does not exist: like an address that is gone, but without FcmError."""
    return Refusal("no_project", 404, "Requested entity was not found.")


def mismatch() -> Refusal:
    """Refuse an address of another project."""
    return Refusal("sender_id_mismatch", 403, "SenderId mismatch", _fcm("SENDER_ID_MISMATCH"))


def third_party(*, gateway_words: bool) -> Refusal:
    """Refuse a platform whose credential is missing; some are told in the words of a missing OAuth token."""
    message = "Auth error from APNS or Web Push Service"
    if gateway_words:
        message = f"Request is missing required authentication credential. {_CREDENTIAL}"
    return Refusal("third_party_auth_error", 401, message, _fcm("THIRD_PARTY_AUTH_ERROR"))


def unauthenticated(given: str) -> Refusal:
    """Refuse a request without a token, or with one that is unknown, revoked or too old."""
    if given:
        info = _info("ACCESS_TOKEN_EXPIRED", "googleapis.com")
        message = f"Request had invalid authentication credentials. {_CREDENTIAL}"
    else:
        info = _info("CREDENTIALS_MISSING", "googleapis.com")
        message = f"Request is missing required authentication credential. {_CREDENTIAL}"
    return Refusal("unauthenticated", 401, message, info)


def forbidden(project: str) -> Refusal:
    """Refuse an account that may not send for a project."""
    resource = f"//cloudresourcemanager.googleapis.com/projects/{project}"
    message = (
        f"Permission 'cloudmessaging.messages.create' denied on resource '{resource}' (or it may not exist)."
    )
    return Refusal(
        "forbidden", 403, message, _info("IAM_PERMISSION_DENIED", "cloudresourcemanager.googleapis.com")
    )


def out_of_scope() -> Refusal:
    """Refuse a token that was given for other things."""
    info = _info("ACCESS_TOKEN_SCOPE_INSUFFICIENT", "googleapis.com")
    return Refusal("out_of_scope", 403, "Request had insufficient authentication scopes.", info)


def exhausted(subject: str, retry_after: str) -> Refusal:
    """Refuse what is over a quota: of the project or of one device."""
    violation = {"subject": subject, "description": "Message rate exceeded."}
    failure = {"@type": _QUOTA_FAILURE, "violations": [violation]}
    message = "Resource has been exhausted (e.g. check quota)."
    return Refusal(
        "quota_exceeded", 429, message, failure, _fcm("QUOTA_EXCEEDED"), headers=_later(retry_after)
    )


def unavailable(retry_after: str) -> Refusal:
    """Refuse because of load."""
    message = "The service is currently unavailable."
    return Refusal("unavailable", 503, message, _fcm("UNAVAILABLE"), headers=_later(retry_after))


def internal() -> Refusal:
    """Fail."""
    return Refusal("internal", 500, "Internal error encountered.", _fcm("INTERNAL"))


def _later(retry_after: str) -> dict[str, str]:
    return {"retry-after": retry_after} if retry_after else {}


def _info(reason: str, domain: str) -> Document:
    metadata = {"service": "fcm.googleapis.com", "method": "google.firebase.fcm.v1.FcmService.SendMessage"}
    return {"@type": _ERROR_INFO, "reason": reason, "domain": domain, "metadata": metadata}
