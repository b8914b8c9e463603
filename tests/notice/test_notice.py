"""Filling: merge tags of people, events and devices; and values that somebody made up to do harm."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from towpath.mapping.paths import Unusable
from towpath.message import Message
from towpath.notice import PLATFORMS, NoticeSettings, about, encoded, problems

from .samples import PHONE, SALE, content, notice, person


@pytest.mark.spec("P050", "P051")
def test_tags_come_from_the_person_the_event_and_the_device() -> None:
    made = notice(
        title="{traits.first_name|Hello}, your order {properties.order.id}",
        body="{event} on {context.device.app} in {context.device.locale|en}",
        data={"total": "{properties.total}", "items": "{properties.items}", "who": "{userId}"},
        badge="{traits.unread|0}",
        channel="{properties.channel|orders}",
    )
    event = person(properties={"order": {"id": 17}, "total": 25.5, "items": [{"sku": "a"}]})
    found = made.fill(about(PHONE, {"first_name": "Ann", "unread": 3}, event))
    assert found.title == "Ann, your order 17"
    assert found.body == "Bought on shop in de-AT"
    assert found.data == {"total": "25.5", "items": '[{"sku":"a"}]', "who": "u1"}
    assert found.badge == 3
    assert found.channel == "orders"
    assert made.fill(about(PHONE, {}, event)).title == "Hello, your order 17"
    assert made.fill(about(PHONE, {"unread": "12"}, event)).badge == 12


def test_the_message_of_a_device_is_what_filters_and_tags_see() -> None:
    made = about(PHONE, {"plan": "pro", "city": "Graz"}, person(city="Wien", context={"ip": "192.0.2.1"}))
    assert made.user_id == "u1"
    assert made.traits == {"plan": "pro", "city": "Wien"}
    assert made.context == {
        "ip": "192.0.2.1",
        "device": {
            "id": "d1",
            "type": "android",
            "app": "shop",
            "app_version": "3.1",
            "locale": "de-AT",
            "timezone": "Europe/Vienna",
        },
    }
    bare = about(PHONE, {"plan": "pro"})
    assert (bare.type, bare.properties, bare.traits) == ("track", {}, {"plan": "pro"})


def test_what_a_notice_depends_on_is_known() -> None:
    assert notice(**SALE).static
    assert notice(title="{{braces}}").static
    assert notice(title="{{braces}}").fill(Message()).title == "{braces}"
    made = notice(title="{traits.a|b}")
    assert (made.static, made.of_person, made.changing) == (False, True, frozenset({"title"}))
    made = notice(title="Hi", data={"a": "{context.device.id}"}, android={"ttl": "{properties.t}"})
    assert (made.static, made.of_person, made.changing) == (False, False, frozenset({"data", "android"}))


@pytest.mark.parametrize(
    ("settings", "traits", "why"),
    [
        ({"title": "Hi {traits.name}"}, {}, r"title: there is no traits\.name"),
        ({"title": "Hi", "link": "shop://{traits.id}"}, {"id": None}, r"link: there is no traits\.id"),
        ({"title": "{traits.a}"}, {"a": {"b": 1}}, "title: what is there is no text"),
        ({"title": "{traits.a}"}, {"a": True}, "title: what is there is no text"),
        ({"title": "{traits.a}"}, {"a": "x" * 10_000_000}, "title: has 10,000,000 characters"),
        ({"title": "Hi {traits.a}"}, {"a": "x" * 10_000_000}, "title: the text would be longer"),
        ({"title": "Hi", "data": {"a": "{traits.a}"}}, {"a": ["x" * 5000]}, "data: has 5,004 characters"),
        ({"title": "Hi", "badge": "{traits.a}"}, {"a": "many"}, "badge: has to be a whole number"),
        ({"title": "Hi", "badge": "{traits.a}"}, {"a": -1}, "badge: has to be a whole number"),
        ({"title": "Hi", "badge": "{traits.a}"}, {"a": 2**40}, "badge: has to be a whole number"),
        ({"title": "Hi", "badge": "{traits.a}"}, {"a": "٣"}, "badge: has to be a whole number"),
    ],
)
@pytest.mark.spec("P051")
def test_what_cannot_be_filled_names_the_field(settings: Any, traits: Any, why: str) -> None:
    with pytest.raises(Unusable, match=why):
        notice(**settings).fill(person(**traits))


@pytest.mark.spec("P051", "D11")
def test_a_value_stays_the_one_part_of_a_link_it_stands_in() -> None:
    made = notice(title="Hi", link="https://shop.example.com/{traits.a}?q={traits.a}#x")
    link = made.fill(person(a="../../evil?x=1&y#z é@")).link
    part = "..%2F..%2Fevil%3Fx%3D1%26y%23z%20%C3%A9%40"
    assert link == f"https://shop.example.com/{part}?q={part}#x"
    image = notice(title="Hi", image="https://cdn.example.com/{traits.a}.png").fill(person(a="a/b")).image
    assert image == "https://cdn.example.com/a%2Fb.png"


@pytest.mark.parametrize("link", ["javascript:alert(1)", "JAVASCRIPT:x", " javascript:x", "/x", "a\nb:c", ""])
@pytest.mark.spec("P051")
def test_a_whole_link_from_a_person_is_looked_at_when_it_is_there(link: str) -> None:
    found = notice(title="Hi", link="{traits.url}").fill(person(url=link))
    assert bool(problems(found)) is bool(link)
    assert not problems(notice(title="Hi", link="{traits.url}").fill(person(url="shop://a")))


HOSTILE = st.text() | st.sampled_from(
    [
        "{traits.secret}",
        "{{",
        '"},"token":"x',
        "\ud800x",
        "\x00\x1b[31m",
        "\u2028",
        "</script>",
        '\\"',
        "'; --",
    ]
)


@given(value=HOSTILE)
@pytest.mark.spec("P051")
def test_hostile_values_are_shown_as_they_are_and_break_nothing(value: str) -> None:
    made = notice(title="{traits.a|x}", body="<{traits.a|x}>", data={"a": "{traits.a|}"})
    found = made.fill(person(a=value, secret="s3cret"))
    clean = value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    assert found.data == {"a": clean}
    assert found.body == f"<{clean or 'x'}>"
    for platform in PLATFORMS:
        message = found.message(platform, "c", 1.0)
        body = msgspec.json.encode(message)
        assert msgspec.json.decode(body) == message
        assert b"s3cret" not in body


WORDS = st.sampled_from(
    ["{", "}", "{{", "}}", "traits.a", "|", "x", "https://a.example/", "shop://", "9", " ", '"']
)
TEMPLATES = st.lists(WORDS, max_size=5).map("".join) | st.sampled_from(["{traits.a}", "{traits.a|b}", ""])


@given(
    settings=st.fixed_dictionaries(
        {"body": TEMPLATES},
        optional={
            "title": TEMPLATES,
            "link": TEMPLATES,
            "image": TEMPLATES,
            "badge": TEMPLATES,
            "collapse": TEMPLATES,
            "data": st.dictionaries(TEMPLATES, TEMPLATES, max_size=2),
            "android": st.fixed_dictionaries({"notification": st.fixed_dictionaries({"color": TEMPLATES})}),
        },
    ),
    value=st.none() | HOSTILE | st.integers(),
)
@pytest.mark.spec("P051")
def test_what_can_be_read_can_be_filled_and_sent_or_says_why_not(
    settings: dict[str, Any], value: Any
) -> None:
    try:
        made = notice(**settings)
    except ValidationError:
        return
    try:
        found = made.fill(person(a=value))
    except Unusable as why:
        assert str(why).partition(":")[0] in NoticeSettings.model_fields  # noqa: PT017
        return
    for platform in PLATFORMS:
        assert problems(found, (platform,)) or encoded(found.message(platform, "c", 1.0)).after


def test_the_settings_own_braces_are_read_once() -> None:
    made = notice(title="{{traits.a}} {traits.a}", android={"notification": {"ticker": "{{{traits.a}}}"}})
    found = made.fill(person(a="{traits.b}", b="no"))
    assert found.title == "{traits.a} {traits.b}"
    assert found.android == {"notification": {"ticker": "{{traits.b}}"}}


def test_raw_blocks_take_tags_too_and_are_checked_once_filled() -> None:
    made = notice(
        title="Hi", android={"notification": {"color": "{traits.color}", "title_loc_args": ["{event}"]}}
    )
    good, bad = made.fill(person(color="#aabbcc")), made.fill(person(color="{red}"))
    assert good.android == {"notification": {"color": "#aabbcc", "title_loc_args": ["Bought"]}}
    assert not problems(good)
    assert "color" in str(problems(bad)[0])


@pytest.mark.spec("P051")
def test_a_sample_leaves_what_only_the_registry_knows() -> None:
    made = notice(
        title="{traits.name|you}, {properties.item}", body="{context.device.app}", badge="{traits.unread}"
    )
    found, unknown = made.sample(person(properties={"item": "a lantern"}))
    assert found.title == "{traits.name}, a lantern"
    assert found.body == "{context.device.app}"
    assert found.badge == 0
    assert unknown == ("context.device.app", "traits.name", "traits.unread")
    found, unknown = made.sample(person(properties={"item": "x"}, name="Ann", unread=4))
    assert (found.title, found.badge, unknown) == ("Ann, x", 4, ("context.device.app",))
    told = person(properties={"item": "x"}, context={"traits": {"name": "Bo"}})
    assert made.sample(told)[0].title == "Bo, x"
    deep = notice(
        title="{traits.address.city|here}", data={"all": "{context.device}", "one": "{context.device.id}"}
    )
    found, unknown = deep.sample(person(address="Wien"))
    assert (found.title, unknown) == ("here", ("context.device.id",))
    with pytest.raises(Unusable, match=r"there is no properties\.item"):
        made.sample(person())


def test_a_content_can_be_kept_as_json() -> None:
    for made in (
        content(**SALE),
        content(silent=True),
        content(title="Hi", collapse="x", apns={"headers": {"a": "b"}}),
    ):
        assert msgspec.json.decode(msgspec.json.encode(made), type=type(made)) == made


def test_a_message_without_anything_to_fill_is_encoded_as_it_is() -> None:
    assert encoded({}).after == b"}}"
