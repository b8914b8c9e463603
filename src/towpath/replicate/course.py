"""One table's run: its chains beside each other, from where they stopped, to its end in the warehouse."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine, Iterable, Iterator, Mapping
from contextlib import aclosing
from datetime import UTC, datetime
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from ..clock import Clock
from ..errors import TowpathError
from ..http import Stopping, Undelivered
from ..vendors.customerio import AppApi, Id
from ..warehouse import Gone, Load, Lost, Page, Warehouse
from .chains import AppDoor
from .departing import Departing
from .family import Collected, Family, listed
from .gate import Gate
from .gathering import Gathering, Held, Tally
from .opening import begun, below, look_back, read_now, resumed, tiers
from .reading import Chain, Declined, Denied, Missing, Reading, Unreachable
from .report import DAY_S, Options, Outcome, Progress, TableReport, Told
from .state import Chains, Ids, Last, TableRun, TableState
from .table import Replicated

BAD_REQUEST = 400


class Setting(Struct, frozen=True):
    """What all tables of a run share: `run` is its name; all its requests go through `gate`.

    `parents` are the tables that others of this run are read under.
    """

    api: AppApi
    warehouse: Warehouse
    options: Options
    clock: Clock
    progress: Progress
    run: str
    gate: Gate
    held: Held
    family: Family
    tables: Mapping[str, Replicated]
    parents: frozenset[str]


class Course:
    """One table's run."""

    def __init__(self, setting: Setting, replicated: Replicated, state: TableState) -> None:
        self.setting = setting
        self.replicated = replicated
        self.name = replicated.name
        self.state = state
        self.door = AppDoor(setting.api, setting.clock, setting.gate)
        self.reading = replicated.reading
        self.notes: list[str] = []
        self._moved = Chains()
        self._chains: list[Chain] = []
        self._resumed = False
        self._ended = self._read = 0
        self._collected: Collected | None = None
        self._total: int | None = None
        self._tally = Tally()
        self._gone = Gone()
        self._cursor = state.cursor

    async def run(self) -> TableReport:
        """Read the table to its end. Raises `Lost` and `Stopping`; what else goes wrong is in the report."""
        began_at = self.setting.clock.now()
        try:
            outcome, reason = await self._attempt(began_at)
        except Denied as denied:
            outcome, reason = "refused", f"this key may not read {self.name}: {denied}"
        except Missing:
            outcome, reason = "failed", "404: Customer.io knows no such list"
        except (Lost, Stopping, Undelivered):  # first: what hinders a target is a `TowpathError` as well
            raise
        except (Declined, Unreachable, TowpathError) as error:
            outcome, reason = "failed", str(error)
        except Exception as error:
            outcome, reason = "failed", f"met what nobody foresaw: {type(error).__name__}: {error}"
        self.setting.family.tell(self.name, self._ids(self.setting.run, outcome))
        self._tell(outcome)
        return self._report(outcome, reason, self.setting.clock.now() - began_at)

    # -- beginning ------------------------------------------------------------------------------------------

    async def _attempt(self, now: float) -> tuple[Outcome, str]:
        run = await self._opened(now)
        self.reading = self._chosen(run)
        self._chains = list(self.reading.chains(run.wanted))
        self._ended = sum(self._moved.over(chain.name) for chain in self._chains)
        self._total = self._expected(run)
        self.door.left = max(1, len(self._chains) - self._ended)
        if self.name in self.setting.parents:
            known: Ids | None = self.state.find("ids", Ids) if self._resumed else None
            self._collected = Collected(known if known is not None and known.run == run.id else None)
        await self._read_all(run)
        return await self._closed(run)

    async def _opened(self, now: float) -> TableRun:
        """Go on with the run that was cut off, or begin one."""
        run = self._resumable(now)
        if run is not None:
            self._resumed, self._moved = True, self.state.chains()
        else:
            run = await self._begun(now)
            self._resumed, self._moved = False, Chains()
            await self.setting.warehouse.keep({**self.state.without_run(), **self.state.entry("run", run)})
        if self.replicated.vanishes:
            await self.setting.warehouse.begin(self.name, self.setting.options.workspace, run.id)
        return run

    def _resumable(self, now: float) -> TableRun | None:
        return resumed(self.state, now)

    def _chosen(self, run: TableRun) -> Reading:
        """How this run reads, where there are several ways."""
        del run
        return self.replicated.reading

    async def _begun(self, now: float) -> TableRun:
        run = begun(self.replicated, self.state, self.setting.options, self.setting.run, now)
        self._warn_of_gap(run)
        parent = self.replicated.parent
        if not parent:
            return run
        ids = await self.setting.family.of(parent)
        if ids is None:
            ids = await listed(self.door, self.setting.tables[parent].reading, now)
        return below(run, ids, ready_only=self.replicated.ready_parents)

    def _expected(self, run: TableRun) -> int | None:
        """How many records there will be, where the last run read as far back."""
        last: Last | None = self.state.find("last", Last)
        return last.rows if last is not None and last.back_s == run.back_s else None

    def _warn_of_gap(self, run: TableRun) -> None:
        """Say so where Customer.io no longer has everything that this run is to begin with."""
        kept_s, since = self.replicated.kept_s, run.wanted.since
        if kept_s and since is not None and since < run.at - kept_s:
            first, last = moment(since), moment(run.at - kept_s)
            self.notes.append(
                f"what happened from {first} to {last} may be missing: Customer.io keeps about "
                f"{kept_s / DAY_S:.0f} days of {self.name}"
            )

    # -- reading --------------------------------------------------------------------------------------------

    async def _read_all(self, run: TableRun) -> None:
        """Read every chain that is not at its end; what was read before one failed is loaded all the same."""
        todo = iter([chain for chain in self._chains if not self._moved.over(chain.name)])
        gathering = Gathering(
            self.setting.warehouse,
            self.setting.clock,
            self.setting.held,
            lambda pages, state: self._load(run, pages, state),
            lambda tally: self._known(run, tally),
        )
        self._tally = gathering.tally
        async with gathering:
            try:
                await together(
                    self._work(run, todo, gathering) for _ in range(self.setting.options.in_flight)
                )
            except (Denied, Declined, Unreachable):
                await gathering.settle()
                raise
            await gathering.settle()

    async def _work(self, run: TableRun, todo: Iterator[Chain], gathering: Gathering) -> None:
        for chain in todo:
            await self._follow(run, chain, gathering)
            self._ended += 1
            self.door.left = max(1, len(self._chains) - self._ended)
            self._tell()

    async def _follow(self, run: TableRun, chain: Chain, gathering: Gathering) -> None:
        """Read a chain to its end; below a parent that is gone, or that is refused, it ends at once."""
        place = self._moved.places.get(chain.name, "")
        below_parent = bool(self.replicated.parent)
        try:
            await self._steps(run, chain, place, gathering)
        except Missing:
            if not below_parent:
                raise
            self._moved.move(chain.name, None)
            await gathering.add((), 0)
        except Declined as declined:
            if place and declined.status == BAD_REQUEST:  # it no longer knows the page we stopped at
                del self._moved.places[chain.name]
                await self._follow(run, chain, gathering)
            elif below_parent:
                self.notes.append(f"{chain.name} was not read: {declined.reason}")
                self._moved.give_up(chain.name, declined.reason)
                await gathering.add((), 0)
            else:
                raise

    async def _steps(self, run: TableRun, chain: Chain, place: str, gathering: Gathering) -> None:
        async with aclosing(self.reading.read(self.door, chain, place, run.wanted)) as steps:
            async for step in steps:
                self._read += step.records
                if self._collected is not None:
                    self._collected.take(step.pages)
                self._moved.move(chain.name, step.place)
                await gathering.add(step.pages, step.records)
                self._tell()

    def _known(self, run: TableRun, tally: Tally) -> Mapping[str, str | None]:
        """Return the state that holds once all pages so far are in.

        The largest cursor is that of the loads before: it only has to outlive a crash.
        """
        state = self.state.entry("chains", self._moved)
        if self._collected is not None:
            state |= self.state.entry("ids", self._collected.ids(run.id))
        newest = self._newest(tally)
        return state if newest is None else state | self.state.entry("newest", newest)

    def _newest(self, tally: Tally) -> float | None:
        found = (self.state.find("newest", float), tally.newest)
        return max((one for one in found if one is not None), default=None)

    def _load(self, run: TableRun, pages: tuple[Page, ...], state: Mapping[str, str | None]) -> Load:
        table = self.replicated
        since = run.wanted.since if table.passes else None
        return Load(
            table=self.name,
            workspace=self.setting.options.workspace,
            run=run.id,
            pages=pages,
            mode=table.mode,
            since=since,
            seen=table.vanishes,
            state=dict(state),
        )

    # -- the end --------------------------------------------------------------------------------------------

    async def _closed(self, run: TableRun) -> tuple[Outcome, str]:
        """Write what holds once the table is at its end, and tell rows that are gone, if it was read well."""
        tally, warehouse = self._tally, self.setting.warehouse
        if tally.refused and tally.refused == tally.read:
            await warehouse.keep(self.state.without_run())
            return "failed", f"none of the {tally.read} records is a row: see the table _towpath_refused"
        if tally.refused:
            self.notes.append(f"{tally.refused} records are no rows: see the table _towpath_refused")
        state = self._settled(run)
        if self.replicated.vanishes and tally.refused:
            self.notes.append("whether rows are gone was not looked at: one may be a record that is no row")
        if not self.replicated.vanishes or tally.refused:
            await warehouse.keep(state)
            return "ok", ""
        unread = dict.fromkeys(run.wanted.unready)
        unread |= {chain.values[0]: None for chain in self._chains if chain.name in self._moved.unread}
        options = self.setting.options
        departing = Departing(warehouse, self.replicated, options.workspace, run.id)
        self._gone, reason = await departing.depart(
            parents=(*run.wanted.parents, *run.wanted.unready),
            before=self.state.find("under", tuple[Id, ...]) or (),
            unread=tuple(unread),
            most=1.0 if self.name in options.approved else options.guard,
            state=state,
            under=self.state.key("under"),
        )
        return ("held", reason) if reason else ("ok", "")

    def _settled(self, run: TableRun) -> dict[str, str | None]:
        """Return what holds once the table is at its end: where to go on, and no run any more."""
        setting, state = self.setting, self.state
        kept = state.without_run()
        self._cursor = self._next(run)
        if self._cursor is not None:
            kept |= state.entry("cursor", self._cursor)
        back = look_back(self.replicated, setting.options)
        if self.replicated.table.cursor:
            kept |= state.entry("tiers", read_now(run, back, tiers(state)))
            if setting.options.since is None:
                start = setting.options.starts.get(self.name, setting.options.start_at)
                kept |= state.entry("start", start or 0.0)
        ids = self._ids(setting.run, "ok")
        kept |= state.entry("ids", ids)
        seconds = setting.clock.now() - run.at
        kept |= state.entry("last", Last(run.at, self.door.requests, self._read, seconds, run.back_s))
        return kept | state.entry("done", setting.run)

    def _next(self, run: TableRun) -> float | None:
        """Where the next run goes on: at the newest record, but never behind the begin of this run.

        A record dated in the future must not hide those that come before it; and a page that was read early
        may lack a change that was made while later pages were read.
        """
        if not self.replicated.table.cursor:
            return None
        newest = self._newest(self._tally)
        if newest is None and not self.replicated.passes:
            return run.at  # a range was asked for, and it is empty
        moved = [min(one, run.at) for one in (newest, self.state.cursor) if one is not None]
        return max(moved, default=None)

    # -- telling --------------------------------------------------------------------------------------------

    def _ids(self, run: str, outcome: Outcome) -> Ids | None:
        if self._collected is None or outcome not in ("ok", "held"):
            return None
        return self._collected.ids(run)

    def _tell(self, ended: Outcome | None = None) -> None:
        chains = len(self._chains)
        told = Told(self.name, self.door.requests, self._read, self._ended, chains, self._total, ended)
        self.setting.progress(told)

    def _report(self, outcome: Outcome, reason: str, seconds: float) -> TableReport:
        tally = self._tally
        return TableReport(
            table=self.name,
            outcome=outcome,
            reason=reason,
            read=tally.read,
            written=tally.written,
            unchanged=tally.unchanged,
            passed=tally.passed,
            refused=tally.refused,
            gone=self._gone.gone,
            rows=self._gone.rows,
            requests=self.door.requests,
            seconds=seconds,
            cursor=self._cursor,
            resumed=self._resumed,
            drift=tally.drift,
            notes=tuple(self.notes),
        )


