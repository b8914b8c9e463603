"""Routes of what was kept and what became of it: events, deliveries."""

from __future__ import annotations

from typing import Any

from starlette.requests import Request

from .. import views
from ..app import App
from ..inspection import held
from ..log import partition_of
from ..message import Record, Unreadable, read
from . import asking
from .answering import Missing, Named

PAGE = 1000
PARKED_MAX = 1_000_000


class Events:
    """Answers about messages and their deliveries."""

    def __init__(self, app: App) -> None:
        self._app = app

    def routes(self) -> list[Named]:
        """Method, path and answer of each."""
        return [
            ("GET", "/events", self.events),
            ("GET", "/events/{name:path}", self.event),
            ("GET", "/deliveries", self.deliveries),
            ("GET", "/deliveries/{position:int}", self.delivery),
            ("POST", "/deliveries/retry", self.retry),
        ]

    async def events(self, request: Request) -> Any:
        """List the newest messages, of one source or all."""
        most, source = asking.number(request, "limit", 20), request.query_params.get("source")
        before = None
        if "before" in request.query_params:
            before = asking.number(request, "before", 0, most=2**62)
        if source is None:
            return [views.event(row) for row in await self._app.store.latest(most, before)]
        await self._check(source)
        return [views.event(row) for row in await self._newest_of(source, most, before)]

    async def _check(self, source: str) -> None:
        """Refuse a source that neither the file nor the log knows."""
        known = sorted({*self._app.config.sources, *await self._app.store.counts()})
        if source not in known:
            raise Missing(
                f"there is no source {source!r}", code="E4413", fix=f"known: {', '.join(known) or 'none'}"
            )

    async def _newest_of(self, source: str, most: int, before: int | None) -> list[Record]:
        found: list[Record] = []
        while len(found) < most and (rows := await self._app.store.latest(PAGE, before)):
            found += [row for row in rows if row.source == source]
            before = rows[-1].position
        return found[:most]

    async def event(self, request: Request) -> Any:
        """Show messages by message id, or one by position, with what became of them."""
        name = request.path_params["name"]
        records = await self._app.store.find(name) or await self._at(name)
        if not records:
            title = f"no kept event has the message id or position {name!r}"
            raise Missing(title, code="E4401", fix="towpath events list")
        return [
            {
                **views.event(row, body=True),
                **await self._person(row),
                "deliveries": await self._trace(row.position, row.source),
            }
            for row in records
        ]

    async def _person(self, record: Record) -> dict[str, Any]:
        """Whose it is, and why it joined no ids where it asked to (D15)."""
        try:
            message = read(record)
        except Unreadable:
            return {}
        place = await self._app.identity.place(message, record.position, keep=False)
        return {"person": place.person, "not_joined": place.refused}

    async def _at(self, name: str) -> list[Record]:
        if not name.isdecimal() or len(name) > 18:
            return []
        position = int(name)
        found = await self._app.store.read(position - 1, 1, partition_of(position))
        return [record for record in found if record.position == position]

    async def _trace(self, position: int, source: str = "") -> list[dict[str, Any]]:
        store = self._app.store
        ended = [views.done(name, row) for name, row in await store.deliveries(None, position, 100)]
        parked = [views.waiting(name, row) for name, row in await store.waiting(None, PARKED_MAX, position)]
        known = {line["connection"] for line in [*ended, *parked]}
        others = [
            line
            for running in self._app.connections.values()
            if running.entry.name not in known
            for line in held(running.loop, position) or self._unread(running, position, source)
        ]
        return [*ended, *parked, *others]

    def _unread(self, running: Any, position: int, source: str) -> list[dict[str, Any]]:
        """Say of a message that a connection has not come to yet, that it waits there."""
        if source not in running.loop.connection.sources or running.loop.cursor >= position:
            return []
        reason = "other deliveries are before it"
        return [
            {"connection": running.entry.name, "position": position, "state": "waiting", "reason": reason}
        ]

    async def deliveries(self, request: Request) -> Any:
        """List deliveries that wait, and the newest that ended."""
        name = await asking.connection(self._app, request.query_params.get("connection"))
        most, store = asking.number(request, "limit", 20), self._app.store
        return {
            "waiting": [views.waiting(of, row) for of, row in await store.waiting(name, most)],
            "ended": [views.done(of, row) for of, row in await store.deliveries(name, None, most)],
        }

    async def delivery(self, request: Request) -> Any:
        """List the deliveries of one position."""
        position = request.path_params["position"]
        records = await self._at(str(position))
        trace = await self._trace(position, records[0].source if records else "")
        if not trace and not records:
            title = f"nothing is known of the position {position}"
            raise Missing(title, code="E4401", fix="towpath deliveries list")
        return trace

    async def retry(self, request: Request) -> Any:
        """Make parked deliveries due now."""
        wanted = await asking.connection(self._app, (await asking.body(request)).get("connection") or None)
        names = [wanted] if wanted else [row.name for row in self._app.config.connections]
        now = self._app.clock.now()
        hurried = {name: await self._app.store.hurry(name, now) for name in names}
        await self._app.refresh(names)
        return hurried
