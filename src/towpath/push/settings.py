"""The section `push:` of towpath.yaml: the device registry, and the campaigns that can be sent."""

from __future__ import annotations

import re
from datetime import time, timedelta
from typing import Annotated, Any, Literal, TypeAlias

from pydantic import (
    AfterValidator,
    BeforeValidator,
    Field,
    PlainSerializer,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from ..destination import Settings
from ..device import INSTALLATION, Platform
from ..mapping.expression import BadExpression
from ..mapping.filters import Filter
from ..message import Message
from ..notice import Notice, NoticeSettings, problems
from ..units import Duration, Share
from .hours import Quiet, zone

_TIME = re.compile(r"([01]\d|2[0-3]):([0-5]\d)").fullmatch


def _time_of_day(value: Any) -> Any:
    if isinstance(value, time):
        return value
    # YAML 1.1 writers leave 21:00 unquoted, which some readers take for a number of minutes or seconds.
    if isinstance(value, int) and not isinstance(value, bool) and 0 <= value < 24 * 60:
        return time(value // 60, value % 60)
    if match := _TIME(str(value).strip()):
        return time(int(match[1]), int(match[2]))
    raise ValueError('is not a time of day; write it as "21:00"')


TimeOfDay: TypeAlias = Annotated[
    time,
    BeforeValidator(_time_of_day),
    PlainSerializer(lambda moment: moment.strftime("%H:%M"), when_used="json"),
    WithJsonSchema({"type": "string", "pattern": r"^\d\d:\d\d$"}),
]


def _zone_name(value: str) -> str:
    if str(zone(value, "")) != value:
        raise ValueError("is no time zone; write one like Europe/Vienna")
    return value


def _pattern(value: str) -> str:
    try:
        re.compile(value)
    except re.error as error:
        raise ValueError(f"is no regular expression: {error}") from None
    return value


def _several(value: Any) -> Any:
    return [value] if isinstance(value, str) else value


class QuietHours(Settings):
    """A part of the day in which no push is sent; what is due then waits until it is over."""

    from_: TimeOfDay = Field(alias="from", description='When it begins by the device\'s time, like "21:00".')
    to: TimeOfDay = Field(description='When it ends, like "08:00"; earlier than `from` is the next day.')

    @model_validator(mode="after")
    def _some_time_is_left(self) -> QuietHours:
        if self.from_ == self.to:
            raise ValueError("from and to are the same: that would be always, or never")
        return self

    @property
    def quiet(self) -> Quiet:
        """The same for those who reckon with it."""
        return Quiet(self.from_, self.to)


class SegmentSettings(Settings):
    """A segment of Customer.io: who is in it when the campaign begins."""

    account: str = Field(
        description="The entry of `accounts` (type customerio, with its app_api_key) that has the segment."
    )
    id: int = Field(ge=1, description="The segment's number, as Customer.io shows it.")


class AudienceSettings(Settings):
    """Whose devices a campaign goes to; every device of a person, unless said otherwise."""

    persons: tuple[str, ...] | None = Field(
        default=None, min_length=1, max_length=100_000, description="Only these userIds."
    )
    segment: SegmentSettings | None = Field(default=None, description=str(SegmentSettings.__doc__))
    filter: str | None = Field(
        default=None,
        description="Only devices for which this CEL expression is true: `traits` are the person's, "
        "`context.device` has id, type, app, app_version, locale and timezone.",
    )
    platforms: Annotated[tuple[Platform, ...], BeforeValidator(_several)] | None = Field(
        default=None, min_length=1, description="Only devices of these types."
    )
    provisional: bool = Field(
        default=True, description="Whether devices are reached on which nobody has signed in."
    )
    devices: Literal["all", "last_used"] = Field(
        default="all", description="`last_used`: of each person, only the device that was used last."
    )

    @field_validator("filter")
    @classmethod
    def _readable(cls, text: str | None) -> str | None:
        if text is not None:
            try:
                Filter(text)
            except BadExpression as error:
                raise ValueError(str(error)) from None
        return text


class CampaignSettings(NoticeSettings):
    """A push that can be sent: by `towpath push send CODE`, or by the event `send_push` with its code."""

    audience: AudienceSettings = Field(default=AudienceSettings(), description=str(AudienceSettings.__doc__))
    quiet_hours: QuietHours | None = Field(
        default=None, description="Instead of the section's own `quiet_hours`."
    )
    drop_after: Duration | None = Field(
        default=None, description="What is not sent so long after it was due is dropped; unset waits."
    )


class PushSettings(Settings):
    """The registry of devices, and push campaigns through Firebase Cloud Messaging."""

    account: str | None = Field(
        default=None,
        description="The entry of `accounts` (type fcm) that campaigns are sent with; without one only the "
        "registry is kept.",
    )
    from_: Annotated[tuple[str, ...], BeforeValidator(_several)] | None = Field(
        default=None,
        alias="from",
        min_length=1,
        description="The sources whose messages tell of devices and people; all by default.",
    )
    stale_after: Duration = Field(
        default=timedelta(days=62), description="A token not reported for so long is removed."
    )
    refresh_after: Duration = Field(
        default=timedelta(days=45),
        description="Apps should report their token within this time; the share that does not is shown.",
    )
    quiet_for: Duration = Field(
        default=timedelta(days=3),
        description="Nothing is removed as stale when no token at all was reported for so long: then it is "
        "the intake that is out, not the devices.",
    )
    traits: Literal["all"] | tuple[str, ...] = Field(
        default="all",
        description="Which traits of people are kept for merge tags and filters: `all`, or a list of names.",
    )
    devices_per_person: int = Field(
        default=500, ge=1, le=10_000, description="Most devices one person can have."
    )
    device_ids: Annotated[str, AfterValidator(_pattern)] = Field(
        default=INSTALLATION,
        description="What the ids of devices look like, and those of people never do: a regular expression "
        "for all of it, by default for Firebase installation ids. When an app's key says that somebody has "
        "signed in, only the provisional person of such a device is merged into theirs.",
    )
    timezone: Annotated[str, BeforeValidator(str)] = Field(
        default="UTC", description="The time zone of devices that tell none."
    )
    quiet_hours: QuietHours | None = Field(default=None, description=str(QuietHours.__doc__))
    mismatches: Share = Field(
        default=0.1,
        description="A campaign stops when more than this share of what it sent is refused as another "
        "project's address; nothing is removed.",
    )
    campaigns: dict[str, CampaignSettings] = Field(
        default={}, description="Pushes that can be sent, by their code."
    )

    @field_validator("timezone")
    @classmethod
    def _known(cls, name: str) -> str:
        return _zone_name(name)

    @field_validator("campaigns")
    @classmethod
    def _sendable(cls, campaigns: dict[str, CampaignSettings]) -> dict[str, CampaignSettings]:
        for code, campaign in campaigns.items():
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.~%-]{0,49}", code):
                raise ValueError(f"{code!r} cannot be a code; use up to 50 letters, digits and . _ ~ -")
            notice = Notice(campaign, code)
            if notice.static and (wrong := problems(notice.fill(Message()))):
                raise ValueError(f"{code}: FCM would refuse it: {'; '.join(map(str, wrong[:3]))}")
        return campaigns

    def quiet(self, campaign: CampaignSettings | None) -> Quiet | None:
        """The quiet hours of a campaign: its own, else the section's."""
        hours = (campaign.quiet_hours if campaign is not None else None) or self.quiet_hours
        return None if hours is None else hours.quiet
