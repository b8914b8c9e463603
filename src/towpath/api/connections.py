"""Routes of connections: list, confirm deletions, drop one that the configuration no longer has."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request

from .. import views
from ..app import App
from ..deletes import decide
from ..errors import TowpathError
from ..inspection import deletions_held
from ..log import Pause
from ..pauses import DELETES
from . import asking
from .answering import Missing, Named


class Connections:
    """Answers about connections, those that only the ledger still knows included."""

    def __init__(self, app: App) -> None:
        self._app = app

    def routes(self) -> list[Named]:
        """Method, path and answer of each."""
        return [
            ("GET", "/connections", self.connections),
            ("GET", "/connections/{name:path}/deletes", self.deletes),
            ("POST", "/connections/{name:path}/confirm-deletes", self.confirm_deletes),
            ("POST", "/connections/{name:path}/discard-deletes", self.discard_deletes),
            ("DELETE", "/connections/{name:path}", self.drop),
        ]

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
                "leaving": list(self._app.leaving.of(row.connection)),
            }
            for row in await self._app.store.balance()
        ]

    async def deletes(self, request: Request) -> Any:
        """Show why deletions of people wait on a connection, and how many at least."""
        row = await self._guarded(request)
        running = self._app.connections.get(row.connection)
        waiting = None if running is None else deletions_held(running.loop)
        return {**views.pause(row), "waiting": waiting, "upto": self._app.store.last()}

    async def confirm_deletes(self, request: Request) -> Any:
        """Let the deletions go that the delete guard holds: all up to `upto`, by default until now."""
        return {"confirmed": await self._decide(request, discard=False)}

    async def discard_deletes(self, request: Request) -> Any:
        """Skip them instead."""
        return {"discarded": await self._decide(request, discard=True)}

    async def _decide(self, request: Request, *, discard: bool) -> str:
        name = (await self._guarded(request)).connection
        running = self._app.connections.get(name)
        # What was shown is decided about, not what came since.
        last = self._app.store.last()
        given = (await asking.body(request)).get("upto", last)
        if not isinstance(given, int) or not 0 <= given <= last:
            raise TowpathError("upto must be a position that GET …/deletes gave", code="E5207")
        if running is not None:
            await running.loop.deletes.decide(given, discard=discard)
        else:
            decide(self._app.state.memory(name), given, discard=discard)
            await self._app.store.resume(name, DELETES)
        return name

    async def _guarded(self, request: Request) -> Pause:
        """The pause of a connection's deletions. Raises `Missing` when there is none."""
        name = request.path_params["name"]
        for row in await self._app.store.pauses():
            if (row.connection, row.capability) == (name, DELETES):
                return row
        raise Missing(
            f"no deletion waits for a yes on a connection {name!r}",
            code="E4420",
            fix="towpath status  shows what is paused",
            data="Nothing was changed.",
        )

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
