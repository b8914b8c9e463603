"""Requests about Firebase in every form they come in, made with Google's own types where there are any."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest
from google.cloud.firestore_v1 import _helpers
from google.cloud.firestore_v1.types import Document
from hypothesis import given, settings
from hypothesis import strategies as st

from towpath.feed import kept
from towpath.message import Message
from towpath.source import Ignored, Incoming, Malformed, Unfit
from towpath.sources._firebase_changes import DocumentChange, UserChange
from towpath.sources._firebase_events import changes

from .firebase_world import PROJECT, World, calls, moment, seconds, typed_fields

NAME = f"projects/{PROJECT}/databases/(default)/documents/users/u1"
TYPE = "google.cloud.firestore.document.v1."
AUTH = "google.firebase.auth.user."
JSON = {"content-type": "application/json"}
USER = {
    "uid": "u1",
    "email": "a@b.c",
    "emailVerified": True,
    "displayName": "Ann",
    "photoURL": "https://x/y",
    "phoneNumber": "+431",
    "disabled": False,
    "metadata": {"createTime": moment(1), "lastSignInTime": moment(2)},
}
PERSON = {
    "email": "a@b.c",
    "email_verified": True,
    "display_name": "Ann",
    "photo_url": "https://x/y",
    "phone": "+431",
    "disabled": False,
    "created_at": seconds(1),
    "last_sign_in": seconds(2),
}


def snapshot(fields: Mapping[str, Any], second: int, name: str = NAME) -> Document:
    """A document as Google's library writes it."""
    at = datetime(2026, 11, 20, 10, 0, second, 123456, tzinfo=UTC)
    made = datetime(2026, 11, 20, 10, 0, 1, tzinfo=UTC)
    return Document(name=name, fields=_helpers.encode_dict(fields), create_time=made, update_time=at)


def event_data(value: Document | None = None, old: Document | None = None) -> bytes:
    """DocumentEventData {value: 1, old_value: 2, update_mask: 3} of google.events.cloud.firestore.v1."""
    parts = [(0x0A, value), (0x12, old)]
    encoded = [(tag, Document.serialize(part)) for tag, part in parts if part is not None]
    return b"".join(bytes([tag]) + varint(len(data)) + data for tag, data in encoded) + b"\x1a\x00"


def varint(size: int) -> bytes:
    out = b""
    while size >= 0x80:
        out += bytes([size & 0x7F | 0x80])
        size >>= 7
    return out + bytes([size])


def cloud_event(kind: str, **more: str) -> dict[str, str]:
    """The attributes that Eventarc gives an event of a document."""
    return {
        "specversion": "1.0",
        "id": "e1",
        "type": kind,
        "source": f"//firestore.googleapis.com/projects/{PROJECT}/databases/(default)",
        "subject": "documents/users/u1",
        "time": "2026-11-20T10:00:09Z",
        "project": PROJECT,
        "database": "(default)",
        "document": "users/u1",
        **more,
    }


def binary(kind: str, body: bytes, content_type: str = "application/protobuf", **more: str) -> Incoming:
    headers = {f"ce-{name}": value for name, value in cloud_event(kind, **more).items()}
    return Incoming("POST", headers={**headers, "content-type": content_type}, body=body)


def structured(given: Any, content_type: str = "application/cloudevents+json") -> Incoming:
    return Incoming("POST", headers={"content-type": content_type}, body=msgspec.json.encode(given))


def json_data(fields: Mapping[str, Any] | None, old: Mapping[str, Any] | None = None) -> dict[str, Any]:
    def one(values: Mapping[str, Any], second: int) -> dict[str, Any]:
        times = {"createTime": moment(1), "updateTime": moment(second)}
        return {"name": NAME, "fields": typed_fields(values), **times}

    told = {"value": fields and one(fields, 6), "oldValue": old and one(old, 5)}
    return {name: value for name, value in told.items() if value}


