"""Identifiers that two profiles claim, against the simulated Customer.io."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from towpath.destination import Scope
from towpath.http import Http, Undelivered
from towpath.message import Message
from towpath.outcome import Delivered, Outcome, Paused, Retry, Skipped
from towpath.sandbox.customerio import DEFAULT, CustomerIoSimulator
from towpath.testing.fakes import FakeClock, FakeMemory

from .customerio_world import (
    RECEIVED,
    World,
    answer,
    customerio,
    identify,
    json_of,
    message,
    outcome_of,
    prepared,
    track,
)
from .test_kustomer_sandbox import InProcess

SIMULATOR = "http://127.0.0.1:1"
KEYS: dict[str, Any] = {"site_id": DEFAULT.site_id, "api_key": DEFAULT.api_key, "base_url": SIMULATOR}
APP_KEY: dict[str, Any] = {"app_api_key": DEFAULT.app_api_key}


class Workspace:
    """The destination connected to one simulated workspace."""

    def __init__(self, settings: dict[str, Any] | None = None, **workspace: Any) -> None:
        self.clock = FakeClock(RECEIVED)
        self.simulator = CustomerIoSimulator(clock=self.clock, **workspace)
        self.destination = customerio(**{**KEYS, **(settings or {})})
        http = Http(InProcess(self.simulator), self.clock)  # type: ignore[arg-type]
        self.scope = Scope(http, self.clock, FakeMemory(self.clock))

    async def deliver(self, given: Message) -> Outcome:
        """What becomes of one message."""
        try:
            return await self.destination.deliver(prepared(self.destination, given), self.scope)
        except Undelivered as error:
            return error.outcome

    async def deliver_batch(self, *given: Message) -> Sequence[Outcome | None]:
        """What becomes of messages that travel together."""
        payloads = [prepared(self.destination, each) for each in given]
        return [outcome_of(each) for each in await self.destination.deliver_batch(payloads, self.scope)]

    async def has(self, **attributes: Any) -> None:
        """Let the workspace have a profile already."""
        kind = "id" if "id" in attributes else "email"
        value = attributes[kind]
        self.simulator.profiles.identify((kind, value), attributes)
        self.clock._elapsed += 60

    def person(self, **identifier: str) -> dict[str, Any]:
        """A person's attributes."""
        found = self.simulator.person(**identifier)
        assert found is not None, identifier
        return found

    def paths(self) -> list[str]:
        """What was asked for, in order."""
        return [f"{seen.method} {seen.path}" for seen in self.simulator.requests]


@pytest.mark.spec("C122", "D17")
async def test_left_as_customerio_leaves_it_and_reported() -> None:
    workspace = Workspace(APP_KEY)
    await workspace.has(id="u1", email="old@x.io")
    outcome = await workspace.deliver(identify({"email": "new@x.io", "plan": "gold"}))
    assert isinstance(outcome, Delivered)
    (report,) = outcome.reports
    assert report.startswith("Customer.io did not apply email:")
    assert "x.io" not in report
    person = workspace.person(id="u1")
    assert person["email"] == "old@x.io"
    assert person["plan"] == "gold"


@pytest.mark.spec("C122")
async def test_a_failure_of_earlier_is_not_reported_again() -> None:
    workspace = Workspace(APP_KEY)
    await workspace.has(id="u1", email="old@x.io")
    assert (await workspace.deliver(identify({"email": "new@x.io"}))) != Delivered(200)
    workspace.clock._elapsed += 3600
    assert await workspace.deliver(identify({"email": "old@x.io"})) == Delivered(200)


@pytest.mark.spec("C122")
async def test_in_a_batch_each_report_goes_to_its_own() -> None:
    workspace = Workspace(APP_KEY)
    await workspace.has(id="u2", email="old@x.io")
    outcomes = await workspace.deliver_batch(
        identify({"email": "one@x.io"}),
        track(userId="u3"),
        identify({"email": "two@x.io"}, userId="u2"),
    )
    assert outcomes[:2] == [Delivered(200), Delivered(200)]
    assert isinstance(outcomes[2], Delivered)
    assert outcomes[2].reports


@pytest.mark.spec("C122", "C085")
async def test_of_a_batch_few_are_read_back_and_known_ones_never() -> None:
    workspace = Workspace(APP_KEY)
    given = [identify({"email": f"{n}@x.io"}, userId=f"u{n}") for n in range(20)]
    await workspace.deliver_batch(*given)
    asked = [path for path in workspace.paths() if "activities" in path]
    assert len(asked) == 3
    await workspace.deliver_batch(given[0])
    assert [path for path in workspace.paths() if "activities" in path] == asked


