"""Notices and people that the tests of notices have in common."""

from __future__ import annotations

from typing import Any

from towpath.device import Device, Traits
from towpath.message import Message
from towpath.notice import Content, Notice, NoticeSettings

SALE: dict[str, Any] = {
    "title": "Summer sale",
    "body": "20 % off all tents",
    "image": "https://cdn.example.com/tent.png",
    "link": "https://shop.example.com/sale",
    "data": {"kind": "sale"},
    "sound": "default",
    "channel": "offers",
    "badge": 2,
    "ttl": "4h",
    "priority": "high",
}
PHONE = Device(
    id="d1",
    person="u1",
    platform="android",
    traits=Traits(app="shop", app_version="3.1", locale="de-AT", timezone="Europe/Vienna"),
)


def notice(code: str = "summer", **settings: Any) -> Notice:
    """Make a notice."""
    return Notice(NoticeSettings.model_validate(settings), code)


def content(code: str = "summer", **settings: Any) -> Content:
    """Make a content of constants."""
    return notice(code, **settings).fill(Message())


def person(*, properties: Any = None, context: Any = None, **traits: Any) -> Message:
    """Make the message of a person."""
    return Message(
        type="track",
        message_id="m1",
        user_id="u1",
        event="Bought",
        properties=properties or {},
        traits=traits,
        context=context or {},
    )
