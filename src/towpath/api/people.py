"""Routes of people: show, count, erase, suppress, by exact ids."""

from __future__ import annotations

from typing import Any

import msgspec
from starlette.requests import Request

from .. import views
from ..app import App
from ..config import DestinationEntry
from ..device import PUSH, REGISTRY
from ..log import DeadFilter
from ..warehouse.port import PORT
from . import asking
from .answering import Named

ELSEWHERE = "not erased there: delete the person in that tool (deletes are not forwarded to it yet)"
REGISTERED = "erased: the registry of devices is here"
PASSES_ON = "keeps nothing of people: pushes pass through"
WAREHOUSE = "see `warehouses`"


class Persons:
    """Answers about one person."""

    def __init__(self, app: App) -> None:
        self._app = app

    def routes(self) -> list[Named]:
        """Method, path and answer of each."""
        return [
            ("GET", "/people/{id:path}", self.person),
            ("POST", "/people/mentions", self.mentions),
            ("POST", "/people/erase", self.erase),
            ("POST", "/people/suppress", self.suppress),
            ("POST", "/people/unsuppress", self.unsuppress),
        ]

    async def person(self, request: Request) -> Any:
        """Show what is known of an id: whose it is, what waits, what died."""
        wanted = request.path_params["id"]
        store, identity = self._app.store, self._app.identity
        last = store.last()
        people = {f"{kind}:{wanted}": await identity.resolve(f"{kind}:{wanted}", last) for kind in "ua"}
        letters = [row for name in people.values() for row in await store.dead(DeadFilter(person=name))]
        parked = await store.waiting(None, asking.LIMIT_MAX)
        return {
            "id": wanted,
            "suppressed": wanted in await store.suppressed(),
            "person": people,
            "dead": [views.dead(letter) for letter in letters],
            "waiting": [views.waiting(name, row) for name, row in parked if row.person in people.values()],
        }

    async def mentions(self, request: Request) -> Any:
        """Count what names these ids."""
        found = await self._app.people.mentions(asking.ids(await asking.body(request)))
        return [msgspec.to_builtins(row) for row in found]

    async def erase(self, request: Request) -> Any:
        """Remove every trace of these ids here, and say how it stands at each destination (D10)."""
        ids = asking.ids(await asking.body(request))
        erased = await self._app.people.erase(ids)
        destinations = {name: _said_of(entry) for name, entry in self._app.config.destinations.items()}
        warehouses = await self._app.replications.erase(sorted(ids))
        left = [name for name, rows in warehouses.items() if isinstance(rows, str)]
        told: dict[str, Any] = {"warehouses": warehouses} if warehouses else {}
        told |= {"incomplete": left} if left else {}
        return {"ids": sorted(ids), **erased, "destinations": destinations, **told}

    async def suppress(self, request: Request) -> Any:
        """Deliver nothing more of these ids."""
        ids = asking.ids(await asking.body(request))
        await self._app.people.suppress(ids, on=True)
        return {"suppressed": sorted(ids)}

    async def unsuppress(self, request: Request) -> Any:
        """Deliver these ids again."""
        ids = asking.ids(await asking.body(request))
        await self._app.people.suppress(ids, on=False)
        return {"unsuppressed": sorted(ids)}


def _said_of(entry: DestinationEntry) -> str:
    """How it stands at a destination after an erase here."""
    said = {REGISTRY: REGISTERED, PUSH: PASSES_ON, PORT: WAREHOUSE}
    return next((said[port] for port in entry.kind.ports if port in said), ELSEWHERE)
