"""A disk short of room: a small WAL, room for what ends; and a disk that fails is not called full."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import apsw
import pytest

from towpath.log import Done, Group, LogFailed, LogFull, Settlement, writer
from towpath.log.schema import WAL_BYTES_SHORT
from towpath.log.sqlite import SqliteStore
from towpath.message import Envelope
from towpath.testing import FakeClock
from towpath.testing.ledger import lease_of
from towpath.testing.log import entry

RESERVE_BYTES = 1_000_000
BIG = 200


async def filled(tmp_path: Path, free: list[int]) -> SqliteStore:
    """A store whose WAL has grown while there was room."""
    store = await SqliteStore.begin(
        tmp_path, FakeClock(), reserve_bytes=RESERVE_BYTES, free_bytes=lambda _: free[0]
    )
    await store.connect("out", ["web"], "earliest")
    for number in range(BIG):
        noise = os.urandom(16_384).hex()
        await store.append([Group(Envelope("web", 0.0), [entry(f"{number}-{noise}")])])
    return store


def wal_bytes(directory: Path) -> int:
    return (directory / "log.db-wal").stat().st_size


@pytest.mark.spec("D05")
async def test_when_room_is_short_the_wal_gives_its_own_back(tmp_path: Path) -> None:
    free = [10 * RESERVE_BYTES]
    store = await filled(tmp_path, free)
    lease = await lease_of(store)
    before = wal_bytes(tmp_path)
    assert await store.settle(lease, Settlement(1, [Done(1, 0, "delivered")]))
    assert wal_bytes(tmp_path) >= before > 2 * WAL_BYTES_SHORT
    free[0] = RESERVE_BYTES - 1
    for position in range(2, BIG + 1):
        assert await store.settle(lease, Settlement(position, [Done(position, 0, "delivered")]))
    assert wal_bytes(tmp_path) <= WAL_BYTES_SHORT
    free[0] = RESERVE_BYTES
    assert await store.settle(lease, Settlement(BIG, []))
    assert store._database.writer.connection.pragma("wal_autocheckpoint") > 1000
    await store.close()


@pytest.mark.spec("D05")
async def test_room_is_short_once_half_of_the_reserve_is_used(tmp_path: Path) -> None:
    free = [RESERVE_BYTES // 2]
    async with SqliteStore.open(
        tmp_path, FakeClock(), reserve_bytes=RESERVE_BYTES, free_bytes=lambda _: free[0]
    ) as store:
        assert not store.short
        free[0] -= 1
        assert store.short


@pytest.mark.spec("E036")
@pytest.mark.parametrize(
    ("error", "free_bytes", "kind"),
    [
        (apsw.FullError("database or disk is full"), 1 << 30, LogFull),
        (OSError(errno.ENOSPC, "no space left on device"), 1 << 30, LogFull),
        (apsw.CantOpenError("unable to open"), 0, LogFull),
        (apsw.IOError("disk I/O error"), 0, LogFull),
        (apsw.IOError("disk I/O error"), 1 << 30, LogFailed),
        (apsw.ReadOnlyError("attempt to write a readonly database"), 1 << 30, LogFailed),
        (OSError(errno.EIO, "input/output error"), 1 << 30, LogFailed),
        (ZeroDivisionError("a mistake"), 0, ZeroDivisionError),
    ],
)
@pytest.mark.parametrize("inline", [False, True])
async def test_a_disk_that_fails_is_not_called_full(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    error: Exception,
    free_bytes: int,
    kind: type[Exception],
    inline: bool,
) -> None:
    def fail(_: Any) -> None:
        raise error

    monkeypatch.setattr(writer, "_free_bytes", lambda _: free_bytes)
    async with SqliteStore.open(tmp_path, FakeClock(), inline=inline) as store:
        with pytest.raises(kind) as raised:
            await store._database.write(fail)
        assert type(raised.value) is kind
        assert (await store.append([Group(Envelope("web", 0.0), [entry("a")])])).stored == 1
