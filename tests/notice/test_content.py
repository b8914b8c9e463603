"""The FCM message of each platform: where every setting goes."""

from __future__ import annotations

from typing import Any

import pytest

from towpath.notice import PLATFORMS, preview
from towpath.notice.content import merged

from .samples import SALE, content

NOW = 1_760_000_000.0


@pytest.mark.spec("P001", "P051", "P057")
def test_a_notice_on_android() -> None:
    assert content(**SALE).message("android", "summer", NOW) == {
        "notification": {
            "title": "Summer sale",
            "body": "20 % off all tents",
            "image": "https://cdn.example.com/tent.png",
        },
        "data": {"kind": "sale", "link": "https://shop.example.com/sale"},
        "android": {
            "priority": "HIGH",
            "ttl": "14400s",
            "notification": {"sound": "default", "channel_id": "offers", "tag": "summer"},
        },
        "fcm_options": {"analytics_label": "summer"},
    }


@pytest.mark.spec("P001", "P051", "P057")
def test_a_notice_on_ios() -> None:
    found = content(**SALE).message("ios", "summer", NOW)
    assert found["data"] == {"kind": "sale", "link": "https://shop.example.com/sale"}
    assert found["fcm_options"] == {"analytics_label": "summer"}
    assert found["apns"] == {
        "headers": {
            "apns-collapse-id": "summer",
            "apns-priority": "10",
            "apns-expiration": str(int(NOW) + 14_400),
        },
        "payload": {"aps": {"mutable-content": 1, "badge": 2, "sound": "default"}},
        "fcm_options": {"image": "https://cdn.example.com/tent.png"},
    }
    assert "android" not in found
    assert "webpush" not in found


@pytest.mark.spec("P001", "P051", "P057")
def test_a_notice_in_a_browser() -> None:
    assert content(**SALE).message("web", "summer", NOW)["webpush"] == {
        "headers": {"TTL": "14400", "Urgency": "high"},
        "notification": {"tag": "summer"},
        "fcm_options": {"link": "https://shop.example.com/sale"},
    }


def test_where_the_platform_is_not_known_every_block_is_sent() -> None:
    whole = content(**SALE).message(None, "summer", NOW)
    for platform, block in (("ios", "apns"), ("android", "android"), ("web", "webpush")):
        assert whole[block] == content(**SALE).message(platform, "summer", NOW)[block]  # type: ignore[arg-type]


@pytest.mark.spec("P051")
def test_a_bare_notice_has_nothing_but_its_text_its_label_and_its_name() -> None:
    bare = content(title="Hi", collapse=False)
    for platform in PLATFORMS:
        expected = {"notification": {"title": "Hi"}, "fcm_options": {"analytics_label": "summer"}}
        assert bare.message(platform, "summer", NOW) == expected


@pytest.mark.spec("P051")
def test_a_silent_push_shows_nothing_and_spares_iphones() -> None:
    silent = content(silent=True, data={"sync": "1"}, priority="high")
    assert silent.message("ios", "c", NOW) == {
        "data": {"sync": "1"},
        "apns": {
            "headers": {"apns-collapse-id": "c", "apns-priority": "5", "apns-push-type": "background"},
            "payload": {"aps": {"content-available": 1}},
        },
        "fcm_options": {"analytics_label": "summer"},
    }
    assert silent.message("android", "c", NOW)["android"] == {"priority": "HIGH"}
    assert silent.message("web", "c", NOW)["webpush"] == {"headers": {"Urgency": "high"}}
    assert all("notification" not in silent.message(platform, "c", NOW) for platform in PLATFORMS)


@pytest.mark.parametrize(
    ("ttl", "android", "ios", "web"),
    [
        ("0", "0s", "0", "0"),
        ("3s", "3s", str(int(NOW) + 3), "3"),
        ("1500ms", "1.5s", str(int(NOW) + 1), "1"),
        ("28d", "2419200s", str(int(NOW) + 2_419_200), "2419200"),
    ],
)
@pytest.mark.spec("P051")
def test_the_life_of_a_push_is_told_as_each_platform_wants_it(
    ttl: str, android: str, ios: str, web: str
) -> None:
    made = content(title="Hi", ttl=ttl)
    assert made.message("android", "c", NOW)["android"]["ttl"] == android
    assert made.message("ios", "c", NOW)["apns"]["headers"]["apns-expiration"] == ios
    assert made.message("web", "c", NOW)["webpush"]["headers"]["TTL"] == web


