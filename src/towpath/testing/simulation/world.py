"""The world of one history: store, connections with their loops, accounts, and everything that is checked."""

# ruff: noqa: S311 - randomness here must be repeatable, not secret
from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from pathlib import Path
from random import Random
from typing import TypeAlias

import msgspec

from towpath.connection import Connection, DeleteLimit
from towpath.deliver import DeliveryLoop
from towpath.destination import Limits, Scope
from towpath.http import Http
from towpath.identity import Identity
from towpath.lanes import Item
from towpath.log import Entry, Group, Lease, LogFull, Settlement, Store
from towpath.log.sqlite import SqliteStore
from towpath.message import Envelope, Message
from towpath.outcome import Delivered, Outcome, Paused, Retry
from towpath.pauses import DELETES
from towpath.settler import Fenced

from ..loop import LoopClock
from .book import SOURCES, Book, Kept, Messages
from .deletions import Deletions
from .erasing import Erasure
from .people import JUNK, People
from .scenarios import Plan
from .trace import Trace
from .vendor import Account, Network, Vendor
from .wire import Disk, Wire

OpenStore: TypeAlias = Callable[[Path, LoopClock], Awaitable[Store]]
HALVING_S = 60.0  # a batch of five is halved in less
DRAIN_S = 30 * 86400.0
PATIENCE_S = 8 * 86400.0  # then vendors take what they never took, else poison after poison takes 76 hours


async def sqlite(directory: Path, clock: LoopClock) -> Store:
    """Open the embedded engine, without a thread and without fsync."""
    return await SqliteStore.begin(directory, clock, inline=True, durable=False)


class Run:
    """One loop of a connection, from its start to its end; it hears what the loop does to the ledger."""

    def __init__(self, world: World, book: Book, chance: Random) -> None:
        self.book = book
        self.answered: set[int] = set()
        self.epoch = 0
        self._trace = world.trace
        self._halving: dict[int, float] = {}
        self._clock = world.clock
        main = world.plan.main
        self.wire = Wire(world.store, self, world.disk, chance, chance.choice(main.pages))
        self._window = chance.choice(main.windows)
        http = Http(
            Network(book.account, book, world.trace), world.clock, throttles=dict(book.account.budgets)
        )
        self.loop = DeliveryLoop(
            self._connection(),
            self.wire,
            self.wire,
            world.identity,
            Scope(http, world.clock, book.memory),
            owner="owner",
            suppressed=world.suppressed,
            observe=self._observe,
            persons=book.deletions.count_persons,
            window=self._window,
            lease_s=main.lease_s,
        )
        self.task = asyncio.ensure_future(self.loop.run())

    def _connection(self) -> Connection:
        return Connection(
            name=self.book.name,
            sources=frozenset(self.book.sources),
            destination_name="vendor",
            destination=Vendor(self),
            max_age_s=self.book.max_age_s,
            delete_limit=self.book.deletions.limit,
        )

    def sends(self, groups: Sequence[Sequence[int]], capabilities: Sequence[str]) -> None:
        """A call of this loop begins."""
        book, together = self.book, set[int]()
        book.expect(self.epoch == book.epoch, f"a loop sends {groups} though another one has the lease")
        self._disturbed()
        for group, capability in zip(groups, capabilities, strict=True):
            again = all(self._halving.get(n, 0.0) > self._clock.monotonic() for n in group)
            free = again or book.doubled or not book.blocks(capability)
            book.expect(free, f"{group} is sent though {capability} is paused: {sorted(book.paused)}")
            for position in group:
                self._trace.saw("passed a backlog", book.passes(position, self._window + self.wire.page))
                book.starts(position, together, self.answered, again=again)
                if book.limits.ordered_batch or len(group) > 1:
                    together.add(position)
            if len(group) > 1:
                self._trace.saw("merged")
        if len(groups) > 1:
            self._trace.saw("batch")

    def _disturbed(self) -> None:
        """In an outage, and right after it, the probes decide who is tried when; two loops have two plans."""
        health, schedule = self.loop.health, self.book.schedule
        if self.book.doubled:
            schedule.lift()
        if health.recovered_at is not None:
            schedule.disturb(health.recovered_at)
        if health.stalled_at is not None:
            self._trace.saw("stalled")
            schedule.lift()

    def refused(self, groups: Sequence[Sequence[int]], code: int) -> None:
        """The vendor refused a whole request; a batch is now halved."""
        if len(groups) > 1 and code in (400, 413):
            until_s = self._clock.monotonic() + HALVING_S
            self._halving |= {position: until_s for group in groups for position in group}
        elif len(groups) == 1:
            self.answered.update(groups[0])

    def _observe(self, connection: str, item: Item, outcome: Outcome) -> None:
        self._trace.note("told", connection, item.record.position, outcome)
        schedule = self.book.schedule
        if item.message.type == "delete" and isinstance(outcome, Delivered):
            self.book.deletions.delivered(item.record.position, self.book.messages.jumped_s)
        if isinstance(outcome, Retry) and not outcome.throttled:
            if self.book.leads(item.record.position):
                schedule.failed(item.record.position, item.attempts + 1, item.alone, outcome.after_s or 0.0)
        elif isinstance(outcome, Retry):
            schedule.disturb(in_s=outcome.after_s or 5.0)
        elif isinstance(outcome, Paused):
            schedule.disturb()
        if self.book.account.budgets:
            schedule.disturb()

    # What the wire tells.

    def leased(self, lease: Lease | None) -> None:
        """The lease was taken or renewed."""
        if lease is not None:
            self.epoch = lease.epoch
            self.book.epoch = max(self.book.epoch, lease.epoch)

    def settled(self, settlement: Settlement) -> None:
        """A settlement was kept."""
        self.book.settled(settlement)

    def paused(self, capability: str) -> None:
        """A capability stands still."""
        self._trace.note("paused", self.book.name, capability)
        self._trace.saw("pause by hand" if capability == "*" else "pause")
        if capability == DELETES:
            self.book.deletions.held(doubled=self.book.doubled)
        self.book.paused.add(capability)
        self.book.schedule.disturb()

    def resumed(self, capability: str) -> None:
        """A capability may go on."""
        self._trace.note("resumed", self.book.name, capability)
        self._trace.saw("resume by hand" if capability == "*" else "resume")
        if capability == DELETES:
            self.book.deletions.released()
        self.book.paused.discard(capability)
        self.book.schedule.disturb()

    async def crash(self) -> None:
        """Everything in memory is gone."""
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


