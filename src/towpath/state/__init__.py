"""State: the small durable tables beside the log, in state.db."""

from __future__ import annotations

import os
from pathlib import Path

from sqlalchemy import Engine
from sqlalchemy.exc import DatabaseError

from towpath.clock import Clock, SystemClock
from towpath.errors import TowpathError

from .engine import open_engine
from .jobs import JobRuns
from .memory import DurableMemory, Memories
from .reserve import Reserve
from .schema import migrate
from .secrets import Sealed, SealedSecrets

FILE = "state.db"

__all__ = ["FILE", "DurableMemory", "JobRuns", "Reserve", "Sealed", "SealedSecrets", "State"]


class State:
    """state.db of one data directory. Use `State.open`; owned by the process that owns the directory."""

    def __init__(self, directory: Path, engine: Engine, clock: Clock) -> None:
        self.directory = directory
        self.sealed_secrets = SealedSecrets(engine)
        self.jobs = JobRuns(engine)
        self._engine = engine
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

    def forget_memories(self) -> None:
        """Empty every connection's memory: its keys may be people's addresses (D10).

        When it returns, nothing of it is left in the files. Blocks on the disk and is safe in any thread:
        call it through `asyncio.to_thread`. Raises `TowpathError`.
        """
        self._memories.clear()

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
