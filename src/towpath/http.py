"""The only door to the network: one request, one answer; every other ending is an outcome."""

from __future__ import annotations

import asyncio
import functools
import re
from collections.abc import Collection, Mapping
from email.utils import parsedate_to_datetime
from gzip import compress
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import urlsplit

import msgspec
from msgspec import Struct

from .outcome import LONGEST_WISH_S, Outcome, Paused, Rejected, Retry, Skipped, from_status
from .redaction import header_secrets, redact, redact_url

if TYPE_CHECKING:
    from .clock import Clock

BODY_LIMIT_BYTES = 64 * 1024
"""What an exchange keeps of a body, and what is read of an answer that says little beyond its status."""
READ_LIMIT_BYTES = 1024 * 1024
"""What is read of the answer to a GET, unless the caller names another limit."""
LARGEST_READ_BYTES = 8 * 1024 * 1024
REASON_LIMIT = 500  # characters of an answer that become part of a reason
JSON_TYPE = "application/json"
_BAD_IN_URL = re.compile(r"[\x00-\x20\x7f]").search
_BAD_IN_HEADER = re.compile(r"[^\t\x20-\x7e]").search
_TOKEN = re.compile(r"[!#$%&'*+.^_`|~0-9A-Za-z-]+").fullmatch
_encode = msgspec.json.Encoder().encode


class Request(Struct, frozen=True):
    """One outgoing request; header names are lower case. At most `limit_bytes` of the answer are read.

    `plain` is what people are shown of a body that is compressed.
    """

    method: str
    url: str
    headers: Mapping[str, str] = {}
    body: bytes = b""
    limit_bytes: int = READ_LIMIT_BYTES
    plain: bytes = b""


class Reply(Struct, frozen=True):
    """One answer. Header names are lower case; `cut` says that `body` is its start, up to the limit."""

    status: int
    headers: Mapping[str, str] = {}
    body: bytes = b""
    cut: bool = False

    def json(self) -> Any:
        """Decode the body; None when it is not JSON, or cut (a number's start would read as a number)."""
        if self.cut:
            return None
        try:
            return msgspec.json.decode(self.body)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            return None

    def may_be_json(self) -> bool:
        """Whether the body is JSON, the start of some where it is cut, or nothing at all."""
        if self.cut or not self.body:
            return self.body[:1] in (b"", b"{", b"[")
        try:
            msgspec.json.decode(self.body, type=msgspec.Raw)
        except (msgspec.DecodeError, RecursionError):
            whole = self.body.strip()  # one odd value in it, like half a surrogate pair, is no proxy's page
            return (whole[:1], whole[-1:]) in ((b"{", b"}"), (b"[", b"]"))
        return True

    def text(self, limit: int = 500) -> str:
        """Show the start of the body for people."""
        return self.body[: limit * 4].decode("utf-8", "replace")[:limit].strip()


class TransportError(Exception):
    """No answer came. `sent` says whether the request may have reached the other side."""

    def __init__(self, reason: str, *, sent: bool) -> None:
        super().__init__(reason)
        self.sent = sent


class Unsendable(TransportError):
    """The request as it stands can never be sent: a URL that is none, a forbidden address. Not sent."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason, sent=False)


class Untrusted(TransportError):
    """The other side could not prove by its certificate that it is who the URL names. Not sent."""

    def __init__(self, host: str, reason: str) -> None:
        super().__init__(
            f"the TLS certificate of {host} cannot be trusted: {reason}. Nothing was sent. Correct the name "
            "in the URL; have the certificate renewed; or, where its issuer is your own, let SSL_CERT_FILE "
            "name a file with its root certificate and start again",
            sent=False,
        )


class Transport(Protocol):
    """What carries a request: `Http1Transport` as a rule, pyreqwest or aiohttp in its place, or a fake."""

    async def send(self, request: Request, *, timeout_s: float) -> Reply:
        """One exchange within a total deadline, body cut at the request's limit. Raises `TransportError`."""
        ...

    async def close(self) -> None:
        """Close idle connections."""
        ...


