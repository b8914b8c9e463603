"""The memory of connections: bounded, expiring, durable after a flush, gone after an erasure."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError
from structlog.testing import capture_logs

from towpath.errors import TowpathError
from towpath.state import FILE, DurableMemory, State
from towpath.state import memory as module
from towpath.state.engine import library


class Clock:
    """Wall time that a test moves."""

    def __init__(self) -> None:
        self.time = 1_000.0

    def now(self) -> float:
        return self.time


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def state(tmp_path: Path, clock: Clock) -> Iterator[State]:
    opened = State.open(tmp_path, clock)  # type: ignore[arg-type]
    yield opened
    opened.close()


def reopened(state: State, clock: Clock, connection: str = "a-b") -> DurableMemory:
    state.close()
    again = State.open(state.directory, clock)  # type: ignore[arg-type]
    memory = again.memory(connection)
    again.close()
    return memory


def everything(directory: Path) -> bytes:
    """All bytes of the files of a directory."""
    return b"".join(path.read_bytes() for path in directory.iterdir() if path.is_file())


@pytest.mark.spec("K063")
def test_what_is_kept_is_found_until_it_expires(state: State, clock: Clock) -> None:
    memory = state.memory("a-b")
    memory.keep("email=ana@example.com", "id1", 60)
    assert memory.find("email=ana@example.com") == "id1"
    clock.time += 60
    assert memory.find("email=ana@example.com") is None
    assert len(memory) == 0


@pytest.mark.spec("K063")
def test_it_outlives_a_restart_and_what_was_dropped_does_not(state: State, clock: Clock) -> None:
    memory = state.memory("a-b")
    for key in ("kept", "dropped", "short", "changed"):
        memory.keep(key, "old", 10 if key == "short" else 1000)
    state.flush()
    memory.drop("dropped")
    memory.drop("never there")
    memory.keep("changed", "new", 1000)
    clock.time += 10
    again = reopened(state, clock)
    assert [again.find(key) for key in ("kept", "dropped", "short", "changed")] == ["old", None, None, "new"]


def test_connections_do_not_see_each_other(state: State, clock: Clock) -> None:
    state.memory("a-b").keep("key", "one", 60)
    assert state.memory("a-c").find("key") is None
    assert reopened(state, clock, "a-c").find("key") is None


def test_the_least_recently_used_goes_first(
    state: State, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LARGEST", 3)
    memory = state.memory("a-b")
    for key in "abc":
        memory.keep(key, key, 60)
    memory.find("a")
    memory.keep("d", "d", 60)
    assert [memory.find(key) for key in "abcd"] == ["a", None, "c", "d"]
    assert [reopened(state, clock).find(key) for key in "abcd"] == ["a", None, "c", "d"]


@pytest.mark.spec("D10")
def test_an_erasure_leaves_no_key_behind(state: State, tmp_path: Path) -> None:
    memory = state.memory("a-b")
    memory.keep("email=canary@example.com", "id-canary", 60)
    state.flush()
    memory.keep("email=canary2@example.com", "id-canary", 60)
    assert b"canary" in everything(tmp_path)
    state.forget_people(())
    assert memory.find("email=canary@example.com") is None
    assert b"canary" not in everything(tmp_path), "while the server runs"
    state.close()
    assert b"canary" not in everything(tmp_path)


@pytest.mark.spec("D10")
async def test_an_erasure_in_a_thread_meets_a_loop_at_work(state: State, clock: Clock) -> None:
    memories = [state.memory("first")]
    erasing = asyncio.ensure_future(asyncio.to_thread(state.forget_people, ()))
    count = 0
    while not erasing.done():
        count += 1
        memories.append(state.memory(f"m{count % 40}"))
        memories[-1].keep(f"key{count}", "value", 60)
        memories[-1].find(f"key{count - 40}")
        await asyncio.sleep(0)
    await erasing
    memories[0].keep("after", "value", 60)
    assert reopened(state, clock, "first").find("after") == "value"


@pytest.mark.spec("D10")
def test_an_erasure_that_cannot_empty_the_log_says_so(state: State, tmp_path: Path) -> None:
    state.memory("a-b").keep("email=canary@example.com", "id", 60)
    state.flush()
    pooled = state._engine.raw_connection()
    pooled.cursor().execute("PRAGMA busy_timeout=0").close()
    pooled.close()
    with closing(library().connect(str(tmp_path / FILE))) as reader:
        if reader.execute("PRAGMA journal_mode").fetchone() != ("wal",):
            return  # this SQLite keeps no write-ahead log
        reader.execute("BEGIN").close()
        reader.execute("SELECT count(*) FROM memory").fetchall()
        with pytest.raises(TowpathError, match="another program reads"):
            state.forget_people(())
    state.forget_people(())
    assert b"canary" not in everything(tmp_path)


def test_what_lasts_is_not_pushed_out_by_what_passes(
    state: State, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LARGEST", 3)
    monkeypatch.setattr(module, "LARGEST_LASTING", 2)
    memory = state.memory("a-b")
    for key in ("anonymous=1", "anonymous=2"):
        memory.keep(key, "1", 400 * 24 * 3600)
    for number in range(10):
        memory.keep(f"email={number}", "id", 24 * 3600)
    assert len(memory) == 5
    again = reopened(state, clock)
    assert (again.find("anonymous=1"), again.find("anonymous=2"), len(again)) == ("1", "1", 5)
    again.keep("anonymous=3", "1", 400 * 24 * 3600)
    assert (again.find("anonymous=1"), again.find("email=9"), len(again)) == (None, "id", 5)


def test_a_key_kept_for_another_time_is_there_once(state: State, clock: Clock) -> None:
    memory = state.memory("a-b")
    for value, ttl_s in (("short", 60), ("long", 400 * 24 * 3600), ("short", 60)):
        memory.keep("key", value, ttl_s)
        assert (memory.find("key"), len(memory)) == (value, 1)
    memory.drop("key")
    assert (memory.find("key"), len(reopened(state, clock))) == (None, 0)


class Disk:
    """A disk that fails as often as a test says, in place of `_write`."""

    def __init__(self, failures: int) -> None:
        self.failures = failures
        self.wrote = threading.Event()
        self.failed = threading.Event()
        self._real = module._write

    def __call__(self, *arguments: Any) -> None:
        if self.failures:
            self.failures -= 1
            self.failed.set()
            raise RuntimeError("the disk is full of canaries")
        self._real(*arguments)
        self.wrote.set()


def test_the_writer_outlives_a_failure_and_writes_what_it_could_not(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    disk = Disk(failures=2)
    monkeypatch.setattr(module, "_write", disk)
    state = State.open(tmp_path, clock)  # type: ignore[arg-type]
    state._memories._pause_s = 0.001
    with capture_logs() as logged:
        memory = state.memory("a-b")
        memory.keep("key", "value", 60)
        assert disk.wrote.wait(10)
    assert [line["log_level"] for line in logged] == ["error"]
    assert "canaries" not in str(logged)
    disk.wrote.clear()
    memory.keep("next", "value", 60)
    assert disk.wrote.wait(10)
    again = reopened(state, clock)
    assert (again.find("key"), again.find("next")) == ("value", "value")


def test_what_changed_since_a_failure_counts(
    state: State, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    state._memories._pause_s = 60.0
    memory = state.memory("a-b")
    for key in ("changed", "dropped"):
        memory.keep(key, "old", 60)
    taken = memory.changes()
    memory.keep("changed", "new", 60)
    memory.drop("dropped")
    memory.restore(taken)
    again = reopened(state, clock)
    assert (again.find("changed"), again.find("dropped")) == ("new", None)


def test_what_waits_to_be_written_is_bounded(
    tmp_path: Path, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LARGEST", 3)
    monkeypatch.setattr(module, "MOST_PENDING", 10)
    state = State.open(tmp_path, clock)  # type: ignore[arg-type]
    memory = state.memory("a-b")
    memory.keep("stale", "1", 60)
    state.flush()
    disk = Disk(failures=1_000_000)
    monkeypatch.setattr(module, "_write", disk)
    for number in range(1000):
        memory.keep(f"key{number}", "1", 60)
        if number % 100 == 0:
            with pytest.raises(RuntimeError):
                state.flush()
        assert len(memory._changes) <= 10
    disk.failures = 0
    again = reopened(state, clock)
    assert [again.find(f"key{number}") for number in (996, 997, 998, 999)] == [None, "1", "1", "1"]
    assert (again.find("stale"), len(again)) == (None, 3)


def test_changes_are_written_behind_by_a_thread(state: State, monkeypatch: pytest.MonkeyPatch) -> None:
    wrote = threading.Event()
    names: list[str] = []
    real = module._write

    def noted(*arguments: object) -> None:
        real(*arguments)  # type: ignore[arg-type]
        names.append(threading.current_thread().name)
        wrote.set()

    monkeypatch.setattr(module, "_write", noted)
    state.memory("a-b").keep("key", "value", 60)
    assert wrote.wait(10)
    assert names == ["towpath-memory"]


def test_closing_twice_is_harmless(state: State, clock: Clock) -> None:
    state.memory("a-b").keep("key", "value", 60)
    state.close()
    assert reopened(state, clock).find("key") == "value"


def test_a_disk_that_takes_nothing_more_does_not_fail_the_stop(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    state = State.open(tmp_path)
    memory = state.memory("web")

    def full(*_: object) -> None:
        raise OperationalError("INSERT", {}, Exception("database or disk is full"))

    monkeypatch.setattr("towpath.state.memory._write", full)
    memory.keep("k", "v", 60.0)
    with capture_logs() as said:
        state.close()
    assert [line["reason"] for line in said if "at the stop" in line["event"]] == ["database or disk is full"]
