"""P2 where log and ledger are apart: the ledger at one instant, and the log after it."""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from typing import TypeAlias

from ..message import Record
from . import PARTITION, Balance, Log, Standing
from .halves import Place, Tally, View
from .settle import ACCEPTED, DEAD, DELIVERED, ERASED, EXTRA, SKIPPED

PAGE = 1000
TRIES = 3
Side: TypeAlias = tuple[int, int]
"""Of one connection: how many records were accepted, and how many are waiting."""


def floor(partition: int) -> int:
    """The position before a partition's first."""
    return partition * PARTITION


async def pages(log: Log, partition: int, upto: int) -> AsyncIterator[Sequence[Record]]:
    """The records of a partition up to a position, in order. Raises `Damaged`."""
    after = floor(partition)
    while after < upto and (records := await log.read(after, PAGE, partition)):
        yield [record for record in records if record.position <= upto]
        after = records[-1].position


class Counting:
    """Counts what the log holds for the connections of a `View`."""

    def __init__(self, log: Log, partitions: Iterable[int]) -> None:
        self._log = log
        self._partitions = partitions

    async def kept(
        self, source: str, after: int, upto: int, partition: int, gone: frozenset[int] = frozenset()
    ) -> int:
        """How many records of a source are kept with after < position <= upto, without the `gone`.

        For an `upto` the log has reached; appends meanwhile change nothing.
        """
        if upto <= after:
            return 0
        for _ in range(0 if gone else TRIES):
            newer = await self._log.count(source, upto, partition)
            found = await self._log.count(source, after, partition) - newer
            if await self._log.count(source, upto, partition) == newer:
                return found
        positions = await self._log.positions(source, after, partition)
        return sum(position <= upto and position not in gone for position in positions)

    async def counted(self, view: View) -> list[Balance]:
        """Balances from the counters."""
        standings = {partition: await self._log.standing(partition) for partition in self._partitions}
        found: list[Balance] = []
        for tally in view.tallies:
            sides = [
                await self._side(place, standings[place.partition], view.gone)
                for place in tally.places
                if place.partition in standings
            ]
            found.append(_balance(tally, sides))
        return found

    async def _side(self, place: Place, standing: Standing, gone: Mapping[str, frozenset[int]]) -> Side:
        accepted, waiting = 0, -place.tried
        for scope in place.scopes:
            final = standing.accepted.get(scope.source, 0) if scope.final is None else scope.final
            accepted += final - scope.base
            if scope.until is None:
                after = max(place.cursor, scope.since)
                without = gone.get(scope.source, frozenset())
                waiting += await self.kept(scope.source, after, standing.last, place.partition, without)
        return accepted, waiting

    async def seen(self, view: View) -> tuple[list[Counter[str]], dict[int, int]]:
        """Accepted and waiting of each tally from every record there is, and where each partition begins."""
        sides = [Counter[str]() for _ in view.tallies]
        begins: dict[int, int] = {}
        for partition in self._partitions:
            last = max(self._log.last(partition), floor(partition))
            begins[partition] = last + 1
            places = [
                (place, side)
                for tally, side in zip(view.tallies, sides, strict=True)
                for place in tally.places
                if place.partition == partition
            ]
            async for records in pages(self._log, partition, last):
                begins[partition] = min(begins[partition], records[0].position if records else last + 1)
                for record in records:
                    if record.position not in view.gone.get(record.source, ()):
                        _see(record, places)
        return sides, begins


def _see(record: Record, places: Sequence[tuple[Place, Counter[str]]]) -> None:
    """Take one record into account."""
    for place, side in places:
        if any(scope.holds(record.source, record.position) for scope in place.scopes):
            side["accepted"] += 1
            side["waiting"] += record.position > place.cursor and record.position not in place.keys


def recounted(view: View, sides: Sequence[Counter[str]], shown: Mapping[str, int]) -> list[Balance]:
    """Balances from rows and records; `shown`: what the rows alone show by now."""
    found: list[Balance] = []
    for tally, side in zip(view.tallies, sides, strict=True):
        past = tally.counts.get((ACCEPTED, ""), 0) + shown.get(tally.connection, 0)
        found.append(_balance(tally, [(side["accepted"] + past, side["waiting"])]))
    return found


def _balance(tally: Tally, sides: Iterable[Side]) -> Balance:
    sides, counts = list(sides), tally.counts
    return Balance(
        connection=tally.connection,
        accepted=sum(accepted for accepted, _ in sides) + counts.get((EXTRA, ""), 0),
        delivered=counts.get((DELIVERED, ""), 0),
        waiting=sum(waiting for _, waiting in sides) + tally.parked,
        dead=counts.get((DEAD, ""), 0),
        skipped={
            reason: value for (kind, reason), value in sorted(counts.items()) if kind == SKIPPED and value
        },
        erased=counts.get((ERASED, ""), 0),
    )
