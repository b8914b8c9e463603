"""How the simulated Customer.io tells people apart: identify, merge, suppress, anonymous history."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from typing import Any, TypeAlias

from .customerio_limits import ATTRIBUTES_LIMIT
from .customerio_messages import forget
from .customerio_state import CustomerIoState, Device, Event, Person, is_ulid

Who: TypeAlias = tuple[str, str]
"""A kind of identifier (id, email, phone, cio_id) and its value."""

TAKEN = "The identifier is already associated with a different profile."
"""As observed; the other reasons are ours, the vendor's texts are not published."""
FIXED = "The identifier is already set and can only be changed using cio_id."
FULL = f"A profile cannot have more than {ATTRIBUTES_LIMIT} attributes."
NOBODY = "The profile does not exist and _update is true."
ANONYMOUS_DAYS = 30
MERGE_DAYS = 30
PREFERENCES = "cio_subscription_preferences"
_DAY_S = 86_400
_CONTROL = frozenset({"_update", "_timestamp", "cio_relationships", "cio_id"})
_IDENTIFYING = frozenset({"id", "email", "phone"})


def of_path(identifier: str, kinds: Collection[str]) -> Who:
    """Tell what a v1 path names, by its shape. In a workspace with ids only an e-mail is an id."""
    if identifier.startswith("cio_"):
        return "cio_id", identifier.removeprefix("cio_")
    return ("email" if "@" in identifier and "email" in kinds else "id"), identifier


