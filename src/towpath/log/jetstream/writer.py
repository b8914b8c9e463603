"""Group commit: appends that wait for the same answer of the server become one batch of messages."""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from itertools import groupby
from operator import attrgetter

import msgspec
from msgspec import Struct

from ...errors import TowpathError
from ...message import Record
from .. import PARTITION, Appended, LogFull, Refused, State, partition_of
from ..append import REFUSED_BYTES
from .admission import Draft
from .book import Book
from .cache import Cache
from .parts import Block, Format, Item, Part, Piece, Refusals, SourceState
from .stream import BATCH, Attempt, Doubt, Stream
from .vault import Cipher, Names, Vault, unread
from .wire import Denied

GROUP_RECORDS = 5_000
BLOCK_BYTES = 256 << 10
PAUSE_S = 0.05
RECORD_BYTES = 400
"""More than what an envelope, digests and headers add to the bytes of a message."""
_encode = msgspec.msgpack.Encoder().encode
Placed = tuple[int, Draft]


class Append(Struct, eq=False):
    """One call of `append` after deduplication."""

    drafts: Sequence[Draft]
    duplicates: Mapping[str, int]
    refused: Sequence[Refused]
    state: tuple[str, State] | None
    done: asyncio.Future[Appended]
    claim: asyncio.Future[None]
    last: int = 0

    def fail(self, error: Exception) -> None:
        """Tell the caller; one that went away changes nothing."""
        if not self.done.done():
            self.done.set_exception(error)
            self.done.exception()  # heard, also when nobody waits any more


class Commit(Struct):
    """What one batch stores, and what to do once it is."""

    parts: list[Part]
    records: list[list[Record]]
    group: Sequence[Append]


