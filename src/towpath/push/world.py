"""What the rules of the registry work on: what events concern, and the rows they find and leave."""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Iterable, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from ..device import INSTALLATION, Address, Deleted, Joined, Noted, Profiled, Registered, Seen, Unregistered
from ..identity import JUNK
from ..state.devices import DeviceRow, PersonRow, Told


class Terms(Struct, frozen=True):
    """The settings that the rules depend on. `traits` None keeps all; `device_ids` is no person's id."""

    per_person: int = 500
    traits: frozenset[str] | None = None
    junk: frozenset[str] = JUNK
    device_ids: str = INSTALLATION

    def names_device(self, name: str) -> bool:
        """Whether an id is one that only devices have."""
        return re.fullmatch(self.device_ids, name) is not None


class Concern(Struct):
    """Devices, addresses and persons that events name; `owned` are persons whose devices all matter.

    `proven` are persons of whom more than a copied key says that they are no device.
    """

    devices: set[str] = msgspec.field(default_factory=set)
    places: set[Address] = msgspec.field(default_factory=set)
    people: set[str] = msgspec.field(default_factory=set)
    owned: set[str] = msgspec.field(default_factory=set)
    proven: set[str] = msgspec.field(default_factory=set)
    owners: dict[str, set[str]] = msgspec.field(default_factory=dict)

    def add(self, event: Any) -> None:
        """Add what one event names."""
        match event:
            case Registered():
                self.devices.add(event.device)
                self.places.add(event.address)
                self.owners.setdefault(event.device, set()).add(event.person)
            case Unregistered():
                self.devices |= {event.device} - {""}
                self.places |= {event.address} if event.address and not event.device else set()
            case Seen():
                self.devices.add(event.device)
            case Profiled():
                self.people.add(event.person)
                self.proven |= {event.person} if proves(event) else set()
            case Joined():
                self.owned |= {event.old, event.new}
                self.people |= {event.old, event.new}
            case Deleted():
                self.owned.add(event.person)
                self.people.add(event.person)

    def gaining(self, rows: Mapping[str, DeviceRow]) -> set[str]:
        """The persons who may gain a device, and the devices themselves: they may be provisional persons."""
        return {
            name
            for device, persons in self.owners.items()
            for name in (device, *persons)
            if (row := rows.get(device)) is None or persons != {row.person} or row.status != "active"
        }


def proves(event: Registered | Profiled) -> bool:
    """Whether it says on more than a copied key's word that there is a person of this userId."""
    named = event.named if isinstance(event, Profiled) else event.person != event.device
    return named and event.word != "client"


def concerned(noted: Collection[Noted]) -> Concern:
    """What has to be read before these messages are applied."""
    found = Concern()
    for one in noted:
        for event in one.events:
            found.add(event)
    return found


class World:
    """The devices and people that a batch of messages concerns, as it leaves them.

    `counts` says how many active devices persons have who may gain one, `asked` whose rows are in `people`
    if there are any, `now` the time by the clock as it is. Afterwards `changes`, `gone`, `changed_people` and
    `gone_people` are to be written, what concerns the `untold` to be taken out of the outbox, and `told` to
    be put into it.
    """

    def __init__(
        self,
        terms: Terms,
        devices: Iterable[DeviceRow] = (),
        people: Iterable[PersonRow] = (),
        counts: Mapping[str, int] | None = None,
        asked: Collection[str] = (),
        now: float = math.inf,
    ) -> None:
        self.terms = terms
        self.now = now
        self.asked = asked
        self.devices = {row.id: row for row in devices}
        self.people = {row.person: row for row in people}
        self.told: list[Told] = []
        self.gone: set[str] = set()
        self.changed_people: set[str] = set()
        self.gone_people: set[str] = set()
        self.untold: set[str] = set()
        self._before = dict(self.devices)
        self._changed: dict[str, None] = {}
        self._counts = dict(counts or {})
        self._holders = {row.place: row.id for row in self.devices.values() if row.address is not None}

    @property
    def changes(self) -> list[tuple[DeviceRow | None, DeviceRow]]:
        """The devices to be written, each with what it was before; one that was deleted is new."""
        return [
            (None if name in self.gone else self._before.get(name), self.devices[name])
            for name in self._changed
            if name in self.devices
        ]

    def holder(self, place: Address | None) -> DeviceRow | None:
        """The device that has an address."""
        found = self._holders.get(place)
        return None if found is None else self.devices[found]

    def of(self, person: str) -> list[DeviceRow]:
        """A person's devices, removed ones too."""
        return [row for row in self.devices.values() if row.person == person]

    def count(self, person: str) -> int:
        """How many active devices a person has."""
        return self._counts.get(person, 0)

    def put(self, row: DeviceRow) -> None:
        """Change a device, or add one."""
        self._leave(row.id)
        self.devices[row.id] = row
        self._changed[row.id] = None
        if (place := row.place) is not None:
            self._holders[place] = row.id
        self._tally(row, 1)

    def delete(self, device: str) -> None:
        """Delete a device."""
        self._leave(device)
        del self.devices[device]
        self.gone.add(device)

    def put_person(self, row: PersonRow) -> None:
        """Change what is known of a person."""
        self.people[row.person] = row
        self.changed_people.add(row.person)
        self.gone_people.discard(row.person)

    def delete_person(self, person: str) -> None:
        """Forget what is known of a person."""
        if self.people.pop(person, None) is not None:
            self.changed_people.discard(person)
            self.gone_people.add(person)

    def untell(self, person: str) -> None:
        """Tell nothing more of a person, of what was not told yet either."""
        self.untold.add(person)
        self.told = [one for one in self.told if not one.concerns(person)]

    def _leave(self, device: str) -> None:
        before = self.devices.get(device)
        if before is not None:
            place = before.place
            if self._holders.get(place) == device:
                del self._holders[place]
            self._tally(before, -1)

    def _tally(self, row: DeviceRow, by: int) -> None:
        if row.person is not None and row.status == "active":
            self._counts[row.person] = self._counts.get(row.person, 0) + by
