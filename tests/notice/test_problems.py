"""What FCM would refuse is found before it is sent, and what is found here is what the simulator refuses."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from towpath.device import Address
from towpath.notice import PLATFORMS, Content, encoded, problems
from towpath.sandbox import fcm_rules, fcm_schema

from .samples import SALE, content


def said(made: Content) -> str:
    return "; ".join(map(str, problems(made)))


@pytest.mark.spec("P051")
def test_a_good_notice_has_no_problems() -> None:
    assert said(content(**SALE)) == ""
    assert said(content(silent=True, data={"a": "b"})) == ""


@pytest.mark.parametrize(
    ("wrong", "what"),
    [
        ({"title": ""}, "nothing to show"),
        ({"image": "http://a.example/x.png"}, "https"),
        ({"image": "https://"}, "https"),
        ({"link": "javascript:alert(1)"}, "javascript"),
        ({"link": "no-scheme"}, "scheme"),
        ({"link": "{traits.url}"}, "scheme"),
        ({"link": "https://a.example/a b"}, "space"),
        ({"link": "https://a.example/a\nb"}, "control"),
        ({"data": {"google.x": "1"}}, "google"),
        ({"data": {"aps": "1"}}, "Apple"),
        ({"data": {"a": 5}}, "all text"),
        ({"label": "a b"}, "1 to 50"),
        ({"title": 5}, "has to be text"),
        ({"badge": "5"}, "badge"),
        ({"android": {"notification": {"color": "{red}"}}}, "#12aBef"),
        ({"android": {"no_such": 1}}, "no_such"),
        ({"android": {"notification": []}}, "object"),
        ({"android": {"fcm_options": {"analytics_label": 5}}}, "1 to 50"),
        ({"apns": {"payload": {"aps": {"alert": 5}}}}, "alert"),
        ({"apns": {"payload": "x"}}, "object"),
        ({"apns": {"headers": {"apns-collapse-id": "x" * 65}}}, "64 bytes"),
        ({"apns": {"headers": "x"}}, "object"),
        ({"webpush": {"fcm_options": {"link": "shop://x"}}}, "https"),
        ({"webpush": {"headers": {"Topic": "a\r\nb"}}}, "header"),
    ],
)
@pytest.mark.spec("P051")
def test_what_fcm_would_refuse_is_named(wrong: dict[str, Any], what: str) -> None:
    assert what in said(msgspec.structs.replace(content(title="Hi"), **wrong))


@pytest.mark.spec("P051")
def test_a_silent_push_at_high_priority_is_refused_for_iphones() -> None:
    raw = {"headers": {"apns-priority": "10"}}
    (problem,) = problems(content(silent=True, apns=raw))
    assert (problem.platform, problem.field) == ("ios", "apns.headers")
    assert not problems(content(title="Hi", apns={**raw, "payload": {"aps": {"content-available": 1}}}))


@pytest.mark.parametrize("platform", PLATFORMS)
@pytest.mark.spec("P051")
def test_4096_bytes_fit_and_one_more_does_not(platform: Any) -> None:
    bare = content(title="Hi", data={"é": "x"}, collapse=False)
    room = 1
    while not problems(msgspec.structs.replace(bare, data={"é": "x" * room}), (platform,)):
        room += 1
    largest = msgspec.structs.replace(bare, data={"é": "x" * (room - 1)}).message(platform)
    assert fcm_rules.payload_size(largest, platform) == 4096
    (problem,) = problems(msgspec.structs.replace(bare, data={"é": "x" * room}), (platform,))
    assert "has 4,097 bytes" in problem.what


def test_a_size_counts_bytes_not_characters() -> None:
    assert not problems(content(title="Hi", body="é" * 2000))
    assert problems(content(title="Hi", body="é" * 2050))


TEXT = st.text(max_size=40) | st.just("") | st.sampled_from(["https://a.example/b", "shop://x", "a b", "{x}"])
ANY = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | TEXT, lambda each: st.lists(each, max_size=2)
)
ANDROID = st.fixed_dictionaries(
    {},
    optional={
        "priority": st.sampled_from(["HIGH", "normal", "x"]),
        "ttl": st.sampled_from(["5s", "0s", "2419200.5s", "1", "9999999s", "1.5s"]),
        "direct_boot_ok": st.booleans() | st.integers(0, 1),
        "data": st.dictionaries(st.sampled_from(["a", "from", "google.b"]), TEXT, max_size=2),
        "notification": st.fixed_dictionaries(
            {},
            optional={
                "color": st.sampled_from(["#12aBef", "red", ""]),
                "sticky": ANY,
                "body_loc_args": ANY,
                "notification_count": ANY,
                "visibility": st.sampled_from(["PUBLIC", "SECRET", "none"]),
                "event_time": st.sampled_from(["2026-01-31T09:00:00Z", "now"]),
                "vibrate_timings": st.lists(st.sampled_from(["1s", "0.2s", "x"]), max_size=2),
            },
        ),
    },
)
APNS = st.fixed_dictionaries(
    {},
    optional={
        "headers": st.dictionaries(
            st.sampled_from(["apns-priority", "apns-expiration", "apns-collapse-id"]),
            st.sampled_from(["5", "10", "0", "x" * 65]),
            max_size=3,
        ),
        "payload": st.dictionaries(st.sampled_from(["aps", "own"]), ANY | st.just({"badge": 1}), max_size=2),
    },
)
WEBPUSH = st.fixed_dictionaries(
    {},
    optional={
        "headers": st.dictionaries(
            st.sampled_from(["TTL", "Urgency", "Topic"]), st.sampled_from(["5", "high", "x"]), max_size=3
        ),
        "fcm_options": st.fixed_dictionaries({}, optional={"link": TEXT, "analytics_label": TEXT}),
        "data": st.dictionaries(st.sampled_from(["a", "from", "gcm.notification.b"]), TEXT, max_size=2),
    },
)
FIELDS: dict[str, st.SearchStrategy[Any]] = {
    "title": TEXT | st.just("x" * 5000),
    "body": TEXT | st.just('"' * 2050),
    "image": TEXT,
    "link": TEXT,
    "data": st.dictionaries(TEXT | st.sampled_from(["from", "a", "google.c"]), TEXT, max_size=3),
    "sound": TEXT,
    "badge": st.none() | st.integers(-1, 5),
    "silent": st.booleans(),
    "ttl_s": st.none() | st.floats(0, 2_419_200),
    "priority": st.none() | st.sampled_from(["high", "normal"]),
    "collapse": st.booleans() | TEXT,
    "label": TEXT,
    "android": ANDROID,
    "apns": APNS,
    "webpush": WEBPUSH,
}
CHANGES = [st.tuples(st.just(name), value) for name, value in FIELDS.items()]
CONTENTS = st.lists(st.one_of(CHANGES), max_size=3).map(
    lambda changes: msgspec.structs.replace(content(title="Hi"), **dict(changes))
)


@given(made=CONTENTS, platform=st.sampled_from(PLATFORMS), tag=TEXT)
@pytest.mark.spec("P051")
def test_what_has_no_problem_is_accepted_by_a_strict_fcm(made: Content, platform: Any, tag: str) -> None:
    if problems(made, (platform,), tag):
        return
    body = encoded(made.message(platform, tag, 1.76e9)).body(Address("token", "t1"))
    message = fcm_schema.parsed(body)["message"]
    fcm_rules.check(message, "token", "t1", platform, len(body))
