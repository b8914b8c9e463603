"""The lock of a data directory: one process owns it, and the next one is told which."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from ..errors import TowpathError


class DirectoryLock:
    """Held from construction to `release`; the kernel drops it when the process dies."""

    def __init__(self, directory: Path) -> None:
        self._file = os.open(directory / "lock", os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._file, 32, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(self._file)
            raise _taken(directory, holder) from error
        os.ftruncate(self._file, 0)
        os.pwrite(self._file, f"{os.getpid()}\n".encode(), 0)

    def release(self) -> None:
        """Give the directory back; the file stays."""
        os.close(self._file)


def _taken(directory: Path, holder: str) -> TowpathError:
    return TowpathError(
        f"the data directory {directory} is in use by process {holder}",
        code="E5001",
        why="One process owns a data directory at a time.",
        fix=f"Stop process {holder}, or give this one another `storage` directory.",
        data="Nothing was read or changed.",
    )
