"""Routes of the program itself: status, reload, balance, what happens live, and sending as a source."""

from __future__ import annotations

import base64
import os
from collections.abc import AsyncIterator, Mapping
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from .. import __version__, views
from ..app import App, Running
from ..config import ConfigError
from ..errors import TowpathError
from ..inspection import snapshot
from ..server import exchange
from . import asking
from .answering import Missing, Named


class Program:
    """Answers about the whole program."""

    def __init__(self, app: App) -> None:
        self._app = app

    def routes(self) -> list[Named]:
        """Method, path and answer of each."""
        return [
            ("GET", "/status", self.status),
            ("POST", "/reload", self.reload),
            ("GET", "/balance", self.balance),
            ("POST", "/send", self.send),
        ]

    async def status(self, _: Request) -> Any:
        """Say what runs, what stands still, and what was taken in."""
        app = self._app
        return {
            "version": __version__,
            "running": app.delivering,
            "pid": os.getpid() if app.delivering else None,
            "config": str(app.config.file),
            "storage": str(app.config.storage),
            "durability": app.config.durability,
            "sources": await app.store.counts(),
            "connections": {name: _running(running) for name, running in app.connections.items()},
            "pauses": [views.pause(row) for row in await app.store.pauses()],
            "heard": app.sources.standing(),
        }

    async def reload(self, _: Request) -> Any:
        """Put the configuration file in force."""
        done = await self._app.reload()
        await self._app.recheck()
        return {"reloaded": True, **msgspec.to_builtins(done)}

    async def apply(self) -> dict[str, Any]:
        """Let the running parts take a changed secret up at once (P6, E031)."""
        if not self._app.delivering:
            return {"applied": False, "why": "no server runs; it counts from the next start on"}
        try:
            await self._app.reload()
        except ConfigError as error:
            return {"applied": False, "why": error.render()}
        except TowpathError as error:
            return {"applied": False, "why": error.title}
        await self._app.recheck()
        return {"applied": True}

    async def balance(self, request: Request) -> Any:
        """Prove that nothing is missing."""
        recount = request.query_params.get("recount") == "true"
        return [views.balance(row) for row in await self._app.store.balance(recount=recount)]

    async def send(self, request: Request) -> Any:
        """Take messages in as a source's own client would, whatever address and certificate it has."""
        fields = await asking.body(request)
        messages = fields.get("messages")
        if not isinstance(messages, list):
            raise TowpathError("messages must be a list", code="E5011")
        key = self._write_key(fields.get("source"))
        credentials = base64.b64encode(f"{key}:".encode())
        status, answer = await exchange(
            self._app.ingest,
            "POST",
            "/v1/batch",
            msgspec.json.encode({"batch": messages}),
            [(b"authorization", b"Basic " + credentials)],
        )
        return _verdict(status, answer)

    def _write_key(self, source: Any) -> str:
        known: Mapping[str, Any] = {
            name: entry.settings
            for name, entry in self._app.config.sources.items()
            if entry.type == "segment" and entry.settings.write_keys
        }
        if not known or (source is not None and source not in known):
            listed = ", ".join(known) or "none; add one under sources"
            raise Missing(f"there is no segment source {source or ''}", code="E4405", fix=f"known: {listed}")
        settings = known[source] if source is not None else next(iter(known.values()))
        key: str = settings.write_keys[0].get_secret_value()
        return key

    async def listen(self, _: Request) -> Response:
        """Stream every outcome as a JSON line."""
        return StreamingResponse(self._lines(), media_type="application/x-ndjson")

    async def _lines(self) -> AsyncIterator[bytes]:
        yield b'{"listening":true}\n'
        async for line in self._app.bus.listen():
            yield msgspec.json.encode(line) + b"\n"


def _verdict(status: int, answer: bytes) -> Any:
    """What the event API said of a batch: what it refused item by item, or why it took nothing."""
    try:
        said = msgspec.json.decode(answer)
    except msgspec.DecodeError:
        said = {}
    if isinstance(said, dict) and (status == 200 or "refused" in said):
        return {"refused": said.get("refused", [])}
    text = answer.decode("utf-8", "replace")
    raise TowpathError(f"the event API answered {status}: {text}", code="E5024", data="Nothing was kept.")


def _running(running: Running) -> dict[str, Any]:
    line = snapshot(running.loop)
    if running.down:
        line["state"] = "taken over by another owner" if running.fenced else "restarting"
    return {**line, "failures": running.failures, "failure": running.failure}
