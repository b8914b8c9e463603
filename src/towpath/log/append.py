"""How appends become rows: positions given out, blobs shared by a whole commit group, sources counted."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence

import apsw
import msgspec
from msgspec import Struct

from ..message import Envelope
from . import Appended, Refused, State
from .blob import Blob, Codec, Item, Piece

BLOB_BYTES = 1 << 20
REFUSED_BYTES = 64 * 1024


class Incoming(Struct, gc=False):
    """One append after deduplication: what is new, by envelope, and what was known, by source."""

    pieces: list[tuple[Envelope, list[Item]]]
    digests: set[bytes]
    duplicates: dict[str, int]
    refused: Sequence[Refused] = ()
    state: tuple[str, State] | None = None


class Appender:
    """The writer thread's side of `append`."""

    def __init__(self) -> None:
        self._codec = Codec()
        self._last: int | None = None
        self._pieces: list[tuple[Envelope, list[Item]]] = []
        self._duplicates: Counter[str] = Counter()

    def take(self, connection: apsw.Connection, incoming: Incoming) -> Appended:
        """Give positions to an append; its records are written by the next `flush`."""
        last = self.last(connection) + len(incoming.digests)
        self._last = last
        self._pieces.extend(incoming.pieces)
        self._duplicates.update(incoming.duplicates)
        if incoming.refused:
            _refuse(connection, incoming.refused)
        if incoming.state is not None:
            _save(connection, *incoming.state)
        return Appended(len(incoming.digests), sum(incoming.duplicates.values()), last)

    def last(self, connection: apsw.Connection) -> int:
        """The newest position given out."""
        if self._last is None:
            self._last = int(connection.execute("SELECT last FROM log").get)
        return self._last

    def flush(self, connection: apsw.Connection) -> None:
        """Write what was taken since the last flush."""
        if self._pieces:
            self._write(connection)
        if self._duplicates:
            _add(connection, "duplicates", self._duplicates)
            self._duplicates.clear()

    def undo(self) -> None:
        """Forget what was taken: its transaction was rolled back."""
        self._last = None
        self._pieces.clear()
        self._duplicates.clear()

    def _write(self, connection: apsw.Connection) -> None:
        last = self.last(connection)
        position = last + 1 - sum(len(items) for _, items in self._pieces)
        stored: Counter[str] = Counter()
        for pieces in _chunks(self._pieces):
            blob = Blob(position, pieces)
            counts = blob.sources()
            insert(connection, blob, counts, self._codec.encode(blob))
            stored.update(counts)
            position += blob.count
        _add(connection, "accepted", stored)
        connection.execute("UPDATE log SET last = ?", (last,))
        self._pieces.clear()


def insert(connection: apsw.Connection, blob: Blob, counts: Mapping[str, int], body: bytes) -> None:
    """Write the row of a blob, replacing the one at its position."""
    times = [envelope.received_at for envelope, _ in blob.pieces]
    sources = msgspec.json.encode(counts).decode()
    connection.execute(
        "INSERT OR REPLACE INTO blob VALUES (?, ?, ?, ?, ?, ?)",
        (blob.position, blob.count, min(times), max(times), sources, body),
    )


def _chunks(pieces: Iterable[tuple[Envelope, list[Item]]]) -> Iterator[list[Piece]]:
    """Cut into blobs of about `BLOB_BYTES` raw."""
    chunk: list[Piece] = []
    size = 0
    for envelope, items in pieces:
        for part, part_bytes in _parts(items):
            if chunk and size + part_bytes > BLOB_BYTES:
                yield chunk
                chunk, size = [], 0
            chunk.append((envelope, part))
            size += part_bytes
    if chunk:
        yield chunk


def _parts(items: list[Item]) -> Iterator[tuple[list[Item], int]]:
    size = sum([len(raw) for _, raw in items])
    if size <= BLOB_BYTES or len(items) == 1:
        yield items, size
        return
    middle = len(items) // 2
    yield from _parts(items[:middle])
    yield from _parts(items[middle:])


def _refuse(connection: apsw.Connection, refused: Sequence[Refused]) -> None:
    connection.executemany(
        "INSERT INTO refused (source, idx, code, reason, raw, at) VALUES (?, ?, ?, ?, ?, ?)",
        [(r.source, r.index, r.code, r.reason, r.raw[:REFUSED_BYTES], r.at) for r in refused],
    )
    _add(connection, "refused", Counter(r.source for r in refused))


def _add(connection: apsw.Connection, column: str, counts: Mapping[str, int]) -> None:
    connection.executemany(
        f"INSERT INTO source (name, {column}) VALUES (?1, ?2) "  # noqa: S608 - a column name of ours
        f"ON CONFLICT DO UPDATE SET {column} = {column} + ?2",
        list(counts.items()),
    )


def _save(connection: apsw.Connection, source: str, state: State) -> None:
    connection.execute(
        "INSERT INTO source (name, state) VALUES (?1, ?2) ON CONFLICT DO UPDATE SET state = ?2",
        (source, msgspec.json.encode(state)),
    )
