"""The thin ASGI function behind /v1/*: a request in, its events durable in the log, an answer out."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Iterable, Mapping, MutableMapping
from typing import Any
from urllib.parse import parse_qs, urlsplit

import msgspec
import structlog
from msgspec import Raw, Struct

from ..clock import Clock
from ..log import Group, Log, LogFull
from ..sources.segment import SegmentSource
from . import answers, browser, intilery, pages, pixel, routes, split
from .answers import CORS, Answer, Header, Send, Unacceptable, stop, text
from .body import Bodies, Body, Receive
from .gather import Gathering
from .intake import Intake, scalar
from .keys import Access, Keys, from_header
from .limits import IngestLimits
from .parse import Bad, Reader
from .proxy import Proxies
from .routes import Route

_SLOW_BYTES = 64 * 1024
_HEADER_NAMES = re.compile(rb"[A-Za-z0-9!#$%&'*+.^_`|~, -]{1,4096}")
_NO_KEY = "failed to read writekey from header"
_NO_QUERY_KEY = "failed to read writekey from query params"
_ABSENT = text(404, "not part of this API: send events to /v1/batch; webhooks have sources of their own")
_UNKNOWN = text(404, "no such path; the paths are listed at /openapi.json")

_log = structlog.get_logger(__name__)


class _Call(Struct):
    """One request on its way through."""

    route: Route
    scope: MutableMapping[str, Any]
    headers: dict[bytes, bytes]
    receive: Receive


class _Keyed(Struct, rename="camel"):
    write_key: Raw = Raw(b"")


class Ingest:
    """Takes events in for the sources given, answers when they are on disk (P1), refuses item by item (E035).

    An ASGI application for the ingest routes only. `trusted_proxies` are addresses or networks whose
    X-Forwarded-For is believed; `public_url` is what browser SDKs are told to send to.
    """

    def __init__(
        self,
        log: Log,
        sources: Mapping[str, SegmentSource],
        clock: Clock,
        *,
        limits: IngestLimits | None = None,
        trusted_proxies: Iterable[str] = (),
        public_url: str = "",
    ) -> None:
        self._log = Gathering(log)
        self._clock = clock
        self._limits = limits or IngestLimits()
        self._bodies = Bodies(self._limits)
        self._reader = Reader(self._limits, clock)
        self._proxies = Proxies(trusted_proxies)
        self._public_url = public_url
        self._keys = Keys(sources, clock)
        self._counter = split.Counter(self._limits.request_events)
        self._salvaging = asyncio.Lock()
        self._ways = {
            "call": self._take_call,
            "batch": self._take_batch,
            "pixel": self._take_pixel,
            "tracking": self._take_call,
            "source_config": self._show_source_config,
            "project": self._show_project,
            "fixed": self._show_fixed,
            "absent": self._show_absent,
        }

    def replace(self, sources: Mapping[str, SegmentSource]) -> None:
        """Put other sources and keys in force, for the next request on (E031). Raises `TowpathError`."""
        self._keys = Keys(sources, self._clock, self._keys)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve one HTTP request."""
        headers = dict(scope["headers"])
        route = routes.find(scope["path"])
        if route is None:
            await answers.deliver(send, _UNKNOWN, close=_unread(headers))
        elif scope["method"] not in route.methods:
            answer = _other_method(route, scope["method"], headers)
            await answers.deliver(send, answer, _shared(route), close=_unread(headers))
        else:
            answer = await self._answer(_Call(route, scope, headers, receive))
            close = answer.close or (not route.reads and _unread(headers))
            await answers.deliver(send, answer, _shared(route), close=close)

    async def _answer(self, call: _Call) -> Answer:
        try:
            return await self._ways[call.route.way](call)
        except Unacceptable as error:
            return error.answer

    async def _take_call(self, call: _Call) -> Answer:
        with Body(self._bodies) as body:
            key, raw = await self._read(call, body)
            intake = self._intake(call, key or _body_key(raw))
            if call.route.way == "tracking":
                raw = intilery.in_spec(raw)
            intake.judge(raw, call.route.kind)
            await self._keep(intake, call.route.kind)
        return answers.ACCEPTED if intake.entries else text(400, intake.refused[0].reason)

    async def _take_batch(self, call: _Call) -> Answer:
        with Body(self._bodies) as body:
            key, raw = await self._read(call, body)
            if not key:
                self._admit(call, self._likely_key(raw))
            try:
                batch = await self._split(raw)
            except split.Broken as error:
                intake = self._intake(call, key)
                intake.refuse(Bad("invalid_json", f"invalid json: {error}"), raw)
            else:
                intake = self._intake(call, key or scalar(batch.write_key).encode())
                self._check_size(len(batch.items))
                await intake.judge_batch(batch)
            await self._keep(intake)
        return answers.verdict(len(intake.entries), intake.refused)

    async def _read(self, call: _Call, body: Body) -> tuple[bytes, bytes]:
        """Return the key of header or query, and the body; a key that opens nothing costs no body."""
        if key := _given_key(call):
            try:
                self._admit(call, key)
            except Unacceptable as error:
                ended = await body.skip(call.receive)
                raise Unacceptable(msgspec.structs.replace(error.answer, close=not ended)) from error
            body.trusted = True
        return key, await body.read(call.receive, call.headers)

    def _likely_key(self, raw: bytes) -> bytes:
        """Look for the key in a body: exactly in sound JSON, else one that may be it, before more is done."""
        if key := _body_key(raw):
            return key
        keys = [scalar(value).encode() for value in split.likely_keys(raw)]
        return next((key for key in keys if self._keys.find(key)), keys[0] if keys else b"")

    async def _split(self, raw: bytes) -> split.Batch:
        try:
            if self._counter.check(raw) and (found := split.sound(raw)) is not None:
                return found
        except split.TooMany:
            raise self._too_many() from None
        if len(raw) < _SLOW_BYTES:
            return split.salvaged(raw, self._limits.request_events)
        # One at a time and beside the loop: it is slow, and anybody can ask for it.
        async with self._salvaging:
            return await asyncio.to_thread(split.salvaged, raw, self._limits.request_events)

    def _check_size(self, events: int) -> None:
        if not events:
            raise stop(400, "empty batch payload")
        if events > self._limits.request_events:
            raise self._too_many()

    def _too_many(self) -> Unacceptable:
        most = self._limits.request_events
        return stop(413, f"request size exceeds max limit: more than {most} events")

    async def _take_pixel(self, call: _Call) -> Answer:
        try:
            intake = self._intake(call, _given_key(call))
            try:
                intake.judge(pixel.event(call.scope["query_string"]), call.route.kind)
            except Bad as bad:
                intake.refuse(bad, call.scope["query_string"])
            await self._keep(intake, call.route.kind)
        except Unacceptable:
            return pixel.GIF  # a page cannot react to anything else
        return pixel.GIF

    def _admit(self, call: _Call, key: bytes) -> Access:
        """Open the source of a key. Raises `Unacceptable` 401, 404 or 429."""
        access = self._open(key, _NO_QUERY_KEY if call.route.by_query else _NO_KEY)
        if access.allowance and (wait_s := access.allowance.wait_s()):
            raise stop(429, "max requests limit reached", retry_after_s=wait_s)
        return access

    def _intake(self, call: _Call, key: bytes) -> Intake:
        """Start the intake of a request. Raises `Unacceptable` 401, 404 or 429."""
        # Asked again although it was before the body came: keys are revoked and rates used up meanwhile.
        access = self._admit(call, key)
        peer = call.scope.get("client") or ("",)
        ip = self._proxies.client(peer[0], call.headers.get(b"x-forwarded-for", b""))
        return Intake(access, self._clock.now(), ip, self._reader, self._limits)

    def _open(self, key: bytes, missing: str) -> Access:
        if not key:
            raise stop(401, missing)
        access = self._keys.find(key)
        if access is None:
            raise stop(401, "invalid write key")
        if not access.settings.enabled:
            raise stop(404, "source is disabled")
        return access

    async def _keep(self, intake: Intake, kind: str = "") -> None:
        """Make events and refusals durable together; only then may an answer leave."""
        if intake.access.allowance:
            intake.access.allowance.spend(len(intake.entries) + len(intake.refused))
        groups = [Group(intake.envelope(kind), intake.entries)] if intake.entries else []
        try:
            await self._log.append(groups, intake.refused)
        except Exception as error:
            # Whatever the store says: the sender still has its events and tries again. No traceback: with the
            # locals some formatters show, it would put events into the logs (D08).
            if not isinstance(error, LogFull):
                _log.error("append failed", source=intake.access.source, error=repr(error))
            raise answers.unkept(error) from error

    async def _show_source_config(self, call: _Call) -> Answer:
        key = _given_key(call)
        access = self._open(key, _NO_QUERY_KEY)
        return answers.json(browser.source_config(key.decode(), access))

    async def _show_project(self, call: _Call) -> Answer:
        key = routes.project_key(call.scope["path"])
        self._open(key.encode(), _NO_KEY)
        url = urlsplit(self._public_url)
        host = url.netloc or call.headers.get(b"host", b"").decode("latin-1")
        return answers.json(
            browser.project_settings(key, url.scheme or call.scope["scheme"], host + url.path)
        )

    async def _show_fixed(self, call: _Call) -> Answer:
        return pages.FIXED[call.scope["path"].rstrip("/") or "/"]

    async def _show_absent(self, call: _Call) -> Answer:
        return _ABSENT


