"""What survives a killed process, a full disk, a damaged file, a second owner, a bad operation."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import itertools
import os
import random
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import apsw
import pytest

from towpath.clock import SystemClock
from towpath.errors import TowpathError
from towpath.log import Done, Group, LogFailed, LogFull, Settlement, database, dedup
from towpath.log.blob import Damaged
from towpath.log.dedup import Deduplication
from towpath.log.lock import DirectoryLock
from towpath.log.runs import Filter
from towpath.log.schema import open_writer
from towpath.log.sqlite import SqliteStore
from towpath.message import Envelope
from towpath.testing import FakeClock
from towpath.testing.ledger import lease_of
from towpath.testing.log import entry, ids_of

NOW = FakeClock().now()
CHILD = Path(__file__).with_name("child.py")


def group(*ids: str, person: str = "ann") -> Group:
    return Group(Envelope("web", NOW), [entry(message_id, person) for message_id in ids])


# Killed


def killed_after(directory: Path, moment_s: float) -> list[str]:
    """Run the child, kill it at that moment; the ids it was told are kept."""
    with subprocess.Popen(
        [sys.executable, str(CHILD), str(directory)], stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        first = child.stdout.readline()  # so that every round has work to lose
        time.sleep(moment_s)
        child.send_signal(signal.SIGKILL)
        rest, errors = child.communicate()
        assert not errors, errors.decode()
    return (first + rest[: rest.rfind(b"\n") + 1]).decode().split()


@pytest.mark.spec("D05", "D07")
async def test_kill_9_loses_nothing_acknowledged_and_keeps_nothing_twice(tmp_path: Path) -> None:
    acknowledged: list[str] = []
    for _ in range(3):
        acknowledged += killed_after(tmp_path, random.uniform(0.05, 0.4))
        async with SqliteStore.open(tmp_path, SystemClock()) as store:
            kept = ids_of(await store.read(0, 10_000_000))
            assert len(kept) == len(set(kept)) == store.last()
            assert set(acknowledged) <= set(kept)
            counted, again = await store.balance(), await store.balance(recount=True)
            assert counted == again
            assert counted[0].difference == 0
            repeated = await store.append([group(*kept)])
            assert repeated.stored == 0
    assert counted[0].delivered > 0


# Full


@pytest.mark.spec("E036", "D05")
async def test_a_full_disk_refuses_appends_and_recovers_by_itself(tmp_path: Path) -> None:
    async with SqliteStore.open(tmp_path, FakeClock()) as store:
        await store.append([group("before")])
        pages = store._database.writer.connection.pragma("page_count")
        store._database.writer.connection.pragma("max_page_count", pages + 3)
        random_bytes = [
            Group(Envelope("web", NOW), [entry(f"big-{i}", os.urandom(3000).hex())]) for i in range(8)
        ]
        results = await asyncio.gather(*[store.append([big]) for big in random_bytes], return_exceptions=True)
        assert LogFull in {type(result) for result in results}
        stored = [result for result in results if not isinstance(result, BaseException)]
        assert store.last() == 1 + len(stored)
        store._database.writer.connection.pragma("max_page_count", 1 << 30)
        again = await asyncio.gather(*[store.append([big]) for big in random_bytes])
        assert sum(appended.stored for appended in again) == len(random_bytes) - len(stored)
        assert len(await store.read(0, 100)) == 9


@pytest.mark.spec("E036")
async def test_below_the_reserve_appends_are_refused_and_settlements_go_on(tmp_path: Path) -> None:
    free = [10_000_000]
    store = await SqliteStore.begin(
        tmp_path, FakeClock(), reserve_bytes=1_000_000, free_bytes=lambda _: free[0]
    )
    await store.connect("out", ["web"], "earliest")
    await store.append([group("a")])
    free[0] = 999_999
    with pytest.raises(LogFull, match="disk space"):
        await store.append([group("b")])
    assert await store.settle(await lease_of(store), Settlement(1, [Done(1, 0, "delivered")]))
    free[0] = 1_000_000
    assert (await store.append([group("b")])).stored == 1
    await store.close()


@pytest.mark.spec("E036", "D06")
async def test_a_start_on_a_full_disk_lets_deliveries_drain(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> Any:
        raise OSError(errno.ENOSPC, "no space left on device")

    monkeypatch.setattr(dedup, "FLUSH", 2)
    async with SqliteStore.open(tmp_path, FakeClock()) as store:
        await store.connect("out", ["web"], "earliest")
        await store.append([group("a", "b", "c")])
    for path in (tmp_path / "dedup").iterdir():
        path.unlink()
    monkeypatch.setattr(dedup, "write", full)
    monkeypatch.setattr(Filter, "save", full)
    async with SqliteStore.open(tmp_path, FakeClock(), reserve_bytes=1, free_bytes=lambda _: 0) as store:
        assert await store.settle(await lease_of(store), Settlement(1, [Done(1, 0, "delivered")]))
        with pytest.raises(LogFull):
            await store.append([group("d")])
    async with SqliteStore.open(tmp_path, FakeClock()) as store:
        assert (await store.append([group("a", "b", "c", "d")])).stored == 1


@pytest.mark.parametrize("inline", [False, True])
@pytest.mark.parametrize("failing", ["__init__", "load"])
async def test_a_failed_start_gives_everything_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str, inline: bool
) -> None:
    def fail(*_: Any) -> None:
        raise OSError(errno.EIO, "input/output error")

    before = set(threading.enumerate())
    with monkeypatch.context() as broken:
        broken.setattr(Deduplication, failing, fail)
        with pytest.raises(OSError, match="input/output"):
            await SqliteStore.begin(tmp_path, FakeClock(), inline=inline)
    DirectoryLock(tmp_path).release()
    assert open_files(tmp_path) == []
    assert {thread for thread in threading.enumerate() if thread.name.startswith("towpath")} <= before


async def test_a_file_that_cannot_be_opened_gives_everything_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened = []

    def fail(_: Path) -> None:
        raise apsw.CantOpenError("unable to open database file")

    def opening(path: Path, *, durable: bool) -> apsw.Connection:
        opened.append(open_writer(path, durable=durable))
        return opened[-1]

    monkeypatch.setattr(database, "open_writer", opening)
    monkeypatch.setattr(database, "open_reader", fail)
    with pytest.raises(LogFull, match="unable to open"):
        await SqliteStore.begin(tmp_path, FakeClock())
    DirectoryLock(tmp_path).release()
    assert open_files(tmp_path) == []


def open_files(directory: Path) -> list[str]:
    """What this process has open below a directory, as the kernel says."""
    targets = []
    for link in Path("/proc/self/fd").iterdir():
        with contextlib.suppress(OSError):
            targets.append(str(link.readlink()))
    return sorted(target for target in targets if target.startswith(str(directory)))


@pytest.mark.spec("D07", "E036")
async def test_a_copy_of_a_failed_append_is_kept(tmp_path: Path) -> None:
    async with SqliteStore.open(tmp_path, FakeClock()) as store:
        fail_once(store)
        first, copy = await asyncio.gather(
            store.append([group("a")]), store.append([group("a", "b")]), return_exceptions=True
        )
        assert isinstance(first, LogFailed)
        assert not isinstance(copy, BaseException)
        assert (copy.stored, copy.duplicates) == (2, 0)
        assert ids_of(await store.read(0, 9)) == ["a", "b"]


def fail_once(store: SqliteStore) -> None:
    """Make the disk fail under the first append, in the group and on its own."""
    take, fails = store._database.appender.take, itertools.count()

    def failing(connection: apsw.Connection, incoming: Any) -> Any:
        if next(fails) < 1 if store._database._inline else next(fails) < 2 and len(incoming.digests) == 1:
            raise apsw.IOError("disk I/O error")
        return take(connection, incoming)

    store._database.appender.take = failing  # type: ignore[method-assign]


# One bad operation


@pytest.mark.spec("D05")
async def test_one_bad_operation_of_a_group_fails_alone(tmp_path: Path) -> None:
    def bad(connection: apsw.Connection) -> None:
        connection.execute("INSERT INTO pause VALUES ('x', '*', 'undone', 0)")
        raise ZeroDivisionError

    async with SqliteStore.open(tmp_path, FakeClock()) as store:
        results = await asyncio.gather(
            store.append([group("a")]),
            store._database.write(bad),
            store.append([group("b", "c")]),
            store.suppress(["ann"]),
            return_exceptions=True,
        )
        assert [type(result).__name__ for result in results] == [
            "Appended",
            "ZeroDivisionError",
            "Appended",
            "NoneType",
        ]
        assert ids_of(await store.read(0, 9)) == ["a", "b", "c"]
        assert await store.suppressed() == {"ann"}
        assert await store.pauses() == []


async def test_a_caller_that_goes_away_changes_nothing(tmp_path: Path) -> None:
    async with SqliteStore.open(tmp_path, FakeClock()) as store:
        gone = asyncio.ensure_future(store.append([group("a")]))
        await asyncio.sleep(0)
        gone.cancel()
        assert (await store.append([group("a", "b")])).duplicates == 1
        assert ids_of(await store.read(0, 9)) == ["a", "b"]


# Damaged


def blob_bytes(directory: Path) -> tuple[int, int]:
    """(offset, length) of some bytes in the middle of the second blob's body in the file."""
    connection = apsw.Connection(str(directory / "log.db"))
    (body,) = connection.execute("SELECT body FROM blob ORDER BY position DESC LIMIT 1").fetchone() or (b"",)
    connection.close()
    piece = body[-200:-100]
    return (directory / "log.db").read_bytes().index(piece), len(piece)


