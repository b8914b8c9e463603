"""The port at which a destination finds the warehouse of its account."""

from __future__ import annotations

from typing import Protocol

from .loading import Warehouse
from .settings import WarehouseAccount

PORT = "warehouse"


class Warehouses(Protocol):
    """What stands at the port: the same target for a replication and for every destination that names it."""

    def warehouse(self, account: WarehouseAccount) -> Warehouse:
        """Return the warehouse of an account; it is opened when something is asked of it."""
        ...
