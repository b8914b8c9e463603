"""A store whose log and ledger are in different places, and what keeps the two in step.

No transaction spans both. So whatever makes the log lose records (a trim, an erase) is first written down in
the ledger as an intent; then the log does its part, then the intent is struck out. Every part may be done
twice, and whoever finds an intent carries it out: at the next start, or before the next thing that needs
both. In an erase the ledger ends the person's deliveries before the log is asked, so that from then on none
of them can start, even if the process dies before the log has erased anything.

The balance reads the ledger at one instant and the log after it. What was appended in between counts on both
of its sides; a record lost in between would not, so the ledger's generation, which every intent moves, is
looked at again afterwards.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Literal

import msgspec

from . import Appended, Balance, Erased, Group, Log, Refused, State
from .blob import Damaged
from .counting import PAGE, Counting, floor, recounted
from .erase import Person
from .halves import Change, Erasing, Intent, LedgerHalf, Scope, Stand, Trimming


class ApartStore:
    """Implements `Store` for a log of so many partitions and a ledger that is somewhere else.

    While a person is erased, what is appended here of that person waits until it is done.
    """

    def __init__(self, log: Log, ledger: LedgerHalf, *, partitions: int = 1) -> None:
        self._log = log
        self._ledger = ledger
        self._partitions = range(partitions)
        self._counting = Counting(log, self._partitions)
        self._alone = asyncio.Lock()
        self._appending: set[asyncio.Future[None]] = set()
        self._erasing: Person | None = None
        self._erased = asyncio.Event()
        # What concerns one of the two alone is asked of it directly.
        self.read, self.wait, self.last = log.read, log.wait, log.last
        self.find, self.latest, self.positions = log.find, log.latest, log.positions
        self.refusals, self.forget_refusals = log.refusals, log.forget_refusals
        self.counts, self.source_state = log.counts, log.source_state
        self.standing, self.count = log.standing, log.count
        self.lease, self.release, self.progress = ledger.lease, ledger.release, ledger.progress
        self.settle, self.parked, self.due = ledger.settle, ledger.parked, ledger.due
        self.hurry, self.waiting, self.deliveries = ledger.hurry, ledger.waiting, ledger.deliveries
        self.dead, self.replay, self.drop = ledger.dead, ledger.replay, ledger.drop
        self.pause, self.resume, self.pauses = ledger.pause, ledger.resume, ledger.pauses
        self.suppress, self.unsuppress = ledger.suppress, ledger.unsuppress
        self.suppressed, self.disconnect = ledger.suppressed, ledger.disconnect
        self.link, self.links, self.links_of = ledger.link, ledger.links, ledger.links_of
        self.linked, self.identifiers = ledger.linked, ledger.identifiers

    @classmethod
    async def begin(cls, log: Log, ledger: LedgerHalf, *, partitions: int = 1) -> ApartStore:
        """Join the two, which `close` closes, and carry out what was left half done.

        Raises what they raise; both are then still open.
        """
        store = cls(log, ledger, partitions=partitions)
        await store.repair()
        return store

    @property
    def short(self) -> bool:
        """Whether the ledger has room for nothing but ends."""
        return self._ledger.short

    async def repair(self) -> None:
        """Carry out what was begun in one place and may be unfinished in the other."""
        async with self._alone:
            await self._finish_all()

    async def _finish_all(self) -> None:
        for number, intent in await self._ledger.intents():
            await self._finish(number, intent)

    async def _finish(self, number: int, intent: Intent) -> None:
        if isinstance(intent, Trimming):
            await self._trim(number, intent)
        else:
            await self._erase(number, intent)

    async def close(self) -> None:
        """Close both."""
        try:
            await self._log.close()
        finally:
            await self._ledger.close()

    # Appending

    async def append(
        self, groups: Sequence[Group], refused: Sequence[Refused] = (), state: tuple[str, State] | None = None
    ) -> Appended:
        """Keep messages; durable when it returns. Raises `LogFull`, with nothing kept."""
        while self._erasing is not None and _of(self._erasing, groups):
            await self._erased.wait()
        ended: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._appending.add(ended)
        try:
            return await self._log.append(groups, refused, state)
        finally:
            self._appending.discard(ended)
            ended.set_result(None)

    # Connections

    async def connect(
        self, connection: str, sources: Collection[str], start: Literal["now", "earliest"]
    ) -> None:
        """Make the connection known, or change its sources.

        A source added later starts at the connection's cursor; a partition the log has got since, at its
        first record. Of a source taken away, what was not tried yet is skipped ("source removed").
        """
        async with self._alone:
            while not await self._connected(connection, frozenset(sources), start):
                pass

    async def _connected(self, connection: str, sources: frozenset[str], start: str) -> bool:
        """One try; False when the ledger has moved on while the log was asked."""
        stand = await self._ledger.stand(connection)
        if stand.open:
            await self._finish_all()
            return False
        change = Change({}, [], [], [])
        for partition in self._partitions:
            change = await self._planned(change, stand, partition, sources, start)
        nothing = stand.cursors and not (change.cursors or change.opened or change.closed)
        return bool(nothing) or await self._ledger.change(connection, stand, change)

    async def _planned(
        self, change: Change, stand: Stand, partition: int, sources: frozenset[str], start: str
    ) -> Change:
        """The change with what it means for one more partition."""
        standing = await self._log.standing(partition)
        last = max(standing.last, floor(partition))
        new = last if start == "now" and not stand.cursors else floor(partition)
        cursor = stand.cursors.get(partition, new)
        known = stand.scopes.get(partition, ())
        current = {scope.source: scope for scope in known if scope.until is None}
        opened, closed, untried = [*change.opened], [*change.closed], [*change.untried]
        for source in sorted(sources - current.keys()):
            since = max([cursor, *[scope.until or 0 for scope in known if scope.source == source]])
            stored = await self._counting.kept(source, since, last, partition)
            opened.append(Scope(source, since, None, standing.accepted.get(source, 0) - stored, None))
        for source in sorted(current.keys() - sources):
            scope = current[source]
            final = standing.accepted.get(source, 0)
            closed.append(msgspec.structs.replace(scope, until=last, final=final))
            beyond = await self._log.positions(source, max(cursor, scope.since), partition)
            untried += [position for position in beyond if position <= last]
        cursors = dict(change.cursors)
        if partition not in stand.cursors:
            cursors[partition] = cursor
        return Change(cursors, opened, closed, untried)

    async def balance(self, *, recount: bool = False) -> Sequence[Balance]:
        """P2 per connection. Raises `Damaged` when a recount meets a damaged blob."""
        while True:
            view = await self._ledger.view(recount=recount)
            if recount:
                sides, begins = await self._counting.seen(view)
                found = recounted(view, sides, await self._ledger.shown(begins))
            else:
                found = await self._counting.counted(view)
            if await self._ledger.generation() == view.generation:
                return found

    # Retention

    async def prune(self, before: float) -> int:
        """Delete dead letters and refused items older than this Unix time; how many."""
        return await self._ledger.prune(before) + await self._log.forget_refusals(before)

    async def trim(self, before: float, upto: Mapping[int, int] | None = None) -> int:
        """Drop old records that every connection has settled; how many."""
        async with self._alone:
            last = {partition: self._log.last(partition) for partition in self._partitions}
            wanted = last if upto is None else {n: min(upto.get(n, 0), at) for n, at in last.items()}
            return await self._trim(*await self._ledger.intend_trim(before, wanted))

    async def _trim(self, number: int, intent: Trimming) -> int:
        dropped = await self._log.trim(intent.before, intent.upto)
        begins = {partition: await self._begins(partition) for partition in intent.upto}
        passed = {partition: min(begins[partition] - 1, upto) for partition, upto in intent.upto.items()}
        await self._ledger.trimmed(number, passed)
        return dropped

    async def _begins(self, partition: int) -> int:
        """The position of the first record kept."""
        last = max(self._log.last(partition), floor(partition))
        try:
            records = await self._log.read(floor(partition), 1, partition)
        except Damaged as damaged:
            return damaged.position
        return records[0].position if records else last + 1

    # Erasing

    async def erase(self, person: Collection[str]) -> Erased:
        """Remove a person's records and their copies, here and there; the bytes are gone when it returns.

        When it raises, the person's deliveries may have ended already, and the rest follows later.
        """
        async with self._alone:
            intent = Erasing(frozenset(person))
            return await self._erase(await self._ledger.intend_erase(intent.ids), intent)

    async def _erase(self, number: int, intent: Erasing) -> Erased:
        async with self._holding_back(Person(intent.ids)) as person:
            found = await self._find(person)
            copies = await self._ledger.mark(number, found)
            copies += await self._ledger.strike(intent.ids)
            erased = await self._log.erase(intent.ids)
            # Another process may have appended meanwhile.
            copies += await self._ledger.mark(number, set(erased.gone) - set(found))
            renamed = await self._ledger.erased(number, intent.ids)
        return Erased(erased.records, copies + erased.copies, erased.gone, renamed, erased.upto)

    @asynccontextmanager
    async def _holding_back(self, person: Person) -> AsyncIterator[Person]:
        """Let nothing of this person be appended: what comes between search and erase would be missed."""
        self._erasing = person
        self._erased.clear()
        try:
            if self._appending:
                await asyncio.wait([*self._appending])
            yield person
        finally:
            self._erasing = None
            self._erased.set()

    async def _find(self, person: Person) -> list[tuple[int, str]]:
        """(position, source) of the person's records; damaged ones, which nobody can deliver, apart."""
        found: list[tuple[int, str]] = []
        for partition in self._partitions:
            after, last = floor(partition), self._log.last(partition)
            while after < last:
                after = await self._search(person, after, last, partition, found)
                await asyncio.sleep(0)
        return found

    async def _search(
        self, person: Person, after: int, last: int, partition: int, found: list[tuple[int, str]]
    ) -> int:
        """Look through one page; where the next one begins."""
        try:
            records = await self._log.read(after, PAGE, partition)
        except Damaged as damaged:
            return last if damaged.last is None else damaged.last
        own = (record for record in records if person.perhaps(record.raw) and person.owns(record.raw))
        found += [(record.position, record.source) for record in own]
        return records[-1].position if records else last


def _of(person: Person, groups: Sequence[Group]) -> bool:
    return any(
        person.perhaps(entry.raw) and person.owns(entry.raw) for group in groups for entry in group.entries
    )
