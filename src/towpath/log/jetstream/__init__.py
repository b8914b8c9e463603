"""The log on NATS JetStream: one stream, a subject for each partition, many records to a message.

One stream and not one for each partition, because an append is one atomic batch with its source's state, and
a batch cannot span streams. Positions are the writer's own, not the stream's sequences: many records share a
message, since a server that forces to disk pays for each message. A record cannot be cut out of a message,
so each is sealed under its persons' keys (`vault`), and erasing destroys those.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

import msgspec

from ...clock import Clock
from ...errors import TowpathError
from ...message import Record
from .. import Appended, Erased, Group, LogFull, Refused, Standing, State
from ..blob import Damaged
from .admission import Admitted, Window
from .book import Book
from .cache import Cache
from .durability import Durability, Promise
from .keys import KeyStore, NatsKeys
from .parts import POSITIONS, Format
from .reader import Reader
from .retention import Retention
from .stream import Stream
from .vault import Vault
from .wire import Wire
from .writer import Append, Writer, size_of

WEEK_S = 7 * 86400.0
PARTITIONS = "towpath.partitions"
"""In the stream's metadata: how many partitions it was made with."""


class JetStreamLog:
    """Implements `Log`. One process at a time writes into a stream; a second one's appends fail."""

    def __init__(
        self, wire: Wire, clock: Clock, keys: KeyStore, *, name: str, partitions: int, window_s: float
    ) -> None:
        self._wire = wire
        self._clock = clock
        self._stream = Stream(wire, f"towpath_{name}")
        self._format = Format(name)
        self._window = Window(window_s)
        self._book = Book(self._window, partitions)
        cache, vault = Cache(), Vault(keys)
        common = (self._stream, self._book, vault, self._format, cache)
        self._writer = Writer(*common)
        self._reader = Reader(*common)
        self._retention = Retention(*common, self._reader, self._writer, window_s)

    @classmethod
    async def begin(
        cls,
        servers: Sequence[str],
        clock: Clock,
        *,
        monitors: Sequence[str] = (),
        durability: Promise = "always",
        name: str = "log",
        partitions: int = 1,
        replicas: int = 1,
        window_s: float = WEEK_S,
        patience_s: float = 30.0,
        keys: Callable[[Wire], KeyStore] | None = None,
    ) -> JetStreamLog:
        """Connect, and make or open the stream `towpath_<name>`; the caller closes the log.

        `monitors` are the URLs of the servers' monitoring ports, which alone tell whether a server forces to
        disk; without them only `durability="relaxed"` opens. `patience_s`: how long a server that went away
        is waited for. `keys`: where the keys of persons are kept, by default in the bucket `<name>_keys`.
        Raises `TowpathError`.
        """
        wire = Wire(servers, patience_s, Durability(durability, monitors))
        try:
            await wire.open()
            store = NatsKeys(wire, f"{name}_keys") if keys is None else keys(wire)
            if isinstance(store, NatsKeys):
                await store.open(replicas)
            log = cls(wire, clock, store, name=name, partitions=partitions, window_s=window_s)
            await log.start(replicas)
        except BaseException:
            await wire.close()
            raise
        return log

    @classmethod
    @asynccontextmanager
    async def open(cls, servers: Sequence[str], clock: Clock, **settings: Any) -> AsyncIterator[JetStreamLog]:
        """`begin` and `close` around a block, with the same settings."""
        log = await cls.begin(servers, clock, **settings)
        try:
            yield log
        finally:
            await log.close()

    async def start(self, replicas: int) -> None:
        """Make or open the stream, read it once, and finish what was struck."""
        config = await self._stream.open(
            {
                "subjects": [f"towpath.{self._format.name}.>"],
                "storage": "file",
                "retention": "limits",
                "discard": "new",
                "num_replicas": replicas,
                "allow_direct": True,
                "allow_atomic": True,
                "metadata": {PARTITIONS: str(self._book.partitions)},
            }
        )
        self._check(config)
        async for stored in self._wire.forward(self._stream.name, self._format.subject("*"), 1):
            try:
                self._book.take(stored.sequence, self._format.part(stored))
            except Damaged as damage:
                if POSITIONS not in stored.headers or damage.last is None:
                    raise
                self._book.pass_over(stored.sequence, damage.position, damage.last)
        self._window.age(self._clock.now())
        for struck in list(self._book.struck.values()):
            await self._retention.finish(struck)

    def _check(self, config: Mapping[str, Any]) -> None:
        made_with = config.get("metadata", {}).get(PARTITIONS)
        if made_with != str(self._book.partitions):
            raise TowpathError(
                f"the stream {self._stream.name} has {made_with or 'no'} partitions, "
                f"not {self._book.partitions}",
                code="E5045",
                why="a person's partition depends on how many there are",
                fix=f"set partitions to {made_with}" if made_with else "use another name for the log",
                data="Nothing was changed.",
            )

    # Appending

    async def append(
        self, groups: Sequence[Group], refused: Sequence[Refused] = (), state: tuple[str, State] | None = None
    ) -> Appended:
        """Keep messages; durable when it returns. Raises `LogFull`.

        `LogFull` says so where the server went away in the middle and it is not known whether they were kept.
        """
        admitted = await self._admit(groups)
        if not (admitted.drafts or admitted.duplicates or refused or state):
            return Appended(0, 0, max(self._book.last.values()))
        largest = max((size_of(draft) for draft in admitted.drafts), default=0)
        if largest > (most := self._wire.client.max_payload * 7 // 8):
            raise LogFull(f"a message of {largest} bytes does not fit the NATS server's max_payload ({most})")
        claim = self._window.begin(admitted.drafts)
        done: asyncio.Future[Appended] = asyncio.get_running_loop().create_future()
        append = Append(admitted.drafts, dict(admitted.duplicates), refused, state, done, claim)
        return await asyncio.shield(self._writer.submit(append))

    async def _admit(self, groups: Sequence[Group]) -> Admitted:
        try:
            async with asyncio.timeout(self._wire.patience_s * 2):
                while True:
                    found = self._window.admit(groups, self._clock.now(), self._book.partitions)
                    if isinstance(found, Admitted):
                        return found
                    await asyncio.shield(found)
        except TimeoutError as error:
            raise LogFull("it is not known yet whether an earlier copy of these was kept") from error

    # Reading

    def last(self, partition: int = 0) -> int:
        """The position of the newest durable record; 0 when empty."""
        return self._book.last.get(partition, 0)

    async def wait(self, after: int, partition: int = 0) -> None:
        """Return once a record beyond `after` is durable."""
        await self._writer.wait(after, partition)

    async def read(self, after: int, limit: int, partition: int = 0) -> Sequence[Record]:
        """Records with position > after, in order, at most `limit`. Raises `Damaged`, `Unreachable`."""
        return await self._reader.read(after, limit, partition)

    async def latest(self, limit: int, before: int | None = None) -> Sequence[Record]:
        """The newest records of all partitions in the order of appending, newest first.

        `before`: only those appended before the record of this position.
        """
        return await self._reader.latest(limit, before)

    async def find(self, message_id: str, source: str | None = None, limit: int = 10) -> Sequence[Record]:
        """Records with this message id, newest first (a scan)."""
        return await self._reader.find(message_id, source, limit)

    async def refusals(self, source: str | None = None, limit: int = 100) -> Sequence[Refused]:
        """Items refused at ingest, newest first."""
        return await self._retention.refusals(source, limit)

    async def counts(self) -> Mapping[str, Mapping[str, int]]:
        """Per source: accepted, duplicates, refused since the log began."""
        book = self._book
        sources = {
            name for totals in (*book.accepted.values(), book.duplicates, book.refused) for name in totals
        }
        return {
            name: {
                "accepted": sum(totals.get(name, 0) for totals in book.accepted.values()),
                "duplicates": book.duplicates.get(name, 0),
                "refused": book.refused.get(name, 0),
            }
            for name in sources
        }

    async def source_state(self, source: str) -> State:
        """The state saved with the last append of a polled source; empty at first."""
        _, state = self._book.states.get(source, (0, b"{}"))
        return msgspec.json.decode(state, type=dict[str, object])

    # What a ledger elsewhere needs

    async def standing(self, partition: int = 0) -> Standing:
        """The newest position of a partition and its accepted counts, of one instant."""
        return Standing(self.last(partition), dict(self._book.accepted[partition]))

    async def count(self, source: str, after: int, partition: int = 0) -> int:
        """How many records of a source are kept beyond a position."""
        return len(await self.positions(source, after, partition))

    async def positions(self, source: str, after: int, partition: int = 0) -> Sequence[int]:
        """The positions of a source's kept records beyond a position, ascending."""
        rows = self._reader.rows(partition, after)
        return [row.position async for row in rows if row.source == source]

    # Retention and erasure

    async def forget_refusals(self, before: float) -> int:
        """Delete refused items older than this Unix time; how many."""
        return await self._retention.forget_refusals(before)

    async def trim(self, before: float, upto: Mapping[int, int] | None = None) -> int:
        """Drop old records. Their ids stay known for the window."""
        return await self._retention.trim(before, upto, self._clock.now())

    async def erase(self, person: Collection[str]) -> Erased:
        """Make a person's records unreadable for ever, by destroying the keys of these ids."""
        return await self._retention.erase(person)

    async def close(self) -> None:
        """Finish what is queued and close the connection."""
        await self._writer.close()
        await self._wire.close()


__all__ = ["JetStreamLog"]
