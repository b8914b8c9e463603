"""What the process knows of the stream: totals, where positions lie, what was erased. A fold of its parts."""

from __future__ import annotations

from array import array
from bisect import bisect_right
from collections import defaultdict

from .. import PARTITION, partition_of
from ..runs import DIGEST
from .admission import Window
from .parts import Block, Known, Part, Refusals, SourceState, Struck, Tally

STRIDE = 16
"""One of this many blocks is in the index."""


class Index:
    """Roughly where the positions of a partition lie: (first position, sequence) of every 16th block."""

    def __init__(self) -> None:
        self._firsts = array("Q")
        self._sequences = array("Q")
        self._skipped = STRIDE

    def add(self, first: int, sequence: int) -> None:
        """Take a block into account; they come in order."""
        self._skipped += 1
        if self._skipped >= STRIDE:
            self._skipped = 0
            self._firsts.append(first)
            self._sequences.append(sequence)

    def before(self, position: int) -> int:
        """A sequence from which reading forward comes to the block of this position."""
        at = bisect_right(self._firsts, position) - 1
        return self._sequences[at] if at >= 0 else 1

    def drop(self, below: int) -> None:
        """Forget what lies before a sequence."""
        at = bisect_right(self._sequences, below - 1)
        del self._firsts[:at], self._sequences[:at]


class Book:
    """Totals and places, by partition; `take` is the only way they change."""

    def __init__(self, window: Window, partitions: int) -> None:
        self.window = window
        self.partitions = partitions
        self.last: dict[int, int] = dict.fromkeys(range(partitions), 0)
        self.trimmed: dict[int, int] = {}
        self.accepted: defaultdict[int, dict[str, int]] = defaultdict(dict)
        self.duplicates: dict[str, int] = {}
        self.refused: dict[str, int] = {}
        self.refusals = 0
        self.refused_at: dict[int, int] = {}
        self.struck: dict[int, Struck] = {}
        self.known: dict[int, Known] = {}
        self.tallies: list[int] = []
        self.erased: set[int] = set()
        self.states: dict[str, tuple[int, bytes]] = {}
        self.outdated: list[int] = []
        self.indices: defaultdict[int, Index] = defaultdict(Index)

    def start(self, partition: int) -> int:
        """The position before the first one of a partition."""
        return partition * PARTITION

    def take(self, sequence: int, part: Part) -> None:
        """Take a stored part into account."""
        match part:
            case Block():
                self._block(sequence, part)
            case Tally():
                self._tally(part)
                self.outdated += self.tallies
                self.tallies = [sequence]
            case Refusals():
                self.refused |= part.totals
                self.refusals = max([self.refusals, *[item.id for item in part.items]])
                self.refused_at[sequence] = max((item.id for item in part.items), default=0)
            case SourceState():
                if (earlier := self.states.get(part.source)) is not None:
                    self.outdated.append(earlier[0])
                self.states[part.source] = (sequence, part.json)
            case Known():
                self.known[sequence] = part
                ends = range(DIGEST, len(part.digests) + 1, DIGEST)
                self.window.add(part.newest, [part.digests[end - DIGEST : end] for end in ends])
            case Struck():
                self.struck[sequence] = part
                self.erased.update(part.positions)
                for gone in part.sequences:
                    self.refused_at.pop(gone, None)

    def _block(self, sequence: int, block: Block) -> None:
        partition = partition_of(block.first)
        self.last[partition] = block.last
        self.accepted[partition] |= block.accepted
        self.duplicates |= block.duplicates
        self.indices[partition].add(block.first, sequence)
        for _, received_at, items in block.pieces:
            self.window.add(received_at, [digest for digest, *_ in items])

    def pass_over(self, sequence: int, first: int, last: int) -> None:
        """Take a damaged block into account, of which only the positions are known."""
        self.last[partition_of(first)] = last
        self.indices[partition_of(first)].add(first, sequence)

    def _tally(self, tally: Tally) -> None:
        self.last.update(tally.last)
        self.trimmed.update(tally.trimmed)
        for partition, totals in tally.accepted.items():
            self.accepted[partition] = dict(totals)
        self.duplicates, self.refused = dict(tally.duplicates), dict(tally.refused)
        self.refusals = max(self.refusals, tally.refusals)
        self.erased = {position for position in self.erased if not self._gone(position)}

    def _gone(self, position: int) -> bool:
        return position <= self.trimmed.get(partition_of(position), 0)

    def tally(self, trimmed: dict[int, int] | None = None) -> Tally:
        """All totals as they are, or as they are once this is trimmed."""
        return Tally(
            dict(self.last),
            {**self.trimmed, **(trimmed or {})},
            {partition: dict(totals) for partition, totals in self.accepted.items()},
            dict(self.duplicates),
            dict(self.refused),
            self.refusals,
        )

    def explained(self, after: int, before: int) -> bool:
        """Whether no position between these two ought to be there: trimmed, or erased."""
        start = max(after, self.trimmed.get(partition_of(before - 1), 0)) + 1
        return all(position in self.erased for position in range(start, before))

    def needless(self, now: float, window_s: float) -> list[int]:
        """Sequences of messages that say nothing any more; they are forgotten here."""
        old = [sequence for sequence, known in self.known.items() if known.newest < now - window_s]
        done = [s for s, struck in self.struck.items() if all(map(self._gone, struck.positions))]
        for sequence in old:
            del self.known[sequence]
        for sequence in done:
            del self.struck[sequence]
        found, self.outdated = [*self.outdated, *old, *done], []
        return found
