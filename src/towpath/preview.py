"""Preview: what a connection would send for a message, without sending anything (design §8, K067)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from urllib.parse import unquote
from uuid import UUID

import msgspec
from msgspec import UNSET, Struct

from .clock import Clock, SystemClock
from .connection import Connection
from .destination import Call, Payload, Scope
from .http import Http, Reply, Request, TransportError, Undelivered
from .mapping import Mapped
from .message import Envelope, Message, Record, Trust, Unreadable, identifier, in_spec_shape, read
from .outcome import Outcome, Rejected, Retry, Skipped


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
        self.calls.append(Call(request.method, request.url, _shown(request.body)))
        return Reply(200, {}, b'{"data":{"id":"preview"}}')

    async def close(self) -> None:
        """Nothing is open."""


def _shown(body: bytes) -> Any:
    """A body as JSON, or as the text it is."""
    try:
        return msgspec.json.decode(body or b"null")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return body.decode("utf-8", "replace")


def _answer(answer: Scripted) -> Reply:
    if answer.network_error is not None:
        raise TransportError(answer.network_error, sent=False)
    return Reply(answer.status, {}, b"" if answer.json is UNSET else msgspec.json.encode(answer.json))


class Given(Struct, frozen=True):
    """A line to preview; without `lookups` the requests are shown with both branches of each look-up.

    `skipped` is why the connection leaves the message out before its transform, mapping and destination.
    """

    message: Message
    lookups: Sequence[Lookup] | None = None
    skipped: Skipped | None = None


UNREADABLE = (
    Unreadable,
    msgspec.DecodeError,
    msgspec.ValidationError,
    UnicodeDecodeError,
    RecursionError,
)


async def preview(connection: Connection, line: bytes, clock: Clock | None = None) -> dict[str, Any]:
    """One JSON line in, one preview out.

    `{"message_id", "outcome", "requests": [{"method", "url", "json"}], "reports", "reason"}`. A line is a
    message, or `{"message": …}` with `lookups`, to rehearse them with given answers, `source` and `trust`.
    Where the connection filters, transforms or maps, `stages` shows the message at each step; where a
    transform makes several messages, `deliveries` holds what becomes of each. Raises nothing.
    """
    clock = clock or SystemClock()
    try:
        given = _given(line, connection, clock)
    except UNREADABLE as error:
        return _line("", Rejected(f"the line cannot be read: {error}"))
    message = given.message
    if not message.type:
        refusal = "the message has no type; give identify, track, page, screen, group or alias"
        return _line(message.message_id, Rejected(refusal))
    given = msgspec.structs.replace(given, skipped=connection.skip(message))
    stages = _received(connection, message)
    answer = await _passed(connection, given, stages, clock)
    return {**answer, "stages": stages} if stages else answer


def _given(line: bytes, connection: Connection, clock: Clock) -> Given:
    """Read a line; a message without an id gets one, as from the server. Raises one of `UNREADABLE`."""
    fields = msgspec.json.decode(line)
    around = fields if isinstance(fields, dict) and "message" in fields else {}
    body = around.get("message", fields)
    lookups = msgspec.convert(around["lookups"], list[Lookup]) if "lookups" in around else None
    source = msgspec.convert(around.get("source", min(connection.sources, default="preview")), str)
    trust = msgspec.convert(around.get("trust", "server"), Trust)
    given = identifier(body.get("messageId")) if isinstance(body, dict) else None
    name = given or str(UUID(bytes=clock.token(16), version=4))
    raw = msgspec.json.encode(body) if around else line
    return Given(read(Record(0, name, Envelope(source, clock.now(), trust), raw)), lookups)


def _received(connection: Connection, message: Message) -> dict[str, Any]:
    """The first stages: the message as received, and what consent and filter say of it; empty without any."""
    steps = (connection.consent, connection.filter, connection.transform, connection.fields)
    if not any(step is not None for step in steps):
        return {}
    stages: dict[str, Any] = {"received": in_spec_shape(message)}
    for name, step in (("consent", connection.consent), ("filter", connection.filter)):
        if step is not None:
            refused = None if message.type == "delete" else step.verdict(message)
            stages[name] = "passed" if refused is None else refused.detail
    return stages


async def _passed(
    connection: Connection, given: Given, stages: dict[str, Any], clock: Clock
) -> dict[str, Any]:
    """What becomes of a message, by way of the transform where there is one."""
    message = given.message
    if connection.transform is None or given.skipped is not None:
        return await _delivery(connection, given, None, stages, clock)
    (made,) = await connection.transform.make([message])
    stages["transformed"] = [in_spec_shape(each) for each in made.messages]
    if made.failure:
        why = made.detail or made.failure  # whoever previews a message may read it
        return _line(message.message_id, Rejected(why) if made.final else Retry(why))
    if not made.messages:
        return _line(message.message_id, Skipped("transformed away", "the transform returned nothing for it"))
    deliveries = [await _delivery(connection, given, each, stages, clock) for each in made.messages]
    return _together(message.message_id, deliveries, made.reports)


def _together(name: str, deliveries: list[dict[str, Any]], reports: Sequence[str]) -> dict[str, Any]:
    """One line for all that a transform made of one message."""
    if len(deliveries) == 1:
        return {**deliveries[0], "reports": [*reports, *deliveries[0]["reports"]]}
    outcomes = [each["outcome"] for each in deliveries]
    reasons = dict.fromkeys(each["reason"] for each in deliveries if each["reason"])
    return {
        "message_id": name,
        "outcome": "request" if "request" in outcomes else outcomes[0],
        "requests": [call for each in deliveries for call in each["requests"]],
        "reports": [*reports, *(report for each in deliveries for report in each["reports"])],
        "reason": "; ".join(reasons),
        "deliveries": deliveries,
    }


async def _delivery(
    connection: Connection, given: Given, made: Message | None, stages: dict[str, Any], clock: Clock
) -> dict[str, Any]:
    """What one delivery would send."""
    sent = given.message if made is None else made
    verdict = _prepare(connection, given.message, made)
    if connection.fields is not None and given.skipped is None:
        mapped = connection.map(sent)
        shown = in_spec_shape(mapped.message) if isinstance(mapped, Mapped) else None
        stages.setdefault("mapped", []).append(shown)
    if not isinstance(verdict, Payload):
        return _line(sent.message_id, verdict)
    if given.lookups is None or not verdict.look_ups:
        return _line(sent.message_id, None, verdict.requests, verdict.reports)
    return await _rehearse(connection, sent.message_id, verdict, given.lookups, clock)


def _prepare(connection: Connection, message: Message, made: Message | None) -> Payload | Skipped | Rejected:
    try:
        return connection.payload(message, made)
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