@pytest.mark.spec("D05")
@pytest.mark.parametrize("flip", [0, 17, 99])
async def test_a_damaged_blob_says_where_and_is_never_read(tmp_path: Path, flip: int) -> None:
    async with SqliteStore.open(tmp_path, FakeClock()) as store:
        await store.append([group("a", "b")])
        await store.append(
            [Group(Envelope("web", NOW), [entry(f"big-{i}", os.urandom(50).hex()) for i in range(20)])]
        )
    data = bytearray((tmp_path / "log.db").read_bytes())
    data[blob_bytes(tmp_path)[0] + flip] ^= 0x40
    (tmp_path / "log.db").write_bytes(data)
    (tmp_path / "dedup" / "filter").unlink(missing_ok=True)
    async with SqliteStore.open(tmp_path, FakeClock()) as store:
        assert ids_of(await store.read(0, 2)) == ["a", "b"]
        with pytest.raises(Damaged) as caught:
            await store.read(2, 5)
        with pytest.raises(Damaged):
            await store.find("big-1")
        assert (await store.append([group("after")])).last == 23
        assert ids_of(await store.read(0, 50)) == ["a", "b"]  # as far as it can be read, nothing beyond
        with pytest.raises(Damaged) as within:
            await store.read(10, 50)
        assert caught.value.last is not None
        assert ids_of(await store.read(caught.value.last, 5)) == ["after"]
    assert (caught.value.position, caught.value.last) == (3, 22)
    assert (within.value.position, within.value.last) == (3, 22)
    assert "position 3" in caught.value.title
    assert caught.value.fix


