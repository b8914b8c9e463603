"""Requests that tell of changes in Firebase: CloudEvents in each form, legacy events, our forwarder's."""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Iterator, Mapping
from typing import Any, Final, NoReturn, TypeAlias
from urllib.parse import unquote

import msgspec
from msgspec import Struct

from ..source import Ignored, Incoming, Malformed, Unfit
from ._firebase_kinds import Change, DocumentChange, Fields, UserChange
from ._firebase_messages import kept_of
from ._firebase_settings import DEFAULT_DATABASE
from ._firebase_values import Unreadable, document, wire

BATCH: Final = "application/cloudevents-batch"
SHOWN: Final = 100
"""Characters of what an event calls itself that a reason repeats."""
RAW_STARTS: Final = (b"\n", b"\x12", b"\x1a")
"""How DocumentEventData begins: the tags of its three fields. None of them is a letter of base64."""

FIRESTORE: Final = re.compile(
    r"google\.cloud\.firestore\.document\.v1\.(created|updated|deleted|written)(\.withAuthContext)?"
    r"|providers/cloud\.firestore/eventTypes/document\.(create|update|delete|write)"
)
AUTH: Final = re.compile(
    r"google\.firebase\.auth\.user\.(?:v[12]\.)?(created?|deleted?|updated?)"
    r"|providers/firebase\.auth/eventTypes/user\.(create|delete)"
)
ENDINGS: Final = ("document.v1.deleted", "document.v1.written", "document.delete", "document.write")
"""Types that tell of deletions, from `document.` on."""
DOCUMENT_NAME: Final = re.compile(r"projects/([^/]+)/databases/([^/]+)/documents/(.+)")
PROJECT: Final = re.compile(r"projects/([^/]+)")


Told: TypeAlias = Change | Unfit | Ignored
"""What an event comes to: a change, something unfit, or nothing at all."""


class Event(Struct, frozen=True):
    """One event, whatever it came as. `data` is bytes (protobuf) or what the JSON was."""

    type: str
    id: str
    time: str
    source: str
    subject: str
    data: Any
    database: str = ""
    tenant: str = ""


def changes(request: Incoming, project: str) -> Iterator[Told]:
    """The changes a request tells of, in order; of a batch, what cannot be read is named in its place.

    Raises `Malformed` where nothing of it can be read.
    """
    batch = _batch(request)
    if batch is None:
        yield _told(_event(request), request.body, project)
        return
    read = [_of_batch(item, project) for item in batch]
    errors = [one for one in read if isinstance(one, Malformed)]
    if errors and len(errors) == len(read):
        raise errors[0]
    for index, (one, item) in enumerate(zip(read, batch, strict=True)):
        if isinstance(one, Malformed):
            yield Unfit("event", f"item {index} of a batch cannot be read: {one}", kept_of(item))
        else:
            yield one


def _of_batch(item: bytes, project: str) -> Told | Malformed:
    try:
        return _told(_structured(_object(_json(item))), item, project)
    except Malformed as error:
        return error


def _told(event: Event, raw: bytes, project: str) -> Told:
    try:
        return _change(event, project)
    except (Unreadable, Malformed) as error:
        says = f"event {event.id[:SHOWN]} of type {event.type[:SHOWN]} cannot be read: {error}"
        return Unfit("event", says, kept_of(raw))


def _batch(request: Incoming) -> list[bytes] | None:
    """The events of a batch as they came; None where the request is one event."""
    declared = _content_type(request).startswith(BATCH)
    if "ce-type" in request.headers or not (declared or request.body.lstrip()[:1] == b"["):
        return None
    return [bytes(item) for item in _json(request.body, list[msgspec.Raw])]


def _event(request: Incoming) -> Event:
    if "ce-type" not in request.headers:
        return _one(_object(_json(request.body)))
    attributes = {
        name.removeprefix("ce-"): unquote(value)
        for name, value in request.headers.items()
        if name.startswith("ce-")
    }
    return _cloud_event(attributes, _data(request.body, _content_type(request)))


def _content_type(request: Incoming) -> str:
    return request.headers.get("content-type", "").lower()


def _one(given: Fields) -> Event:
    """JSON that is one event: structured, wrapped by Pub/Sub, legacy, or of our forwarder."""
    if "specversion" in given:
        return _structured(given)
    if isinstance(message := given.get("message"), Mapping):
        return _from_pubsub(message)
    if "kind" in given and "user" in given:
        return _forwarded(given)
    if "data" in given:
        return _legacy(given)
    return _refuse()


def _structured(given: Fields) -> Event:
    if "data_base64" in given:
        return _cloud_event(given, _unwrapped(given["data_base64"]))
    data = given.get("data")
    is_proto = "protobuf" in str(given.get("datacontenttype", ""))
    return _cloud_event(given, _unwrapped(data) if is_proto and isinstance(data, str) else data)


def _from_pubsub(message: Fields) -> Event:
    """A push subscription's body: the CloudEvent's attributes are the message's, its data is base64."""
    given = _object(message.get("attributes") or {})
    attributes = {name.removeprefix("ce-"): value for name, value in given.items()}
    data = _unwrapped(message.get("data"))
    if "type" in attributes:
        content_type = str(given.get("content-type") or attributes.get("datacontenttype") or "")
        return _cloud_event(attributes, _data(data, content_type.lower()))
    return _one(_object(_json(data)))


