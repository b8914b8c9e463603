"""What a push says to one person, and the FCM messages it becomes on each platform."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from ..device import Platform
from .fields import LONGEST_COLLAPSE_BYTES

PLATFORMS: tuple[Platform, ...] = ("ios", "android", "web")
_FIT_FOR_HEADERS = re.compile(r"[!-~]+").fullmatch


class Content(Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A notice filled for one person. Times are in seconds; `collapse` as in the settings.

    `android`, `apns` and `webpush` are raw blocks of FCM's own fields, laid over what the rest makes.
    """

    code: str
    title: str = ""
    body: str = ""
    image: str = ""
    link: str = ""
    data: dict[str, str] = {}
    sound: str = ""
    channel: str = ""
    badge: int | None = None
    silent: bool = False
    ttl_s: float | None = None
    priority: str | None = None
    collapse: bool | str = True
    label: str = ""
    android: dict[str, Any] = {}
    apns: dict[str, Any] = {}
    webpush: dict[str, Any] = {}

    def message(self, platform: Platform | None, collapse_id: str = "", now: float = 0.0) -> dict[str, Any]:
        """The `message` of FCM HTTP v1 for one platform, without its target; for all where it is not known.

        `collapse_id` names what a repeat replaces, the campaign's code or the event's id; `now` is the Unix
        time of sending, from which Apple's expiry counts.
        """
        found: dict[str, Any] = {}
        if notification := self._notification():
            found["notification"] = notification
        if data := {**self.data, **_given(link=self.link)}:
            found["data"] = data
        tag = self.tag(collapse_id)
        for each in PLATFORMS if platform is None else (platform,):
            if each == "ios":
                block = ("apns", merged(self._apns(tag, now), self.apns))
            elif each == "android":
                block = ("android", merged(self._android(tag), self.android))
            else:
                block = ("webpush", merged(self._webpush(tag), self.webpush))
            if block[1]:
                found[block[0]] = block[1]
        if self.label:
            found["fcm_options"] = {"analytics_label": self.label}
        return found

    def tag(self, collapse_id: str) -> str:
        """The name under which a later push replaces this one: at most 64 bytes of ASCII; empty for none."""
        name = self.collapse if isinstance(self.collapse, str) else collapse_id if self.collapse else ""
        if not name or (len(name) <= LONGEST_COLLAPSE_BYTES and _FIT_FOR_HEADERS(name)):
            return name
        return hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()

    def _notification(self) -> dict[str, Any]:
        return {} if self.silent else _given(title=self.title, body=self.body, image=self.image)

    def _android(self, tag: str) -> dict[str, Any]:
        """FCM's `tag`, not `collapse_key`, of which FCM keeps four and lets through one in three minutes."""
        found = _given(priority=(self.priority or "").upper())
        if self.ttl_s is not None:
            found["ttl"] = f"{self.ttl_s:.9f}".rstrip("0").rstrip(".") + "s"
        if not self.silent and (shown := _given(sound=self.sound, channel_id=self.channel, tag=tag)):
            found["notification"] = shown
        return found

    def _apns(self, tag: str, now: float) -> dict[str, Any]:
        headers, aps, options = _given(**{"apns-collapse-id": tag}), dict[str, Any](), dict[str, Any]()
        if self.priority is not None:
            headers["apns-priority"] = "10" if self.priority == "high" else "5"
        if self.ttl_s is not None:
            headers["apns-expiration"] = str(int(now + self.ttl_s)) if self.ttl_s else "0"
        if self.silent:
            # Apple refuses a push in the background at any other priority.
            headers |= {"apns-priority": "5", "apns-push-type": "background"}
            aps["content-available"] = 1
        if self.image:
            options["image"], aps["mutable-content"] = self.image, 1
        if self.badge is not None:
            aps["badge"] = self.badge
        aps |= _given(sound=self.sound)
        return _given(headers=headers, payload=_given(aps=aps), fcm_options=options)

    def _webpush(self, tag: str) -> dict[str, Any]:
        headers = dict[str, str]()
        if self.ttl_s is not None:
            headers["TTL"] = str(int(self.ttl_s))
        if self.priority is not None:
            headers["Urgency"] = self.priority
        notification = {} if self.silent else _given(tag=tag)
        options = _given(link=self.link if self.link.lower().startswith("https://") else "")
        return _given(headers=headers, notification=notification, fcm_options=options)


def merged(made: dict[str, Any], raw: Mapping[str, Any]) -> dict[str, Any]:
    """A block with another laid over it, object by object; null takes away what was made."""
    if not raw:
        return made
    found = dict(made)
    for name, value in raw.items():
        if value is None:
            found.pop(name, None)
        elif isinstance(value, Mapping):
            below = found.get(name)
            found[name] = merged(below if isinstance(below, dict) else {}, value)
        else:
            found[name] = value
    return found


def _given(**fields: Any) -> dict[str, Any]:
    """The fields that hold something."""
    return {name: value for name, value in fields.items() if value}
