"""A warehouse for the tests of its destination: tables in a dict, by the rules of a loader, or remote."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from towpath.destination import Payload, Scope
from towpath.destinations.warehouse import EventsToWarehouse, WarehouseSettings
from towpath.http import Http
from towpath.message import Message
from towpath.outcome import Rejected, Skipped
from towpath.testing.fakes import FakeClock, FakeMemory, FakeTransport
from towpath.warehouse import Load, Loader, Lost, Refusal, Shape, Wrote
from towpath.warehouse.port import PORT
from towpath.warehouse.settings import WarehouseAccount

AT = "2026-01-02T03:04:05.000Z"
AT_S = 1_767_323_045.0


def message(kind: str = "track", **fields: Any) -> Message:
    given = {"message_id": "m1", "user_id": "u1", "timestamp": AT, "received_at": AT_S + 1, "source": "app"}
    return Message(type=kind, **{**given, **fields})


def made(**settings: Any) -> EventsToWarehouse:
    return EventsToWarehouse(WarehouseSettings.model_validate({"duckdb": "events.duckdb", **settings}))


def rows(told: Message, **settings: Any) -> dict[str, dict[str, Any]]:
    """The rows of a message by table, as preview shows them."""
    payload = made(**settings).prepare(told)
    assert isinstance(payload, Payload), payload
    return {call.url.removeprefix("towpath:warehouse/"): call.json for call in payload.requests}


def payload_of(destination: EventsToWarehouse, told: Message) -> Payload:
    payload = destination.prepare(told)
    assert not isinstance(payload, Skipped | Rejected), payload
    return payload


class FakeWarehouse:
    """Keeps what is loaded; `fails` are raised in turn, `refuses` are ids that no row may have."""

    def __init__(self) -> None:
        self.shapes: dict[str, Shape] = {}
        self.states: dict[str, str] = {}
        self.loads: list[Load] = []
        self.erased: list[str] = []
        self.fails: list[Exception] = []
        self.refuses: set[str] = set()
        self.vague = False
        """Whether it says of what it refuses no more than that it does."""

    async def prepare(self, shapes: Sequence[Shape]) -> None:
        self.shapes.update({shape.name: shape for shape in shapes})

    async def state(self, prefix: str) -> Mapping[str, str]:
        self._fail()
        return {key: value for key, value in self.states.items() if key.startswith(prefix)}

    async def load(self, load: Load) -> Wrote:
        self._fail()
        self.loads.append(load)
        self.states.update({key: value for key, value in load.state.items() if value is not None})
        told = enumerate(records_of(load))
        refused = [place for place, record in told if record["id"] in self.refuses]
        return Wrote(refusals=tuple(Refusal("odd", "{}", -1 if self.vague else at) for at in refused))

    async def erase(self, ids: Sequence[str]) -> Mapping[str, int]:
        self._fail()
        self.erased += ids
        return {"tracks": 2, "pages": 0}

    def _fail(self) -> None:
        if self.fails:
            raise self.fails.pop(0)

    def kinds(self, table: str) -> dict[str, str]:
        """The columns of a table with their kinds."""
        return {column.name: column.kind for column in self.shapes[table].table.columns}

    def records(self, table: str) -> list[dict[str, Any]]:
        """Everything that was loaded into a table."""
        return [record for load in self.loads if load.table == table for record in records_of(load)]


def records_of(load: Load) -> list[dict[str, Any]]:
    return [record for page in load.pages for record in msgspec.json.decode(page.records)]


class OpenedWarehouse:
    """A loader as the program sees it, without a process between."""

    def __init__(self, loader: Loader) -> None:
        self.loader = loader

    async def prepare(self, shapes: Sequence[Shape]) -> None:
        self.loader.prepare(shapes)

    async def state(self, prefix: str) -> Mapping[str, str]:
        return self.loader.state(prefix)

    async def load(self, load: Load) -> Wrote:
        return self.loader.load(load)

    async def erase(self, ids: Sequence[str]) -> Mapping[str, int]:
        return self.loader.erase(ids)


class RemoteWarehouse:
    """A warehouse behind the network, so that whatever can happen there happens to it."""

    def __init__(self, http: Http) -> None:
        self._http = http

    async def prepare(self, shapes: Sequence[Shape]) -> None:
        """Nothing is asked for that."""

    async def state(self, prefix: str) -> Mapping[str, str]:
        await self._http.request("GET", "https://warehouse.example/state")
        return {}

    async def load(self, load: Load) -> Wrote:
        records = [msgspec.json.decode(page.records) for page in load.pages]
        await self._http.request("POST", "https://warehouse.example/load", json=records)
        return Wrote()

    async def erase(self, ids: Sequence[str]) -> Mapping[str, int]:
        await self._http.request("POST", "https://warehouse.example/erase", json=list(ids))
        return {}


class Warehouses:
    """What stands at the port."""

    def __init__(self, warehouse: Any) -> None:
        self._warehouse = warehouse

    def warehouse(self, account: WarehouseAccount) -> Any:
        assert account.target.kind
        return self._warehouse


def scope_of(warehouse: Any) -> Scope:
    clock = FakeClock()
    return Scope(Http(FakeTransport(), clock), clock, FakeMemory(clock), {PORT: Warehouses(warehouse)})


__all__ = ["AT", "AT_S", "FakeWarehouse", "Lost", "OpenedWarehouse", "RemoteWarehouse", "Warehouses"]
