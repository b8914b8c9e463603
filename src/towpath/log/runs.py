"""Sorted immutable runs of digests on disk and the filter before them: deduplication's cold part."""

from __future__ import annotations

import os
import struct
import weakref
import zlib
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations, cycle, islice
from pathlib import Path

from msgspec import Struct

DIGEST = 16
PAGE = 256 * DIGEST
_HEADER = struct.Struct("<8sQQQddI")
_MAGIC = b"towrun01"
_FILTER_MAGIC = b"towfil01"
_HEADS = struct.Struct(">Q7sB").iter_unpack
_PAIRS = tuple([1 << a | 1 << b for a, b in islice(cycle(combinations(range(8), 2)), 256)])


class Unusable(Exception):
    """A run or filter file is missing, torn or damaged; it is made again from the log."""


class Run:
    """Digests of the records at positions `after` < p <= `to`, received between `oldest` and `newest`.

    Found by a sparse index in memory (one digest of 256) and one page read; nothing else stays in memory.
    """

    count: int
    after: int
    to: int
    oldest: float
    newest: float

    def __init__(self, path: Path) -> None:
        """Open and verify a run. Raises `Unusable`."""
        self.path = path
        try:
            self._file = os.open(path, os.O_RDONLY)
        except OSError as error:
            raise Unusable(f"{path.name}: {error}") from error
        weakref.finalize(self, os.close, self._file)
        self._index = self._verify()

    def _verify(self) -> list[bytes]:
        head = os.pread(self._file, _HEADER.size, 0)
        if len(head) < _HEADER.size or not head.startswith(_MAGIC):
            raise Unusable(f"{self.path.name}: not a run")
        _, self.count, self.after, self.to, self.oldest, self.newest, expected = _HEADER.unpack(head)
        index, found, size = [], zlib.crc32(head[:-4]), 0
        for data in self._blocks(256 * PAGE):
            index += [data[i : i + DIGEST] for i in range(0, len(data), PAGE)]
            found, size = zlib.crc32(data, found), size + len(data)
        if found != expected or size != self.count * DIGEST:
            raise Unusable(f"{self.path.name}: checksum")
        self.label = f"{self.path.name}:{expected:08x}"  # a file name may come again with other contents
        return index

    def _blocks(self, size: int) -> Iterator[bytes]:
        at = _HEADER.size
        while data := os.pread(self._file, size, at):
            yield data
            at += len(data)

    def holds(self, digest: bytes) -> bool:
        """Whether this digest is in it."""
        page = bisect_right(self._index, digest) - 1
        if page < 0:
            return False
        data = os.pread(self._file, PAGE, _HEADER.size + page * PAGE)
        at = data.find(digest)
        while at % DIGEST and at >= 0:
            at = data.find(digest, at + 1)
        return at >= 0

    def blocks(self) -> Iterator[bytes]:
        """All of its digests in blocks of whole ones, ascending."""
        return self._blocks(16 * PAGE)

    def starting(self, first: int) -> list[bytes]:
        """Its digests whose first byte is this."""
        low = max(bisect_left(self._index, bytes([first])) - 1, 0)
        high = bisect_left(self._index, bytes([first + 1])) if first < 255 else len(self._index)
        data = os.pread(self._file, (high - low) * PAGE, _HEADER.size + low * PAGE)
        return [digest for digest in _split(data) if digest[0] == first]


class Span(Struct, frozen=True):
    """What a run is about to cover: positions and times (see `Run`)."""

    after: int
    to: int
    oldest: float
    newest: float


def write(path: Path, span: Span, blocks: Iterable[bytes]) -> Run:
    """Write a run from ascending digests, forced to disk, and open it. Raises `OSError`, `Unusable`.

    After a failure the run may be on disk all the same, whole.
    """
    unfinished = path.with_suffix(".tmp")
    try:
        _fill(unfinished, span, blocks)
        unfinished.replace(path)
    except BaseException:
        unfinished.unlink(missing_ok=True)  # on a full disk each attempt would keep what is left of it
        raise
    _sync_directory(path.parent)
    return Run(path)


