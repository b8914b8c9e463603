"""An FCM that lives in memory: HTTP v1 and the token endpoint as one ASGI app, refusing what FCM refuses."""

from __future__ import annotations

import re
from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import unquote

import msgspec

from towpath.clock import Clock, SystemClock

from . import fcm_errors as errors
from .exchange import Answer, ASGIScope, Incoming, Receive, Send, sever
from .faults import Faults
from .fcm_errors import Refusal
from .fcm_rules import ADDRESSES, check, target
from .fcm_schema import parsed
from .fcm_state import (
    DEVICE_PER_H,
    DEVICE_PER_MIN,
    QUOTA_PER_MIN,
    Fate,
    FcmState,
    Quotas,
    Switches,
)
from .firebase import PROJECT
from .front import Front
from .google import SCOPE_PREFIX, TOKEN_PATH, Tokens, service_account
from .http2_stream import INTERNAL_ERROR, REFUSED_STREAM, STREAM
from .kustomer import Seen

PROJECT_NUMBER = "123456789012"
ELSEWHERE = "elsewhere-project"
"""A project that exists too: its account gets tokens, and may not send for ours."""
SCOPES = frozenset({f"{SCOPE_PREFIX}firebase.messaging", f"{SCOPE_PREFIX}cloud-platform"})

_SEND = re.compile(r"/v1/projects/([^/]+)/messages:send")
_NO_PAGE = (
    b"<!DOCTYPE html><html lang=en><title>Error 404 (Not Found)!!1</title><p>The sandbox has no such page."
)
_encode = msgspec.json.Encoder().encode


class _Unanswered(Exception):
    """A message whose fate is to get no answer."""

    def __init__(self, fate: Fate) -> None:
        super().__init__(fate)
        self.fate = fate


