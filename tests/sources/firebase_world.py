"""A Firebase project in a test: its changes, what towpath knows, and the people that its messages make."""

from __future__ import annotations

import base64
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Any

from towpath.message import Message
from towpath.source import Heard, Ignored, Incoming, Unfit
from towpath.sources._firebase_changes import Change, DocumentChange, UserChange
from towpath.sources.firebase import Firebase, FirebaseSettings
from towpath.testing.fakes import FakeKnown

PROJECT = "demo-towpath"


class Facts(FakeKnown):
    """What towpath knows. `forget` ends the time of what was kept for some seconds.

    `missed` are keys that were looked for without having been loaded: each is a query of its own.
    """

    def __init__(self) -> None:
        super().__init__()
        self.ttls: dict[str, float | None] = {}
        self.loaded: set[str] = set()
        self.missed: list[str] = []

    def load(self, keys: Collection[str]) -> None:
        self.loaded |= set(keys)

    def find(self, key: str) -> bytes | None:
        if key not in self.loaded:
            self.missed.append(key)
        return super().find(key)

    def keep(self, key: str, value: bytes, ttl_s: float | None = None) -> None:
        super().keep(key, value, ttl_s)
        self.ttls[key] = ttl_s

    def forget(self, within_s: float) -> None:
        for key in [key for key, ttl_s in self.ttls.items() if ttl_s is not None and ttl_s <= within_s]:
            self.drop(key)


class World:
    """One source and what it heard so far."""

    def __init__(self, **settings: Any) -> None:
        given = {
            "project": PROJECT,
            "collections": ["users"],
            "push_token": "a-token-of-16-chars",
            **settings,
        }
        self.source = Firebase(FirebaseSettings(**given))
        self.known = Facts()
        self.said: list[Heard] = []

    def hear(self, *changes: Change) -> list[Heard]:
        """What these changes say, in one page each."""
        said: list[Heard] = []
        for change in changes:
            said += self.source._changes.heard([change], self.known)
        self.said += said
        return said

    def take(self, request: Incoming) -> list[Heard]:
        """What a request says."""
        said = list(self.source.messages(request, self.known))
        self.said += said
        return said

    @property
    def people(self) -> dict[str, dict[str, Any]]:
        """The people that all messages so far make."""
        return people(self.said)


def typed(value: Any) -> dict[str, Any]:
    """A value in Firestore's typed JSON."""
    match value:
        case None:
            return {"nullValue": None}
        case bool():
            return {"booleanValue": value}
        case int():
            return {"integerValue": str(value)}
        case float():
            return {"doubleValue": value}
        case str():
            return {"stringValue": value}
        case bytes():
            return {"bytesValue": base64.b64encode(value).decode()}
        case datetime():
            return {"timestampValue": value.strftime("%Y-%m-%dT%H:%M:%S.%fZ")}
        case dict():
            return {"mapValue": {"fields": typed_fields(value)}}
        case list():
            return {"arrayValue": {"values": [typed(item) for item in value]}}
    return {"geoPointValue": {"latitude": value.latitude, "longitude": value.longitude}}


def typed_fields(fields: Mapping[str, Any]) -> dict[str, Any]:
    """A document's fields in Firestore's typed JSON."""
    return {name: typed(value) for name, value in fields.items()}


def moment(second: float) -> str:
    """RFC 3339 of a second of the tests' hour, with the microseconds that Firestore gives."""
    whole, fraction = divmod(round(second * 1_000_000), 1_000_000)
    return f"2026-11-20T10:{whole // 60:02d}:{whole % 60:02d}.{fraction:06d}Z"


def seconds(second: float) -> int:
    """The same as Unix seconds."""
    return 1_795_168_800 + int(second)


def written(
    document_id: str,
    fields: Mapping[str, Any] | None,
    second: float,
    /,
    *,
    created: float | None = None,
    old: Mapping[str, Any] | None = None,
    collection: str = "users",
    **more: Any,
) -> DocumentChange:
    """A document's version at a second, in Python's values; None is its deletion."""
    return DocumentChange(
        database=more.pop("database", "(default)"),
        path=f"{collection}/{document_id}",
        fields=None if fields is None else typed_fields(fields),
        update_time=moment(second),
        create_time="" if fields is None else moment(second if created is None else created),
        old=None if old is None else typed_fields(old),
        **more,
    )


def user(uid: str, at: float, *, created: float = 0, **fields: Any) -> UserChange:
    """An Auth user as of a second."""
    record = {"uid": uid, "metadata": {"creationTime": moment(created)}, **fields}
    return UserChange(uid, record, moment(at))


def user_gone(uid: str, at: float, **more: Any) -> UserChange:
    """An Auth user's deletion at a second."""
    return UserChange(uid, None, moment(at), **more)


def calls(said: Iterable[Heard]) -> list[Any]:
    """Messages in short: `(type, userId, traits)`; the reasons of what was ignored or unfit."""
    return [_call(heard) for heard in said]


def _call(heard: Heard) -> Any:
    match heard:
        case Message(type="identify"):
            return ("identify", heard.user_id, heard.traits)
        case Message(type="alias"):
            return ("alias", heard.previous_id, heard.user_id)
        case Message():
            return (heard.type, heard.user_id)
        case Ignored(reason):
            return reason
        case Unfit(code, reason):
            return (code, reason)


def people(said: Iterable[Heard]) -> dict[str, dict[str, Any]]:
    """Apply messages as a destination would: by userId, `""` removes an attribute."""
    found: dict[str, dict[str, Any]] = {}
    for heard in said:
        if not isinstance(heard, Message) or heard.user_id is None:
            continue
        if heard.type == "delete":
            found.pop(heard.user_id, None)
        elif heard.type == "identify":
            person = found.setdefault(heard.user_id, {})
            person |= heard.traits
            for name in [name for name, value in person.items() if value == ""]:
                del person[name]
    return found
