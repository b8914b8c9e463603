"""The Firebase source as a whole: who may push, what the settings take, and what one page costs."""

from __future__ import annotations

import hashlib
import hmac
from datetime import UTC, datetime
from typing import Any, ClassVar

import msgspec
import pytest
from pydantic import ValidationError

from towpath.destinations._customerio_values import unix_seconds
from towpath.errors import Unauthorized
from towpath.message import Message
from towpath.source import Ignored, Incoming, Page, Unfit
from towpath.sources.firebase import Firebase, FirebaseSettings
from towpath.testing import InboundContract

from .firebase_world import PROJECT, World, moment, user, written

KEY = "0123456789abcdef0123"
TOKEN = "abcdef0123456789abcd"
NOW = 1_760_000_000.0
USER = {"uid": "u1", "email": "a@b.c", "metadata": {"creationTime": moment(1)}}
EVENT = msgspec.json.encode({"kind": "created", "user": USER, "context": {"timestamp": moment(2)}})


def signature(body: bytes, at: float = NOW, key: str = KEY) -> str:
    """What examples/firebase-forwarder puts into the header."""
    signed = hmac.new(key.encode(), f"{int(at)}.".encode() + body, hashlib.sha256).hexdigest()
    return f"t={int(at)},v1={signed}"


def signed(body: bytes = EVENT, **made: Any) -> Incoming:
    return Incoming("POST", headers={"x-towpath-signature": signature(body, **made)}, body=body)


def firebase(**settings: Any) -> Firebase:
    return Firebase(FirebaseSettings(project=PROJECT, **settings))


class TestFirebase(InboundContract):
    """The forwarder's signature over time and body."""

    source = Firebase
    settings: ClassVar = {"project": PROJECT, "signing_key": KEY, "collections": ["users"]}
    proofs = ("x-towpath-signature",)

    def genuine(self, body: bytes | None = None) -> Incoming:
        return signed(EVENT if body is None else body, at=self.now)


@pytest.mark.spec("F054", "D13")
def test_a_signature_holds_for_its_time_and_key_only() -> None:
    source = firebase(signing_key=KEY, tolerance="10m")
    source.verify(signed(), NOW + 600)
    source.verify(signed(), NOW - 600)
    for request, now in [
        (signed(), NOW + 601),
        (signed(), NOW - 601),
        (signed(key=KEY[::-1]), NOW),
        (Incoming("POST", headers={"x-towpath-signature": f"v1={'0' * 64}"}, body=EVENT), NOW),
        (Incoming("POST", headers={"x-towpath-signature": "t=²,v1=é"}, body=EVENT), NOW),
    ]:
        with pytest.raises(Unauthorized):
            source.verify(request, now)


@pytest.mark.spec("F054", "D13")
@pytest.mark.parametrize(
    "request_",
    [
        Incoming("POST", query=f"token={TOKEN}"),
        Incoming("POST", query=f"x=1&token={TOKEN}"),
        Incoming("POST", headers={"authorization": f"Bearer {TOKEN}"}),
        Incoming("POST", headers={"authorization": f"bearer {TOKEN}"}),
    ],
)
def test_a_token_is_shown_in_the_query_or_the_header(request_: Incoming) -> None:
    firebase(push_token=TOKEN).verify(request_, NOW)
    with pytest.raises(Unauthorized):
        firebase(push_token=TOKEN + "x").verify(request_, NOW)


@pytest.mark.spec("F054", "D13")
@pytest.mark.parametrize(
    ("settings", "request_"),
    [
        ({}, Incoming("POST", query="token=")),
        ({"push_token": TOKEN}, Incoming("POST")),
        ({"push_token": TOKEN}, Incoming("POST", query=f"token={TOKEN[:-1]}")),
        ({"push_token": TOKEN}, Incoming("POST", query="token=%ff")),
        ({"push_token": TOKEN}, Incoming("POST", headers={"authorization": f"Basic {TOKEN}"})),
        ({"push_token": TOKEN}, signed()),
        ({"signing_key": KEY}, Incoming("POST", query=f"token={KEY}")),
        ({"signing_key": KEY, "push_token": TOKEN}, signed(key=TOKEN)),
    ],
)
def test_whoever_shows_neither_is_refused(settings: dict[str, Any], request_: Incoming) -> None:
    with pytest.raises(Unauthorized):
        firebase(**settings).verify(request_, NOW)


@pytest.mark.spec("F059", "D13")
def test_an_emulator_needs_no_proof_where_the_settings_say_so() -> None:
    path = f"functions/projects/{PROJECT}/triggers/firebase"
    genuine = Incoming("POST", path, route="emulator", local=True)
    firebase(emulator=True).verify(genuine, NOW)
    for settings, request in [
        ({}, genuine),
        ({"emulator": True}, msgspec.structs.replace(genuine, route="")),
        ({"emulator": True}, msgspec.structs.replace(genuine, local=False)),
    ]:
        with pytest.raises(Unauthorized):
            firebase(**settings).verify(request, NOW)
    assert firebase().routes() == {}


