"""Who is who in the simulated Customer.io: every rule of identify, merge, suppress and anonymous history."""

from __future__ import annotations

import pytest

from towpath.sandbox.customerio_identity import FIXED, FULL, NOBODY, TAKEN
from towpath.sandbox.customerio_state import Switches

from .customerio_calls import Workspace

pytestmark = pytest.mark.spec("D12", "C060", "C122")


def test_a_known_path_updates_that_person() -> None:
    at = Workspace()
    at.identify("u1", plan="free")
    at.identify("u1", plan="pro", email="a@example.com")
    assert at.simulator.person(id="u1") == {"id": "u1", "plan": "pro", "email": "a@example.com"}
    assert len(at.state.people) == 1
    assert [each["type"] for each in at.activities()] == [
        "attribute_change",
        "attribute_change",
        "profile_create",
    ]


def test_an_unknown_id_with_the_email_of_a_person_gives_that_person_the_id() -> None:
    at = Workspace()
    at.identify("a@example.com", plan="free")
    at.identify("u1", email="A@Example.com", plan="pro")
    assert at.simulator.person(id="u1") == {"id": "u1", "email": "a@example.com", "plan": "pro"}
    at.identify("u2", email="a@example.com")
    assert at.simulator.person(id="u1") is None
    assert at.simulator.person(id="u2") is not None
    assert len(at.state.people) == 1
    assert not at.reasons()


def test_the_other_reading_leaves_an_id_that_is_set() -> None:
    at = Workspace(switches=Switches(reassign_id=False))
    at.identify("u1", email="a@example.com")
    at.identify("u2", email="a@example.com", plan="pro")
    assert at.simulator.person(id="u1") == {"id": "u1", "email": "a@example.com", "plan": "pro"}
    assert at.simulator.person(id="u2") is None
    assert at.reasons() == [FIXED]


def test_a_body_that_names_somebody_else_is_200_and_a_failure_of_that_attribute_alone() -> None:
    at = Workspace()
    at.identify("u1", email="a@example.com")
    at.identify("u2", email="b@example.com")
    got = at.identify("u2", email="a@example.com", plan="pro")
    assert (got.status, got.json) == (200, {})
    assert at.simulator.person(id="u2") == {"id": "u2", "email": "b@example.com", "plan": "pro"}
    failure = at.activities("failed_attribute_change")[0]
    assert (
        failure["data"]["reason"] == TAKEN == "The identifier is already associated with a different profile."
    )
    assert failure["data"]["email"] == {"from": "b@example.com", "to": "a@example.com"}
    assert failure["customer_identifiers"]["id"] == "u2"


def test_a_set_identifier_changes_only_by_cio_id() -> None:
    at = Workspace()
    at.identify("u1", email="a@example.com")
    at.identify("u1", email="new@example.com")
    at.identify("u1", id="u9")
    at.identify("a@example.com", id="u9")
    assert at.reasons() == [FIXED] * 3
    assert at.simulator.person(id="u1") == {"id": "u1", "email": "a@example.com"}
    at.identify(f"cio_{at.cio_id(id='u1')}", email="new@example.com", id="u9")
    assert at.simulator.person(email="new@example.com") == {"email": "new@example.com", "id": "u9"}
    assert at.simulator.person(email="a@example.com") is None


def test_the_workspace_may_allow_email_changes_by_id() -> None:
    at = Workspace(email_updates_by_id=True)
    at.identify("u1", email="a@example.com")
    at.identify("u1", email="new@example.com")
    at.identify("new@example.com", email="third@example.com")
    assert at.simulator.person(id="u1") == {"id": "u1", "email": "new@example.com"}
    assert at.reasons() == [FIXED]


def test_an_unknown_or_deleted_cio_id_drops_the_request() -> None:
    at = Workspace()
    at.identify("u1", email="a@example.com")
    gone = at.cio_id(id="u1")
    at.track("DELETE", "/customers/u1")
    assert at.identify(f"cio_{gone}", plan="pro").status == 200
    assert at.identify("cio_nobody", id="u2").status == 200
    assert at.event(f"cio_{gone}", "Looked").status == 200
    assert not at.state.people
    assert at.state.ignored == 3