@pytest.mark.spec("C122")
async def test_without_an_app_key_nothing_is_asked() -> None:
    workspace = Workspace()
    await workspace.deliver(identify({"email": "a@x.io"}))
    assert workspace.paths() == ["GET /api/v1/accounts/region", "POST /api/v2/entity"]


@pytest.mark.spec("C122", "F039")
@pytest.mark.parametrize("policy", ["rename", "merge"])
async def test_renamed_by_cio_id(policy: str) -> None:
    workspace = Workspace({**APP_KEY, "conflicts": policy})
    await workspace.has(id="u1", email="old@x.io")
    assert await workspace.deliver(identify({"email": "new@x.io", "plan": "gold"})) == Delivered(200)
    person = workspace.person(id="u1")
    assert person["email"] == "new@x.io"
    assert person["plan"] == "gold"
    assert len(workspace.simulator.state.people) == 1


@pytest.mark.spec("C122", "F039")
@pytest.mark.parametrize("policy", ["rename", "merge"])
async def test_a_new_id_for_the_holder_of_the_email(policy: str) -> None:
    workspace = Workspace({**APP_KEY, "conflicts": policy})
    await workspace.has(id="old-id", email="a@x.io")
    assert await workspace.deliver(identify({"email": "a@x.io"})) == Delivered(200)
    assert workspace.person(id="u1")["email"] == "a@x.io"
    assert workspace.simulator.person(id="old-id") is None


@pytest.mark.spec("C122", "D17")
async def test_rename_never_merges() -> None:
    workspace = Workspace({**APP_KEY, "conflicts": "rename"})
    await workspace.has(id="u1", email="old@x.io")
    await workspace.has(id="u2", email="new@x.io")
    outcome = await workspace.deliver(identify({"email": "new@x.io", "plan": "gold"}))
    assert isinstance(outcome, Delivered)
    assert "another profile holds them" in outcome.reports[0]
    assert workspace.person(id="u1")["email"] == "old@x.io"
    assert workspace.person(id="u1")["plan"] == "gold"
    assert workspace.person(id="u2")["email"] == "new@x.io"


@pytest.mark.spec("C122", "D17", "D09")
@pytest.mark.parametrize("refuser", ["u1", "u2"])
async def test_merged_first_and_consent_is_kept(refuser: str) -> None:
    workspace = Workspace({**APP_KEY, "conflicts": "merge"})
    await workspace.has(id="u1", email="old@x.io", unsubscribed=refuser == "u1")
    await workspace.has(id="u2", email="new@x.io", unsubscribed=refuser == "u2", plan="silver")
    outcome = await workspace.deliver(identify({"email": "new@x.io", "unsubscribed": False}))
    assert isinstance(outcome, Delivered)
    assert outcome.reports[0].startswith("merged")
    person = workspace.person(id="u1")
    assert person["email"] == "new@x.io"
    assert person["plan"] == "silver"
    assert person["unsubscribed"] is True
    assert len(workspace.simulator.state.people) == 1
    assert workspace.paths()[-1].endswith("/attributes")


@pytest.mark.spec("D17", "D09")
async def test_topics_that_the_other_refused_stay_refused() -> None:
    workspace = Workspace({**APP_KEY, "conflicts": "merge"})
    preferences = {"topics": {"topic_1": True, "topic_2": True}}
    await workspace.has(id="u1", email="old@x.io", cio_subscription_preferences=preferences)
    refused = {"topics": {"topic_1": False, "topic_2": True}}
    await workspace.has(id="u2", email="new@x.io", cio_subscription_preferences=refused)
    await workspace.deliver(identify({"email": "new@x.io"}))
    kept = workspace.person(id="u1")["cio_subscription_preferences"]
    assert kept == {"topics": {"topic_1": False, "topic_2": True}}