@pytest.mark.parametrize("link", ["shop://orders/5", "http://shop.example.com/a"])
@pytest.mark.spec("P051")
def test_an_apps_own_link_is_not_given_to_browsers_which_take_only_https(link: str) -> None:
    made = content(title="Hi", link=link)
    assert "fcm_options" not in made.message("web", "c", NOW)["webpush"]
    assert all(made.message(platform, "c", NOW)["data"] == {"link": link} for platform in PLATFORMS)


@pytest.mark.spec("P055")
def test_a_repeat_replaces_on_every_platform_and_never_by_collapse_key() -> None:
    made = content(title="Hi")
    assert made.message("android", "c-7", NOW)["android"] == {"notification": {"tag": "c-7"}}
    assert made.message("ios", "c-7", NOW)["apns"] == {"headers": {"apns-collapse-id": "c-7"}}
    assert made.message("web", "c-7", NOW)["webpush"] == {"notification": {"tag": "c-7"}}


@pytest.mark.parametrize("name", ["x" * 65, "é" * 40, "order 5", "a\nb", "\ud800"])
@pytest.mark.spec("P055")
def test_a_name_that_no_header_can_carry_is_replaced_by_its_hash(name: str) -> None:
    tag = content(title="Hi").tag(name)
    assert len(tag) == 64
    assert tag.isalnum()
    assert tag == content(title="Hi").tag(name)
    assert tag != content(title="Hi").tag(name + "x")


def test_what_replaces_what_may_be_named() -> None:
    assert content(title="Hi", collapse="orders").tag("m1") == "orders"
    assert content(title="Hi", collapse="").tag("m1") == ""
    assert content(title="Hi", collapse=True).tag("") == ""


@pytest.mark.spec("P051")
def test_raw_blocks_are_laid_over_all_the_rest() -> None:
    raw: dict[str, Any] = {
        "android": {"priority": "NORMAL", "notification": {"tag": None, "color": "#112233"}},
        "apns": {"payload": {"aps": {"sound": {"name": "ding", "volume": 0.5}}, "own": 1}},
        "webpush": {"headers": {"Topic": "x"}},
    }
    made = content(**{**SALE, **raw})
    android = made.message("android", "c", NOW)["android"]
    assert android["priority"] == "NORMAL"
    assert android["notification"] == {"sound": "default", "channel_id": "offers", "color": "#112233"}
    payload = made.message("ios", "c", NOW)["apns"]["payload"]
    assert payload["aps"] == {"mutable-content": 1, "badge": 2, "sound": {"name": "ding", "volume": 0.5}}
    assert payload["own"] == 1
    headers = made.message("web", "c", NOW)["webpush"]["headers"]
    assert headers == {"TTL": "14400", "Urgency": "high", "Topic": "x"}


def test_laying_over_leaves_both_as_they_were() -> None:
    made, raw = {"a": {"b": 1, "c": 2}, "d": 3}, {"a": {"b": None, "e": {"f": None}}, "d": {"g": 1}}
    assert merged(made, raw) == {"a": {"c": 2, "e": {}}, "d": {"g": 1}}
    assert made == {"a": {"b": 1, "c": 2}, "d": 3}
    assert raw["a"] == {"b": None, "e": {"f": None}}


@pytest.mark.parametrize(
    ("code", "label"),
    [("summer-26", "summer-26"), ("Order Shipped!", "Order-Shipped-"), ("é" * 3, "-"), ("x" * 60, "x" * 50)],
)
@pytest.mark.spec("P057")
def test_the_label_is_the_code_as_far_as_labels_go(code: str, label: str) -> None:
    assert content(code, title="Hi").label == label
    assert content(code, title="Hi", label="mine").label == "mine"


@pytest.mark.spec("P051")
def test_a_preview_shows_each_platform_its_request_and_size() -> None:
    shown = preview(content(title="Grüß", body="Gott", link="shop://a"), device="TOKEN", now=NOW)
    assert [one.platform for one in shown] == ["ios", "android", "web"]
    android = shown[1]
    assert android.json == {
        "message": {
            "token": "TOKEN",
            "notification": {"title": "Grüß", "body": "Gott"},
            "data": {"link": "shop://a"},
            "android": {"notification": {"tag": "summer"}},
            "fcm_options": {"analytics_label": "summer"},
        }
    }
    assert android.size_bytes == len("titlebodylink" + "GottGr" + "shop://a" + "tagsummer") + 4
    assert all(not one.problems for one in shown)
