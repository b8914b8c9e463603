"""One request's verdicts: the events for the log, and those refused by index, code and reason."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
from msgspec import Raw

from ..log import Entry, Refused
from ..message import Envelope, identifier
from .keys import Access
from .limits import IngestLimits
from .parse import Bad, Reader
from .split import Batch, deeper

WHOLE = -1
"""The index of a refusal that concerns the request as a whole, not one event of it."""

_TURN = 500
_SCALAR_BYTES = 1024


class Intake:
    """Collects what became of the events of one request from one source."""

    def __init__(
        self, access: Access, received_at: float, ip: str, reader: Reader, limits: IngestLimits
    ) -> None:
        self.access = access
        self.entries: list[Entry] = []
        self.refused: list[Refused] = []
        self._received_at = received_at
        self._ip = ip
        self._reader = reader
        self._limits = limits
        self._sent_at = ""
        self._context: dict[str, Any] = {}
        self._context_bytes = b""
        self._integrations_bytes = b""

    def envelope(self, kind: str = "") -> Envelope:
        """What is kept beside the events; `kind` is the call of a typed path."""
        return Envelope(
            source=self.access.source,
            received_at=self._received_at,
            trust=self.access.settings.trust,
            type=kind,
            ip=self._ip,
            write_key_id=self.access.write_key_id,
            sent_at=self._sent_at,
            context=self._context_bytes,
            integrations=self._integrations_bytes,
        )

    def judge(self, raw: bytes, kind: str) -> None:
        """Take one event of this kind in, or refuse it."""
        try:
            self.entries.append(self._reader.entry(raw, kind, self.access.verifier, self._context))
        except Bad as bad:
            self.refuse(bad, raw, 0)

    async def judge_batch(self, batch: Batch) -> None:
        """Judge each event of a batch by itself, and keep what stands beside them (E024)."""
        self._keep_beside(batch)
        for start in range(0, len(batch.items), _TURN):
            if start:
                await asyncio.sleep(0)  # a large batch lets others have their turn
            self._judge_some(batch.items[start : start + _TURN], start)

    def _judge_some(self, items: Sequence[Raw | bytes], first: int) -> None:
        entry, keep = self._reader.entry, self.entries.append
        verifier, context = self.access.verifier, self._context
        for index, item in enumerate(items, first):
            raw = bytes(item)
            try:
                keep(entry(raw, "", verifier, context))
            except Bad as bad:
                self.refuse(bad, raw, index)

    def _keep_beside(self, batch: Batch) -> None:
        self._sent_at = scalar(batch.sent_at)
        self._context = self._object("context", batch.context)
        self._context_bytes = batch.context if self._context else b""
        self._integrations_bytes = (
            batch.integrations if self._object("integrations", batch.integrations) else b""
        )

    def refuse(self, bad: Bad, raw: bytes, index: int = WHOLE) -> None:
        """Note a refusal; it is kept like a dead letter."""
        self.refused.append(Refused(self.access.source, index, bad.code, bad.reason, raw, self._received_at))

    def _object(self, name: str, raw: bytes) -> dict[str, Any]:
        if not raw or raw == b"null":
            return {}
        if isinstance(found := self._value(raw), dict):
            return found
        self.refuse(Bad(f"invalid_{name}", f"the batch's {name} is not a JSON object within the limits"), raw)
        return {}

    def _value(self, raw: bytes) -> Any:
        fits = len(raw) <= self._limits.event_bytes and not deeper(raw, self._limits.depth)
        return _decoded(raw) if fits else None


def scalar(raw: bytes) -> str:
    """Decode a short JSON scalar as trimmed text; empty when it is absent or anything else."""
    return (identifier(_decoded(raw)) or "") if raw and len(raw) <= _SCALAR_BYTES else ""


def _decoded(raw: bytes) -> Any:
    try:
        return msgspec.json.decode(raw)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