class FcmSimulator:
    """One Firebase project's FCM and Google's token endpoint: an ASGI app for HTTP/1.1 and HTTP/2.

    `state` holds addresses, their scripts and the ledger of accepted messages, `tokens` is the token
    endpoint, `requests` are the newest, `refusals` counts by code, `faults` are those in force. Answers are
    held back `latency_s` after a message was handled; set it at any time. The quota is `quota_per_min`
    messages for the project (4xx count too, 429 do not), `device_per_min` and `device_per_h` for a device
    that is not known to be an iPhone or a browser. `control` adds the routes under `/_sandbox/`; they know no
    authentication and are for development only.
    """

    def __init__(
        self,
        *,
        clock: Clock | None = None,
        project: str = PROJECT,
        switches: Switches | None = None,
        quota_per_min: int = QUOTA_PER_MIN,
        device_per_min: int = DEVICE_PER_MIN,
        device_per_h: int = DEVICE_PER_H,
        latency_s: float = 0.0,
        keep_bodies: bool = True,
        seed: int = 0,
        kept_requests: int = 1000,
        control: bool = False,
    ) -> None:
        self.clock = clock or SystemClock()
        self.project = project
        self.latency_s = latency_s
        self.switches = switches or Switches()
        self.state = FcmState(self.clock, self.switches, keep_bodies=keep_bodies)
        self.tokens = Tokens(self.clock, project, ELSEWHERE)
        self.faults = Faults(self.clock, seed)
        self.requests: deque[Seen] = deque(maxlen=kept_requests)
        self.refusals: Counter[str] = Counter()
        self._quotas = Quotas(self.clock, quota_per_min, device_per_min, device_per_h)
        summary = self.summary if control else None
        self._front = Front(
            self.answer, self.faults, names=self._concerns, met=self._remember, summary=summary
        )

    async def __call__(self, scope: ASGIScope, receive: Receive, send: Send) -> None:
        """Serve one request."""
        if self.latency_s > 0:
            send = self._later(send)
        try:
            await self._front(scope, receive, send)
        except _Unanswered as end:
            await self._end(end.fate, scope, receive)

    def account(self, url: str) -> str:
        """Return the key file (JSON) of the project's service account, for a simulator served at `url`."""
        return service_account(url, project=self.project)

    def answer(self, request: Incoming) -> Answer:
        """Handle one request as if there were no faults."""
        try:
            answer = self._handled(request)
        except Refusal as refusal:
            self.refusals[refusal.code] += 1
            answer = refusal.answer()
        except _Unanswered as end:
            self.refusals[end.fate] += 1
            self._remember(request, 0)
            raise
        self._remember(request, answer.status)
        return answer

    def summary(self) -> dict[str, Any]:
        """Return counts, and the newest 100 accepted messages."""
        state = self.state
        return {
            "project": self.project,
            "accepted": len(state.accepted),
            "validated": state.validated,
            "refused": dict(self.refusals),
            "tokens": {"issued": self.tokens.issued, "refused": self.tokens.refused},
            "addresses": len(state.platforms),
            "requests": len(self.requests),
            "faults": self.faults.met,
            "newest": [
                {"name": each.name, each.kind: each.address, "at": each.at} for each in state.accepted[-100:]
            ],
        }

    def _handled(self, request: Incoming) -> Answer:
        if (request.method, request.path) == ("POST", TOKEN_PATH):
            return self.tokens.answer(request)
        found = _SEND.fullmatch(request.path)
        if request.method != "POST" or found is None:
            return Answer(404, _NO_PAGE, [(b"content-type", b"text/html; charset=UTF-8")])
        self._admit(request, unquote(found[1]))
        if not self._quotas.take():
            raise errors.exhausted(f"project:{self.project}", self.switches.retry_after)
        return Answer(200, _encode({"name": self._sent(request)}), errors.JSON)

    def _admit(self, request: Incoming, project: str) -> None:
        """Check the token, its scope, and its right to the project."""
        scheme, _, given = request.header(b"authorization").partition(" ")
        grant = self.tokens.grant(given.strip()) if scheme.lower() == "bearer" else None
        if grant is None:
            raise errors.unauthenticated(given)
        if project not in {self.project, PROJECT_NUMBER, ELSEWHERE}:
            raise errors.no_project()
        if not grant.scopes & SCOPES:
            raise errors.out_of_scope()
        if grant.project != self.project or project == ELSEWHERE:
            raise errors.forbidden(project)

    def _sent(self, request: Incoming) -> str:
        """Check a message and its address, and accept it; its name."""
        fields = parsed(request.body)
        message: Mapping[str, Any] = fields.get("message", {})
        kind, address = target(message)
        platform = self.state.platforms.get(address)
        check(message, kind, address, platform, len(request.body))
        if kind in ADDRESSES:
            self._meet(kind, address)
        if fields.get("validate_only"):
            self.state.validated += 1
            return f"projects/{self.project}/messages/fake_message_id"
        limited = kind in ADDRESSES and platform in {None, "android"}
        if limited and not self._quotas.take_for(address):
            raise errors.exhausted("device", self.switches.retry_after)
        number = len(self.state.accepted)
        name = f"projects/{self.project}/messages/{int(self.clock.now() * 1e6)}{number:09d}"
        self.state.accept(name, kind, address, message, request.body)
        return name

    def _meet(self, kind: str, address: str) -> None:
        """Let the fate of an address happen. Raises `Refusal`, or `_Unanswered`, unless it is good."""
        fate, retry_after = self.state.fate(address)
        if fate == "ok":
            return
        refusals: dict[Fate, Callable[[], Refusal]] = {
            "unregistered": errors.unregistered,
            "invalid": lambda: errors.bad_token(kind, self.switches.address_error),
            "mismatch": errors.mismatch,
            "third_party": lambda: errors.third_party(gateway_words=self.switches.gateway_words),
            "quota": lambda: errors.exhausted(f"project:{self.project}", retry_after),
            "busy": lambda: errors.unavailable(retry_after),
            "error": errors.internal,
        }
        if fate not in refusals:
            raise _Unanswered(fate)
        refusal = refusals[fate]()
        raise refusal

    async def _end(self, fate: Fate, scope: ASGIScope, receive: Receive) -> None:
        """End a request without an answer. HTTP/1.1 has no streams: the whole connection is cut."""
        stream = scope.get("extensions", {}).get(STREAM)
        if fate != "hang" and stream is None:
            await sever(scope, receive)
        elif fate == "away":
            stream["go_away"]()
        elif fate != "hang":
            stream["reset"](REFUSED_STREAM if fate == "refused" else INTERNAL_ERROR)
        else:
            while (await receive())["type"] != "http.disconnect":
                pass

    def _later(self, send: Send) -> Send:
        """Hold the answer back: what was accepted is accepted while the caller still waits."""

        async def held(message: Any) -> None:
            if message["type"] == "http.response.start":
                await self.clock.sleep(self.latency_s)
            await send(message)

        return held

    def _remember(self, request: Incoming, status: int) -> None:
        now = self.clock.now()
        self.requests.append(Seen(request.method, request.path, request.query, request.body, status, now))

    def _concerns(self, request: Incoming, person: str) -> bool:
        return _encode(person) in request.body