def _fill(path: Path, span: Span, blocks: Iterable[bytes]) -> None:
    with path.open("wb") as file:
        file.write(bytes(_HEADER.size))
        size = sum([file.write(data) for data in blocks])
        file.flush()
        head = _HEADER.pack(_MAGIC, size // DIGEST, span.after, span.to, span.oldest, span.newest, 0)[:-4]
        file.seek(0)
        file.write(head + _checksum(head, path).to_bytes(4, "little"))
        file.flush()
        os.fsync(file.fileno())


def merge(path: Path, runs: Sequence[Run]) -> Run:
    """One run of neighbouring ones. Works through 1/256 of the digests at a time, so memory stays small."""
    span = Span(runs[0].after, runs[-1].to, min(r.oldest for r in runs), max(r.newest for r in runs))
    return write(
        path,
        span,
        (b"".join(sorted([d for run in runs for d in run.starting(first)])) for first in range(256)),
    )


def _checksum(head: bytes, path: Path) -> int:
    found = zlib.crc32(head)
    with path.open("rb") as file:
        file.seek(_HEADER.size)
        while data := file.read(256 * PAGE):
            found = zlib.crc32(data, found)
    return found


def _sync_directory(directory: Path) -> None:
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _split(data: bytes) -> list[bytes]:
    return [data[i : i + DIGEST] for i in range(0, len(data), DIGEST)]


class Filter:
    """A Bloom filter over all runs: says "certainly not" for at least 97 of 100 unknown digests.

    Each digest sets two bits of one byte. The byte follows from the digest's first bits, so that sorted
    digests are added, and a digest is looked up, with little memory traffic.
    """

    SMALLEST_BYTES = 1 << 20
    BYTES_PER_DIGEST = 2

    def __init__(self, digests: int = 0) -> None:
        size = self.SMALLEST_BYTES
        while size < digests * self.BYTES_PER_DIGEST:
            size *= 2
        self._take(bytearray(size))

    def _take(self, bits: bytearray, count: int = 0) -> None:
        self.bits = bits
        self.count = count
        self._shift = 65 - len(bits).bit_length()

    def room(self, digests: int) -> bool:
        """Whether this many more fit without blunting it."""
        return (self.count + digests) * self.BYTES_PER_DIGEST <= len(self.bits)

    def add(self, data: bytes) -> None:
        """Take in a block of digests."""
        bits, shift, pairs = self.bits, self._shift, _PAIRS
        for first, _, last in _HEADS(data):
            bits[first >> shift] |= pairs[last]
        self.count += len(data) // DIGEST

    def perhaps(self, digests: Iterable[bytes]) -> list[bytes]:
        """Those of these that may be in a run; the others certainly are not."""
        bits, shift, pairs, number = self.bits, self._shift, _PAIRS, int.from_bytes
        return [d for d in digests if bits[number(d[:8], "big") >> shift] & (pair := pairs[d[15]]) == pair]

    def save(self, path: Path, runs: Sequence[Run]) -> None:
        """Keep it beside the runs it was made of. A torn or stale file is only slower, so no fsync."""
        names = "\n".join(run.label for run in runs).encode()
        body = struct.pack("<QI", self.count, len(names)) + names + self.bits
        unfinished = path.with_suffix(".tmp")
        unfinished.write_bytes(_FILTER_MAGIC + zlib.crc32(body).to_bytes(4, "little") + body)
        unfinished.replace(path)

    @classmethod
    def load(cls, path: Path) -> tuple[Filter, frozenset[str]]:
        """A saved filter and the labels of the runs in it; an empty one when it cannot be used."""
        try:
            data = path.read_bytes()
        except OSError:
            return cls(), frozenset()
        body = memoryview(data)[12:]
        if data[:8] != _FILTER_MAGIC or data[8:12] != zlib.crc32(body).to_bytes(4, "little"):
            return cls(), frozenset()
        found = cls()
        count, size = struct.unpack_from("<QI", body)
        found._take(bytearray(body[12 + size :]), count)
        return found, frozenset(bytes(body[12 : 12 + size]).decode().split("\n"))
