"""All tables that a Customer.io workspace is replicated into."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from ..warehouse import Table
from ..warehouse.message_events import MESSAGE_EVENTS
from .table import Replicated
from .table_content import CONTENT
from .table_deliveries import DELIVERIES
from .table_people import PEOPLE
from .table_workspace import WORKSPACE

REPLICATED: Mapping[str, Replicated] = {one.name: one for one in (*CONTENT, *DELIVERIES, *PEOPLE, *WORKSPACE)}
"""Every table that is read, by its name."""

HEARD: Mapping[str, Table] = {MESSAGE_EVENTS.name: MESSAGE_EVENTS}
"""Tables that reporting webhooks fill."""


def usual() -> tuple[str, ...]:
    """Return the tables that are read where nobody says which."""
    return tuple(name for name, one in REPLICATED.items() if not one.optional)


def in_order(names: Sequence[str]) -> tuple[str, ...]:
    """Return names with parents before what is read under them."""
    return tuple(sorted(names, key=lambda name: bool(REPLICATED[name].parent)))