class Writer:
    """Commits one group after the other; `lock` keeps them away while records are struck."""

    def __init__(self, stream: Stream, book: Book, vault: Vault, form: Format, cache: Cache) -> None:
        self.lock = asyncio.Lock()
        self.block_bytes = min(BLOCK_BYTES, stream.wire.client.max_payload // 2)
        self._stream = stream
        self._book = book
        self._vault = vault
        self._format = form
        self._cache = cache
        self._waiting: deque[Append] = deque()
        self._running: asyncio.Task[None] | None = None
        self._settling: asyncio.Task[None] | None = None
        self._closing = False
        self._doubtful: tuple[Attempt, Commit] | None = None
        self._watchers: dict[asyncio.Future[None], int] = {}

    def submit(self, append: Append) -> asyncio.Future[Appended]:
        """Queue an append; the future ends when it is on disk, or with why not."""
        self._waiting.append(append)
        if self._running is None or self._running.done():
            self._running = asyncio.ensure_future(self._run())
        return append.done

    async def wait(self, after: int, partition: int) -> None:
        """Return once the partition has a record beyond this position."""
        if self._book.last[partition] > after:
            return
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._watchers[future] = max(after, self._book.start(partition))
        try:
            await future
        finally:
            del self._watchers[future]

    async def close(self) -> None:
        """Finish what is queued."""
        if self._running is not None:
            await self._running
        self._closing = True
        if self._settling is not None:
            self._settling.cancel()
            await asyncio.gather(self._settling, return_exceptions=True)

    async def _run(self) -> None:
        while self._waiting:
            group = self._collect()
            try:
                async with self.lock:
                    await self._commit(group)
            except Exception as error:
                for append in group:
                    append.fail(_as_full(error))
                if isinstance(error, Doubt):
                    self._settling = asyncio.ensure_future(self._settle())
                else:
                    self._release(group)

    async def _settle(self) -> None:
        """Find out what became of a doubtful batch as soon as the server is back."""
        while self._doubtful is not None and not self._closing:
            with suppress(Doubt):
                async with self.lock:
                    await self.settle_doubt()
            await asyncio.sleep(PAUSE_S)

    def _release(self, group: Sequence[Append]) -> None:
        for append in group:
            self._book.window.finish(append.claim, append.drafts)

    def _collect(self) -> Sequence[Append]:
        group: list[Append] = []
        records = 0
        while self._waiting and (not group or records + len(self._waiting[0].drafts) <= GROUP_RECORDS):
            group.append(self._waiting.popleft())
            records += len(group[-1].drafts)
        return group

    async def _commit(self, group: Sequence[Append]) -> None:
        try:
            await self.settle_doubt()
        except Doubt as doubt:  # about an earlier batch
            raise LogFull(str(doubt)) from doubt
        persons = {draft.names for append in group for draft in append.drafts}
        ciphers = await self._vault.sealing(persons)
        commit = self._commit_of(group, ciphers)
        messages = [self._format.message(part) for part in commit.parts]
        if len(messages) > BATCH:
            raise LogFull(f"one call makes more than {BATCH} messages")
        try:
            self._keep(commit, await self._stream.append(messages) if messages else 0)
        except Doubt as doubt:
            self._doubtful = (doubt.attempt, commit)
            raise

    async def settle_doubt(self) -> None:
        """Find out what became of a batch whose answer never came, and take it in when it was stored."""
        if self._doubtful is not None:
            attempt, commit = self._doubtful
            if await self._stream.kept(attempt):
                self._keep(commit, self._stream.settled(attempt))
            else:
                self._release(commit.group)
            self._doubtful = None

    async def store(self, parts: Sequence[Part]) -> None:
        """Commit parts that are no append; the caller holds `lock`."""
        await self.settle_doubt()
        if parts:
            commit = Commit(list(parts), [], ())
            try:
                self._keep(commit, await self._stream.append([self._format.message(p) for p in parts]))
            except Doubt as doubt:
                self._doubtful = (doubt.attempt, commit)
                raise

    def _keep(self, commit: Commit, sequence: int) -> None:
        for number, part in enumerate(commit.parts):
            self._book.take(sequence + number, part)
        blocks = [part for part in commit.parts if isinstance(part, Block)]
        for block, records in zip(blocks, commit.records, strict=True):
            self._cache.put(block.first, block.last, records)
        for append in commit.group:
            if not append.done.done():
                known = sum(append.duplicates.values())
                append.done.set_result(Appended(len(append.drafts), known, append.last or self._newest()))
        self._release(commit.group)
        for future, after in self._watchers.items():
            if self._book.last[partition_of(after)] > after and not future.done():
                future.set_result(None)

    def _newest(self) -> int:
        return max(self._book.last.values())

    # Making the parts of a batch

    def _commit_of(self, group: Sequence[Append], ciphers: Mapping[Names, Cipher]) -> Commit:
        commit = Commit([], [], group)
        totals = {partition: dict(counts) for partition, counts in self._book.accepted.items()}
        for placed in _chunks(self._placed(group), self.block_bytes):
            accepted = totals.setdefault(partition_of(placed[0][0]), {})
            for source, count in Counter(draft.envelope.source for _, draft in placed).items():
                accepted[source] = accepted.get(source, 0) + count
            commit.parts.append(Block(placed[0][0], _pieces(placed, ciphers), dict(accepted)))
            commit.records.append([Record(p, d.entry.message_id, d.envelope, d.entry.raw) for p, d in placed])
        self._add_others(commit, group)
        return commit

    def _placed(self, group: Sequence[Append]) -> Iterable[list[Placed]]:
        """The records of a group with their positions, by partition."""
        placed: dict[int, list[Placed]] = {}
        last = dict(self._book.last)
        for append in group:
            for draft in append.drafts:
                partition = draft.partition
                position = last[partition] = max(last[partition], partition * PARTITION) + 1
                placed.setdefault(partition, []).append((position, draft))
                append.last = position
        return placed.values()

    def _add_others(self, commit: Commit, group: Sequence[Append]) -> None:
        duplicates: Counter[str] = Counter()
        for append in group:
            duplicates.update(append.duplicates)
        totals = {source: self._book.duplicates.get(source, 0) + n for source, n in duplicates.items()}
        if totals and commit.parts:
            first = commit.parts[0]
            commit.parts[0] = msgspec.structs.replace(first, duplicates=totals)
        elif totals:
            tally = self._book.tally()
            commit.parts.append(msgspec.structs.replace(tally, duplicates={**tally.duplicates, **totals}))
        commit.parts += self._refusals([refused for append in group for refused in append.refused])
        states = {append.state[0]: append.state[1] for append in group if append.state is not None}
        commit.parts += [SourceState(source, msgspec.json.encode(state)) for source, state in states.items()]

    def _refusals(self, refused: Sequence[Refused]) -> Iterator[Refusals]:
        totals = dict(self._book.refused)
        number = self._book.refusals
        chunk: list[Refused] = []
        size = 0
        for item in refused:
            number += 1
            totals[item.source] = totals.get(item.source, 0) + 1
            raw = item.raw[:REFUSED_BYTES]
            if chunk and size + len(raw) > self.block_bytes:
                yield Refusals(chunk, dict(totals))
                chunk, size = [], 0
            chunk.append(msgspec.structs.replace(item, raw=raw, id=number))
            size += len(raw) + RECORD_BYTES
        if chunk:
            yield Refusals(chunk, totals)


def size_of(draft: Draft) -> int:
    """At most how many bytes a record takes in the stream."""
    envelope = draft.envelope
    return len(draft.entry.raw) + len(envelope.context) + len(envelope.integrations) + RECORD_BYTES


def _chunks(placed: Iterable[list[Placed]], limit: int) -> Iterator[list[Placed]]:
    for records in placed:
        chunk: list[Placed] = []
        size = 0
        for record in records:
            if chunk and size + size_of(record[1]) > limit:
                yield chunk
                chunk, size = [], 0
            chunk.append(record)
            size += size_of(record[1])
        yield chunk


_shared = attrgetter("envelope.source", "envelope.received_at")


def _pieces(placed: Iterable[Placed], ciphers: Mapping[Names, Cipher]) -> list[Piece]:
    drafts = [draft for _, draft in placed]
    return [
        (source, received_at, [_item(draft, ciphers[draft.names]) for draft in stretch])
        for (source, received_at), stretch in groupby(drafts, _shared)
    ]


def _item(draft: Draft, cipher: Cipher) -> Item:
    plain = _encode((draft.entry.message_id, draft.envelope, draft.entry.raw))
    return draft.digest, cipher.numbers, cipher.seal(plain), draft.names != (unread(draft.digest),)


def _as_full(error: Exception) -> Exception:
    if isinstance(error, Doubt):
        return LogFull(f"{error}. Whether these were kept is not known yet; sending them again is safe")
    if isinstance(error, TowpathError):
        return LogFull(f"{error}: {error.why}")
    return LogFull(f"the NATS server refuses: {error}") if isinstance(error, Denied) else error
