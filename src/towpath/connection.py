"""Connection: a source joined to a destination; `payload` is the one path preview and delivery take."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import msgspec
from msgspec import Struct

from .destination import Destination, Payload
from .mapping import ConsentRule, FieldMap, Filter, Mapped
from .message import Message
from .outcome import Rejected, Skipped
from .transform import Transform


class Connection(Struct, frozen=True, kw_only=True):
    """What flows from which sources to one destination.

    `only` (message types) and `events` (track names), when given, let just those through. `max_age_s` maps an
    event name, a message type or "*" to the age in seconds beyond which a message is skipped as stale (D06).
    A message passes `filter` and `consent` as it was received; then `transform` makes none, one or several
    messages of it, and `fields` maps each of those.
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

    def payload(self, message: Message, made: Message | None = None) -> Payload | Skipped | Rejected:
        """What this connection would send for a message, or why it sends nothing. Pure.

        `made` is one of the messages that the connection's transform made of it, where it has one.
        """
        skipped = self.skip(message)
        if skipped is not None:
            return skipped
        mapped = self.map(message if made is None else made)
        if not isinstance(mapped, Mapped):
            return mapped
        payload = self.destination.prepare(mapped.message)
        if mapped.reports and isinstance(payload, Payload):
            return msgspec.structs.replace(payload, reports=[*mapped.reports, *payload.reports])
        return payload

    def map(self, message: Message) -> Mapped | Skipped | Rejected:
        """The message in its destination's terms, with what there is to report; or why it goes no further."""
        if self.transform is not None and (refused := untrusted(message)) is not None:
            return refused
        return Mapped(message) if self.fields is None else self.fields.apply(message)

    def skip(self, message: Message) -> Skipped | None:
        """Why this connection leaves a message out before its destination sees it; None when it does not."""
        if self.only and message.type not in self.only:
            return Skipped("filtered", f"this connection takes only {', '.join(sorted(self.only))}")
        if self.events and message.type == "track" and message.event not in self.events:
            return Skipped("filtered", f"this connection does not take the event {message.event!r}")
        if not self._switched_on(message):
            return Skipped("filtered", "the message's `integrations` switch this destination off")
        if (refused := untrusted(message)) is not None:
            return refused
        if self.consent is not None and (denied := self.consent.verdict(message)) is not None:
            return denied
        return None if self.filter is None else self.filter.verdict(message)

    def stale(self, message: Message, now: float) -> Skipped | None:
        """Skip a message that is older than this connection wants; `now` is Unix seconds."""
        if not self.max_age_s:
            return None
        limits = [
            self.max_age_s.get(key) for key in (message.event, message.type, "*") if isinstance(key, str)
        ]
        limit = next((found for found in limits if found is not None), None)
        if limit is None or now - message.received_at <= limit:
            return None
        return Skipped("stale", f"older than {limit:g} s")

    def _switched_on(self, message: Message) -> bool:
        """Read Segment's `integrations`: names in any case; `All` is the default of the unnamed (E025)."""
        switch = message.integrations
        if switch is None or isinstance(switch, bool):
            return switch is not False
        chosen = {name.lower(): value for name, value in switch.items()}
        names = (self.destination_name.lower(), self.destination.name.lower())
        named = next((chosen[name] for name in names if name in chosen), chosen.get("all", True))
        return named is not False


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


def destinations_of(connections: Collection[Connection]) -> Mapping[str, Destination[Any]]:
    """Each destination by its configured name."""
    return {connection.destination_name: connection.destination for connection in connections}