WRITTEN = {"attributes": {"a": 1}}
DATA = event_data(snapshot(WRITTEN, 6), snapshot({"attributes": {"a": 0, "b": 1}}, 5))
FORMS = {
    "binary": binary(TYPE + "written", DATA),
    "binary, base64 as the emulator sends it": binary(TYPE + "written", base64.b64encode(DATA)),
    "binary, with auth context": binary(TYPE + "written.withAuthContext", DATA, authtype="api_key"),
    "binary, updated": binary(TYPE + "updated", DATA),
    "binary, JSON": binary(
        TYPE + "updated",
        msgspec.json.encode(json_data(WRITTEN, {"attributes": {"a": 0, "b": 1}})),
        "application/json; charset=utf-8",
    ),
    "structured, JSON": structured(
        {**cloud_event(TYPE + "written"), "data": json_data(WRITTEN, {"attributes": {"b": 1}})}
    ),
    "structured, as the functions emulator takes it": structured(
        {**cloud_event(TYPE + "written"), "data": json_data(WRITTEN, {"attributes": {"b": 1}})},
        "application/json",
    ),
    "structured, base64": structured(
        {
            **cloud_event(TYPE + "written"),
            "datacontenttype": "application/protobuf",
            "data_base64": base64.b64encode(DATA).decode(),
        }
    ),
    "structured, base64 as data": structured(
        {
            **cloud_event(TYPE + "written"),
            "datacontenttype": "application/protobuf",
            "data": base64.b64encode(DATA).decode(),
        }
    ),
    "batch": structured(
        [{**cloud_event(TYPE + "written"), "data": json_data(WRITTEN, {"attributes": {"b": 1}})}],
        "application/cloudevents-batch+json",
    ),
    "Pub/Sub": structured(
        {
            "subscription": "projects/p/subscriptions/s",
            "message": {
                "messageId": "1",
                "data": base64.b64encode(DATA).decode(),
                "attributes": {
                    "content-type": "application/protobuf",
                    **{f"ce-{name}": value for name, value in cloud_event(TYPE + "written").items()},
                },
            },
        },
        "application/json",
    ),
    "Pub/Sub, a structured event inside": structured(
        {
            "message": {
                "data": base64.b64encode(
                    msgspec.json.encode(
                        {
                            **cloud_event(TYPE + "written"),
                            "data": json_data(WRITTEN, {"attributes": {"b": 1}}),
                        }
                    )
                ).decode()
            }
        },
        "application/json",
    ),
    "first generation": structured(
        {
            "data": {**json_data(WRITTEN, {"attributes": {"b": 1}}), "updateMask": {}},
            "context": {
                "eventId": "e1",
                "timestamp": moment(9),
                "eventType": "providers/cloud.firestore/eventTypes/document.write",
                "resource": {"name": NAME, "service": "firestore.googleapis.com"},
            },
        },
        "application/json",
    ),
}


@pytest.mark.spec("F054", "F059")
@pytest.mark.parametrize("name", FORMS)
def test_a_document_in_every_form(name: str) -> None:
    [message] = World().take(FORMS[name])
    assert isinstance(message, Message)
    assert (message.type, message.user_id) == ("identify", "u1")
    assert message.traits == {"a": 1, "b": "", "created_at": seconds(1)}
    at = message.context["source"]["firebase"]
    assert (at["project"], at["database"], at["document"]) == (PROJECT, "(default)", "users/u1")


@pytest.mark.spec("F050", "F054")
def test_the_version_is_the_documents_and_never_the_events_time() -> None:
    [change] = changes(FORMS["binary"], PROJECT)
    assert isinstance(change, DocumentChange)
    assert change.update_time == "2026-11-20T10:00:06.123456Z"
    assert change.create_time == "2026-11-20T10:00:01Z"
    assert change.at == "2026-11-20T10:00:09Z"


@pytest.mark.spec("F036", "F054")
@pytest.mark.parametrize("kind", ["deleted", "written", "deleted.withAuthContext"])
def test_a_deleted_document(kind: str) -> None:
    [change] = changes(binary(TYPE + kind, event_data(old=snapshot(WRITTEN, 6))), PROJECT)
    assert isinstance(change, DocumentChange)
    assert change.fields is None
    assert change.update_time == "2026-11-20T10:00:06.123456Z"
    said = World().take(binary(TYPE + kind, event_data(old=snapshot(WRITTEN, 6))))
    assert calls(said) == [("delete", "u1")]


@pytest.mark.spec("F054")
def test_a_deleted_document_of_the_first_generation() -> None:
    given = {
        "data": {**json_data(None, WRITTEN), "value": {}, "updateMask": {}},
        "context": {
            "eventId": "e1",
            "timestamp": moment(9),
            "eventType": "providers/cloud.firestore/eventTypes/document.delete",
        },
    }
    assert calls(World().take(structured(given, "application/json"))) == [("delete", "u1")]