def test_update_only_writes_nothing_for_nobody() -> None:
    at = Workspace()
    at.identify("u1", _update=True, plan="pro")
    at.entity("person", "identify", {"id": "u1"}, attributes={"_update": True, "plan": "pro"})
    assert not at.state.people
    assert at.reasons() == [NOBODY, NOBODY]
    at.identify("u1", plan="free")
    at.identify("u1", _update=True, plan="pro")
    assert at.simulator.person(id="u1") == {"id": "u1", "plan": "pro"}


def test_ids_know_case_and_emails_do_not() -> None:
    at = Workspace()
    at.identify("U1", email="Person@Example.com")
    at.identify("u1")
    at.identify("PERSON@example.com", plan="pro")
    assert len(at.state.people) == 2
    assert at.simulator.person(id="U1") == {"id": "U1", "email": "Person@Example.com", "plan": "pro"}


def test_in_a_workspace_with_ids_only_an_email_is_an_id_and_may_repeat() -> None:
    at = Workspace(identifiers="id")
    at.identify("u1", email="a@example.com")
    at.identify("u2", email="a@example.com")
    at.identify("a@example.com", plan="pro")
    assert len(at.state.people) == 3
    assert not at.reasons()
    assert [each["id"] for each in at.app("GET", "/customers", email="a@example.com").json["results"]] == [
        "u1",
        "u2",
    ]
    assert at.entity("person", "delete", {"email": "a@example.com"}).status == 400


def test_a_phone_identifies_in_v2_where_the_workspace_says_so() -> None:
    at = Workspace(identifiers="email_phone_or_id")
    assert (
        at.entity("person", "identify", {"phone": "+15551234567"}, attributes={"plan": "pro"}).status == 200
    )
    assert at.entity("person", "identify", {"phone": "555"}).status == 400
    at.identify("+15551234567")
    assert at.simulator.person(phone="+15551234567") == {"phone": "+15551234567", "plan": "pro"}
    assert at.simulator.person(id="+15551234567") is not None, "a phone in a v1 path is an id"


@pytest.mark.parametrize("empty", ["", None])
def test_an_empty_value_removes_an_attribute(empty: str | None) -> None:
    at = Workspace()
    at.identify("u1", plan="pro", seats=0, ready=False)
    at.identify("u1", plan=empty)
    assert at.simulator.person(id="u1") == {"id": "u1", "seats": 0, "ready": False}
    assert at.activities("attribute_change")[0]["data"] == {"plan": {"from": "pro", "to": ""}}


@pytest.mark.spec("C120")
def test_an_older_update_does_not_overwrite_a_newer_attribute() -> None:
    at = Workspace()
    at.identify("u1", _timestamp=200, plan="pro", seats=5)
    at.identify("u1", _timestamp=100, plan="free", city="Ghent")
    at.identify("u1", _timestamp=200, seats=6)
    assert at.simulator.person(id="u1") == {"id": "u1", "plan": "pro", "seats": 6, "city": "Ghent"}
    at.identify("u1", _timestamp=300, plan="")
    at.entity("person", "identify", {"id": "u1"}, attributes={"plan": "late"}, timestamp=250)
    assert "plan" not in (at.simulator.person(id="u1") or {}), "a removal is not undone by what is older"


def test_an_older_change_of_an_identifier_has_no_effect_either() -> None:
    at = Workspace()
    at.identify("u1", _timestamp=200, email="a@example.com")
    cio_id = at.cio_id(id="u1")
    at.identify(f"cio_{cio_id}", _timestamp=100, email="old@example.com", id="u0")
    assert at.simulator.person(cio_id=cio_id) == {"id": "u1", "email": "a@example.com"}
    at.identify(f"cio_{cio_id}", _timestamp=201, email="new@example.com", id="u2")
    assert at.simulator.person(cio_id=cio_id) == {"id": "u2", "email": "new@example.com"}
    at.event("u3", "Looked")
    at.identify(f"cio_{at.cio_id(id='u3')}", _timestamp=1, id="u4")
    assert at.simulator.person(id="u4") is not None, "an event says nothing about when an id was given"


