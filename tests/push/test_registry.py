"""The registry: whose a device is, where it is reached, and what is told of it."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from towpath.device import (
    Address,
    Deleted,
    Joined,
    Noted,
    Profiled,
    Seen,
    Traits,
    Unregistered,
)
from towpath.push.outbox import Outbox
from towpath.push.registry import Dead, Registry
from towpath.push.settings import PushSettings
from towpath.state import devices
from towpath.state.engine import open_engine

from .registry_stage import DAY_S, START, Stage, registered, unregistered

ADDED = "Device Created or Updated"
GONE = "Device Deleted"
MOVED = "Device Moved"


@pytest.fixture
def stage(tmp_path: Path) -> Iterator[Stage]:
    made = Stage(tmp_path)
    yield made
    made.close()


def staged(tmp_path: Path, **settings: object) -> Stage:
    return Stage(tmp_path, PushSettings.model_validate(settings))


# -- whose a device is ---------------------------------------------------------------------------------


@pytest.mark.spec("P004", "P005", "P040", "P041")
async def test_a_person_has_many_devices_and_a_device_one_person(stage: Stage) -> None:
    await stage.apply(
        registered("d1", "ann", "t1"), registered("d2", "ann", "t2", START + 1, platform="android")
    )
    assert await stage.reach("ann") == ["t2", "t1"]
    await stage.apply(registered("d1", "bob", "t1", START + 2))
    assert await stage.reach("ann") == ["t2"]
    assert await stage.reach("bob") == ["t1"]
    assert stage.news() == [
        (ADDED, "ann", "t1"),
        (ADDED, "ann", "t2"),
        (GONE, "ann", "t1"),
        (MOVED, "bob"),
        (ADDED, "bob", "t1"),
    ]


@pytest.mark.spec("P040")
async def test_what_is_kept_of_a_device(stage: Stage) -> None:
    told = Traits("com.example", "1.0", "de-AT", "Europe/Vienna")
    await stage.apply(
        registered("d1", "ann", "t1", traits=told),
        registered("d1", "ann", "t1", START + 9, traits=Traits(app_version="1.1")),
    )
    device = await stage.device("d1")
    assert (device.id, device.person, device.address) == ("d1", "ann", Address("token", "t1"))
    assert (device.platform, device.status, device.provisional) == ("ios", "active", False)
    assert (device.first_seen, device.registered_at, device.seen_at) == (START, START + 9, START + 9)
    assert device.traits == Traits("com.example", "1.1", "de-AT", "Europe/Vienna")
    assert await stage.registry.find("d2") is None
    await stage.apply(registered("d1", "ann", "t1", START + 10, platform=None))
    assert (await stage.device("d1")).platform == "ios"


@pytest.mark.spec("P041")
async def test_what_comes_late_moves_nothing_back(stage: Stage) -> None:
    await stage.apply(registered("d1", "bob", "t2", START + 10))
    said = await stage.apply(registered("d1", "ann", "t1", START + 5), unregistered("d1", START + 6))
    assert all("older" in line for line in said)
    assert await stage.reach("bob") == ["t2"]
    assert await stage.reach("ann") == []


@pytest.mark.spec("P041")
async def test_of_two_at_the_same_time_the_one_received_last_counts(stage: Stage) -> None:
    first, last = registered("d1", "ann", "t1"), registered("d1", "bob", "t1")
    await stage.registry.apply([Noted("m2", (last,), START + 2), Noted("m1", (first,), START + 1)])
    assert await stage.owners("d1") == ["bob"]


@pytest.mark.spec("P042")
async def test_a_token_leaves_the_device_it_was_on(stage: Stage) -> None:
    await stage.apply(registered("old", "ann", "t1"), registered("new", "ann", "t1", START + 1))
    assert (await stage.device("old")).address is None
    assert [device.id for device in await stage.registry.of_person("ann")] == ["new"]
    assert stage.news() == [(ADDED, "ann", "t1"), (ADDED, "ann", "t1")]
    await stage.apply(registered("third", "bob", "t1", START + 2))
    assert await stage.reach("ann") == []
    assert stage.news() == [(GONE, "ann", "t1"), (ADDED, "bob", "t1")]


@pytest.mark.spec("P042", "P041")
async def test_a_token_stays_where_it_was_reported_last(stage: Stage) -> None:
    await stage.apply(registered("new", "bob", "t1", START + 5))
    (said,) = await stage.apply(registered("old", "ann", "t1", START + 1))
    assert "stays there" in said
    assert await stage.reach("bob") == ["t1"]
    assert (await stage.device("old")).address is None
    assert await stage.owners("old") == ["ann"]


@pytest.mark.spec("P042", "P041")
async def test_a_late_report_still_says_that_the_token_had_left(stage: Stage) -> None:
    await stage.apply(registered("old", "ann", "t1"), registered("new", "bob", "t2", START + 9))
    await stage.apply(registered("new", "bob", "t1", START + 5))
    assert (await stage.reach("ann"), await stage.reach("bob")) == ([], ["t2"])


@pytest.mark.spec("P042")
async def test_two_devices_may_swap_their_tokens_in_one_transaction(stage: Stage) -> None:
    await stage.apply(registered("d1", "ann", "t1"), registered("d2", "bob", "t2"))
    stage.registry._apply(
        [
            Noted("m8", (registered("d1", "ann", "t2", START + 1),), START + 1),
            Noted("m9", (registered("d2", "bob", "t1", START + 2),), START + 2),
        ]
    )
    assert (await stage.reach("ann"), await stage.reach("bob")) == (["t2"], ["t1"])


@pytest.mark.spec("P042")
async def test_a_new_token_of_a_device_takes_the_place_of_its_old_one(stage: Stage) -> None:
    await stage.apply(registered("d1", "ann", "t1"), registered("d1", "ann", "t2", START + 1))
    assert await stage.reach("ann") == ["t2"]
    assert stage.news() == [(ADDED, "ann", "t1"), (GONE, "ann", "t1"), (ADDED, "ann", "t2")]
    await stage.apply(Unregistered(address=Address("token", "t1"), at=START + 2))
    assert await stage.reach("ann") == ["t2"]


@pytest.mark.spec("P043")
async def test_the_same_again_is_told_once_a_day(stage: Stage) -> None:
    await stage.apply(registered("d1", "ann", "t1"))
    assert len(stage.told()) == 1
    for hours in (1, 12, 24):
        await stage.apply(registered("d1", "ann", "t1", START + hours * 3600))
    assert stage.told() == []
    assert (await stage.device("d1")).registered_at == START + 24 * 3600
    await stage.apply(registered("d1", "ann", "t1", START + 25 * 3600))
    assert stage.news() == [(ADDED, "ann", "t1")]


# -- nobody has signed in ------------------------------------------------------------------------------


@pytest.mark.spec("P020", "P021", "P022", "P024", "P025", "D21")
async def test_a_sign_in_merges_the_provisional_person_once(stage: Stage) -> None:
    profile = Profiled(person="d1", at=START, traits={"shoe": 43}, named=False)
    await stage.apply(registered("d1", "d1", "t1"), profile)
    assert (await stage.device("d1")).provisional
    assert await stage.reach("d1") == ["t1"]
    assert stage.told() == []
    await stage.apply(registered("d1", "ann", "t1", START + 1))
    assert stage.news() == [("alias", "d1", "ann"), (MOVED, "ann"), (ADDED, "ann", "t1")]
    assert not (await stage.device("d1")).provisional
    people = await stage.registry.people(["ann", "d1"])
    assert people["ann"].traits == {"shoe": 43}
    assert "d1" not in people


@pytest.mark.spec("P025")
async def test_a_second_user_gets_the_device_and_no_history(stage: Stage) -> None:
    await stage.apply(
        registered("d1", "d1", "t1"),
        registered("d1", "ann", "t1", START + 1),
        registered("d1", "d1", "t1", START + 2),
        registered("d1", "bob", "t1", START + 3),
        registered("d1", "d1", "t1", START + 4),
        registered("d1", "ann", "t1", START + 5),
    )
    assert [news for news in stage.news() if news[0] == "alias"] == [("alias", "d1", "ann")]
    assert await stage.reach("ann") == ["t1"]


@pytest.mark.spec("P025", "D13", "D17")
async def test_a_device_that_began_with_a_user_is_never_merged(stage: Stage) -> None:
    await stage.apply(
        registered("d1", "ann", "t1"),
        registered("d1", "d1", "t1", START + 1),
        registered("d1", "bob", "t1", START + 2),
    )
    assert [news for news in stage.news() if news[0] == "alias"] == []


@pytest.mark.spec("P025", "D13", "D17")
@pytest.mark.parametrize("first", ["nothing", "an unregister", "a register"])
@pytest.mark.parametrize("known", ["by an identify", "by a device"])
async def test_nobody_merges_a_person_by_calling_a_device_so(stage: Stage, first: str, known: str) -> None:
    if first == "an unregister":
        await stage.apply(unregistered("victim", START))
    elif first == "a register":
        await stage.apply(registered("victim", "victim", "t1"))
    if known == "by an identify":
        await stage.apply(Profiled(person="victim", at=START, traits={"email": "v@example.com"}))
        await stage.apply(Profiled(person="victim", at=START, traits={"thief": True}, named=False))
    else:
        await stage.apply(registered("phone", "victim", "t0"))
    await stage.apply(registered("victim", "victim", "t1", START + 1))
    (said,) = await stage.apply(registered("victim", "thief", "t1", START + 2))
    assert "were not merged" in said
    await stage.apply(registered("victim", "victim", "t1", START + 3))
    await stage.apply(registered("victim", "thief", "t1", START + 4))
    assert [news for news in stage.news() if news[0] == "alias"] == []
    assert (await stage.registry.people(["thief"], last_used=True))["thief"].traits == {}


@pytest.mark.spec("P023")
async def test_what_was_told_under_the_anonymous_id_is_the_provisional_persons(stage: Stage) -> None:
    await stage.apply(Profiled(person="d1", at=START, traits={"shoe": 43}, named=False))
    assert await stage.registry.find("d1") is None
    await stage.apply(registered("d1", "d1", "t1", START + 1), registered("d1", "ann", "t1", START + 2))
    assert ("alias", "d1", "ann") in stage.news()
    assert (await stage.registry.people(["ann"], last_used=True))["ann"].traits == {"shoe": 43}


@pytest.mark.spec("P025")
async def test_a_device_nobody_spoke_as_is_moved_without_an_alias(stage: Stage) -> None:
    await stage.apply(registered("d1", "d1", "t1", history=False), registered("d1", "ann", "t1", START + 1))
    assert stage.news() == [(MOVED, "ann"), (ADDED, "ann", "t1")]


@pytest.mark.spec("D15")
async def test_junk_ids_own_nothing(stage: Stage) -> None:
    (said,) = await stage.apply(registered("d1", "null", "t1"))
    assert "nobody's id" in said
    assert await stage.owners("d1") == ["d1"]
    (said,) = await stage.apply(registered("d3", " NULL ", "t3"))
    assert "nobody's id" in said
    for name in ("undefined", "Undefined"):
        (said,) = await stage.apply(registered(name, "ann", "t2"))
        assert "no id of one device" in said
        assert await stage.registry.find(name) is None
    for name in ("anonymous", "ANONYMOUS"):
        await stage.apply(Profiled(person=name, at=START, traits={"a": 1}))
        assert await stage.registry.people([name]) == {}
    await stage.apply(registered("d2", "ann", "t2"), Profiled(person="ann", at=START, traits={"a": 1}))
    for old, new in (("ann", "Null"), ("d1", "NONE"), ("Guest", "ann")):
        await stage.apply(Joined(old=old, new=new, at=START + 1))
    assert await stage.owners("d1", "d2") == ["d1", "ann"]


# -- going, and coming back ----------------------------------------------------------------------------


@pytest.mark.spec("P044")
async def test_a_sign_out_leaves_the_device_to_itself(stage: Stage) -> None:
    await stage.apply(registered("d1", "ann", "t1"), registered("d1", "d1", "t1", START + 1))
    assert (await stage.reach("ann"), await stage.reach("d1")) == ([], ["t1"])
    assert stage.news() == [(ADDED, "ann", "t1"), (GONE, "ann", "t1")]


@pytest.mark.spec("P044")
async def test_an_unregister_is_a_tombstone_that_a_newer_register_revives(stage: Stage) -> None:
    await stage.apply(registered("d1", "ann", "t1"), unregistered("d1", START + 5))
    device = await stage.device("d1")
    assert (device.status, device.reason, device.removed_at) == ("removed", "unregistered", START + 5)
    assert await stage.reach("ann") == []
    await stage.apply(registered("d1", "ann", "t1", START + 4))
    assert await stage.reach("ann") == []
    await stage.apply(registered("d1", "ann", "t1", START + 6))
    assert await stage.reach("ann") == ["t1"]
    assert stage.news() == [(ADDED, "ann", "t1"), (GONE, "ann", "t1"), (ADDED, "ann", "t1")]


@pytest.mark.spec("P044")
async def test_an_unregister_that_comes_first_outlives_the_older_register(stage: Stage) -> None:
    (said,) = await stage.apply(unregistered("d1", START + 5))
    assert "no such device" in said
    await stage.apply(registered("d1", "ann", "t1", START + 4))
    assert await stage.reach("ann") == []
    assert stage.told() == []


@pytest.mark.spec("P044", "P036")
async def test_a_token_is_unregistered_wherever_it_is(stage: Stage) -> None:
    await stage.apply(registered("d1", "ann", "t1"))
    await stage.apply(Unregistered(address=Address("token", "t1"), at=START + 1, reason="uninstalled"))
    assert (await stage.device("d1")).reason == "uninstalled"
    (said,) = await stage.apply(Unregistered(address=Address("token", "t9"), at=START + 1))
    assert "no such device" in said


@pytest.mark.spec("P012")
async def test_a_refused_address_is_removed_unless_it_was_reported_anew(stage: Stage) -> None:
    await stage.apply(
        registered("d1", "ann", "t1"), registered("d2", "ann", "t2"), registered("d3", "ann", "t3")
    )
    sent = [
        Dead(name, Address("token", token), START, "UNREGISTERED")
        for name, token in (("d1", "t1"), ("d2", "t2"), ("d3", "t3"), ("d4", "t4"))
    ]
    stage.clock._elapsed += 60
    # While the request was on its way: d1 reported the same token again, d2 another one.
    await stage.apply(registered("d1", "ann", "t1", START + 1), registered("d2", "ann", "t5", START + 1))
    stage.told()
    assert await stage.registry.remove(sent) == 1
    assert sorted(await stage.reach("ann")) == ["t1", "t5"]
    device = await stage.device("d3")
    assert (device.status, device.reason, device.removed_at) == ("removed", "UNREGISTERED", START + 60)
    assert stage.news() == [(GONE, "ann", "t3")]
    assert await stage.registry.remove(sent) == 0


@pytest.mark.spec("P012")
async def test_another_token_reported_at_the_same_time_survives(stage: Stage) -> None:
    await stage.apply(registered("d1", "ann", "t1"), registered("d1", "ann", "t2"))
    assert await stage.registry.remove([Dead("d1", Address("token", "t1"), START, "UNREGISTERED")]) == 0
    assert await stage.reach("ann") == ["t2"]


@pytest.mark.spec("P012")
async def test_a_report_on_its_way_when_the_address_was_refused_revives_it(stage: Stage) -> None:
    await stage.apply(registered("d1", "ann", "t1"))
    stage.clock._elapsed += 60
    await stage.registry.remove([Dead("d1", Address("token", "t1"), START, "UNREGISTERED")])
    await stage.apply(registered("d1", "ann", "t1", START + 30))
    assert await stage.reach("ann") == ["t1"]


@pytest.mark.spec("P012")
async def test_the_same_message_delivered_again_revives_nothing(stage: Stage) -> None:
    noted = [Noted("m1", (registered("d1", "ann", "t1"),), START)]
    await stage.registry.apply(noted)
    await stage.registry.remove([Dead("d1", Address("token", "t1"), START, "UNREGISTERED")])
    stage.told()
    await stage.registry.apply(noted)
    assert await stage.reach("ann") == []
    assert stage.told() == []


@pytest.mark.spec("P040", "P042")
async def test_a_new_token_keeps_its_kind(stage: Stage) -> None:
    await stage.apply(registered("d1", "ann", "t1"))
    await stage.apply(registered("d1", "ann", "t2", START + 1))
    assert (await stage.device("d1")).address == Address("token", "t2")
    await stage.apply(registered("d2", "bob", "t2", START + 2))
    assert (await stage.device("d1")).address is None


@pytest.mark.spec("P014")
async def test_an_address_of_another_project_is_disabled_until_it_changes(
    stage: Stage,
) -> None:
    await stage.apply(registered("d1", "ann", "t1"), registered("d2", "ann", "t2"))
    stage.told()
    now = stage.clock.now()
    assert await stage.registry.disable(["d1", "d2", "d9"], "SENDER_ID_MISMATCH", before=now - 9e9) == 0
    assert await stage.registry.disable(["d1", "d2", "d9"], "SENDER_ID_MISMATCH", before=now) == 2
    assert await stage.reach("ann") == []
    assert (await stage.registry.counts()).statuses == {"disabled": 2}
    assert stage.news() == [(GONE, "ann", "t1"), (GONE, "ann", "t2")]
    await stage.apply(
        registered("d1", "ann", "t1", START + DAY_S), registered("d2", "ann", "t3", START + DAY_S)
    )
    assert await stage.reach("ann") == ["t3"]
    device = await stage.device("d1")
    assert (device.registered_at, device.reason) == (START + DAY_S, "SENDER_ID_MISMATCH")
    await stage.apply(registered("d1", "ann", "t1", START + 30 * DAY_S))
    assert await stage.reach("ann") == ["t1", "t3"]


# -- staleness -----------------------------------------------------------------------------------------


@pytest.mark.spec("P011", "P010")
async def test_tokens_not_reported_for_two_months_are_removed(stage: Stage) -> None:
    await stage.apply(registered("d1", "ann", "t1"), registered("d2", "ann", "t2", START + DAY_S))
    await stage.clock.advance(62 * DAY_S + 1)
    await stage.apply(
        registered("d3", "ann", "t3", stage.clock.now()), Seen(device="d1", at=stage.clock.now())
    )
    assert (await stage.registry.counts()).late == 2
    stage.told()
    assert (await stage.registry.sweep(dry_run=True)).removed == 1
    assert sorted(await stage.reach("ann")) == ["t1", "t2", "t3"]
    assert (await stage.registry.sweep()).removed == 1
    assert sorted(await stage.reach("ann")) == ["t2", "t3"]
    assert (await stage.device("d1")).reason == "stale"
    assert stage.news() == [(GONE, "ann", "t1")]
    # A report that was held up comes late, and is newer than the one that was stale.
    await stage.apply(registered("d1", "ann", "t1", START + 30 * DAY_S))
    assert sorted(await stage.reach("ann")) == ["t1", "t2", "t3"]


@pytest.mark.spec("P011")
async def test_the_sweep_does_not_run_when_no_token_at_all_is_reported(stage: Stage) -> None:
    assert "no device is known" in (await stage.registry.sweep()).refused
    await stage.apply(registered("d1", "ann", "t1"))
    await stage.clock.advance(100 * DAY_S)
    swept = await stage.registry.sweep()
    assert swept.removed == 0
    assert "100.0 days" in swept.refused
    await stage.apply(registered("d2", "ann", "t2", stage.clock.now() - 2 * DAY_S))
    assert (await stage.registry.sweep()).removed == 1


@pytest.mark.spec("P011")
async def test_the_times_of_a_sweep_are_settings(tmp_path: Path) -> None:
    stage = staged(tmp_path, stale_after="10d", quiet_for="1d", refresh_after="5d")
    await stage.apply(registered("d1", "ann", "t1"), registered("d2", "ann", "t2", START + 5 * DAY_S))
    await stage.clock.advance(11 * DAY_S)
    assert (await stage.registry.sweep()).refused
    await stage.apply(registered("d3", "ann", "t3", stage.clock.now()))
    assert (await stage.registry.counts()).late == 2
    assert (await stage.registry.sweep()).removed == 1
    stage.close()


async def test_a_sweep_of_many_is_done_in_steps(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("towpath.push.registry.WITHDRAWN_AT_ONCE", 3)
    await stage.apply(*[registered(f"d{number}", "ann", f"t{number}") for number in range(10)])
    await stage.clock.advance(63 * DAY_S)
    await stage.apply(registered("new", "ann", "new", stage.clock.now()))
    assert (await stage.registry.sweep()).removed == 10
    assert await stage.reach("ann") == ["new"]


@pytest.mark.spec("P047")
async def test_what_is_long_without_use_is_forgotten(stage: Stage) -> None:
    await stage.apply(
        registered("d1", "ann", "t1"),
        unregistered("d1", START + 1),
        registered("d2", "ann", "t2"),
        registered("d3", "ann", "t2", START + 1),
        registered("d4", "ann", "t4"),
    )
    await stage.clock.advance(100.0)
    assert await stage.registry.prune(200.0) == 0
    assert await stage.registry.prune(50.0, dry_run=True) == 2
    assert await stage.registry.prune(50.0) == 2
    assert [device.id for device in await stage.registry.page("", 100)] == ["d3", "d4"]


# -- in use --------------------------------------------------------------------------------------------


@pytest.mark.spec("P011", "P040")
async def test_other_events_say_only_that_a_device_is_in_use(stage: Stage) -> None:
    await stage.apply(registered("d1", "ann", "t1"))
    await stage.apply(Seen(device="d1", at=START + 60))
    assert (await stage.device("d1")).seen_at == START
    await stage.apply(Seen(device="d1", at=START + 3600), Seen(device="d2", at=START))
    device = await stage.device("d1")
    assert (device.seen_at, device.registered_at) == (START + 3600, START)
    await stage.apply(Seen(device="d1", at=START + 3601, traits=Traits(locale="fr")))
    assert (await stage.device("d1")).traits.locale == "fr"
    assert (await stage.registry.people(["ann"], last_used=True))["ann"].last_used == "d1"
    assert await stage.registry.find("d2") is None
    # What comes late changes nothing of it.
    await stage.apply(
        Seen(device="d1", at=START + 3000, traits=Traits(locale="de")),
        registered("d1", "ann", "t1", START + 3100),
        unregistered("d1", START + 3200),
    )
    device = await stage.device("d1")
    assert (device.seen_at, device.traits.locale) == (START + 3601, "fr")


# -- people --------------------------------------------------------------------------------------------


async def test_later_traits_win_name_by_name(stage: Stage) -> None:
    await stage.apply(
        Profiled(person="ann", at=START, traits={"a": 1, "b": 1, "c": 1}),
        Profiled(person="ann", at=START + 2, traits={"b": 2, "c": None}),
        Profiled(person="ann", at=START + 1, traits={"a": 3, "d": 3}),
    )
    assert (await stage.registry.people(["ann"], last_used=True))["ann"].traits == {"a": 1, "b": 2, "d": 3}
    await stage.apply(
        Profiled(person="ann", at=START + 1.5, traits={"b": 4}),
        Profiled(person="ann", at=START + 2, traits={"a": 5}),
    )
    assert (await stage.registry.people(["ann"]))["ann"].traits == {"a": 5, "b": 2, "d": 3}


async def test_only_the_traits_that_are_wanted_are_kept(tmp_path: Path) -> None:
    stage = staged(tmp_path, traits=["first_name"])
    await stage.apply(
        Profiled(person="ann", at=START, traits={"first_name": "Ann", "email": "a@example.com"})
    )
    assert (await stage.registry.people(["ann"], last_used=True))["ann"].traits == {"first_name": "Ann"}
    stage.close()


async def test_traits_beyond_measure_are_refused_and_told(stage: Stage) -> None:
    await stage.apply(Profiled(person="ann", at=START, traits={"a": 1}))
    most = "x" * (32 * 1024 - len('{"a":1,"b":""}'))
    (said,) = await stage.apply(Profiled(person="ann", at=START + 1, traits={"b": f"{most}x"}))
    assert "more than 32768" in said
    assert await stage.apply(Profiled(person="bob", at=START + 1, traits={"a": 1, "b": most})) == []
    assert (await stage.registry.people(["ann"], last_used=True))["ann"].traits == {"a": 1}


@pytest.mark.spec("P045", "D09")
async def test_the_last_word_on_consent_counts(stage: Stage) -> None:
    async def consent() -> bool | None:
        return (await stage.registry.people(["ann"], last_used=True))["ann"].consent

    await stage.apply(Profiled(person="ann", at=START + 1, consent=True))
    assert await consent() is True
    await stage.apply(Profiled(person="ann", at=START, consent=False))
    assert await consent() is True
    await stage.apply(Profiled(person="ann", at=START + 1, consent=False))
    assert await consent() is False
    await stage.apply(Profiled(person="ann", at=START + 1, consent=True))
    assert await consent() is False
    await stage.apply(
        Profiled(person="ann", at=START + 2, consent=True), Profiled(person="ann", at=START + 3)
    )
    assert await consent() is True


@pytest.mark.spec("P025", "D09", "D17")
async def test_a_refusal_outlives_a_merge(stage: Stage) -> None:
    await stage.apply(
        registered("d1", "d1", "t1"),
        Profiled(person="d1", at=START, traits={"a": 0, "b": 0}, consent=False, named=False),
        Profiled(person="ann", at=START + 1, traits={"a": 1}, consent=True),
        registered("d1", "ann", "t1", START + 2),
    )
    ann = (await stage.registry.people(["ann"], last_used=True))["ann"]
    assert (ann.traits, ann.consent) == ({"a": 1, "b": 0}, False)


@pytest.mark.spec("P025", "D09")
async def test_what_is_said_after_a_merge_is_as_late_as_the_later_of_both(stage: Stage) -> None:
    await stage.apply(
        registered("d1", "d1", "t1"),
        Profiled(person="d1", at=START + 5, traits={"a": 0}, consent=False, named=False),
        Profiled(person="ann", at=START + 1, traits={"b": 1}, consent=True),
        registered("d1", "ann", "t1", START + 6),
        Profiled(person="ann", at=START + 3, traits={"a": 3, "c": 3}, consent=True),
    )
    ann = (await stage.registry.people(["ann"]))["ann"]
    assert (ann.traits, ann.consent) == ({"a": 0, "b": 1, "c": 3}, False)


@pytest.mark.spec("P025")
async def test_a_merge_that_would_be_too_much_keeps_the_persons_own(stage: Stage) -> None:
    await stage.apply(
        registered("d1", "d1", "t1"),
        Profiled(person="d1", at=START, traits={"a": "x" * 20_000}, named=False),
        Profiled(person="ann", at=START, traits={"b": "x" * 20_000}),
        registered("d1", "ann", "t1", START + 1),
    )
    assert list((await stage.registry.people(["ann"]))["ann"].traits) == ["b"]


@pytest.mark.spec("P025")
async def test_who_was_spoken_as_once_has_a_history(stage: Stage) -> None:
    await stage.apply(
        registered("d1", "d1", "t1"),
        registered("d1", "d1", "t1", START + 1, history=False),
        registered("d1", "ann", "t1", START + 2),
    )
    assert ("alias", "d1", "ann") in stage.news()


@pytest.mark.spec("D13")
async def test_a_join_brings_the_devices_along(stage: Stage) -> None:
    await stage.apply(registered("d1", "old", "t1"), Profiled(person="old", at=START, traits={"a": 1}))
    stage.told()
    await stage.apply(Joined(old="old", new="ann", at=START + 1))
    assert await stage.reach("ann") == ["t1"]
    assert stage.news() == [(ADDED, "ann", "t1")]
    assert (await stage.registry.people(["ann"], last_used=True))["ann"].traits == {"a": 1}


@pytest.mark.spec("D13")
async def test_a_client_joins_only_what_nobody_has_signed_in_for(stage: Stage) -> None:
    await stage.apply(
        registered("d1", "victim", "t1"),
        Profiled(person="victim", at=START, traits={"a": 1}),
        registered("d2", "d2", "t2"),
        Profiled(person="d2", at=START, traits={"b": 1}, named=False),
    )
    await stage.apply(
        Joined(old="victim", new="thief", at=START + 1, trusted=False),
        Joined(old="d2", new="ann", at=START + 1, trusted=False),
    )
    assert (await stage.reach("victim"), await stage.reach("ann")) == (["t1"], ["t2"])
    people = await stage.registry.people(["victim", "ann", "thief"])
    assert {name: person.traits for name, person in people.items()} == {"victim": {"a": 1}, "ann": {"b": 1}}
    await stage.apply(
        registered("d2", "ann", "t2", START + 2),
        registered("d2", "d2", "t2", START + 3),
        registered("d2", "bob", "t2", START + 4),
    )
    assert [news for news in stage.news() if news[0] == "alias"] == []


@pytest.mark.spec("P045", "D10")
async def test_a_deleted_person_leaves_nothing_and_nothing_is_told(stage: Stage, tmp_path: Path) -> None:
    await stage.apply(
        registered("d1", "ann", "t1"),
        registered("d2", "bob", "t2"),
        Profiled(person="ann", at=START, traits={"a": 1}),
    )
    # What is still in the outbox, or told by the same batch, would bring her back at a tool that deleted her.
    await stage.apply(
        registered("d1", "ann", "t9", START + 1), Deleted(person="ann", at=START + 1), unregistered("d9")
    )
    assert await stage.registry.find("d1") is None
    assert await stage.registry.people(["ann"]) == {}
    assert stage.news() == [(ADDED, "bob", "t2")]
    assert await stage.reach("bob") == ["t2"]
    await stage.apply(registered("d1", "bob", "t1", START + 2))
    assert sorted(await stage.reach("bob")) == ["t1", "t2"]


@pytest.mark.spec("P045")
async def test_a_deletion_and_a_new_registration_fit_one_batch(stage: Stage) -> None:
    await stage.apply(registered("d1", "ann", "t1"))
    await stage.apply(Deleted(person="ann", at=START + 1), registered("d2", "bob", "t1", START + 2))
    await stage.apply(Deleted(person="bob", at=START + 3), registered("d2", "cat", "t3", START + 4))
    assert await stage.reach("cat") == ["t3"]
    assert [device.id for device in await stage.registry.page("", 100)] == ["d2"]


@pytest.mark.spec("D10")
async def test_an_erasure_leaves_no_trace_in_any_table(stage: Stage, tmp_path: Path) -> None:
    name = 'can"ary'
    await stage.apply(
        registered("d1", name, "t1"),
        registered("d2", "bob", "t2"),
        Profiled(person=name, at=START, traits={"email": "canary@example.com"}),
    )
    assert devices.forget(stage.engine, [name]) == 3
    stage.close()
    with closing(sqlite3.connect(tmp_path / "state.db")) as connection:
        dump = "\n".join(connection.iterdump())
    assert "ary" not in dump
    assert "bob" in dump


@pytest.mark.spec("P005", "D15")
async def test_a_person_has_no_more_devices_than_the_limit(tmp_path: Path) -> None:
    stage = staged(tmp_path, devices_per_person=2)
    said = await stage.apply(*[registered(f"d{number}", "ann", f"t{number}") for number in range(4)])
    assert len(said) == 2
    assert "has 2 devices already" in said[0]
    assert await stage.owners("d0", "d1", "d2", "d3") == ["ann", "ann", None, None]
    await stage.apply(unregistered("d0", START + 1), registered("d2", "ann", "t2", START + 2))
    assert await stage.owners("d2") == ["ann"]
    await stage.apply(registered("d0", "ann", "t0", START + 3))
    assert sorted(await stage.reach("ann")) == ["t1", "t2"]
    stage.close()


# -- mirrored at Customer.io ---------------------------------------------------------------------------


@pytest.mark.spec("P046")
async def test_what_is_told_is_what_the_customerio_destination_takes(stage: Stage) -> None:
    from towpath.destination import Payload
    from towpath.destinations.customerio import CustomerIo
    from towpath.message import Envelope, Record, read

    await stage.apply(
        registered("d1", "ann", "t1", traits=Traits("com.example", "1.0", "de", "Europe/Vienna")),
        registered("d2", "ann", "t2", platform="web"),
        registered("d3", "ann", "t3", platform=None),
        registered("d1", "bob", "t1", START + 1),
        unregistered("d2", START + 1),
    )
    destination = CustomerIo(
        CustomerIo.Settings.model_validate({"site_id": "s", "api_key": "k", "region": "us"})
    )
    envelope = Envelope("push", START + 2, "server")
    made = []
    for row in stage.outbox.read(100):
        payload = destination.prepare(read(Record(row.id, row.message_id, envelope, row.body)))
        assert isinstance(payload, Payload), payload
        made.append(payload.requests[0].json)
    bodies = [body["batch"][0] if "batch" in body else body for body in made]
    actions = [(body["action"], body["identifiers"], body.get("device", {}).get("token")) for body in bodies]
    ann, bob = {"id": "ann"}, {"id": "bob"}
    assert actions == [
        ("add_device", ann, "t1"),
        ("event", ann, None),
        ("delete_device", ann, "t1"),
        ("event", bob, None),
        ("add_device", bob, "t1"),
        ("event", ann, None),
    ]
    assert bodies[0]["device"]["platform"] == "ios"
    assert bodies[0]["device"]["attributes"]["appVersion"] == "1.0"
    assert bodies[1]["name"] == "Web Device Created or Updated"
    assert bodies[1]["attributes"]["deviceType"] == "web"


@pytest.mark.spec("P041")
async def test_a_move_names_both_owners(stage: Stage) -> None:
    await stage.apply(registered("d1", "ann", "t1"), registered("d1", "bob", "t1", START + 1))
    (moved,) = [message for message in stage.told() if message.get("event") == MOVED]
    assert moved["userId"] == "bob"
    assert moved["properties"]["previousUserId"] == "ann"
    assert moved["properties"]["deviceId"] == "d1"
    assert moved["timestamp"] == "2025-10-09T08:53:21.000Z"


# -- many at once --------------------------------------------------------------------------------------


async def test_what_is_told_says_that_it_is_there(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    calls: list[str] = []
    registry = Registry(stage.engine, "shop", stage.clock, told=lambda: calls.append("told"))
    noted = Noted("m1", (registered("d1", "ann", "t1"),), START)
    await registry.apply([noted])
    await registry.apply([noted])
    assert calls == ["told"]
    stage.close()


async def test_many_callers_share_transactions(stage: Stage) -> None:
    noted = [Noted(f"m{n}", (registered(f"d{n}", f"u{n}", f"t{n}"),), START) for n in range(300)]
    await asyncio.gather(*[stage.registry.apply([one]) for one in noted])
    found = await asyncio.gather(*[stage.registry.of_person(f"u{n}") for n in range(300)])
    assert [device.id for (device,) in found] == [f"d{n}" for n in range(300)]


@pytest.mark.spec("P047")
async def test_the_audience_is_read_in_pages_of_reachable_devices(stage: Stage) -> None:
    await stage.apply(
        *[registered(f"d{number}", "ann", f"t{number}") for number in range(7)],
        unregistered("d1", START + 1),
        registered("d9", "ann", "t2", START + 1),
    )
    pages, after = [], ""
    while page := await stage.registry.audience(after, 2):
        pages.append([device.id for device in page])
        after = page[-1].id
    assert pages == [["d0", "d3"], ["d4", "d5"], ["d6", "d9"]]


@pytest.mark.spec("P047")
async def test_devices_are_counted(stage: Stage) -> None:
    await stage.apply(
        registered("d1", "ann", "t1"),
        registered("d2", "d2", "t2", platform="android"),
        registered("d3", "ann", "t3", START + 5, platform=None),
        registered("d4", "ann", "t4"),
        unregistered("d4", START + 1),
    )
    counted = await stage.registry.counts()
    assert counted.statuses == {"active": 3, "removed": 1}
    assert counted.platforms == {"ios": 1, "android": 1, "": 1}
    assert (counted.provisional, counted.late, counted.newest) == (1, 0, START + 5)


async def test_projects_do_not_see_each_other(stage: Stage) -> None:
    other = Registry(stage.engine, "other", stage.clock)
    await stage.apply(registered("d1", "ann", "t1"))
    assert await other.find("d1") is None
    await other.apply([Noted("m", (registered("d1", "bob", "t1"),), START)])
    assert await stage.owners("d1") == ["ann"]
    assert devices.forget(stage.engine, ["bob"]) == 3


@pytest.mark.spec("P047")
async def test_every_device_of_a_person_can_be_listed(stage: Stage) -> None:
    await stage.apply(
        registered("d2", "ann", "t2"), registered("d1", "ann", "t1"), unregistered("d1", START + 1)
    )
    assert [device.id for device in await stage.registry.everything_of("ann")] == ["d1", "d2"]
    assert [device.id for device in await stage.registry.page("d1", 1)] == ["d2"]
    await stage.apply(*[registered(name, "bob", name) for name in ("b3", "b1", "b2")])
    assert await stage.reach("bob") == ["b1", "b2", "b3"]


async def test_a_failure_of_the_disk_is_raised_to_who_asked(tmp_path: Path) -> None:
    stage = Stage(tmp_path)
    broken = open_engine(tmp_path / "empty.db")
    registry = Registry(broken, "shop", stage.clock)
    with pytest.raises(Exception, match="no such table"):
        await registry.apply([Noted("m", (registered("d1", "ann", "t1"),), START)])
    broken.dispose()
    stage.close()


@pytest.mark.spec("P046")
async def test_nothing_of_a_batch_is_kept_unless_all_of_it_is(
    stage: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    await stage.apply(registered("d1", "ann", "t1"))
    stage.told()

    def full(*_: object) -> None:
        raise OSError("the disk is full")

    with monkeypatch.context() as patch:
        patch.setattr(devices.Devices, "tell", full)
        with pytest.raises(OSError, match="full"):
            await stage.apply(registered("d1", "bob", "t1", START + 1), Profiled(person="bob", at=START))
    assert await stage.owners("d1") == ["ann"]
    assert await stage.registry.people(["bob"]) == {}
    await stage.apply(registered("d1", "bob", "t1", START + 1))
    assert stage.news() == [(GONE, "ann", "t1"), (MOVED, "bob"), (ADDED, "bob", "t1")]


def test_the_settings_may_be_replaced(stage: Stage) -> None:
    stage.registry.settings = PushSettings.model_validate({"stale_after": "1d"})
    assert stage.registry.settings.stale_after == timedelta(days=1)


@pytest.mark.spec("D10")
async def test_nothing_of_an_erased_person_is_carried_into_the_log_any_more(stage: Stage) -> None:
    await stage.apply(registered("d1", "ann", "t1"), registered("d2", "bob", "t2"))
    outbox, appended = Outbox(stage.engine, stage.clock), list[bytes]()

    class Kept:
        async def append(self, groups: Any, refused: Any) -> None:
            await asyncio.sleep(0)
            appended.extend(entry.raw for group in groups for entry in group.entries)

    carrying = asyncio.create_task(outbox.drain(cast("Any", Kept())))
    await outbox.forget({"ann"})
    before = list(appended)
    await carrying
    assert [raw for raw in appended[len(before) :] if b'"ann"' in raw] == []
    assert await outbox.count() == 0
