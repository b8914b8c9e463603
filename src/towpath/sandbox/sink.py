"""A webhook receiver that checks Standard Webhooks signatures and remembers what it got."""

from __future__ import annotations

import base64
import hashlib
import hmac
from collections import deque
from collections.abc import Iterable
from typing import Any

import msgspec
from msgspec import Struct

from towpath.clock import Clock, SystemClock

from .exchange import Answer, ASGIScope, Incoming, Receive, Send
from .faults import Faults
from .front import Front

TOLERANCE_S = 300
_JSON = [(b"content-type", b"application/json; charset=utf-8")]


class Received(Struct, frozen=True):
    """One webhook. `refused` says why it was answered 401; empty when it was taken. `at` is Unix seconds."""

    path: str
    id: str
    timestamp: str
    body: bytes
    at: float
    refused: str = ""

    def json(self) -> Any:
        """Decode the body; None when it is no JSON."""
        try:
            return msgspec.json.decode(self.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None


class WebhookSink:
    """An ASGI app that takes webhooks on any path.

    With `secrets` (`whsec_` and base64; several while one is being changed) each request must carry a valid
    `webhook-signature`, at most five minutes old by `clock`: 401 otherwise. `received` holds the newest
    `kept`, refused ones included; `met` holds path and status of those a fault ended before (0: cut);
    `duplicates` counts ids that had been taken before.
    """

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        secrets: Iterable[str] = (),
        seed: int = 0,
        kept: int = 10_000,
        control: bool = False,
    ) -> None:
        self.clock = clock or SystemClock()
        self.faults = Faults(self.clock, seed)
        self.received: deque[Received] = deque(maxlen=kept)
        self.met: deque[tuple[str, int]] = deque(maxlen=kept)
        self.duplicates = 0
        self._keys = [_key(secret) for secret in secrets]
        self._taken: set[str] = set()
        summary = self.summary if control else None
        self._front = Front(self.answer, self.faults, names=_names, met=self._met, summary=summary)

    async def __call__(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        await self._front(scope, receive, send)

    def answer(self, request: Incoming) -> Answer:
        """Take one webhook as if there were no faults."""
        refused = self._refusal(request)
        self._remember(request, refused)
        if refused:
            return Answer(401, msgspec.json.encode({"error": refused}), _JSON)
        return Answer(200, b"{}", _JSON)

    def summary(self) -> dict[str, Any]:
        """Return counts, and the newest 100 bodies."""
        return {
            "received": len(self.received),
            "refused": sum(bool(item.refused) for item in self.received),
            "duplicates": self.duplicates,
            "faults": self.faults.met,
            "newest": [item.json() for item in list(self.received)[-100:]],
        }

    def _met(self, request: Incoming, status: int) -> None:
        self.met.append((request.path, status))

    def _remember(self, request: Incoming, refused: str) -> None:
        webhook_id, timestamp = request.header(b"webhook-id"), request.header(b"webhook-timestamp")
        if webhook_id and not refused:
            self.duplicates += webhook_id in self._taken
            self._taken.add(webhook_id)
        now = self.clock.now()
        self.received.append(Received(request.path, webhook_id, timestamp, request.body, now, refused))

    def _refusal(self, request: Incoming) -> str:
        """Say why a signature is not accepted; empty when it is, or when there are no secrets."""
        if not self._keys:
            return ""
        webhook_id, timestamp = request.header(b"webhook-id"), request.header(b"webhook-timestamp")
        signatures = request.header(b"webhook-signature")
        if not (webhook_id and timestamp and signatures):
            return "webhook-id, webhook-timestamp and webhook-signature are needed"
        if not (timestamp.isdecimal() and abs(int(timestamp) - self.clock.now()) <= TOLERANCE_S):
            return "webhook-timestamp is not within five minutes"
        signed = f"{webhook_id}.{timestamp}.".encode() + request.body
        expected = {_signature(key, signed) for key in self._keys}
        if not any(hmac.compare_digest(given, known) for given in signatures.split() for known in expected):
            return "no signature matches"
        return ""


def _key(secret: str) -> bytes:
    encoded = secret.removeprefix("whsec_")
    return base64.b64decode(encoded + "=" * (-len(encoded) % 4))


def _signature(key: bytes, signed: bytes) -> str:
    return "v1," + base64.b64encode(hmac.new(key, signed, hashlib.sha256).digest()).decode()


def _names(request: Incoming, person: str) -> bool:
    return msgspec.json.encode(person) in request.body
