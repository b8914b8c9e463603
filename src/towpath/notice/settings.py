"""Settings of a push notice: what people write in the file, checked when it is read."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from datetime import timedelta
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import AfterValidator, Field, field_validator, model_validator

from ..destination import Settings
from ..mapping.paths import BadPath, Draft
from ..mapping.template import Template
from ..message import Message
from ..units import Duration
from . import fields
from .fields import LARGEST_BYTES
from .links import fault_of_link

LONGEST_TTL = timedelta(seconds=fields.LONGEST_TTL_S)
Priority: TypeAlias = Literal["high", "normal"]
SHOWN = ("title", "body", "image", "sound", "channel", "badge")
"""What belongs to a notification that is shown."""


def _readable(value: Any) -> Any:
    """Refuse templates that cannot be read."""
    try:
        Template(value)
    except BadPath as error:
        hint = error.hint
        if str(error).startswith("no message has"):
            hint += "; a person's trait is {traits.first_name}, a field of the event {properties.total}"
        raise ValueError(f"{error}{f' ({hint})' if hint else ''}") from None
    return value


Templated: TypeAlias = Annotated[str, Field(max_length=LARGEST_BYTES), AfterValidator(_readable)]


class NoticeSettings(Settings):
    """What a push says. Text is a template: `{traits.first_name|there}`."""

    title: Templated = Field(default="", description="The first line, in bold.")
    body: Templated = Field(default="", description="The text.")
    image: Templated = Field(default="", description="https address of a picture, of at most 1 MB.")
    link: Templated = Field(
        default="",
        description="Where a tap leads: `https://…` or an app's own `shop://…`. Apps find it as `link` in "
        "the data; browsers open it when it is https.",
    )
    data: dict[str, Templated] = Field(
        default={}, description="What the app gets beside the text; every value is sent as text."
    )
    sound: Templated = Field(
        default="", description="`default`, or a sound of the app; without it iOS is silent."
    )
    channel: Templated = Field(default="", description="Android's notification channel.")
    badge: int | Templated | None = Field(
        default=None, description="The number on the app's icon; `0` takes it away (iOS)."
    )
    silent: bool = Field(
        default=False, description="Show nothing and hand `data` to the app, at low priority on iOS."
    )
    ttl: Duration | None = Field(
        default=None,
        description="How long to try to reach a device that is off, at most 28d (the default); "
        "`0` is now or never.",
    )
    priority: Priority | None = Field(
        default=None,
        description="`high` wakes a sleeping device, `normal` spares its battery; by default FCM decides.",
    )
    collapse: bool | Templated = Field(
        default=True,
        description="A push that has to be repeated replaces the one still shown, so nobody sees two. "
        "With a text like `order-{properties.order_id}`, each push replaces the one before with that text.",
    )
    label: str | None = Field(
        default=None,
        description="Label in Firebase's statistics; by default the campaign's code or the event's name.",
    )
    android: dict[str, Any] = Field(
        default={}, description="Raw `AndroidConfig` of FCM, laid over all of the above."
    )
    apns: dict[str, Any] = Field(
        default={}, description="Raw `ApnsConfig` of FCM (headers, payload), laid over all of the above."
    )
    webpush: dict[str, Any] = Field(
        default={}, description="Raw `WebpushConfig` of FCM, laid over all of the above."
    )

    @field_validator("badge", mode="after")
    @classmethod
    def _counting(cls, badge: int | str | None) -> int | str | None:
        constant = constants(badge)
        number = (
            int(constant) if isinstance(constant, str) and re.fullmatch(r"[0-9]{1,9}", constant) else constant
        )
        if number is not None and (fault := fields.whole(number)):
            raise ValueError(f"badge {fault}")
        return badge

    @field_validator("ttl")
    @classmethod
    def _not_too_long(cls, ttl: timedelta | None) -> timedelta | None:
        if ttl is not None and not timedelta(0) <= ttl <= LONGEST_TTL:
            raise ValueError("FCM keeps a push for at most 28d")
        return ttl

    @field_validator("label")
    @classmethod
    def _countable(cls, label: str | None) -> str | None:
        if label is not None and (fault := fields.label(label)):
            raise ValueError(f"label {fault}")
        return label

    @field_validator("image", "link")
    @classmethod
    def _leading_somewhere(cls, address: str, info: Any) -> str:
        if not address:
            return address
        if fault := fault_of_link(address):
            raise ValueError(fault)
        constant = constants(address)
        if info.field_name == "image" and constant is not None and (fault := fields.https(constant)):
            raise ValueError(fault)
        return address

    @field_validator("android", "apns", "webpush")
    @classmethod
    def _known(cls, block: dict[str, Any], info: Any) -> dict[str, Any]:
        table = fields.MESSAGE[info.field_name]
        assert isinstance(table, Mapping)  # noqa: S101 - by the table
        respelled = fields.respelled(_readable(block), table)
        for place, fault in fields.faults(constants(respelled), table):
            raise ValueError(f"{place}: {fault}")
        return respelled

    @field_validator("data")
    @classmethod
    def _unreserved(cls, data: dict[str, str]) -> dict[str, str]:
        if fault := fields.data(data):
            raise ValueError(f"data {fault}")
        return data

    @model_validator(mode="after")
    def _of_one_piece(self) -> NoticeSettings:
        if self.link and "link" in self.data:
            raise ValueError(
                "the link is sent as link in the data, which has a link already; use one of the two"
            )
        if wrong := _half(self):
            raise ValueError(wrong)
        return self


def _half(notice: NoticeSettings) -> str:
    """What makes a notice neither one that is shown nor a silent one."""
    given = [name for name in SHOWN if getattr(notice, name) not in ("", None)]
    if notice.silent and given:
        return f"a silent push shows nothing, so it cannot have {given[0]}"
    raw = any(_worded(block) for block in (notice.android, notice.apns, notice.webpush))
    if not notice.silent and not (notice.title or notice.body or raw):
        return "needs a title or a body; for a push that shows nothing, set silent: true"
    return ""


def _worded(block: Mapping[str, Any]) -> bool:
    """Whether a raw block brings words of its own."""
    notification = block.get("notification") or {}
    payload = block.get("payload") or {}
    aps = payload.get("aps") if isinstance(payload, dict) else None
    words = {"title", "body", "title_loc_key", "body_loc_key"}
    return bool(words & set(notification)) or (isinstance(aps, dict) and "alert" in aps)


def constants(value: Any) -> Any:
    """What of a value is the same for every message; nulls, which take a field away, are left out."""
    if isinstance(value, dict):
        return dict(_held(value))
    if isinstance(value, list | tuple):
        return list(value) if not Template(list(value)).paths else None
    made = Template(value)
    return None if made.paths else made.fill(_NOTHING)


def _held(value: Mapping[str, Any]) -> Iterator[tuple[str, Any]]:
    for name, each in value.items():
        constant = constants(each)
        if constant is not None:
            yield name, constant


_NOTHING = Draft(Message())
