"""URLs as browsers and the WHATWG read them: where to connect, and what to ask for there."""

from __future__ import annotations

import base64
from collections.abc import Mapping
from functools import lru_cache
from urllib.parse import unquote_to_bytes

from msgspec import Struct
from pyreqwest.http import Url

from .http import Unsendable


class Origin(Struct, frozen=True):
    """Where to connect: connections of the same origin can be shared."""

    tls: bool
    host: str
    port: int


class Target(Struct, frozen=True):
    """One URL: its origin, the path with the query, and the headers that belong to every request for it."""

    origin: Origin
    path: str
    headers: Mapping[str, str]


@lru_cache(256)
def read_url(text: str) -> Target:
    """Read a URL. Raises `Unsendable` for what is none, neither http nor https, or without a valid host."""
    try:
        url = Url(text)
    except ValueError as error:
        raise Unsendable(f"not a request: {error}") from error
    host, port = url.host_str, url.port_or_known_default
    if url.scheme not in ("http", "https") or not host or not port:
        raise Unsendable("not a request: only http and https URLs can be called")
    _refuse_name(host)
    headers = {"host": host if url.port is None else f"{host}:{port}", "accept": "*/*"}
    if url.username or url.password:
        headers["authorization"] = _basic(url.username, url.password or "")
    path = url.path if url.query_string is None else f"{url.path}?{url.query_string}"
    return Target(Origin(url.scheme == "https", host.strip("[]"), port), path, headers)


def _refuse_name(host: str) -> None:
    """Refuse what no name server can be asked for: an empty label, or one of over 63 characters."""
    try:
        host.encode("idna")
    except UnicodeError as error:
        raise Unsendable(f"not a request: {host[:80]!r} is not a valid host name") from error


def _basic(name: str, password: str) -> str:
    pair = unquote_to_bytes(name) + b":" + unquote_to_bytes(password)
    return f"Basic {base64.b64encode(pair).decode()}"
