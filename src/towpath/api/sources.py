"""Route of sources: drop what one remembers that the configuration no longer has."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request

from ..app import App
from ..errors import TowpathError
from .answering import Missing, Named


class SourceRoutes:
    """Answers about sources that were removed."""

    def __init__(self, app: App) -> None:
        self._app = app

    def routes(self) -> list[Named]:
        """Method, path and answer of each."""
        return [("DELETE", "/sources/{name:path}", self.drop)]

    async def drop(self, request: Request) -> Any:
        """Forget what a source remembers of people; what it took in stays in the log."""
        name, sources = request.path_params["name"], self._app.sources
        if name in self._app.config.sources:
            raise TowpathError(
                f"the source {name!r} is in the configuration",
                code="E4422",
                why="it would tell of everybody anew, and no deletion of those who are gone by now",
                fix="take it out of the configuration first, then towpath reload",
                data="nothing was changed",
            )
        left = await sources.left_behind(self._app.config)
        if name not in left:
            known = ", ".join(left) or "none"
            raise Missing(
                f"no removed source {name!r} remembers anything", code="E4423", fix=f"those that do: {known}"
            )
        return {"dropped": name, "forgotten": await sources.drop(name)}
