"""What leaves the log: a person's records, old records, refused items. Written down first, then done."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping, Sequence

from msgspec import Struct

from .. import Erased, Refused
from ..erase import Person
from .admission import PARTS
from .book import Book
from .cache import Cache
from .parts import Block, Format, Known, Part, Refusals, Row, Struck
from .reader import Reader
from .stream import Stream
from .vault import Vault, name_of
from .writer import Writer

CHUNK = 10_000
"""Positions or digests in one message."""
STEP_RECORDS = 100_000


class Found(Struct):
    """What an erase found: the records, the keys they need, the messages that hold nothing else."""

    gone: list[tuple[int, str]] = []
    keys: set[int] = set()
    whole: dict[int, Block] = {}


class Old(Struct):
    """The blocks at the beginning of a partition that may go."""

    partition: int
    blocks: list[Block] = []
    below: int = 0


class Retention:
    """Removes records and refused items."""

    def __init__(
        self,
        stream: Stream,
        book: Book,
        vault: Vault,
        form: Format,
        cache: Cache,
        reader: Reader,
        writer: Writer,
        window_s: float,
    ) -> None:
        self._stream = stream
        self._book = book
        self._vault = vault
        self._format = form
        self._cache = cache
        self._reader = reader
        self._writer = writer
        self._window_s = window_s

    # A person

    async def erase(self, ids: Collection[str]) -> Erased:
        """Destroy the keys of a person's records. What nobody else's records share is overwritten too."""
        found, who = Found(), Person(ids)
        names = [name_of(identifier) for identifier in who.ids]
        after = await self._search(who, names, found, {})
        async with self._writer.lock:  # what comes later gets new keys
            await self._writer.settle_doubt()
            upto = await self._search(who, names, found, after)
            parts, emptied, _ = await self._without(lambda item: not who.shows(item.raw))
            await self._strike(found, parts, emptied)
        return Erased(len(found.gone), 0, found.gone, upto=upto)

    async def _search(
        self, who: Person, names: Collection[str], found: Found, after: Mapping[int, int]
    ) -> dict[int, int]:
        """Add what there is beyond these positions; how far that was."""
        found.keys |= {key.number for key in (await self._vault.known(names)).values()}
        reached = dict(self._book.last)
        for partition in range(self._book.partitions):
            start = after.get(partition, self._book.start(partition))
            if reached[partition] > start:
                async for sequence, block in self._reader.blocks(partition, start):
                    if block.first > reached[partition]:
                        break  # appended meanwhile
                    await self._search_block(who, sequence, block, found, start)
        return reached

    async def _search_block(self, who: Person, sequence: int, block: Block, found: Found, after: int) -> None:
        kept = [row for row in block.rows() if row.position not in self._book.erased]
        gone = [row for row in kept if row.position > after and await self._owned(who, row, found.keys)]
        found.gone += [(row.position, row.source) for row in gone]
        if gone and len(gone) == len(kept):
            found.whole[sequence] = block

    async def _owned(self, who: Person, row: Row, keys: set[int]) -> bool:
        if row.readable:
            return not keys.isdisjoint(row.keys)
        records = await self._reader.opened([row])
        owned = any(who.owns(record.raw) for record in records)
        if owned:
            keys.update(row.keys)
        return owned

    async def _strike(self, found: Found, parts: Sequence[Part], emptied: Sequence[int]) -> None:
        """Write down what goes, then let it go."""
        positions = [position for position, _ in found.gone]
        sequences = [*found.whole, *emptied]
        if not positions and not found.keys and not sequences:
            return
        struck = [Struck(chunk, (), ()) for chunk in _chunks(positions)]
        ids = _known(found.whole.values(), self._window_s)
        last = Struck((), sorted(found.keys), sequences)
        await self._writer.store([self._book.tally(), *ids, *parts, *struck, last])
        await self.finish(last)

    async def finish(self, struck: Struck) -> None:
        """Destroy and overwrite what is written down; doing it again does no harm."""
        if struck.keys:
            await self._vault.destroy(struck.keys)
        for sequence in struck.sequences:
            await self._stream.delete(sequence)
        self._cache.clear()

    # Age

    async def trim(self, before: float, upto: Mapping[int, int] | None, now: float) -> int:
        """Drop blocks of which every record is older and not beyond the given position; how many records."""
        gone = 0
        for partition in range(self._book.partitions):
            limit = self._book.last[partition] if upto is None else upto.get(partition, 0)
            while (old := await self._old(partition, before, limit)).blocks:
                gone += sum(
                    row.position not in self._book.erased for block in old.blocks for row in block.rows()
                )
                await self._drop(old)
        for sequence in self._book.needless(now, self._window_s):
            await self._stream.delete(sequence)
        return gone

    async def _old(self, partition: int, before: float, limit: int) -> Old:
        old = Old(partition)
        records = 0
        start = max(self._book.trimmed.get(partition, 0), self._book.start(partition))
        async for sequence, block in self._reader.blocks(partition, start):
            if block.newest >= before or block.last > limit or records > STEP_RECORDS:
                break
            old.blocks.append(block)
            old.below = sequence + 1
            records += block.count
        return old

    async def _drop(self, old: Old) -> None:
        async with self._writer.lock:
            tally = self._book.tally({old.partition: old.blocks[-1].last})
            await self._writer.store([*_known(old.blocks, self._window_s), tally])
        await self._stream.purge(self._format.subject(Block.kind, old.partition), old.below)
        self._book.indices[old.partition].drop(old.below)
        self._cache.clear()

    # Refused items

    async def refusals(self, source: str | None, limit: int) -> Sequence[Refused]:
        """The newest refused items, newest first."""
        found: list[Refused] = []
        for sequence, _ in sorted(self._book.refused_at.items(), key=lambda pair: -pair[1]):
            items = await self._refused(sequence)
            found += [item for item in reversed(items) if source in (None, item.source)]
            if len(found) >= limit:
                break
        return found[:limit]

    async def _refused(self, sequence: int) -> Sequence[Refused]:
        for stored in await self._stream.wire.fetch(self._stream.name, {"seq": sequence}):
            part = self._format.part(stored)
            if isinstance(part, Refusals):
                return part.items
        return ()

    async def forget_refusals(self, before: float) -> int:
        """Delete refused items older than this; how many."""
        async with self._writer.lock:
            parts, emptied, count = await self._without(lambda item: item.at >= before)
            await self._strike(Found(), parts, emptied)
        return count

    async def _without(self, keep: Callable[[Refused], bool]) -> tuple[list[Part], list[int], int]:
        """What replaces the messages that hold other items than those to keep; those messages; how many."""
        parts: list[Part] = []
        emptied: list[int] = []
        count = 0
        for sequence in self._book.refused_at:
            items = await self._refused(sequence)
            kept = [item for item in items if keep(item)]
            if len(kept) < len(items):
                emptied.append(sequence)
                count += len(items) - len(kept)
                parts += [Refusals(kept)] if kept else []
        return parts, emptied, count


def _chunks(positions: Sequence[int]) -> Iterator[Sequence[int]]:
    for start in range(0, len(positions), CHUNK):
        yield positions[start : start + CHUNK]


def _known(blocks: Collection[Block], window_s: float) -> Iterator[Known]:
    """The digests of blocks that go, those of one eighth of the window together."""
    parts: dict[int, tuple[float, list[bytes]]] = {}
    for block in blocks:
        part = int(block.newest // (window_s / PARTS))
        newest, digests = parts.get(part, (0.0, []))
        digests += [row.digest for row in block.rows()]
        parts[part] = (max(newest, block.newest), digests)
    for newest, digests in parts.values():
        for start in range(0, len(digests), CHUNK):
            yield Known(newest, b"".join(digests[start : start + CHUNK]))
