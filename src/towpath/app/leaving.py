"""Sources taken off a connection: what was accepted of them is still delivered, what comes later is not."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec
import structlog

from ..config import ConnectionEntry
from ..log.sqlite import SqliteStore
from ..state import State
from ..state.memory import OWN

KEY = f"{OWN}leaving"
KEPT_S = 90 * 86400.0

log = structlog.get_logger("towpath.app")
_positions = msgspec.json.Decoder(dict[str, int]).decode


class Leaving:
    """Connects the entries of a configuration, and lets each source that one of them lost run dry.

    The ledger skips what was not tried of a source it is told to close. So it is told only once the
    connection has passed what was accepted up to the change; until then the loop skips what came after it.
    """

    def __init__(self, store: SqliteStore, state: State) -> None:
        self._store = store
        self._state = state
        self._upto: dict[str, Mapping[str, int]] = {}

    def of(self, connection: str) -> Mapping[str, int]:
        """The sources that run dry on a connection, and up to which position each."""
        return self._upto.get(connection, {})

    async def connect(self, entry: ConnectionEntry) -> None:
        """Make a connection known that does not run: its sources, and those that still run dry."""
        cursor, taken = await self._store.taking(entry.name)
        memory = self._state.memory(entry.name)
        known, last = _positions(memory.find(KEY) or b"{}"), self._store.last()
        upto = {name: known.get(name, last) for name in sorted(taken - entry.sources)}
        upto = {name: position for name, position in upto.items() if cursor < position}
        self._upto[entry.name] = upto
        if upto:
            memory.keep(KEY, msgspec.json.encode(upto).decode(), KEPT_S)
            log.warning(
                "taken off a connection: what was accepted before is still delivered there",
                connection=entry.name, sources=list(upto),
            )  # fmt: skip
        elif known:
            memory.drop(KEY)
        await self._store.connect(entry.name, entry.sources | upto.keys(), entry.start)
