"""Exact deduplication by (source, message id) over a window, derived from the log (P8)."""

from __future__ import annotations

import contextlib
import threading
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from hashlib import blake2b
from itertools import takewhile
from pathlib import Path
from typing import TypeAlias

from msgspec import Struct

from . import Group
from .append import Incoming
from .blob import Item
from .runs import DIGEST, Filter, Run, Span, Unusable, merge, write

Seen: TypeAlias = tuple[int, float, str, str]
"""(position, received at, source, message id) of a kept record."""
Scan: TypeAlias = Callable[[int, int, float], Iterator[Seen]]
"""(after, to, since): the records at after < position <= to that were received from `since` on."""
FLUSH = 1 << 18
"""Digests held in memory before they become a run."""
PARTS = 8
"""A run never spans more than this part of the window, so an id is forgotten at most that much late."""
SIMILAR = 4
"""Within the newest part, this many neighbouring runs of similar size become one."""


class Table:
    """Digests in memory: of the records after `after`, received between `oldest` and `newest`."""

    def __init__(self, after: int) -> None:
        self.after = after
        self.digests: set[bytes] = set()
        self.oldest = float("inf")
        self.newest = float("-inf")

    def add(self, digests: Iterable[bytes], oldest: float, newest: float) -> None:
        """Take in the digests of records received between these times."""
        self.digests.update(digests)
        self.oldest = min(self.oldest, oldest)
        self.newest = max(self.newest, newest)


class Pending(Struct, eq=False):
    """An append whose commit is not known yet; `waiters` are called when it is."""

    incoming: Incoming
    oldest: float
    newest: float
    waiters: list[Callable[[], None]] = []


