"""The record format: many records in one checksummed, compressed blob; a damaged one says so."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import Any, TypeAlias
from zlib import crc32

import msgspec
import zstandard
from msgspec import Struct

from ..errors import TowpathError
from ..message import Envelope, Record

FORMAT = b"\x01"
"""First byte of every body. Then CRC-32 of the rest: a zstd frame of msgpack [first position, pieces]."""

Item: TypeAlias = tuple[str, bytes]
"""(message id, raw)."""
Piece: TypeAlias = tuple[Envelope, Sequence[Item | None]]
"""Items that share an envelope; None keeps the place of an erased one."""

_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(tuple[int, list[tuple[Envelope, list[Item | None]]]]).decode
_Undecodable = (zstandard.ZstdError, msgspec.DecodeError, ValueError)


class Damaged(TowpathError):
    """Bytes on disk are not what was written.

    `position` is the first record concerned, `last` the last one. `last` is None where the damage is in the
    file itself rather than in one body: then nothing from `position` on can be relied on.
    """

    def __init__(self, position: int, why: str, last: int | None) -> None:
        super().__init__(
            f"the log is damaged at position {position}",
            code="E5003",
            why=why,
            fix="check the disk, then put back a copy of the data directory",
            data=f"Records before position {position} can be read; nothing wrong was delivered.",
        )
        self.position = position
        self.last = last


class Blob(Struct, frozen=True):
    """A decoded blob. `count` is the span of positions, gaps of erased records included."""

    position: int
    pieces: Sequence[Piece]

    @property
    def count(self) -> int:
        """How many positions it spans."""
        return sum(len(items) for _, items in self.pieces)

    def records(self) -> Iterator[Record]:
        """Its records in order, without the erased."""
        position = self.position
        for envelope, items in self.pieces:
            for item in items:
                if item is not None:
                    yield Record(position, item[0], envelope, item[1])
                position += 1

    def without(self, positions: frozenset[int]) -> Blob:
        """The same blob with these records gone; an envelope nobody needs any more is emptied too."""
        pieces: list[Piece] = []
        position = self.position
        for envelope, items in self.pieces:
            kept = [None if position + i in positions else item for i, item in enumerate(items)]
            position += len(items)
            if not any(kept):
                envelope = Envelope(envelope.source, envelope.received_at)
            pieces.append((envelope, kept))
        return Blob(self.position, pieces)

    def sources(self) -> dict[str, int]:
        """How many records there are of each source."""
        counts: Counter[str] = Counter()
        for envelope, items in self.pieces:
            if present := sum(item is not None for item in items):
                counts[envelope.source] += present
        return dict(counts)


class Codec:
    """Packs and unpacks; one per thread, since zstd contexts are not shared."""

    def __init__(self) -> None:
        self._compress = zstandard.ZstdCompressor(level=1).compress
        self._decompress = zstandard.ZstdDecompressor().decompress

    def pack(self, value: Any) -> bytes:
        """Format byte, checksum, then the compressed msgpack of a value."""
        frame = self._compress(_encode(value))
        return FORMAT + crc32(frame).to_bytes(4, "little") + frame

    def unpack(self, position: int, body: bytes, count: int = 1) -> bytes:
        """The msgpack bytes of a body that holds `count` positions. Raises `Damaged`."""
        last = position + count - 1
        if body[:1] != FORMAT:
            raise Damaged(position, f"unknown record format {body[:1].hex() or 'empty'}", last)
        frame = memoryview(body)[5:]
        if crc32(frame) != int.from_bytes(body[1:5], "little"):
            raise Damaged(position, "the checksum does not fit the bytes", last)
        try:
            return self._decompress(frame)
        except _Undecodable as error:
            raise Damaged(position, f"frame: {error}", last) from error

    def encode(self, blob: Blob) -> bytes:
        """The body of a blob."""
        return self.pack((blob.position, blob.pieces))

    def decode(self, position: int, count: int, body: bytes) -> Blob:
        """A blob, checked against the row it came from. Raises `Damaged`."""
        return self.parse(position, count, self.unpack(position, body, count))

    def parse(self, position: int, count: int, plain: bytes) -> Blob:
        """The blob of unpacked bytes. Raises `Damaged`."""
        last = position + count - 1
        try:
            first, pieces = _decode(plain)
        except _Undecodable as error:
            raise Damaged(position, f"contents: {error}", last) from error
        blob = Blob(first, pieces)
        if first != position or blob.count != count:
            raise Damaged(position, f"the row says {position}+{count}, its body {first}+{blob.count}", last)
        return blob
