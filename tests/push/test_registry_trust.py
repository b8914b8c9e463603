"""What a key that anybody can copy may say of devices and people, and what it takes for more (D13)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from towpath.destination import Payload
from towpath.destinations.devices import DeviceRegistry, DevicesSettings
from towpath.message import Message
from towpath.push.settings import PushSettings

from .registry_stage import Stage

FID = "dLd_X5aVQFmpXn1z0vSgTB"
MISSING = "userId is missing: the device is taken as nobody's yet (userId = deviceId)"
PROVING = "web"
"""A source with  verify: required."""


class Told:
    """A registry that hears messages, as the connection `devices` reads them."""

    def __init__(self, path: Path, **settings: Any) -> None:
        self.stage = Stage(path, PushSettings.model_validate(settings))
        self._devices = DeviceRegistry(DevicesSettings(proving=(PROVING,)))
        self._count = 0

    async def say(self, kind: str, source: str = "app", **fields: Any) -> list[str]:
        """Hear a message now; what there is to report. `source` app is a client's, shop a server's."""
        self._count += 1
        self.stage.clock._elapsed += 1
        message = Message(
            type=kind,
            message_id=f"m{self._count}",
            source=source,
            trust="server" if source == "shop" else "client",
            received_at=self.stage.clock.now(),
            **fields,
        )
        payload = self._devices.prepare(message)
        assert isinstance(payload, Payload), payload
        (reports,) = await self.stage.registry.apply([payload.data])
        return [*payload.reports, *reports]

    async def register(
        self, device: str, person: str | None, token: str, source: str = "app", **more: Any
    ) -> list[str]:
        properties = {"deviceId": device, "fcmToken": token, "deviceType": "iOS"}
        return await self.say(
            "track", source, event="Register Push", user_id=person, properties=properties, **more
        )

    async def traits(self, person: str) -> Any:
        found = (await self.stage.registry.people([person])).get(person)
        return None if found is None else found.traits

    def merged(self) -> list[tuple[str, ...]]:
        """The aliases that were told."""
        return [news[1:] for news in self.stage.news() if news[0] == "alias"]


@pytest.fixture
def told(tmp_path: Path) -> Iterator[Told]:
    made = Told(tmp_path)
    yield made
    made.stage.close()


# -- a device that is called like a person -----------------------------------------------------------------


@pytest.mark.spec("D13", "P021")
@pytest.mark.parametrize("source", ["shop", PROVING])
@pytest.mark.parametrize("first", ["theirs", "forged"])
@pytest.mark.parametrize("fields", [{}, {"anonymous_id": "victim"}])
async def test_a_person_known_by_an_identify_is_shadowed_by_no_device(
    told: Told, source: str, first: str, fields: dict[str, str]
) -> None:
    forging = source if source == PROVING else "app"  # proofs are for userIds; this message has none
    if first == "theirs":
        await told.say("identify", source, user_id="victim", traits={"plan": "gold"})
    else:  # an app has identified them before, which proves nothing yet
        await told.say("identify", user_id="victim", traits={"plan": "gold"})
    await told.register("victim", None, "forged", forging, **fields)
    if first == "forged":
        await told.say("identify", source, user_id="victim", traits={"plan": "gold"})
    for _ in range(2):
        assert await told.stage.reach("victim") == []
        assert "nobody's" in " ".join(await told.register("victim", None, "forged", forging, **fields))
    await told.register("victim", "thief", "forged", source)
    assert told.merged() == []
    assert await told.traits("victim") == {"plan": "gold"}
    assert not await told.traits("thief")


@pytest.mark.spec("D13")
@pytest.mark.parametrize("source", ["shop", PROVING])
async def test_a_person_is_known_when_their_device_is_gone(told: Told, source: str) -> None:
    await told.register("d1", "victim", "t1", source)
    await told.register("d1", "somebody", "t1", source)
    await told.register("victim", None, "forged")
    assert await told.stage.reach("victim") == []
    await told.register("victim", "thief", "forged")
    assert told.merged() == []


@pytest.mark.spec("D13")
@pytest.mark.parametrize("source", ["shop", PROVING])
async def test_an_anonymous_id_does_not_speak_for_a_person(told: Told, source: str) -> None:
    await told.say("identify", source, user_id="victim", traits={"plan": "gold"})
    preferences = {"marketingPreferences": {"channels": [{"channel": "push", "subscribed": False}]}}
    said = await told.say("identify", anonymous_id="victim", traits={"plan": "none", **preferences})
    assert "does not speak" in said[0]
    said = await told.say(
        "track", event="Unsubscribe from Channel", anonymous_id="victim", properties={"channel": "push"}
    )
    assert "does not speak" in said[0]
    found = (await told.stage.registry.people(["victim"]))["victim"]
    assert (found.traits, found.consent) == ({"plan": "gold"}, None)


@pytest.mark.spec("D13")
async def test_who_was_known_is_so_after_a_join(told: Told) -> None:
    await told.say("identify", "shop", user_id="before", traits={"plan": "gold"})
    await told.say("alias", "shop", user_id="victim", previous_id="before")
    await told.register("victim", None, "forged")
    assert await told.stage.reach("victim") == []


@pytest.mark.spec("D13", "P021", "P022")
async def test_a_server_may_call_a_person_like_their_device(told: Told) -> None:
    await told.say("identify", "shop", user_id="d1", traits={"plan": "free"})
    assert await told.register("d1", "d1", "t1", "shop") == []
    assert await told.stage.reach("d1") == ["t1"]


# -- an ordinary app -----------------------------------------------------------------------------------------


@pytest.mark.spec("D13", "P022", "P024", "P025")
@pytest.mark.parametrize("identified", ["before", "after", "never"])
async def test_a_sign_in_by_an_apps_key_merges_the_person_of_an_installation(
    told: Told, identified: str
) -> None:
    """SDKs speak as the device's id once it was identified: that makes it nobody's userId."""
    own: dict[str, Any] = {"anonymous_id": "random", "context": {"device": {"id": "vendor's"}}}
    for moment in ("before", "register", "after"):
        if moment == "register":
            await told.register(FID, FID, "t1", **own)
        elif moment == identified:
            await told.say("identify", user_id=FID, traits={"shoe": 43}, **own)
    assert await told.stage.reach(FID) == ["t1"]
    await told.say("identify", user_id="ann", traits={"name": "Ann"}, **own)
    assert await told.register(FID, "ann", "t1", **own) == []
    assert told.merged() == [(FID, "ann")]
    assert await told.stage.reach("ann") == ["t1"]
    assert await told.traits("ann") == {"name": "Ann"} | ({"shoe": 43} if identified != "never" else {})


@pytest.mark.spec("D13", "P025")
@pytest.mark.parametrize("source", ["app", PROVING])
@pytest.mark.parametrize("device", ["victim", "customer-0000000000012", "CUSTOMER-0000000000012"])
async def test_a_sign_in_by_an_apps_key_merges_nobody_whom_only_other_tools_know(
    told: Told, device: str, source: str
) -> None:
    await told.register(device, None, "t1", source, anonymous_id=device)
    (said,) = await told.register(device, "thief", "t1", source)
    assert "push.device_ids" in said
    assert told.merged() == []
    assert await told.stage.reach("thief") == ["t1"], "it is signed in all the same"


@pytest.mark.spec("D13", "P025")
async def test_a_server_or_a_setting_merges_any_device(told: Told, tmp_path: Path) -> None:
    await told.register("d1", "d1", "t1")
    await told.register("d1", "ann", "t1", "shop")
    assert told.merged() == [("d1", "ann")]
    (tmp_path / "other").mkdir()
    other = Told(tmp_path / "other", device_ids=r"d\d+")
    await other.register("d1", "d1", "t1")
    await other.register("d1", "ann", "t1")
    assert other.merged() == [("d1", "ann")]
    other.stage.close()


@pytest.mark.spec("D13", "P025")
async def test_where_proofs_are_wanted_a_sign_in_works_as_it_does(told: Told) -> None:
    await told.register(FID, None, "t1", PROVING, anonymous_id=FID)
    await told.say("identify", PROVING, user_id="ann", anonymous_id=FID, traits={"name": "Ann"})
    await told.register(FID, "ann", "t1", PROVING, anonymous_id=FID)
    assert await told.stage.reach("ann") == ["t1"]
    assert told.merged() == [(FID, "ann")]
    await told.register(FID, None, "t1", PROVING, anonymous_id=FID)
    assert (await told.stage.reach("ann"), await told.stage.reach(FID)) == ([], ["t1"])


def test_the_ids_of_devices_are_a_regular_expression() -> None:
    with pytest.raises(ValueError, match="regular expression"):
        PushSettings.model_validate({"device_ids": "("})


# -- going ---------------------------------------------------------------------------------------------------


@pytest.mark.spec("D13", "P044")
@pytest.mark.parametrize("name", ["Unregister Push", "Push Disabled", "Device Deleted"])
@pytest.mark.parametrize(
    ("person", "more", "goes"),
    [
        ("thief", {}, False),
        (None, {"anonymous_id": "thief"}, False),
        (None, {"anonymous_id": "ann"}, False),
        ("thief", {"token": "guessed"}, False),
        ("thief", {"source": PROVING}, False),
        ("ann", {}, True),
        ("thief", {"token": "t1"}, True),
        (None, {"token": "t1"}, True),
        (None, {"source": "shop"}, True),
    ],
)
async def test_a_client_that_knows_no_more_than_its_id_unregisters_no_device(
    told: Told, name: str, person: str | None, more: dict[str, str], goes: bool
) -> None:
    await told.register("d1", "ann", "t1", anonymous_id="a1")
    fields: dict[str, Any] = {"user_id": person, **{key: more[key] for key in more if key != "token"}}
    token = {"token": more["token"]} if "token" in more else {}
    if name == "Device Deleted":
        said = await told.say("track", event=name, context={"device": {"id": "d1", **token}}, **fields)
    else:
        properties = {"deviceId": "d1", **({"fcmToken": more["token"]} if token else {})}
        said = await told.say("track", event=name, properties=properties, **fields)
    assert await told.stage.reach("ann") == ([] if goes else ["t1"])
    assert bool(said) is not goes


@pytest.mark.spec("D13", "P044")
async def test_a_device_on_which_nobody_signed_in_goes_by_its_own_word(told: Told) -> None:
    await told.register("d1", "d1", "t1")
    await told.say("track", event="Push Disabled", anonymous_id="d1", properties={"deviceId": "d1"})
    assert await told.stage.reach("d1") == []


# -- taking --------------------------------------------------------------------------------------------------


@pytest.mark.spec("D13", "P041")
@pytest.mark.parametrize("first", ["shop", PROVING])
@pytest.mark.parametrize("source", ["app", PROVING])
@pytest.mark.parametrize("again", [False, True])
async def test_a_client_that_knows_no_more_than_its_id_takes_no_device_from_who_proved_it(
    told: Told, first: str, source: str, again: bool
) -> None:
    await told.register("d1", "victim", "t1", first)
    if again:  # an app may report it without proof meanwhile
        await told.register("d1", "victim", "t2", "app")
    has = "t2" if again else "t1"
    assert "stays theirs" in (await told.register("d1", None, "forged", source))[-1]
    assert await told.stage.reach("victim") == [has]
    if source == "app":
        await told.register("d1", "thief", "forged")
        assert (await told.stage.reach("victim"), await told.stage.reach("thief")) == ([has], [])


@pytest.mark.spec("D13", "P044", "P041")
@pytest.mark.parametrize(
    ("person", "token", "source"),
    [(None, "t1", "app"), ("bob", "t1", "app"), ("bob", "t2", PROVING), ("bob", "t2", "shop")],
)
async def test_a_sign_out_and_the_next_proof_move_a_device(
    told: Told, person: str | None, token: str, source: str
) -> None:
    await told.register("d1", "ann", "t1", PROVING)
    assert await told.register("d1", person, token, source) in ([], [MISSING])
    assert await told.stage.reach("ann") == []
    assert await told.stage.reach(person or "d1") == [token]


@pytest.mark.spec("P041")
@pytest.mark.parametrize("gone", [True, False])
async def test_what_no_proof_stands_behind_moves_by_any_report(told: Told, gone: bool) -> None:
    await told.register("d1", "ann", "t1", PROVING if gone else "app")
    if gone:
        await told.say("track", event="Push Disabled", user_id="ann", properties={"deviceId": "d1"})
    await told.register("d1", "bob", "t2")
    assert await told.stage.reach("bob") == ["t2"]
    assert await told.stage.reach("ann") == []


@pytest.mark.spec("D13", "P041")
async def test_who_takes_a_device_without_proof_has_not_proved_it(told: Told) -> None:
    await told.register("d1", "ann", "t1", PROVING)
    await told.register("d1", "bob", "t1")
    await told.register("d1", "carl", "t2")
    assert await told.stage.reach("carl") == ["t2"]
