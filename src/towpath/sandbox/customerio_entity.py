"""Track v2 of the simulated Customer.io: one item `{type, action, identifiers, …}` and what it does."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

import msgspec

from .customerio_identity import Profiles, Who
from .customerio_limits import (
    Invalid,
    check_attributes,
    check_id,
    check_person,
    event_data,
    event_name,
    one_of,
    required,
    seconds,
)
from .customerio_objects import Objects
from .customerio_state import CustomerIoState, Device, Event

Item: TypeAlias = Mapping[str, Any]
PLATFORMS = ("ios", "android")
_E164 = re.compile(r"\+[1-9]\d{6,14}")
_DELIVERY_METRICS = ("converted", "delivered", "opened")


def device_of(given: Any, key: str, field: str = "device") -> Device:
    """Read a device; its token is under `key`. Raises `Invalid`."""
    if not isinstance(given, dict):
        raise required(field)
    for name in (key, "platform"):
        if not isinstance(given.get(name), str) or not given[name]:
            raise required(f"{field}.{name}")
    platform, attributes = (
        one_of(given["platform"], PLATFORMS, f"{field}.platform"),
        given.get("attributes") or {},
    )
    check_attributes(attributes, f"{field}.attributes")
    return Device(given[key], platform, seconds(given.get("last_used"), "last_used"), attributes)


class Entities:
    """Applies v2 items, each as it stands; `Invalid` is raised before anything of the item has effect."""

    def __init__(
        self,
        state: CustomerIoState,
        profiles: Profiles,
        objects: Objects,
        report: Callable[[str, str, int | None], None],
    ) -> None:
        self._state = state
        self._profiles = profiles
        self._objects = objects
        self._report = report
        self._actions: Mapping[str, Mapping[str, Callable[[Item], None]]] = {
            "person": {
                "identify": self._identify,
                "delete": self._delete,
                "suppress": self._suppress,
                "unsuppress": self._unsuppress,
                "event": self._event,
                "page": self._event,
                "screen": self._event,
                "add_relationships": self._relate,
                "delete_relationships": self._relate,
                "add_device": self._add_device,
                "delete_device": self._delete_device,
                "merge": self._merge,
            },
            "object": {
                "identify": self._identify_object,
                "identify_anonymous": self._identify_anonymous,
                "delete": self._delete_object,
                "add_relationships": self._relate_object,
                "delete_relationships": self._relate_object,
            },
            "delivery": {"event": self._delivery},
        }

    def apply(self, item: Any) -> None:
        """Do what an item says. Raises `Invalid`."""
        if not isinstance(item, dict):
            raise Invalid("", "the item must be an object")
        for field in ("type", "action"):
            if not item.get(field):
                raise required(field)
        actions = self._actions[one_of(item["type"], self._actions, "type")]
        actions[one_of(item["action"], actions, "action")](item)

    def who(self, identifiers: Any, field: str = "identifiers") -> Who:
        """Read the one identifier of a person. Raises `Invalid`."""
        if not isinstance(identifiers, dict) or not identifiers:
            raise required(field)
        kinds = (*self._state.kinds, "cio_id")
        if len(identifiers) != 1 or next(iter(identifiers)) not in kinds:
            raise Invalid(field, f"{field} must have exactly one of {', '.join(kinds)}")
        ((kind, value),) = identifiers.items()
        if isinstance(value, int) and not isinstance(value, bool):
            value = str(value)  # the vendor's own clients send numbers
        if not isinstance(value, str):
            raise Invalid(f"{field}.{kind}", f"{kind} must be a string")
        check_id(value, f"{field}.{kind}")
        if (kind == "email" and "@" not in value) or (kind == "phone" and not _E164.fullmatch(value)):
            raise Invalid(f"{field}.{kind}", f"{kind} is not valid")
        return kind, value

    def _identify(self, item: Item) -> None:
        who, attributes = self.who(item.get("identifiers")), item.get("attributes", {})
        check_attributes(attributes)
        check_person(attributes)
        at, relationships = seconds(item.get("timestamp")), item.get("cio_relationships")
        if relationships is not None:
            self._objects.check(relationships)
        only_update = attributes.get("_update") is True
        person = self._profiles.identify(who, attributes, at, only_update=only_update)
        if person is not None and relationships:
            self._objects.relate(("cio_id", person.cio_id), relationships, add=True)

    def _delete(self, item: Item) -> None:
        self._profiles.delete(self.who(item.get("identifiers")))

    def _suppress(self, item: Item) -> None:
        self._profiles.suppress(self.who(item.get("identifiers")))

    def _unsuppress(self, item: Item) -> None:
        self._profiles.unsuppress(self.who(item.get("identifiers")))

    def _event(self, item: Item) -> None:
        who, kind = self.who(item.get("identifiers")), str(item["action"])
        name = event_name(kind, item.get("name"))
        # Within an item of 32 KB no event's data is too long.
        data, at = event_data(item.get("attributes"), 0, "attributes"), seconds(item.get("timestamp"))
        moment = self._state.now() if at is None else at
        self._profiles.track(who, Event(kind, name, data, moment, str(item.get("id") or "")))

    def _relate(self, item: Item) -> None:
        if not item.get("cio_relationships"):
            raise required("cio_relationships")
        add = item["action"] == "add_relationships"
        self._objects.relate(self.who(item.get("identifiers")), item["cio_relationships"], add=add)

    def _add_device(self, item: Item) -> None:
        who = self.who(item.get("identifiers"))
        self._profiles.add_device(who, device_of(item.get("device"), "token"))

    def _delete_device(self, item: Item) -> None:
        who, device = self.who(item.get("identifiers")), item.get("device")
        if not isinstance(device, dict) or not device.get("token"):
            raise required("device.token")
        self._profiles.delete_device(who, str(device["token"]))

    def _merge(self, item: Item) -> None:
        sides = [self.who(item.get(side), side) for side in ("primary", "secondary")]
        self._profiles.merge(*sides)

    def _identify_object(self, item: Item) -> None:
        at, related = seconds(item.get("timestamp")), item.get("cio_relationships") or []
        members = self._members(related)
        moment = self._state.clock.now() if at is None else float(at)
        thing = self._objects.identify(item.get("identifiers"), item.get("attributes", {}), moment)
        if thing is not None:
            self._add_members(thing.cio_object_id, members)

    def _identify_anonymous(self, item: Item) -> None:
        if not item.get("anonymous_id"):
            raise required("anonymous_id")
        now = self._state.clock.now()
        thing = self._objects.identify(item.get("identifiers"), item.get("attributes", {}), now)
        if thing is not None:
            self._profiles.await_person(str(item["anonymous_id"]), thing.cio_object_id, {})

    def _delete_object(self, item: Item) -> None:
        self._objects.delete(item.get("identifiers"))

    def _relate_object(self, item: Item) -> None:
        if not item.get("cio_relationships"):
            raise required("cio_relationships")
        members = self._members(item["cio_relationships"])
        if item["action"] == "add_relationships":
            thing = self._objects.reach(item.get("identifiers"))
            if thing is not None:
                self._add_members(thing.cio_object_id, members)
            return
        thing = self._objects.named(item.get("identifiers"))
        for kind, value, _ in members if thing is not None else ():
            person = self._profiles.find(kind, value)
            if person is not None and thing is not None:
                self._profiles.part(person, thing.cio_object_id)

    def _members(self, related: Any) -> list[tuple[str, str, dict[str, Any]]]:
        """Read the people of an object's relationships: (kind or "anonymous_id", value, attributes)."""
        if not isinstance(related, list):
            raise Invalid("cio_relationships", "cio_relationships must be an array")
        return [self._member(entry, f"cio_relationships[{index}]") for index, entry in enumerate(related)]

    def _member(self, entry: Any, field: str) -> tuple[str, str, dict[str, Any]]:
        if not isinstance(entry, dict):
            raise Invalid(field, f"{field} must be an object")
        named, attributes = entry.get("identifiers"), entry.get("relationship_attributes") or {}
        check_attributes(attributes, f"{field}.relationship_attributes")
        if isinstance(named, dict) and list(named) == ["anonymous_id"]:
            return "anonymous_id", str(named["anonymous_id"]), attributes
        return (*self.who(named, f"{field}.identifiers"), attributes)

    def _add_members(self, thing: str, members: list[tuple[str, str, dict[str, Any]]]) -> None:
        for kind, value, attributes in members:
            if kind == "anonymous_id":
                self._profiles.await_person(value, thing, attributes)
                continue
            person = self._profiles.reach((kind, value))
            if person is not None:
                self._profiles.relate(person, thing, attributes)

    def _delivery(self, item: Item) -> None:
        identifiers, attributes = item.get("identifiers"), item.get("attributes")
        if not isinstance(identifiers, dict) or not identifiers.get("id"):
            raise required("identifiers.id")
        metric = one_of(item.get("name"), _DELIVERY_METRICS, "name")
        if not isinstance(attributes, dict) or not attributes.get("device_token"):
            raise required("attributes.device_token")
        self._report(str(identifiers["id"]), metric, seconds(item.get("timestamp")))


class BatchBody(msgspec.Struct):
    """The body of `POST /api/v2/batch`, its items still encoded."""

    batch: list[msgspec.Raw]
