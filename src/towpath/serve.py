"""Serving: the App with its two doors, events on TCP and admin on the Unix socket, until a signal."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
from collections.abc import AsyncIterator, Callable, MutableMapping
from typing import Any

import structlog

from .api import admin
from .app import App
from .config import Config, ConfigError
from .errors import TowpathError
from .server import Listener, tcp, unix

# Python's own thresholds look for cycles every 700 objects; a batch of events makes more than that.
GC_THRESHOLDS = (50_000, 20, 50)

log = structlog.get_logger("towpath.serve")


class Serving:
    """A running server: its App, and the addresses it answers on."""

    def __init__(self, app: App, listeners: list[Listener]) -> None:
        self.app = app
        self.listeners = listeners

    @property
    def address(self) -> str:
        """Return `host:port` of the event API."""
        return self.listeners[0].address


@contextlib.asynccontextmanager
async def serving(config: Config, reread: Callable[[], Config] | None = None) -> AsyncIterator[Serving]:
    """Run everything of a configuration while the block lasts; stops gracefully within 10 seconds."""
    app = App(config, reread=reread)
    await app.open()
    try:
        with contextlib.ExitStack() as undo:
            listeners = _listeners(app, config, undo)
            try:
                await app.begin()
                for listener in listeners:
                    await listener.start()
                yield Serving(app, listeners)
            finally:
                # What is accepted while deliveries end is on disk, and delivered after the next start.
                await asyncio.gather(app.halt(), *(listener.stop() for listener in listeners))
    finally:
        await app.stop()


def _listeners(app: App, config: Config, undo: contextlib.ExitStack) -> list[Listener]:
    """Bind every address before anything is delivered, so that a taken one is told at once."""

    async def events(
        scope: MutableMapping[str, Any], receive: Callable[[], Any], send: Callable[[Any], Any]
    ) -> None:
        # A reload may have put others in their place.
        webhooks = app.sources.webhooks
        await (webhooks if webhooks.takes(scope["path"]) else app.ingest)(scope, receive, send)

    tls, door = config.server.tls, config.admin
    listening = undo.enter_context(contextlib.closing(tcp(config.server.listen, "server.listen")))
    files = (tls.certificate, tls.key) if tls else (None, None)
    undo.callback(config.socket.unlink, missing_ok=True)
    inside = undo.enter_context(contextlib.closing(unix(config.socket)))
    found = [Listener(events, listening, certificate=files[0], key=files[1]), Listener(admin(app), inside)]
    if door.listen and door.token:
        beside = undo.enter_context(contextlib.closing(tcp(door.listen, "admin.listen")))
        found.append(Listener(admin(app, door.token.get_secret_value()), beside))
    return found


async def serve(
    config: Config, reread: Callable[[], Config] | None = None, ready: Callable[[Serving], None] | None = None
) -> None:
    """Serve until SIGTERM or SIGINT; SIGHUP reads the configuration again; a second SIGINT ends at once."""
    gc.set_threshold(*GC_THRESHOLDS)
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    reloads: set[asyncio.Task[None]] = set()
    async with serving(config, reread) as running:

        def reload() -> None:
            task = asyncio.create_task(_reload(running.app))
            reloads.add(task)
            task.add_done_callback(reloads.discard)

        def end() -> None:
            if stop.is_set():
                os._exit(130)  # asked twice: what was accepted is on disk
            stop.set()

        loop.add_signal_handler(signal.SIGTERM, stop.set)
        loop.add_signal_handler(signal.SIGINT, end)
        loop.add_signal_handler(signal.SIGHUP, reload)
        if ready is not None:
            ready(running)
        await stop.wait()
        log.info("stopping: deliveries under way end first")


async def _reload(app: App) -> None:
    try:
        await app.reload()
        await app.recheck()
    except ConfigError as error:
        log.error("the new configuration has errors; the old one stays in force", errors=error.render())
    except TowpathError as error:
        log.error("the new configuration cannot be used; the old one stays in force", errors=error.lines())
    except Exception as error:
        log.error("reloading failed; the old configuration stays in force", error=repr(error))
