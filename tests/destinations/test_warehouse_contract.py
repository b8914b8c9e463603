"""The destination of events in a warehouse, by the contract of every destination."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import msgspec

from towpath.destination import Scope
from towpath.destinations.warehouse import EventsToWarehouse
from towpath.http import Http
from towpath.redaction import setting_secrets
from towpath.testing import DestinationContract
from towpath.testing.fakes import FakeClock, FakeMemory, FakeTransport, Rule
from towpath.warehouse.port import PORT

from .warehouse_world import RemoteWarehouse, Warehouses


class TestWarehouse(DestinationContract):
    """As for every destination, with a warehouse that fails as vendors do."""

    destination = EventsToWarehouse
    settings: ClassVar[Mapping[str, Any]] = {
        "postgres": "postgresql://towpath:pa55word@db.example/events",
        "hash_key": "the key of hashes",
        "hash": ["email"],
    }

    def scope(self, *rules: Rule) -> tuple[Scope, FakeTransport]:
        clock, network = FakeClock(), FakeTransport(*rules)
        http = Http(network, clock, secrets=setting_secrets(self.make().settings))
        port = Warehouses(RemoteWarehouse(http))
        return Scope(http, clock, FakeMemory(clock), {PORT: port}), network

    def test_payloads_are_json(self) -> None:
        """What is shown are no requests, as nothing leaves the program."""
        for payload in self.payloads():
            for call in payload.requests:
                assert msgspec.json.decode(msgspec.json.encode(call.json))
