"""The memory of connections: bounded, expiring, durable after a flush, gone after an erasure."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from towpath.state import DurableMemory, State
from towpath.state import memory as module


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
    state.forget_memories()
    assert memory.find("email=canary@example.com") is None
    state.close()
    assert b"canary" not in b"".join(path.read_bytes() for path in tmp_path.iterdir())


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
