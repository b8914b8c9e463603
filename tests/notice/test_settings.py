"""What people write of a notice: refused where FCM would refuse it, with a sentence that helps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from pydantic import ValidationError

from towpath.notice import NoticeSettings

from .samples import SALE


def test_every_field_is_described_here_and_in_the_docs() -> None:
    page = (Path(__file__).parent.parent.parent / "docs" / "push-notices.md").read_text("utf-8")
    table = page.partition("## Settings")[2].partition("Where a setting goes")[0]
    for name, field in NoticeSettings.model_fields.items():
        assert field.description
        assert f"`{name}`" in table


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"title": ""}, "needs a title or a body"),
        ({"title": "{first_name}"}, r"a person's trait is \{traits.first_name\}"),
        ({"title": "{}"}, "begins with a word"),
        ({"title": "{traits.}"}, "breaks off"),
        ({"title": "{ traits.a"}, "stands alone"),
        ({"title": 5}, "string"),
        ({"image": "http://cdn.example.com/a.png"}, "https"),
        ({"image": "{{a}}"}, "scheme"),
        ({"link": "shop.example.com"}, "scheme"),
        ({"link": "JavaScript:alert(1)"}, "javascript"),
        ({"link": "data:text/html,x"}, "data:"),
        ({"link": "https://{traits.host}/x"}, "host"),
        ({"link": "https://shop.example.com{traits.path}"}, "host"),
        ({"link": "{traits.base}/x"}, "scheme"),
        ({"link": "https://a.example", "data": {"link": "x"}}, "link already"),
        ({"data": {"from": "x"}}, "'from'"),
        ({"data": {"message_type": "x"}}, "message_type"),
        ({"data": {"google.a": "x"}}, "google"),
        ({"data": {"gcm.notification.a": "x"}}, "gcm"),
        ({"data": {"": "x"}}, "empty key"),
        ({"data": {"n": 5}}, "string"),
        ({"ttl": "29d"}, "28d"),
        ({"ttl": "tomorrow"}, "duration"),
        ({"priority": "urgent"}, "high"),
        ({"label": "summer sale"}, "1 to 50"),
        ({"label": "x" * 51}, "1 to 50"),
        ({"badge": -1}, "0 or more"),
        ({"badge": "many"}, "0 or more"),
        ({"title": "x" * 4097}, "at most 4096"),
        ({"data": {"a": "x" * 4097}}, "at most 4096"),
        ({"silent": True}, "silent push shows nothing"),
        ({"android": {"notificaton": {}}}, 'did you mean "notification"'),
        ({"android": {"notification": {"colour": "#112233"}}}, 'notification: .*did you mean "color"'),
        ({"android": {"notification": {"color": "red"}}}, "#12aBef"),
        ({"android": {"notification": {"title": 5}}}, "has to be text"),
        ({"android": {"ttl": "2419201s"}}, "four weeks"),
        ({"android": {"ttl": 60}}, "seconds with an s"),
        ({"android": {"collapseKey": "a", "collapse_key": "b"}}, "twice"),
        ({"android": {"notification": 5}}, "has to be an object"),
        ({"android": {"data": {"from": "x"}}}, "'from'"),
        ({"apns": {"headers": {"apns-collapse-id": "x" * 65}}}, "64 bytes"),
        ({"apns": {"headers": {"apns-priority": "7"}}}, "apns-priority"),
        ({"apns": {"headers": {"apns-expiration": "soon"}}}, "Unix"),
        ({"apns": {"headers": {"a\nb": "x"}}}, "header"),
        ({"apns": {"headers": {"apns-topic": "a\r\nb"}}}, "header"),
        ({"apns": {"payload": {"aps": 5}}}, "aps has to be"),
        ({"apns": {"payload": {"aps": {"alert": 5}}}}, "alert"),
        ({"apns": {"payload": {"aps": {"badge": "5"}}}}, "badge"),
        ({"webpush": {"fcm_options": {"link": "http://a.example"}}}, "https"),
        ({"webpush": {"headers": {"TTL": "soon"}}}, "TTL"),
        ({"webpush": {"headers": {"Urgency": "huge"}}}, "Urgency"),
        ({"webpush": {"notification": {"title": 5}}}, "title has to be text"),
        ({"webpush": {"fcm_options": {"analytics_label": "a b"}}}, "1 to 50"),
        ({"no_such": 1}, "Extra"),
    ],
)
@pytest.mark.spec("P051")
def test_what_fcm_would_refuse_is_refused_when_the_file_is_read(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        NoticeSettings.model_validate({"title": "Hi", **wrong})


@pytest.mark.parametrize(
    "good",
    [
        SALE,
        {"body": "Only a body", "badge": "7"},
        {"silent": True, "data": {"sync": "1"}},
        {"silent": True},
        {"title": "Hi", "link": "shop://orders/{properties.id}"},
        {"title": "Hi", "link": "{properties.url|https://shop.example.com}"},
        {"title": "Hi", "link": "https://shop.example.com/{properties.id}?u={userId}"},
        {"title": "Hi", "image": "{properties.image}"},
        {"title": "Hi", "badge": "{traits.unread|0}", "ttl": "28d", "label": "a.b-c_d~e%f"},
        {
            "title": "Hi",
            "android": {"ttl": "3.5s", "priority": "high", "notification": {"color": "{traits.c}"}},
        },
        {"title": "Hi", "android": {"notification": {"tag": None, "vibrateTimings": ["0.2s"]}}},
        {"android": {"notification": {"title_loc_key": "hello", "title_loc_args": ["{traits.name|you}"]}}},
        {"apns": {"payload": {"aps": {"alert": {"title-loc-key": "hello"}}, "own": {"deep": [1, None]}}}},
        {"title": "Hi", "collapse": False, "webpush": {"notification": {"actions": [{"action": "a"}]}}},
    ],
)
def test_what_fcm_takes_is_taken(good: dict[str, Any]) -> None:
    assert NoticeSettings.model_validate(good).model_fields_set == good.keys()


def test_googles_other_spelling_becomes_the_one_that_is_used() -> None:
    made = NoticeSettings.model_validate(
        {
            "title": "Hi",
            "android": {"collapseKey": "a", "notification": {"channelId": "b", "titleLocKey": "c"}},
        }
    )
    assert made.android == {"collapse_key": "a", "notification": {"channel_id": "b", "title_loc_key": "c"}}


def test_settings_can_be_kept_as_json_and_read_again() -> None:
    for settings in (SALE, {"title": "Hi", "ttl": 0}, {"silent": True}):
        made = NoticeSettings.model_validate(settings)
        assert NoticeSettings.model_validate_json(made.model_dump_json()) == made