NOTHING: dict[str, Incoming] = {
    "protobuf": binary(TYPE + "deleted", event_data()),
    "protobuf of no bytes": binary(TYPE + "deleted.withAuthContext", b""),
    "written": binary(TYPE + "written", event_data()),
    "json": structured({**cloud_event(TYPE + "deleted"), "data": {}}),
    "first generation": structured(
        {
            "data": {"value": {}, "oldValue": {}, "updateMask": {}},
            "context": {"eventId": "e1", "eventType": "providers/cloud.firestore/eventTypes/document.delete"},
        },
        "application/json",
    ),
}


@pytest.mark.spec("F036")
@pytest.mark.parametrize("form", NOTHING)
def test_a_delete_of_a_document_that_is_not_there_changes_nothing(form: str) -> None:
    assert World().take(NOTHING[form]) == [Ignored("unknown")]


@pytest.mark.spec("F053")
@pytest.mark.parametrize(
    ("kind", "data"),
    [("created", {}), ("updated", {}), ("deleted", {"oldValue": {"fields": {}}}), ("deleted", None)],
)
def test_an_event_without_its_document_is_kept(kind: str, data: Any) -> None:
    [unfit] = World().take(structured({**cloud_event(TYPE + kind), "data": data}))
    assert isinstance(unfit, Unfit)


@pytest.mark.spec("F006", "F054")
def test_a_named_database_and_a_nested_path() -> None:
    name = f"projects/{PROJECT}/databases/eu-1/documents/tenants/t 1/members/ä"
    world = World(collections=[{"path": "tenants/{tenant}/members", "database": "eu-1"}])
    data = event_data(snapshot(WRITTEN, 6, name))
    assert calls(world.take(binary(TYPE + "created", data, database="eu-1"))) == [
        ("identify", "ä", {"a": 1, "created_at": seconds(1)})
    ]


def auth_source(project: str = PROJECT) -> str:
    return f"//identitytoolkit.googleapis.com/projects/{project}"


AUTH_FORMS = {
    "v2, binary": binary(
        AUTH + "v2.created",
        msgspec.json.encode({"value": USER}),
        "application/json",
        source=auth_source(),
    ),
    "v2, structured": structured(
        {**cloud_event(AUTH + "v2.created", source=auth_source()), "data": {"value": USER}}
    ),
    "v2, updated": structured(
        {**cloud_event(AUTH + "v2.updated", source=auth_source()), "data": {"value": USER, "oldValue": {}}}
    ),
    "v1": structured({**cloud_event(AUTH + "v1.created", source=auth_source()), "data": USER}),
    "first generation": structured(
        {
            "eventId": "e1",
            "eventType": "providers/firebase.auth/eventTypes/user.create",
            "resource": {"name": f"projects/{PROJECT}", "service": "firebaseauth.googleapis.com"},
            "timestamp": moment(9),
            "params": {},
            "data": USER,
        },
        "application/json",
    ),
    "forwarder": structured(
        {
            "kind": "created",
            "user": {
                **USER,
                "metadata": {
                    "creationTime": "Fri, 20 Nov 2026 10:00:01 GMT",
                    "lastSignInTime": "Fri, 20 Nov 2026 10:00:02 GMT",
                },
            },
            "context": {
                "eventId": "e1",
                "timestamp": moment(9),
                "eventType": "google.firebase.auth.user.create",
                "resource": {"service": "firebaseauth.googleapis.com", "name": f"projects/{PROJECT}"},
            },
        },
        "application/json",
    ),
    "forwarder, without a context": structured(
        {"kind": "created", "user": USER, "context": {"timestamp": moment(9)}}, "application/json"
    ),
}


@pytest.mark.spec("F010", "F021", "F054")
@pytest.mark.parametrize("name", AUTH_FORMS)
def test_a_user_in_every_form(name: str) -> None:
    assert calls(World().take(AUTH_FORMS[name])) == [("identify", "u1", PERSON)]


@pytest.mark.spec("F023")
@pytest.mark.parametrize(
    "metadata",
    [
        {"metadata": {"createTime": moment(1), "lastSignInTime": moment(2)}},
        {"metadata": {"createdAt": moment(1), "lastSignedInAt": moment(2)}},
        {"metadata": {"creationTime": moment(1), "lastSignInTime": moment(2)}},
        {"metadata": {}, "createdAt": str(seconds(1) * 1000), "lastLoginAt": str(seconds(2) * 1000)},
        {"createdAt": seconds(1) * 1000, "lastLoginAt": seconds(2) * 1000, "metadata": None},
    ],
)
def test_every_name_of_the_times(metadata: dict[str, Any]) -> None:
    user = {**USER, **metadata}
    given = {**cloud_event(AUTH + "v1.created", source=auth_source()), "data": user}
    assert calls(World().take(structured(given))) == [("identify", "u1", PERSON)]


