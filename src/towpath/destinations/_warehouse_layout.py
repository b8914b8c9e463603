"""The layout of events in a warehouse, as users of Segment and RudderStack know it: a message as its rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Literal, TypeAlias

import msgspec
from msgspec import Struct

from towpath.message import Message, format_time, identifier, parse_time
from towpath.warehouse import Column
from towpath.warehouse.message_events import MESSAGE_EVENTS, row_of

from ._warehouse_flat import Flat, Flattening, Privacy
from ._warehouse_names import table_of

Part: TypeAlias = Literal[
    "tracks", "events", "identifies", "users", "pages", "screens", "groups", "aliases", "deliveries"
]
USERS: Part = "users"
DELIVERIES: Part = "deliveries"

ID = Column("id", "text", "The messageId.")
ANONYMOUS = Column("anonymous_id", "text", "The anonymousId.", personal=True)
USER = Column("user_id", "text", "The userId.", personal=True)
RECEIVED = Column("received_at", "time", "When towpath took it in.")
TIMESTAMP = Column("timestamp", "time", "When it happened, by the server's clock.")
_TIMES = (
    Column("original_timestamp", "time", "When it happened, by the sender's clock."),
    Column("sent_at", "time", "When it was sent, by the sender's clock."),
    RECEIVED,
    TIMESTAMP,
)
_COMMON = (ID, ANONYMOUS, USER, *_TIMES)
_EVENT = (
    Column("event", "text", "The event's name as its table's."),
    Column("event_text", "text", "The event's name as it was sent."),
)
_NAMED = (
    Column("name", "text", "The name of the page or screen."),
    Column("category", "text", "Its category."),
)
_PROPERTIES = Column(
    "properties", "json", "Its properties, where no table of its own has them.", personal=True
)
STANDARD: dict[Part, tuple[Column, ...]] = {
    "tracks": (*_COMMON, *_EVENT, _PROPERTIES),
    "events": (*_COMMON, *_EVENT),
    "identifies": _COMMON,
    "users": (Column("id", "text", "The userId.", personal=True), RECEIVED, TIMESTAMP),
    "pages": (*_COMMON, *_NAMED),
    "screens": (*_COMMON, *_NAMED),
    "groups": (*_COMMON, Column("group_id", "text", "The groupId.")),
    "aliases": (
        *_COMMON,
        Column("previous_id", "text", "The id that was joined to the userId.", personal=True),
    ),
    "deliveries": MESSAGE_EVENTS.columns,
}
TAKEN = {part: frozenset(column.name for column in columns) for part, columns in STANDARD.items()}
PERSONS: dict[Part, tuple[str, ...]] = {
    **dict.fromkeys(STANDARD, ("user_id", "anonymous_id")),
    "users": ("id",),
    "aliases": ("user_id", "previous_id"),
    "deliveries": MESSAGE_EVENTS.persons,
}
ABOUT: dict[Part, str] = {
    "tracks": "Every track event, without its properties.",
    "events": "Every track event of one name, with its properties.",
    "identifies": "Every identify call, with its traits.",
    "users": "The latest traits of every user.",
    "pages": "Every page call.",
    "screens": "Every screen call.",
    "groups": "Every group call.",
    "aliases": "Every alias call.",
    "deliveries": MESSAGE_EVENTS.about,
}
_encode = msgspec.json.Encoder().encode
_LISTED: dict[str, Part] = {"page": "pages", "screen": "screens", "group": "groups", "alias": "aliases"}


def hashes(privacy: Privacy, part: Part, column: str) -> bool:
    """Whether a column holds hashes: where `user_id` does, so does the key of `users`."""
    return privacy.hashes("user_id" if (part, column) == (USERS, "id") else column)


class Row(Struct, frozen=True):
    """A row of one table: its standard values, the others with their columns, and what has no column."""

    table: str
    part: Part
    workspace: str
    standard: dict[str, Any]
    values: dict[str, Flat]
    rest: dict[str, Any]

    @property
    def id(self) -> str:
        """Its key."""
        found: str = self.standard["id"]
        return found

    def shown(self) -> dict[str, Any]:
        """The row as preview shows it."""
        row = {**self.standard, **{name: flat.value for name, flat in self.values.items()}}
        return {**row, "_workspace": self.workspace, **({"_extra": self.rest} if self.rest else {})}


class Common(Struct, frozen=True):
    """What the rows of a message share: ids and times, times that are none, and the context."""

    workspace: str
    standard: dict[str, Any]
    odd: dict[str, Any]
    context: tuple[Flat, ...]


class Layout(Struct, frozen=True):
    """Which tables there are, and how deep objects are entered."""

    parts: frozenset[Part]
    levels: int
    prefix: str = ""
    privacy: Privacy = Privacy()

    def rows(self, message: Message) -> Sequence[Row]:
        """Every row of a message; none where its tables are off."""
        rows = (*self._rows(message), *self._reported(message))
        return [row for row in rows if row.part in self.parts]

    def _reported(self, message: Message) -> Iterator[Row]:
        """What a reporting webhook told of a delivery; not what somebody with a page's key claims."""
        record = row_of(message) if message.trust == "server" else None
        if record is not None:
            kept = {name: value for name, value in record.items() if not self.privacy.excludes(name)}
            yield Row(MESSAGE_EVENTS.name, DELIVERIES, message.source, kept, {}, {})

    def _rows(self, message: Message) -> Iterator[Row]:
        common = self._common(message)
        if message.type == "track":
            yield from self._track(message, common)
        elif message.type == "identify":
            yield from self._identify(message, common)
        elif message.type in ("page", "screen"):
            part = _LISTED[message.type]
            named = {"name": _text(message.name), "category": _text(message.category)}
            yield self._row(part, common, named, self._given(message, part))
        elif message.type == "group":
            traits = self._flattening("traits", "groups").flatten(message.traits)
            yield self._row("groups", common, {"group_id": message.group_id}, [*traits])
        elif message.type == "alias":
            yield self._row("aliases", common, {"previous_id": message.previous_id}, [])

    def _track(self, message: Message, common: Common) -> Iterator[Row]:
        """A row of `tracks`, and one of the event's table, which has the properties."""
        text = identifier(message.event)
        event = {"event": table_of(text) if text else None, "event_text": _text(message.event)}
        if text and "events" in self.parts:
            own = self._given(message, "events")
            yield self._row("events", common, event, own, table_of(text, self.prefix))
            yield self._row("tracks", common, event, [])
            return
        properties = self._flattening("properties", "tracks").shown(message.properties)
        yield self._row("tracks", common, {**event, "properties": properties or None}, [])

    def _identify(self, message: Message, common: Common) -> Iterator[Row]:
        """A row of `identifies`; and that of the user, where there is one."""
        given = {**message.context_traits, **message.traits}
        traits = self._flattening("traits", "identifies").flatten(given)
        yield self._row("identifies", common, {}, [*traits])
        if message.user_id and not self.privacy.excludes("user_id"):
            times = {name: common.standard[name] for name in ("received_at", "timestamp")}
            own = Common(common.workspace, {"id": message.user_id, **times}, common.odd, ())
            yield self._row("users", own, {}, [*self._flattening("traits", "users").flatten(given)])

    def _given(self, message: Message, part: Part) -> list[Flat]:
        """The properties; those that are no object as one value."""
        properties = message.properties if message.properties is not None else {}
        given = properties if type(properties) is dict else {"properties": properties}
        return [*self._flattening("properties", part).flatten(given)]

    def _flattening(self, named: str, part: Part) -> Flattening:
        apart = "property_" if named == "properties" else "trait_"
        return Flattening(named, self.levels, self.privacy, apart=apart, taken=TAKEN[part])

    def _common(self, message: Message) -> Common:
        context = Flattening("context", self.levels, self.privacy, prefix="context_")
        return Common(
            message.source,
            self._allowed(_ids_and_times(message)),
            _odd_times(message),
            tuple(context.flatten(message.context)),
        )

    def _allowed(self, given: dict[str, Any]) -> dict[str, Any]:
        return {name: value for name, value in given.items() if not self.privacy.excludes(name)}

    def _row(
        self, part: Part, common: Common, own: dict[str, Any], flats: Sequence[Flat], table: str = ""
    ) -> Row:
        rest = dict(common.odd)
        values = _placed([*flats, *common.context], rest)
        standard = {**common.standard, **self._allowed(own)}
        return Row(table or self.prefix + part, part, common.workspace, standard, values, rest)


