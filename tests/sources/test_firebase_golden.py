"""The extension's calls beside ours: every row of what it was seen to do, with the difference named."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from towpath.source import Heard

from .firebase_world import World, calls, seconds, user, user_gone, written

NAN = float("nan")


class Point:
    latitude, longitude = 52.52, 13.405


class Row(msgspec.Struct):
    """`theirs` is what sync-customerio 0.0.1 called, its code compiled and run against a stub."""

    name: str
    hear: Callable[[World], list[Heard]]
    theirs: str
    ours: list[Any]
    why: str = ""


def unfit(says: str) -> tuple[str, str]:
    where = "project demo-towpath, database (default), document users/db01"
    return ("document", f"{where}: {says}. It is taken again as soon as it is written anew")


ROWS = [
    Row(
        "created with attributes",
        lambda w: w.hear(written("db01", {"attributes": {"first_name": "A", "email": "a@b.c"}}, 5)),
        'PUT /customers/db01 {"first_name":…,"email":…,"created_at":now}',
        [("identify", "db01", {"first_name": "A", "email": "a@b.c", "created_at": seconds(5)})],
        "created_at is when the document was created, not when the function ran",
    ),
    Row(
        "created with no attributes",
        lambda w: w.hear(written("db01", {}, 5)),
        'PUT /customers/db01 {"created_at":now}',
        [("identify", "db01", {"created_at": seconds(5)})],
    ),
    Row(
        "created with identifiers.email",
        lambda w: w.hear(written("db01", {"identifiers": {"email": "j@x.com"}, "attributes": {"a": 1}}, 5)),
        'PUT /customers/j%40x.com {"a":1,"id":"db01","created_at":now}',
        [("identify", "j@x.com", {"a": 1, "id": "db01", "created_at": seconds(5)})],
    ),
    Row(
        "two identifiers",
        lambda w: w.hear(written("db01", {"identifiers": {"id": "1", "email": "j@x.com"}}, 5)),
        "error logged, nothing sent",
        [unfit("identifiers must provide only one of id or email, and has 2 keys")],
        "a dead letter that names the document",
    ),
    Row(
        "another identifier",
        lambda w: w.hear(written("db01", {"identifiers": {"phone": "+1"}}, 5)),
        "error logged, nothing sent",
        [unfit("identifiers must provide one of id or email, and has another key")],
        "a dead letter that names the document",
    ),
    Row(
        "identifiers.Email",
        lambda w: w.hear(written("db01", {"identifiers": {"Email": "A@B.c"}}, 5)),
        'PUT /customers/A%40B.c {"id":"db01",…}',
        [("identify", "A@B.c", {"id": "db01", "created_at": seconds(5)})],
    ),
    Row(
        "an empty identifier",
        lambda w: w.hear(written("db01", {"identifiers": {"id": ""}}, 5)),
        "the client throws, logged",
        [unfit("identifiers.id must be a text that is not empty")],
        "a dead letter that names the document",
    ),
    Row(
        "an update",
        lambda w: updated(w, {"attributes": {"a": 1, "b": 2}}, {"attributes": {"a": 3}}),
        'PUT {"a":3,"b":""}',
        [("identify", "db01", {"a": 3, "b": ""})],
    ),
    Row(
        "an update of nothing",
        lambda w: updated(w, {"attributes": {"a": 1}}, {"attributes": {"a": 1}, "other": True}),
        'PUT {"a":1}',
        ["unchanged"],
        "nothing is sent where nothing changed",
    ),
    Row(
        "an update of one of two",
        lambda w: updated(w, {"attributes": {"a": 1, "b": 2}}, {"attributes": {"a": 1, "b": 3}}),
        'PUT {"a":1,"b":3}',
        [("identify", "db01", {"b": 3})],
        "only what changed is sent",
    ),
    Row(
        "attributes removed",
        lambda w: updated(w, {"attributes": {"a": 1}}, {}),
        'PUT {"a":""}',
        [("identify", "db01", {"a": ""})],
    ),
    Row(
        "another e-mail",
        lambda w: updated(
            w,
            {"identifiers": {"email": "old@x"}, "attributes": {"a": 1}},
            {"identifiers": {"email": "new@x"}, "attributes": {"a": 1}},
        ),
        'PUT /customers/new%40x {"a":1,"id":"db01"}; the old person stays or collides',
        [
            ("identify", "new@x", {"a": 1, "id": "db01", "created_at": seconds(5)}),
            "identifier changed",
        ],
        "counted and said in the message; rename and merge are settings",
    ),
    Row(
        "identifiers removed",
        lambda w: updated(
            w, {"identifiers": {"email": "j@x"}, "attributes": {"a": 1}}, {"attributes": {"a": 1}}
        ),
        'PUT /customers/db01 {"a":1,"id":""}',
        [("identify", "db01", {"a": 1})],
        "an id is never emptied",
    ),
    Row(
        "deleted, by its last identifier",
        lambda w: updated(
            w, {"identifiers": {"id": "x1"}, "attributes": {"a": 1}}, None, old={"identifiers": {"id": "x1"}}
        ),
        "DELETE /customers/x1",
        [("delete", "x1")],
    ),
    Row(
        "deleted, which was never valid",
        lambda w: w.hear(written("db01", None, 6, old={"identifiers": {"phone": "1"}})),
        "nothing",
        ["unknown"],
    ),
    Row(
        "timestamp and geo point",
        lambda w: w.hear(
            written("db01", {"attributes": {"t": datetime(2026, 11, 20, 10, tzinfo=UTC), "g": Point()}}, 5)
        ),
        '{"t":{"_seconds":…,"_nanoseconds":…},"g":{"_latitude":…,"_longitude":…}}',
        [("identify", "db01", {"t": seconds(0), "g": "52.52,13.405", "created_at": seconds(5)})],
        "values a segment can compare",
    ),
    Row(
        "NaN and null",
        lambda w: w.hear(written("db01", {"attributes": {"n": NAN, "z": None}}, 5)),
        '{"n":null,"z":null}',
        [("identify", "db01", {"n": None, "z": None, "created_at": seconds(5)})],
    ),
    Row(
        "an Auth user",
        lambda w: w.hear(
            user(
                "u1",
                6,
                created=5,
                email="a@b.c",
                emailVerified=True,
                displayName="Ann",
                photoURL="https://x/y",
                phoneNumber="+431",
                disabled=False,
            )
        ),
        'PUT /customers/u1 {"email":…,"phone":…,…,"created_at":…,"last_sign_in":null}',
        [
            (
                "identify",
                "u1",
                {
                    "email": "a@b.c",
                    "phone": "+431",
                    "display_name": "Ann",
                    "photo_url": "https://x/y",
                    "email_verified": True,
                    "disabled": False,
                    "created_at": seconds(5),
                },
            )
        ],
        "last_sign_in is left out where there was none",
    ),
    Row(
        "an Auth user's end",
        lambda w: w.hear(user_gone("a/b c", 6)),
        "DELETE /customers/a%2Fb%20c",
        [("delete", "a/b c")],
        "encoding is the destination's",
    ),
]


def updated(world: World, before: dict[str, Any], after: dict[str, Any] | None, **more: Any) -> list[Heard]:
    """What the second version says; the first one was heard."""
    world.hear(written("db01", before, 5))
    return world.hear(written("db01", after, 6 if after is not None else 5, created=5, **more))


@pytest.mark.spec(
    "D01", "F001", "F010", "F011", "F012", "F013", "F014", "F015", "F016", "F017", "F018", "F020"
)
@pytest.mark.spec("F030", "F031", "F032", "F033", "F035", "F036", "F037", "F038", "F039", "F040", "F051")
@pytest.mark.parametrize("row", ROWS, ids=[row.name for row in ROWS])
def test_beside_the_extension(row: Row) -> None:
    assert calls(row.hear(World())) == row.ours