class World:
    """Everything of one history."""

    store: Store
    identity: Identity

    def __init__(self, seed: int, plan: Plan, directory: Path, open_store: OpenStore, trace: Trace) -> None:
        self.plan = plan
        self.trace = trace
        self.directory = directory
        self.clock = LoopClock(asyncio.get_running_loop(), seed)
        self.chance = Random(f"world {seed}")
        self.links_max = min(scenario.links_max for scenario in plan.scenarios)
        self.messages = Messages(People(self.links_max))
        self.disk = Disk()
        self.runs: dict[str, Run] = {}
        self.books: dict[str, Book] = {}
        self._erasure: Erasure | None = None
        self.trusted = self.chance.choice([0.3, 0.8, 1.0])
        self._open_store = open_store
        self._seed = seed
        self.accounts = self._make_accounts()

    def _make_accounts(self) -> list[Account]:
        count = 1 if any(scenario.shared for scenario in self.plan.scenarios) else self.chance.randint(1, 2)
        per_minute = next((s.per_minute for s in self.plan.scenarios if s.per_minute), None)
        return [
            Account(f"v{n}", Random(f"vendor {self._seed}/{n}"), self.clock, self.trace, per_minute)
            for n in range(count)
        ]

    # -- life ------------------------------------------------------------------------------------------

    async def begin(self) -> None:
        """Open the store and start two or three connections."""
        await self._open()
        for _ in range(self.chance.choice([1, 2, 2, 3])):
            await self.add_connection("earliest")

    async def _open(self) -> None:
        self.store = await self._open_store(self.directory, self.clock)
        self.identity = Identity(self.store, links_max=self.links_max)

    async def add_connection(self, start: str) -> Book:
        """Make one more connection and start its loop."""
        number, account = len(self.books), self.chance.choice(self.accounts)
        limits = self._limits(next((s.limits for s in self.plan.scenarios if s.limits), ""))
        guard = next((s.deletes for s in self.plan.scenarios if s.deletes), (DeleteLimit(), 0))
        book = Book(
            f"c{number}", account, self.messages, limits, self.clock, self.trace,
            late_s=self.plan.main.late_s,
            deletions=Deletions(f"c{number}", *guard, self.clock, self.trace),
        )  # fmt: skip
        book.sources = {*SOURCES} if self.chance.random() < 0.7 else {self.chance.choice(SOURCES)}
        max_age_s = next((s.max_age_s for s in self.plan.scenarios if s.max_age_s), None)
        book.max_age_s = {} if max_age_s is None else {"Aging": max_age_s}
        await self.store.connect(book.name, sorted(book.sources), "now" if start == "now" else "earliest")
        if start == "now":
            book.cursor = self.store.last()
        else:
            book.belongs(p for p in self.in_log() if self.messages.kept[p].source in book.sources)
        self.books[book.name] = book
        self.start(book)
        return book

    def _limits(self, wanted: str) -> Limits:
        kinds = {
            "one by one": Limits(in_flight=self.chance.choice([1, 4, 64])),
            "batches": Limits(batch=5, in_flight=2),
            "ordered batches": Limits(batch=5, in_flight=2, ordered_batch=True),
            "coalescing": Limits(coalesce=True, in_flight=8),
        }
        return kinds[wanted or self.chance.choice(["one by one", "one by one", *kinds])]

    def start(self, book: Book) -> Run:
        """Start a loop for a connection."""
        run = self.runs[book.name] = Run(self, book, self.chance)
        book.schedule.lift()
        return run

    async def crash(self) -> None:
        """The process dies: calls under way go on at the vendors, or do not."""
        await self._cut_erasure()
        for run in self.runs.values():
            await run.crash()
        for book in self.books.values():
            book.excuse_open()
            book.account.hang_up(book)
        await self._reopen()
        await self.check_log()

    async def stop(self, grace_s: float) -> None:
        """Stop as a deploy would, and start again."""
        await self._cut_erasure()
        for run in list(self.runs.values()):
            await self.stop_run(run, grace_s)
        await self._reopen()

    async def stop_run(self, run: Run, grace_s: float) -> None:
        """Stop one loop; what takes longer than the grace is cut off."""
        began_s = self.clock.monotonic()
        await run.loop.stop(grace_s)
        await asyncio.gather(run.task, return_exceptions=True)
        if self.clock.monotonic() - began_s >= grace_s:
            self.trace.saw("stop that cut calls off")
            run.book.excuse_open()
            run.book.account.hang_up(run.book)

    async def reload(self, book: Book, sources: Collection[str], grace_s: float) -> None:
        """Other sources for a connection: its loop is stopped, and another one goes on."""
        await self.stop_run(self.runs[book.name], grace_s)
        await self.store.connect(book.name, sorted(sources), "now")
        for source in sorted(book.sources - {*sources}):
            book.without(source)
        for source in sorted({*sources} - book.sources):
            book.with_source(source, self.in_log())
        self.start(book)

    async def _reopen(self) -> None:
        await asyncio.sleep(0)
        await self.store.close()
        for account in self.accounts:
            account.restart()
        await self._open()
        for book in self.books.values():
            await self.store.connect(book.name, sorted(book.sources), "earliest")
            self.start(book)

    async def end(self) -> None:
        """Leave nothing running."""
        await self._cut_erasure()
        for run in self.runs.values():
            await run.crash()
        await self.store.close()

    # -- traffic ---------------------------------------------------------------------------------------

    async def append(self, source: str, entries: Sequence[Entry], *, trusted: bool) -> None:
        """One request of a client: all of it is kept, or nothing; what is known already is kept once."""
        fresh = {e.message_id: e for e in entries if (source, e.message_id) not in self.messages.by_name}
        envelope = Envelope(source, self.clock.now(), "server" if trusted else "client")
        first = self.store.last() + 1
        try:
            appended = await self.disk.append(self.store, [Group(envelope, entries)])
        except LogFull:
            self.trace.saw("append refused")
            return
        for position, entry in enumerate(fresh.values(), first):
            self._kept(position, entry, envelope)
        self.trace.note("appended", source, len(entries), appended)
        self.trace.saw("duplicate", len(entries) - len(fresh))
        kept = (appended.stored, appended.duplicates, appended.last)
        wanted = (len(fresh), len(entries) - len(fresh), first + len(fresh) - 1)
        self.trace.expect(kept[:2] == wanted[:2], f"{entries} were kept as {kept}, not {wanted}")

    def _kept(self, position: int, entry: Entry, envelope: Envelope) -> None:
        fields = msgspec.json.decode(entry.raw)
        self.trace.note("kept", position, envelope.source, envelope.trust, entry.raw)
        message = Kept(
            position, envelope.source, entry.message_id, entry.raw, fields, envelope.trust == "server",
            envelope.received_at, self.clock.monotonic(),
        )  # fmt: skip
        self.messages.add(message)
        for book in self.books.values():
            if message.source in book.sources:
                book.belongs([position])

    def in_log(self) -> list[int]:
        """The positions that the log must still show."""
        return [position for position in self.messages.kept if position not in self.messages.gone]

    # -- people ----------------------------------------------------------------------------------------

    def suppressed(self, message: Message, position: int) -> bool:
        """Whether nothing of this message's person is delivered now, as the app decides it."""
        named = (message.user_id, message.anonymous_id)
        return any(known in self.messages.suppressed for known in named if known) or any(
            position <= self.messages.erasing.get(known, 0)
            for known in (*named, message.previous_id)
            if known
        )

    async def erase(self, ids: frozenset[str], landing_s: float, chance: Random) -> None:
        """Begin to remove every trace of these ids, once the erase before it is over."""
        await self.erased()
        self._erasure = Erasure(self, ids, landing_s, Random(chance.random()))

    async def erased(self) -> None:
        """Return once no erase is under way."""
        if self._erasure is not None:
            await self._erasure.task

    async def _cut_erasure(self) -> None:
        """The process ends in the midst of an erase; nobody begins it again."""
        if self._erasure is not None and not self._erasure.task.done():
            self.trace.saw("erase cut off")
            self._erasure.task.cancel()
            await asyncio.gather(self._erasure.task, return_exceptions=True)
            self._erasure = None

    # -- what must hold --------------------------------------------------------------------------------

    async def check(self, *, recount: bool) -> None:
        """P2 after every step; and no loop has failed."""
        balances = await self.store.balance()
        if recount:
            counted = await self.store.balance(recount=True)
            self.trace.expect(list(balances) == list(counted), f"{balances} recounted is {counted}")
        for balance in balances:
            self.books[balance.connection].check_balance(balance)
        for run in self.runs.values():
            if run.task.done():
                error = None if run.task.cancelled() else run.task.exception()
                self.trace.expect(False, f"{run.book.name} ended: {error!r}")  # noqa: FBT003

    async def check_log(self) -> None:
        """P1, P8: every message that was accepted is there, once, as it came."""
        records = await self.store.read(0, 1_000_000)
        found = [(record.position, record.source, record.message_id, record.raw) for record in records]
        kept = [self.messages.kept[position] for position in self.in_log()]
        wanted = [(one.position, one.source, one.name, one.raw) for one in kept]
        self.trace.expect(found == wanted, "the log lost, doubled or changed a message")

    # -- the end ---------------------------------------------------------------------------------------

    async def heal(self) -> None:
        """The world is good again: everything that waits must end."""
        self._mend_all()
        await self.erased()
        for run in self.runs.values():
            await run.loop.pauses.resume()
            await self.decide_deletes(run, discard=False)
        hurried = self.chance.random() < 0.6
        began_s, wait_s = self.clock.monotonic(), 1.0
        while any(book.open for book in self.books.values()):
            open_ones = {book.name: sorted(book.open)[:9] for book in self.books.values()}
            waited_s = self.clock.monotonic() - began_s
            self.trace.expect(waited_s < DRAIN_S, f"it never drained: {open_ones}")
            for account in self.accounts:
                account.patient = waited_s > PATIENCE_S
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 1.7, 40_000.0)
            if hurried:
                await self.hurry(self.runs.values())
            await self.check(recount=False)
        await self.check(recount=True)
        await self.check_log()
        for book in self.books.values():
            book.check_end()
        if not self.messages.people.erased:
            await self._check_links()

    async def _check_links(self) -> None:
        """D13, D15: who was linked to whom, and nobody else."""
        links = self.messages.people.links
        for name in sorted({name for link in links for name in link[1:]} | {f"a:{junk}" for junk in JUNK}):
            wanted = [(position, person) for position, known, person in links if known == name]
            found = [*map(tuple, await self.store.links(name))]
            self.trace.expect(found == wanted, f"{name} is linked as {found}, not {wanted}")

    async def decide_deletes(self, run: Run, *, discard: bool) -> None:
        """Somebody says yes to the deletions that wait on a connection, or no."""
        upto = self.store.last()
        run.book.deletions.decide(upto, discard=discard)
        await run.loop.deletes.decide(upto, discard=discard)

    def _mend_all(self) -> None:
        self.disk.appends_full = self.disk.settles_full = False
        self.disk.lost = 0.0
        for account in self.accounts:
            account.mend()
        for book in self.books.values():
            book.schedule.disturb()

    async def hurry(self, runs: Iterable[Run]) -> None:
        """What waits is tried now, as somebody asks for by hand."""
        for run in runs:
            run.book.schedule.lift()
            await self.store.hurry(run.book.name, self.clock.now())
            run.loop.lift_throttle()
            await run.loop.refresh()

    def fenced(self, task: asyncio.Task[None]) -> None:
        """A loop that was taken over ended for that reason."""
        error = task.exception()
        self.trace.expect(isinstance(error, Fenced), f"the old loop ended with {error!r}")
