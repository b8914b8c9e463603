"""The two documents that the extension's own page shows, as it prints them."""

from __future__ import annotations

import pytest

from .firebase_world import World, calls, seconds, written

ATTRIBUTES = {"first_name": "John", "last_name": "Doe", "email": "john.doe@example.com", "plan": "basic"}


@pytest.mark.spec("F032", "F033", "F034")
def test_attributes_alone_make_a_person_named_by_the_document() -> None:
    world = World()
    said = calls(world.hear(written("db01", {"attributes": ATTRIBUTES}, 5)))
    assert said == [("identify", "db01", {**ATTRIBUTES, "created_at": seconds(5)})]


@pytest.mark.spec("F031", "F035")
def test_an_email_among_the_identifiers_names_the_person() -> None:
    world = World()
    fields = {"identifiers": {"email": "john.doe@example.com"}, "attributes": ATTRIBUTES}
    said = calls(world.hear(written("db01", fields, 5)))
    others = {name: value for name, value in ATTRIBUTES.items() if name != "email"}
    assert said == [("identify", "john.doe@example.com", {**others, "id": "db01", "created_at": seconds(5)})]
