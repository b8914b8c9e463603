"""Reading: from memory, else from the stream; what cannot be opened says so."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from operator import attrgetter
from typing import TypeAlias

import msgspec

from ...message import Envelope, Record
from .. import partition_of
from ..blob import Damaged
from .admission import digest_of, hasher
from .book import Book
from .cache import Cache
from .parts import Block, Format, Row
from .stream import Stream
from .vault import Broken, Cipher, Vault
from .wire import Stored

_plain = msgspec.msgpack.Decoder(tuple[str, Envelope, bytes]).decode
_position = attrgetter("position")
Fits: TypeAlias = Callable[[Row], bool]
Stretch: TypeAlias = tuple[int, Sequence[Record]]
"""(last position, the records up to it)."""
PAGE_BYTES = 1 << 20
READERS = 64


class Reader:
    """Reads records of the stream."""

    def __init__(self, stream: Stream, book: Book, vault: Vault, form: Format, cache: Cache) -> None:
        self._stream = stream
        self._book = book
        self._vault = vault
        self._format = form
        self._cache = cache
        self._resume: dict[int, int] = {}

    async def read(self, after: int, limit: int, partition: int) -> Sequence[Record]:
        """Records beyond a position, in order. Raises `Damaged` where the very next one cannot be read."""
        found: list[Record] = []
        after = max(after, self._book.start(partition))
        while limit > len(found) and after < self._book.last.get(partition, 0):
            if (cached := self._cache.at(after + 1)) is None:
                try:
                    cached = await self._load(after, partition)
                except Damaged:
                    if found:
                        break
                    raise
            last, records = cached
            start = bisect_right(records, after, key=_position)
            found += records[start : start + limit - len(found)]
            after = last
        return found

    async def _load(self, after: int, partition: int) -> Stretch:
        """Open what one request brings of what lies beyond a position; the first stretch of it."""
        index, subject = self._book.indices[partition], self._format.subject(Block.kind, partition)
        sequence = self._resume.pop(after, None) or index.before(after + 1)
        while page := await self._stream.wire.page(self._stream.name, subject, sequence, PAGE_BYTES):
            if (first := await self._open_page(page, after)) is not None:
                return first
            sequence = page[-1].sequence + 1
        self._check_gap(after, self._book.last[partition] + 1)
        return self._book.last[partition], ()

    async def _open_page(self, page: Sequence[Stored], after: int) -> Stretch | None:
        first: Stretch | None = None
        for stored in page:
            try:
                block = self._format.part(stored)
                if not isinstance(block, Block) or block.last <= after:
                    continue
                self._check_gap(after, block.first)
                records = await self.records(block)
            except Damaged:
                if first is None:
                    raise
                return first
            self._cache.put(block.first, block.last, records)
            first, after = first or (block.last, records), block.last
        self._resume_at(after, page[-1].sequence + 1)
        return first

    def _check_gap(self, after: int, before: int) -> None:
        if not self._book.explained(after, before):
            raise Damaged(after + 1, "the stream lacks messages that were kept", before - 1)

    def _resume_at(self, after: int, sequence: int) -> None:
        """Remember where a reader that goes on in order goes on."""
        if len(self._resume) >= READERS:
            del self._resume[next(iter(self._resume))]
        self._resume[after] = sequence

    async def blocks(self, partition: int, after: int) -> AsyncIterator[tuple[int, Block]]:
        """The blocks of a partition that reach beyond a position, in order, with their sequences."""
        start = self._book.indices[partition].before(after + 1)
        subject = self._format.subject(Block.kind, partition)
        async for stored in self._stream.wire.forward(self._stream.name, subject, start):
            block = self._format.part(stored)
            if isinstance(block, Block) and block.last > after:
                yield stored.sequence, block

    async def rows(self, partition: int, after: int) -> AsyncIterator[Row]:
        """What is kept of a partition beyond a position, unopened."""
        if self._book.last.get(partition, 0) > after:
            async for _, block in self.blocks(partition, after):
                for row in block.rows():
                    if row.position > after and row.position not in self._book.erased:
                        yield row

    async def records(self, block: Block) -> list[Record]:
        """The records of a block without the erased ones. Raises `Damaged`."""
        return await self.opened([row for row in block.rows() if row.position not in self._book.erased])

    async def opened(self, rows: Sequence[Row]) -> list[Record]:
        """Decrypt records; one that was erased meanwhile is left out. Raises `Damaged`."""
        ciphers = await self._vault.opening({row.keys for row in rows})
        found = []
        for row in rows:
            if row.position in self._book.erased:  # meanwhile
                continue
            if (cipher := ciphers.get(row.keys)) is None:
                raise Damaged(row.position, "the key of this record is missing", row.position)
            found.append(_open(row, cipher))
        return found

    async def latest(self, limit: int, before: int | None) -> Sequence[Record]:
        """The newest records by order of appending, newest first."""
        return await self._backwards(lambda _: True, limit, before)

    async def find(self, message_id: str, source: str | None, limit: int) -> Sequence[Record]:
        """Records with this message id, newest first; only those that fit are opened."""
        digests: dict[str, bytes] = {}

        def fits(row: Row) -> bool:
            if source not in (None, row.source):
                return False
            if (digest := digests.get(row.source)) is None:
                digest = digests[row.source] = digest_of(hasher(row.source), message_id)
            return row.digest == digest

        return await self._backwards(fits, limit, None)

    async def _backwards(self, fits: Fits, limit: int, before: int | None) -> Sequence[Record]:
        found: list[Record] = []
        subject = self._format.subject(Block.kind)
        newest = self._stream.last if before is None else await self._sequence_of(before)
        async for stored in self._stream.wire.backward(self._stream.name, subject, newest):
            block = self._format.part(stored)
            if len(found) >= limit or not isinstance(block, Block):
                break
            rows = [row for row in _reversed(block, before) if fits(row)]
            kept = [row for row in rows if row.position not in self._book.erased]
            found += await self.opened(kept[: limit - len(found)])
        return found

    async def _sequence_of(self, position: int) -> int:
        """The sequence of the block that holds a position, or of the first one behind it."""
        async for sequence, _ in self.blocks(partition_of(position), position - 1):
            return sequence
        return self._stream.last


def _reversed(block: Block, before: int | None) -> Iterable[Row]:
    """The rows of a block, newest first, of the same partition only those before this position."""
    rows = list(block.rows())
    if before is not None and partition_of(before) == partition_of(block.first):
        rows = [row for row in rows if row.position < before]
    return reversed(rows)


def _open(row: Row, cipher: Cipher) -> Record:
    try:
        message_id, envelope, raw = _plain(cipher.open(row.sealed))
    except (Broken, msgspec.DecodeError) as error:
        raise Damaged(row.position, str(error), row.position) from error
    return Record(row.position, message_id, envelope, raw)
