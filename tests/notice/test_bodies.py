"""Bodies: the JSON once, the address put in; what differs between people is made and checked for each."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from towpath.device import Address, Device
from towpath.mapping.paths import Unusable
from towpath.notice import PLATFORMS, Bodies, Refused, encoded
from towpath.notice import bodies as module

from .samples import PHONE, SALE, content, notice, person

NOW = 1_760_000_000.0
TOKEN = Address("token", "t1")


@pytest.fixture
def encodings(monkeypatch: pytest.MonkeyPatch) -> list[Mapping[str, Any]]:
    """The messages that are encoded as a whole."""
    seen = list[Mapping[str, Any]]()

    def counted(message: Mapping[str, Any], *, validate_only: bool = False) -> Any:
        seen.append(message)
        return encoded(message, validate_only=validate_only)

    monkeypatch.setattr(module, "encoded", counted)
    return seen


@given(value=st.text().filter(lambda text: not any("\ud800" <= sign <= "\udfff" for sign in text)))
@pytest.mark.spec("P051")
def test_any_address_is_put_in_as_json(value: str) -> None:
    message = content(**SALE).message("android", "c", NOW)
    found = msgspec.json.decode(encoded(message).body(Address("token", value)))
    assert found == {"message": {"token": value, **message}}
    found = msgspec.json.decode(encoded(message).body(Address("fid", value)))
    assert found == {"message": {"fid": value, **message}}


@pytest.mark.spec("P057")
def test_fcm_may_be_asked_without_sending() -> None:
    found = msgspec.json.decode(encoded({"data": {"a": "b"}}, validate_only=True).body(TOKEN))
    assert found == {"validate_only": True, "message": {"token": "t1", "data": {"a": "b"}}}
    assert msgspec.json.decode(encoded({}).body(TOKEN)) == {"message": {"token": "t1"}}


@pytest.mark.spec("P051")
def test_what_is_the_same_for_all_is_encoded_once(encodings: list[Any]) -> None:
    made = Bodies(notice(**SALE), "summer")
    for number in range(50):
        address = Address("token", f"t{number}")
        for platform in PLATFORMS:
            body = msgspec.json.decode(made.body(replace(PHONE, platform=platform), address, {}, NOW))
            expected = content(**SALE).message(platform, "summer", NOW)
            assert body == {"message": {"token": f"t{number}", **expected}}
    assert len(encodings) == 3


@pytest.mark.spec("P051")
def test_what_expires_is_encoded_anew_each_second(encodings: list[Any]) -> None:
    made, phone = Bodies(notice(title="Hi", ttl="1h"), "c"), replace(PHONE, platform="ios")
    for later in (0.0, 0.5, 0.9, 1.0, 1.5):
        body = msgspec.json.decode(made.body(phone, TOKEN, {}, NOW + later))
        assert body["message"]["apns"]["headers"]["apns-expiration"] == str(int(NOW + later) + 3600)
    assert len(encodings) == 2


@pytest.mark.spec("P050", "P051")
def test_each_person_gets_their_own() -> None:
    made = Bodies(notice(title="Hi {traits.name|you}"), "c", event=person(properties={"a": 1}))
    for traits, title in (({"name": "Ann"}, "Hi Ann"), ({}, "Hi you"), ({"name": '"},{'}, 'Hi "},{')):
        assert msgspec.json.decode(made.body(PHONE, TOKEN, traits, NOW))["message"]["notification"] == {
            "title": title
        }


def test_a_device_whose_kind_is_not_known_gets_every_block() -> None:
    body = msgspec.json.decode(
        Bodies(notice(**SALE), "c").body(replace(PHONE, platform=None), TOKEN, {}, NOW)
    )
    assert {"android", "apns", "webpush"} <= body["message"].keys()


@pytest.mark.parametrize(
    ("settings", "good", "wrong"),
    [
        ({"title": "{traits.x}", "body": "{traits.y|}"}, "a", ""),
        ({"title": "{traits.x}", "body": "{traits.x}", "data": {"a": "{traits.x}"}}, "a", "é" * 1_000),
        ({"title": "Hi", "link": "{traits.x}"}, "shop://a", "javascript:a"),
        ({"title": "Hi", "image": "{traits.x}"}, "https://a.example/a", "http://a.example/a"),
        ({"title": "Hi", "android": {"notification": {"color": "{traits.x}"}}}, "#aabbcc", "red"),
    ],
)
@pytest.mark.spec("P051")
def test_one_persons_values_are_looked_at_though_anothers_were_good(
    settings: Any, good: str, wrong: str
) -> None:
    made = Bodies(notice(**settings), "c")
    assert made.body(PHONE, TOKEN, {"x": good}, NOW)
    with pytest.raises(Refused) as refused:
        made.body(PHONE, TOKEN, {"x": wrong}, NOW)
    assert refused.value.problems
    assert isinstance(refused.value, Unusable)
    assert made.body(PHONE, TOKEN, {"x": good}, NOW)


@pytest.mark.spec("P051")
def test_what_is_wrong_for_everyone_is_refused_each_time() -> None:
    made = Bodies(notice(title="Hi", body="x" * 4090), "c")
    for _ in range(2):
        with pytest.raises(Refused, match="FCM takes 4,096"):
            made.body(PHONE, TOKEN, {}, NOW)


@given(
    title=st.text(max_size=1500), link=st.text(max_size=1500), platform=st.sampled_from([*PLATFORMS, None])
)
@pytest.mark.spec("P051")
def test_the_short_look_sees_what_the_long_one_sees(title: str, link: str, platform: Any) -> None:
    settings: dict[str, Any] = {
        "title": "{traits.t|}",
        "link": "shop://{traits.l|}",
        "data": {"a": "{traits.t|}"},
    }
    made, phone = Bodies(notice(**settings), "c"), replace(PHONE, platform=platform)
    made.body(phone, TOKEN, {"t": "a", "l": "b"}, NOW)  # from here on only what differs is looked at
    first = outcome(Bodies(notice(**settings), "c"), phone, {"t": title, "l": link})
    assert outcome(made, phone, {"t": title, "l": link}) == first


def outcome(made: Bodies, phone: Device, traits: Mapping[str, Any]) -> bytes | str:
    try:
        return made.body(phone, TOKEN, traits, NOW)
    except Unusable as error:
        return str(error)
