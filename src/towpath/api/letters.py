"""Routes of dead letters and refused items: list, show, replay, drop."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec
from starlette.requests import Request

from .. import views
from ..app import App
from ..errors import TowpathError
from ..log import Dead, DeadFilter, Refused
from . import asking
from .answering import Missing, Named

SHOWN = 5
"""How many numbers an error names."""


class Letters:
    """Answers about dead letters, and about what ingest and sources would not take."""

    def __init__(self, app: App) -> None:
        self._app = app

    def routes(self) -> list[Named]:
        """Method, path and answer of each."""
        return [
            ("GET", "/dlq", self.letters),
            ("GET", "/dlq/{id:int}", self.letter),
            ("GET", "/refusals", self.refusals),
            ("GET", "/refusals/{id:int}", self.refusal),
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
        return await self._app.store.dead(await self._where(fields))

    async def letter(self, request: Request) -> Any:
        """Show one with message, request and answer."""
        return views.dead((await self._letters([request.path_params["id"]]))[0], body=True)

    async def _letters(self, ids: Sequence[int]) -> Sequence[Dead]:
        """The dead letters of these numbers. Raises `Missing` when one is not there."""
        found = await self._app.store.dead(DeadFilter(ids=ids, limit=len(ids)))
        absent = sorted(set(ids) - {letter.id for letter in found})
        if absent:
            others = {item.id for item in await self._app.store.refused(absent[:1])}
            fix = f"r{absent[0]} is a refused item:  towpath dlq show r{absent[0]}"
            raise _missing("dead letter", absent, fix if others else "towpath dlq list")
        return found

    async def refusals(self, request: Request) -> Any:
        """List what ingest would not take."""
        source, most = request.query_params.get("source"), asking.number(request, "limit", 20)
        return [views.refused(row) for row in await self._app.store.refusals(source, most)]

    async def refusal(self, request: Request) -> Any:
        """Show one refused item, and all that is kept of it."""
        (item,) = await self._refused([request.path_params["id"]])
        return {**views.refused(item), "item": views.raw_json(item.raw)}

    async def _refused(self, ids: Sequence[int]) -> Sequence[Refused]:
        """The refused items of these numbers. Raises `Missing` when one is not there."""
        found = await self._app.store.refused(ids)
        absent = sorted(set(ids) - {item.id for item in found})
        if absent:
            raise _missing("refused item", [f"r{id_}" for id_ in absent], "towpath dlq list --refused")
        return found

    async def count(self, request: Request) -> Any:
        """Count those that a filter means, and the refused items named."""
        fields = await asking.body(request)
        refused = len(await self._refused(_taken(fields)))
        return {"count": refused + len(await self._chosen(fields))}

    async def replay(self, request: Request) -> Any:
        """Deliver them again."""
        where = await self._where(await asking.body(request))
        counts = await self._app.store.replay(where, self._app.clock.now())
        await self._app.refresh(list(counts))
        return counts

    async def drop(self, request: Request) -> Any:
        """Delete them for good."""
        fields = await asking.body(request)
        refused = [item.id for item in await self._refused(_taken(fields))]
        where = await self._where(fields)
        dropped = await self._app.store.drop(where)
        return {"dropped": dropped + (await self._app.store.drop_refused(refused) if refused else 0)}

    async def _where(self, fields: dict[str, Any]) -> DeadFilter:
        """Which letters to act on. Raises `TowpathError`, also where a number it names is not there."""
        where = asking.dead_filter(fields)
        await asking.connection(self._app, where.connection)
        if where.ids:
            await self._letters(where.ids)
        return where


def _taken(fields: dict[str, Any]) -> list[int]:
    """Take the numbers of refused items out of a request. Raises `TowpathError`."""
    given = fields.pop("refused", None) or []
    try:
        return msgspec.convert(given, list[int])
    except msgspec.ValidationError as error:
        raise TowpathError(f"refused must be a list of numbers: {error}", code="E5014") from error


def _missing(what: str, names: Sequence[object], fix: str) -> Missing:
    shown = ", ".join(str(name) for name in names[:SHOWN])
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    title = f"there is no {what} {shown}{more}"
    why = "it was replayed or dropped, is older than  retention.dead_letters  or never was"
    return Missing(title, code="E4402", why=why, fix=fix, data="Nothing was changed.")