class Exchange(Struct, frozen=True):
    """A request and its answer, redacted, as a dead letter keeps it."""

    method: str
    url: str
    body: str = ""
    status: int = 0
    answer: str = ""


class Undelivered(Exception):
    """Raised by `Http.request`, caught by the loop: the outcome, and the exchange that led to it.

    For an answer that a destination judges by itself, `Http.undelivered` makes one.
    """

    def __init__(self, outcome: Outcome, exchange: Exchange | None = None) -> None:
        super().__init__(outcome)
        self.outcome = outcome
        self.exchange = exchange


class Stopping(Exception):
    """The process is stopping and this request was not sent; the delivery stays waiting, untouched."""


class Throttle(Protocol):
    """An account's allowance, as the door sees it (see `budget.Budget`)."""

    async def acquire(self) -> None:
        """Wait for a place in the allowance."""
        ...

    def learn(self, status: int, headers: Mapping[str, str]) -> None:
        """Adapt to what the vendor said."""
        ...

    def lift(self) -> None:
        """Forget how long the vendor asked us to wait."""
        ...

    @property
    def blocked_s(self) -> float:
        """Seconds until the vendor takes requests again; 0 when it does."""
        ...


class Http:
    """One account's door. `headers` (credentials) go with every request and never into an exchange.

    `secrets` are further texts to keep out of exchanges and reasons (a signing secret, a key in a body).
    """

    def __init__(
        self,
        transport: Transport,
        clock: Clock,
        *,
        headers: Mapping[str, str] | None = None,
        throttles: Mapping[str, Throttle] | None = None,
        timeout_s: float = 30.0,
        secrets: Collection[str] = (),
    ) -> None:
        self.transport = transport
        self.clock = clock
        self.headers = dict(headers or {})
        self._common = {"user-agent": user_agent(), **_lowered(self.headers)}
        self.throttles = dict(throttles or {})
        self.timeout_s = timeout_s
        self.secrets = frozenset(secrets)
        self._stopping = False
        self._queued: set[asyncio.Task[Any]] = set()

    @property
    def stopping(self) -> bool:
        """Whether a graceful stop is under way: nothing new is sent; requests waiting for allowance leave."""
        return self._stopping

    @stopping.setter
    def stopping(self, value: bool) -> None:
        begins, self._stopping = value and not self._stopping, value
        if begins:
            for task in self._queued:
                task.cancel()

    async def request(
        self,
        method: str,
        url: str,
        *,
        json: Any = None,
        body: bytes | None = None,
        gzip: bool = False,
        headers: Mapping[str, str] | None = None,
        allow: Collection[int] = (),
        bucket: str = "",
        limit_bytes: int | None = None,
        speaks_json: bool = False,
    ) -> Reply:
        """One request; a 2xx or an allowed status is returned, anything else raises `Undelivered`.

        Of a vendor that `speaks_json` a 2xx with another body is no answer, like a proxy's page: it raises
        `Undelivered` (retry).

        The body is `json`, encoded here, or `body` as it is; with `gzip` it travels compressed, and a dead
        letter shows it as it was. Waits for the bucket's allowance first. Raises `Stopping`, before anything
        is sent, during a graceful stop. Of an answer, `limit_bytes` (at most 8 MiB) are read: 1 MiB by
        default for a GET and 64 KiB for what writes, as the answers of all calls in flight are in memory.
        `Reply.cut` says that there was more. A GET or HEAD, and what carries an `idempotency-key` or
        `webhook-id`, may be sent a second time where the connection kept from an earlier request ends without
        a byte of an answer.
        """
        request = self._request(method, url, json, body, headers, limit_bytes, gzip=gzip)
        throttle = self.throttles.get(bucket)
        if throttle is not None:
            await self._allowance(throttle)
        if self._stopping:
            raise Stopping
        try:
            reply = await self.transport.send(request, timeout_s=self.timeout_s)
        except TransportError as error:
            raise self._unanswered(request, error) from error
        if throttle is not None:
            throttle.learn(reply.status, reply.headers)
        if speaks_json and 200 <= reply.status < 300 and not reply.may_be_json():
            raise Undelivered(_of_another(request, reply), self._exchange(request, reply))
        if 200 <= reply.status < 300 or reply.status in allow:
            return reply
        raise self._refused(request, reply)

    def undelivered(
        self,
        outcome: Skipped | Retry | Rejected | Paused,
        reply: Reply,
        method: str,
        url: str,
        *,
        json: Any = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> Undelivered:
        """Make what a destination raises for a reply that it got from `request` and judges as a failure.

        The rest are the arguments that `request` was called with. The exchange and the outcome's reason are
        redacted here, so no destination builds an `Exchange` itself; where the vendor's words belong in the
        reason, take a field of `reply.json()`: `reply.text()` may end within a secret.
        """
        request = self._request(method, url, json, body, headers)
        reason = redact(outcome.reason, self._secrets(request))
        said = msgspec.structs.replace(outcome, reason=reason)
        return Undelivered(said, self._exchange(request, reply))

    def redacted(self, text: str) -> str:
        """Return a text without the secrets of this door: words that came from elsewhere."""
        return redact(text, {*self.secrets, *header_secrets(self.headers)})

    def _request(
        self,
        method: str,
        url: str,
        json: Any,
        body: bytes | None,
        headers: Mapping[str, str] | None,
        limit_bytes: int | None = None,
        *,
        gzip: bool = False,
    ) -> Request:
        """Put the request together; later headers win. Raises `Undelivered` (rejected) when malformed."""
        combined = self._common
        if body is None:
            body = b""
            if json is not None:
                body = _encode(json)
                combined = {"content-type": JSON_TYPE, **combined}
        plain = b""
        if gzip and body:
            plain, body = body, compress(body, 6, mtime=0)  # without a time: the same again is the same bytes
            combined = {"content-encoding": "gzip", **combined}
        if headers:
            combined = {**combined, **_lowered(headers)}
        request = Request(method, url, combined, body, _read_limit(method, limit_bytes), plain)
        if (fault := _malformed(request)) is not None:
            raise Undelivered(Rejected(f"not sent: {fault}"), self._exchange(request))
        return request

    async def _allowance(self, throttle: Throttle) -> None:
        """Wait for the allowance. Raises `Stopping` when a stop comes meanwhile; other cancellations pass."""
        task = asyncio.current_task()
        if self._stopping or task is None:
            raise Stopping
        self._queued.add(task)
        try:
            await throttle.acquire()
        except asyncio.CancelledError:
            # The setter of `stopping` cancels once; anything beyond that is somebody else's cancellation.
            if self._stopping and task.uncancel() == 0:
                raise Stopping from None
            raise
        finally:
            self._queued.discard(task)

    def _unanswered(self, request: Request, error: TransportError) -> Undelivered:
        # Transports may name the URL in their reasons, with whatever secret stands in its query.
        reason = str(error).replace(request.url, redact_url(request.url))
        reason = redact(reason, self._secrets(request))
        outcome = Rejected(reason) if isinstance(error, Unsendable) else Retry(reason, code=0)
        return Undelivered(outcome, self._exchange(request))

    def _refused(self, request: Request, reply: Reply) -> Undelivered:
        now = self.clock.now()
        wish = retry_after(reply.headers.get("retry-after"), now)
        if wish is None and reply.status == 429:
            wish = until_reset(reply.headers, now)
        exchange = self._exchange(request, reply)
        # Redacted before it is cut: a secret cut in two would not be found.
        outcome = from_status(reply.status, exchange.answer[:REASON_LIMIT].strip(), wish)
        if isinstance(outcome, Retry) and outcome.throttled and has_allowance_left(reply.headers):
            outcome = msgspec.structs.replace(outcome, throttled=False)
        return Undelivered(outcome, exchange)

    def _exchange(self, request: Request, reply: Reply | None = None) -> Exchange:
        secrets = self._secrets(request)
        return Exchange(
            request.method,
            redact_url(request.url, secrets),
            _shown(request.plain or request.body, secrets),
            reply.status if reply else 0,
            _shown(reply.body, secrets, cut=reply.cut) if reply else "",
        )

    def _secrets(self, request: Request) -> set[str]:
        mine = header_secrets(self.headers)
        its_own = header_secrets(request.headers, credentials_only=True)
        return {*self.secrets, *mine, *its_own}


def _of_another(request: Request, reply: Reply) -> Retry:
    """Say that whoever answered is not whom the URL names."""
    host = urlsplit(request.url).hostname
    reason = f"{reply.status}, but it is no answer of {host}'s own, which would be JSON: a proxy's page?"
    return Retry(reason, code=reply.status)


@functools.cache
def user_agent() -> str:
    """Return what towpath calls itself to vendors."""
    from . import __version__  # at the first call: the package loads this module before it has a version

    return f"towpath/{__version__} (+https://github.com/towpath/towpath)"


def retry_after(value: str | None, now: float) -> float | None:
    """Read Retry-After, seconds or an HTTP date, as 0…86,400 seconds from now; None when absent or junk."""
    text = (value or "").strip()
    if text.isascii() and text.isdecimal():
        # Longer numbers are clamped unread: int() refuses thousands of digits.
        return min(float(text), LONGEST_WISH_S) if len(text) < 10 else LONGEST_WISH_S
    try:
        moment = parsedate_to_datetime(text).timestamp()
    except (ValueError, TypeError, OverflowError, IndexError):
        return None
    return min(max(moment - now, 0.0), LONGEST_WISH_S)


def rate_limit(headers: Mapping[str, str], name: str) -> float | None:
    """Read `x-ratelimit-<name>`, a whole number; None when absent or junk."""
    text = headers.get(f"x-ratelimit-{name}", "").strip()
    return float(text) if text.isascii() and text.isdecimal() and len(text) < 16 else None


def until_reset(headers: Mapping[str, str], now: float) -> float | None:
    """Read `x-ratelimit-reset` (epoch seconds: Kustomer) as seconds from now.

    None when absent, past, or more than a day ahead: that is another unit, or nonsense.
    """
    moment = rate_limit(headers, "reset")
    return None if moment is None or not now < moment <= now + LONGEST_WISH_S else moment - now


def has_allowance_left(headers: Mapping[str, str]) -> bool:
    """Tell a limit on one object from the account's: the account says it has requests left (Kustomer)."""
    return bool(rate_limit(headers, "remaining"))


def _lowered(headers: Mapping[str, str]) -> dict[str, str]:
    return {name.lower(): value for name, value in headers.items()}


@functools.lru_cache(256)
def _is_token(text: str) -> bool:
    """Whether it can be a method or the name of a header; there are few different ones."""
    return _TOKEN(text) is not None


def _malformed(request: Request) -> str | None:
    if _BAD_IN_URL(request.url):
        return "the URL contains a line break, a space or a control character"
    if not _is_token(request.method):
        return "the method is not an HTTP method"
    for name, value in request.headers.items():
        if not _is_token(name):
            return "a header name contains a character that HTTP does not allow"
        if not (value.isascii() and value.isprintable()) and _BAD_IN_HEADER(value):
            return f"the header {name} contains a line break or a character that HTTP does not allow"
    return None


def _read_limit(method: str, asked_bytes: int | None) -> int:
    """How much of an answer is read. Raises `ValueError` for what no request may ask."""
    if asked_bytes is None:
        return READ_LIMIT_BYTES if method == "GET" else BODY_LIMIT_BYTES
    if not 0 < asked_bytes <= LARGEST_READ_BYTES:
        raise ValueError(f"limit_bytes is {asked_bytes}: it has to be between 1 and {LARGEST_READ_BYTES}")
    return asked_bytes


def _shown(body: bytes, secrets: Collection[str], *, cut: bool = False) -> str:
    """Show a body as redacted text of at most 64 KiB; a secret cut in two at the end goes as well."""
    tail = 4 * max((len(secret) for secret in secrets), default=0)
    text = redact(body[: BODY_LIMIT_BYTES + tail].decode("utf-8", "replace"), secrets)
    if len(body) < BODY_LIMIT_BYTES and not cut:
        return text
    kept = text.encode()
    return kept[: max(0, min(len(kept) - tail, BODY_LIMIT_BYTES))].decode("utf-8", "ignore")