def _given_key(call: _Call) -> bytes:
    """Read the write key of the header, else of the query."""
    if key := from_header(call.headers.get(b"authorization", b"")):
        return key
    if call.route.way == "tracking" and (key := call.headers.get(intilery.HEADER, b"").strip()):
        return key
    query = call.scope["query_string"]
    found = parse_qs(query.decode("latin-1"), errors="replace").get("writeKey") if query else None
    return found[0].strip().encode() if found else b""


def _body_key(raw: bytes) -> bytes:
    try:
        return scalar(bytes(msgspec.json.decode(raw, type=_Keyed).write_key)).encode()
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return b""


def _shared(route: Route) -> tuple[Header, ...]:
    return CORS if route.cors else ()


def _unread(headers: Mapping[bytes, bytes]) -> bool:
    """Whether a body follows that nobody will read: then the connection ends with the answer."""
    return b"transfer-encoding" in headers or headers.get(b"content-length", b"0").strip() != b"0"


def _other_method(route: Route, method: str, headers: Mapping[bytes, bytes]) -> Answer:
    """Answer OPTIONS with what is allowed, anything else with 405."""
    methods = (*route.methods, "OPTIONS") if route.cors else route.methods
    allow = ", ".join(methods).encode()
    if method != "OPTIONS" or not route.cors:
        return text(405, f"use {' or '.join(route.methods)}", (b"allow", allow))
    wanted = headers.get(b"access-control-request-headers", b"")
    echoed = wanted if _HEADER_NAMES.fullmatch(wanted) else b"*"
    granted = ((b"allow-methods", allow), (b"allow-headers", echoed), (b"max-age", b"900"))
    return Answer(200, headers=tuple((b"access-control-" + name, value) for name, value in granted))
