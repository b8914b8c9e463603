"""How kept things look as JSON: the one shape for API, CLI and logs."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import msgspec

from .log import Balance, Dead, Done, Parked, Pause, Refused
from .message import Record, Unreadable, format_time, read


def moment(at: float) -> str:
    """Unix seconds as RFC 3339 in UTC; empty for 0."""
    return format_time(datetime.fromtimestamp(at, UTC)) if at else ""


def raw_json(raw: bytes) -> Any:
    """A kept message's own JSON, or its text where it is none."""
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return raw.decode("utf-8", "replace")


def event(record: Record, *, body: bool = False) -> dict[str, Any]:
    """A kept message: one line of `events list`, or all of it."""
    line: dict[str, Any] = {
        "position": record.position,
        "message_id": record.message_id,
        "source": record.source,
        "received_at": moment(record.envelope.received_at),
    }
    try:
        message = read(record)
        line |= {"type": message.type, "event": message.event or message.name}
        line |= {"user_id": message.user_id, "anonymous_id": message.anonymous_id}
    except Unreadable as error:
        line |= {"type": "unreadable", "event": str(error), "user_id": None, "anonymous_id": None}
    if body:
        line |= {"trust": record.envelope.trust, "ip": record.envelope.ip, "message": raw_json(record.raw)}
    return line


def done(connection: str, row: Done) -> dict[str, Any]:
    """A delivery that has ended."""
    return {
        "connection": connection,
        "position": row.position,
        "state": row.state,
        "reason": row.reason,
        "code": row.code,
        "attempts": row.attempts,
        "ms": row.ms,
        "at": moment(row.at),
    }


def waiting(connection: str, row: Parked) -> dict[str, Any]:
    """A delivery that waits for its next attempt, or for the one before it."""
    return {
        "connection": connection,
        "position": row.position,
        "state": "waiting",
        "reason": row.reason,
        "attempts": row.attempts,
        "due": "when resumed" if row.hold else moment(row.due),
        "message_id": row.record.message_id,
        "person": row.person,
    }


def dead(letter: Dead, *, body: bool = False) -> dict[str, Any]:
    """A dead letter: one line of `dlq list`, or all of it with request and answer."""
    line: dict[str, Any] = {
        "id": letter.id,
        "connection": letter.connection,
        "reason": letter.reason,
        "code": letter.code,
        "attempts": letter.attempts,
        "first_at": moment(letter.first_at),
        "died_at": moment(letter.died_at),
        **event(letter.record, body=body),
    }
    if body:
        line["exchange"] = msgspec.to_builtins(letter.exchange) if letter.exchange else None
    return line


def refused(item: Refused) -> dict[str, Any]:
    """An item that ingest would not take; by its `name` the commands know it from a dead letter."""
    return {
        "id": item.id,
        "name": f"r{item.id}",
        "source": item.source,
        "at": moment(item.at),
        "index": item.index,
        "code": item.code,
        "reason": item.reason,
        "item": item.raw[:2000].decode("utf-8", "replace"),
    }


def balance(row: Balance) -> dict[str, Any]:
    """P2 of one connection."""
    return {
        "connection": row.connection,
        "accepted": row.accepted,
        "delivered": row.delivered,
        "waiting": row.waiting,
        "dead": row.dead,
        "skipped": dict(row.skipped),
        "erased": row.erased,
        "difference": row.difference,
    }


def pause(row: Pause) -> Mapping[str, Any]:
    """A pause in force."""
    return {
        "connection": row.connection,
        "capability": row.capability or "everything",
        "by_hand": row.capability == "*",
        "reason": row.reason,
        "since": moment(row.since),
    }