@pytest.mark.spec("D17", "D09")
async def test_consent_survives_a_failure_in_the_middle_of_a_merge() -> None:
    workspace = Workspace({**APP_KEY, "conflicts": "merge"})
    await workspace.has(id="u1", email="old@x.io")
    await workspace.has(id="u2", email="new@x.io", unsubscribed=True)
    given = identify({"email": "new@x.io", "unsubscribed": False})
    entity, calls = workspace.simulator.answer, 0

    def failing(request: Any) -> Any:
        nonlocal calls
        calls += request.path.endswith("/entity")
        if calls == 3:
            raise ConnectionResetError
        return entity(request)

    workspace.simulator._front._answer = failing
    with pytest.raises(ConnectionResetError):
        await workspace.deliver(given)
    workspace.simulator._front._answer = entity
    assert isinstance(await workspace.deliver(given), Delivered)
    person = workspace.person(id="u1")
    assert person["unsubscribed"] is True
    assert person["email"] == "new@x.io"


@pytest.mark.spec("C122")
async def test_one_that_went_well_is_not_looked_up_again() -> None:
    workspace = Workspace({**APP_KEY, "conflicts": "merge"})
    given = identify({"email": "a@x.io"})
    await workspace.deliver(given)
    before = len(workspace.paths())
    await workspace.deliver(given)
    assert workspace.paths()[before:] == ["POST /api/v2/entity"]


@pytest.mark.spec("C122", "C120")
async def test_in_a_batch_a_look_up_keeps_its_person_in_order() -> None:
    workspace = Workspace({**APP_KEY, "conflicts": "rename"})
    outcomes = await workspace.deliver_batch(
        track(event="First", message_id="m-1"),
        identify({"email": "a@x.io"}, message_id="m-2"),
        track(event="Second", message_id="m-3"),
        track(event="Other", userId="u2", message_id="m-4"),
    )
    assert outcomes == [Delivered(200)] * 4
    writes = [path for path in workspace.paths() if path.startswith("POST /api")]
    assert writes == ["POST /api/v2/batch", "POST /api/v2/entity", "POST /api/v2/entity"]
    assert [event.name for event in workspace.simulator.events(id="u1")] == ["First", "Second"]


@pytest.mark.spec("D13")
@pytest.mark.parametrize("settings", [{}, APP_KEY, {**APP_KEY, "conflicts": "merge"}])
@pytest.mark.parametrize("together", [False, True])
async def test_a_copied_client_key_takes_nobodys_email(settings: dict[str, Any], together: bool) -> None:
    workspace = Workspace(settings)
    await workspace.has(id="victim", email="victim@x.io", plan="gold")
    forged = identify({"email": "victim@x.io", "plan": "none"}, trust="client", userId="attacker")
    if together:
        outcomes = await workspace.deliver_batch(forged, track(userId="u9"))
        assert all(isinstance(outcome, Delivered) for outcome in outcomes)
    else:
        assert isinstance(await workspace.deliver(forged), Delivered)
    assert workspace.person(email="victim@x.io") == workspace.person(id="victim")
    assert workspace.person(id="victim")["plan"] == "gold"
    assert workspace.person(id="attacker")["plan"] == "none"
    assert "email" not in workspace.person(id="attacker")


@pytest.mark.spec("D13")
@pytest.mark.parametrize("settings", [{}, APP_KEY])
async def test_a_client_sets_its_own_email(settings: dict[str, Any]) -> None:
    workspace = Workspace(settings)
    outcome = await workspace.deliver(identify({"email": "a@x.io", "plan": "gold"}, trust="client"))
    assert outcome == Delivered(200)
    person = workspace.person(id="u1")
    assert (person["email"], person["plan"]) == ("a@x.io", "gold")


@pytest.mark.spec("D13", "D17")
async def test_with_an_app_key_a_client_joins_a_profile_that_has_no_id() -> None:
    workspace = Workspace(APP_KEY)
    await workspace.has(email="lead@x.io", source="newsletter")
    assert await workspace.deliver(identify({"email": "lead@x.io"}, trust="client")) == Delivered(200)
    assert workspace.person(id="u1")["source"] == "newsletter"


@pytest.mark.spec("D13")
def test_a_client_renames_nobody() -> None:
    payload = prepared(customerio(), identify({"id": "victim", "cio_id": "a3"}, trust="client"))
    assert payload.requests[0].json["attributes"] == {}
    assert "id left out" in payload.reports[1]
    forged = message({"type": "identify", "userId": "a@x.io", "traits": {"email": "b@x.io"}}, "client")
    assert prepared(customerio(), forged).requests[0].json["attributes"] == {}