def without_own(rows: Sequence[Row]) -> list[Row] | None:
    """The rows of an event that gets no table of its own: `tracks` has its properties, where there is one."""
    own = next(row for row in rows if row.part == "events")
    tracks = next((row for row in rows if row.part == "tracks"), None)
    if tracks is None:
        return None
    standard = {**tracks.standard, "properties": _nested(own) or None}
    together = msgspec.structs.replace(tracks, standard=standard, rest={**own.rest, **tracks.rest})
    return [together if row is tracks else row for row in rows if row is not own]


def _nested(row: Row) -> dict[str, Any]:
    """The properties of a row as they lay in each other; what may only be kept as a hash is left out."""
    found: dict[str, Any] = {}
    for flat in row.values.values():
        if flat.path[0] != "properties" or flat.hashed:
            continue
        place = found
        for key in flat.path[1:-1]:
            place = place.setdefault(key, {})
        place[flat.path[-1]] = flat.value
    return found


def _ids_and_times(message: Message) -> dict[str, Any]:
    sent, original = parse_time(message.sent_at), parse_time(message.original_timestamp)
    return {
        "id": message.message_id,
        "anonymous_id": message.anonymous_id,
        "user_id": message.user_id,
        "original_timestamp": None if original is None else format_time(original),
        "sent_at": None if sent is None else format_time(sent),
        "received_at": format_time(datetime.fromtimestamp(message.received_at, UTC)),
        "timestamp": format_time(message.occurred_at),
    }


def _odd_times(message: Message) -> dict[str, Any]:
    """What was sent as a time and is none."""
    given = {
        "originalTimestamp": message.original_timestamp,
        "sentAt": message.sent_at,
        "timestamp": message.timestamp,
    }
    return {name: one for name, one in given.items() if one is not None and parse_time(one) is None}


def _placed(flats: Sequence[Flat], rest: dict[str, Any]) -> dict[str, Flat]:
    """Values by column; of several, the one whose key is the column's name has it, or the first."""
    values: dict[str, Flat] = {}
    for flat in flats:
        other = values.get(flat.column)
        if other is None:
            values[flat.column] = flat
            continue
        kept, left = (flat, other) if flat.path[-1] == flat.column else (other, flat)
        values[flat.column] = kept
        if not left.hashed and _encode(left.value) != _encode(kept.value):  # 0 is not False
            rest[".".join(left.path)] = left.value
    return values


def _text(value: Any) -> str | None:
    """A name as text: JSON where it is something else."""
    return value if value is None or type(value) is str else msgspec.json.encode(value).decode()
