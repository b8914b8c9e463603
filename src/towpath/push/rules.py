"""The rules of the registry: what events make of devices and people, and what is told of it (P040)."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from typing import Any, TypeAlias

import msgspec
from msgspec import Struct
from msgspec.structs import replace

from ..device import (
    Address,
    Deleted,
    Joined,
    Noted,
    Profiled,
    Registered,
    Seen,
    Traits,
    Unregistered,
)
from ..identity import JUNK
from ..state.devices import DeviceRow, PersonRow, Told
from . import outbox

DAY_S = 86400.0
SEEN_S = 3600.0
"""A device in use is noted once an hour: which minute it was is nothing anybody asks for."""
TRY_AGAIN_S = 30 * DAY_S
"""When an address of another project that is reported again is tried again."""
TRAITS_BYTES = 32 * 1024
NOT_TOLD = Traits()

Binding: TypeAlias = tuple[str, str]


class Terms(Struct, frozen=True):
    """The settings that the rules depend on. `traits` None keeps all."""

    per_person: int = 500
    traits: frozenset[str] | None = None
    junk: frozenset[str] = JUNK


class Concern(Struct):
    """Devices, addresses and persons that events name; `owned` are persons whose devices all matter."""

    devices: set[str] = msgspec.field(default_factory=set)
    places: set[Address] = msgspec.field(default_factory=set)
    people: set[str] = msgspec.field(default_factory=set)
    owned: set[str] = msgspec.field(default_factory=set)
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


def concerned(noted: Collection[Noted]) -> Concern:
    """What has to be read before these messages are applied."""
    found = Concern()
    for one in noted:
        for event in one.events:
            found.add(event)
    return found


class World:
    """The devices and people that a batch of messages concerns, as it leaves them.

    `counts` says how many active devices persons have who may gain one. Afterwards `changes`, `gone`,
    `changed_people` and `gone_people` are to be written, what concerns the `untold` to be taken out of the
    outbox, and `told` to be put into it.
    """

    def __init__(
        self,
        terms: Terms,
        devices: Iterable[DeviceRow] = (),
        people: Iterable[PersonRow] = (),
        counts: Mapping[str, int] | None = None,
    ) -> None:
        self.terms = terms
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


class _Turn:
    """One message's turn."""

    def __init__(self, world: World, cause: str, received_at: float = 0.0) -> None:
        self.world = world
        self.cause = cause
        self.received_at = received_at
        self.reports: list[str] = []

    def order(self, at: float) -> tuple[float, float]:
        return at, self.received_at

    def change(
        self, at: float, *pairs: tuple[DeviceRow | None, DeviceRow], alias: str = "", joined: bool = False
    ) -> None:
        """Put devices as they are now, and tell whom it concerns. `joined`: the old owner is the new one."""
        told = self.world.told
        bound = {_binding(after) for _, after in pairs}
        for before, _ in pairs:
            gone = None if before is None or joined else _binding(before)
            if before is not None and gone is not None and gone not in bound:
                told.append(outbox.removed(self.cause, before, at))
        if alias:
            told.append(outbox.aliased(self.cause, alias, pairs[-1][1], at))
        for before, after in pairs:
            if before is not None and not joined and _has_moved(before, after):
                told.append(outbox.moved(self.cause, before, after, at))
            self.world.put(self._announced(before, after, at))

    def _announced(self, before: DeviceRow | None, after: DeviceRow, at: float) -> DeviceRow:
        """The device, told of where it is new there, or a day has passed since it was told of (P043)."""
        binding = _binding(after)
        if binding is None:
            return after
        known = before is not None and _binding(before) == binding
        if known and after.registered_at - after.told_at <= DAY_S:
            return after
        self.world.told.append(outbox.created(self.cause, after, at))
        return replace(after, told_at=after.registered_at)


