"""What the messages of the stream say: blocks of records, and the few other things a log must remember.

Every message is a body of `blob.Codec` (format byte, checksum, zstd, msgpack). Totals in it are absolute, so
that reading a stretch twice counts nothing twice.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, TypeAlias

import msgspec
from msgspec import Struct

from .. import PARTITION, Refused
from ..blob import Codec, Damaged
from .vault import Numbers
from .wire import Outgoing, Stored

POSITIONS = "Towpath-Positions"
"""Header of a block: its first position and how many, so that damage to its body can be named."""
Item: TypeAlias = tuple[bytes, Numbers, bytes, bool]
"""(digest of source and message id, numbers of its keys, sealed bytes, whether its ids are readable).

Sealed are (message id, envelope, raw)."""
Piece: TypeAlias = tuple[str, float, Sequence[Item]]
"""(source, received at, items)."""


class Row(Struct, frozen=True, gc=False):
    """A record as far as it can be seen without opening it."""

    position: int
    source: str
    received_at: float
    digest: bytes
    keys: Numbers
    sealed: bytes
    readable: bool


class Block(Struct, frozen=True, array_like=True):
    """Records of one partition in a row, with the totals after them: of the partition, and of duplicates."""

    kind: ClassVar[str] = "log"
    first: int
    pieces: Sequence[Piece]
    accepted: Mapping[str, int]
    duplicates: Mapping[str, int] = {}

    @property
    def count(self) -> int:
        """How many positions it spans."""
        return sum(len(items) for _, _, items in self.pieces)

    @property
    def last(self) -> int:
        """Its last position."""
        return self.first + self.count - 1

    @property
    def newest(self) -> float:
        """When the last of its records was received."""
        return max(received_at for _, received_at, _ in self.pieces)

    def rows(self) -> Iterator[Row]:
        """Its records in order."""
        position = self.first
        for source, received_at, items in self.pieces:
            for digest, keys, sealed, readable in items:
                yield Row(position, source, received_at, digest, keys, sealed, readable)
                position += 1


class Tally(Struct, frozen=True, array_like=True):
    """All totals; written when there is no block to carry them, and before messages are dropped."""

    kind: ClassVar[str] = "tally"
    last: Mapping[int, int]
    trimmed: Mapping[int, int]
    accepted: Mapping[int, Mapping[str, int]]
    duplicates: Mapping[str, int]
    refused: Mapping[str, int]
    refusals: int


class Refusals(Struct, frozen=True, array_like=True):
    """Refused items, with the totals after them; none where it replaces an earlier message."""

    kind: ClassVar[str] = "refused"
    items: Sequence[Refused]
    totals: Mapping[str, int] = {}


class SourceState(Struct, frozen=True, array_like=True):
    """The resume state of a polled source, as JSON."""

    kind: ClassVar[str] = "state"
    source: str
    json: bytes


class Known(Struct, frozen=True, array_like=True):
    """Digests of records that are about to leave the stream, received up to `newest`."""

    kind: ClassVar[str] = "ids"
    newest: float
    digests: bytes


class Struck(Struct, frozen=True, array_like=True):
    """What is to be gone, written before it is done, so that a start can finish it.

    The positions that are erased, the keys to be destroyed, and the messages to be overwritten.
    """

    kind: ClassVar[str] = "struck"
    positions: Sequence[int]
    keys: Sequence[int]
    sequences: Sequence[int]


Part: TypeAlias = Block | Tally | Refusals | SourceState | Known | Struck
_TYPES: dict[str, type[Part]] = {
    kind.kind: kind for kind in (Block, Tally, Refusals, SourceState, Known, Struck)
}
_DECODERS = {name: msgspec.msgpack.Decoder(kind) for name, kind in _TYPES.items()}


class Format:
    """Parts as messages of the stream `name`, and back."""

    def __init__(self, name: str) -> None:
        self.name = name
        self._codec = Codec()

    def subject(self, kind: str, partition: object = "*") -> str:
        """The subject of a kind; for blocks of one partition or of all."""
        return f"towpath.{self.name}.{kind}.{partition}"

    def message(self, part: Part) -> Outgoing:
        """The message that carries a part."""
        body = self._codec.pack(part)
        if not isinstance(part, Block):
            return Outgoing(self.subject(part.kind, 0), body)
        headers = {POSITIONS: f"{part.first}-{part.last}"}
        return Outgoing(self.subject(part.kind, part.first // PARTITION), body, headers)

    def part(self, stored: Stored) -> Part:
        """The part a message carries. Raises `Damaged`."""
        first, last = _span(stored)
        plain = self._codec.unpack(first, stored.body, last - first + 1)
        try:
            part: Part = _DECODERS[stored.subject.split(".")[-2]].decode(plain)
        except (msgspec.DecodeError, KeyError) as error:
            raise Damaged(first, f"contents: {error}", last) from error
        if isinstance(part, Block) and (part.first, part.last) != (first, last):
            raise Damaged(first, f"the header says {first}-{last}, its body {part.first}-{part.last}", last)
        return part


def _span(stored: Stored) -> tuple[int, int]:
    first, _, last = stored.headers.get(POSITIONS, "0-0").partition("-")
    return int(first), int(last)
