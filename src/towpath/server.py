"""Listening: one ASGI application on one socket inside the running loop; signals are the program's."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import socket
import stat
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import unquote

import uvicorn

from .errors import TowpathError
from .ingest import answers
from .ingest.protocol import BoundedHttp

KEEP_ALIVE_S = 75
BACKLOG = 2048
GRACE_S = 5
_STOPPING = answers.text(503, "service unavailable: towpath is stopping, send this again", close=True)


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave SIGTERM and SIGINT to the program, which has deliveries to end first."""
        yield


class Listener:
    """An ASGI application that listens from `start` to `stop`. TLS files are PEM paths."""

    def __init__(
        self, app: Any, listening: socket.socket, *, certificate: str | None = None, key: str | None = None
    ) -> None:
        self._socket = listening
        self._server = _Server(
            uvicorn.Config(
                _answering(app),
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                ws="none",
                http=BoundedHttp,
                proxy_headers=False,
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=GRACE_S,
                ssl_certfile=certificate,
                ssl_keyfile=key,
            )
        )
        self._task: asyncio.Task[None] | None = None

    @property
    def address(self) -> str:
        """Return `host:port`, or the path of a Unix socket."""
        name = self._socket.getsockname()
        return name if isinstance(name, str) else f"{name[0]}:{name[1]}"

    async def start(self) -> None:
        """Return once connections are answered."""
        self._task = asyncio.create_task(self._server.serve(sockets=[self._socket]))
        while not self._server.started:
            if self._task.done():
                self._explain(self._task)
            await asyncio.sleep(0.005)

    def _explain(self, task: asyncio.Task[None]) -> None:
        """Say why the server did not start: reading the certificate is all that can go wrong by now."""
        error = task.exception()
        if error is not None and not isinstance(error, OSError):
            raise error
        raise TowpathError(
            f"the server on {self.address} cannot start: {error or 'it ended'}",
            code="E5007",
            fix="server.tls must name a PEM certificate chain and its own private key, without passphrase",
            data="Nothing was accepted and nothing is lost.",
        ) from error

    async def stop(self) -> None:
        """Answer what is under way, accept nothing new."""
        self._server.should_exit = True
        if self._task is not None:
            await asyncio.wait([self._task])


def _answering(app: Any) -> Any:
    """The same application, for which a request that a stop cuts short is answered and no fault."""

    async def answered(scope: Any, receive: Any, send: Any) -> None:
        try:
            await app(scope, receive, send)
        except asyncio.CancelledError:
            await answers.deliver(send, _STOPPING)

    return answered


def tcp(address: str, key: str) -> socket.socket:
    """A listening TCP socket on `host:port`; port 0 picks a free one. Raises `TowpathError` naming `key`."""
    host, _, port = address.rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((host.strip("[]"), int(port)))
        made.listen(BACKLOG)
    except OSError as error:
        made.close()
        raise TowpathError(
            f"cannot listen on {address}: {error.strerror or error}",
            code="E5008",
            why=f"{key} of the configuration names this address",
            fix=f"stop the program that uses it, or set {key} to another address",
            data="Nothing was started and nothing is lost.",
        ) from error
    return made


def unix(path: Path) -> socket.socket:
    """A listening Unix socket with mode 0600; an old one is stale, since the caller holds the directory."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o177)
    try:
        _make_private(path.parent)
        path.unlink(missing_ok=True)
        made.bind(str(path))
        made.listen(128)
    except OSError as error:
        made.close()
        raise TowpathError(
            f"cannot make the admin socket {path}: {error.strerror or error}",
            code="E5009",
            fix="set admin.socket to a short path in a directory that exists and is writable",
            data="Nothing was started and nothing is lost.",
        ) from error
    finally:
        os.umask(before)
    return made


def _make_private(directory: Path) -> None:
    """Make a directory for sockets where there is none. Raises `OSError` when others could use it."""
    with contextlib.suppress(FileExistsError):
        directory.mkdir(mode=0o700)
        directory.chmod(0o700)  # the caller's umask may have taken more
    status = directory.stat()
    open_to_all = status.st_mode & stat.S_IWOTH and not status.st_mode & stat.S_ISVTX
    if status.st_uid not in (os.getuid(), 0) or open_to_all:
        raise PermissionError(errno.EPERM, "its directory belongs to somebody else")


async def exchange(
    app: Any, method: str, where: str, body: bytes, headers: Sequence[tuple[bytes, bytes]] = ()
) -> tuple[int, bytes]:
    """One request to an ASGI application in this process: status and body."""
    raw_path, _, query = where.partition("?")
    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": method,
        "scheme": "http",
        "path": unquote(raw_path),
        "raw_path": raw_path.encode(),
        "query_string": query.encode(),
        "root_path": "",
        "headers": [(b"content-type", b"application/json"), *headers],
    }
    sent: list[Any] = []

    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(message: Any) -> None:
        sent.append(message)

    await app(scope, receive, send)
    return sent[0]["status"], b"".join(part.get("body", b"") for part in sent[1:])
