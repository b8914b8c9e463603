"""Sender: one Firebase project's way to FCM; messages go out at its pace, and their answers are verdicts."""

from __future__ import annotations

import asyncio
import math
from bisect import bisect_left
from collections import Counter, deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from msgspec import Struct
from msgspec.structs import replace

from ..http import (
    BODY_LIMIT_BYTES,
    Http,
    Request,
    Stopping,
    Transport,
    TransportError,
    Undelivered,
    Unsendable,
    Untrusted,
    user_agent,
)
from ..outcome import Outcome, Retry
from ..redaction import header_secrets, redact
from ..transport_http2 import Http2Transport
from ..vendors.fcm import FCM_URL, SCOPES, send_headers, send_path
from ..vendors.google import UNAUTHENTICATED, Credential, Tokens, read_service_account
from .pace import HEADROOM, RAMP_S, RATE_PER_S, Pace, retry_s
from .verdict import Kind, Verdict, judge

if TYPE_CHECKING:
    from ..clock import Clock

GIVE_UP_S = 3600.0
"""How long after its moment a message is still worth trying. Source: FCM's "at scale" page, as below."""
SLOW_S = 0.5
SLOW_SHARE = 0.05
FAILED_SHARE = 0.01
ENOUGH_TO_JUDGE = 200

IN_FLIGHT_S = 0.25
LEAST_IN_FLIGHT = 8
TIMEOUT_S = 15.0
"""FCM asks for at least 10."""
SIGNED_IN_S = 10.0
RENEW_S = 60.0

_FAILURES: frozenset[Kind] = frozenset({"throttled", "unavailable", "unknown"})
_SLICE_S = 5.0
_SLICES = 12
_BOUNDS_S = [0.001 * 1.25**step for step in range(44)]


class Account(Struct, frozen=True):
    """An FCM account: the text of its key file, and how fast its project may be used.

    `project` is the key's own where empty. `headroom` is the share of `rate_per_s` that is left unused.
    """

    key: str
    project: str = ""
    url: str = FCM_URL
    rate_per_s: float = RATE_PER_S
    headroom: float = HEADROOM
    ramp_s: float = RAMP_S
    timeout_s: float = TIMEOUT_S

    def __repr__(self) -> str:
        return f"Account(project={self.project!r}, url={self.url!r})"


class Sender:
    """Sends messages to one project. `http` is the door to Google's sign-in, `connect` makes the one to FCM.

    Raises `ValueError` for what is no key file, in a sentence without its contents.
    """

    def __init__(
        self,
        account: Account,
        http: Http,
        clock: Clock,
        *,
        pace: Pace | None = None,
        connect: Callable[[float], Transport] = Http2Transport,
    ) -> None:
        key = read_service_account(account.key)
        self.project = account.project or key.project_id
        if not self.project:
            raise ValueError("the key file names no project_id: set `project` to the Firebase project's id")
        self.pace = pace or Pace(clock, account.rate_per_s * (1 - account.headroom), ramp_s=account.ramp_s)
        self.health = Health(clock)
        self._clock = clock
        self._http = http
        self._timeout_s = account.timeout_s
        self._url = account.url.rstrip("/") + send_path(self.project)
        self._sign_in = SignIn(Tokens(key, SCOPES), http)
        self._transport = connect(self.pace.rate_per_s)

    @property
    def in_flight(self) -> int:
        """How many messages to have under way for full speed, as long as FCM answers within 250 ms."""
        return max(LEAST_IN_FLIGHT, math.ceil(self.pace.rate_per_s * IN_FLIGHT_S))

    async def send(self, body: bytes, *, attempt: int = 1) -> Verdict:
        """Send one message, `{"message": …}`, when the pace has a place. Raises `Stopping`, nothing sent.

        A sign-in that FCM does not take is renewed once, and the message sent again. `attempt` counts this
        message's attempts: waits grow with it. Giving up is the caller's, after `GIVE_UP_S`.
        """
        await self.pace.admit()
        if self._http.stopping:
            raise Stopping
        return await self.send_now(body, attempt=attempt)

    async def send_now(self, body: bytes, *, attempt: int = 1) -> Verdict:
        """Send one message for which the caller has waited at `pace`; else as `send`."""
        try:
            headers = await self._sign_in.headers()
            verdict = await self._told(body, headers)
            if verdict.status == UNAUTHENTICATED and verdict.kind == "misconfigured":
                renewed = await self._sign_in.renewed(headers)
                if renewed is not headers:
                    verdict = await self._told(body, renewed)
        except Undelivered as error:
            verdict = _not_signed_in(error)
            self.health.note(verdict.kind)
        return verdict if verdict.kind == "accepted" else self._advised(verdict, attempt)

    async def stop(self) -> None:
        """Send nothing more: who waits, or asks, gets `Stopping`; what is under way ends."""
        self._http.stopping = True
        await self.pace.close()

    async def close(self) -> None:
        """Send away who waits (`Stopping`) and close the connections; what is under way becomes `unknown`."""
        await self.pace.close()
        await self._transport.close()

    async def _told(self, body: bytes, headers: Mapping[str, str]) -> Verdict:
        """One exchange."""
        began_s = self._clock.monotonic()
        request = Request("POST", self._url, headers, body, BODY_LIMIT_BYTES)
        try:
            reply = await self._transport.send(request, timeout_s=self._timeout_s)
        except TransportError as error:
            verdict = _unanswered(error)
        else:
            verdict = judge(reply, self._clock.now())
        self.health.note(verdict.kind, self._clock.monotonic() - began_s)
        if verdict.kind == "accepted":
            return verdict
        return replace(verdict, detail=redact(verdict.detail, set(header_secrets(headers))))

    def _advised(self, verdict: Verdict, attempt: int) -> Verdict:
        """Say when to try again; a 429 holds for the whole project, unless it is one device's."""
        if verdict.kind == "throttled":
            self.pace.pause(verdict.after_s or 0.0)
        elif verdict.kind in ("unavailable", "unknown", "device_throttled"):
            after_s = retry_s(attempt, self._clock.uniform(0.0, 1.0))
            return replace(verdict, after_s=max(after_s, verdict.after_s or 0.0))
        return verdict


