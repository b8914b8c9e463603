"""What did not arrive somewhere is told whole with the next change; a full backfill tells everybody."""

from __future__ import annotations

import msgspec
import pytest

from towpath.message import Message
from towpath.source import Ignored

from .firebase_world import World, calls, seconds, user, written

GOOD = {"first_name": "Ada", "plan": "gold"}


def failed(world: World, said: list[object]) -> None:
    """Let what was said become a dead letter."""
    for message in said:
        assert isinstance(message, Message)
        world.source.undelivered(message, world.known)


@pytest.mark.spec("F051", "F053")
def test_a_repaired_document_is_told_whole() -> None:
    world = World()
    failed(world, list(world.hear(written("db01", {"attributes": {**GOOD, "bio": "x" * 2000}}, 5))))
    said = calls(world.hear(written("db01", {"attributes": {**GOOD, "bio": "short"}}, 6)))
    assert said == [("identify", "db01", {**GOOD, "bio": "short", "created_at": seconds(6)})]
    assert calls(world.hear(written("db01", {"attributes": {**GOOD, "bio": "new"}}, 7))) == [
        ("identify", "db01", {"bio": "new"})
    ]


@pytest.mark.spec("F051")
def test_what_died_and_does_not_change_is_not_sent_to_die_again() -> None:
    world = World()
    fields = {"attributes": {**GOOD, "bio": "x" * 2000}}
    failed(world, list(world.hear(written("db01", fields, 5))))
    assert world.hear(written("db01", fields, 5)) == [Ignored("unchanged")]
    assert world.hear(written("db01", fields, 6)) == [Ignored("unchanged")]
    ((_, _, traits),) = calls(world.hear(written("db01", {"attributes": GOOD}, 7)))
    assert GOOD.items() <= traits.items()


@pytest.mark.spec("F021", "F051")
def test_a_user_who_died_is_told_whole_with_the_next_change() -> None:
    world = World()
    failed(world, list(world.hear(user("ada", 5, email="a@b.c", displayName="x" * 2000))))
    assert world.hear(user("ada", 6, email="a@b.c", displayName="x" * 2000)) == [Ignored("unchanged")]
    ((_, who, traits),) = calls(world.hear(user("ada", 7, email="a@b.c", displayName="Ada")))
    assert (who, traits["email"], traits["display_name"]) == ("ada", "a@b.c", "Ada")


@pytest.mark.spec("F056")
def test_a_full_listing_tells_everybody_whole_and_as_a_new_message() -> None:
    world = World()
    (first,) = world.hear(written("db01", {"attributes": GOOD}, 5))
    again = msgspec.structs.replace(written("db01", {"attributes": GOOD}, 5), epoch=True, full=True)
    (told,) = world.hear(again)
    assert isinstance(first, Message)
    assert isinstance(told, Message)
    assert (told.user_id, told.traits) == (first.user_id, first.traits)
    assert told.message_id != first.message_id
    assert world.hear(written("db01", {"attributes": GOOD}, 5)) == [Ignored("unchanged")]
    world.hear(user("ada", 5, email="a@b.c"))
    (whole,) = calls(world.hear(msgspec.structs.replace(user("ada", 6, email="a@b.c"), full=True)))
    assert whole[2]["email"] == "a@b.c"


@pytest.mark.spec("F053", "F054")
def test_one_event_with_an_impossible_time_takes_no_other_with_it() -> None:
    world = World()
    said = world.hear(
        written("a", {"attributes": {"n": 1}}, 5),
        written("b", {"attributes": {"n": 1}}, 253_000_000_000),
        written("c", {"attributes": {"n": 1}}, 5),
    )
    assert [type(one).__name__ for one in said] == ["Message", "Unfit", "Message"]


@pytest.mark.spec("F037", "F039")
def test_a_person_known_by_another_email_loses_what_the_document_lost() -> None:
    world = World()
    first = {"identifiers": {"email": "kim@x.io"}, "attributes": {"plan": "gold", "n": 1}}
    world.hear(written("kim", first, 5))
    second = {"identifiers": {"email": "kim2@x.io"}, "attributes": {"n": 1}}
    (told, *_) = calls(world.hear(written("kim", second, 6)))
    assert told[1] == "kim2@x.io"
    assert told[2]["plan"] == ""