class Backfill(Course):
    """A span of time of one table, read again: no cursor moves, and nothing is marked as gone."""

    def __init__(
        self, setting: Setting, replicated: Replicated, state: TableState, since: float, until: float
    ) -> None:
        super().__init__(setting, replace(replicated, vanishes=False), state)
        self._since = since
        self._until = until

    async def _begun(self, now: float) -> TableRun:
        run = await super()._begun(now)
        since = self._since if self.replicated.table.cursor else None
        return replace(run, wanted=replace(run.wanted, since=since, until=self._until))

    def _resumable(self, now: float) -> TableRun | None:
        """Go on only with the same span."""
        run = super()._resumable(now)
        same = run is not None and (run.wanted.since, run.wanted.until) == (self._since, self._until)
        return run if same else None

    def _settled(self, run: TableRun) -> dict[str, str | None]:
        return self.state.without_run()


def moment(seconds: float) -> str:
    """Show a time to people."""
    return datetime.fromtimestamp(seconds, UTC).isoformat(" ", "minutes")


async def together(work: Iterable[Coroutine[Any, Any, Any]]) -> list[Any]:
    """Do all of it at once, and return what each gave; the first failure ends the rest and is raised."""
    tasks = [asyncio.ensure_future(each) for each in work]
    try:
        for done in asyncio.as_completed(tasks):
            await done
        return [task.result() for task in tasks]
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
