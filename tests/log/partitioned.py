"""A log of two partitions made of two embedded ones, for what a store apart does with several."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

import msgspec

from towpath.clock import Clock
from towpath.log import PARTITION, Appended, Erased, Group, Refused, Standing, State
from towpath.log.sqlite import SqliteStore
from towpath.message import Record


class Partitioned:
    """A person's messages go to the partition that the last digit of the userId names, odd or even."""

    def __init__(self, parts: Sequence[SqliteStore]) -> None:
        self.parts = parts

    @classmethod
    async def begin(cls, directory: Path, clock: Clock) -> Partitioned:
        names = ("even", "odd")
        return cls(
            [await SqliteStore.begin(directory / name, clock, inline=True, durable=False) for name in names]
        )

    def __getattr__(self, name: str) -> Any:  # what no test here asks for
        return getattr(self.parts[0], name)

    async def append(
        self, groups: Sequence[Group], refused: Sequence[Refused] = (), state: tuple[str, State] | None = None
    ) -> Appended:
        for partition, part in enumerate(self.parts):
            own = [
                Group(group.envelope, [e for e in group.entries if _part(e.raw) == partition])
                for group in groups
            ]
            appended = await part.append(own)
        return appended

    async def read(self, after: int, limit: int, partition: int = 0) -> Sequence[Record]:
        base = partition * PARTITION
        records = await self.parts[partition].read(max(0, after - base), limit)
        return [msgspec.structs.replace(record, position=record.position + base) for record in records]

    def last(self, partition: int = 0) -> int:
        last = self.parts[partition].last()
        return last + partition * PARTITION if last else 0

    async def standing(self, partition: int = 0) -> Standing:
        return Standing(self.last(partition), (await self.parts[partition].standing()).accepted)

    async def count(self, source: str, after: int, partition: int = 0) -> int:
        return await self.parts[partition].count(source, max(0, after - partition * PARTITION))

    async def positions(self, source: str, after: int, partition: int = 0) -> Sequence[int]:
        base = partition * PARTITION
        return [p + base for p in await self.parts[partition].positions(source, max(0, after - base))]

    async def trim(self, before: float, upto: Mapping[int, int] | None = None) -> int:
        assert upto is not None
        bounds = {n: {0: max(0, upto.get(n, 0) - n * PARTITION)} for n in range(2)}
        return sum([await part.trim(before, bounds[n]) for n, part in enumerate(self.parts)])

    async def erase(self, person: Collection[str]) -> Erased:
        found = [await part.erase(person) for part in self.parts]
        gone = [(p + n * PARTITION, source) for n, one in enumerate(found) for p, source in one.gone]
        return Erased(len(gone), 0, gone)

    async def close(self) -> None:
        await asyncio.gather(*[part.close() for part in self.parts])


def _part(raw: bytes) -> int:
    return int(msgspec.json.decode(raw)["userId"][-1]) % 2