def _cloud_event(attributes: Fields, data: Any) -> Event:
    def text(name: str) -> str:
        return str(attributes.get(name) or "")

    names = ("type", "id", "time", "source", "subject")
    kind, identifier, time, source, subject = (text(name) for name in names)
    return Event(kind, identifier, time, source, subject, data, text("database"), text("tenantid"))


def _legacy(given: Fields) -> Event:
    """An event of the first generation: `{data, context}`, or the context's fields beside the data."""
    context = _object(given.get("context") or given)
    resource = context.get("resource")
    name = resource.get("name") if isinstance(resource, Mapping) else resource
    told = (context.get(field) for field in ("eventType", "eventId", "timestamp"))
    kind, identifier, time = (str(value or "") for value in told)
    return Event(kind, identifier, time, str(name or ""), "", given["data"])


def _forwarded(given: Fields) -> Event:
    """What examples/firebase-forwarder sends: `{kind: created|deleted, user, context}`."""
    event = _legacy({"data": given["user"], "context": given.get("context") or {}})
    if not AUTH.fullmatch(event.type):
        return msgspec.structs.replace(event, type=f"google.firebase.auth.user.v1.{given['kind']}")
    return event


def _data(body: bytes, content_type: str) -> Any:
    """Data as its content type says; protobuf may come as base64, as the Firestore emulator sends it."""
    if "json" in content_type:
        return _json(body)
    if body.startswith(RAW_STARTS):
        return body
    if body.lstrip()[:1] == b"{":
        return _json(body)
    return _unwrapped(body)


def _change(event: Event, project: str) -> Told:
    if FIRESTORE.fullmatch(event.type):
        return _document_change(event, project)
    if found := AUTH.fullmatch(event.type):
        return _user_change(event, project, deleted=(found[1] or found[2]).startswith("delete"))
    return Unfit(
        "event_type",
        f"event {event.id[:SHOWN]} is of type {event.type[:SHOWN] or '(none)'}, which towpath does not read",
    )


def _document_change(event: Event, project: str) -> Told:
    value, old = _versions(event.data)
    if value is None and old is None and _is_of_nothing(event):
        return Ignored("unknown")
    named = str((value or old or {}).get("name") or "")
    found = DOCUMENT_NAME.fullmatch(named)
    if found is None:
        raise Unreadable("it has no document with a name")
    if found[1] != project:
        return _of_another(event, found[1], project)
    path, database = found[3], found[2] or event.database or DEFAULT_DATABASE
    last = value or old or {}
    return DocumentChange(
        database=database,
        path=path,
        fields=None if value is None else _object(value.get("fields") or {}),
        update_time=str(last.get("updateTime") or event.time),
        create_time=str(last.get("createTime") or ""),
        old=None if old is None else _object(old.get("fields") or {}),
        event_id=event.id,
        at=event.time,
    )


def _is_of_nothing(event: Event) -> bool:
    """Whether it tells of the deletion of a document that was not there: neither now nor before."""
    if not event.type.startswith(ENDINGS, event.type.rfind("document.")):
        return False
    data = dict(wire(event.data)) if isinstance(event.data, bytes) else event.data
    return not any(data.get(name) for name in (1, 2, "value", "oldValue", "old_value"))


def _versions(data: Any) -> tuple[Fields | None, Fields | None]:
    """The document now and before, as typed JSON; None where there was or is none."""
    if isinstance(data, bytes):
        fields = dict(wire(data))
        return _document(fields.get(1)), _document(fields.get(2))
    if not isinstance(data, Mapping):
        raise Unreadable("it has no data of a document")
    told = (data.get("value"), data.get("oldValue") or data.get("old_value"))
    now, before = (held if isinstance(held, Mapping) and held.get("name") else None for held in told)
    return now, before


def _document(data: Any) -> Fields | None:
    return document(data) if isinstance(data, bytes) else None


def _user_change(event: Event, project: str, *, deleted: bool) -> Change | Unfit:
    if not isinstance(event.data, Mapping):
        raise Unreadable("it has no data of a user")
    named = PROJECT.search(event.source)
    if named is not None and named[1] != project:
        return _of_another(event, named[1], project)
    data = event.data
    user = data.get("value") or data.get("oldValue") or data.get("old_value") or data
    uid = user.get("uid") or user.get("localId") if isinstance(user, Mapping) else None
    if not isinstance(uid, str) or not uid:
        raise Unreadable("it has no user with a uid")
    tenant = event.tenant or str(user.get("tenantId") or "")
    now, old = (None, user) if deleted else (user, None)
    return UserChange(uid, now, event.time, event.id, tenant, old=old)


def _of_another(event: Event, told: str, project: str) -> Unfit:
    says = f"event {event.id[:SHOWN]} is of project {told[:SHOWN]}, and this source is of project {project}"
    return Unfit("project", says)


def _json(body: bytes, kind: Any = Any) -> Any:
    try:
        return msgspec.json.decode(body, type=kind)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise Malformed(f"its body is no JSON ({error})") from error


def _object(value: Any) -> Fields:
    if not isinstance(value, Mapping):
        raise Malformed("its JSON is not an event's")
    return value


def _unwrapped(data: Any) -> bytes:
    try:
        return base64.b64decode(data, validate=True)
    except (binascii.Error, TypeError, ValueError):
        raise Malformed("its data is neither protobuf nor base64 nor JSON") from None


def _refuse() -> NoReturn:
    raise Malformed("it is no CloudEvent, no legacy event and nothing the forwarder sends")