@pytest.mark.spec("D13")
def test_what_is_signed_may_delete() -> None:
    assert firebase().settings.trust == "server"


@pytest.mark.spec("F006")
@pytest.mark.parametrize(
    ("given", "paths"),
    [
        ("users", ["users"]),
        ("", []),
        (["users", "/tenants/{t}/members/{m}/"], ["users", "tenants/{t}/members"]),
        ({"path": "users/{id}", "database": "eu"}, ["users"]),
    ],
)
def test_collections_by_path_alone(given: Any, paths: list[str]) -> None:
    assert [one.path for one in firebase(collections=given).settings.collections] == paths


@pytest.mark.spec("F006")
@pytest.mark.parametrize(
    ("given", "says"),
    [
        ("users/u1", "path of a document"),
        ("users//members", "write the collection's path"),
        ("{any}", "the collection itself has to be named"),
        ({"path": "tenants/{t}/members", "group": True}, "the collection's name alone"),
        ({"path": "users", "nonsense": 1}, "nonsense"),
    ],
)
def test_paths_that_are_none(given: Any, says: str) -> None:
    with pytest.raises(ValidationError, match=says):
        firebase(collections=[given])


def test_a_secret_that_can_be_guessed_is_refused() -> None:
    with pytest.raises(ValidationError, match="16 characters"):
        firebase(push_token="short")


@pytest.mark.spec("F040", "C121")
@pytest.mark.parametrize("name", ["created_at", "createdAt"])
def test_a_created_at_that_could_be_milliseconds_stays_the_year_it_is(name: str) -> None:
    never = datetime(9999, 12, 31, tzinfo=UTC)
    [message] = World().hear(written("u1", {"attributes": {name: never, "expires": never}}, 6))
    assert isinstance(message, Message)
    assert unix_seconds(message.traits[name]) == message.traits["expires"] == int(never.timestamp())


@pytest.mark.spec("F040")
@pytest.mark.parametrize(
    ("timestamps", "expected"),
    [
        ({}, (0, 0)),
        ({"a": "iso"}, ("1970-01-01T00:00:00Z", 0)),
        ({"*": "iso"}, ("1970-01-01T00:00:00Z", "1970-01-01T00:00:00Z")),
        ({"*": "iso", "a": "unix"}, (0, "1970-01-01T00:00:00Z")),
    ],
)
def test_timestamps_by_attribute(timestamps: dict[str, str], expected: tuple[Any, Any]) -> None:
    epoch = {"timestampValue": "1970-01-01T00:00:00Z"}
    change = written("u1", {}, 1)
    fields = {"attributes": {"mapValue": {"fields": {"a": epoch, "b": epoch}}}}
    [message] = World(timestamps=timestamps).hear(msgspec.structs.replace(change, fields=fields))
    assert isinstance(message, Message)
    assert (message.traits["a"], message.traits["b"]) == expected


@pytest.mark.spec("F056")
def test_a_page_is_heard_in_order_with_what_was_unfit_already() -> None:
    source, world = firebase(collections=["users"]), World()
    items = [written("u1", {}, 1), Unfit("listing", "one document is too large"), user("u1", 2, email="a@b")]
    said = list(source.heard(Page(items), world.known))
    assert [type(one) for one in said] == [Message, Unfit, Message]


@pytest.mark.spec("F056")
def test_a_page_is_looked_up_at_once() -> None:
    world = World()
    page = Page(
        [
            written("u1", {"attributes": {"a": 1}}, 1),
            written("u2", {"identifiers": {"email": "j@x"}}, 1),
            written("u3", {"identifiers": {"id": "p3"}}, 1),
            user("u1", 2, email="a@b"),
            user("u4", 2, email="a@b"),
        ]
    )
    first = list(world.source.heard(page, world.known))
    assert all(isinstance(one, Message) for one in first)
    assert world.known.missed == []
    again = [msgspec.structs.replace(change, epoch=True) for change in page.items]
    assert list(world.source.heard(Page(again), world.known)) == [Ignored("unchanged")] * 5
    assert world.known.missed == []


@pytest.mark.spec("F056")
def test_messages_of_a_listing_say_so() -> None:
    world = World()
    [message] = world.hear(msgspec.structs.replace(user("u1", 2, email="a@b"), epoch=True, tenant="t"))
    assert isinstance(message, Message)
    place = {"project": PROJECT, "user": "u1", "at": moment(2), "tenant": "t", "listed": True}
    assert message.context == {"source": {"firebase": place}}
    assert message.timestamp == moment(2)


@pytest.mark.spec("F054")
@pytest.mark.parametrize(
    ("settings", "says"),
    [
        ({"listen": True}, "listen needs service_account"),
        ({"listen": True, "emulator": True, "silence": "0s"}, "at least 1s"),
    ],
)
def test_settings_with_which_listening_would_hear_nothing_are_refused(
    settings: dict[str, Any], says: str
) -> None:
    with pytest.raises(ValueError, match=says):
        firebase(collections=["users"], **settings)
