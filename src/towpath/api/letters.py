"""Routes of dead letters: list, show, replay, drop."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request

from .. import views
from ..app import App
from ..log import DeadFilter
from . import asking
from .answering import Missing, Named


class Letters:
    """Answers about dead letters."""

    def __init__(self, app: App) -> None:
        self._app = app

    def routes(self) -> list[Named]:
        """Method, path and answer of each."""
        return [
            ("GET", "/dlq", self.letters),
            ("GET", "/dlq/{id:int}", self.letter),
            ("POST", "/dlq/count", self.count),
            ("POST", "/dlq/replay", self.replay),
            ("POST", "/dlq/drop", self.drop),
        ]

    async def letters(self, request: Request) -> Any:
        """List dead letters, newest first."""
        fields: dict[str, Any] = dict(request.query_params)
        for name in ("code", "limit"):
            if name in fields:
                fields[name] = asking.number(request, name, 0)
        return [views.dead(letter) for letter in await self._chosen(fields)]

    async def _chosen(self, fields: dict[str, Any]) -> Any:
        where = asking.dead_filter(fields)
        await asking.connection(self._app, where.connection)
        return await self._app.store.dead(where)

    async def letter(self, request: Request) -> Any:
        """Show one with message, request and answer."""
        number = request.path_params["id"]
        found = await self._app.store.dead(DeadFilter(ids=[number]))
        if not found:
            raise Missing(f"there is no dead letter {number}", code="E4402", fix="towpath dlq list")
        return views.dead(found[0], body=True)

    async def count(self, request: Request) -> Any:
        """Count those that a filter means."""
        return {"count": len(await self._chosen(await asking.body(request)))}

    async def replay(self, request: Request) -> Any:
        """Deliver them again."""
        where = asking.dead_filter(await asking.body(request))
        await asking.connection(self._app, where.connection)
        counts = await self._app.store.replay(where, self._app.clock.now())
        await self._app.refresh(list(counts))
        return counts

    async def drop(self, request: Request) -> Any:
        """Delete them for good."""
        where = asking.dead_filter(await asking.body(request))
        await asking.connection(self._app, where.connection)
        return {"dropped": await self._app.store.drop(where)}
