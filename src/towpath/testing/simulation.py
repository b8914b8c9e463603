"""A seeded simulation of delivery: random traffic, lying vendors, crashes; the promises checked at each step.

`simulate(seed, directory)` runs one history on virtual time and returns the hash of its trace: the same seed
gives the same hash. It raises `Broken` with the seed when a promise does not hold.
"""

# ruff: noqa: S311 - randomness here must be repeatable, not secret
from __future__ import annotations

import asyncio
import hashlib
import random
from collections.abc import Callable, Collection, Sequence
from pathlib import Path
from typing import Any

import msgspec

from towpath.connection import Connection
from towpath.deliver import DeliveryLoop
from towpath.destination import Limits, Scope
from towpath.http import Http
from towpath.identity import Identity
from towpath.log import Done, Entry, Group, Settlement
from towpath.log.sqlite import SqliteStore
from towpath.message import Envelope
from towpath.settler import Fenced

from .fakes import FakeMemory
from .loop import LoopClock, run_virtual
from .simulated import Nowhere, People, Vendor, Wire

STEPS = (15, 45)
DRAIN_S = 9 * 86400.0
USERS = ("ann", "bob", "cid", "dan", "eve", "fay", "guy", "hal")
DEVICES = ("x1", "x2", "x3", "x4", "x5")
SOURCES = ("web", "app")
WAITS_S = (0.0, 0.02, 0.3, 2.0, 8.0, 45.0, 400.0, 4000.0, 20_000.0)


class Broken(AssertionError):
    """A promise does not hold; names the seed and what was seen."""


class Line:
    """One connection and the loop that serves it at the moment."""

    def __init__(self, connection: Connection, vendor: Vendor) -> None:
        self.connection = connection
        self.vendor = vendor
        self.ended: dict[int, Done] = {}
        self.loop: DeliveryLoop
        self.wire: Wire
        self.task: asyncio.Task[None]


