"""The rules of the registry: what events make of devices and people, and what is told of it (P040)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, TypeAlias

import msgspec
from msgspec.structs import replace

from ..device import Deleted, Joined, Noted, Profiled, Registered, Seen, Traits, Unregistered
from ..state.devices import DeviceRow, PersonRow
from . import outbox
from .outbox import Cause
from .world import Terms, World, proves

DAY_S = 86400.0
SEEN_S = 3600.0
"""A device in use is noted once an hour: which minute it was is nothing anybody asks for."""
TRY_AGAIN_S = 30 * DAY_S
"""When an address of another project that is reported again is tried again."""
TRAITS_BYTES = 32 * 1024
AHEAD_S = 60.0
"""What came so much later than it is now came by a clock that was ahead: it orders nothing."""
NOT_TOLD = Traits()

Binding: TypeAlias = tuple[str, str]


class _Turn:
    """One message's turn."""

    def __init__(self, world: World, cause: str, received_at: float = 0.0) -> None:
        self.world = world
        self.cause = cause
        self.received_at = received_at
        self.reports: list[str] = []

    def order(self, at: float) -> tuple[float, float]:
        return at, self.received_at

    def is_ahead(self, at: float) -> bool:
        """Whether a time comes from a clock that was ahead."""
        return at > self.world.now + AHEAD_S

    def change(
        self, at: float, *pairs: tuple[DeviceRow | None, DeviceRow], alias: str = "", joined: bool = False
    ) -> None:
        """Put devices as they are now, and tell whom it concerns. `joined`: the old owner is the new one."""
        told, cause = self.world.told, Cause(self.cause, at, self.received_at)
        bound = {_binding(after) for _, after in pairs}
        for before, _ in pairs:
            gone = None if before is None or joined else _binding(before)
            if before is not None and gone is not None and gone not in bound:
                told.append(outbox.removed(cause, before))
        if alias:
            told.append(outbox.aliased(cause, alias, pairs[-1][1]))
        for before, after in pairs:
            if before is not None and not joined and _has_moved(before, after):
                told.append(outbox.moved(cause, before, after))
            self.world.put(self._announced(before, after, cause))

    def _announced(self, before: DeviceRow | None, after: DeviceRow, cause: Cause) -> DeviceRow:
        """The device, told of where it is new there, or a day has passed since it was told of (P043)."""
        binding = _binding(after)
        if binding is None:
            return after
        known = before is not None and _binding(before) == binding
        if known and after.registered_at - after.told_at <= DAY_S:
            return after
        self.world.told.append(outbox.created(cause, after))
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
    if row is not None and _is_newer(turn, row, order):
        turn.reports.append("older than what is known of this device: it stays as it is")
        return _take_off(turn, event, order)
    if row is not None and _is_taking(row, event):
        return turn.reports.append(
            "who has this device has proved it, and its token did not come along: it stays theirs"
        )
    named, provisional = _owner(turn, event)
    if row is not None and row.cause == turn.cause:
        return None  # the same message again: it must not bring back what was removed since
    person = _within_limit(turn, named, row)
    if provisional and (_has_another(world, row, event.device) or _is_taken(world, event)):
        turn.reports.append(f"{event.device!r} is the userId of a person known here: this device is nobody's")
        person = None
    holder = _holder_to_leave(turn, event, order)
    keeps = holder is not None and _is_newer(turn, holder, order)
    after = _registered(turn, row, event, person, provisional=provisional, addressed=not keeps)
    pairs: list[tuple[DeviceRow | None, DeviceRow]] = [(row, after)]
    if not provisional:
        _free_namesake(world, named)
        _know(world, event)
    if holder is not None and not keeps:
        pairs.insert(0, (holder, replace(holder, kind=None, address=None)))
    old = "" if row is None or provisional or person is None else _merged(turn, row, event)
    turn.change(event.at, *pairs, alias=old)
    return None


def _is_newer(turn: _Turn, row: DeviceRow, order: tuple[float, float]) -> bool:
    """Whether what is known of a device was said later; not where a clock that was ahead says so."""
    return row.order > order and not turn.is_ahead(row.received_at)


def _is_taking(row: DeviceRow, event: Registered) -> bool:
    """Whether a client that knows no more than a device's id would take it from who has proved it (D13)."""
    if event.word != "client" or not row.proven or row.person in (None, event.person):
        return False
    return row.status == "active" and row.place not in (None, event.address)


def _owner(turn: _Turn, event: Registered) -> tuple[str, bool]:
    """Whose a device is, and whether that is itself (P021). Junk ids own nothing (D15)."""
    if event.person == event.device:
        return event.device, True
    if event.person.strip().lower() in turn.world.terms.junk:
        turn.reports.append(f"userId {event.person!r} is nobody's id: as if nobody had signed in")
        return event.device, True
    return event.person, False


def _is_taken(world: World, event: Registered) -> bool:
    """Whether a device is called like a person known from more than a client's word, by a client's word.

    Nothing proves the id of a device: whoever calls one like a person would get that person's pushes (D13).
    """
    known = world.people.get(event.device)
    return event.word == "client" and known is not None and known.proven


def _free_namesake(world: World, person: str) -> None:
    """A person has turned up who is called like a device: it cannot stand for them any more (D13)."""
    namesake = world.devices.get(person)
    if namesake is not None and namesake.provisional:
        world.put(replace(namesake, person=None, provisional=False))