@pytest.mark.spec("D05")
async def test_a_damaged_page_says_which_records_it_held(tmp_path: Path) -> None:
    """SQLite itself finds it: the body's overflow pages point nowhere."""
    async with SqliteStore.open(tmp_path, FakeClock()) as store:
        await store.append([group("a", "b")])
        big = [entry(f"big-{i}", os.urandom(4000).hex()) for i in range(20)]
        await store.append([Group(Envelope("web", NOW), big)])
        await store.append([group("after")])
        size = store._database.reader.pragma("page_size")
    data = bytearray((tmp_path / "log.db").read_bytes())
    connection = apsw.Connection(str(tmp_path / "log.db"))
    (body,) = connection.execute("SELECT body FROM blob WHERE position = 3").fetchone() or (b"",)
    connection.close()
    page = data.index(body[20_000:20_100]) // size * size
    data[page : page + 4] = b"\xff\xff\xff\xff"
    (tmp_path / "log.db").write_bytes(data)
    async with SqliteStore.open(tmp_path, FakeClock()) as store:
        with pytest.raises(Damaged) as caught:
            await store.read(2, 5)
        assert (caught.value.position, caught.value.last) == (3, 22)
        assert ids_of(await store.read(22, 5)) == ["after"]


# Owned


@pytest.mark.spec("D05")
async def test_a_lease_of_a_process_that_died_is_free_at_once(tmp_path: Path) -> None:
    async with SqliteStore.open(tmp_path, FakeClock()) as store:
        await store.connect("out", ["web"], "earliest")
        before = await lease_of(store, "process 1")
    async with SqliteStore.open(tmp_path, FakeClock()) as store:
        assert (await lease_of(store, "process 2")).epoch > before.epoch
        assert not await store.settle(before, Settlement(0))


async def test_waiting_in_vain_leaves_nothing_behind(tmp_path: Path) -> None:
    async with SqliteStore.open(tmp_path, FakeClock()) as store:
        for _ in range(3):
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(store.wait(0), 0)
        assert not store._waiting


async def test_a_second_owner_is_told_which_process_is_the_first(tmp_path: Path) -> None:
    async with SqliteStore.open(tmp_path, FakeClock()):
        start = time.monotonic()
        with pytest.raises(TowpathError, match=str(os.getpid())) as caught:
            await SqliteStore.begin(tmp_path, FakeClock())
        assert time.monotonic() - start < 1
        assert caught.value.code == "E5001"
    DirectoryLock(tmp_path).release()


async def test_a_file_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    async with SqliteStore.open(tmp_path, FakeClock()) as store:
        store._database.writer.connection.pragma("user_version", 99)
    for _ in range(2):
        with pytest.raises(TowpathError, match="newer"):
            await SqliteStore.begin(tmp_path, FakeClock())


async def test_the_file_is_the_owners_alone(tmp_path: Path) -> None:
    async with SqliteStore.open(tmp_path / "data", FakeClock()):
        modes = {
            path.name: path.stat().st_mode & 0o077 for path in (tmp_path / "data").iterdir() if path.is_file()
        }
    assert "log.db" in modes
    assert set(modes.values()) == {0}
