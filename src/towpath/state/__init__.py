"""State: the small durable tables beside the log, in state.db."""

from __future__ import annotations

import os
from collections.abc import Collection
from pathlib import Path

from sqlalchemy import Engine
from sqlalchemy.exc import DatabaseError

from towpath.clock import Clock, SystemClock
from towpath.errors import TowpathError

from . import devices, known
from .campaigns import Campaigns
from .engine import open_engine
from .jobs import JobRuns
from .known import KnownFacts
from .memory import DurableMemory, Memories
from .reserve import Reserve
from .schema import migrate
from .secrets import Sealed, SealedSecrets

FILE = "state.db"

__all__ = [
    "FILE",
    "Campaigns",
    "DurableMemory",
    "JobRuns",
    "KnownFacts",
    "Reserve",
    "Sealed",
    "SealedSecrets",
    "State",
]


class State:
    """state.db of one data directory. Use `State.open`; owned by the process that owns the directory."""

    def __init__(self, directory: Path, engine: Engine, clock: Clock) -> None:
        self.directory = directory
        self.sealed_secrets = SealedSecrets(engine)
        self.jobs = JobRuns(engine)
        self.campaigns = Campaigns(engine)
        self._engine = engine
        self._clock = clock
        self._memories = Memories(engine, clock)

    @classmethod
    def open(cls, directory: Path, clock: Clock | None = None) -> State:
        """Open or create state.db, readable by its owner alone, and bring it to this version's schema.

        Raises `TowpathError` when it cannot be opened, is no database, or was written by a newer version.
        """
        path = directory / FILE
        try:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            os.close(os.open(path, os.O_RDWR | os.O_CREAT, 0o600))
            engine = open_engine(path)
            with engine.begin() as connection:
                migrate(connection)
        except (OSError, DatabaseError) as error:
            raise _unusable(path, error) from error
        return cls(directory, engine, clock or SystemClock())

    def memory(self, connection: str) -> DurableMemory:
        """The memory of a connection."""
        return self._memories.of(connection)

    def facts(self, source: str) -> KnownFacts:
        """What a source remembers of what it took in."""
        return KnownFacts(self._engine, source, self._clock)

    def remembering(self) -> list[str]:
        """The sources that remember anything, in order. Blocks."""
        return known.sources(self._engine)

    def forget_source(self, source: str) -> int:
        """Forget all that a source remembers. Blocks. Returns how many facts."""
        return known.forget_source(self._engine, source)

    def forget_people(self, ids: Collection[str]) -> None:
        """Forget what sources know of these ids, and empty every connection's memory (D10).

        A memory's keys may be people's addresses: it is a cache, so all of it goes.

        When it returns, nothing of it is left in the files. Blocks on the disk and is safe in any thread:
        call it through `asyncio.to_thread`. Raises `TowpathError`.
        """
        self.campaigns.forget_people(ids)  # before the devices, which say whose sends they are
        devices.forget(self._engine, ids)
        known.forget_naming(self._engine, ids)
        self._memories.clear()

    @property
    def engine(self) -> Engine:
        """For the aggregates that are made with a part of the configuration."""
        return self._engine

    def prune(self, now: float) -> int:
        """Delete what sources remember and whose time is over. Blocks. Returns how many facts."""
        return known.prune(self._engine, now)

    def flush(self) -> None:
        """Write what the memories still hold back. Blocks; call it off the loop."""
        self._memories.flush()

    def close(self) -> None:
        """Write what is left and close the file."""
        try:
            self._memories.close()
        finally:
            self._engine.dispose()


def _unusable(path: Path, error: OSError | DatabaseError) -> TowpathError:
    why = error.strerror or str(error) if isinstance(error, OSError) else str(error.orig)
    return TowpathError(
        f"{path} cannot be used: {why}",
        code="E5101",
        fix="check the directory's owner and free space; restore a backup if the file is damaged",
        data="The log is another file and was not touched.",
    )
