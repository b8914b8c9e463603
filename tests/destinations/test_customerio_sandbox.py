"""Every kind of message, taken by the simulated Customer.io, alone and together."""

from __future__ import annotations

from typing import Any

import pytest

from towpath.message import Message
from towpath.outcome import Delivered, Rejected

from .customerio_world import identify, message, track
from .test_customerio_conflicts import Workspace
from .test_customerio_items import PHONE, group


def everything() -> list[Message]:
    """A story in which every kind of call has a part."""
    visitor = {"anonymousId": "an"}
    calls: list[dict[str, Any]] = [
        {"type": "page", "name": "Home", **visitor},
        {"type": "track", "event": "Looked", **visitor},
        {"type": "identify", "userId": "u1", "traits": {"email": "u1@x.io", "plan": "free"}, **visitor},
        {"type": "track", "userId": "u1", "event": "Bought", "properties": {"total": 5}},
        {"type": "screen", "userId": "u1", "name": "Cart"},
        {"type": "track", "userId": "u1", "event": "Application Installed", "context": PHONE},
        {"type": "group", "userId": "u1", "groupId": "acme", "traits": {"name": "Acme"}},
        {"type": "identify", "userId": "u2", "traits": {"city": "X"}},
        {"type": "alias", "userId": "u1", "previousId": "u2"},
        {"type": "identify", "userId": "gone"},
        {"type": "delete", "userId": "gone"},
        {"type": "track", "userId": "blocked@x.io", "event": "User Suppressed"},
        {"type": "identify", "userId": "blocked@x.io"},
        {
            "type": "track",
            "event": "Report Delivery Event",
            "properties": {"deliveryId": "d", "metric": "opened"},
        },
    ]
    return [message(call, message_id=f"m-{place}") for place, call in enumerate(calls)]


@pytest.mark.spec("C060", "C061", "C062", "C063", "C120", "C121", "D10")
@pytest.mark.parametrize("together", [False, True])
async def test_a_story_with_every_kind_of_call(together: bool) -> None:
    workspace = Workspace()
    told = everything()
    if together:
        outcomes = list(await workspace.deliver_batch(*told))
    else:
        outcomes = [await workspace.deliver(each) for each in told]
    assert outcomes == [Delivered(200)] * len(told)
    person = workspace.simulator.find(id="u1")
    assert person is not None
    assert {name: person.attributes[name] for name in ("email", "plan", "city")} == {
        "email": "u1@x.io",
        "plan": "free",
        "city": "X",
    }
    assert [event.name for event in person.events] == ["Home", "Looked", "Bought", "Cart"]
    assert [event.kind for event in person.events] == ["page", "event", "event", "screen"]
    assert list(person.devices) == ["tok"]
    assert len(person.relationships) == 1
    for nobody in ({"id": "u2"}, {"id": "gone"}, {"email": "blocked@x.io"}):
        assert workspace.simulator.person(**nobody) is None
    await workspace.deliver(track(event="Device Deleted", context=PHONE))
    await workspace.deliver(track({"objectId": "acme"}, event="Relationship Deleted"))
    assert (person.devices, person.relationships) == ({}, {})
    await workspace.deliver(track({"objectId": "acme"}, event="Object Deleted"))
    assert workspace.simulator.state.objects == {}
    await workspace.deliver(track(event="User Unsuppressed", userId="blocked@x.io"))
    await workspace.deliver(identify({}, userId="blocked@x.io"))
    assert workspace.simulator.person(email="blocked@x.io") is not None


@pytest.mark.spec("C120", "D07")
async def test_a_repeated_event_counts_once() -> None:
    workspace = Workspace()
    for _ in range(3):
        await workspace.deliver(track(message_id="m-1"))
        await workspace.deliver(
            message({"type": "track", "anonymousId": "an", "event": "E"}, message_id="m-2")
        )
    assert len(workspace.simulator.events(id="u1")) == 1
    assert len(workspace.simulator.profiles.anonymous("an")) == 1


@pytest.mark.spec("C120")
async def test_what_only_customerio_refuses_is_a_verdict_on_that_item() -> None:
    workspace = Workspace()
    workspace.simulator.refuse_item(1, reason="invalid", field="attributes.city", message="too long")
    outcomes = await workspace.deliver_batch(
        identify({"city": "X"}), identify({"city": "Y"}, userId="u2"), track(userId="u3")
    )
    assert outcomes[0] == outcomes[2] == Delivered(207)
    assert outcomes[1] == Rejected("207: attributes.city: too long (invalid)", 207)
    assert workspace.simulator.person(id="u2") is None


@pytest.mark.spec("C121")
async def test_a_group_of_a_visitor_waits_for_who_it_is() -> None:
    workspace = Workspace()
    assert await workspace.deliver(group({"name": "Acme"}, userId=None, anonymousId="an")) == Delivered(200)
    await workspace.deliver(identify({}, anonymousId="an"))
    person = workspace.simulator.find(id="u1")
    assert person is not None
    assert len(person.relationships) == 1
