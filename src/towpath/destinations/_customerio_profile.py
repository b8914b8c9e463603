"""From an identify to a person's attributes: reserved names, limits, and who may set an e-mail."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from towpath.message import Message

from ._customerio_values import (
    IDENTIFIER_BYTES,
    MOST_ATTRIBUTES,
    NAME_BYTES,
    VALUE_BYTES,
    Unfit,
    bytes_over,
    occurred_s,
    unix_seconds,
)

_IDENTIFYING = ("id", "email")
_SET_ONCE = ("id", "email", "anonymous_id")  # the first value already has an effect that the last has not
_NOT_OURS = ("cio_id", "_timestamp")
_NAMES_SURELY_FIT = NAME_BYTES // 4
_VALUES_SURELY_FIT = VALUE_BYTES // 4


class Identification(Struct, frozen=True):
    """One identify: the person's identifier, the attributes, when it happened in Unix seconds.

    `claimed` says that a visitor without userId is named by an e-mail among the traits. `trusted` says that
    its source may take an e-mail that somebody else holds at Customer.io. An untrusted one makes two items:
    the first finds or makes the person by the id alone, and then Customer.io itself refuses the e-mail of
    another profile; in one item that profile would be given the new id (D13).
    """

    identifiers: dict[str, str]
    attributes: dict[str, Any]
    timestamp: int
    trusted: bool = True
    relationships: list[Any] = []
    claimed: bool = False

    @property
    def renames(self) -> bool:
        """Whether it sets an identifier beside the one it names the person by."""
        return "email" in self.attributes or "id" in self.attributes

    def items(self) -> tuple[dict[str, Any], ...]:
        """Return the v2 items that write it."""
        made = tuple([self._item(attributes) for attributes in self._steps()])
        if self.relationships:
            made[0]["cio_relationships"] = self.relationships
        return made

    def followed_by(self, later: Identification) -> Identification | None:
        """Return one that does what this and a later one do; None where one could not do the same."""
        mine, its = (
            (self.identifiers, self.trusted, self.claimed),
            (later.identifiers, later.trusted, later.claimed),
        )
        if mine != its:
            return None
        if self.timestamp > later.timestamp or self.relationships or later.relationships:
            return None
        before, after = self.attributes, later.attributes
        if any(before.get(name, value) != value for name, value in after.items() if name in _SET_ONCE):
            return None
        if any("." in name for name in after) or "_update" in before or "_update" in after:
            return None
        attributes = {**before, **after}
        if len(attributes) > MOST_ATTRIBUTES:
            return None
        return replace(later, attributes=attributes)

    def _steps(self) -> tuple[dict[str, Any], ...]:
        if self.trusted or "email" not in self.attributes:
            return (self.attributes,)
        others = {name: value for name, value in self.attributes.items() if name != "email"}
        return others, {"email": self.attributes["email"]}

    def _item(self, attributes: dict[str, Any]) -> dict[str, Any]:
        return {
            "type": "person",
            "action": "identify",
            "identifiers": self.identifiers,
            "attributes": attributes,
            "timestamp": self.timestamp,
        }


def identification_of(message: Message, who: dict[str, str], report: Callable[[str], None]) -> Identification:
    """Read the attributes of an identify of somebody. Raises `Unfit` for one that Customer.io refuses."""
    context_traits = message.context_traits
    given = {**context_traits, **message.traits} if context_traits else dict(message.traits)
    given.pop("userId", None)
    given.pop("anonymousId", None)
    typed_created_at(given, report)
    trusted = message.trust == "server"
    _settle_identifiers(given, who, report, trusted=trusted)
    relationships = _relationships(given, report) if "cio_relationships" in given else []
    if message.anonymous_id is not None:
        given["anonymous_id"] = message.anonymous_id
    attributes = attributes_of(given, "attribute")
    at_s = math.floor(occurred_s(message))
    claimed = message.user_id is None and "email" in who
    return Identification(who, attributes, at_s, trusted, relationships, claimed)


def attributes_of(given: dict[str, Any], what: str) -> dict[str, Any]:
    """Return attributes within the limits, null as "", which removes one. Raises `Unfit`."""
    if len(given) > MOST_ATTRIBUTES:
        raise Unfit(f"it has {len(given)} {what}s; Customer.io takes {MOST_ATTRIBUTES} in one request")
    cleared = False
    for name, value in given.items():
        if len(name) > _NAMES_SURELY_FIT and (size := bytes_over(name, NAME_BYTES)):
            if value in (None, ""):
                cleared = True  # it cannot be there, so there is nothing to remove
                continue
            raise Unfit(f"the name of the {what} {name[:60]!r}… has {size} bytes; {NAME_BYTES} are the limit")
        if type(value) is str:
            if len(value) > _VALUES_SURELY_FIT and (size := bytes_over(value, VALUE_BYTES)):
                raise Unfit(f"the {what} {name!r} has {size} bytes; Customer.io takes {VALUE_BYTES}")
        elif value is None:
            cleared = True
    if cleared:
        kept = ((name, value) for name, value in given.items() if name and not bytes_over(name, NAME_BYTES))
        return {name: "" if value is None else value for name, value in kept}
    given.pop("", None)
    return given


def typed_created_at(given: dict[str, Any], report: Callable[[str], None]) -> None:
    """Put `created_at` in Unix seconds in the place of createdAt; what is no time is left out."""
    for name in ("createdAt", "created_at"):
        if name in given:
            value = given.pop(name)
            seconds = unix_seconds(value)
            if seconds is not None:
                given["created_at"] = seconds
            elif value is not None and value != "":
                report(f"{name} left out: it is neither Unix seconds, milliseconds nor an ISO 8601 time")


def _settle_identifiers(
    given: dict[str, Any], who: Mapping[str, str], report: Callable[[str], None], *, trusted: bool
) -> None:
    """Leave out identifiers that say nothing new, are empty, too long, or not for this source to change."""
    for name in _NOT_OURS:
        if given.pop(name, None) is not None:
            report(f"{name} left out: Customer.io sets it, nobody else")
    for name in _IDENTIFYING:
        if name not in given:
            continue
        fault = _fault(name, given[name], who, trusted=trusted)
        if fault is not None:
            del given[name]
            if fault:
                report(f"{name} left out: {fault}")
        elif name == "id" and "id" in who:
            report("the trait id is another than the userId: Customer.io keeps the id that a person has")


def _fault(name: str, value: Any, who: Mapping[str, str], *, trusted: bool) -> str | None:
    """Say why an identifier is no attribute to send: "" where that needs no words, None where it is one."""
    if value is None or str(value) == who.get(name):
        return ""
    if not isinstance(value, str | int) or isinstance(value, bool) or not str(value).strip():
        return "an empty identifier, or one that is no text, would erase the person's"
    if bytes_over(str(value), IDENTIFIER_BYTES):
        return f"it is longer than {IDENTIFIER_BYTES} bytes"
    if name == "email" and "@" not in str(value):
        return "it is no e-mail address"
    if not trusted and (name == "id" or name in who):
        return "a client source cannot change whom an identifier belongs to"
    return None


def _relationships(given: dict[str, Any], report: Callable[[str], None]) -> list[Any]:
    """Return `cio_relationships` as v2 takes them: a list; v1's object with the action to add becomes one."""
    told = given.pop("cio_relationships")
    if isinstance(told, dict) and told.get("action", "add_relationships") == "add_relationships":
        told = told.get("relationships")
    if isinstance(told, list) and all(isinstance(each, dict) for each in told):
        return told
    report("cio_relationships left out: with an identify they can only be added, as a list of objects")
    return []
