"""Routes of connections: list, and drop one that the configuration no longer has."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request

from ..app import App
from ..errors import TowpathError
from .answering import Missing, Named


class Connections:
    """Answers about connections, those that only the ledger still knows included."""

    def __init__(self, app: App) -> None:
        self._app = app

    def routes(self) -> list[Named]:
        """Method, path and answer of each."""
        return [("GET", "/connections", self.connections), ("DELETE", "/connections/{name:path}", self.drop)]

    def _configured(self) -> set[str]:
        return {entry.name for entry in self._app.config.connections}

    async def connections(self, _: Request) -> Any:
        """List every connection with what it still has to deliver."""
        configured = self._configured()
        return [
            {
                "name": row.connection,
                "configured": row.connection in configured,
                "waiting": row.waiting,
                "dead": row.dead,
            }
            for row in await self._app.store.balance()
        ]

    async def drop(self, request: Request) -> Any:
        """Forget a connection, with what waits and died on it; the log itself is not touched."""
        name = request.path_params["name"]
        if name in self._configured():
            raise TowpathError(
                f"the connection {name!r} is in the configuration",
                code="E4407",
                why="its deliveries would begin anew",
                fix="take it out of the configuration first, then towpath reload",
                data="nothing was changed",
            )
        if not await self._app.store.disconnect(name):
            raise Missing(f"there is no connection {name!r}", code="E4408", fix="towpath connections list")
        return {"dropped": name}
