"""Order, difference, identifiers and tombstones of documents and users, however they are mixed."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from towpath.message import Message
from towpath.source import Unfit
from towpath.sources._firebase_changes import Change, UserChange, document_key, user_key

from .firebase_world import PROJECT, World, calls, moment, people, seconds, user, user_gone, written

DAY_S = 86_400.0


def attributes(**values: Any) -> dict[str, Any]:
    return {"attributes": values}


def by_email(address: str, /, **values: Any) -> dict[str, Any]:
    return {"identifiers": {"email": address}, "attributes": values}


@pytest.mark.spec("F050")
def test_an_older_version_is_dropped_and_counted() -> None:
    world = World()
    world.hear(written("u1", attributes(a=2), 6, created=1))
    assert calls(world.hear(written("u1", attributes(a=1), 5.999999, created=1))) == ["stale"]
    assert calls(world.hear(written("u1", attributes(a=2), 6, created=1))) == ["unchanged"]
    assert world.people["u1"]["a"] == 2


@pytest.mark.spec("F050")
def test_versions_are_told_apart_by_microseconds_and_never_by_the_time_of_the_event() -> None:
    world = World()
    world.hear(written("u1", attributes(a=1), 6.000001, created=1, at=moment(9)))
    later = written("u1", attributes(a=2), 6.000002, created=1, at=moment(6))
    assert calls(world.hear(later)) == [("identify", "u1", {"a": 2})]


@pytest.mark.spec("F051", "F056")
def test_a_listing_tells_a_version_again_and_says_nothing() -> None:
    world = World()
    world.hear(written("u1", attributes(a=1), 6, created=1))
    assert calls(world.hear(written("u1", attributes(a=1), 6, created=1, epoch=True))) == ["unchanged"]


@pytest.mark.spec("F033", "F056")
def test_a_listing_brings_what_other_settings_take_of_the_same_version() -> None:
    world, document = World(), {"attributes": {"a": 1}, "plan": "gold"}
    [first, *_] = world.hear(written("u1", document, 6, created=1))
    again = World(collections=[{"path": "users", "fields": {"plan": "plan"}}])
    again.known = world.known
    [second] = again.hear(written("u1", document, 6, created=1, epoch=True))
    assert calls([second]) == [("identify", "u1", {"plan": "gold"})]
    assert isinstance(first, Message)
    assert isinstance(second, Message)
    assert first.message_id != second.message_id


@pytest.mark.spec("F056")
def test_a_live_change_wins_over_a_listing_that_began_before_it() -> None:
    world = World()
    world.hear(written("u1", attributes(a=2), 7, created=1))
    assert calls(world.hear(written("u1", attributes(a=1), 6, created=1, epoch=True))) == ["stale"]
    world.hear(user("u2", 7, email="new@x"))
    listed = UserChange("u2", {"uid": "u2", "email": "old@x"}, moment(6), epoch=True)
    assert calls(world.hear(listed)) == ["stale"]


@pytest.mark.spec("F052")
def test_a_version_has_one_id_whichever_way_it_was_heard_of() -> None:
    one, other = World(), World()
    [heard] = one.hear(written("u1", attributes(a=1), 6, created=1, event_id="e1"))
    [listed] = other.hear(written("u1", attributes(a=1), 6, created=1, epoch=True))
    [later] = one.hear(written("u1", attributes(a=2), 7, created=1))
    assert isinstance(heard, Message)
    assert isinstance(listed, Message)
    assert isinstance(later, Message)
    assert heard.message_id == listed.message_id != later.message_id


@pytest.mark.spec("F052")
def test_an_event_of_a_user_has_one_id_whenever_it_comes() -> None:
    [one] = World().hear(UserChange("u1", {"uid": "u1"} | {"email": "a@b"}, moment(1), event_id="e1"))
    [other] = World().hear(UserChange("u1", {"uid": "u1"} | {"email": "a@b"}, moment(2), event_id="e1"))
    assert isinstance(one, Message)
    assert isinstance(other, Message)
    assert one.message_id == other.message_id


@pytest.mark.spec("F037")
def test_what_a_first_event_says_was_there_before_is_removed() -> None:
    world = World()
    change = written("u1", attributes(a=1), 6, created=1, old=attributes(a=0, b=2))
    assert calls(world.hear(change)) == [("identify", "u1", {"a": 1, "created_at": seconds(1), "b": ""})]


@pytest.mark.spec("F038")
def test_created_at_of_the_document_only_where_nobody_says_it_better() -> None:
    world = World()
    assert calls(world.hear(written("u1", attributes(created_at=7), 6))) == [
        ("identify", "u1", {"created_at": 7})
    ]
    world.hear(user("u2", 3, created=2, email="a@b"))
    assert calls(world.hear(written("u2", attributes(a=1), 6, created=4))) == [("identify", "u2", {"a": 1})]
    world.hear(written("u3", attributes(a=1), 6, created=4))
    world.hear(user("u3", 7, created=2, email="a@b"))
    assert world.people["u3"]["created_at"] == seconds(2)


@pytest.mark.spec("F038", "F037")
def test_a_created_at_that_is_removed_falls_back_and_is_never_emptied() -> None:
    world = World()
    world.hear(written("u1", attributes(created_at=7), 5))
    said = world.hear(written("u1", attributes(), 6, created=5))
    assert calls(said) == [("identify", "u1", {"created_at": seconds(5)})]


@pytest.mark.spec("F039")
@pytest.mark.parametrize(
    ("policy", "expected"),
    [
        ("leave", [("identify", "n", {"a": 2, "created_at": seconds(5)}), "identifier changed"]),
        ("rename", [("identify", "o", {"a": 2, "b": "", "id": "n"})]),
        ("merge", [("identify", "n", {"a": 2, "created_at": seconds(5)}), ("alias", "o", "n")]),
    ],
)
def test_another_identifier(policy: str, expected: list[Any]) -> None:
    world = World(identifier_changes=policy)
    world.hear(written("d", {"identifiers": {"id": "o"}, **attributes(a=1, b=1)}, 5))
    said = world.hear(written("d", {"identifiers": {"id": "n"}, **attributes(a=2)}, 6, created=5))
    assert calls(said) == expected
    later = world.hear(written("d", {"identifiers": {"id": "n"}, **attributes(a=3)}, 7, created=5))
    assert calls(later) == [("identify", "n", {"a": 3})]


@pytest.mark.spec("F039")
@pytest.mark.parametrize("policy", ["leave", "rename", "merge"])
def test_the_same_person_by_another_identifier_is_no_other_person(policy: str) -> None:
    world = World(identifier_changes=policy)
    world.hear(written("d", by_email("j@x", a=1), 5))
    assert calls(world.hear(written("d", attributes(a=2), 6, created=5))) == [("identify", "d", {"a": 2})]
    said = world.hear(written("d", by_email("k@x", a=2), 7, created=5))
    assert calls(said) == [("identify", "k@x", {"a": 2, "id": "d"})]


@pytest.mark.spec("F039")
def test_an_attribute_never_detaches_a_person_from_their_identifier() -> None:
    world = World()
    [first] = world.hear(written("d", by_email("j@x", email="other@x"), 5))
    [second] = world.hear(written("e", attributes(id="other"), 5))
    assert calls([first, second]) == [
        ("identify", "j@x", {"id": "d", "created_at": seconds(5)}),
        ("identify", "e", {"created_at": seconds(5)}),
    ]
    assert isinstance(first, Message)
    assert first.context["source"]["firebase"]["left_out"] == ["email"]
    world.hear(written("d", by_email("j@x", email="j@x", id="crm"), 6, created=5))
    assert calls(world.hear(written("d", by_email("j@x"), 7, created=5))) == [
        ("identify", "j@x", {"id": "d"})
    ]


@pytest.mark.spec("F039", "F037")
def test_an_email_that_becomes_the_identifier_is_not_removed() -> None:
    world = World()
    world.hear(written("d", attributes(email="j@x", a=1), 5))
    said = world.hear(written("d", by_email("j@x"), 6, created=5))
    assert calls(said) == [("identify", "j@x", {"id": "d", "a": ""})]


@pytest.mark.spec("F039")
def test_a_person_who_bore_another_id_is_another_person() -> None:
    world = World()
    world.hear(written("d", by_email("j@x", id="crm"), 5))
    said = world.hear(written("d", attributes(), 6, created=5))
    assert calls(said) == [("identify", "d", {"created_at": seconds(5)}), "identifier changed"]


@pytest.mark.spec("F031", "F053")
@pytest.mark.parametrize(
    ("fields", "says"),
    [
        ({"identifiers": {"id": 7}}, "identifiers.id must be a text that is not empty"),
        ({"identifiers": {"id": None}}, "identifiers.id must be a text that is not empty"),
        ({"identifiers": {"email": "secret"}}, "identifiers.email is no e-mail address"),
        ({"identifiers": "secret"}, "identifiers must be a map"),
        ({"identifiers": ["secret"]}, "identifiers must be a map"),
        ({"attributes": "secret"}, "attributes must be a map"),
    ],
)
def test_a_document_that_is_wrong_is_named_without_its_values_and_others_go_on(
    fields: dict[str, Any], says: str
) -> None:
    world = World()
    world.hear(written("good", attributes(a=1), 5))
    [unfit] = world.hear(written("bad", fields, 5))
    assert isinstance(unfit, Unfit)
    assert says in unfit.reason
    assert "document users/bad" in unfit.reason
    assert "secret" not in unfit.reason
    assert unfit.raw
    assert calls(world.hear(written("bad", fields, 5, epoch=True))) == ["unfit"]
    assert calls(world.hear(written("bad", attributes(a=1), 6, created=5)))[0][0] == "identify"


@pytest.mark.spec("F031")
@pytest.mark.parametrize("value", [{}, None])
def test_no_identifiers_and_empty_ones_are_the_documents_id(value: Any) -> None:
    assert calls(World().hear(written("d", {"identifiers": value}, 5))) == [
        ("identify", "d", {"created_at": seconds(5)})
    ]


@pytest.mark.spec("F036", "F050")
def test_a_deletion_is_final_for_versions_before_it_and_a_new_document_begins_anew() -> None:
    world = World()
    world.hear(written("u1", attributes(a=1), 5))
    assert calls(world.hear(written("u1", None, 6, old=attributes(a=1), at=moment(7)))) == [("delete", "u1")]
    assert calls(world.hear(written("u1", attributes(a=1), 6, created=5))) == ["stale"]
    assert calls(world.hear(written("u1", None, 6, old=attributes(a=1)))) == ["stale"]
    assert calls(world.hear(written("u1", attributes(a=1), 8))) == [
        ("identify", "u1", {"a": 1, "created_at": seconds(8)})
    ]


@pytest.mark.spec("F036", "F050")
def test_a_deletion_that_comes_after_the_document_was_made_anew_is_stale() -> None:
    world = World()
    world.hear(written("u1", attributes(a=1), 8))
    assert calls(world.hear(written("u1", None, 6, old=attributes(a=0)))) == ["stale"]


@pytest.mark.spec("F036", "F055")
def test_a_deletion_found_by_listing_goes_by_what_was_known() -> None:
    world = World()
    world.hear(written("u1", {"identifiers": {"id": "p1"}}, 5))
    assert calls(world.hear(written("u1", None, 9, epoch=True))) == [("delete", "p1")]
    assert list(world.known.keys("d/")) == []


@pytest.mark.spec("F020")
def test_late_writes_do_not_bring_a_deleted_user_back() -> None:
    world = World()
    world.hear(user("u1", 2, created=1, email="a@b"), written("u1", attributes(a=1), 3))
    assert calls(world.hear(user_gone("u1", 5))) == [("delete", "u1")]
    late = written("u1", attributes(a=2, b=1), 6, created=3)
    assert calls(world.hear(late, user("u1", 2, created=1, email="a@b"))) == ["deleted", "stale"]
    assert world.people == {}
    # A listing later still: the document as it was told of is no news.
    world.known.forget(within_s=DAY_S)
    listing = written("u1", attributes(a=2, b=1), 6, created=3, epoch=True)
    assert calls(world.hear(listing)) == ["unchanged"]
    said = world.hear(written("u1", attributes(a=3, b=1), 7, created=3))
    assert calls(said) == [("identify", "u1", {"a": 3, "b": 1, "created_at": seconds(3)})]


@pytest.mark.spec("F020")
def test_after_the_tombstone_a_change_brings_everything_again() -> None:
    world = World()
    world.hear(written("u1", attributes(a=1, b=1), 3), user("u1", 2, created=1, email="a@b"))
    world.hear(user_gone("u1", 5))
    world.known.forget(within_s=DAY_S)
    said = world.hear(written("u1", attributes(a=2, b=1), 9, created=3))
    assert calls(said) == [("identify", "u1", {"a": 2, "b": 1, "created_at": seconds(3)})]


@pytest.mark.spec("F020")
@pytest.mark.parametrize("tombstone", ["1d", "0"])
def test_something_newly_created_lifts_the_tombstone(tombstone: str) -> None:
    world = World(tombstone=tombstone)
    world.hear(user("u1", 2, created=1, email="a@b"), written("u1", attributes(a=1), 3), user_gone("u1", 5))
    assert calls(world.hear(user("u1", 7, created=6, email="c@d")))[0][:2] == ("identify", "u1")
    said = world.hear(written("u1", attributes(a=2), 8, created=3))
    assert calls(said) == [("identify", "u1", {"a": 2})]


@pytest.mark.spec("F020")
def test_a_document_made_anew_is_no_late_write_whatever_the_clocks_say() -> None:
    world = World()
    world.hear(written("u1", attributes(a=1), 3), written("u1", None, 3, at=moment(9)))
    assert calls(world.hear(written("u1", attributes(a=1), 8)))[0][0] == "identify"


@pytest.mark.spec("F020", "F050")
def test_a_document_made_anew_is_told_of_in_full_even_if_nobody_heard_of_its_end() -> None:
    world = World()
    world.hear(written("u1", attributes(a=1), 3), user_gone("u1", 5))
    said = world.hear(written("u1", attributes(a=1), 7))
    assert calls(said) == [("identify", "u1", {"a": 1, "created_at": seconds(7)})]


@pytest.mark.spec("F020")
def test_an_older_end_of_a_user_made_anew_is_stale() -> None:
    world = World()
    world.hear(user("u1", 7, created=6, email="a@b"))
    assert calls(world.hear(user_gone("u1", 5))) == ["stale"]


@pytest.mark.spec("F020")
def test_a_user_made_anew_is_told_of_with_what_the_old_document_said_before() -> None:
    world = World()
    world.hear(user("u1", 2, created=1, email="a@b"), written("u1", attributes(email="doc@x"), 3))
    world.hear(user_gone("u1", 5))
    [said] = world.hear(user("u1", 8, created=7, email="b@b"))
    assert calls([said])[0][2]["email"] == "b@b"


@pytest.mark.spec("F020")
def test_two_ends_at_one_moment_are_two() -> None:
    world = World(collections=["users", "profiles"])
    profile = written("u1", attributes(plan="gold", b=1), 4, collection="profiles")
    world.hear(written("u1", attributes(a=1), 3), written("u1", None, 3, at=moment(9)))
    world.hear(written("u1", attributes(a=1), 8), profile, user_gone("u1", 9))
    assert world.people == {}
    world.known.forget(within_s=DAY_S)
    world.hear(written("u1", attributes(plan="team", b=1), 12, created=4, collection="profiles"))
    assert world.people["u1"] == {"plan": "team", "b": 1, "created_at": seconds(4)}


@pytest.mark.spec("F036", "F006")
@pytest.mark.parametrize(
    ("collections", "one", "other"),
    [
        (["users", "profiles"], "users", "profiles"),
        (["t/{t}/m"], "t/1/m", "t/2/m"),
        (["users", "t/{t}/m"], "users", "t/1/m"),
        (["users", "t/{t}/m"], "t/1/m", "users"),
        ([{"path": "m", "group": True}], "t/1/m", "m"),
    ],
)
def test_one_of_two_documents_of_a_person_ends_and_the_person_stays(
    collections: list[Any], one: str, other: str
) -> None:
    world = World(collections=collections)
    world.hear(
        written("u1", attributes(a=1, shared="one", email="a@b"), 3, collection=one),
        written("u1", attributes(plan="gold", shared="other"), 4, collection=other),
    )
    said = world.hear(written("u1", None, 3, at=moment(9), collection=one))
    assert calls(said) == [("identify", "u1", {"a": "", "email": ""})]
    assert isinstance(said[0], Message)
    assert said[0].timestamp == moment(9)
    listing = written("u1", attributes(plan="gold", shared="other"), 4, collection=other, epoch=True)
    assert calls(world.hear(listing)) == [("identify", "u1", {"shared": "other"})]
    assert calls(world.hear(written("u1", None, 4, collection=other))) == [("delete", "u1")]
    assert world.people == {}


@pytest.mark.spec("F036", "F006")
def test_a_document_that_gave_nothing_of_its_own_ends_in_silence() -> None:
    world = World(collections=["users", "profiles"])
    world.hear(written("u1", attributes(a=1), 3), written("u1", attributes(a=1), 4, collection="profiles"))
    old = attributes(a=1)
    assert calls(world.hear(written("u1", None, 3, old=old))) == ["another document"]
    assert calls(world.hear(written("u1", None, 4, collection="profiles"))) == [("delete", "u1")]


@pytest.mark.spec("F036", "F020")
@pytest.mark.parametrize(
    ("first", "second", "said"),
    [
        (by_email("j@x", a=1), attributes(b=1), ("identify", "j@x", {"a": ""})),
        (attributes(a=1), by_email("j@x", b=1), ("identify", "u1", {"a": ""})),
        (by_email("j@x", a=1), by_email("j@x", b=1), ("identify", "j@x", {"a": ""})),
        (by_email("j@x", a=1), by_email("k@x", b=1), ("identify", "j@x", {"a": ""})),
        ({"identifiers": {"id": "p1"}, **attributes(a=1)}, attributes(b=1), ("delete", "p1")),
    ],
)
def test_a_further_document_counts_where_it_names_the_same_person(
    first: dict[str, Any], second: dict[str, Any], said: tuple[Any, ...]
) -> None:
    world = World(collections=["users", "profiles"])
    world.hear(written("u1", first, 3), written("u1", second, 4, collection="profiles"))
    assert calls(world.hear(written("u1", None, 3, at=moment(9)))) == [said]


@pytest.mark.spec("F036", "F006")
def test_documents_of_a_collection_that_is_watched_no_more_keep_nobody() -> None:
    world = World(collections=["users", "tenants/{t}/members"])
    world.hear(written("u1", attributes(a=1), 3))
    world.hear(written("u1", attributes(b=1), 4, collection="tenants/t1/members"))
    narrower = World(collections=["users"])
    narrower.known = world.known
    assert calls(narrower.hear(written("u1", None, 3, at=moment(9)))) == [("delete", "u1")]


@pytest.mark.spec("F036", "F006")
def test_who_leaves_one_of_many_tenants_stays() -> None:
    world = World(collections=["tenants/{t}/members"])
    world.hear(*[written("u1", attributes(a=1), 3, collection=f"tenants/t{n}/members") for n in range(5)])
    said = [
        calls(world.hear(written("u1", None, 3, at=moment(9), collection=f"tenants/t{n}/members")))
        for n in range(5)
    ]
    assert said == [["another document"]] * 4 + [[("delete", "u1")]]


@pytest.mark.spec("F020", "F021")
def test_a_user_whom_a_document_calls_by_email_keeps_it() -> None:
    world = World()
    world.hear(written("u1", by_email("j@x"), 3))
    [said] = world.hear(user("u1", 4, created=1, email="other@x", displayName="J"))
    expected = {"display_name": "J", "email_verified": False, "disabled": False, "created_at": seconds(1)}
    assert calls([said]) == [("identify", "j@x", expected)]


@pytest.mark.spec("F020", "F038")
def test_after_a_deletion_nobody_counts_on_what_was_said_before_it() -> None:
    world = World()
    world.hear(user("u1", 2, created=1, email="a@b"), written("u1", attributes(email="doc@x"), 3))
    world.hear(written("u1", None, 3, at=moment(5)))
    assert calls(world.hear(written("u1", attributes(a=1), 7))) == [
        ("identify", "u1", {"a": 1, "created_at": seconds(7)})
    ]
    [said] = world.hear(user("u1", 8, created=1, email="b@b"))
    assert calls([said])[0][2]["email"] == "b@b"


@pytest.mark.spec("F020")
def test_without_a_tombstone_a_late_write_brings_a_person_back() -> None:
    world = World(tombstone="0")
    world.hear(written("u1", attributes(a=1), 3), user_gone("u1", 5))
    assert calls(world.hear(written("u1", attributes(a=2), 6, created=3)))[0][0] == "identify"


@pytest.mark.spec("F020")
def test_a_late_event_of_the_user_does_not_bring_a_person_back_whose_document_is_deleted() -> None:
    world = World()
    world.hear(written("u1", by_email("j@x", a=1), 3))
    assert calls(world.hear(written("u1", None, 3, old={}, at=moment(5)))) == [("delete", "j@x")]
    assert calls(world.hear(user("u1", 4.5, created=4, email="j@x"))) == ["deleted"]


@pytest.mark.spec("F020")
def test_the_user_and_the_document_deleted_is_one_deletion() -> None:
    world = World()
    world.hear(user("u1", 2, created=1, email="a@b"), written("u1", attributes(a=1), 3))
    assert calls(world.hear(user_gone("u1", 5), written("u1", None, 3))) == [("delete", "u1"), "deleted"]
    world.hear(user("u2", 2, created=1, email="a@b"), written("u2", attributes(a=1), 3))
    assert calls(world.hear(written("u2", None, 4), user_gone("u2", 5))) == [("delete", "u2"), "deleted"]


@pytest.mark.spec("F020")
@pytest.mark.parametrize("path", ["users", "tenants/{t}/users"])
def test_the_end_of_a_user_reaches_the_person_their_document_calls_by_email(path: str) -> None:
    world, at = World(collections=[path]), path.replace("{t}", "t1")
    world.hear(user("u1", 2, created=1, email="j@x"))
    world.hear(written("u1", by_email("j@x", a=1), 3, collection=at))
    assert calls(world.hear(user_gone("u1", 5))) == [("delete", "j@x"), ("delete", "u1")]
    assert world.people == {}
    late = written("u1", by_email("j@x", a=2), 6, created=3, collection=at)
    assert calls(world.hear(late)) == ["deleted"]


@pytest.mark.spec("F020")
def test_the_end_of_a_user_heard_before_their_document() -> None:
    world = World()
    world.hear(user_gone("u1", 5))
    assert calls(world.hear(written("u1", by_email("j@x", a=2), 4))) == ["deleted"]
    assert calls(world.hear(written("u1", by_email("j@x", a=2), 6))) != ["deleted"]


@pytest.mark.spec("F021")
def test_changes_of_a_user_are_told_by_what_differs() -> None:
    world = World()
    world.hear(user("u1", 2, created=1, email="a@b", phoneNumber="+1"))
    said = world.hear(user("u1", 3, created=1, email="c@d", disabled=True))
    assert calls(said) == [("identify", "u1", {"email": "c@d", "disabled": True, "phone": ""})]
    assert calls(world.hear(user("u1", 4, created=1, email="c@d", disabled=True))) == ["unchanged"]
    assert calls(world.hear(user("u1", 3.5, created=1, email="e@f"))) == ["stale"]


@pytest.mark.spec("F021", "F033")
def test_what_a_document_says_stands_above_what_auth_says() -> None:
    world = World()
    world.hear(written("u1", attributes(email="doc@x"), 3))
    said = world.hear(user("u1", 4, created=1, email="auth@x"))
    assert "email" not in calls(said)[0][2]
    assert calls(world.hear(written("u1", attributes(), 5, created=3))) == [("identify", "u1", {"email": ""})]
    assert calls(world.hear(user("u1", 6, created=1, email="auth@x"))) == [
        ("identify", "u1", {"email": "auth@x"})
    ]


@pytest.mark.spec("F021", "F037")
def test_an_attribute_that_a_document_drops_is_given_again_by_auth() -> None:
    world = World()
    world.hear(user("u1", 2, created=1, email="auth@x"), written("u1", attributes(email="doc@x"), 3))
    world.hear(written("u1", attributes(), 5, created=3))
    world.hear(user("u1", 6, created=1, email="auth@x"))
    assert world.people["u1"]["email"] == "auth@x"


@pytest.mark.spec("F037", "F052")
def test_an_attribute_that_one_document_drops_is_given_again_by_another() -> None:
    world = World(collections=["users", "profiles"])
    profile = written("u1", attributes(plan="gold", city="Graz"), 2, collection="profiles")
    [first] = world.hear(profile)
    world.hear(written("u1", attributes(plan="team"), 3), written("u1", attributes(), 4, created=3))
    assert world.people["u1"] == {"city": "Graz", "created_at": seconds(3)}
    [again] = world.hear(profile)
    assert calls([again]) == [("identify", "u1", {"plan": "gold"})]
    assert isinstance(first, Message)
    assert isinstance(again, Message)
    assert first.message_id != again.message_id


@pytest.mark.spec("F022")
@pytest.mark.parametrize(
    ("policy", "expected"), [("skip", ["anonymous"]), ("anonymous", (None, "u1")), ("person", ("u1", None))]
)
def test_anonymous_users(policy: str, expected: Any) -> None:
    world = World(anonymous_users=policy)
    [said] = world.hear(user("u1", 2, created=1))
    if isinstance(said, Message):
        assert (said.user_id, said.anonymous_id) == expected
    else:
        assert calls([said]) == expected


@pytest.mark.spec("F022", "F021")
def test_an_anonymous_user_who_signs_up_is_told_of_in_full_and_joined() -> None:
    world = World(anonymous_users="anonymous")
    world.hear(user("u1", 2, created=1))
    [said] = world.hear(user("u1", 3, created=1, email="a@b"))
    assert isinstance(said, Message)
    assert (said.user_id, said.anonymous_id) == ("u1", "u1")
    assert said.traits["email"] == "a@b"
    assert said.traits["created_at"] == seconds(1)


@pytest.mark.spec("F022")
def test_the_end_of_an_anonymous_user_deletes_nobody() -> None:
    world = World()
    old = {"uid": "u1", "metadata": {}}
    assert calls(world.hear(user_gone("u1", 5, old=old))) == ["anonymous"]
    assert calls(World(anonymous_users="person").hear(user_gone("u1", 5, old=old))) == [("delete", "u1")]


@pytest.mark.spec("F007")
def test_auth_alone_and_firestore_alone() -> None:
    alone = World(collections=[])
    assert calls(alone.hear(written("u1", attributes(a=1), 5))) == ["collection"]
    assert calls(alone.hear(user("u1", 5, email="a@b")))[0][0] == "identify"
    assert calls(World(auth=False).hear(user("u1", 5, email="a@b"))) == ["auth"]


@pytest.mark.spec("F006")
@pytest.mark.parametrize(
    ("collection", "path", "database", "taken"),
    [
        ("users", "users", "(default)", True),
        ("users/{id}", "users", "(default)", True),
        ("users", "teams/t/users", "(default)", False),
        ("users", "users", "eu", False),
        ({"path": "users", "database": "eu"}, "users", "eu", True),
        ("tenants/{tenant}/members", "tenants/t1/members", "(default)", True),
        ("tenants/{tenant}/members/{id}", "tenants/t1/members", "(default)", True),
        ("tenants/{tenant}/members", "tenants/t1/x/y/members", "(default)", False),
        ({"path": "members", "group": True}, "tenants/t1/members", "(default)", True),
        ({"path": "members", "group": True}, "members", "(default)", True),
        ({"path": "members", "group": True}, "tenants/t1/allmembers", "(default)", False),
    ],
)
def test_collections(collection: Any, path: str, database: str, taken: bool) -> None:
    world = World(collections=[collection])
    said = world.hear(written("m1", attributes(a=1), 5, collection=path, database=database))
    assert calls(said) == (
        [("identify", "m1", {"a": 1, "created_at": seconds(5)})] if taken else ["collection"]
    )


@pytest.mark.spec("F033", "F040")
def test_other_fields_and_whole_documents() -> None:
    document = {"plan": "gold", "address": {"city": "Graz"}, "identifiers": {"id": "p"}, "x": b"\0"}
    some = World(
        collections=[{"path": "users", "fields": {"plan": "tier", "address.city": "city", "no.no": "z"}}]
    )
    assert calls(some.hear(written("d", document, 5))) == [
        ("identify", "p", {"tier": "gold", "city": "Graz", "created_at": seconds(5)})
    ]
    whole = World(collections=[{"path": "users", "attributes": "."}])
    [said] = whole.hear(written("d", document, 5))
    assert calls([said]) == [
        ("identify", "p", {"plan": "gold", "address": {"city": "Graz"}, "created_at": seconds(5)})
    ]
    assert isinstance(said, Message)
    assert said.context["source"]["firebase"] == {
        "project": PROJECT,
        "database": "(default)",
        "document": "users/d",
        "update_time": moment(5),
        "left_out": ["x"],
    }


@pytest.mark.spec("F051", "F053")
def test_what_is_remembered_holds_no_values() -> None:
    world = World()
    world.hear(written("d1", attributes(city="Wonderland", yes=True), 5), user("u1", 5, email="a@secret"))
    world.hear(written("d2", attributes(city="Wonderland", yes=True), 5))
    kept = b"".join(world.known.values.values())
    assert b"Wonderland" not in kept
    assert b"secret" not in kept
    assert len(world.known.values[document_key("(default)", "users/d1")]) < 100
    one, other = (world.known.values[document_key("(default)", f"users/{name}")] for name in ("d1", "d2"))
    assert one[-20:] != other[-20:]
    assert world.known.find(user_key("", "u1"))


VALUES = st.dictionaries(st.sampled_from("abc"), st.integers(0, 2), max_size=3)
IDENTIFIERS = st.sampled_from([{}, {"identifiers": {"id": "d"}}])


@st.composite
def document_life(draw: st.DrawFn) -> list[Change]:
    """The true history of a document: written, written again, deleted, made anew."""
    history: list[Change] = []
    created, last = 0.0, None
    for second in range(1, draw(st.integers(2, 7))):
        if last is not None and draw(st.integers(0, 3)) == 0:
            history.append(written("d", None, second - 1, old=last, at=moment(second - 0.5)))
            last = None
            continue
        created = second if last is None else created
        fields = {**draw(IDENTIFIERS), "attributes": draw(VALUES)}
        history.append(written("d", fields, second, created=created, old=last))
        last = fields
    return history


@pytest.mark.spec("F050", "F052", "F037", "F036")
@settings(max_examples=150, deadline=None)
@given(st.data())
def test_in_any_order_and_however_often_the_newest_version_stands(data: st.DataObject) -> None:
    history = data.draw(document_life())
    heard = data.draw(st.permutations(history + data.draw(st.lists(st.sampled_from(history), max_size=4))))
    world = World()
    world.hear(*heard)
    newest = history[-1]
    straight = World()
    straight.hear(newest)
    expected = {name: {**held, "created_at": 0} for name, held in people(straight.said).items()}
    assert {name: {**held, "created_at": 0} for name, held in world.people.items()} == expected


@pytest.mark.spec("F021", "F050", "F055", "F057")
@settings(max_examples=150, deadline=None)
@given(st.data())
def test_users_and_documents_mixed_end_as_the_listing_says(data: st.DataObject) -> None:
    """Both write the same attribute; what an order of events left behind, the next comparison puts right."""
    emails = st.sampled_from([{}, {"email": "a@x"}, {"email": "b@x"}])
    documents = [
        written("d", {"attributes": data.draw(VALUES) | data.draw(emails)}, second, created=1)
        for second in range(1, data.draw(st.integers(2, 5)))
    ]
    users = [
        user("d", second + 0.5, created=0.5, displayName="D", **data.draw(emails))
        for second in range(1, data.draw(st.integers(2, 5)))
    ]
    history: list[Change] = [*documents, *users]
    world = World()
    world.hear(
        *data.draw(st.permutations(history + data.draw(st.lists(st.sampled_from(history), max_size=4))))
    )
    newest: list[Change] = [documents[-1], users[-1]]
    world.hear(*(listed(change, 20) for change in newest))
    straight = World()
    straight.hear(*newest)
    assert world.people == straight.people


@pytest.mark.spec("F020", "F050")
@settings(max_examples=150, deadline=None)
@given(st.data())
def test_whoever_is_deleted_stays_so_whatever_comes_late(data: st.DataObject) -> None:
    """The user is deleted last; their document, by whichever identifier, was made before."""
    identifiers = data.draw(st.sampled_from([{}, {"identifiers": {"email": "j@x"}}]))
    documents = [
        written("u", {**identifiers, "attributes": data.draw(VALUES)}, second, created=1)
        for second in range(1, data.draw(st.integers(2, 5)))
    ]
    history: list[Change] = [*documents, user("u", 2, created=0.5, email="j@x"), user_gone("u", 9)]
    world = World()
    world.hear(
        *data.draw(st.permutations(history + data.draw(st.lists(st.sampled_from(history), max_size=4))))
    )
    assert world.people == {}


def listed(change: Change, at: float) -> Change:
    """The same, as a listing at a second tells it."""
    if isinstance(change, UserChange):
        return UserChange(change.uid, change.user, moment(at), epoch=True)
    return type(change)(
        change.database, change.path, change.fields, change.update_time, change.create_time, epoch=True
    )