class World:
    """Everything of one history."""

    def __init__(self, seed: int, directory: Path) -> None:
        self.seed = seed
        self.directory = directory
        self.random = random.Random(seed)
        self.clock = LoopClock(asyncio.get_running_loop(), seed)
        self.people = People()
        self.position_of: dict[tuple[str, str], int] = {}
        self.source_of: dict[int, str] = {}
        self.unsent: set[int] = set()
        self.sent: list[tuple[str, Entry, bool]] = []
        self.trace = hashlib.sha256()
        self.lines = [self._line(number) for number in range(self.random.randint(2, 4))]
        self.broken: asyncio.Future[Broken] = asyncio.get_running_loop().create_future()
        self.store: SqliteStore
        self.identity: Identity

    def _line(self, number: int) -> Line:
        chance = self.random
        limits = chance.choice(
            [
                Limits(in_flight=chance.choice([1, 4, 64])),
                Limits(batch=5, in_flight=2),
                Limits(batch=5, in_flight=2, ordered_batch=True),
                Limits(coalesce=True, in_flight=8),
            ]
        )
        vendor = Vendor(self, f"v{number}", limits)
        sources = frozenset(SOURCES) if chance.random() < 0.6 else frozenset({chance.choice(SOURCES)})
        connection = Connection(
            name=f"c{number}",
            sources=sources,
            destination_name="vendor",
            destination=vendor,
            start="earliest",
        )
        return Line(connection, vendor)

    # -- a history -------------------------------------------------------------------------------------

    async def run(self) -> str:
        """Live one history, then let everything heal and drain; the hash of what happened."""
        await self._open()
        steps: Sequence[Callable[[], Any]] = (
            *[self._send] * 10,
            *[self._pass] * 8,
            *[self._change_phase] * 5,
            *[self._crash] * 2,
            self._stop_gracefully,
            self._cut_a_wire,
            self._pause_or_resume,
        )
        for _ in range(self.random.randint(*STEPS)):
            step = self.random.choice(steps)
            self._note("step", step.__name__)
            await step()
            await self._check(recount=self.random.random() < 0.2)
        await self._heal()
        return self.trace.hexdigest()

    async def _open(self) -> None:
        self.store = await SqliteStore.begin(self.directory, self.clock, inline=True, durable=False)
        self.identity = Identity(self.store)
        for line in self.lines:
            await self.store.connect(line.connection.name, line.connection.sources, "earliest")
            self._start(line)

    def _start(self, line: Line) -> None:
        read_s = self.random.choice([0.0, 0.0, 0.1])
        line.wire = Wire(self.store, lambda _, settlement: self._settled(line, settlement), read_s)
        line.loop = DeliveryLoop(
            line.connection,
            line.wire,
            line.wire,
            self.identity,
            Scope(Http(Nowhere(), self.clock), self.clock, FakeMemory()),
            owner=f"owner-{self.random.random()}",
            window=self.random.choice([8, 64, 4096]),
        )
        line.task = asyncio.ensure_future(line.loop.run())

    async def _send(self) -> None:
        count = self.random.choice([1, 2, 5, 60])
        for _ in range(count):
            if self.sent and self.random.random() < 0.1:
                await self._append(*self.random.choice(self.sent))
            else:
                await self._append(*self._message())

    def _message(self) -> tuple[str, Entry, bool]:
        chance = self.random
        name, source, trusted = f"m{len(self.sent)}", chance.choice(SOURCES), chance.random() < 0.7
        users = USERS if chance.random() < 0.7 else USERS[:1]
        fields: dict[str, Any] = {
            "messageId": name,
            "type": chance.choice(["track"] * 5 + ["identify", "alias"]),
        }
        user, device = chance.choice(users), chance.choice(DEVICES)
        if fields["type"] == "track":
            fields["event"] = chance.choice(["Seen"] * 20 + ["poison", "unsupported"])
            fields |= chance.choice([{"userId": user}, {"anonymousId": device}])
        elif fields["type"] == "identify":
            fields |= {"userId": user, "anonymousId": device} if chance.random() < 0.5 else {"userId": user}
        else:
            fields |= {"userId": user, "anonymousId": device}
            fields["previousId"] = chance.choice([*users, device])
        return source, Entry(name, msgspec.json.encode(fields)), trusted

    async def _append(self, source: str, entry: Entry, trusted: bool) -> None:  # noqa: FBT001
        new = (source, entry.message_id) not in self.position_of
        if new:
            # Set before: a loop may read the record as soon as it is there.
            position = self.store.last() + 1
            self.position_of[source, entry.message_id] = position
            self.source_of[position] = source
            self.sent.append((source, entry, trusted))
            fields = msgspec.json.decode(entry.raw)
            self.people.add(position, fields, trusted=trusted)
            if not _is_sent(fields, trusted=trusted):
                self.unsent.add(position)
        envelope = Envelope(source, self.clock.now(), "server" if trusted else "client")
        appended = await self.store.append([Group(envelope, [entry])])
        self._expect(appended.stored == new, f"{entry.message_id} was stored {appended.stored} times")

    async def _pass(self) -> None:
        await asyncio.sleep(self.random.choice(WAITS_S) * self.random.uniform(0.5, 1.5))

    async def _change_phase(self) -> None:
        vendor = self.random.choice(self.lines).vendor
        phases = ("fine", "fine", "slow", "down", "flaky", "limiting", "refusing", "forgetful")
        vendor.phase = self.random.choice(phases)
        self._note("phase", vendor.label, vendor.phase)

    async def _crash(self) -> None:
        """Everything in memory is gone; calls under way go on at the vendors."""
        for line in self.lines:
            line.task.cancel()
        await asyncio.gather(*(line.task for line in self.lines), return_exceptions=True)
        for line in self.lines:
            self._excuse_open(line)
            line.vendor.hang_up()
        await asyncio.sleep(0)
        await self.store.close()
        await self._open()
        await self._check_log()

    async def _stop_gracefully(self) -> None:
        grace_s = self.random.choice([0.5, 30.0])
        for line in self.lines:
            began = self.clock.monotonic()
            await line.loop.stop(grace_s)
            await asyncio.gather(line.task, return_exceptions=True)
            if self.clock.monotonic() - began >= grace_s:
                self._excuse_open(line)
                line.vendor.hang_up()
        await asyncio.sleep(0)
        await self.store.close()
        await self._open()

    async def _cut_a_wire(self) -> None:
        """A second process takes over while the first one only believes itself alone."""
        line = self.random.choice(self.lines)
        old, task = line.wire, line.task
        old.through.clear()
        line.vendor.doubted = True
        self._excuse_open(line)
        self._start(line)
        for _ in range(5):
            await self._send()
            await asyncio.sleep(self.random.uniform(4, 30))
        self._excuse_open(line)
        old.through.set()
        await asyncio.sleep(90)
        line.vendor.doubted = False
        if task.done():
            self._expect(
                isinstance(task.exception(), Fenced), f"the old loop ended with {task.exception()!r}"
            )
            return
        # The old one was back in time: the new one never began.
        line.task.cancel()
        task.cancel()
        self._excuse_open(line)
        await asyncio.gather(task, line.task, return_exceptions=True)
        self._start(line)

    async def _pause_or_resume(self) -> None:
        pauses = self.random.choice(self.lines).loop.pauses
        if pauses.in_force:
            await pauses.resume()
        else:
            await pauses.by_hand("simulated")

    async def _heal(self) -> None:
        """The world is good again: everything that waits must end."""
        for line in self.lines:
            line.vendor.phase = "fine"
            await line.loop.pauses.resume()
        deadline_s, wait_s = self.clock.monotonic() + DRAIN_S, 1.0
        while any(balance.waiting for balance in await self.store.balance()):
            self._expect(self.clock.monotonic() < deadline_s, "it never drained")
            await asyncio.sleep(wait_s)
            wait_s = min(wait_s * 1.5, 20_000.0)
            await self._check(recount=False)
        await self._check()
        await self._check_end()
        await self._crash_for_good()

    async def _crash_for_good(self) -> None:
        for line in self.lines:
            line.task.cancel()
        await asyncio.gather(*(line.task for line in self.lines), return_exceptions=True)
        await self.store.close()

    # -- what is seen ----------------------------------------------------------------------------------

    def starts(self, vendor: Vendor, position: int) -> None:
        """A call with this message begins: all before it must have ended, and it must not."""
        self._note("starts", vendor.label, position)
        line = self._line_of(vendor)
        vendor.tried.add(position)
        self._expect(position not in line.ended, f"{vendor.label}: {position} is sent though it has ended")
        open_ones = [n for n in self._before(line, position) if n not in line.ended]
        self._expect(
            not self._late(open_ones, vendor),
            f"{vendor.label}: {position} starts before {open_ones} ended",
        )

    def _late(self, open_ones: Collection[int], vendor: Vendor) -> bool:
        """Whether open ones break the order: earlier ones of one run or merged call, on their way, do not."""
        together = vendor.bounds.ordered_batch or vendor.bounds.coalesce
        return any(not (together and number in vendor.tried) for number in open_ones)

    def took_effect(self, vendor: Vendor, position: int) -> None:
        """The vendor did it: not twice without a reason, and nothing newer of its person before."""
        self._note("effect", vendor.label, position)
        times, excused = vendor.effects[position], vendor.excused[position]
        self._expect(
            times <= 1 + excused, f"{vendor.label}: {position} took effect {times} times, {excused} excused"
        )
        line = self._line_of(vendor)
        newer = [n for n in self.people.after[position] if vendor.effects[n]]
        if vendor.bounds.ordered_batch or vendor.bounds.coalesce:
            newer = [n for n in newer if n in line.ended]  # those of the same run are sent again too
        self._expect(not newer, f"{vendor.label}: {position} took effect after {newer}")

    def _settled(self, line: Line, settlement: Settlement) -> None:
        for done in settlement.done:
            self._note("ended", line.connection.name, done.position, done.state, done.reason)
            before = line.ended.setdefault(done.position, done)
            self._expect(
                before.state == done.state, f"{done.position} was {before.state} and is {done.state}"
            )

    def _excuse_open(self, line: Line) -> None:
        """What was sent and is not settled may be sent once more."""
        for position, times in list(line.vendor.open_calls.items()):
            if times > 0:
                line.vendor.excused[position] += 1
        for position in line.vendor.effects:
            if position not in line.ended:
                line.vendor.excused[position] += 1

    def _before(self, line: Line, position: int) -> list[int]:
        """Those of its person, sent before on this connection."""
        mine = line.connection.sources
        return [n for n in self.people.before[position] if n not in self.unsent and self.source_of[n] in mine]

    def _line_of(self, vendor: Vendor) -> Line:
        return next(line for line in self.lines if line.vendor is vendor)

    # -- what must hold --------------------------------------------------------------------------------

    async def _check(self, *, recount: bool = True) -> None:
        """P2: the balance is even, and equal to its recount; no loop has failed."""
        balances = await self.store.balance()
        if recount:
            counted = await self.store.balance(recount=True)
            self._expect(list(balances) == list(counted), f"{balances} recounted is {counted}")
        for balance in balances:
            self._expect(balance.difference == 0, f"uneven: {balance}")
        for line in self.lines:
            if line.task.done() and not line.task.cancelled():
                self._expect(False, f"{line.connection.name} ended: {line.task.exception()!r}")  # noqa: FBT003

    async def _check_log(self) -> None:
        """P1, P8: every message that was accepted is there, once."""
        records = await self.store.read(0, 1_000_000)
        found = [(record.source, record.message_id) for record in records]
        self._expect(sorted(found) == sorted(self.position_of), "the log lost or doubled a message")

    async def _check_end(self) -> None:
        """Everything ended as it had to: delivered means the vendor did it, dead means it had refused."""
        await self._check_log()
        for line in self.lines:
            mine = {n for n, source in self.source_of.items() if source in line.connection.sources}
            self._expect(set(line.ended) == mine, f"not ended: {sorted(mine - set(line.ended))[:9]}")
            self._check_last(line)
            for position, done in line.ended.items():
                self._check_ended(line.vendor, position, done)

    def _check_last(self, line: Line) -> None:
        """P4: what a vendor is left with is the newest."""
        last = line.vendor.last_effect
        for position in last:
            older = [n for n in self._before(line, position) if last.get(n, 0) > last[position]]
            self._expect(not older, f"{line.vendor.label}: {older} took effect last, after {position}")

    def _check_ended(self, vendor: Vendor, position: int, done: Done) -> None:
        if done.state == "delivered":
            self._expect(vendor.effects[position] > 0, f"{position} never reached {vendor.label}")
        elif done.state == "dead" and position not in vendor.refused and done.code != 401:
            # A 401 is the end where the credential worked again when it was checked.
            self._expect(done.attempts >= 10, f"{position} died after {done.attempts}: {done.reason}")
        elif done.state == "skipped":
            self._expect(position in self.unsent, f"{position} skipped: {done.reason}")

    def _expect(self, holds: bool, what: str) -> None:  # noqa: FBT001
        if holds:
            return
        broken = Broken(f"seed {self.seed} at {self.clock.monotonic():.3f} s: {what}")
        # Raised inside a vendor it would count as a bug of the destination: it ends the history from here.
        if not self.broken.done():
            self.broken.set_result(broken)
        raise broken

    def _note(self, *event: object) -> None:
        self.trace.update(f"{self.clock.monotonic():.6f} {event}\n".encode())


def _is_sent(fields: dict[str, Any], *, trusted: bool) -> bool:
    """Whether a message is for the vendors at all: supported, and not beyond what its source may do (D13)."""
    merges = fields["type"] == "alias" and fields["previousId"] != fields["anonymousId"]
    return fields.get("event") != "unsupported" and (trusted or not merges)


def simulate(seed: int, directory: Path) -> str:
    """Run one history; the hash of its trace. Raises `Broken`."""

    async def run() -> str:
        world = World(seed, directory)
        living = asyncio.ensure_future(world.run())
        either: list[asyncio.Future[Any]] = [living, world.broken]
        await asyncio.wait(either, return_when=asyncio.FIRST_COMPLETED)
        if world.broken.done():
            raise world.broken.result()
        return living.result()

    return run_virtual(run())