class SignIn:
    """The headers that say who sends, looked at anew every 10 s; so is a refusal, for everybody at once.

    While one looks, the others go on with the headers they had.
    """

    def __init__(self, credential: Credential, http: Http) -> None:
        self._credential = credential
        self._http = http
        self._headers: Mapping[str, str] | None = None
        self._refusal: Outcome | None = None
        self._until = self._renewed_at = -math.inf
        self._looking = asyncio.Lock()

    async def headers(self) -> Mapping[str, str]:
        """Headers for one message. Raises `Undelivered` where Google does not sign us in."""
        if self._now >= self._until and (self._headers is None or not self._looking.locked()):
            async with self._looking:
                if self._now >= self._until:
                    await self._look()
        return self._known()

    async def renewed(self, refused: Mapping[str, str]) -> Mapping[str, str]:
        """Other headers than those FCM refused; the same where they were made anew only a minute ago."""
        if self._headers is refused and self._now - self._renewed_at >= RENEW_S:
            self._renewed_at, self._until = self._now, -math.inf
            self._headers = None
            self._credential.forget()
        return await self.headers()

    @property
    def _now(self) -> float:
        return self._http.clock.monotonic()

    async def _look(self) -> None:
        try:
            authorization = await self._credential.headers(self._http)
        except Undelivered as error:
            self._headers, self._refusal = None, error.outcome
        else:
            shown = {"user-agent": user_agent(), **send_headers(authorization)}
            if shown != self._headers:  # the same object for the same token
                self._headers, self._refusal = shown, None
        self._until = self._now + SIGNED_IN_S

    def _known(self) -> Mapping[str, str]:
        if self._headers is None:
            assert self._refusal is not None  # noqa: S101 - `_look` leaves one of the two
            raise Undelivered(self._refusal)
        return self._headers


class Health:
    """How sending goes: `counts` of verdicts by kind since the start; speed and errors of the last minute."""

    def __init__(self, clock: Clock) -> None:
        self.counts: Counter[Kind] = Counter()
        self._clock = clock
        self._slices: deque[_Slice] = deque([_Slice(clock.monotonic())], _SLICES)

    @property
    def p95_s(self) -> float:
        """What 95 of 100 exchanges of the last minute took at most, within a fourth; 0 without any."""
        took = [sum(column) for column in zip(*(part.took for part in self._recent()), strict=True)]
        left = 0.95 * sum(took)
        for bound_s, count in zip([*_BOUNDS_S, math.inf], took, strict=True):
            left -= count
            if count and left <= 0:
                return bound_s
        return 0.0

    @property
    def failed_share(self) -> float:
        """The share of the last minute's attempts that were throttled, unavailable or unanswered."""
        recent = self._recent()
        return sum(part.failed for part in recent) / max(1, sum(part.attempts for part in recent))

    @property
    def alarm(self) -> str:
        """Why sending had better slow down or stop; empty while all is well.

        FCM's own signals: p95 over 500 ms, or more than 1 % of errors.
        """
        recent = self._recent()
        attempts = sum(part.attempts for part in recent)
        if attempts < ENOUGH_TO_JUDGE:
            return ""
        if self.failed_share > FAILED_SHARE:
            return f"{self.failed_share:.1%} of the last minute's {attempts} attempts failed"
        slow = sum(part.slow for part in recent) / attempts
        return f"{slow:.1%} of FCM's answers took longer than 500 ms" if slow > SLOW_SHARE else ""

    def note(self, kind: Kind, took_s: float = 0.0) -> None:
        """Count one attempt."""
        self.counts[kind] += 1
        now = self._clock.monotonic()
        if now - self._slices[-1].began >= _SLICE_S:
            self._slices.append(_Slice(now))
        part = self._slices[-1]
        part.attempts += 1
        part.took[bisect_left(_BOUNDS_S, took_s)] += 1
        if took_s > SLOW_S:
            part.slow += 1
        if kind in _FAILURES:
            part.failed += 1

    def _recent(self) -> list[_Slice]:
        since = self._clock.monotonic() - _SLICE_S * _SLICES
        return [part for part in self._slices if part.began >= since] or [_Slice(since)]


class _Slice:
    """Five seconds of attempts."""

    __slots__ = ("attempts", "began", "failed", "slow", "took")

    def __init__(self, began: float) -> None:
        self.began = began
        self.attempts = self.failed = self.slow = 0
        self.took = [0] * (len(_BOUNDS_S) + 1)


def _not_signed_in(error: Undelivered) -> Verdict:
    outcome = error.outcome
    kind: Kind = "unavailable" if isinstance(outcome, Retry) else "misconfigured"
    after_s = outcome.after_s if isinstance(outcome, Retry) else None
    return Verdict(kind, "SIGN_IN", getattr(outcome, "reason", ""), "", after_s, getattr(outcome, "code", 0))


def _unanswered(error: TransportError) -> Verdict:
    if isinstance(error, Unsendable | Untrusted):
        return Verdict(
            "misconfigured", "UNTRUSTED" if isinstance(error, Untrusted) else "UNSENDABLE", str(error)
        )
    if error.sent:
        return Verdict("unknown", "NO_ANSWER", f"{error}; it may have been taken")
    return Verdict("unavailable", "NOT_SENT", str(error))
