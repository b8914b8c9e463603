"""A clock that was ahead: what came by it holds nothing back once the clock is right again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from towpath.device import Profiled

from .registry_stage import DAY_S, START, Stage, registered, unregistered

AHEAD_S = 40 * DAY_S


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path)
    yield made
    made.close()


async def ahead(stage: Stage) -> None:
    """Device d1 is ann's, and she agrees, by a clock that is 40 days ahead; then it is set right."""
    stage.clock._elapsed += AHEAD_S
    at = stage.clock.now()
    await stage.apply(
        registered("d1", "ann", "t1", at), Profiled(person="ann", at=at, traits={"plan": "old"})
    )
    await stage.apply(
        Profiled(person="ann", at=at, consent=True), Profiled(person="bob", at=at, consent=False)
    )
    stage.clock._elapsed -= AHEAD_S - 60


@pytest.mark.spec("P041")
async def test_a_device_moves_with_its_next_report(stage: Stage) -> None:
    await ahead(stage)
    now = stage.clock.now()
    assert await stage.apply(registered("d1", "bob", "t2", now)) == []
    assert (await stage.reach("ann"), await stage.reach("bob")) == ([], ["t2"])
    device = await stage.device("d1")
    assert (device.registered_at, device.seen_at) == (now, now)
    # From there on it is the order of times that counts again.
    assert await stage.apply(registered("d1", "ann", "t1", now - 30)) != []
    assert await stage.reach("bob") == ["t2"]


@pytest.mark.spec("P044")
async def test_a_device_goes_by_its_next_word(stage: Stage) -> None:
    await ahead(stage)
    assert await stage.apply(unregistered("d1", stage.clock.now())) == []
    assert await stage.reach("ann") == []


@pytest.mark.spec("P042")
async def test_its_token_goes_where_it_is_reported(stage: Stage) -> None:
    await ahead(stage)
    assert await stage.apply(registered("d2", "bob", "t1", stage.clock.now())) == []
    assert (await stage.reach("ann"), await stage.reach("bob")) == ([], ["t1"])


@pytest.mark.spec("D09", "P045")
async def test_the_next_word_on_consent_and_traits_counts(stage: Stage) -> None:
    await ahead(stage)
    now = stage.clock.now()
    await stage.apply(
        Profiled(person="ann", at=now, consent=False, traits={"plan": "new"}),
        Profiled(person="bob", at=now, consent=True),
    )
    people = await stage.registry.people(["ann", "bob"])
    assert (people["ann"].consent, people["ann"].traits) == (False, {"plan": "new"})
    assert people["bob"].consent is True
    await stage.apply(Profiled(person="ann", at=now - 30, consent=True, traits={"plan": "late"}))
    people = await stage.registry.people(["ann"])
    assert (people["ann"].consent, people["ann"].traits) == (False, {"plan": "new"})


@pytest.mark.spec("P041")
async def test_a_clock_a_little_ahead_orders_as_ever(stage: Stage) -> None:
    stage.clock._elapsed += 50
    await stage.apply(registered("d1", "ann", "t1", START + 50))
    stage.clock._elapsed -= 50
    assert await stage.apply(registered("d1", "bob", "t2", START)) != []
    assert await stage.reach("ann") == ["t1"]


@pytest.mark.spec("P011")
async def test_a_sweep_that_would_take_much_at_once_is_for_people_to_decide(stage: Stage) -> None:
    await stage.apply(*[registered(f"d{at}", "ann", f"t{at}") for at in range(120)])
    await stage.clock.advance(60 * DAY_S)
    now = stage.clock.now()
    await stage.apply(*[registered(f"n{at}", "ann", f"n{at}", now) for at in range(359)])
    await stage.clock.advance(3 * DAY_S - 60)
    for dry_run in (True, False):
        swept = await stage.registry.sweep(dry_run=dry_run)
        assert swept.removed == 0
        assert "120 of 479 devices" in swept.refused
        assert "push devices prune" in swept.refused
    assert (await stage.registry.sweep(dry_run=True, by_hand=True)).removed == 120
    await stage.apply(registered("one-more", "ann", "n359", now))
    assert (await stage.registry.sweep()).removed == 120
