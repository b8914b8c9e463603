"""Requests of other systems to `/webhooks/<source>`: verified, kept, and only then answered."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from ipaddress import ip_address
from itertools import chain
from typing import Any
from urllib.parse import unquote

import structlog
from msgspec import Struct

from ..clock import Clock
from ..errors import Unauthorized
from ..feed import Feed, Make, Unmade
from ..log import LogFull
from ..source import Inbound, Incoming, Malformed, Unfit
from . import answers
from .answers import TEXT, Answer, Send, Unacceptable, text
from .body import Bodies, Body, Receive
from .limits import IngestLimits
from .proxy import Proxies

WEBHOOKS = "/webhooks/"
FORWARDED = (b"forwarded", b"x-forwarded-for")
_UNKNOWN = text(404, "no source of this name takes webhooks")

_log = structlog.get_logger(__name__)


class Door(Struct, frozen=True):
    """A source that takes webhooks, and its way into the log."""

    source: Inbound[Any]
    feed: Feed


class _Found(Struct, frozen=True):
    """Whose an address is: a door, the name of its source, and what that is told of the address."""

    name: str
    door: Door
    path: str
    route: str = ""


class Webhooks:
    """Takes requests for the doors given: by name, by the `path` of a kind that only one has, by `routes`.

    An ASGI application. A request that proves nothing is answered 401 and counted in `refused`; one that
    cannot be read is answered 400 and kept like a dead letter.
    """

    def __init__(self, doors: Mapping[str, Door], clock: Clock) -> None:
        self.refused: Counter[str] = Counter()
        self._clock = clock
        self.replace(doors)

    def replace(
        self,
        doors: Mapping[str, Door],
        *,
        limits: IngestLimits | None = None,
        trusted_proxies: Iterable[str] = (),
    ) -> None:
        """Put other sources and limits in force, for the next request on."""
        self._bodies = Bodies(limits or IngestLimits())
        self._proxies = Proxies(trusted_proxies)
        shared = Counter(door.source.path for door in doors.values())
        alone = {
            path: name for name, door in doors.items() if (path := door.source.path) and shared[path] == 1
        }
        self._doors = {**{path: (name, doors[name]) for path, name in alone.items()}}
        self._doors |= {name: (name, door) for name, door in doors.items()}
        self._routes = _routes(self._doors)

    def takes(self, path: str) -> bool:
        """Whether a path is one of a webhook, and not of the event API."""
        return path.startswith(WEBHOOKS) or any(pattern.fullmatch(path) for pattern in self._routes)

    async def __call__(self, scope: MutableMapping[str, Any], receive: Receive, send: Send) -> None:
        """Serve one HTTP request."""
        headers: dict[bytes, bytes] = dict(scope["headers"])
        with Body(self._bodies) as body:
            try:
                answer = await self._answer(scope, headers, body, receive)
            except Unacceptable as error:
                answer = error.answer
        await answers.deliver(send, answer)

    async def _answer(
        self, scope: MutableMapping[str, Any], headers: dict[bytes, bytes], body: Body, receive: Receive
    ) -> Answer:
        found = self._find(scope["path"])
        if found is None:
            return await _unread(_UNKNOWN, body, receive)
        door = found.door
        if scope["method"] not in door.source.methods:
            allow = ", ".join(door.source.methods)
            answer = text(405, f"use {' or '.join(door.source.methods)}", (b"allow", allow.encode()))
            return await _unread(answer, body, receive)
        if not door.source.settings.enabled:
            return await _unread(text(404, "source is disabled"), body, receive)
        raw, sender = await body.read(receive, headers), self._sender(scope, headers)
        request = Incoming(
            scope["method"],
            found.path,
            scope["query_string"].decode("latin-1"),
            {key.decode("latin-1"): value.decode("latin-1") for key, value in headers.items()},
            raw,
            found.route,
            local=_is_local(scope, headers),
        )
        return await self._take(found.name, door, request, sender)

    def _find(self, path: str) -> _Found | None:
        """Whose a path is."""
        if path.startswith(WEBHOOKS):
            called, _, rest = path[len(WEBHOOKS) :].partition("/")
            name, door = self._doors.get(unquote(called), ("", None))
            return None if door is None else _Found(name, door, rest.strip("/"))
        for pattern, (name, route) in self._routes.items():
            if pattern.fullmatch(path):
                return _Found(name, self._doors[name][1], path.strip("/"), route)
        return None

    def _sender(self, scope: MutableMapping[str, Any], headers: Mapping[bytes, bytes]) -> str:
        peer = scope.get("client") or ("",)
        return self._proxies.client(peer[0], headers.get(b"x-forwarded-for", b""))

    async def _take(self, name: str, door: Door, request: Incoming, ip: str) -> Answer:
        source = door.source
        try:
            source.verify(request, self._clock.now())
        except Unauthorized as error:
            self.refused[name] += 1
            _log.warning(
                "a webhook proves nothing and was refused", source=name, why=error.title, fix=error.fix
            )
            return text(401, error.title)

        try:
            await self._kept(door, _saying(source, [request]), ip)
        except Malformed as error:
            await self._keep_letter(door, request, error, ip)
            return text(400, f"the request cannot be read: {error}")
        except Unmade as error:
            # Answered 200: sent again it would fail again, and senders hold back what comes behind it.
            await self._keep_others(door, source.parts(request), error, ip)
        return Answer(200, source.answer(), (TEXT,))

    async def _keep_others(
        self, door: Door, parts: Sequence[Incoming], error: Malformed | Unmade, ip: str
    ) -> None:
        """Keep what parts of a request say that fail together: halved until what is at fault stands alone."""
        if len(parts) < 2:
            await self._keep_letter(door, parts[0], error, ip)
            return
        middle = len(parts) // 2
        for half in (parts[:middle], parts[middle:]):
            try:
                await self._kept(door, _saying(door.source, half), ip)
            except (Malformed, Unmade) as its:
                await self._keep_others(door, half, its, ip)

    async def _keep_letter(self, door: Door, request: Incoming, error: Malformed | Unmade, ip: str) -> None:
        if isinstance(error, Malformed):
            letter = Unfit("malformed", f"the request cannot be read: {error}", request.body)
        else:
            _log.error(
                "a webhook met a fault of towpath; it is kept: towpath dlq",
                source=door.feed.source,
                at=str(error),
            )
            letter = Unfit("unforeseen", f"towpath failed to read this: {error}", request.body)
        await self._kept(door, lambda _: (letter,), ip)

    async def _kept(self, door: Door, make: Make, ip: str) -> None:
        """Keep what a request said. Raises `Unacceptable` where the log takes nothing now."""
        try:
            await door.feed.take(make, ip=ip)
        except (Malformed, Unmade):
            raise
        except Exception as error:
            if not isinstance(error, LogFull):
                _log.error("a webhook could not be kept", source=door.feed.source, error=repr(error)[:300])
            raise answers.unkept(error) from error


def _saying(source: Inbound[Any], requests: Sequence[Incoming]) -> Make:
    """What requests say, one after the other."""
    return lambda known: chain.from_iterable(source.messages(request, known) for request in requests)


async def _unread(answer: Answer, body: Body, receive: Receive) -> Answer:
    """Let the body go by, so that its sender sees the answer and not a reset."""
    ended = await body.skip(receive)
    return Answer(answer.status, answer.body, answer.headers, close=not ended)


def _is_local(scope: MutableMapping[str, Any], headers: Mapping[bytes, bytes]) -> bool:
    """Whether this machine sent it: a proxy here that forwards for others did not."""
    peer = scope.get("client")
    try:
        return headers.keys().isdisjoint(FORWARDED) and (peer is None or ip_address(peer[0]).is_loopback)
    except ValueError:
        return False


def _routes(doors: Mapping[str, tuple[str, Door]]) -> dict[re.Pattern[str], tuple[str, str]]:
    """The source and the word of each address outside of `/webhooks/`; of one that two claim, neither's."""
    claims: dict[str, set[tuple[str, str]]] = {}
    for called, (name, door) in doors.items():
        for route, template in door.source.routes().items():
            claims.setdefault(_pattern(template, called), set()).add((name, route))
    return {re.compile(pattern): claim for pattern, (claim, *others) in claims.items() if not others}


def _pattern(template: str, name: str) -> str:
    """A regular expression of what a template means for the source that is called so."""
    named = template.replace("{source}", name)
    return "[^/]+".join(re.escape(part) for part in re.split(r"\{\w+\}", named))