def apply(world: World, noted: Noted) -> tuple[str, ...]:
    """Apply one message's events, in order. Returns what there is to report."""
    turn = _Turn(world, noted.message_id, noted.received_at)
    for event in noted.events:
        match event:
            case Registered():
                _register(turn, event)
            case Unregistered():
                _unregister(turn, event)
            case Seen():
                _see(turn, event)
            case Profiled():
                _profile(turn, event)
            case Joined():
                _join(turn, event)
            case Deleted():
                _delete(turn, event)
    return tuple(turn.reports)


def withdraw(world: World, row: DeviceRow, reason: str, now: float, *, disable: bool = False) -> None:
    """Take a device's address out of use, not by its own word: a newer report of it brings it back.

    The times that order reports stay, so that one that was on its way counts (P012).
    """
    status: Any = "disabled" if disable else "removed"
    after = replace(row, status=status, reason=reason, removed_at=now)
    _Turn(world, f"{reason} {row.registered_at}").change(now, (row, after))


# -- devices -------------------------------------------------------------------------------------------


def _register(turn: _Turn, event: Registered) -> None:
    world, terms = turn.world, turn.world.terms
    row, order = world.devices.get(event.device), turn.order(event.at)
    if event.device.lower() in terms.junk:
        return turn.reports.append(f"{event.device!r} is no id of one device: nothing was registered")
    if row is not None and row.order > order:
        turn.reports.append("older than what is known of this device: it stays as it is")
        return _take_off(turn, event, order)
    named, provisional = _owner(turn, event)
    if row is not None and row.cause == turn.cause:
        return None  # the same message again: it must not bring back what was removed since
    person = _within_limit(turn, named, row)
    if provisional and _is_somebody_else(world, row, event.device):
        turn.reports.append(f"{event.device!r} is the userId of a person known here: this device is nobody's")
        person = None
    holder = _holder_to_leave(turn, event, order)
    keeps = holder is not None and holder.order > order
    after = _registered(turn, row, event, person, provisional=provisional, addressed=not keeps)
    pairs: list[tuple[DeviceRow | None, DeviceRow]] = [(row, after)]
    if not provisional and (namesake := world.devices.get(named)) is not None and namesake.provisional:
        world.put(replace(namesake, person=None, provisional=False))
    if holder is not None and not keeps:
        pairs.insert(0, (holder, replace(holder, kind=None, address=None)))
    old = "" if row is None or provisional or person is None else _merged(turn, row, person)
    turn.change(event.at, *pairs, alias=old)
    return None


def _owner(turn: _Turn, event: Registered) -> tuple[str, bool]:
    """Whose a device is, and whether that is itself (P021). Junk ids own nothing (D15)."""
    if event.person == event.device:
        return event.device, True
    if event.person.strip().lower() in turn.world.terms.junk:
        turn.reports.append(f"userId {event.person!r} is nobody's id: as if nobody had signed in")
        return event.device, True
    return event.person, False


def _is_somebody_else(world: World, row: DeviceRow | None, device: str) -> bool:
    """Whether a device is called like a person who has signed in on another.

    Nothing proves the id of a device: whoever calls one like a person would get that person's pushes (D13).
    """
    itself = row is not None and row.person == device and row.status == "active"
    return world.count(device) - itself > 0


def _within_limit(turn: _Turn, person: str, row: DeviceRow | None) -> str | None:
    """The person, or None where that would be one device too many: the older ones stay."""
    has_it = row is not None and row.person == person and row.status == "active"
    if has_it or turn.world.count(person) < turn.world.terms.per_person:
        return person
    turn.reports.append(f"{person!r} has {turn.world.terms.per_person} devices already: this one is nobody's")
    return None


def _holder_to_leave(turn: _Turn, event: Registered, order: tuple[float, float]) -> DeviceRow | None:
    """Another device that has the address (P042)."""
    holder = turn.world.holder(event.address)
    if holder is None or holder.id == event.device:
        return None
    if holder.order > order:
        turn.reports.append("its address was reported by another device since: it stays there")
    return holder


