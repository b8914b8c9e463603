"""The registry of devices: durable, one owner for a device, one device for an address."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial
from itertools import islice

import msgspec
from msgspec import Struct
from sqlalchemy import Connection, Engine

from ..clock import Clock
from ..device import Address, Device, Noted
from ..identity import JUNK
from ..state.devices import DeviceRow, Devices, Tally
from .audience import NOBODY, Person
from .rules import apply, withdraw
from .settings import PushSettings
from .together import Together
from .world import Terms, World, concerned

APPLIED_AT_ONCE = 2000
ASKED_AT_ONCE = 2000
WITHDRAWN_AT_ONCE = 5000
SWEPT_SHARE = 0.25
SWEPT_LEAST = 100
"""So many, and more than this share, a sweep does not take: a clock would have been out, or the intake."""
NO_PROJECT = ""
"""The project of a registry without an FCM account."""


class Dead(Struct, frozen=True):
    """An address that FCM refused, as it was when it was used: only that is removed (P012)."""

    device: str
    address: Address
    registered_at: float
    reason: str


class Swept(Struct, frozen=True):
    """What a sweep removed, or would remove; `refused` says why it did not run."""

    removed: int = 0
    refused: str = ""


class Registry:
    """Implements `device.Devices`, of one Firebase project. All methods may raise what the database raises.

    `settings` and `junk` may be replaced while it works. Writes of many callers share a transaction; when a
    method returns, what it did is on disk. `told` is called when there is something in the outbox.
    """

    def __init__(
        self,
        engine: Engine,
        project: str,
        clock: Clock,
        settings: PushSettings | None = None,
        *,
        junk: Collection[str] = (),
        told: Callable[[], None] = lambda: None,
    ) -> None:
        self.settings = settings or PushSettings()
        self.project = project
        self._engine = engine
        self._clock = clock
        self.junk = junk
        self._told = told
        self._rows = Devices(engine, project)
        self._applying: Together[Noted, tuple[str, ...]] = Together(self._apply, APPLIED_AT_ONCE)
        self._finding: Together[str, list[Device]] = Together(self._find_reachable, ASKED_AT_ONCE)

    # -- what messages say -----------------------------------------------------------------------------

    async def apply(self, noted: Sequence[Noted]) -> Sequence[tuple[str, ...]]:
        """Apply messages in order, durable when it returns; for each, what there is to report."""
        return await self._applying.ask_all(noted)

    def _apply(self, noted: Sequence[Noted]) -> Sequence[tuple[str, ...]]:
        with self._rows.begin() as connection:
            world = self._world(connection, noted)
            reports = [apply(world, one) for one in noted]
            self._write(connection, world)
        self._say(world)
        return reports

    def _world(self, connection: Connection, noted: Sequence[Noted]) -> World:
        """Read what these messages concern, and no more."""
        concern = concerned(noted)
        people = {row.person: row for row in self._rows.people(connection, concern.people)}
        turned_up = {name for name in concern.proven if name not in people or not people[name].proven}
        rows = {row.id: row for row in self._rows.by_id(connection, concern.devices | turned_up)}
        gaining = concern.gaining(rows)
        namesakes = gaining - rows.keys()
        rows |= {row.id: row for row in self._rows.by_id(connection, namesakes)}
        elsewhere = concern.places - {row.place for row in rows.values()}
        rows |= {row.id: row for row in self._rows.by_address(connection, elsewhere)}
        rows |= {row.id: row for row in self._rows.by_person(connection, concern.owned)}
        people |= {row.person: row for row in self._rows.people(connection, gaining - concern.people)}
        counts = self._rows.counts(connection, concern.owned | gaining)
        asked, now = concern.people | gaining, self._clock.now()
        return World(self._terms, rows.values(), people.values(), counts, asked, now)

    @property
    def _terms(self) -> Terms:
        wanted = self.settings.traits
        traits = None if wanted == "all" else frozenset(wanted)
        junk = JUNK | {word.lower() for word in self.junk}
        return Terms(self.settings.devices_per_person, traits, junk, self.settings.device_ids)

    def _write(self, connection: Connection, world: World) -> None:
        self._rows.drop(connection, world.gone)
        self._rows.save(connection, world.changes)
        self._rows.drop_people(connection, world.gone_people)
        self._rows.save_people(connection, [world.people[name] for name in sorted(world.changed_people)])
        self._rows.untell(connection, world.untold)
        self._rows.tell(connection, world.told)

    def _say(self, world: World) -> None:
        if world.told:
            self._told()

    # -- asking ----------------------------------------------------------------------------------------

    async def of_person(self, person: str) -> Sequence[Device]:
        """A person's devices that can be reached, last registered first."""
        return await self._finding.ask(person)

    def _find_reachable(self, persons: Sequence[str]) -> list[list[Device]]:
        found: dict[str, list[DeviceRow]] = {}
        for row in self._rows.reachable(set(persons)):
            found.setdefault(row.person or "", []).append(row)
        for rows in found.values():
            rows.sort(key=lambda row: (-row.registered_at, row.id))
        return [[row.device for row in found.get(person, ())] for person in persons]

    async def find(self, device: str) -> Device | None:
        """One device."""
        return (await self.find_many([device])).get(device)

    async def find_many(self, ids: Collection[str]) -> Mapping[str, Device]:
        """Devices by their ids, of those that there are."""
        return await asyncio.to_thread(self._find_many, ids)

    def _find_many(self, ids: Collection[str]) -> Mapping[str, Device]:
        with self._engine.connect() as connection:
            return {row.id: row.device for row in self._rows.by_id(connection, ids)}

    async def people(self, persons: Collection[str], *, last_used: bool = False) -> Mapping[str, Person]:
        """What is known of these persons: traits and consent; where asked, the device they used last."""
        return await asyncio.to_thread(self._people, persons, last_used=last_used)

    def _people(self, persons: Collection[str], *, last_used: bool) -> Mapping[str, Person]:
        with self._engine.connect() as connection:
            known = {row.person: row for row in self._rows.people(connection, persons)}
        found = {
            person: Person(msgspec.json.decode(row.traits), row.consent) for person, row in known.items()
        }
        if last_used:
            for row in sorted(self._rows.reachable(persons), key=lambda row: (row.seen_at, row.id)):
                person = found.get(row.person or "", NOBODY)
                found[row.person or ""] = msgspec.structs.replace(person, last_used=row.id)
        return found

    async def audience(self, after: str, limit: int) -> Sequence[Device]:
        """Devices with an owner and an address, in order of ids behind `after`; removed ones are left out."""
        rows = await asyncio.to_thread(self._rows.page, after, limit, audience=True)
        return [row.device for row in rows]

    async def of_persons(self, persons: Collection[str]) -> Sequence[Device]:
        """The devices of these persons that can be reached, in order of ids."""
        rows = await asyncio.to_thread(self._rows.reachable, persons)
        return [row.device for row in sorted(rows, key=lambda row: row.id)]

    async def everything_of(self, person: str) -> Sequence[Device]:
        """Every device of a person, removed ones too, in order of ids."""
        return await asyncio.to_thread(self._everything_of, person)

    def _everything_of(self, person: str) -> list[Device]:
        with self._engine.connect() as connection:
            rows = list(self._rows.by_person(connection, [person]))
        return [row.device for row in sorted(rows, key=lambda row: row.id)]

    async def page(self, after: str, limit: int) -> Sequence[Device]:
        """Devices in order of ids behind `after`, removed ones too."""
        rows = await asyncio.to_thread(self._rows.page, after, limit, audience=False)
        return [row.device for row in rows]

    async def counts(self) -> Tally:
        """Count the devices; it reads them all (P010, P047)."""
        before = self._clock.now() - self.settings.refresh_after.total_seconds()
        return await asyncio.to_thread(self._rows.tally, before)

    async def adopt(self) -> int:
        """Take over the devices that came while no FCM account was configured. Returns how many."""
        return 0 if self.project == NO_PROJECT else await asyncio.to_thread(self._rows.adopt, NO_PROJECT)

    # -- removing --------------------------------------------------------------------------------------

    async def remove(self, dead: Sequence[Dead]) -> int:
        """Remove addresses that FCM refused, unless reported anew since (P012). Returns how many."""
        return await asyncio.to_thread(self._withdraw_dead, dead)

    def _withdraw_dead(self, dead: Sequence[Dead]) -> int:
        wanted = {one.device: one for one in dead}
        return self._withdraw(
            wanted,
            lambda row: wanted[row.id].reason if _is_still(row, wanted[row.id]) else None,
            disable=False,
        )

    async def disable(self, devices: Sequence[str], reason: str, *, before: float) -> int:
        """Use the addresses of these devices no more: they are another Firebase project's (P014).

        What was reported anew since `before` (Unix seconds) stays. Returns how many.
        """
        of_active = partial(_if_active, reason, before)
        return await asyncio.to_thread(self._withdraw, devices, of_active, disable=True)

    def _withdraw(
        self, devices: Collection[str], why: Callable[[DeviceRow], str | None], *, disable: bool
    ) -> int:
        changed, left = 0, iter(devices)
        while some := list(islice(left, WITHDRAWN_AT_ONCE)):
            with self._rows.begin() as connection:
                world = World(self._terms, self._rows.by_id(connection, some))
                for row in list(world.devices.values()):
                    if (reason := why(row)) is not None:
                        withdraw(world, row, reason, self._clock.now(), disable=disable)
                changed += len(world.changes)
                self._write(connection, world)
            self._say(world)
        return changed

    async def sweep(self, *, dry_run: bool = False, by_hand: bool = False) -> Swept:
        """Remove addresses whose token was not reported for `stale_after` (P011).

        It does not run when no token at all was reported for `quiet_for`: then it is the intake that is out;
        nor, unless `by_hand`, when much of all devices would go at once: then it was out, or a clock was.
        """
        before = self._clock.now() - self.settings.stale_after.total_seconds()
        if why := await asyncio.to_thread(self._too_quiet):
            return Swept(refused=why)
        stale = await asyncio.to_thread(self._count_stale, before)
        if not by_hand and (why := await asyncio.to_thread(self._too_many, stale)):
            return Swept(refused=why)
        if dry_run:
            return Swept(stale)
        removed = 0
        while swept := await asyncio.to_thread(self._sweep_some, before):
            removed += swept
        return Swept(removed)

    def _too_quiet(self) -> str:
        with self._engine.connect() as connection:
            newest = self._rows.newest(connection)
        quiet_s = self._clock.now() - newest
        if newest and quiet_s <= self.settings.quiet_for.total_seconds():
            return ""
        since = f"no token was reported for {quiet_s / 86400:.1f} days" if newest else "no device is known"
        return f"{since}: nothing is removed, as it may be the intake that is out"

    def _too_many(self, stale: int) -> str:
        with self._engine.connect() as connection:
            active = self._rows.count_active(connection)
        if stale < SWEPT_LEAST or stale <= SWEPT_SHARE * active:
            return ""
        return (
            f"{stale:,} of {active:,} devices at once: nothing is removed, as it may be the intake or a "
            "clock that was out; look at  towpath push status, then  towpath push devices prune"
        )

    def _count_stale(self, before: float) -> int:
        with self._engine.connect() as connection:
            return self._rows.count_stale(connection, before)

    def _sweep_some(self, before: float) -> int:
        with self._rows.begin() as connection:
            rows = self._rows.stale(connection, before, WITHDRAWN_AT_ONCE)
            world, now = World(self._terms, rows), self._clock.now()
            for row in rows:
                withdraw(world, row, "stale", now)
            self._write(connection, world)
        self._say(world)
        return len(rows)

    async def prune(self, unused_s: float, *, dry_run: bool = False) -> int:
        """Delete devices without use for so many seconds: removed, or without address or owner.

        A report older than that may then bring one back. Returns how many.
        """
        before = self._clock.now() - unused_s
        if dry_run:
            return len(await asyncio.to_thread(self._outlived, before, None))
        gone = 0
        while pruned := await asyncio.to_thread(self._prune_some, before):
            gone += pruned
        return gone

    def _outlived(self, before: float, limit: int | None) -> list[str]:
        with self._engine.connect() as connection:
            return self._rows.outlived(connection, before, limit)

    def _prune_some(self, before: float) -> int:
        with self._rows.begin() as connection:
            old = self._rows.outlived(connection, before, WITHDRAWN_AT_ONCE)
            return self._rows.drop(connection, old)


def _is_still(row: DeviceRow, dead: Dead) -> bool:
    """Whether a device is as it was when its address was used."""
    same = row.place == dead.address and row.registered_at == dead.registered_at
    return same and row.status != "removed"


def _if_active(reason: str, before: float, row: DeviceRow) -> str | None:
    stands = row.status == "active" and row.address is not None and row.registered_at <= before
    return reason if stands else None
