"""The CLI's way to the program: over the admin socket, or in this process when no server runs (design §5.10)."""

from __future__ import annotations

import asyncio
import http.client
import json
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any
from urllib.parse import quote, urlencode

from ..config import Config
from ..config.locate import locate
from ..errors import TowpathError
from .output import Unreachable

TIMEOUT_S = 120.0


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float | None) -> None:
        super().__init__("towpath", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def path(*parts: str | int) -> str:
    """Join path segments, each percent-encoded."""
    return "/" + "/".join(quote(str(part), safe="") for part in parts)


class Client:
    """Calls the admin API of one configuration file."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._socket = locate(file).socket

    def get(self, where: str, **query: Any) -> Any:
        """Read."""
        given = {name: value for name, value in query.items() if value is not None}
        return self.call("GET", f"{where}?{urlencode(given)}" if given else where)

    def post(self, where: str, body: Mapping[str, Any] | None = None) -> Any:
        """Act."""
        return self.call("POST", where, body or {})

    def call(self, method: str, where: str, body: Mapping[str, Any] | None = None) -> Any:
        """One exchange; the answer's JSON. Raises `TowpathError` with what the server says."""
        payload = None if body is None else json.dumps(body).encode()
        try:
            status, answer = self._over_socket(method, where, payload)
        except (FileNotFoundError, ConnectionRefusedError):
            status, answer = asyncio.run(self._in_process(method, where, payload or b""))
        except (OSError, http.client.HTTPException) as error:
            raise Unreachable(
                f"the server at {self._socket} does not answer: {error}", code="E5020"
            ) from error
        return _read(status, answer)

    def _over_socket(self, method: str, where: str, body: bytes | None) -> tuple[int, bytes]:
        connection = _UnixConnection(self._socket, TIMEOUT_S)
        try:
            connection.request(method, where, body, {"content-type": "application/json"})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    async def _in_process(self, method: str, where: str, body: bytes) -> tuple[int, bytes]:
        """Take the data directory's lock and run the same API here, without ingest and deliveries."""
        from ..api import admin
        from ..app import App

        async with App(load_config(self._file), delivering=False) as app:
            return await exchange(admin(app), method, where, body)

    def stream(self, where: str) -> Iterator[Any]:
        """Read JSON lines until the server ends. Raises `Unreachable` when none runs."""
        connection = _UnixConnection(self._socket, None)
        try:
            connection.request("GET", where)
            for line in connection.getresponse():
                yield json.loads(line)
        except OSError as error:
            raise Unreachable("no server runs here", code="E5021", fix="towpath run") from error
        finally:
            connection.close()


def load_config(file: Path) -> Config:
    """Load a configuration with the secrets of its storage. Raises `ConfigError`."""
    from ..config import load
    from ..secrets import stored

    return load(file, secrets=stored)


def _read(status: int, answer: bytes) -> Any:
    try:
        value = json.loads(answer)
    except ValueError:
        raise TowpathError(f"the server answered {status} without JSON", code="E5022") from None
    if status >= 400:
        raise TowpathError(
            value.get("text") or value.get("title", f"status {status}"),
            code=value.get("code", "E5022"),
            why=value.get("why", ""),
            fix=value.get("fix", ""),
            data=value.get("data", ""),
        )
    return value


async def exchange(app: Any, method: str, where: str, body: bytes) -> tuple[int, bytes]:
    """One request to an ASGI application in this process: status and body."""
    raw_path, _, query = where.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": http_path(raw_path),
        "raw_path": raw_path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(b"content-type", b"application/json")],
    }
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent[0]["status"], b"".join(part.get("body", b"") for part in sent[1:])


def http_path(raw: str) -> str:
    """The decoded path of a request line."""
    from urllib.parse import unquote

    return unquote(raw)
