"""Deduplication against a plain dict: over windows, flushes, merges, reopening, lost and torn files."""

from __future__ import annotations

import asyncio
import errno
import os
import tempfile
from collections.abc import Iterator
from itertools import chain, pairwise
from pathlib import Path
from random import Random
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from towpath.log import Entry, Group, dedup, runs
from towpath.log.dedup import PARTS, Deduplication, Pending, Seen
from towpath.log.runs import Filter, Run, Span, Unusable, merge, write
from towpath.log.sqlite import SqliteStore
from towpath.message import Envelope
from towpath.testing import FakeClock
from towpath.testing.log import entry

WINDOW_S = 80.0
IDS = st.integers(0, 30).map(str)
SOURCES = st.sampled_from(["web", "app"])


class Against(RuleBasedStateMachine):
    """The model is a dict of (source, id) -> when it was last kept; the log is a list."""

    @initialize(flush=st.integers(1, 8))
    def begin(self, flush: int) -> None:
        self.place = tempfile.TemporaryDirectory()
        self.directory = Path(self.place.name) / "dedup"
        self.now = 1000.0
        self.kept: dict[tuple[str, str], float] = {}
        self.log: list[tuple[float, str, str]] = []
        self.first = 1  # positions below were trimmed
        self.flush, dedup.FLUSH = dedup.FLUSH, flush
        self.waiting: list[Pending] = []
        self.open()

    def open(self) -> None:
        self.dedup = Deduplication(self.directory, WINDOW_S, lambda task: task())
        self.dedup.load(self.now, len(self.log), self.scan)

    def scan(self, after: int, to: int, since: float) -> Iterator[Seen]:
        for position in range(max(after + 1, self.first), to + 1):
            at, source, message_id = self.log[position - 1]
            if at >= since:
                yield position, at, source, message_id

    @rule(ids=st.lists(IDS, min_size=1, max_size=6), source=SOURCES, kept=st.booleans())
    def append(self, ids: list[str], source: str, kept: bool) -> None:
        groups = [Group(Envelope(source, self.now), [Entry(message_id, b"") for message_id in ids])]
        incoming = self.dedup.admit(groups, self.now)
        assert not isinstance(incoming, Pending)
        stored = [message_id for _, items in incoming.pieces for message_id, _ in items]
        assert sum(incoming.duplicates.values()) == len(ids) - len(stored)
        assert len(set(stored)) == len(stored)
        for message_id in dict.fromkeys(ids):
            age_s = self.now - self.kept.get((source, message_id), float("-inf"))
            if age_s <= WINDOW_S:
                assert message_id not in stored
            elif age_s > WINDOW_S * (1 + 1 / PARTS):
                assert message_id in stored
        pending = self.dedup.begin(incoming)
        if stored:
            assert self.dedup.admit(groups, self.now) is pending
        if kept:
            self.log += [(self.now, source, message_id) for message_id in stored]
            self.kept |= {(source, message_id): self.now for message_id in stored}
        self.dedup.finish(pending, len(self.log) if kept else None)

    @rule(seconds=st.sampled_from([0.5, 3.0, 11.0, 41.0, 200.0]))
    def pass_time(self, seconds: float) -> None:
        self.now += seconds

    @rule()
    def reopen(self) -> None:
        self.open()

    @rule()
    def reopen_after_closing(self) -> None:
        self.dedup.save()
        self.open()

    @rule(which=st.integers(0, 9), how=st.sampled_from(["lost", "torn", "flipped", "filter"]))
    def lose_a_file(self, which: int, how: str) -> None:
        """Any file may go as long as the log still has the records."""
        files = sorted(self.directory.glob("*.run" if how != "filter" else "filter"))
        if self.first == 1 and files:
            path = files[which % len(files)]
            data = bytearray(path.read_bytes())
            data[len(data) // 2] ^= 1
            path.write_bytes(data[: len(data) // 2] if how == "torn" else data)
            if how == "lost":
                path.unlink()
        self.open()

    @rule()
    def trim(self) -> None:
        """The log goes, the ids stay."""
        self.dedup.freeze()
        assert self.dedup.stored
        self.first = len(self.log) + 1

    @invariant()
    def runs_stay_few(self) -> None:
        assert len(list(self.directory.glob("*.run"))) <= 2 * PARTS + 16

    def teardown(self) -> None:
        dedup.FLUSH = self.flush
        self.place.cleanup()


TestAgainstADict = pytest.mark.spec("D07")(Against.TestCase)
TestAgainstADict.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
)


def digests(count: int, seed: int = 0) -> list[bytes]:
    random = Random(seed)
    return sorted(random.randbytes(16) for _ in range(count))


@pytest.mark.spec("D07")
def test_a_run_holds_exactly_its_digests(tmp_path: Path) -> None:
    held = digests(5000)
    run = write(tmp_path / "1.run", Span(0, 5000, 1.0, 2.0), [b"".join(held)])
    assert all(run.holds(digest) for digest in held)
    assert not any(run.holds(digest) for digest in digests(5000, seed=1))
    assert not run.holds(bytes(16))
    assert not run.holds(b"\xff" * 16)
    # 16 bytes that are there, but across two digests
    assert not any(run.holds((a + b)[8:24]) for a, b in pairwise(held))
    again = Run(tmp_path / "1.run")
    assert (again.count, again.after, again.to, again.oldest, again.newest) == (5000, 0, 5000, 1.0, 2.0)


@pytest.mark.spec("D07")
def test_a_merged_run_holds_what_its_parts_held(tmp_path: Path) -> None:
    sizes = (1, 700, 4000)
    parts = [digests(size, seed) for seed, size in enumerate(sizes)]
    runs = [
        write(tmp_path / f"{i}.run", Span(i, i + 1, float(i), i + 0.5), [b"".join(part)])
        for i, part in enumerate(parts)
    ]
    merged = merge(tmp_path / "9.run", runs)
    assert b"".join(merged.blocks()) == b"".join(sorted(chain.from_iterable(parts)))
    assert (merged.after, merged.to, merged.oldest, merged.newest) == (0, 3, 0.0, 2.5)


@pytest.mark.parametrize("at", [0, 20, 44, 60, -1])
def test_any_flipped_byte_of_a_run_is_noticed(tmp_path: Path, at: int) -> None:
    path = tmp_path / "1.run"
    write(path, Span(0, 9, 1.0, 2.0), [b"".join(digests(9))])
    data = bytearray(path.read_bytes())
    data[at] ^= 4
    path.write_bytes(data)
    with pytest.raises(Unusable):
        Run(path)


def test_the_filter_forgets_nothing_and_lets_little_through() -> None:
    found = Filter(50_000)
    held = digests(50_000)
    found.add(b"".join(held))
    assert sorted(found.perhaps(held)) == held
    assert len(found.perhaps(digests(50_000, seed=1))) < 2_000


def test_a_torn_filter_is_made_again(tmp_path: Path) -> None:
    found = Filter()
    found.add(b"".join(digests(10)))
    found.save(tmp_path / "filter", [])
    assert Filter.load(tmp_path / "filter")[0].bits == found.bits
    data = (tmp_path / "filter").read_bytes()
    (tmp_path / "filter").write_bytes(data[:-1] + b"\x01")
    loaded, names = Filter.load(tmp_path / "filter")
    assert not any(loaded.bits)
    assert not names


@pytest.mark.spec("D07")
def test_a_file_name_that_comes_again_is_another_run(tmp_path: Path) -> None:
    """Found by the state machine: a saved filter vouched for a run it had never seen."""

    def opened(now: float, log: list[Seen]) -> Deduplication:
        found = Deduplication(tmp_path / "dedup", WINDOW_S, lambda task: task())
        found.load(now, len(log), lambda after, to, since: iter(log[after:to]))
        return found

    def keep(found: Deduplication, message_id: str, now: float, last: int) -> bool:
        incoming = found.admit([Group(Envelope("web", now), [Entry(message_id, b"")])], now)
        assert not isinstance(incoming, Pending)
        found.finish(found.begin(incoming), last)
        found.freeze()
        return bool(incoming.pieces)

    first = opened(0.0, [])
    assert keep(first, "a", 0.0, 1)
    first.save()
    log: list[Seen] = [(1, 0.0, "web", "a")]
    opened(300.0, log)  # deletes the run, which is past the window
    assert keep(opened(300.0, log), "b", 300.0, 2)
    assert not keep(opened(300.0, [*log, (2, 300.0, "web", "b")]), "b", 300.0, 2)


@pytest.mark.spec("D07")
def test_runs_past_the_window_are_deleted(tmp_path: Path) -> None:
    found = Deduplication(tmp_path / "dedup", WINDOW_S, lambda task: task())
    for position, now in enumerate((0.0, 50.0, 100.0), start=1):
        group = Group(Envelope("web", now), [Entry("a" * position, b"")])
        incoming = found.admit([group], now)
        assert not isinstance(incoming, Pending)
        found.finish(found.begin(incoming), position)
        found.freeze()
    found.admit([], 140.0)
    assert len(list((tmp_path / "dedup").glob("*.run"))) == 1


@pytest.mark.spec("D07")
async def test_the_store_flushes_and_merges_under_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dedup, "FLUSH", 40)
    clock = FakeClock()

    async def keep(store: SqliteStore, first: int) -> list[Any]:
        calls = [[entry(f"m{i}") for i in range(n, n + 10)] for n in range(first, first + 400, 10)]
        return await asyncio.gather(
            *[store.append([Group(Envelope("web", clock.now()), entries)]) for entries in calls]
        )

    async with SqliteStore.open(tmp_path, clock) as store:
        assert sum(appended.stored for appended in await keep(store, 0)) == 400
        assert sum(appended.stored for appended in await keep(store, 200)) == 200
    assert 0 < len(list((tmp_path / "dedup").glob("*.run"))) < 10
    async with SqliteStore.open(tmp_path, clock) as store:
        assert sum(appended.stored for appended in await keep(store, 0)) == 0
        assert sum(appended.stored for appended in await keep(store, 300)) == 100
    for path in (tmp_path / "dedup").glob("*.run"):
        path.unlink()
    async with SqliteStore.open(tmp_path, clock) as store:
        assert sum(appended.stored for appended in await keep(store, 0)) == 0
        assert sum(appended.stored for appended in await keep(store, 400)) == 100


# One id at a time, outside a store


class Ids:
    """A log of ids of one source, and the deduplication beside it."""

    def __init__(self, place: Path) -> None:
        self.place = place
        self.log: list[Seen] = []
        self.first = 1
        self.open(0.0)

    def open(self, now: float) -> None:
        self.dedup = Deduplication(self.place, WINDOW_S, lambda task: task())
        self.dedup.load(now, len(self.log), self.scan)

    def scan(self, after: int, to: int, since: float) -> Iterator[Seen]:
        kept = self.log[max(after, self.first - 1) : to]
        return iter([seen for seen in kept if seen[1] >= since])

    def keep(self, message_id: str, now: float) -> bool:
        """Append an id; False when it was known."""
        incoming = self.dedup.admit([Group(Envelope("web", now), [Entry(message_id, b"")])], now)
        assert not isinstance(incoming, Pending)
        if incoming.pieces:
            self.log.append((len(self.log) + 1, now, "web", message_id))
        self.dedup.finish(self.dedup.begin(incoming), len(self.log))
        return bool(incoming.pieces)

    def trim(self) -> None:
        """Drop the records, as retention does: from now on only the files know the ids."""
        self.dedup.freeze()
        assert self.dedup.stored
        self.first = len(self.log) + 1

    @property
    def runs(self) -> list[str]:
        return sorted(path.name for path in self.place.glob("*.run"))


@pytest.fixture
def ids(tmp_path: Path) -> Ids:
    return Ids(tmp_path / "dedup")


def full(*_: Any) -> Any:
    raise OSError(errno.ENOSPC, "no space left on device")


PART_S = WINDOW_S / PARTS


@pytest.mark.spec("D07")
@pytest.mark.parametrize("reopened", [False, True])
def test_an_id_is_forgotten_at_most_an_eighth_late(ids: Ids, reopened: bool) -> None:
    """Ids of one part of the window stay together in memory; those of the next part are kept apart."""
    assert ids.keep("early", 0.0)
    for number in range(1, 5):
        assert ids.keep(f"later-{number}", number * PART_S)
    if reopened:  # with all of it made again from the log
        for name in ids.runs:
            (ids.place / name).unlink()
        ids.open(4 * PART_S)
    assert not ids.keep("early", WINDOW_S)
    assert ids.keep("early", WINDOW_S + PART_S + 0.5)


@pytest.mark.spec("D07")
@pytest.mark.parametrize("failure", ["sync", "open"])
def test_a_run_written_twice_is_kept_once(ids: Ids, monkeypatch: pytest.MonkeyPatch, failure: str) -> None:
    """Something fails once the run has its name: it is written again, and the next start finds both."""

    def unusable(path: Path) -> Run:
        raise Unusable(f"{path.name}: too many open files")

    ids.keep("a", 0.0)
    with monkeypatch.context() as broken:
        broken.setattr(runs, *(("_sync_directory", full) if failure == "sync" else ("Run", unusable)))
        ids.dedup.freeze()
        assert not ids.dedup.stored
    ids.trim()
    assert ids.runs == ["00000001.run", "00000002.run"]
    ids.open(1.0)
    assert ids.runs == ["00000002.run"]
    assert not ids.keep("a", 1.0)


@pytest.mark.spec("D07")
def test_of_two_runs_of_one_span_the_fuller_one_stays(tmp_path: Path, ids: Ids) -> None:
    held = digests(3)
    ids.log = [(position, 1.0, "web", str(position)) for position in (1, 2, 3)]
    write(ids.place / "00000004.run", Span(0, 3, 1.0, 1.0), [b"".join(held)])
    write(ids.place / "00000005.run", Span(0, 3, 1.0, 1.0), [b"".join(held[:2])])
    ids.open(1.0)
    assert (ids.runs, ids.dedup.held) == (["00000004.run"], 3)


@pytest.mark.spec("D07")
def test_the_parts_of_a_merged_run_that_a_crash_left_are_deleted(ids: Ids) -> None:
    for number in range(4):
        ids.keep(str(number), float(number))
        ids.dedup.freeze()
        if number == 2:
            parts = {path: path.read_bytes() for path in ids.place.glob("*.run")}
    assert len(ids.runs) == 1  # four similar ones were merged
    for path, data in parts.items():
        path.write_bytes(data)
    ids.first = 5
    ids.open(4.0)
    assert (len(ids.runs), ids.dedup.held) == (1, 4)
    assert not any(ids.keep(str(number), 4.0) for number in range(4))


@pytest.mark.spec("D07", "E036")
def test_a_full_disk_keeps_nobody_from_starting(ids: Ids, monkeypatch: pytest.MonkeyPatch) -> None:
    """What cannot be written stays in memory, in its place, and is written once there is room."""
    for number in range(6):  # one to a part of the window
        ids.keep(str(number), number * PART_S)
    ids.dedup.freeze()
    for name in (ids.runs[1], ids.runs[2], ids.runs[4]):
        (ids.place / name).unlink()  # made again from the log, between the others
    now = 5 * PART_S + 1.0
    with monkeypatch.context() as broken:
        broken.setattr(dedup, "write", full)
        broken.setattr(Filter, "save", full)
        ids.open(now)
        assert not any(ids.keep(str(number), now) for number in range(6))
        ids.keep("new", now)
        ids.dedup.freeze()
        ids.dedup.save()
        assert not ids.dedup.stored
    ids.trim()
    assert len(ids.runs) >= 6
    ids.open(now)
    assert not any(ids.keep(message_id, now) for message_id in [*map(str, range(6)), "new"])


@pytest.mark.spec("D07", "E036")
def test_a_run_stored_late_is_merged_in_its_place(ids: Ids, monkeypatch: pytest.MonkeyPatch) -> None:
    for number in range(3):
        ids.keep(str(number), number * 1.0)
        ids.dedup.freeze()
    (ids.place / ids.runs[0]).unlink()
    with monkeypatch.context() as broken:
        broken.setattr(dedup, "write", full)
        ids.open(3.0)
    ids.keep("3", 3.0)
    ids.trim()
    assert len(ids.runs) == 1
    run = Run(ids.place / ids.runs[0])
    assert (run.after, run.to, run.count) == (0, 4, 4)


@pytest.mark.spec("E036")
def test_a_failed_run_leaves_nothing_half_written(ids: Ids, monkeypatch: pytest.MonkeyPatch) -> None:
    """On a full disk each attempt would otherwise take some of what is left."""
    ids.keep("a", 0.0)
    with monkeypatch.context() as broken:
        broken.setattr(os, "fsync", full)
        ids.dedup.freeze()
    assert not list(ids.place.iterdir())
    (ids.place / "00000009.tmp").write_bytes(b"of a crash")
    ids.open(0.0)
    assert not list(ids.place.glob("*.tmp"))
