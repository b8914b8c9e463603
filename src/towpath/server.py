"""Listening: one ASGI application on one socket, inside the running loop, with signals left to the program."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import uvicorn

from .errors import TowpathError

KEEP_ALIVE_S = 75
BACKLOG = 2048


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
                app,
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                ws="none",
                http="httptools",
                timeout_keep_alive=KEEP_ALIVE_S,
                timeout_graceful_shutdown=5,
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
                await self._task
                raise TowpathError(f"the server on {self.address} ended while starting", code="E5001")
            await asyncio.sleep(0.005)

    async def stop(self) -> None:
        """Answer what is under way, accept nothing new."""
        self._server.should_exit = True
        if self._task is not None:
            await self._task


def tcp(address: str) -> socket.socket:
    """A listening TCP socket on `host:port`; port 0 picks a free one. Raises `TowpathError`."""
    host, _, port = address.rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    made = socket.socket(family, socket.SOCK_STREAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        made.bind((host.strip("[]"), int(port)))
    except OSError as error:
        made.close()
        why = error.strerror or str(error)
        raise TowpathError(
            f"cannot listen on {address}: {why}",
            code="E5002",
            fix="stop the program that uses it, or set server.listen",
        ) from error
    made.listen(BACKLOG)
    return made


def unix(path: Path) -> socket.socket:
    """A listening Unix socket with mode 0600. The caller holds the directory's lock, so an old one is stale."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    path.unlink(missing_ok=True)
    before = os.umask(0o177)
    try:
        made.bind(str(path))
    except OSError as error:
        made.close()
        raise TowpathError(
            f"cannot make the admin socket {path}: {error}",
            code="E5003",
            fix="set admin.socket to a short path",
        ) from error
    finally:
        os.umask(before)
    made.listen(128)
    return made
