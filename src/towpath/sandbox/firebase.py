"""Events as Google posts them for a Firebase project: users and documents, as structured CloudEvents."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, TypeAlias

CloudEvent: TypeAlias = dict[str, Any]

PROJECT = "demo-towpath"
"""A project that exists in emulators and sandboxes only, by Google's own rule for `demo-`."""


def user_event(uid: str, action: str, at: float, *, project: str = PROJECT, **fields: Any) -> CloudEvent:
    """A user was `created`, `updated` or `deleted`, Unix seconds `at`; `fields` are Google's names."""
    created = fields.pop("created_at", at)
    user = {"uid": uid, **fields, "metadata": {"createTime": moment(created)}}
    return {
        "specversion": "1.0",
        "type": f"google.firebase.auth.user.v2.{action}",
        "id": f"user-{uid}-{action}-{at}",
        "source": f"//identitytoolkit.googleapis.com/projects/{project}",
        "subject": f"users/{uid}",
        "time": moment(at),
        "datacontenttype": "application/json",
        "data": {"oldValue": user} if action == "deleted" else {"value": user},
    }


def document_event(
    path: str,
    now: Mapping[str, Any] | None,
    at: float,
    *,
    before: Mapping[str, Any] | None = None,
    created_at: float = 0.0,
    project: str = PROJECT,
) -> CloudEvent:
    """A document was written, or deleted where `now` is None; values are Python's, typed here."""
    root = f"projects/{project}/databases/(default)/documents"
    versions = {"value": now, "oldValue": before}
    data = {
        name: {
            "name": f"{root}/{path}",
            "fields": _typed(fields)["mapValue"]["fields"],
            "createTime": moment(created_at or at),
            "updateTime": moment(at),
        }
        for name, fields in versions.items()
        if fields is not None
    }
    return {
        "specversion": "1.0",
        "type": "google.cloud.firestore.document.v1.written",
        "id": f"document-{path}-{at}",
        "source": f"//firestore.googleapis.com/projects/{project}/databases/(default)",
        "subject": f"documents/{path}",
        "time": moment(at),
        "datacontenttype": "application/json",
        "project": project,
        "database": "(default)",
        "document": path,
        "data": data,
    }


def moment(at: float) -> str:
    """Unix seconds as Google writes them: RFC 3339 with microseconds."""
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


def _typed(value: Any) -> dict[str, Any]:
    match value:
        case None:
            return {"nullValue": None}
        case bool():
            return {"booleanValue": value}
        case int():
            return {"integerValue": str(value)}
        case float():
            return {"doubleValue": value}
        case Mapping():
            return {"mapValue": {"fields": {name: _typed(held) for name, held in value.items()}}}
        case list():
            return {"arrayValue": {"values": [_typed(held) for held in value]}}
        case _:
            return {"stringValue": str(value)}