def _take_off(turn: _Turn, event: Registered, order: tuple[float, float]) -> None:
    """A late report says at least that the address had left whoever reported it before that (P042)."""
    holder = turn.world.holder(event.address)
    if holder is not None and holder.id != event.device and holder.order < order:
        turn.change(event.at, (holder, replace(holder, kind=None, address=None)))


def _registered(
    turn: _Turn, row: DeviceRow | None, event: Registered, person: str | None, *, provisional: bool,
    addressed: bool,
) -> DeviceRow:  # fmt: skip
    """The device as a report leaves it."""
    known = row or DeviceRow(event.device, first_seen=event.at)
    address = event.address if addressed else None
    refused = (
        known.status == "disabled" and known.place == address and event.at < known.removed_at + TRY_AGAIN_S
    )
    return replace(
        known,
        person=person,
        provisional=provisional and person is not None,
        history=known.history or (provisional and event.history),
        claimed=known.claimed or not provisional,
        kind=None if address is None else address.kind,
        address=None if address is None else address.value,
        platform=event.platform or known.platform,
        status="disabled" if refused else "active",
        reason=known.reason if refused else "",
        removed_at=known.removed_at if refused else 0.0,
        first_seen=min(known.first_seen, event.at),
        registered_at=event.at,
        changed_at=event.at,
        received_at=turn.received_at,
        cause=turn.cause,
        seen_at=max(known.seen_at, event.at),
        **_told_traits(event.traits),
    )


def _merged(turn: _Turn, row: DeviceRow, person: str) -> str:
    """Merge the provisional person into who signed in: once, the first time (P025). Returns whom.

    Whoever has a copied client key can call a device like somebody: a person of whom more is known than that
    device is nobody's to merge (D13, D17).
    """
    world = turn.world
    if row.claimed or (row.person is not None and not row.provisional):
        return ""
    known = world.people.get(row.id)
    if _is_somebody_else(world, row, row.id) or (known is not None and known.named):
        turn.reports.append(f"{row.id!r} is the id of a person known here: they were not merged")
        return ""
    if not row.provisional:
        return ""
    _join_people(world, row.id, person)
    return row.id if row.history else ""


def _unregister(turn: _Turn, event: Unregistered) -> None:
    world = turn.world
    row = world.devices.get(event.device) if event.device else world.holder(event.address)
    if row is None:
        if event.device:  # so that an older report, still on its way, does not bring it in
            world.put(_tombstone(turn, event))
        return turn.reports.append("no such device is registered")
    if row.order > turn.order(event.at):
        return turn.reports.append("older than what is known of this device: it stays as it is")
    if row.cause == turn.cause:
        return None
    gone = {"status": "removed", "reason": event.reason, "removed_at": event.at}
    order = {"changed_at": event.at, "received_at": turn.received_at, "cause": turn.cause}
    after: DeviceRow = replace(row, **gone, **order, seen_at=max(row.seen_at, event.at))
    turn.change(event.at, (row, after))
    return None


def _tombstone(turn: _Turn, event: Unregistered) -> DeviceRow:
    return DeviceRow(
        event.device,
        status="removed",
        reason=event.reason,
        first_seen=event.at,
        changed_at=event.at,
        received_at=turn.received_at,
        cause=turn.cause,
        seen_at=event.at,
        removed_at=event.at,
    )


def _see(turn: _Turn, event: Seen) -> None:
    row = turn.world.devices.get(event.device)
    if row is None or event.at < row.seen_at:
        return
    told = _told_traits(event.traits)
    new = any(getattr(row, name) != value for name, value in told.items())
    if new or event.at - row.seen_at >= SEEN_S:
        turn.world.put(replace(row, seen_at=event.at, **told))


def _told_traits(traits: Traits) -> dict[str, str]:
    """What an app tells of itself; what it does not tell stays."""
    if traits == NOT_TOLD:
        return {}
    told = {name: getattr(traits, name) for name in Traits.__struct_fields__}
    return {name: value for name, value in told.items() if value is not None}


# -- people --------------------------------------------------------------------------------------------