def test_a_profile_holds_300_attributes() -> None:
    at = Workspace()
    at.identify("u1", **{f"a{n}": n for n in range(299)})
    at.identify("u1", a0="changed", one_more=1)
    assert at.reasons() == [FULL]
    assert (at.simulator.person(id="u1") or {})["a0"] == "changed"


def test_subscription_preferences_are_changed_one_by_one_or_as_a_whole() -> None:
    at = Workspace()
    at.identify("u1", **{"cio_subscription_preferences.topics.topic_1": True})
    at.identify("u1", **{"cio_subscription_preferences.topics.topic_2": False})
    assert (at.simulator.person(id="u1") or {})["cio_subscription_preferences"] == {
        "topics": {"topic_1": True, "topic_2": False}
    }
    at.identify("u1", cio_subscription_preferences={"topics": {"topic_1": False}})
    assert (at.simulator.person(id="u1") or {})["cio_subscription_preferences"] == {
        "topics": {"topic_1": False}
    }
    at.identify("u1", **{"a.b": 1})
    assert (at.simulator.person(id="u1") or {})["a.b"] == 1, "other dotted names are names"


@pytest.mark.parametrize("value", [True, "TRUE", "true", 1, "1"])
def test_unsubscribed_in_every_spelling(value: object) -> None:
    at = Workspace()
    at.identify("u1", unsubscribed=value)
    person = at.simulator.find(id="u1")
    assert person is not None
    assert person.unsubscribed
    at.identify("u1", unsubscribed="false")
    assert not person.unsubscribed


# -- delete, suppress ----------------------------------------------------------------------------------


def test_after_a_delete_the_same_id_is_a_new_person() -> None:
    at = Workspace()
    at.identify("u1", email="a@example.com")
    at.event("u1", "Looked")
    first = at.cio_id(id="u1")
    assert at.track("DELETE", "/customers/u1").status == 200
    assert at.track("DELETE", "/customers/u1").status == 200
    assert not at.activities(), "activities of deleted people are only shown on request"
    assert at.activities(deleted="true")[0]["type"] == "profile_delete"
    at.identify("u1")
    assert at.cio_id(id="u1") != first
    assert not at.names(id="u1")


@pytest.mark.spec("C061")
def test_a_suppressed_person_is_deleted_and_ignored_until_unsuppressed() -> None:
    at = Workspace()
    at.identify("u1", email="a@example.com")
    assert at.track("POST", "/customers/u1/suppress").status == 200
    assert at.identify("u1", plan="pro").status == 200
    at.identify("A@example.com", plan="pro")
    at.identify("u2", email="a@example.com")
    at.event("u1", "Looked")
    at.entity("person", "add_device", {"id": "u1"}, device={"token": "t", "platform": "ios"})
    assert not at.state.people
    assert at.simulator.profiles.suppressed() == [("email", "a@example.com"), ("id", "u1")]
    at.track("POST", "/customers/u1/unsuppress")
    assert not at.state.people, "the profile does not come back"
    at.identify("u1", plan="pro")
    assert at.simulator.person(id="u1") == {"id": "u1", "plan": "pro"}
    at.identify("a@example.com")
    assert len(at.state.people) == 1


def test_an_unknown_identifier_can_be_suppressed() -> None:
    at = Workspace()
    at.entity("person", "suppress", {"id": "u1"})
    at.identify("u1")
    assert not at.state.people
    at.entity("person", "unsuppress", {"id": "u1"})
    at.identify("u1")
    assert len(at.state.people) == 1


# -- merge ---------------------------------------------------------------------------------------------


def test_a_merge_fills_what_the_primary_has_not_and_deletes_the_secondary() -> None:
    at = Workspace()
    now = int(at.clock.now())
    at.identify("u1", plan="pro")
    at.identify("b@example.com", plan="free", city="Ghent")
    at.event("u1", "New", timestamp=now - 10)
    at.event("b@example.com", "Recent", timestamp=now - 29 * 86_400)
    at.event("b@example.com", "Ancient", timestamp=now - 31 * 86_400)
    at.app("POST", "/segments", {"segment": {"name": "VIP"}})
    at.track("POST", "/segments/1/add_customers?id_type=email", {"ids": ["b@example.com"]})
    body = {"primary": {"id": "u1"}, "secondary": {"email": "b@example.com"}}
    assert at.track("POST", "/merge_customers", body).status == 200
    expected = {"id": "u1", "plan": "pro", "email": "b@example.com", "city": "Ghent"}
    assert at.simulator.person(id="u1") == expected == at.simulator.person(email="b@example.com")
    assert at.names(id="u1") == ["Recent", "New"]
    assert at.state.segments[1].members == {at.cio_id(id="u1")}
    assert at.activities("profile_merge")[0]["data"]["secondary"]["email"] == "b@example.com"