class Profiles:
    """The people of a workspace and the rules by which calls find, change, join and forget them.

    `email_updates_by_id` is the workspace's setting "Allow updates to email using ID".
    """

    def __init__(self, state: CustomerIoState, *, email_updates_by_id: bool = False) -> None:
        self._state = state
        self._email_updates_by_id = email_updates_by_id
        self._owners: dict[Who, Person] = {}
        self._suppressed: set[Who] = set()
        self._event_ids: set[str] = set()
        self._anonymous: dict[str, list[Event]] = {}
        self._linked: dict[str, Person] = {}
        self._awaiting: dict[str, list[tuple[str, dict[str, Any]]]] = {}

    def find(self, kind: str, value: Any) -> Person | None:
        """Find who has this identifier."""
        if kind == "cio_id":
            return self._state.people.get(value)
        return self._owners.get(_normal(kind, value))

    def adopt(self, person: Person) -> None:
        """Take in a person as it is, without a call or an activity."""
        self._state.people[person.cio_id] = person
        self._own(person)

    def suppressed(self) -> list[Who]:
        """Return the identifiers that are blocked."""
        return sorted(self._suppressed)

    def anonymous(self, anonymous_id: str) -> list[Event]:
        """Return the events of an anonymous id that no person has yet."""
        return list(self._anonymous.get(anonymous_id, ()))

    def identify(
        self, who: Who, given: Mapping[str, Any], at: float | None = None, *, only_update: bool = False
    ) -> Person | None:
        """Apply one identify call; the person it came to, None where it had no effect."""
        if self._is_blocked(who, given):
            self._state.ignored += 1
            return None
        person, moment = self.find(*who), self._state.clock.now() if at is None else at
        if person is None:
            person = self._settled(who, given, moment, only_update=only_update)
        if person is not None:
            self._write(person, given, moment, who[0])
        return person

    def reach(self, who: Who) -> Person | None:
        """Find a person, or make one of an id or e-mail; None for a suppressed one and an unknown cio_id."""
        if self._is_blocked(who, {}):
            self._state.ignored += 1
            return None
        person = self.find(*who)
        if person is None and who[0] == "cio_id":
            self._state.ignored += 1
            return None
        return self._create(who, 0.0) if person is None else person

    def track(self, who: Who, event: Event) -> None:
        """Keep an event; an unknown id or e-mail becomes a person, a repeated ULID is ignored."""
        if self._is_repeated(event):
            return
        person = self.reach(who)
        if person is not None:
            self._keep(person, event)

    def track_anonymous(self, anonymous_id: str, event: Event) -> None:
        """Keep an event of nobody known: for the person of its anonymous id, else until one has it."""
        if self._is_repeated(event):
            return
        person = self._linked.get(anonymous_id)
        if person is not None and not person.deleted:
            self._keep(person, event)
        else:
            self._anonymous.setdefault(anonymous_id, []).append(event)
            self._state.event_count += 1

    def await_person(self, anonymous_id: str, thing: str, attributes: dict[str, Any]) -> None:
        """Relate an object to whoever has this anonymous id, now or later."""
        person = self._linked.get(anonymous_id)
        if person is not None and not person.deleted:
            self.relate(person, thing, attributes)
        else:
            self._awaiting.setdefault(anonymous_id, []).append((thing, attributes))

    def relate(self, person: Person, thing: str, attributes: Mapping[str, Any]) -> None:
        """Relate a person to an object; null and empty attributes are removed."""
        new = thing not in person.relationships
        merged = {**person.relationships.get(thing, {}), **attributes}
        person.relationships[thing] = {
            name: value for name, value in merged.items() if value not in (None, "")
        }
        if new:
            owner = self._state.objects[thing]
            data = {"object_type_id": owner.object_type_id, "object_id": owner.object_id}
            self._state.record("add_relationship", person, data)

    def part(self, person: Person, thing: str) -> None:
        """End a relationship."""
        if person.relationships.pop(thing, None) is not None:
            owner = self._state.objects[thing]
            data = {"object_type_id": owner.object_type_id, "object_id": owner.object_id}
            self._state.record("delete_relationship", person, data)

    def add_device(self, who: Who, device: Device) -> None:
        """Add or change a device."""
        person = self.reach(who)
        if person is None:
            return
        old = person.devices.get(device.token)
        if old is not None:
            device.attributes = {**old.attributes, **device.attributes}
        person.devices[device.token] = device
        action = "updated" if old else "added"
        data = {"device_id": device.token, "platform": device.platform, "action": action}
        self._state.record("device_change", person, data)

    def delete_device(self, who: Who, device_token: str) -> None:
        """Remove a device; nothing where it is not known."""
        person = self.find(*who)
        if person is None:
            return
        device = person.devices.pop(device_token, None)
        if device is not None:
            data = {"device_id": device.token, "platform": device.platform, "action": "deleted"}
            self._state.record("device_change", person, data)

    def delete(self, who: Who) -> None:
        """Forget a person; a later identify with the same id makes a new one."""
        person = self.find(*who)
        if person is not None:
            self._remove(person)
            self._state.record("profile_delete", person, dict(person.identifiers))
            for message in self._state.messages.of(person.cio_id):
                forget(message, self._state.now())

    def suppress(self, who: Who) -> None:
        """Delete a person and block the identifiers it had, or the one that was named."""
        person = self.find(*who)
        if who[0] != "cio_id":
            self._suppressed.add(_normal(*who))
        if person is not None:
            self._suppressed.update(self._identifiers(person))
            self.delete(who)

    def unsuppress(self, who: Who) -> None:
        """Let an identifier come again; the profile stays deleted."""
        self._suppressed.discard(_normal(*who))

    def merge(self, primary: Who, secondary: Who) -> None:
        """Join the secondary person into the primary; nothing happens unless both are there."""
        kept, gone = self.find(*primary), self.find(*secondary)
        if kept is None or gone is None or kept is gone or self._is_settling(kept):
            return
        for name, value in gone.attributes.items():
            if kept.attributes.get(name) in (None, ""):
                kept.attributes[name] = value
                kept.stamps[name] = gone.stamps.get(name, 0.0)
        self._hand_over(gone, kept)
        self._remove(gone)
        self._own(kept)
        since = self._state.now() - MERGE_DAYS * _DAY_S
        moved = [event for event in gone.events if event.at >= since]
        kept.events = sorted([*moved, *kept.events], key=lambda event: event.at)
        data = {"primary": dict(kept.identifiers), "secondary": dict(gone.identifiers)}
        self._state.record("profile_merge", kept, data)

    def _is_settling(self, person: Person) -> bool:
        settle_s = self._state.switches.settle_s
        return settle_s > 0 and self._state.clock.now() < person.created_at + settle_s

    def _hand_over(self, gone: Person, kept: Person) -> None:
        for segment in self._state.segments.values():
            if gone.cio_id in segment.members:
                segment.members.discard(gone.cio_id)
                segment.members.add(kept.cio_id)
        for message in self._state.messages.of(gone.cio_id):
            message.update(customer_identifiers=kept.identifiers, customer_id=kept.attributes.get("id"))

    def _settled(self, who: Who, given: Mapping[str, Any], at: float, *, only_update: bool) -> Person | None:
        """Whom a call with an unknown identifier is about: one its body names, a new one, or nobody."""
        if who[0] == "cio_id":
            self._state.ignored += 1
            return None
        for kind in self._state.kinds:
            owner = self.find(kind, given[kind]) if given.get(kind) else None
            if owner is not None:
                self._assign(owner, who, at)
                return owner
        if only_update:
            self._state.fail(None, *who, NOBODY)
            return None
        return self._create(who, at)

    def _assign(self, owner: Person, who: Who, at: float) -> None:
        """Give a person that was found by its body the identifier of the path."""
        kind, value = who
        old = owner.attributes.get(kind)
        if old and not self._state.switches.reassign_id:
            self._state.fail(owner, kind, value, FIXED)
            return
        self._set_identifier(owner, kind, value, at)
        self._state.record("attribute_change", owner, {kind: (old or "", value)}, kind)

    def _create(self, who: Who, at: float) -> Person:
        now = self._state.now()
        person = Person(self._state.new_id("a3"), now)
        self._state.people[person.cio_id] = person
        self._set_identifier(person, *who, at)
        self._state.record("profile_create", person, dict(person.identifiers))
        return person

    def _write(self, person: Person, given: Mapping[str, Any], at: float, by: str) -> None:
        changes: dict[str, Any] = {}
        kinds, control = self._state.kinds, _CONTROL
        for name, value in given.items():
            if name in control:
                continue
            if name in _IDENTIFYING and name in kinds:
                self._write_identifier(person, name, value, at, by, changes)
            elif name.startswith(PREFERENCES):
                self._write_preferences(person, name, value, at, changes)
            else:
                self._write_attribute(person, name, value, at, changes)
        if changes:
            self._state.record("attribute_change", person, changes)
            self._announce(person, changes)

    def _announce(self, person: Person, changes: Mapping[str, Any]) -> None:
        if "anonymous_id" in changes and changes["anonymous_id"][1]:
            self._link(person, str(changes["anonymous_id"][1]))
        if "unsubscribed" in changes:
            metric = "unsubscribed" if person.unsubscribed else "subscribed"
            self._state.notify("customer", metric, person, {})
        if PREFERENCES in changes:
            more = {"content": person.attributes.get(PREFERENCES, {})}
            self._state.notify("customer", "cio_subscription_preferences_changed", person, more)

    def _write_identifier(
        self, person: Person, kind: str, value: Any, at: float, by: str, changes: dict[str, Any]
    ) -> None:
        old = person.attributes.get(kind)
        given = "" if value is None else str(value)
        if (old is not None and _normal(kind, old) == _normal(kind, given)) or (not old and not given):
            return
        owner = self.find(kind, given)
        if owner is not None and owner is not person:
            self._state.fail(person, kind, given, TAKEN)
        elif old and not self._may_change(kind, by):
            self._state.fail(person, kind, given, FIXED)
        elif at >= person.stamps.get(kind, 0.0):
            self._set_identifier(person, kind, given, at)
            changes[kind] = (old or "", given)

    def _may_change(self, kind: str, by: str) -> bool:
        return by == "cio_id" or (kind == "email" and by == "id" and self._email_updates_by_id)

    def _set_identifier(self, person: Person, kind: str, value: str, at: float) -> None:
        old = person.attributes.pop(kind, None)
        if old is not None:
            self._owners.pop(_normal(kind, old), None)
        if value:
            person.attributes[kind] = value
            self._owners[_normal(kind, value)] = person
        person.stamps[kind] = at

    def _write_attribute(
        self, person: Person, name: str, value: Any, at: float, changes: dict[str, Any]
    ) -> None:
        attributes = person.attributes
        if at < person.stamps.get(name, at):
            return
        old = attributes.get(name, "")
        if value is None or value == "":
            attributes.pop(name, None)
            value = ""
        elif name not in attributes and len(attributes) >= ATTRIBUTES_LIMIT:
            self._state.fail(person, name, value, FULL)
            return
        else:
            attributes[name] = value
        person.stamps[name] = at
        if old != value:
            changes[name] = (old, value)

    def _write_preferences(
        self, person: Person, name: str, value: Any, at: float, changes: dict[str, Any]
    ) -> None:
        """Set the preferences, or with a dotted name one entry of them."""
        path = name.split(".")
        if path[0] != PREFERENCES or len(path) not in (1, 3):
            self._write_attribute(person, name, value, at, changes)
            return
        if len(path) == 3:
            before = person.attributes.get(PREFERENCES) or {}
            known = before if isinstance(before, dict) else {}
            value = {**known, path[1]: {**known.get(path[1], {}), path[2]: value}}
        self._write_attribute(person, PREFERENCES, value, at, changes)

    def _link(self, person: Person, anonymous_id: str) -> None:
        self._linked[anonymous_id] = person
        since = self._state.now() - ANONYMOUS_DAYS * _DAY_S
        history = [event for event in self._anonymous.pop(anonymous_id, ()) if event.at >= since]
        for thing, attributes in self._awaiting.pop(anonymous_id, ()):
            self.relate(person, thing, attributes)
        if history:
            person.events = sorted([*history, *person.events], key=lambda event: event.at)
            self._state.record("anon_merge", person, {"anonymous_id": anonymous_id, "events": len(history)})

    def _keep(self, person: Person, event: Event) -> None:
        person.events.append(event)
        self._state.event_count += 1
        self._state.record(event.kind, person, event.data, event.name, event.at)

    def _is_repeated(self, event: Event) -> bool:
        if not is_ulid(event.id):
            return False
        if event.id in self._event_ids:
            self._state.duplicates += 1
            return True
        self._event_ids.add(event.id)
        return False

    def _is_blocked(self, who: Who, given: Mapping[str, Any]) -> bool:
        if not self._suppressed:
            return False
        named = [
            _normal(*who),
            *(_normal(kind, given[kind]) for kind in self._state.kinds if given.get(kind)),
        ]
        return any(each in self._suppressed for each in named)

    def _identifiers(self, person: Person) -> Iterator[Who]:
        for kind in self._state.kinds:
            if kind in person.attributes:
                yield _normal(kind, person.attributes[kind])

    def _own(self, person: Person) -> None:
        for identifier in self._identifiers(person):
            self._owners[identifier] = person

    def _remove(self, person: Person) -> None:
        for identifier in self._identifiers(person):
            self._owners.pop(identifier, None)
        del self._state.people[person.cio_id]
        for segment in self._state.segments.values():
            segment.members.discard(person.cio_id)
        person.deleted = True


def _normal(kind: str, value: Any) -> Who:
    """Return an identifier as it is compared: e-mails without case."""
    text = str(value)
    return kind, text.lower() if kind == "email" else text
