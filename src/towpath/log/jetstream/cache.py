"""Opened blocks in memory: what was just appended, and what a reader opened, for all who read the same."""

from __future__ import annotations

from bisect import bisect_right, insort
from collections import OrderedDict
from collections.abc import Sequence

from ...message import Record

RECORDS = 20_000


class Cache:
    """Records by stretch of positions; the longest unused stretch goes first."""

    def __init__(self, records: int = RECORDS) -> None:
        self._room = records
        self._firsts: list[int] = []
        self._blocks: OrderedDict[int, tuple[int, Sequence[Record]]] = OrderedDict()

    def put(self, first: int, last: int, records: Sequence[Record]) -> None:
        """Remember the records of the positions `first` to `last`."""
        if first in self._blocks:
            return
        self._blocks[first] = (last, records)
        insort(self._firsts, first)
        self._room -= len(records) + 1
        while self._room < 0 and len(self._blocks) > 1:
            gone, (_, dropped) = self._blocks.popitem(last=False)
            del self._firsts[bisect_right(self._firsts, gone) - 1]
            self._room += len(dropped) + 1

    def at(self, position: int) -> tuple[int, Sequence[Record]] | None:
        """The last position and the records of the stretch that holds this position."""
        index = bisect_right(self._firsts, position) - 1
        if index < 0:
            return None
        first = self._firsts[index]
        last, records = self._blocks[first]
        if position > last:
            return None
        self._blocks.move_to_end(first)
        return last, records

    def clear(self) -> None:
        """Forget everything."""
        self._room += sum(len(records) + 1 for _, records in self._blocks.values())
        self._firsts.clear()
        self._blocks.clear()
