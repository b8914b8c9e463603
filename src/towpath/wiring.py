"""From an entry of the configuration to a connection with its destination."""

from __future__ import annotations

from . import registry
from .config import ConnectionEntry, DestinationEntry
from .connection import Connection
from .errors import TowpathError


def connection_of(entry: ConnectionEntry, destination: DestinationEntry) -> Connection:
    """The connection of an entry, with its destination made from its settings. Raises `TowpathError`."""
    try:
        made = registry.destinations()[destination.type](destination.settings)
    except Exception as error:
        raise TowpathError(
            f"destination {destination.name} cannot be made: {type(error).__name__}: {error}",
            code="E5006",
            why=f"the code of the destination type {destination.type} failed",
            fix=f"correct the settings of {destination.name}, or mend its plugin",
            data="Nothing was sent and nothing is lost.",
        ) from error
    return Connection(
        name=entry.name,
        sources=entry.sources,
        destination_name=destination.name,
        destination=made,
        only=entry.only,
        events=entry.events,
        max_age_s=entry.max_age_s,
        start=entry.start,
    )