def _know(world: World, event: Registered) -> None:
    """Remember that the owner of a device is a person, for when no device of theirs is left to say so."""
    if not proves(event) or event.person not in world.asked:
        return
    row = world.people.get(event.person) or PersonRow(event.person)
    if not row.proven:
        world.put_person(replace(row, named=True, proven=True))


def _has_another(world: World, row: DeviceRow | None, device: str) -> bool:
    """Whether a device is called like a person who has signed in on another."""
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
    if _is_newer(turn, holder, order):
        turn.reports.append("its address was reported by another device since: it stays there")
    return holder


def _take_off(turn: _Turn, event: Registered, order: tuple[float, float]) -> None:
    """A late report says at least that the address had left whoever reported it before that (P042)."""
    holder = turn.world.holder(event.address)
    if holder is None or holder.id == event.device or holder.order == order:
        return
    if not _is_newer(turn, holder, order):
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
        proven=event.word != "client" or (known.proven and known.person == person),
        kind=None if address is None else address.kind,
        address=None if address is None else address.value,
        platform=event.platform or known.platform,
        status="disabled" if refused else "active",
        reason=known.reason if refused else "",
        removed_at=known.removed_at if refused else 0.0,
        registered_at=event.at,
        changed_at=event.at,
        received_at=turn.received_at,
        cause=turn.cause,
        seen_at=event.at if turn.is_ahead(known.received_at) else max(known.seen_at, event.at),
        **_told_traits(event.traits),
    )


def _merged(turn: _Turn, row: DeviceRow, event: Registered) -> str:
    """Merge the provisional person into who signed in: once, the first time (P025). Returns whom.

    Whoever has a copied client key can call a device like somebody, whom maybe only other tools know. So a
    person of whom more is known than that device is nobody's to merge, and a client's word merges only who
    is called as no person can be (D13, D17).
    """
    world = turn.world
    if row.claimed or (row.person is not None and not row.provisional):
        return ""
    known, a_device = world.people.get(row.id), world.terms.names_device(row.id)
    somebody = known is not None and (known.proven or (known.named and not a_device))
    if somebody or _has_another(world, row, row.id):
        turn.reports.append(f"{row.id!r} is the id of a person known here: they were not merged")
        return ""
    if not row.provisional:
        return ""
    if event.word != "server" and not a_device:
        turn.reports.append(
            f"{row.id!r} may be a person's id: not merged, as only a server or push.device_ids can tell"
        )
        return ""
    _join_people(world, row.id, event.person)
    return row.id if row.history else ""


def _unregister(turn: _Turn, event: Unregistered) -> None:
    world = turn.world
    row = world.devices.get(event.device) if event.device else world.holder(event.address)
    if row is None:
        if event.device:  # so that an older report, still on its way, does not bring it in
            world.put(_tombstone(turn, event))
        return turn.reports.append("no such device is registered")
    if _is_newer(turn, row, turn.order(event.at)):
        return turn.reports.append("older than what is known of this device: it stays as it is")
    if row.cause == turn.cause:
        return None
    if not _may_go(row, event):
        return turn.reports.append(
            "neither its token nor its person's userId came along: anybody may know its id, so it stays"
        )
    gone = {"status": "removed", "reason": event.reason, "removed_at": event.at}
    order = {"changed_at": event.at, "received_at": turn.received_at, "cause": turn.cause}
    after: DeviceRow = replace(row, **gone, **order, seen_at=max(row.seen_at, event.at))
    turn.change(event.at, (row, after))
    return None


def _may_go(row: DeviceRow, event: Unregistered) -> bool:
    """Whether who unregisters a device knows more of it than its id, as a client has to (D13)."""
    if event.word == "server" or row.person is None:
        return True
    return event.person == row.person or (event.address is not None and event.address == row.place)


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
        return None
    row = world.people.get(event.person) or PersonRow(event.person, named=False)
    if row.proven and event.anonymous and event.word == "client":
        return turn.reports.append(f"{event.person!r} is a userId: as anonymousId it does not speak for them")
    after = replace(row, named=row.named or event.named, proven=row.proven or proves(event))
    if after.proven and not row.proven:
        _free_namesake(world, event.person)
    after = _with_traits(turn, after, _kept(world.terms, event.traits), event.at)
    if event.consent is not None:
        after = _with_consent(turn, after, event.at, consent=event.consent)
    if after != row and (after.named or after.traits != b"{}" or after.consent is not None):
        world.put_person(after)
    return None


def _kept(terms: Terms, traits: Mapping[str, Any]) -> Mapping[str, Any]:
    wanted = terms.traits
    return traits if wanted is None else {name: traits[name] for name in traits if name in wanted}


def _with_traits(turn: _Turn, row: PersonRow, traits: Mapping[str, Any], at: float) -> PersonRow:
    """Later traits win name by name, None deletes one; what comes late only fills in."""
    if not traits:
        return row
    known = msgspec.json.decode(row.traits)
    latest = 0.0 if turn.is_ahead(row.at) else row.at
    merged = {**known, **traits} if at >= latest else {**traits, **known}
    left = msgspec.json.encode({name: value for name, value in merged.items() if value is not None})
    if len(left) > TRAITS_BYTES:
        turn.reports.append(f"the person's traits would have {len(left)} bytes, more than {TRAITS_BYTES}")
        return row
    return replace(row, traits=left, at=max(at, latest))


def _with_consent(turn: _Turn, row: PersonRow, at: float, *, consent: bool) -> PersonRow:
    """What was said last counts; of two said at the same time, the refusal (D09)."""
    if turn.is_ahead(row.consent_at):
        return replace(row, consent=consent, consent_at=at)
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
            proven=mine.proven or known.proven,
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
