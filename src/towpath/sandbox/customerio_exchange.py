"""Requests and answers of the simulated Customer.io's APIs: routes, queries, bodies, error envelopes."""

from __future__ import annotations

import re
import zlib
from collections import deque
from collections.abc import Callable, Iterable
from functools import lru_cache
from typing import Any, TypeAlias
from urllib.parse import parse_qs, unquote

import msgspec
from msgspec import Struct

from towpath.clock import Clock

from .exchange import READ_LIMIT_BYTES, Headers, Incoming

Answered: TypeAlias = tuple[int, Any]
"""A status and a document; None is an empty body."""

_GZIP = 16 + zlib.MAX_WBITS
decode = msgspec.json.Decoder().decode


class Refusal(Exception):
    """A request that is answered with an error document."""

    def __init__(self, status: int, document: Any, headers: Headers = ()) -> None:
        super().__init__(status)
        self.status = status
        self.document = document
        self.headers = headers


class Call(Struct, frozen=True, gc=False):
    """A request on its way to an endpoint, with the values of its path, decoded."""

    request: Incoming
    values: tuple[str, ...] = ()

    def query(self, name: str, default: str = "") -> str:
        """Return a value of the query; as everywhere, a `+` in it is a blank."""
        return _parameters(self.request.query).get(name, [default])[0]

    def number(self, name: str, default: int, largest: int) -> int:
        """Return a number of the query, at most the largest. Raises `Refusal` for what is none."""
        text = self.query(name, str(default))
        if not text.isdecimal():
            raise app_error(400, f"{name} must be a number")
        return min(int(text), largest)

    def decoded(self) -> tuple[str, ...]:
        """Return the values without percent-encoding."""
        return tuple(map(unquote, self.values))

    def body(self) -> Any:
        """Decode the body. Raises `ValueError` for what is no JSON."""
        try:
            return decode(self.request.body)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise ValueError("the body is no JSON") from error


@lru_cache(1024)
def _parameters(query: str) -> dict[str, list[str]]:
    return parse_qs(query)


Endpoint: TypeAlias = Callable[[Call], Answered]


class Routes:
    """Endpoints by method and path; in a path `*` is one segment."""

    def __init__(self, endpoints: Iterable[tuple[str, str, Endpoint]]) -> None:
        self._exact: dict[tuple[str, str], Endpoint] = {}
        self._patterns: list[tuple[str, re.Pattern[str], Endpoint]] = []
        for method, path, endpoint in endpoints:
            if "*" in path:
                pattern = re.escape(path).replace(r"\*", "([^/]+)")
                self._patterns.append((method, re.compile(pattern), endpoint))
            else:
                self._exact[method, path] = endpoint

    def find(self, request: Incoming) -> tuple[Endpoint, Call] | None:
        """Find the endpoint of a request, and the call to make to it."""
        endpoint = self._exact.get((request.method, request.path))
        if endpoint is not None:
            return endpoint, Call(request)
        for method, pattern, candidate in self._patterns:
            match = pattern.fullmatch(request.path) if method == request.method else None
            if match:
                return candidate, Call(request, tuple(map(unquote, match.groups())))
        return None


class Allowance:
    """A rate: so many calls in any window of so many seconds."""

    def __init__(self, clock: Clock, calls: int, window_s: float) -> None:
        self._clock = clock
        self._calls = calls
        self._window_s = window_s
        self._spent: deque[float] = deque()

    def take(self) -> bool:
        """Spend one call; False, and nothing spent, when there is none left."""
        now = self._clock.monotonic()
        while self._spent and self._spent[0] <= now - self._window_s:
            self._spent.popleft()
        if len(self._spent) >= self._calls:
            return False
        self._spent.append(now)
        return True


def inflated(request: Incoming) -> Incoming:
    """Return a request whose body is not compressed. Raises `ValueError` for a gzip that is none."""
    if request.header(b"content-encoding") != "gzip":
        return request
    try:
        body = zlib.decompressobj(_GZIP).decompress(request.body, READ_LIMIT_BYTES)
    except zlib.error as error:
        raise ValueError("the body is no gzip") from error
    return Incoming(request.method, request.path, request.query, request.headers, body, len(body))


def track_error(status: int, *errors: str, single: bool = False) -> Refusal:
    """Return an error in one of the two envelopes of Track v1."""
    meta = {"error": errors[0]} if single else {"errors": list(errors)}
    return Refusal(status, {"meta": meta})


def app_error(status: int, detail: str, pointer: str = "") -> Refusal:
    """Return an error in the App API's envelope; the status is a string there."""
    error: dict[str, Any] = {"detail": detail, "status": str(status)}
    if pointer:
        error["source"] = {"pointer": pointer}
    return Refusal(status, {"errors": [error]})