def test_a_merge_without_a_primary_does_nothing() -> None:
    at = Workspace()
    at.identify("u2")
    at.entity("person", "merge", primary={"id": "u1"}, secondary={"id": "u2"})
    at.entity("person", "merge", primary={"id": "u2"}, secondary={"id": "u2"})
    assert list(at.state.people) == [at.cio_id(id="u2")]


def test_a_merge_right_after_the_identify_may_find_no_primary() -> None:
    at = Workspace(switches=Switches(settle_s=2))
    at.identify("u2", plan="pro")
    at.clock.at += 5
    at.identify("u1")
    for expected in (2, 1):
        at.entity("person", "merge", primary={"id": "u1"}, secondary={"id": "u2"})
        assert len(at.state.people) == expected
        at.clock.at += 2


def test_a_merge_keeps_the_consent_of_the_primary() -> None:
    at = Workspace()
    at.identify("u1", unsubscribed=False)
    at.identify("u2", unsubscribed=True)
    at.entity("person", "merge", primary={"id": "u1"}, secondary={"id": "u2"})
    person = at.simulator.find(id="u1")
    assert person is not None
    assert not person.unsubscribed


@pytest.mark.parametrize(
    "body",
    [
        {"primary": {"id": "u1"}},
        {"primary": {"id": "u1", "email": "a@example.com"}, "secondary": {"id": "u2"}},
        {"primary": {"id": ["u1"]}, "secondary": {"id": "u2"}},
        {"primary": {"name": "u1"}, "secondary": {"id": "u2"}},
    ],
)
def test_a_merge_takes_exactly_one_identifier_of_each(body: object) -> None:
    got = Workspace().track("POST", "/merge_customers", body)
    assert got.status == 400
    assert isinstance(got.json["meta"]["error"], str)


# -- events, anonymous history -------------------------------------------------------------------------


@pytest.mark.spec("C061")
def test_an_event_makes_the_person_it_names() -> None:
    at = Workspace()
    at.event("u1", "Looked", data={"page": 1})
    at.event("a@example.com", "Looked")
    assert at.simulator.person(id="u1") == {"id": "u1"}
    assert at.simulator.person(email="a@example.com") == {"email": "a@example.com"}


@pytest.mark.spec("C120")
def test_a_repeated_ulid_is_ignored_and_another_id_is_not() -> None:
    at = Workspace()
    for name in ("One", "Two"):
        at.event("u1", name, id="01BX5ZZKBKACTAV9WEVGEMMVRY")
        at.event("u1", name, id="not-a-ulid")
    at.entity("person", "event", {"id": "u1"}, name="Three", id="01BX5ZZKBKACTAV9WEVGEMMVRY")
    assert at.names(id="u1") == ["One", "One", "Two"]
    assert at.state.duplicates == 2


@pytest.mark.spec("C062")
def test_anonymous_events_join_whoever_gets_their_id_within_30_days() -> None:
    at = Workspace()
    now = int(at.clock.now())
    for name, age_days in (("Ancient", 31), ("Recent", 29)):
        body = {"name": name, "anonymous_id": "an1", "timestamp": now - age_days * 86_400}
        assert at.track("POST", "/events", body).status == 200
    assert [event.name for event in at.simulator.profiles.anonymous("an1")] == ["Ancient", "Recent"]
    at.identify("u1", anonymous_id="an1")
    at.track("POST", "/events", {"name": "Later", "anonymous_id": "an1"})
    assert at.names(id="u1") == ["Recent", "Later"]
    assert at.activities("anon_merge")[0]["data"]["events"] == 1