@pytest.mark.spec("C122", "C085")
async def test_an_app_api_that_does_not_answer_delays_the_look_up_not_the_read_back() -> None:
    workspace = Workspace({**APP_KEY, "conflicts": "rename"})
    workspace.simulator._app_allowance = workspace.simulator._app_allowance.__class__(workspace.clock, 0, 1.0)
    assert isinstance(await workspace.deliver(identify({"email": "a@x.io"})), Retry)
    workspace.destination = customerio(**KEYS, **APP_KEY)
    assert await workspace.deliver(identify({"email": "a@x.io"})) == Delivered(200)


@pytest.mark.spec("C122", "F039")
async def test_a_person_known_by_email_gets_a_new_one() -> None:
    workspace = Workspace({**APP_KEY, "conflicts": "rename"})
    await workspace.has(email="old@x.io", plan="gold")
    given = message({"type": "identify", "userId": "old@x.io", "traits": {"email": "new@x.io", "id": "u1"}})
    assert await workspace.deliver(given) == Delivered(200)
    person = workspace.person(email="new@x.io")
    assert (person["id"], person["plan"]) == ("u1", "gold")


@pytest.mark.spec("C122")
async def test_an_email_that_several_share_is_no_identifier() -> None:
    workspace = Workspace({**APP_KEY, "conflicts": "merge"}, identifiers="id")
    for user in ("u1", "u2"):
        await workspace.has(id=user, email="family@x.io")
    assert await workspace.deliver(identify({"email": "family@x.io", "plan": "gold"})) == Delivered(200)
    assert workspace.person(id="u1")["plan"] == "gold"
    assert len(workspace.simulator.state.people) == 2


@pytest.mark.spec("D09", "D17")
@pytest.mark.parametrize("together", [False, True])
async def test_an_alias_keeps_what_either_refused(together: bool) -> None:
    workspace = Workspace(APP_KEY)
    await workspace.has(id="u1", unsubscribed=False)
    await workspace.has(id="old", unsubscribed=True)
    alias = message({"type": "alias", "userId": "u1", "previousId": "old"})
    if together:
        assert await workspace.deliver_batch(alias, track(userId="u9")) == [Delivered(200)] * 2
    else:
        assert await workspace.deliver(alias) == Delivered(200)
    assert workspace.person(id="u1")["unsubscribed"] is True
    assert workspace.simulator.person(id="old") is None


@pytest.mark.spec("C121")
@pytest.mark.parametrize("settings", [{}, APP_KEY])
async def test_an_alias_of_somebody_unknown_changes_nothing(settings: dict[str, Any]) -> None:
    workspace = Workspace(settings)
    await workspace.has(id="u1", plan="gold")
    alias = message({"type": "alias", "userId": "u1", "previousId": "nobody@x.io"})
    assert await workspace.deliver(alias) == Delivered(200)
    assert workspace.person(id="u1")["plan"] == "gold"


@pytest.mark.spec("D13")
async def test_a_refused_app_key_leaves_a_client_guarded() -> None:
    workspace = Workspace({"app_api_key": "revoked"})
    await workspace.has(id="victim", email="victim@x.io")
    forged = identify({"email": "victim@x.io"}, trust="client", userId="attacker")
    assert await workspace.deliver(forged) == Delivered(200)
    assert workspace.person(id="victim")["email"] == "victim@x.io"
    assert "email" not in workspace.person(id="attacker")


@pytest.mark.spec("D02", "C122")
async def test_a_refused_app_key_pauses_only_what_needs_it() -> None:
    workspace = Workspace({"app_api_key": "revoked", "conflicts": "merge"})
    contested, plain = identify({"email": "a@x.io"}), identify({"plan": "gold"})
    assert isinstance(await workspace.deliver(contested), Paused)
    assert await workspace.deliver(plain) == Delivered(200)
    assert prepared(workspace.destination, contested).capability == "app"
    assert prepared(workspace.destination, plain).capability == ""
    lines = await workspace.destination.check(workspace.scope)
    assert {line.capability for line in lines if not line.ok} == {"app"}


@pytest.mark.spec("D13")
@pytest.mark.parametrize("together", [False, True])
async def test_a_visitor_cannot_claim_a_users_email(together: bool) -> None:
    workspace = Workspace(APP_KEY)
    await workspace.has(id="victim", email="victim@x.io", plan="gold")
    await workspace.has(email="lead@x.io")
    fields = {"type": "identify", "anonymousId": "an", "traits": {"email": "victim@x.io", "plan": "none"}}
    claim = message(fields, "client")
    own = message({**fields, "anonymousId": "an2", "traits": {"email": "lead@x.io", "plan": "new"}}, "client")
    if together:
        outcomes = await workspace.deliver_batch(claim, own)
    else:
        outcomes = [await workspace.deliver(claim), await workspace.deliver(own)]
    assert isinstance(outcomes[0], Skipped)
    assert outcomes[0].reason == "untrusted"
    assert outcomes[1] == Delivered(200)
    assert workspace.person(id="victim")["plan"] == "gold"
    assert workspace.person(email="lead@x.io")["plan"] == "new"


