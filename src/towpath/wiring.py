"""From an entry of the configuration to a connection with its destination."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from .config import Config, ConnectionEntry, DestinationEntry
from .config.resolved import TransformEntry
from .connection import Connection
from .destination import Destination
from .errors import TowpathError
from .mapping import FieldMap, Filter
from .transform import ProcessTransform


def destination_of(entry: DestinationEntry) -> Destination[Any]:
    """The destination of an entry, made from its settings. Raises `TowpathError`."""
    try:
        made: Destination[Any] = entry.kind(entry.settings)
    except Exception as error:
        raise TowpathError(
            f"destination {entry.name} cannot be made: {type(error).__name__}: {error}",
            code="E5006",
            why=f"the code of the destination type {entry.type} failed",
            fix=f"correct the settings of {entry.name}, or mend its plugin",
            data="Nothing was sent and nothing is lost.",
        ) from error
    return made


def connection_of(
    entry: ConnectionEntry, destination: DestinationEntry, leaving: Mapping[str, int] | None = None
) -> Connection:
    """The connection of an entry, with its destination made from its settings. Raises `TowpathError`.

    `leaving` are sources that were taken off it, as `Connection` has them.
    """
    leaving = leaving or {}
    return Connection(
        name=entry.name,
        sources=entry.sources | leaving.keys(),
        destination_name=destination.name,
        destination=destination_of(destination),
        only=entry.only,
        events=entry.events,
        max_age_s=entry.max_age_s,
        start=entry.start,
        filter=Filter(entry.filter) if entry.filter else None,
        consent=entry.consent,
        transform=None if entry.transform is None else _process(entry.transform),
        fields=FieldMap(entry.map) if entry.map else None,
        delete_limit=entry.delete_limit,
        leaving=leaving,
    )


def allowances(config: Config) -> Mapping[tuple[str, str], float]:
    """Requests per minute by account and bucket: where several destinations share one, the lowest rate."""
    found: dict[tuple[str, str], float] = {}
    for name in {entry.destination for entry in config.connections}:
        entry = config.destinations[name]
        for bucket, per_minute in destination_of(entry).budgets().items():
            known = found.get((entry.account, bucket), per_minute)
            found[entry.account, bucket] = min(known, per_minute)
    return found


def connection_named(config: Config, name: str) -> Connection | None:
    """The connection of a name, or a destination's only one; None when the file has neither.

    A destination with no connection, or several, gets one that lets everything pass.
    """
    named = next((entry for entry in config.connections if entry.name == name), None)
    mine = [entry for entry in config.connections if entry.destination == name]
    entry = named or (mine[0] if len(mine) == 1 else None)
    if entry is None and name in config.destinations:
        entry = ConnectionEntry("preview", frozenset({"preview"}), name)
    return None if entry is None else connection_of(entry, config.destinations[entry.destination])


def _process(entry: TransformEntry) -> ProcessTransform:
    return ProcessTransform(entry.function, entry.directory, entry.timeout_s, entry.environment)
