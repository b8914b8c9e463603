"""Preview: what a connection would send for a message, without sending anything (design §8, K067)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote

import msgspec
from msgspec import UNSET, Struct

from .clock import Clock, SystemClock
from .connection import Connection
from .destination import Call, Payload, Scope
from .http import Http, Reply, Request, TransportError, Undelivered
from .message import Envelope, Message, Record, Unreadable, identifier, read
from .outcome import Outcome, Rejected, Skipped


class Scripted(Struct, frozen=True):
    """What a look-up is answered with; with `network_error` there is no answer."""

    status: int = 200
    json: Any = UNSET
    network_error: str | None = None


class Lookup(Struct, frozen=True):
    """One look-up and the answer given by the user."""

    url: str
    answer: Scripted
    method: str = "GET"


class Forgetful:
    """A memory that remembers nothing, so that a preview never depends on an earlier one."""

    def find(self, key: str) -> str | None:
        """Nothing is known."""
        return None

    def keep(self, key: str, value: str, ttl_s: float) -> None:
        """Do nothing."""

    def drop(self, key: str) -> None:
        """Do nothing."""


class Rehearsal:
    """A transport that answers look-ups from a script, and records what would be sent."""

    def __init__(self, lookups: Sequence[Lookup]) -> None:
        self.calls: list[Call] = []
        self._left = list(lookups)

    async def send(self, request: Request, *, timeout_s: float) -> Reply:
        """Answer a scripted look-up; take anything else as written."""
        for lookup in self._left:
            if lookup.method == request.method and unquote(lookup.url) == unquote(request.url):
                self._left.remove(lookup)
                return _answer(lookup.answer)
        if request.method == "GET":
            return Reply(404, {}, b"{}")
        self.calls.append(Call(request.method, request.url, msgspec.json.decode(request.body or b"null")))
        return Reply(200, {}, b'{"data":{"id":"preview"}}')

    async def close(self) -> None:
        """Nothing is open."""


def _answer(answer: Scripted) -> Reply:
    if answer.network_error is not None:
        raise TransportError(answer.network_error, sent=False)
    return Reply(answer.status, {}, b"" if answer.json is UNSET else msgspec.json.encode(answer.json))


async def preview(connection: Connection, line: bytes, clock: Clock | None = None) -> dict[str, Any]:
    """One JSON line in, one preview out.

    `{"message_id", "outcome", "requests": [{"method", "url", "json"}], "reports", "reason"}`. A line is a
    message, or `{"message": …, "lookups": […]}` to rehearse look-ups with given answers. Raises nothing.
    """
    clock = clock or SystemClock()
    try:
        fields = msgspec.json.decode(line)
        body = fields.get("message", fields) if isinstance(fields, dict) else fields
        raw = msgspec.json.encode(body) if body is not fields else line
        lookups = msgspec.convert(fields["lookups"], list[Lookup]) if _scripted(fields) else None
        name = identifier(body.get("messageId")) or "" if isinstance(body, dict) else ""
        message = read(Record(0, name, Envelope("preview", clock.now(), "server"), raw))
    except (
        Unreadable,
        msgspec.DecodeError,
        msgspec.ValidationError,
        UnicodeDecodeError,
        RecursionError,
    ) as error:
        return _line("", Rejected(f"the line cannot be read: {error}"))
    verdict = _prepare(connection, message)
    if not isinstance(verdict, Payload):
        return _line(message.message_id, verdict)
    if lookups is None or not verdict.look_ups:
        return _line(message.message_id, None, verdict.requests, verdict.reports)
    return await _rehearse(connection, message.message_id, verdict, lookups, clock)


def _scripted(fields: Any) -> bool:
    return isinstance(fields, dict) and "message" in fields and "lookups" in fields


def _prepare(connection: Connection, message: Message) -> Payload | Skipped | Rejected:
    if not message.type:
        return Rejected("the message has no type; give identify, track, page, screen, group or alias")
    try:
        return connection.payload(message)
    except Exception as error:
        return _failed(error)


def _failed(error: Exception) -> Rejected:
    """The destination's code failed, as it would at delivery."""
    return Rejected(f"the destination's code failed: {type(error).__name__}: {error}")


async def _rehearse(
    connection: Connection, message_id: str, payload: Payload, lookups: Sequence[Lookup], clock: Clock
) -> dict[str, Any]:
    rehearsal = Rehearsal(lookups)
    scope = Scope(Http(rehearsal, clock), clock, Forgetful())
    try:
        await connection.destination.deliver(payload, scope)
    except Undelivered as error:
        return _line(message_id, error.outcome)
    except Exception as error:
        return _line(message_id, _failed(error))
    return _line(message_id, None, rehearsal.calls, payload.reports)


def _line(
    message_id: str, outcome: Outcome | None, requests: Sequence[Call] = (), reports: Sequence[str] = ()
) -> dict[str, Any]:
    reason = getattr(outcome, "detail", "") or getattr(outcome, "reason", "")
    if isinstance(outcome, Skipped) and outcome.detail:
        reason = f"{outcome.reason}: {outcome.detail}"
    return {
        "message_id": message_id,
        "outcome": "request" if outcome is None else type(outcome).__name__.lower(),
        "requests": [msgspec.to_builtins(call) for call in requests],
        "reports": list(reports),
        "reason": reason,
    }
