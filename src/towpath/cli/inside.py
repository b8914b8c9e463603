"""The admin API in this process, under the data directory's lock: what commands do while no server runs."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path
from typing import Any

from ..api import admin
from ..api.answering import application
from ..api.secrets import SecretRoutes
from ..app import App
from ..config.locate import locate
from ..log.lock import DirectoryLock
from ..secrets import Secrets
from ..server import exchange
from ..state import State
from . import logs
from .client import load_config


def in_process(file: Path, method: str, where: str, body: bytes) -> tuple[int, bytes]:
    """Answer one request without ingest and deliveries. Raises `TowpathError` when a server owns the data."""
    logs.begin(logging.ERROR)
    if where.split("/")[1] == "secrets":
        return _secrets(locate(file).storage, method, where, body)
    return asyncio.run(_whole(file, method, where, body))


async def _whole(file: Path, method: str, where: str, body: bytes) -> tuple[int, bytes]:
    async with App(load_config(file), delivering=False) as app:
        return await exchange(admin(app), method, where, body)


def _secrets(storage: Path, method: str, where: str, body: bytes) -> tuple[int, bytes]:
    """Secrets need no valid configuration: it may be the missing secret that makes it invalid."""
    storage.mkdir(mode=0o700, parents=True, exist_ok=True)
    lock = DirectoryLock(storage)
    state = State.open(storage)
    try:
        secrets = Secrets.open(state)
        app = application(SecretRoutes(secrets, _later).routes())
        return asyncio.run(exchange(app, method, where, body))
    finally:
        state.close()
        lock.release()


async def _later() -> dict[str, Any]:
    return {"applied": False, "running": False, "why": "no server runs; it counts from the next start on"}
