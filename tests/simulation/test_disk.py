"""What an append has waited for when it returns, seen below SQLite: all bytes have been synced (P1)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import apsw
import pytest

from towpath.clock import SystemClock
from towpath.log import Entry, Group
from towpath.log.sqlite import SqliteStore
from towpath.message import Envelope


class Disk(apsw.VFS):
    """The system's disk, watched: files with bytes that are not synced yet, and files that were synced."""

    def __init__(self) -> None:
        self.below = apsw.vfs_names()[0]
        self.unsynced: set[str] = set()
        self.synced: set[str] = set()
        super().__init__("watched", self.below, makedefault=True)

    def xOpen(self, name: str | apsw.URIFilename | None, flags: list[int]) -> WatchedFile:  # noqa: N802
        return WatchedFile(self, name, flags)


class WatchedFile(apsw.VFSFile):
    def __init__(self, disk: Disk, name: str | apsw.URIFilename | None, flags: list[int]) -> None:
        self.disk = disk
        self.place = name.filename() if isinstance(name, apsw.URIFilename) else str(name)
        super().__init__(disk.below, name, flags)

    def xWrite(self, data: bytes, offset: int) -> None:  # noqa: N802
        self.disk.unsynced.add(self.place)
        super().xWrite(data, offset)

    def xSync(self, flags: int) -> None:  # noqa: N802
        super().xSync(flags)
        self.disk.unsynced.discard(self.place)
        self.disk.synced.add(self.place)


@pytest.fixture
def disk() -> Iterator[Disk]:
    watched = Disk()
    yield watched
    watched.unregister()


@pytest.mark.spec("P1", "D05")
async def test_an_append_returns_after_everything_is_synced(tmp_path: Path, disk: Disk) -> None:
    async with SqliteStore.open(tmp_path, SystemClock()) as store:
        for number in range(20):
            disk.synced.clear()
            entry = Entry(f"m{number}", b'{"type":"track","userId":"ann"}')
            await store.append([Group(Envelope("web", 1.0), [entry])])
            assert not disk.unsynced, f"append {number} returned before {disk.unsynced} was synced"
            assert disk.synced, f"append {number} returned and nothing was synced"