class Deduplication:
    """Decides, on the loop, what is new. Runs are written and merged by `background`, one task at a time.

    A digest is pending until its commit, then recent; full tables are frozen until their run is on disk.
    """

    def __init__(
        self, directory: Path, window_s: float, background: Callable[[Callable[[], None]], object]
    ) -> None:
        directory.mkdir(mode=0o700, exist_ok=True)
        self._directory = directory
        self._window_s = window_s
        self._part_s = max(window_s / PARTS, 1e-6)
        self._background = background
        self._pending: dict[bytes, Pending] = {}
        self._recent = Table(0)
        self._frozen: tuple[tuple[Table, int], ...] = ()
        self._swap = threading.Lock()  # guards replacing `_frozen`, which both threads do
        self._runs: tuple[Run, ...] = ()
        self._leaving: Run | None = None
        self._filter = Filter()
        self._number = 0
        self._last = 0

    # Deciding

    def admit(self, groups: Sequence[Group], now: float) -> Incoming | Pending:
        """What of these is new; or the append under way that decides it, to be waited for."""
        self._age(now)
        incoming = Incoming([], set(), {})
        duplicates: Counter[str] = Counter()
        for group in groups:
            items: list[Item] = []
            blocked = self._sift(group, items, incoming.digests)
            if blocked is not None:
                return blocked
            if items:
                incoming.pieces.append((group.envelope, items))
            if len(items) < len(group.entries):
                duplicates[group.envelope.source] += len(group.entries) - len(items)
        incoming.duplicates = dict(duplicates)
        return incoming

    def _sift(self, group: Group, items: list[Item], fresh: set[bytes]) -> Pending | None:
        """Add what is new of a group to `items` and `fresh`, or say which append is to be waited for."""
        digests = _digests(group)
        new = set(digests)
        known = self._known(new)
        if self._pending and (pending := self._pending.keys() & new):
            return self._pending[pending.pop()]
        if known or len(new) < len(digests) or not fresh.isdisjoint(new):
            for digest, entry in zip(digests, group.entries, strict=True):
                if digest not in known and digest not in fresh:
                    fresh.add(digest)
                    items.append((entry.message_id, entry.raw))
            return None
        fresh |= new
        items += [(entry.message_id, entry.raw) for entry in group.entries]
        return None

    def _known(self, digests: set[bytes]) -> set[bytes]:
        """Those of these that are kept."""
        frozen, runs = self._frozen, self._runs  # in this order: a table leaves only once its run is there
        known = digests & self._recent.digests
        for table, _ in frozen:
            known |= digests & table.digests
        if runs:
            for digest in self._filter.perhaps(digests - known):
                if any(run.holds(digest) for run in reversed(runs)):
                    known.add(digest)
        return known

    def begin(self, incoming: Incoming) -> Pending:
        """Remember that these are being committed."""
        times = [envelope.received_at for envelope, _ in incoming.pieces] or [0.0]
        pending = Pending(incoming, min(times), max(times))
        self._pending.update(dict.fromkeys(incoming.digests, pending))
        return pending

    def finish(self, pending: Pending, last: int | None) -> None:
        """The commit ended: kept up to position `last`, or (None) not at all."""
        digests = pending.incoming.digests
        for digest in digests:
            del self._pending[digest]
        if last is not None and digests:
            self._keep(digests, pending.oldest, pending.newest)
            self._last = max(self._last, last)
            if len(self._recent.digests) >= FLUSH:
                self.freeze()
        for waiter in pending.waiters:
            waiter()

    def _keep(self, digests: Iterable[bytes], oldest: float, newest: float) -> None:
        if self._recent.digests and self._other_part(self._recent, newest):
            self.freeze()
        self._recent.add(digests, oldest, newest)

    # Ageing

    def _age(self, now: float) -> None:
        """Forget what is wholly outside the window."""
        horizon = now - self._window_s
        if self._recent.newest < horizon and self._recent.digests:
            self._recent = Table(self._last)
        if self._frozen and self._frozen[0][0].newest < horizon:
            with self._swap:
                self._frozen = tuple(pair for pair in self._frozen if pair[0].newest >= horizon)
        if self._runs and self._runs[0].newest < horizon and self._runs[0] is not self._leaving:
            self._leaving = self._runs[0]
            self._background(lambda: self._expire(horizon))

    def _expire(self, horizon: float) -> None:
        gone = [run for run in self._runs if run.newest < horizon]
        self._runs = tuple(run for run in self._runs if run.newest >= horizon)
        for run in gone:
            run.path.unlink(missing_ok=True)

    # Runs

    def freeze(self) -> None:
        """Turn the digests in memory into a run, in the background."""
        if self._recent.digests:
            with self._swap:
                self._frozen = (*self._frozen, (self._recent, self._last))
            self._recent = Table(self._last)
        if self._frozen:
            self._background(self._store)

    @property
    def stored(self) -> bool:
        """Whether every frozen table has become a run."""
        return not self._frozen

    def _store(self) -> None:
        """Write frozen tables as runs; one that cannot be written now stays in memory for the next time."""
        with contextlib.suppress(OSError, Unusable):
            while self._frozen:
                table, to = self._frozen[0]
                self._publish(self._write(table, to))
                with self._swap:
                    self._frozen = tuple(pair for pair in self._frozen if pair[0] is not table)
            while group := self._mergeable():
                self._merge(group)

    def _write(self, table: Table, to: int) -> Run:
        span = Span(table.after, to, table.oldest, table.newest)
        return write(self._new_path(), span, _ascending(table.digests))

    def _publish(self, run: Run) -> None:
        if not self._filter.room(run.count):
            self._filter = self._grown(run.count)
        for block in run.blocks():
            self._filter.add(block)
        self._runs = tuple(sorted((*self._runs, run), key=_place))  # one that waited for room is out of turn

    def _grown(self, extra: int) -> Filter:
        """A larger filter of all runs, with room for as many again."""
        found = Filter(2 * (sum(run.count for run in self._runs) + extra))
        for run in self._runs:
            for block in run.blocks():
                found.add(block)
        return found

    def _mergeable(self) -> tuple[Run, ...]:
        """Neighbours to merge: all of a past part of the window, or some of similar size in the newest."""
        runs = self._runs
        newest = runs[-1].newest // self._part_s if runs else 0
        for i, run in enumerate(runs):
            part = run.newest // self._part_s
            if part != newest:
                group = tuple(takewhile(lambda r: r.newest // self._part_s == part, runs[i:]))  # noqa: B023
                if len(group) > 1:
                    return group
            elif len(similar := runs[i : i + SIMILAR]) == SIMILAR and _similar(similar):
                return similar
        return ()

    def _merge(self, group: Sequence[Run]) -> None:
        merged = merge(self._new_path(), group)
        at = self._runs.index(group[0])
        self._runs = (*self._runs[:at], merged, *self._runs[at + len(group) :])
        self.save()
        for run in group:
            run.path.unlink(missing_ok=True)

    def _new_path(self) -> Path:
        self._number += 1
        return self._directory / f"{self._number:08d}.run"

    # Opening and closing

    def load(self, now: float, last: int, scan: Scan) -> None:
        """Open the runs and make what is missing again from the log, up to its `last` position.

        What cannot be written now, for want of room, stays in memory, so that a start never fails of it.
        """
        since = now - self._window_s
        self._last = last
        found = self._open_runs(since, last)
        self._runs = tuple(found)
        self._load_filter()
        after = 0
        for run in found:
            if run.after > after:
                self._store_rest(self._replay(after, run.after, since, scan), run.after)
            after = max(after, run.to)
        self._recent = self._replay(after, last, since, scan)

    def _open_runs(self, since: float, last: int) -> list[Run]:
        """The usable runs in order. Those outside the window, or of a log this one is not, are deleted."""
        for path in self._directory.glob("*.tmp"):
            path.unlink()  # a crash left it half written
        found: list[Run] = []
        for path in sorted(self._directory.glob("*.run")):
            self._number = max(self._number, int(path.stem))
            try:
                run = Run(path)
            except Unusable:
                path.unlink(missing_ok=True)
                continue
            if since <= run.newest and run.to <= last:
                found.append(run)
            else:
                path.unlink()
        return _without_covered(sorted(found, key=_place))

    def _load_filter(self) -> None:
        found, labels = Filter.load(self._directory / "filter")
        missing = [run for run in self._runs if run.label not in labels]
        if not found.room(sum(run.count for run in missing)):
            self._filter = self._grown(0)
            return
        for run in missing:
            for block in run.blocks():
                found.add(block)
        self._filter = found

    @property
    def held(self) -> int:
        """How many ids are in runs."""
        return sum(run.count for run in self._runs)

    def _replay(self, after: int, to: int, since: float, scan: Scan) -> Table:
        """The digests of a stretch of the log; full tables become runs on the way, the last is returned."""
        table = Table(after)
        hashers: dict[str, blake2b] = {}
        for position, received_at, source, message_id in scan(after, to, since):
            if len(table.digests) >= FLUSH or (table.digests and self._other_part(table, received_at)):
                self._store_rest(table, position - 1)
                table = Table(position - 1)
            hasher = hashers.setdefault(source, _hasher(source)).copy()
            hasher.update(message_id.encode())
            table.add((hasher.digest(),), received_at, received_at)
        return table

    def _store_rest(self, table: Table, to: int) -> None:
        if not table.digests:
            return
        try:
            self._publish(self._write(table, to))
        except (OSError, Unusable):
            self._frozen = (*self._frozen, (table, to))

    def _other_part(self, table: Table, at: float) -> bool:
        return self._part(table.oldest) != self._part(at)

    def _part(self, at: float) -> float:
        return float(at // self._part_s)

    def save(self) -> None:
        """Keep the filter for a faster next start, where there is room; called in the background."""
        if self._runs:
            with contextlib.suppress(OSError):
                self._filter.save(self._directory / "filter", self._runs)


def _hasher(source: str) -> blake2b:
    return blake2b(source.encode() + b"\0", digest_size=DIGEST)


def _digests(group: Group) -> list[bytes]:
    copy = _hasher(group.envelope.source).copy
    digests = []
    for entry in group.entries:
        hasher = copy()
        hasher.update(entry.message_id.encode())
        digests.append(hasher.digest())
    return digests


def _ascending(digests: Iterable[bytes]) -> Iterator[bytes]:
    """All of them in order, in 256 blocks: one sort of all would stop every other thread until its end."""
    parts: list[list[bytes]] = [[] for _ in range(256)]
    for digest in digests:
        parts[digest[0]].append(digest)
    for part in parts:
        yield b"".join(sorted(part))


def _place(run: Run) -> tuple[int, int]:
    return run.after, run.to


def _similar(runs: Sequence[Run]) -> bool:
    return max(run.count for run in runs) < SIMILAR * min(run.count for run in runs)


def _without_covered(runs: Sequence[Run]) -> list[Run]:
    """Without what another run holds as well.

    That is a part of a merged run that a crash kept from being deleted, and a run that was written twice
    because something failed after it was on disk.
    """
    kept: list[Run] = []
    for run in runs:
        if any(_covers(other, run) for other in runs):
            run.path.unlink()
        else:
            kept.append(run)
    return kept


def _covers(other: Run, run: Run) -> bool:
    """Whether `other` makes `run` needless; of two with the same span exactly one covers the other."""
    if _place(other) == _place(run):
        return (other.count, other.path.name) > (run.count, run.path.name)
    return other.after <= run.after and other.to >= run.to
