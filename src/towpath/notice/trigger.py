"""Trigger: an event that asks for a push, as the port `push` gets it."""

from __future__ import annotations

from msgspec import Struct

from ..message import Message
from .notice import Notice


class Trigger(Struct, frozen=True, kw_only=True):
    """A push that an event asks for: a `Notice` of its own, or the campaign of that code where it is None.

    Whoever sends it fills the notice for each device from `about(device, traits, message)`. With `identified`
    it is for people who have signed in, and skipped for a person whose id is only that of a device.
    """

    message: Message
    code: str
    notice: Notice | None = None
    identified: bool = False

    @property
    def id(self) -> str:
        """What a device is told only once, and what a repeat replaces there: this push of this event."""
        return f"{self.code}-{self.message.message_id}"
