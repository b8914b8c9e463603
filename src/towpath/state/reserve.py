"""Room kept aside on the disk, given back when a full disk would keep the program from starting."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path

FILE = "reserve"
SIZE_BYTES = (
    4 << 20
)  # write-ahead logs and their indexes of both databases, and settlements of some thousands


class Reserve:
    """A file of a data directory that holds nothing but room.

    SQLite needs some room merely to open a database (for its write-ahead log and that one's index), so a
    program that stopped on a full disk could not start again, and not deliver what it had accepted.
    """

    def __init__(self, directory: Path, size_bytes: int = SIZE_BYTES) -> None:
        self._path = directory / FILE
        self._size_bytes = size_bytes

    def release(self) -> None:
        """Give the room back where the disk is full; called before the databases are opened."""
        if self._free_bytes() < self._size_bytes:
            with contextlib.suppress(OSError):  # nothing kept, or a disk that takes no change at all
                self._path.unlink()

    def keep(self) -> None:
        """Keep the room aside (again), unless the disk is short of it. Blocks for the time of the writing."""
        if self._path.exists() or self._free_bytes() < 4 * self._size_bytes:
            return
        try:
            # Random bytes, since some file systems store no zeros.
            self._path.write_bytes(os.urandom(self._size_bytes))
        except OSError:
            with contextlib.suppress(OSError):
                self._path.unlink()

    def _free_bytes(self) -> int:
        status = os.statvfs(self._path.parent)
        return status.f_bavail * status.f_frsize
