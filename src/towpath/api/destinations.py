"""Routes of sources and destinations: list, test, pause, resume."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from starlette.requests import Request

from .. import registry, views
from ..app import App, Running
from ..config import ConnectionEntry
from ..log import Pause
from ..pauses import BY_HAND, DELETES
from ..replicate.settings import ReplicationSettings
from ..wiring import connection_of
from . import asking
from .answering import Missing, Named


class Destinations:
    """Answers about where messages come from and go to."""

    def __init__(self, app: App) -> None:
        self._app = app

    def routes(self) -> list[Named]:
        """Method, path and answer of each."""
        return [
            ("GET", "/connectors", self.connectors),
            ("GET", "/connectors/{name}", self.connector),
            ("GET", "/destinations", self.destinations),
            ("POST", "/destinations/{name}/test", self.test),
            ("POST", "/sources/{name}/test", self.test_source),
            ("POST", "/destinations/{name}/pause", self.pause),
            ("POST", "/destinations/{name}/resume", self.resume),
        ]

    async def connectors(self, _: Request) -> Any:
        """List every source, destination and replication by its unique name."""
        return self._connectors()

    def _connectors(self) -> list[dict[str, Any]]:
        config = self._app.config
        roles: tuple[tuple[str, Mapping[str, Any]], ...] = (
            ("source", config.sources),
            ("destination", config.destinations),
            ("replication", config.replications),
        )
        return [
            {"name": name, "role": role, "type": entry.type}
            for role, entries in roles
            for name, entry in entries.items()
        ]

    def _kind(self, line: Mapping[str, Any]) -> Any:
        if line["role"] == "destination":
            return self._app.config.destinations[line["name"]].kind
        if line["role"] == "replication":
            return ReplicationSettings
        return registry.sources()[line["type"]]

    async def connector(self, request: Request) -> Any:
        """Show one, and what its type can do."""
        name = request.path_params["name"]
        for line in self._connectors():
            if line["name"] == name:
                return {**line, **_about(self._kind(line))}
        raise Missing(
            f"no source, destination or replication is called {name!r}",
            code="E4406",
            fix="towpath connectors list",
        )

    async def destinations(self, _: Request) -> Any:
        """List destinations with their connections and what stands still."""
        pauses = await self._app.store.pauses()
        return [
            {
                "name": name,
                "type": entry.type,
                "account": entry.account,
                "connections": self._connections(name),
                "pauses": [views.pause(row) for row in pauses if row.connection in self._connections(name)],
            }
            for name, entry in self._app.config.destinations.items()
        ]

    def _connections(self, destination: str) -> list[str]:
        return [row.name for row in self._app.config.connections if row.destination == destination]

    def _named(self, request: Request) -> str:
        name: str = request.path_params["name"]
        if name not in self._app.config.destinations:
            known = ", ".join(self._app.config.destinations) or "none"
            raise Missing(f"there is no destination {name!r}", code="E4403", fix=f"known: {known}")
        return name

    async def test(self, request: Request) -> Any:
        """Ask a destination's own check; what was paused resumes when it succeeds."""
        name = self._named(request)
        entry = self._app.config.destinations[name]
        destination = connection_of(ConnectionEntry("test", frozenset(), name), entry).destination
        try:
            checks = await destination.check(
                self._app.scope(entry, destination, f"test-{name}", budgeted=False)
            )
        except Exception as error:
            return [{"name": "the destination answers", "ok": False, "detail": str(error), "capability": ""}]
        if all(check.ok for check in checks):
            for running in self._running(name):
                await running.loop.pauses.recheck()
        return [msgspec.to_builtins(check) for check in checks]

    async def test_source(self, request: Request) -> Any:
        """Ask a source's own check."""
        name = request.path_params["name"]
        if name not in self._app.config.sources:
            known = ", ".join(self._app.config.sources) or "none"
            raise Missing(f"there is no source {name!r}", code="E4411", fix=f"known: {known}")
        try:
            return [msgspec.to_builtins(check) for check in await self._app.sources.check(name)]
        except Exception as error:
            return [{"name": "the source answers", "ok": False, "detail": str(error), "capability": ""}]

    def _running(self, destination: str) -> list[Running]:
        return [
            running for running in self._app.connections.values() if running.entry.destination == destination
        ]

    async def pause(self, request: Request) -> Any:
        """Let everything for a destination wait."""
        name, reason = self._named(request), (await asking.body(request)).get("reason") or "paused by hand"
        await self._keep_paused(name, str(reason))
        for running in self._running(name):
            await running.loop.pauses.by_hand(str(reason))
        return {"paused": self._connections(name)}

    async def _keep_paused(self, destination: str, reason: str) -> None:
        """Keep the pause also for connections that do not run now."""
        now = self._app.clock.now()
        for name in self._connections(destination):
            await self._app.store.pause(Pause(name, BY_HAND, reason, now))

    async def resume(self, request: Request) -> Any:
        """Deliver again, whatever the reason for the pause was; deletions too many wait for their own yes."""
        name = self._named(request)
        for running in self._running(name):
            running.loop.lift_throttle()
            await running.loop.pauses.resume()
        mine = [row for row in await self._app.store.pauses() if row.connection in self._connections(name)]
        for row in mine:
            if row.capability != DELETES:
                await self._app.store.resume(row.connection, row.capability)
        guarded = [row.connection for row in mine if row.capability == DELETES]
        return {"resumed": self._connections(name), **({"deletions_wait": guarded} if guarded else {})}


def _about(kind: Any) -> dict[str, Any]:
    """Describe a type: its one-line purpose and its settings."""
    settings = getattr(kind, "Settings", kind)
    schema = settings.model_json_schema()
    about = {key: field.get("description", "") for key, field in schema.get("properties", {}).items()}
    purpose = (kind.__doc__ or "").strip().splitlines()
    return {"about": purpose[0] if purpose else "", "settings": about}
