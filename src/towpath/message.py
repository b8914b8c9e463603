"""Message: one Segment-spec call, and the record it is kept as: raw bytes with an envelope beside them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Literal, TypeAlias, get_args

import msgspec
from msgspec import Struct

LAST_MOMENT = datetime(9999, 12, 31, 23, 59, 59, 999_000)  # noqa: DTZ001 - compared without a zone

Kind: TypeAlias = Literal["identify", "track", "page", "screen", "group", "alias", "delete"]
KINDS: frozenset[str] = frozenset(get_args(Kind))
Trust: TypeAlias = Literal["client", "server"]


class Envelope(Struct, frozen=True, array_like=True, gc=False):
    """What towpath knows about the request that brought a message; kept beside the bytes, never inside them.

    `received_at` is Unix seconds. `context`, `integrations` and `sent_at` are the batch-level values of the
    request as raw JSON; they fill in for events that lack their own. `type` is the call of a typed path.
    """

    source: str
    received_at: float
    trust: Trust = "client"
    type: str = ""
    ip: str = ""
    write_key_id: str = ""
    sent_at: str = ""
    context: bytes = b""
    integrations: bytes = b""


class Record(Struct, frozen=True, gc=False):
    """One kept message: its position in the log, its id, its envelope and its bytes as received."""

    position: int
    message_id: str
    envelope: Envelope
    raw: bytes

    @property
    def source(self) -> str:
        """The name of the source that took it in."""
        return self.envelope.source


class Unreadable(ValueError):
    """A kept message can no longer be read; says why. It becomes a dead letter, never a crash."""


class Message(Struct, frozen=True, kw_only=True, rename="camel"):
    """One Segment-spec call as a destination sees it; never changed afterwards.

    Ids are trimmed strings or None. `event`, `name` and `properties` hold what the client sent, whatever its
    JSON type: a destination says what it needs. `traits` and `context` are always objects.
    """

    type: str = ""
    message_id: str = ""
    user_id: str | None = None
    anonymous_id: str | None = None
    previous_id: str | None = None
    group_id: str | None = None
    event: Any = None
    name: Any = None
    category: Any = None
    properties: Any = None
    traits: dict[str, Any] = {}
    context: dict[str, Any] = {}
    integrations: dict[str, Any] | bool | None = None
    original_timestamp: Any = None
    sent_at: Any = None
    timestamp: Any = None
    source: str = ""
    trust: Trust = "client"
    received_at: float = 0.0

    @property
    def context_traits(self) -> dict[str, Any]:
        """`context.traits` where it is an object, else an empty one."""
        found = self.context.get("traits")
        return found if type(found) is dict else {}

    @property
    def occurred_at(self) -> datetime:
        """When it happened by the server's clock: `timestamp`, else received − (sent − original) (E023)."""
        received = datetime.fromtimestamp(self.received_at, UTC)
        if (given := parse_time(self.timestamp)) is not None:
            return given
        sent, original = parse_time(self.sent_at) or received, parse_time(self.original_timestamp) or received
        try:
            return received - (sent - original)
        except OverflowError:
            return received


def parse_time(value: Any) -> datetime | None:
    """An RFC 3339 / ISO 8601 string as an aware datetime in UTC; None when it is none."""
    if not isinstance(value, str) or not value:
        return None
    try:
        parsed = datetime.fromisoformat(value)
        return parsed.replace(tzinfo=UTC) if parsed.tzinfo is None else parsed.astimezone(UTC)
    except (ValueError, OverflowError):
        return None


def format_time(moment: datetime) -> str:
    """RFC 3339 in UTC with milliseconds, as the spec's clients write it."""
    whole = moment.astimezone(UTC).replace(tzinfo=None)
    if whole < LAST_MOMENT:
        whole += timedelta(microseconds=500)
    return whole.isoformat(timespec="milliseconds") + "Z"


def in_spec_shape(message: Message) -> dict[str, Any]:
    """Return a message by the spec's names, times by the server's clock, without fields it does not have."""
    fields = msgspec.to_builtins(message)
    for internal in ("source", "trust"):
        del fields[internal]
    received = format_time(datetime.fromtimestamp(message.received_at, UTC))
    fields |= {"timestamp": format_time(message.occurred_at), "receivedAt": received}
    return {name: value for name, value in fields.items() if value is not None}


def identifier(value: Any) -> str | None:
    """An id of any JSON scalar as a trimmed string; None when missing, empty or not a scalar (E021)."""
    if isinstance(value, str):
        return value.strip() or None
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return msgspec.json.encode(value).decode()
    return None


_decode = msgspec.json.Decoder(Message).decode
_decode_any = msgspec.json.Decoder().decode
_set = msgspec.structs.force_setattr


def read(record: Record) -> Message:
    """The message of a record, with the envelope's values filled in. Raises `Unreadable`."""
    raw, envelope = record.raw, record.envelope
    try:
        message = _decode(raw)
    except msgspec.ValidationError:
        message = _read_loosely(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise Unreadable(str(error)) from error
    _set(message, "type", envelope.type or message.type.strip().lower())
    _set(message, "message_id", record.message_id)
    _set(message, "user_id", identifier(message.user_id))
    _set(message, "anonymous_id", identifier(message.anonymous_id))
    if message.previous_id is not None:
        _set(message, "previous_id", identifier(message.previous_id))
    if message.group_id is not None:
        _set(message, "group_id", identifier(message.group_id))
    _set(message, "source", envelope.source)
    _set(message, "trust", envelope.trust)
    _set(message, "received_at", envelope.received_at)
    if envelope.sent_at and message.sent_at is None:
        _set(message, "sent_at", envelope.sent_at)
    if envelope.context:
        _set(message, "context", {**_object(_decode_any(envelope.context)), **message.context})
    if envelope.integrations and message.integrations is None:
        _set(message, "integrations", _object(_decode_any(envelope.integrations)))
    return message


def _read_loosely(raw: bytes) -> Message:
    """A message whose fields have other JSON types than the spec's: ids become strings, non-objects empty."""
    try:
        fields = _decode_any(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError) as error:
        raise Unreadable(str(error)) from error
    if not isinstance(fields, dict):
        raise Unreadable(f"a message must be a JSON object, not {type(fields).__name__}")
    switch = fields.get("integrations")
    return Message(
        type=identifier(fields.get("type")) or "",
        user_id=identifier(fields.get("userId")),
        anonymous_id=identifier(fields.get("anonymousId")),
        previous_id=identifier(fields.get("previousId")),
        group_id=identifier(fields.get("groupId")),
        event=fields.get("event"),
        name=fields.get("name"),
        category=fields.get("category"),
        properties=fields.get("properties"),
        traits=_object(fields.get("traits")),
        context=_object(fields.get("context")),
        integrations=switch if isinstance(switch, dict | bool) else None,
        original_timestamp=fields.get("originalTimestamp"),
        sent_at=fields.get("sentAt"),
        timestamp=fields.get("timestamp"),
    )


def _object(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}
