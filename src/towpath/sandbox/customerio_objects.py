"""The simulated Customer.io's objects (companies, accounts) and what relates people to them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec

from .customerio_identity import Profiles, Who
from .customerio_limits import (
    ATTRIBUTES_LIMIT,
    RELATED_LIMIT_BYTES,
    Invalid,
    check_attributes,
    check_id,
    required,
)
from .customerio_state import CustomerIoState, Thing


class Objects:
    """The objects of a workspace, found by type and id or by cio_object_id."""

    def __init__(self, state: CustomerIoState, profiles: Profiles) -> None:
        self._state = state
        self._profiles = profiles
        self._owners: dict[tuple[str, str], Thing] = {}

    def find(self, object_type_id: str, object_id: str) -> Thing | None:
        """Find an object by its type and your own id."""
        return self._owners.get((object_type_id, object_id))

    def adopt(self, thing: Thing) -> None:
        """Take in an object as it is, without an activity."""
        self._state.objects[thing.cio_object_id] = thing
        self._owners[thing.object_type_id, thing.object_id] = thing

    def named(self, identifiers: Any, field: str = "identifiers") -> Thing | None:
        """Find the object that identifiers name. Raises `Invalid` for identifiers that are none."""
        if not isinstance(identifiers, dict) or not identifiers:
            raise required(field)
        if "cio_object_id" in identifiers:
            return self._state.objects.get(str(identifiers["cio_object_id"]))
        return self.find(*self._pair(identifiers, field))

    def reach(self, identifiers: Any, field: str = "identifiers") -> Thing | None:
        """Find an object or make it; None for an unknown cio_object_id. Raises `Invalid`."""
        thing = self.named(identifiers, field)
        if thing is not None or "cio_object_id" in identifiers:
            return thing
        kind, name = self._pair(identifiers, field)
        made = Thing(self._state.new_id("ob"), kind, name)
        self._state.objects[made.cio_object_id] = made
        self._owners[kind, name] = made
        self._state.record(f"_o:{kind}:create", None, {"object_id": name})
        return made

    def identify(self, identifiers: Any, attributes: Mapping[str, Any], at: float) -> Thing | None:
        """Write an object's attributes; null and empty ones are removed. Raises `Invalid`."""
        check_attributes(attributes)
        thing = self.reach(identifiers)
        if thing is None:
            return None
        changes = {name: value for name, value in attributes.items() if at >= thing.stamps.get(name, at)}
        for name, value in changes.items():
            thing.stamps[name] = at
            if value in (None, ""):
                thing.attributes.pop(name, None)
            elif name in thing.attributes or len(thing.attributes) < ATTRIBUTES_LIMIT:
                thing.attributes[name] = value
        if changes:
            data = {"object_id": thing.object_id, **changes}
            self._state.record(f"_o:{thing.object_type_id}:attribute_change", None, data)
        return thing

    def delete(self, identifiers: Any) -> None:
        """Forget an object and every relationship with it."""
        thing = self.named(identifiers)
        if thing is None:
            return
        del self._state.objects[thing.cio_object_id], self._owners[thing.object_type_id, thing.object_id]
        for person in self._state.people.values():
            person.relationships.pop(thing.cio_object_id, None)
        self._state.record(f"_o:{thing.object_type_id}:delete", None, {"object_id": thing.object_id})

    def check(self, relationships: Any) -> None:
        """Refuse relationships of a person that are none. Raises `Invalid`."""
        for index, entry in enumerate(_listed(relationships)):
            self.named(_identified(entry, index), f"cio_relationships[{index}].identifiers")

    def relate(self, who: Who, relationships: Any, *, add: bool) -> None:
        """Add or end relationships of a person; unknown objects are made. Raises `Invalid` before any."""
        self.check(relationships)
        person = self._profiles.reach(who) if add else self._profiles.find(*who)
        if person is None:
            return
        for entry in relationships:
            thing = self.reach(entry["identifiers"]) if add else self.named(entry["identifiers"])
            if thing is not None and add:
                self._profiles.relate(person, thing.cio_object_id, _attributes(entry))
            elif thing is not None:
                self._profiles.part(person, thing.cio_object_id)

    def _pair(self, identifiers: Mapping[str, Any], field: str) -> tuple[str, str]:
        for name in ("object_type_id", "object_id"):
            if identifiers.get(name) in (None, ""):
                raise required(f"{field}.{name}")
        kind, name = str(identifiers["object_type_id"]), str(identifiers["object_id"])
        check_id(name, f"{field}.object_id")
        if all(known["id"] != kind for known in self._state.object_types):
            raise Invalid(f"{field}.object_type_id", f"object type {kind} does not exist")
        return kind, name


def _listed(relationships: Any) -> list[Any]:
    if not isinstance(relationships, list):
        raise Invalid("cio_relationships", "cio_relationships must be an array")
    size = sum(len(msgspec.json.encode(_attributes(entry))) for entry in relationships)
    if size > RELATED_LIMIT_BYTES:
        raise Invalid("cio_relationships", "attributes of relationships cannot be larger than 100 KB")
    return relationships


def _identified(entry: Any, index: int) -> Any:
    if not isinstance(entry, dict) or not isinstance(entry.get("identifiers"), dict):
        raise required(f"cio_relationships[{index}].identifiers")
    return entry["identifiers"]


def _attributes(entry: Any) -> dict[str, Any]:
    attributes = (entry.get("relationship_attributes") if isinstance(entry, dict) else None) or {}
    check_attributes(attributes, "relationship_attributes")
    return dict(attributes)