def _profile(turn: _Turn, event: Profiled) -> None:
    world = turn.world
    if event.person.lower() in world.terms.junk:
        return
    row = world.people.get(event.person) or PersonRow(event.person, named=False)
    after = replace(row, named=row.named or event.named)
    after = _with_traits(turn, after, _kept(world.terms, event.traits), event.at)
    if event.consent is not None:
        after = _with_consent(after, event.at, consent=event.consent)
    if after != row and (after.named or after.traits != b"{}" or after.consent is not None):
        world.put_person(after)


def _kept(terms: Terms, traits: Mapping[str, Any]) -> Mapping[str, Any]:
    wanted = terms.traits
    return traits if wanted is None else {name: traits[name] for name in traits if name in wanted}


def _with_traits(turn: _Turn, row: PersonRow, traits: Mapping[str, Any], at: float) -> PersonRow:
    """Later traits win name by name, None deletes one; what comes late only fills in."""
    if not traits:
        return row
    known = msgspec.json.decode(row.traits)
    merged = {**known, **traits} if at >= row.at else {**traits, **known}
    left = msgspec.json.encode({name: value for name, value in merged.items() if value is not None})
    if len(left) > TRAITS_BYTES:
        turn.reports.append(f"the person's traits would have {len(left)} bytes, more than {TRAITS_BYTES}")
        return row
    return replace(row, traits=left, at=max(at, row.at))


def _with_consent(row: PersonRow, at: float, *, consent: bool) -> PersonRow:
    """What was said last counts; of two said at the same time, the refusal (D09)."""
    if at < row.consent_at or (at == row.consent_at and row.consent is False):
        return row
    return replace(row, consent=consent, consent_at=at)


def _join_people(world: World, old: str, new: str) -> None:
    """What was known of one is known of the other: their own word counts, but a refusal of either stays."""
    known, mine = world.people.get(old), world.people.get(new) or PersonRow(new)
    if known is None or old == new:
        return
    traits = {**msgspec.json.decode(known.traits), **msgspec.json.decode(mine.traits)}
    encoded = msgspec.json.encode(traits)
    said = [one.consent for one in (known, mine) if one.consent is not None]
    world.put_person(
        replace(
            mine,
            named=True,
            traits=encoded if len(encoded) <= TRAITS_BYTES else mine.traits,
            at=max(known.at, mine.at),
            consent=all(said) if said else None,
            consent_at=max(known.consent_at, mine.consent_at),
        )
    )
    world.delete_person(old)


def _join(turn: _Turn, event: Joined) -> None:
    world, junk = turn.world, turn.world.terms.junk
    if event.old == event.new or event.old.lower() in junk or event.new.lower() in junk:
        return
    rows = [row for row in world.of(event.old) if event.trusted or row.provisional]
    for row in rows:
        person = _within_limit(turn, event.new, row)
        itself = person == row.id
        after = replace(row, person=person, provisional=itself, claimed=row.claimed or not itself)
        turn.change(event.at, (row, after), joined=True)
    known = world.people.get(event.old)
    if event.trusted or (known is not None and not known.named):
        _join_people(world, event.old, event.new)


def _delete(turn: _Turn, event: Deleted) -> None:
    """Delete all of a person, whatever is newer; nothing is told, as that would bring them back there."""
    world = turn.world
    for row in world.of(event.person):
        world.delete(row.id)
    world.delete_person(event.person)
    world.untell(event.person)


# -- what destinations know ----------------------------------------------------------------------------


def _binding(row: DeviceRow) -> Binding | None:
    """Whom and where destinations know a device, None for not at all.

    They are not told of provisional persons: each would be a profile that is paid for (D21); nor of devices
    of a kind nobody told, which none of them would take.
    """
    if row.status != "active" or row.address is None or row.platform is None:
        return None
    return None if row.person is None or row.provisional else (row.person, row.address)


def _has_moved(before: DeviceRow, after: DeviceRow) -> bool:
    return before.person not in (None, after.person) and after.person is not None and not after.provisional
