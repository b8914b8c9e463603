"""Serving: the App with its two doors, events on TCP and admin on the Unix socket, until a signal."""

from __future__ import annotations

import asyncio
import contextlib
import signal
from collections.abc import AsyncIterator, Callable

import structlog

from .api import admin
from .app import App
from .config import Config, ConfigError
from .server import Listener, tcp, unix

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
    tls, door = config.server.tls, config.admin
    listening = tcp(config.server.listen)
    try:
        async with App(config, reread=reread) as app:
            listeners = [
                Listener(
                    app.ingest,
                    listening,
                    certificate=tls.certificate if tls else None,
                    key=tls.key if tls else None,
                ),
                Listener(admin(app), unix(config.socket)),
            ]
            if door.listen and door.token:
                listeners.append(Listener(admin(app, door.token.get_secret_value()), tcp(door.listen)))
            for listener in listeners:
                await listener.start()
            try:
                yield Serving(app, listeners)
            finally:
                # Events first, so that nothing new is accepted while deliveries end.
                await asyncio.gather(*(listener.stop() for listener in listeners))
                config.socket.unlink(missing_ok=True)
    finally:
        listening.close()


async def serve(
    config: Config, reread: Callable[[], Config] | None = None, ready: Callable[[Serving], None] | None = None
) -> None:
    """Serve until SIGTERM or SIGINT; SIGHUP reads the configuration again."""
    loop, stop = asyncio.get_running_loop(), asyncio.Event()
    async with serving(config, reread) as running:
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        loop.add_signal_handler(signal.SIGHUP, lambda: asyncio.ensure_future(_reload(running.app)))
        if ready is not None:
            ready(running)
        await stop.wait()
        log.info("stopping: deliveries under way end first")


async def _reload(app: App) -> None:
    try:
        await app.reload()
    except ConfigError as error:
        log.error("the new configuration has errors; the old one stays in force", errors=error.render())
