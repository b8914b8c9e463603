"""A platform whose credential was missing: its devices, and only they, are told when it is there."""

from __future__ import annotations

from typing import Any

import pytest

from towpath.errors import TowpathError

from .rig import ACCEPTED, DEAD, NO_APNS, Rig

pytestmark = pytest.mark.usefixtures("inline")

CAMPAIGNS: dict[str, Any] = {"hello": {"title": "Hello"}}


async def done_without_apns(rig: Rig) -> int:
    for number in range(6):
        await rig.device(f"i{number}", platform="ios")
        rig.sender.script(f"t-i{number}", NO_APNS)
    await rig.device("a1")
    await rig.device("a2")
    rig.sender.script("t-a2", DEAD)
    campaign = await rig.launch()
    assert (await rig.finish(campaign)).state == "done"
    assert {state for device, (state, _) in rig.sends(campaign).items() if device[0] == "i"} == {"failed"}
    return campaign


@pytest.mark.spec("P053", "P055")
async def test_devices_of_a_platform_without_a_key_are_told_once_it_is_there(rig: Rig) -> None:
    campaign = await done_without_apns(rig)
    rig.sender.bodies.clear()
    for number in range(6):
        rig.sender.script(f"t-i{number}", ACCEPTED)
    await rig.clock.advance(5 * 3600)
    await rig.device("z-late")  # whoever has come since is not meant
    standing = await rig.desk.resume(campaign, retry_failed=True)
    assert standing.row.state == "scheduled"
    assert (await rig.finish(campaign)).state == "done"
    assert rig.sender.told == {f"t-i{number}": 1 for number in range(6)}
    assert rig.sends(campaign)["a2"][0] == "failed"


@pytest.mark.spec("P053")
async def test_there_must_be_something_to_try_again(rig: Rig) -> None:
    await rig.device("a1")
    campaign = await rig.launch()
    with pytest.raises(TowpathError, match="nothing to try again"):
        await rig.desk.resume(campaign, retry_failed=True)
    await rig.finish(campaign)
    with pytest.raises(TowpathError, match="nothing to try again"):
        await rig.desk.resume(campaign, retry_failed=True)
    with pytest.raises(TowpathError, match="cannot become"):
        await rig.desk.resume(campaign)
    assert rig.sender.told == {"t-a1": 1}
