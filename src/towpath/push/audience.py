"""Whom a campaign goes to: which of the registry's devices it takes, and which cannot be reached."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from ..device import Device
from ..mapping.filters import Filter
from ..notice import about
from .settings import AudienceSettings

CONSENT = "consent"
OTHER_PROJECT = "disabled"


class Person(Struct, frozen=True):
    """What is known of a person for pushes; `consent` None is not said. `last_used` names a device."""

    traits: Mapping[str, Any] = {}
    consent: bool | None = None
    last_used: str = ""


NOBODY = Person()


class Audience:
    """Decides device by device. `persons` are those it is limited to, in order; None where it is not."""

    def __init__(self, settings: AudienceSettings) -> None:
        self.settings = settings
        self._filter = None if settings.filter is None else Filter(settings.filter)
        self._platforms = None if settings.platforms is None else frozenset(settings.platforms)
        self.persons = None if settings.persons is None else sorted(set(settings.persons))
        self._persons = frozenset(self.persons or ())

    @property
    def by_last_use(self) -> bool:
        """Whether it has to be known which device a person used last."""
        return self.settings.devices == "last_used"

    def takes(self, device: Device, person: Person) -> bool:
        """Whether a campaign is meant for a device."""
        settings = self.settings
        if self._platforms is not None and device.platform not in self._platforms:
            return False
        if self._persons and device.person not in self._persons:
            return False
        if device.provisional and not settings.provisional:
            return False
        if self.by_last_use and person.last_used not in ("", device.id):
            return False
        return self._filter is None or self._filter.verdict(about(device, person.traits)) is None

    def __repr__(self) -> str:
        return f"Audience({self.settings!r})"


def unreachable(device: Device, person: Person) -> str:
    """Why a device that a campaign is meant for gets nothing, as a word; empty when it does."""
    if device.status == "disabled":
        return OTHER_PROJECT
    if device.status != "active" or device.address is None:
        return "removed"
    return CONSENT if person.consent is False else ""
