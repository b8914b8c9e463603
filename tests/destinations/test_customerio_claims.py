"""Two users with one e-mail: the second is not handed the first one's profile (C122, D17)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import pytest

from towpath.destinations._customerio_claims import APART
from towpath.message import Message
from towpath.outcome import Delivered

from .customerio_world import identify, message
from .test_customerio_conflicts import APP_KEY, Workspace


def user(number: int, **traits: Any) -> Message:
    given = {"email": "both@x.io", "plan": f"p{number}", **traits}
    return identify(given, userId=f"u{number}", message_id=f"m-{number}")


async def delivered(world: Workspace, messages: Sequence[Message], *, together: bool) -> list[Delivered]:
    if together:
        ended = list(await world.deliver_batch(*messages))
    else:
        ended = [await world.deliver(message) for message in messages]
    found = [one for one in ended if isinstance(one, Delivered)]
    assert len(found) == len(messages)
    return found


@pytest.mark.spec("C122", "D17")
@pytest.mark.parametrize("together", [False, True])
@pytest.mark.parametrize("settings", [{}, APP_KEY])
async def test_the_second_one_leaves_the_first_ones_profile_alone(
    together: bool, settings: dict[str, Any]
) -> None:
    world = Workspace(settings)
    first, second = await delivered(world, [user(1), user(2)], together=together)
    assert (first.reports, APART in second.reports) == ((), True)
    one, two = world.simulator.person(id="u1") or {}, world.simulator.person(id="u2") or {}
    assert (one["email"], one["plan"]) == ("both@x.io", "p1")
    assert ("email" in two, two["plan"]) == (False, "p2")


@pytest.mark.spec("C122", "D17")
async def test_a_lead_known_by_email_alone_is_still_joined_by_who_signs_up() -> None:
    world = Workspace()
    lead = identify(
        {"email": "lead@x.io", "campaign": "spring"}, userId=None, anonymousId="a", message_id="l"
    )
    joins = identify({"email": "lead@x.io"}, userId="u7", message_id="j")
    await delivered(world, [lead, joins], together=False)
    person = world.simulator.person(id="u7") or {}
    assert (person["email"], person["campaign"]) == ("lead@x.io", "spring")


async def test_the_same_person_again_is_sent_as_ever() -> None:
    world = Workspace()
    first, again = await delivered(world, [user(1), user(1, plan="p9")], together=False)
    assert (first.reports, again.reports) == ((), ())
    assert (world.simulator.person(id="u1") or {})["plan"] == "p9"


@pytest.mark.spec("C120", "C122", "F020")
async def test_who_signs_up_again_after_a_deletion_gets_the_email_that_was_theirs() -> None:
    world = Workspace()
    ends = message({"type": "delete", "userId": "u1"}, message_id="m-0")
    await delivered(world, [user(1), ends, user(2)], together=True)
    assert world.simulator.person(id="u1") is None
    two = world.simulator.person(id="u2") or {}
    assert (two.get("email"), two["plan"]) == ("both@x.io", "p2")


@pytest.mark.spec("C120", "C122", "D14", "F020")
@pytest.mark.parametrize("settings", [{}, APP_KEY])
async def test_who_signs_up_while_the_old_deletion_is_held_gets_the_email_when_told_again_after_it(
    settings: dict[str, Any],
) -> None:
    world = Workspace(settings)
    ends = message({"type": "delete", "userId": "u1"}, message_id="m-0")
    _, early = await delivered(world, [user(1), user(2)], together=False)
    assert APART in early.reports
    assert "email" not in world.person(id="u2")
    await delivered(world, [ends], together=False)  # somebody confirmed
    assert "email" not in world.person(id="u2")
    await delivered(world, [user(2)], together=False)
    assert world.person(id="u2")["email"] == "both@x.io"


@pytest.mark.spec("C122", "D14")
async def test_whose_deletion_is_discarded_keeps_the_email_however_often_the_other_is_told() -> None:
    world = Workspace()
    first, *others = await delivered(world, [user(1), user(2), user(2), user(1)], together=False)
    assert [APART in one.reports for one in (first, *others)] == [False, True, True, False]
    assert world.person(id="u1")["email"] == "both@x.io"
    assert "email" not in world.person(id="u2")
