"""The connection of the device registry: what a message tells, and the contract of every destination."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import msgspec
import pytest

from towpath.destination import Payload, Scope
from towpath.destinations.devices import DeviceRegistry, DevicesSettings
from towpath.device import (
    REGISTRY,
    Address,
    Deleted,
    Device,
    DeviceEvent,
    Joined,
    Noted,
    Profiled,
    Registered,
    Seen,
    Traits,
    Unregistered,
)
from towpath.http import Http, Stopping
from towpath.message import Message
from towpath.outcome import Delivered, Rejected, Skipped
from towpath.testing import DestinationContract
from towpath.testing.fakes import FakeClock, FakeMemory, FakeTransport, Rule

AT = "2026-01-02T03:04:05.000Z"
AT_S = 1_767_323_045.0
PUSH = {"deviceId": "d1", "fcmToken": "t1", "deviceType": "iOS"}
FID = "dLd_X5aVQFmpXn1z0vSgTB"


def message(kind: str = "track", **fields: Any) -> Message:
    given = {"message_id": "m1", "user_id": "u1", "timestamp": AT, "received_at": AT_S + 1, "source": "app"}
    return Message(type=kind, **{**given, **fields})


def register(**fields: Any) -> Message:
    return message(**{"event": "register push", "properties": PUSH, **fields})


def prepared(told: Message) -> Payload | Skipped | Rejected:
    return DeviceRegistry(DevicesSettings()).prepare(told)


def events(told: Message) -> Sequence[DeviceEvent]:
    payload = prepared(told)
    assert isinstance(payload, Payload), payload
    noted: Noted = payload.data
    assert noted.message_id == told.message_id
    assert noted.received_at == told.received_at
    return noted.events


def refusal(told: Message) -> str:
    answer = prepared(told)
    assert isinstance(answer, Rejected), answer
    return answer.reason


class RemoteRegistry:
    """A registry behind the network, so that whatever can happen there happens to it."""

    def __init__(self, http: Http) -> None:
        self._http = http

    async def apply(self, noted: Sequence[Noted]) -> Sequence[tuple[str, ...]]:
        await self._http.request("POST", "https://registry.example/apply", json=list(noted))
        return [("noted",) for _ in noted]

    async def of_person(self, person: str) -> Sequence[Device]:
        await self._http.request("GET", "https://registry.example/devices")
        return []


class TestDevices(DestinationContract):
    """As for every destination, with a registry that fails as vendors do."""

    destination = DeviceRegistry
    settings: ClassVar[Mapping[str, Any]] = {}
    samples = (
        register(),
        register(user_id="d1"),
        message("identify", traits={"plan": "free"}),
        message("alias", previous_id="d1", trust="server"),
        message("delete", trust="server"),
        message("page"),
    )

    def scope(self, *rules: Rule) -> tuple[Scope, FakeTransport]:
        clock, network = FakeClock(), FakeTransport(*rules)
        http = Http(network, clock)
        return Scope(http, clock, FakeMemory(clock), {REGISTRY: RemoteRegistry(http)}), network

    def test_payloads_are_json(self) -> None:
        """What is shown are no requests, as nothing leaves the program."""
        for payload in self.payloads():
            assert msgspec.json.decode(msgspec.json.encode(payload.requests[0].json))


# -- register push -------------------------------------------------------------------------------------


@pytest.mark.spec("P030", "P031", "P032", "P033", "P034", "P035")
@pytest.mark.parametrize("name", ["register push", "Register Push", " REGISTER  PUSH "])
@pytest.mark.parametrize(
    ("told", "platform"), [("iOS", "ios"), ("ANDROID", "android"), ("web", "web"), (" Web ", "web")]
)
def test_a_register_push_names_device_token_and_type(name: str, told: str, platform: Any) -> None:
    (event,) = events(register(event=name, properties={**PUSH, "deviceType": told}))
    assert event == Registered(
        device="d1", person="u1", address=Address("token", "t1"), platform=platform, at=AT_S, word="client"
    )


@pytest.mark.spec("P031", "P032", "P033")
@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"deviceId": None}, "properties.deviceId is missing"),
        ({"deviceId": "  "}, "properties.deviceId is missing"),
        ({"deviceId": 7}, "properties.deviceId must be a string"),
        ({"deviceId": "d" * 256}, "properties.deviceId has more than"),
        ({"fcmToken": None}, "properties.fcmToken is missing"),
        ({"fcmToken": {"token": "t"}}, "properties.fcmToken must be a string"),
        ({"fcmToken": "t" * 5000}, "properties.fcmToken has more than"),
        ({"deviceType": None}, "properties.deviceType must be iOS, Android or Web"),
        ({"deviceType": "Windows"}, "properties.deviceType must be iOS, Android or Web"),
        ({"deviceType": 1}, "properties.deviceType must be iOS, Android or Web"),
    ],
)
def test_a_register_push_without_a_field_is_refused_by_its_name(change: dict[str, Any], field: str) -> None:
    assert field in refusal(register(properties={**PUSH, **change}))


@pytest.mark.parametrize("properties", [None, "none", [], {}])
def test_a_register_push_without_properties_is_refused(properties: Any) -> None:
    assert "properties.deviceId is missing" in refusal(register(properties=properties))


@pytest.mark.spec("P036", "P040")
def test_an_installation_id_takes_the_place_of_a_token() -> None:
    named = {"deviceId": "d1", "fid": FID, "deviceType": "Web"}
    for properties in (named, {**PUSH, "fcmToken": FID}):
        (event,) = events(register(properties=properties))
        assert isinstance(event, Registered)
        assert event.address == Address("fid", FID)


@pytest.mark.spec("P021", "P034")
def test_without_a_user_the_device_is_its_own_person() -> None:
    (signed_out,) = events(register(user_id="d1"))
    assert isinstance(signed_out, Registered)
    assert (signed_out.person, signed_out.history) == ("d1", True)
    payload = prepared(register(user_id=None, anonymous_id="d1"))
    assert isinstance(payload, Payload)
    assert payload.data.events == (signed_out,)
    assert "userId is missing" in payload.reports[0]
    (other,) = events(register(user_id=None, anonymous_id="another"))
    assert isinstance(other, Registered)
    assert (other.person, other.history) == ("d1", False)


@pytest.mark.spec("P040")
def test_what_an_app_tells_of_itself_comes_along() -> None:
    context = {
        "app": {"name": "Shop", "namespace": "com.example.shop", "version": "1.2"},
        "locale": "de-AT",
        "timezone": "Europe/Vienna",
    }
    (event,) = events(register(context=context))
    assert isinstance(event, Registered)
    assert event.traits == Traits("com.example.shop", "1.2", "de-AT", "Europe/Vienna")
    (odd,) = events(register(context={"app": [], "locale": 5, "timezone": ""}))
    assert isinstance(odd, Registered)
    assert odd.traits == Traits()


@pytest.mark.spec("P041")
def test_a_clock_that_is_ahead_counts_from_the_receipt() -> None:
    (event,) = events(register(timestamp="2099-01-01T00:00:00Z"))
    assert isinstance(event, Registered)
    assert event.at == AT_S + 1
    (corrected,) = events(
        register(timestamp=None, original_timestamp="2026-01-02T05:00:00Z", sent_at="2026-01-02T05:00:10Z")
    )
    assert isinstance(corrected, Registered)
    assert corrected.at == AT_S + 1 - 10


# -- other words for the same --------------------------------------------------------------------------


@pytest.mark.spec("P044", "P036")
@pytest.mark.parametrize("name", ["unregister push", "Push Disabled", "Unregister Push"])
def test_a_device_that_wants_no_pushes_is_named_by_id_or_token(name: str) -> None:
    (by_id,) = events(message(event=name, properties={"deviceId": "d1", "fcmToken": "t1"}))
    assert isinstance(by_id, Unregistered)
    assert (by_id.device, by_id.address, by_id.at) == ("d1", Address("token", "t1"), AT_S)
    assert (by_id.person, by_id.word) == ("u1", "client")
    (by_token,) = events(message(event=name, properties={"fcmToken": "t1"}))
    assert isinstance(by_token, Unregistered)
    assert (by_token.device, by_token.address) == ("", Address("token", "t1"))
    assert "properties.deviceId is missing" in refusal(message(event=name))


@pytest.mark.spec("D13", "P044")
@pytest.mark.parametrize(("anonymous", "person"), [("d1", "d1"), ("u1", None), (None, None)])
def test_who_unregisters_is_its_user_or_the_device_itself(anonymous: str | None, person: str | None) -> None:
    fields: dict[str, Any] = {"event": "Unregister Push", "properties": {"deviceId": "d1"}}
    (event,) = events(message(**fields, user_id=None, anonymous_id=anonymous))
    assert isinstance(event, Unregistered)
    assert event.person == person


@pytest.mark.spec("P036", "P044")
@pytest.mark.parametrize("key", ["fcmToken", "fid"])
def test_an_installation_is_unregistered_by_its_id_as_well(key: str) -> None:
    (event,) = events(message(event="Unregister Push", properties={key: FID}))
    assert isinstance(event, Unregistered)
    assert event.address == Address("fid", FID)


@pytest.mark.spec("D13")
@pytest.mark.parametrize(
    ("told", "word"),
    [
        ({}, "client"),
        ({"trust": "server"}, "server"),
        ({"source": "proving"}, "proven"),
        ({"source": "proving", "user_id": None, "anonymous_id": "u1"}, "client"),
    ],
)
def test_a_proof_is_of_the_user_id_and_of_nothing_else(told: dict[str, Any], word: str) -> None:
    context = {"device": {"id": "d1", "token": "t1", "type": "ios"}}
    destination = DeviceRegistry(DevicesSettings(proving=("proving",)))
    made = [
        register(**told),
        message("identify", **{"context": context, **told}),
        message(**{"event": "Unregister Push", "properties": PUSH, **told}),
        message(**{"event": "Device Deleted", "context": context, **told}),
        message(**{"event": "Subscribe to Channel", "properties": {"channel": "push"}, **told}),
    ]
    for one in made:
        payload = destination.prepare(one)
        assert isinstance(payload, Payload)
        assert {event.word for event in payload.data.events} == {word}


@pytest.mark.spec("P036", "P044")
@pytest.mark.parametrize("name", ["Device Deleted", "Application Uninstalled"])
def test_a_token_that_is_gone_is_named_before_its_device(name: str) -> None:
    (event,) = events(message(event=name, context={"device": {"id": "d1", "token": "old"}}))
    assert isinstance(event, Unregistered)
    assert (event.device, event.address) == ("", Address("token", "old"))
    (event,) = events(message(event=name, context={"device": {"id": "d1"}}))
    assert isinstance(event, Unregistered)
    assert event.device == "d1"
    assert isinstance(prepared(message(event=name)), Skipped)


@pytest.mark.spec("P036")
@pytest.mark.parametrize(
    ("kind", "name"),
    [
        ("track", "Device Created or Updated"),
        ("track", "Application Installed"),
        ("track", "Application Opened"),
        ("track", "Order Completed"),
        ("screen", None),
    ],
)
def test_a_token_in_the_context_of_any_message_is_a_report(kind: str, name: str | None) -> None:
    device = {"id": "d1", "token": "t1", "type": "ios"}
    (event,) = events(message(kind, event=name, context={"device": device}))
    assert event == Registered(
        device="d1", person="u1", address=Address("token", "t1"), platform="ios", at=AT_S, word="client"
    )


@pytest.mark.spec("P036")
def test_a_token_without_a_device_id_has_one_of_its_own_for_good() -> None:
    context = {"device": {"token": "t1"}, "os": {"name": "iPadOS"}}
    (event,) = events(message("screen", context=context))
    (again,) = events(message("screen", context=context, user_id=None))
    assert isinstance(event, Registered)
    assert isinstance(again, Registered)
    assert event.device == again.device == again.person
    assert event.platform == "ios"
    assert not again.history


@pytest.mark.spec("P011")
def test_an_event_without_a_token_only_says_that_the_device_is_in_use() -> None:
    (event,) = events(message(event="Order Completed", context={"device": {"id": "d1"}, "locale": "de"}))
    assert event == Seen(device="d1", at=AT_S, traits=Traits(locale="de"))
    assert isinstance(prepared(message(event="Order Completed")), Skipped)


@pytest.mark.spec("P023")
def test_anonymous_events_make_no_device() -> None:
    assert isinstance(prepared(message("page", user_id=None, anonymous_id="d1")), Skipped)


@pytest.mark.parametrize("device", [None, "x", [], {"token": ""}, {"token": 5}, {"token": {}, "id": []}])
def test_odd_devices_in_a_context_are_none(device: Any) -> None:
    assert isinstance(prepared(message(event="Seen", context={"device": device})), Skipped)


# -- people --------------------------------------------------------------------------------------------


@pytest.mark.spec("P024", "P045")
def test_an_identify_tells_traits_and_consent() -> None:
    traits = {"plan": "gold", "old": None, "marketingPreferences": {"channels": [
        {"channel": "email", "subscribed": False}, {"channel": "Push", "subscribed": True},
    ]}}  # fmt: skip
    (event,) = events(message("identify", traits=traits))
    assert event == Profiled(person="u1", at=AT_S, traits=traits, consent=True, word="client")
    (anonymous,) = events(message("identify", user_id=None, anonymous_id="d1", traits={"a": 1}))
    assert anonymous == Profiled(
        person="d1", at=AT_S, traits={"a": 1}, named=False, anonymous=True, word="client"
    )
    for told in ({"anonymous_id": "u1"}, {"context": {"device": {"id": "u1"}}}):
        (itself, *_) = events(message("identify", **told))
        assert itself == Profiled(person="u1", at=AT_S, named=False, word="client")


@pytest.mark.spec("P024")
def test_an_identify_with_a_token_is_a_profile_and_a_report() -> None:
    context = {"device": {"id": "d1", "token": "t1", "type": "android"}}
    profiled, registered = events(message("identify", context=context))
    assert isinstance(profiled, Profiled)
    assert isinstance(registered, Registered)


@pytest.mark.spec("D09")
@pytest.mark.parametrize(
    ("said", "consent"),
    [
        ([True, False], False),
        ([False, True], False),
        ([True], True),
        (["yes"], False),
        ([None], None),
        ([], None),
    ],
)
def test_one_refusal_outweighs_all_else(said: list[Any], consent: bool | None) -> None:
    channels = [{"channel": "push", "subscribed": word} for word in said]
    (event,) = events(message("identify", traits={"marketingPreferences": {"channels": channels}}))
    assert isinstance(event, Profiled)
    assert event.consent is consent


@pytest.mark.parametrize("preferences", [None, 5, {"channels": {}}, {"channels": ["push", {"channel": 5}]}])
def test_odd_preferences_say_nothing(preferences: Any) -> None:
    (event,) = events(message("identify", traits={"marketingPreferences": preferences}))
    assert isinstance(event, Profiled)
    assert event.consent is None


@pytest.mark.spec("P045", "D09")
@pytest.mark.parametrize(
    ("name", "more", "consent"),
    [
        ("Subscribe to Channel", {}, True),
        ("Unsubscribe From Channel", {}, False),
        ("Unsubscribe From Channel", {"campaign_id": 7}, False),
    ],
)
def test_subscriptions_to_the_channel_are_consent(name: str, more: dict[str, Any], consent: bool) -> None:
    (event,) = events(message(event=name, properties={"channel": "push", **more}))
    assert event == Profiled(person="u1", at=AT_S, consent=consent, word="client")
    assert isinstance(prepared(message(event=name, properties={"channel": "email", **more})), Skipped)


@pytest.mark.spec("D09")
def test_a_subscription_to_one_campaign_is_no_consent() -> None:
    told = message(event="Subscribe To Channel", properties={"channel": "push", "campaign_id": 7})
    assert isinstance(prepared(told), Skipped)


@pytest.mark.spec("D13")
def test_a_client_joins_only_its_own_anonymous_id() -> None:
    fields = {"previous_id": "d1", "user_id": "u1"}
    assert events(message("alias", **fields, trust="server")) == (Joined(old="d1", new="u1", at=AT_S),)
    (own,) = events(message("alias", **fields, anonymous_id="d1"))
    assert own == Joined(old="d1", new="u1", at=AT_S, trusted=False)
    answer = prepared(message("alias", **fields, anonymous_id="other"))
    assert isinstance(answer, Skipped)
    assert answer.reason == "untrusted"
    assert isinstance(prepared(message("alias", user_id="u1", trust="server")), Skipped)


@pytest.mark.spec("D13", "P045")
@pytest.mark.parametrize("told", [{"kind": "delete"}, {"event": "User Deleted"}])
def test_only_a_server_deletes(told: dict[str, str]) -> None:
    assert events(message(**told, trust="server")) == (Deleted(person="u1", at=AT_S),)
    answer = prepared(message(**told))
    assert isinstance(answer, Skipped)
    assert answer.reason == "untrusted"


def test_what_the_registry_told_itself_is_left_out() -> None:
    answer = prepared(register(source="push"))
    assert isinstance(answer, Skipped)
    assert answer.reason == "own"


# -- delivering ----------------------------------------------------------------------------------------


class Recording:
    """A registry that fails for some messages, alone or in a batch."""

    def __init__(self, *failing: str) -> None:
        self.failing = failing
        self.calls: list[list[str]] = []

    async def apply(self, noted: Sequence[Noted]) -> Sequence[tuple[str, ...]]:
        self.calls.append([one.message_id for one in noted])
        if any(one.message_id in self.failing for one in noted):
            raise RuntimeError("of these, one")
        return [(f"about {one.message_id}",) for one in noted]


async def delivered(registry: Any, *names: str) -> Sequence[Any]:
    clock = FakeClock()
    scope = Scope(Http(FakeTransport(), clock), clock, FakeMemory(clock), {REGISTRY: registry})
    payloads = [prepared(register(message_id=name, user_id=name[0])) for name in names]
    ready = [
        msgspec.structs.replace(payload, person=name[0])
        for payload, name in zip(payloads, names, strict=True)
        if isinstance(payload, Payload)
    ]
    return await DeviceRegistry(DevicesSettings()).deliver_batch(ready, scope)


async def test_a_batch_is_one_call_and_each_message_has_its_reports() -> None:
    registry = Recording()
    ended = await delivered(registry, "a1", "b1")
    assert ended == [Delivered(reports=("about a1",)), Delivered(reports=("about b1",))]
    assert registry.calls == [["a1", "b1"]]


@pytest.mark.spec("D04")
async def test_the_one_at_fault_keeps_only_its_own_person_waiting() -> None:
    ended = await delivered(Recording("a2"), "a1", "a2", "b1", "a3", "b2")
    kinds = [type(end).__name__ for end in ended]
    assert kinds == ["Delivered", "RuntimeError", "Delivered", "NoneType", "Delivered"]


async def test_when_everything_fails_not_everything_is_tried() -> None:
    names = [f"{letter}1" for letter in "abcdefgh"]
    registry = Recording(*names)
    ended = await delivered(registry, *names)
    assert [end is None for end in ended] == [False] * 3 + [True] * 5
    assert len(registry.calls) == 4


async def test_a_stop_passes_through() -> None:
    class Stopped(Recording):
        async def apply(self, noted: Sequence[Noted]) -> Sequence[tuple[str, ...]]:
            raise Stopping

    with pytest.raises(Stopping):
        await delivered(Stopped(), "a1", "b1")