@pytest.mark.spec("F018", "F019", "F023")
@pytest.mark.parametrize("time", [None, "", 0, "soon", {}, "0"])
def test_times_that_are_none_are_left_out(time: Any) -> None:
    user = {"uid": "u1", "email": "a@b", "metadata": {"createTime": time, "lastSignInTime": time}}
    given = {**cloud_event(AUTH + "v1.created", source=auth_source()), "data": user}
    [message] = World().take(structured(given))
    assert isinstance(message, Message)
    assert message.traits == {"email": "a@b", "email_verified": False, "disabled": False}


@pytest.mark.spec("F020", "F054")
@pytest.mark.parametrize("kind", ["v2.deleted", "v1.deleted", "delete"])
def test_a_deleted_user(kind: str) -> None:
    data = {"oldValue": USER} if kind.startswith("v2") else USER
    given = {**cloud_event(AUTH + kind, source=auth_source(), tenantid="t1"), "data": data}
    [change] = changes(structured(given), PROJECT)
    assert isinstance(change, UserChange)
    assert (change.uid, change.user, change.tenant) == ("u1", None, "t1")
    assert calls(World().take(structured(given))) == [("delete", "u1")]


@pytest.mark.spec("F052")
def test_an_event_that_is_delivered_twice_has_one_effect() -> None:
    world = World()
    assert calls(world.take(FORMS["binary"]))[0][0] == "identify"
    assert world.take(FORMS["binary"]) == [Ignored("unchanged")]


@pytest.mark.spec("F053")
def test_an_event_of_another_project_is_kept_apart() -> None:
    [unfit] = World(project="another").take(FORMS["binary"])
    assert isinstance(unfit, Unfit)
    assert unfit.reason == f"event e1 is of project {PROJECT}, and this source is of project another"
    given = {**cloud_event(AUTH + "v1.created", source=auth_source("third")), "data": USER}
    [unfit] = World().take(structured(given))
    assert isinstance(unfit, Unfit)
    assert unfit.code == "project"


@pytest.mark.spec("F053")
def test_an_event_of_a_batch_that_cannot_be_read_does_not_stop_the_others() -> None:
    event = cloud_event(TYPE + "written")
    given = [
        {**event, "id": "e1", "data": None},
        {**event, "id": "e2", "type": "google.cloud.storage.object.v1.finalized", "data": {}},
        {**event, "id": "e3", "data": {"value": {"name": "x"}}},
        {**event, "id": "e4", "data": json_data(WRITTEN)},
        {**event, "id": "e5", "type": AUTH + "v1.created", "data": {"value": {"email": "secret@x"}}},
    ]
    said = World().take(structured(given, "application/cloudevents-batch+json"))
    assert [one.code if isinstance(one, Unfit) else type(one).__name__ for one in said] == [
        "event",
        "event_type",
        "event",
        "Message",
        "event",
    ]
    assert not any("secret" in one.reason for one in said if isinstance(one, Unfit))


BATCH = "application/cloudevents-batch+json"
GOOD = {**cloud_event(TYPE + "written"), "id": "good", "data": json_data(WRITTEN)}
BROKEN: dict[str, bytes] = {
    "no object": b"5",
    "data that is no base64": b'{"specversion":"1.0","type":"google.cloud.firestore.document.v1.written",'
    b'"id":"b","data_base64":"!"}',
    "a map whose fields are a list": msgspec.json.encode(
        {
            **GOOD,
            "data": {
                "value": {**json_data(WRITTEN)["value"], "fields": {"place": {"mapValue": {"fields": [[]]}}}}
            },
        }
    ),
    "a number beyond 64 bits": msgspec.json.encode(
        {
            **GOOD,
            "data": {
                "value": {**json_data(WRITTEN)["value"], "fields": typed_fields({"attributes": {"a": 7}})}
            },
        }
    ).replace(b'"7"', b'"1180591620717411303424"'),
    "a time that is a map": msgspec.json.encode(
        {
            **cloud_event(AUTH + "v2.updated", source=auth_source()),
            "id": "b",
            "data": {"value": {"uid": "u9", "metadata": {"createTime": {"a": 1}}}},
        }
    ),
    "a time of 5000 digits": msgspec.json.encode(
        {
            **cloud_event(AUTH + "v2.updated", source=auth_source()),
            "id": "b",
            "data": {"value": {"uid": "u9", "metadata": {"createTime": "1" * 5000}}},
        }
    ),
    "a time long after the end of clocks": msgspec.json.encode(
        {
            **cloud_event(AUTH + "v2.updated", source=auth_source()),
            "id": "b",
            "data": {"value": {"uid": "u9", "metadata": {"createTime": "9999-12-31T23:59:59Z"}}},
        }
    ),
}


