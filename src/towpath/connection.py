"""Connection: a source joined to a destination; `payload` is the one path preview and delivery take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from msgspec import Struct

from .destination import Destination, Payload
from .mapping import ConsentRule, FieldMap, Filter, Mapped
from .message import Message
from .outcome import Rejected, Skipped
from .transform import Transform

PERSON_DELETED = ("User Deleted", "User Suppressed")
"""Track events that tools with Customer.io's semantic events take as orders: both delete the profile."""


class DeleteLimit(Struct, frozen=True):
    """How many people one connection may delete within `within_s` seconds: the larger of the two (D14).

    `share` is a part of the persons its sources know, `count` a number.
    """

    share: float = 0.2
    count: int = 1000
    within_s: float = 3600.0

    def most(self, persons: int) -> int:
        """How many that is when so many persons are known."""
        return max(self.count, int(self.share * persons))


class Deletion(Payload, frozen=True):
    """A payload that deletes a person, or orders it: it passes the delete guard, and is never merged."""


class Connection(Struct, frozen=True, kw_only=True):
    """What flows from which sources to one destination.

    `only` (message types) and `events` (track names), when given, let just those through. `max_age_s` maps an
    event name, a message type or "*" to the age in seconds beyond which a message is skipped as stale (D06).
    A message passes `filter` and `consent` as it was received; then `transform` makes none, one or several
    messages of it, and `fields` maps each of those.

    The deletion of a person passes whatever holds others back (D10): the tool that holds the data must hear
    of it. Only a source that may not delete, and a switch in the message itself, keep it away. `delete_limit`
    only delays it: beyond that many, somebody has to confirm (None: nobody has to).

    `leaving` are those of its sources that were taken off, with the position up to which they still flow.
    """

    name: str
    sources: frozenset[str]
    destination_name: str
    destination: Destination[Any]
    only: frozenset[str] = frozenset()
    events: frozenset[str] = frozenset()
    max_age_s: Mapping[str, float] = {}
    start: str = "now"
    filter: Filter | None = None
    consent: ConsentRule | None = None
    transform: Transform | None = None
    fields: FieldMap | None = None
    delete_limit: DeleteLimit | None = DeleteLimit()
    leaving: Mapping[str, int] = {}

    def payload(self, message: Message, made: Message | None = None) -> Payload | Skipped | Rejected:
        """What this connection would send for a message, or why it sends nothing. Pure.

        `made` is one of the messages that the connection's transform made of it, where it has one; then
        `skip` has let the message pass before it was transformed, and is not asked again.
        """
        if made is None and (skipped := self.skip(message)) is not None:
            return skipped
        mapped = self.map(message if made is None else made)
        if not isinstance(mapped, Mapped):
            return mapped
        payload = self.destination.prepare(mapped.message)
        if mapped.reports and isinstance(payload, Payload):
            payload = msgspec.structs.replace(payload, reports=[*mapped.reports, *payload.reports])
        if isinstance(payload, Payload) and deletes(mapped.message):
            return Deletion(**{name: getattr(payload, name) for name in Payload.__struct_fields__})
        return payload

    def map(self, message: Message) -> Mapped | Skipped | Rejected:
        """The message in its destination's terms, with what there is to report; or why it goes no further."""
        if self.transform is not None:
            refused = untrusted(message) or self._of_another_type(message)
            if refused is not None:
                return refused
        return Mapped(message) if self.fields is None else self.fields.apply(message)

    def skip(self, message: Message) -> Skipped | None:
        """Why this connection leaves a message out before its destination sees it; None when it does not."""
        deletes = message.type == "delete"
        if (other := self._of_another_type(message)) is not None:
            return other
        if self.events and message.type == "track" and message.event not in self.events:
            return Skipped("filtered", f"this connection does not take the event {message.event!r}")
        if not self._switched_on(message):
            return Skipped("filtered", "the message's `integrations` switch this destination off")
        if (refused := untrusted(message)) is not None or deletes:
            return refused
        if self.consent is not None and (denied := self.consent.verdict(message)) is not None:
            return denied
        return None if self.filter is None else self.filter.verdict(message)

    def stale(self, message: Message, now: float) -> Skipped | None:
        """Skip what is older than this connection wants, except deletions; `now` is Unix seconds."""
        if not self.max_age_s or message.type == "delete":
            return None
        limits = [
            self.max_age_s.get(key) for key in (message.event, message.type, "*") if isinstance(key, str)
        ]
        limit = next((found for found in limits if found is not None), None)
        if limit is None or now - message.received_at <= limit:
            return None
        return Skipped("stale", f"older than {limit:g} s")

    def left(self, source: str, position: int) -> Skipped | None:
        """Skip what came of a source after it was taken off."""
        upto = self.leaving.get(source)
        return None if upto is None or position <= upto else Skipped("source removed")

    def _of_another_type(self, message: Message) -> Skipped | None:
        """Skip what `only` does not name, also of what a transform made; never a delete (D10)."""
        if not self.only or message.type in self.only or message.type == "delete":
            return None
        return Skipped("filtered", f"this connection takes only {', '.join(sorted(self.only))}")

    def _switched_on(self, message: Message) -> bool:
        """Read Segment's `integrations`: names in any case; `All` is the default of the unnamed (E025)."""
        switch = message.integrations
        if switch is None or isinstance(switch, bool):
            return switch is not False
        chosen = {name.lower(): value for name, value in switch.items()}
        names = (self.destination_name.lower(), self.destination.name.lower())
        named = next((chosen[name] for name in names if name in chosen), chosen.get("all", True))
        return named is not False


def deletes(message: Message) -> bool:
    """Whether it deletes a person where it is understood."""
    return message.type == "delete" or (message.type == "track" and message.event in PERSON_DELETED)


def untrusted(message: Message) -> Skipped | None:
    """What a copied client key must not do (D13): delete or suppress people, or merge anyone but itself."""
    if message.trust == "server":
        return None
    if message.type == "delete":
        return Skipped(
            "untrusted", "a client source cannot delete people; send it from a source with trust: server"
        )
    if message.type == "alias" and message.previous_id != message.anonymous_id:
        return Skipped("untrusted", "a client source can alias only its own anonymousId")
    return None
