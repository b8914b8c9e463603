"""One event's bytes as an entry of the log, or why not; `message.read` can read all that is accepted."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from typing import Any, NoReturn
from uuid import UUID

import msgspec

from ..clock import Clock
from ..log import Entry
from ..message import KINDS, identifier
from .limits import IngestLimits
from .split import deeper
from .verify import Verifier

NO_ID = "request neither has anonymousId nor userId"
_MESSAGE_ID_LENGTH = 1024
_NOT_JSON = re.compile(rb"[:,\[\s]\s*[-+]?(?:NaN|Infinity)")
_SURROGATE = re.compile(rb"\\u[dD][89a-fA-F]")

_decode = msgspec.json.Decoder().decode


class Bad(ValueError):
    """An event that is refused: a stable code, and a reason for people."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class Reader:
    """Judges events, one at a time, by the limits in force."""

    def __init__(self, limits: IngestLimits, clock: Clock) -> None:
        self._event_bytes = limits.event_bytes
        self._depth = limits.depth
        self._clock = clock

    def entry(
        self,
        raw: bytes,
        kind: str = "",
        verifier: Verifier | None = None,
        context: Mapping[str, Any] | None = None,
    ) -> Entry:
        """Return the event as an entry; `kind` is the path's, `context` the batch's. Raises `Bad`."""
        fields = self._fields(raw)
        given = fields.get("type")
        # The usual strings are looked at here: a call each would cost more than all that is checked.
        if not kind and (type(given) is not str or given not in KINDS):
            _check_kind(given)
        if identifier(fields.get("userId")) is None and identifier(fields.get("anonymousId")) is None:
            raise Bad("no_id", NO_ID)
        if verifier and (doubt := verifier.doubt(fields, context or {}, kind or str(given).strip().lower())):
            raise Bad("unverified", doubt)
        given = fields.get("messageId")
        message_id = given.strip() if type(given) is str else ""
        if not 0 < len(message_id) <= _MESSAGE_ID_LENGTH:
            message_id = self._message_id(given)
        return Entry(message_id, raw)

    def _fields(self, raw: bytes) -> dict[str, Any]:
        """Decode the whole event: a value nobody reads today must not stop who reads it tomorrow."""
        if len(raw) > self._event_bytes:
            raise Bad("too_large", f"event is {len(raw)} bytes, more than {self._event_bytes}")
        if deeper(raw, self._depth):
            raise Bad("too_deep", f"event nests deeper than {self._depth} levels")
        try:
            fields = _decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            _explain(raw, error)
        if type(fields) is not dict:
            raise Bad("not_an_object", "event is not a JSON object")
        return fields

    def _message_id(self, given: Any) -> str:
        found = identifier(given)
        if found is None:
            return str(UUID(bytes=self._clock.token(16), version=4))
        if len(found) <= _MESSAGE_ID_LENGTH:
            return found
        # Cut, but still different for different ids, so that nothing is taken for a duplicate.
        digest = hashlib.sha256(found.encode()).hexdigest()
        return f"{found[: _MESSAGE_ID_LENGTH - len(digest) - 1]}~{digest}"


def _check_kind(given: Any) -> None:
    if type(given) is str and given.strip().lower() in KINDS:
        return
    if given is None or given == "":
        raise Bad("no_type", "event has no type")
    raise Bad("unknown_type", f"event type {str(given)[:40]!r} is none of {', '.join(sorted(KINDS))}")


def _explain(raw: bytes, error: Exception) -> NoReturn:
    if isinstance(error, UnicodeDecodeError):
        raise Bad("invalid_text", "event is not valid UTF-8") from error
    if isinstance(error, RecursionError):
        raise Bad("too_deep", "event nests too deep") from error
    if isinstance(error, msgspec.ValidationError):
        raise Bad("invalid_number", "event holds a number too large for JSON readers") from error
    if _NOT_JSON.search(raw):
        raise Bad("invalid_json", "invalid json: NaN and Infinity are not JSON") from error
    if _SURROGATE.search(raw):
        raise Bad("invalid_text", "event holds half of a surrogate pair, which is not text") from error
    raise Bad("invalid_json", f"invalid json: {error}") from error