@pytest.mark.spec("F053")
@pytest.mark.parametrize("name", BROKEN)
def test_one_that_is_broken_does_not_cost_the_others_of_its_batch(name: str) -> None:
    body = b"[" + BROKEN[name] + b"," + msgspec.json.encode(GOOD) + b"]"
    world = World(collections=[{"path": "users", "fields": {"place.city": "city"}}])
    said = world.take(Incoming("POST", headers={"content-type": BATCH}, body=body))
    assert isinstance(said[-1], Message)
    assert said[-1].user_id == "u1"
    assert len(said) == 2
    assert all(kept(one) for one in said if isinstance(one, Message))


@pytest.mark.spec("F053", "D10")
@pytest.mark.parametrize("name", ["batch", *FORMS])
def test_the_parts_of_a_request_say_together_what_it_says(name: str) -> None:
    other = {**GOOD, "id": "other", "data": {"value": {**json_data(WRITTEN)["value"], "name": f"{NAME}2"}}}
    request = structured([GOOD, other, GOOD], BATCH) if name == "batch" else FORMS[name]
    whole, apart = World(), World()
    parts = apart.source.parts(request)
    assert len(parts) == (3 if name == "batch" else 1)
    assert [one for part in parts for one in apart.take(part)] == whole.take(request)


@pytest.mark.spec("F053", "D10")
def test_of_a_batch_only_the_broken_event_itself_is_kept() -> None:
    broken = {**cloud_event(TYPE + "written"), "data": {"value": {"name": "x"}}}
    said = World().take(structured([GOOD, *[broken] * 3, {**broken, "much": "x" * 70_000}], BATCH))
    letters = [one for one in said if isinstance(one, Unfit)]
    assert [msgspec.json.decode(one.raw) for one in letters[:3]] == [broken] * 3
    assert [one.raw for one in letters[3:]] == [b""]


@pytest.mark.spec("F053")
@pytest.mark.parametrize(
    ("headers", "body"),
    [
        ({}, b""),
        (JSON, b"{}"),
        (JSON, b"[1]"),
        (JSON, b"null"),
        (JSON, b"{"),
        (JSON, b"\xff"),
        (JSON, b"[" * 100_000),
        (JSON, b'{"message": {"data": "!"}}'),
        (JSON, b'{"kind": "created"}'),
        ({"content-type": "application/cloudevents-batch+json"}, b"{}"),
        ({"ce-type": TYPE + "written", "content-type": "application/protobuf"}, b"not base64!"),
        ({"ce-type": TYPE + "written", **JSON}, b"{"),
    ],
)
def test_what_cannot_be_read_at_all_is_malformed(headers: dict[str, str], body: bytes) -> None:
    with pytest.raises(Malformed):
        World().take(Incoming("POST", headers=headers, body=body))


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=80), st.sampled_from([b"\n", b"\x12", b"\x1a", b""]))
def test_any_protobuf_is_read_or_named(data: bytes, start: bytes) -> None:
    world = World()
    try:
        said = world.take(binary(TYPE + "written", start + data))
    except Malformed:
        return
    assert all(isinstance(one, Unfit | Message | Ignored) for one in said)


GARBAGE = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=4),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(
                ["fields", "mapValue", "values", "arrayValue", "stringValue", "metadata", "uid", "name", "x"]
            ),
            inner,
            max_size=3,
        )
    ),
    max_leaves=10,
)


@settings(max_examples=300, deadline=None)
@given(GARBAGE, st.sampled_from([TYPE + "written", AUTH + "v1.created", AUTH + "v2.deleted"]))
def test_any_json_is_read_or_named(inside: Any, kind: str) -> None:
    document = {"name": NAME, "fields": inside, "updateTime": moment(5), "createTime": inside}
    user = {"uid": "u1", "metadata": inside, "email": inside, "displayName": inside, "customClaims": inside}
    for data in (
        inside,
        {"value": document},
        {"value": {"name": NAME, "fields": {"attributes": inside}}},
        user,
    ):
        given = {**cloud_event(kind, source=auth_source()), "data": data}
        try:
            said = World().take(structured(given))
        except Malformed:
            continue
        assert all(isinstance(one, Unfit | Message | Ignored) for one in said)
        assert len(said) == 1