@pytest.mark.spec("C122", "D13")
async def test_what_customerio_left_out_after_a_look_up_is_reported() -> None:
    workspace = Workspace(APP_KEY)
    await workspace.has(id="u1", plan="gold")
    await workspace.has(email="lead@x.io")
    outcome = await workspace.deliver(identify({"email": "lead@x.io"}, trust="client"))
    assert isinstance(outcome, Delivered)
    assert outcome.reports[0].startswith("Customer.io did not apply email:")


@pytest.mark.spec("D09", "D17")
async def test_a_message_cannot_undo_refused_topics_with_the_merge_it_causes() -> None:
    workspace = Workspace({**APP_KEY, "conflicts": "merge"})
    await workspace.has(id="u1", email="old@x.io")
    await workspace.has(
        id="u2", email="new@x.io", cio_subscription_preferences={"topics": {"topic_1": False}}
    )
    wanted = {"topics": {"topic_1": True}}
    await workspace.deliver(identify({"email": "new@x.io", "cio_subscription_preferences": wanted}))
    assert workspace.person(id="u1")["cio_subscription_preferences"] == {"topics": {"topic_1": False}}


@pytest.mark.spec("D17")
async def test_a_merge_is_not_over_before_the_refusal_is_seen() -> None:
    def profile(cio_id: str, *, unsubscribed: bool) -> Any:
        identifiers = {"id": cio_id, "cio_id": cio_id}
        return answer(200, {"customer": {"identifiers": identifiers, "unsubscribed": unsubscribed}})

    world = World(
        ("GET", "/v1/customers?email=*", answer(200, {"results": [{"cio_id": "c2", "id": "u2"}]})),
        ("GET", "/v1/customers/cio_c2/*", profile("c2", unsubscribed=True)),
        ("GET", "/v1/customers/*", profile("c1", unsubscribed=False)),
        conflicts="merge",
        app_api_key="app-secret",
    )
    given = identify({"email": "a@x.io", "unsubscribed": False})
    outcome = await world.deliver(given)
    assert isinstance(outcome, Retry)
    assert "does not show yet" in outcome.reason
    world.network.on("GET", "/v1/customers/*", profile("c1", unsubscribed=True))
    world.network.on("GET", "/v1/customers?email=*", answer(200, {"results": []}))
    assert await world.deliver(given) == Delivered(200)
    writes = [json_of(request) for request in world.sent if request.method == "POST"]
    assert [item["action"] for item in writes] == ["identify", "merge", "identify", "identify"]
    assert [item["attributes"]["unsubscribed"] for item in writes if "attributes" in item] == [True] * 3


@pytest.mark.spec("C085")
async def test_a_throttled_look_up_does_not_throttle_what_is_written() -> None:
    world = World(("GET", "/v1/customers*", answer(429)), conflicts="rename", app_api_key="app-secret")
    outcome = await world.deliver(identify({"email": "a@x.io"}))
    assert isinstance(outcome, Retry)
    assert not outcome.throttled


@pytest.mark.spec("C122")
async def test_an_identifier_the_app_api_does_not_take_is_nobodys() -> None:
    world = World(("GET", "/v1/customers*", answer(400)), conflicts="merge", app_api_key="app-secret")
    assert await world.deliver(identify({"email": "a@x.io"})) == Delivered(200)
    assert await world.deliver(identify({"email": "a@x.io"}, userId="..")) == Delivered(200)


async def test_the_refused_key_is_named() -> None:
    for settings, url, words in (
        ({}, "/api/v2/entity", "Track API key"),
        ({"conflicts": "merge", "app_api_key": "a"}, "/v1/customers*", "app_api_key"),
        ({"api": "pipelines", "pipelines_write_key": "w"}, "/v1/batch", "pipelines_write_key"),
    ):
        outcome = await World(("*", url, answer(401)), **settings).deliver(identify({"email": "a@x.io"}))  # type: ignore[arg-type]
        assert isinstance(outcome, Paused)
        assert words in outcome.reason
