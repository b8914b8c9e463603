"""The CLI's way to the program: the admin socket, or this process when no server runs (design §5.10)."""

from __future__ import annotations

import errno
import http.client
import json
import os
import socket
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote, urlencode

from ..errors import TowpathError, Unauthorized
from .output import Unreachable

if TYPE_CHECKING:
    from ..config import Config

TIMEOUT_S = 120.0
STARTING_S = 3.0
IN_USE = "E5001"
_ABSENT = (FileNotFoundError, NotADirectoryError, ConnectionRefusedError)


class _UnixConnection(http.client.HTTPConnection):
    def __init__(self, path: Path, timeout_s: float | None) -> None:
        super().__init__("towpath", timeout=timeout_s)
        self._path = path

    def connect(self) -> None:
        owner, me = self._path.stat().st_uid, os.getuid()
        if me != 0 and owner not in (me, 0):
            raise PermissionError(errno.EPERM, "it belongs to somebody else")
        self.sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.sock.settimeout(self.timeout)
        self.sock.connect(str(self._path))


def path(*parts: str | int) -> str:
    """Join path segments, each percent-encoded."""
    return "/" + "/".join(quote(str(part), safe="", errors="surrogateescape") for part in parts)


class Client:
    """Calls the admin API of one configuration file. `running=True` where only a running server will do."""

    def __init__(self, file: Path) -> None:
        from ..config.locate import locate

        self._file = file
        self._socket = locate(file).socket

    def get(self, where: str, **query: Any) -> Any:
        """Read."""
        given = {name: value for name, value in query.items() if value is not None}
        return self.call("GET", f"{where}?{urlencode(given, errors='surrogateescape')}" if given else where)

    def post(self, where: str, body: Mapping[str, Any] | None = None, *, running: bool = False) -> Any:
        """Act."""
        return self.call("POST", where, body or {}, running=running)

    def call(
        self, method: str, where: str, body: Mapping[str, Any] | None = None, *, running: bool = False
    ) -> Any:
        """One exchange; the answer's JSON. Raises `TowpathError` with what the server says."""
        payload = b"" if body is None else json.dumps(body).encode()
        try:
            status, answer = self._over_socket(method, where, payload)
        except _ABSENT as error:
            if running:
                raise self._no_server() from error
            status, answer = self._without_server(method, where, payload)
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error) from error
        return _read(status, answer)

    def _over_socket(self, method: str, where: str, body: bytes) -> tuple[int, bytes]:
        connection = _UnixConnection(self._socket, TIMEOUT_S)
        try:
            connection.request(method, where, body, {"content-type": "application/json"})
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()

    def _without_server(self, method: str, where: str, body: bytes) -> tuple[int, bytes]:
        """Do it in this process; when a server is just starting, wait for its socket."""
        from .inside import in_process

        deadline = time.monotonic() + STARTING_S
        while True:
            try:
                return in_process(self._file, method, where, body)
            except TowpathError as error:
                if error.code != IN_USE or time.monotonic() > deadline:
                    raise
            time.sleep(0.1)
            try:
                return self._over_socket(method, where, body)
            except _ABSENT:
                continue

    def stream(self, where: str) -> Iterator[Any]:
        """Read JSON lines until the server ends. Raises `Unreachable` when none runs."""
        connection = _UnixConnection(self._socket, None)
        try:
            connection.request("GET", where)
            for line in connection.getresponse():
                yield json.loads(line)
        except _ABSENT as error:
            raise self._no_server() from error
        except (OSError, http.client.HTTPException) as error:
            raise self._unreachable(error) from error
        finally:
            connection.close()

    def _no_server(self) -> TowpathError:
        return Unreachable(
            f"no server of {self._file} runs here",
            code="E5021",
            why=f"nothing answers at {self._socket}",
            fix=f"towpath run --config {self._file}",
            data="Nothing was changed.",
        )

    def _unreachable(self, error: Exception) -> TowpathError:
        why = f"{type(error).__name__}: {error}"
        if isinstance(error, PermissionError):
            return Unauthorized(
                f"this user may not use {self._socket}",
                code="E5025",
                why="the admin socket belongs to the user that runs the server (mode 0600)",
                fix="run the command as that user",
                data="Nothing was changed.",
            )
        return Unreachable(
            f"the server at {self._socket} does not answer",
            code="E5020",
            why=why,
            fix="towpath status; if it hangs, look at the server's log",
            data="What was accepted is on disk; whether this command took effect is not known.",
        )


def load_config(file: Path) -> Config:
    """Load a configuration with the secrets of its storage. Raises `ConfigError`."""
    from ..config import load

    return load(file, secrets=_stored)


def _stored(storage: Path) -> Mapping[str, str]:
    """The secrets of a storage, loaded only for a file that names one."""
    from ..secrets import stored

    return stored(storage)


class Misconfigured(TowpathError):
    """The server could not use its configuration file; `problems` and the text are what it says of it."""

    def __init__(self, answer: Mapping[str, Any]) -> None:
        super().__init__(answer["title"], code=answer["code"], fix=answer["fix"], data=answer["data"])
        self.problems = answer["problems"]
        self._text = answer["text"]

    def lines(self) -> list[str]:
        """The error as the lines a terminal shows."""
        return str(self._text).splitlines()

    def json(self) -> Any:
        """The same for programs, as `towpath validate` says it."""
        return self.problems


def _read(status: int, answer: bytes) -> Any:
    try:
        value = json.loads(answer)
    except ValueError:
        raise Unreachable(f"the server answered {status} without JSON", code="E5022") from None
    if status >= 400 and "problems" in value:
        raise Misconfigured(value)
    if status >= 400:
        raise TowpathError(
            value.get("title", f"status {status}"),
            code=value.get("code", "E5022"),
            why=value.get("why", ""),
            fix=value.get("fix", ""),
            data=value.get("data", ""),
        )
    return value
