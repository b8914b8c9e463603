"""Replications at work: their jobs, and the warehouses they and the destinations write."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from ..clock import Clock
from ..config import Config, DestinationEntry
from ..config.replications import WAREHOUSE, warehouse_of
from ..config.resolved import ReplicationEntry
from ..errors import TowpathError
from ..jobs.runner import Jobs
from ..redaction import setting_secrets
from ..replicate.job import Readings, ReplicateJob, ReplicateSettings, Workspace
from ..replicate.names import canonical
from ..replicate.people_course import without_export
from ..replicate.report import Options, Report, Tier
from ..replicate.settings import ReplicationSettings, TableBlock
from ..replicate.state import reset
from ..replicate.tables import REPLICATED, usual
from ..state.jobs import HELD
from ..warehouse import Lost, Shape, Warehouse
from ..warehouse.desk import AnyTarget, Desk
from ..warehouse.port import PORT
from ..warehouse.settings import WarehouseAccount
from .accounts import Accounts
from .replication_desk import ReplicationDesk

UNKNOWN = "E4431"
AT_WORK = "E4435"
DAY_S, WEEK_S = 86_400.0, 7 * 86_400.0


class Replications:
    """Everything of the section `replications:`, and the warehouses of the file."""

    def __init__(self, accounts: Accounts, clock: Clock, jobs: Jobs, directory: Path) -> None:
        self._app_api = accounts.app_api
        self._jobs = jobs
        self._entries: Mapping[str, ReplicationEntry] = {}
        self._accounts: Sequence[WarehouseAccount] = ()
        self._directory = Path()
        self._registered: set[str] = set()
        self.reports: dict[tuple[str, str], Report] = {}
        self._readings = Readings()
        self._loading = Desk(clock, directory)
        self.desk = ReplicationDesk(self, clock)

    async def apply(self, config: Config) -> None:
        """Put a configuration in force: jobs of replications that went are forgotten, their rows stay."""
        self._entries = config.replications
        self._directory = config.file.parent
        written = [entry.settings for entry in config.destinations.values()]
        named = [warehouse_of(entry) for entry in config.accounts.values() if entry.type == WAREHOUSE]
        self._accounts = [one for one in (*written, *named) if isinstance(one, WarehouseAccount)]
        wanted: set[str] = set()
        for entry in config.replications.values():
            for table, block in {"": entry.settings, **_apart(entry.settings)}.items():
                job = self._job(entry, table)
                times = block.times() if block.repeats and entry.settings.enabled else None
                await self._jobs.register(job, times)
                wanted.add(job.name)
        for name in self._registered - wanted:
            await self._jobs.forget(name)
        self._registered = wanted
        await self._loading.retain(map(self._opened_as, self._accounts))

    async def close(self) -> None:
        """End the loading processes; after the jobs and the connections."""
        await self._loading.close()

    def names(self) -> Sequence[str]:
        """The replications of the file."""
        return list(self._entries)

    def entry(self, name: str) -> ReplicationEntry:
        """One replication. Raises `TowpathError` for a name the file has not."""
        found = self._entries.get(name)
        if found is None:
            known = ", ".join(self._entries) or "none; add a section  replications:"
            raise TowpathError(f"there is no replication {name!r}", code=UNKNOWN, fix=f"known: {known}")
        return found

    async def at_rest(self, name: str) -> None:
        """See that no run is at work: what is changed now, its end would overwrite. Raises `TowpathError`."""
        for job in sorted(self._registered):
            if job == f"{name}.replicate" or job.startswith(f"{name}.replicate."):
                for row in await self._jobs.runs(job, HELD, 1):
                    raise TowpathError(
                        f"run {row.id} of {job} is at work",
                        code=AT_WORK,
                        why="it would go on with what it knows, and leave out what was read before",
                        fix=f"wait for it, or towpath jobs cancel {row.id} first",
                        data="Nothing was changed.",
                    )

    def warehouse(self, account: WarehouseAccount) -> Warehouse:
        """The warehouse of an account."""
        return self._loading.warehouse(*self._opened_as(account))

    def _opened_as(self, account: WarehouseAccount) -> tuple[AnyTarget, str]:
        """The target of an account, and its hash key."""
        key = account.hash_key.get_secret_value() if account.hash_key else ""
        return account.placed(self._directory).target, key

    def workspaces(self, name: str, asked: ReplicateSettings) -> list[Workspace]:
        """What a run of a replication reads, workspace by workspace. Raises `TowpathError`."""
        entry = self.entry(name)
        chosen = self.tables(entry, asked.tables)
        return [self._workspace(entry, account, chosen, asked) for account in entry.sources]

    def tables(self, entry: ReplicationEntry, wanted: Sequence[str]) -> Mapping[str, TableBlock]:
        """The tables a run reads: those named, or those of the replication. Raises `TowpathError`."""
        configured = entry.settings.chosen() or {name: TableBlock() for name in usual()}
        if not wanted:
            return {name: block for name, block in configured.items() if block.enabled}
        try:
            asked = canonical(wanted).names
        except ValueError as error:
            raise TowpathError(str(error), code=UNKNOWN, data="Nothing was started.") from None
        return {name: configured.get(name, TableBlock()) for name in asked}

    async def clear(self, warehouse: Warehouse, workspace: Workspace) -> None:
        """Forget how far the tables were read; their rows stay."""
        options = workspace.options
        tables = [one.table.name for one in options.shapes]
        await reset(warehouse, options.replication, workspace.name, tables)

    def ports(self, entry: DestinationEntry) -> Mapping[str, Any]:
        """What a destination asked for by name."""
        return {PORT: self} if PORT in entry.kind.ports else {}

    def secrets(self) -> set[str]:
        """What must not be said of the warehouses (D08)."""
        return {secret for account in self._accounts for secret in setting_secrets(account)}

    async def erase(self, ids: Sequence[str]) -> Mapping[str, Any]:
        """Remove persons from every warehouse of the file; what happened in each (D10, R051).

        Pages that were read before and are not written yet would bring them back: they are read again.
        """
        found: dict[str, Any] = {}
        await self._readings.break_off()
        asked: list[Warehouse] = []
        for account in self._accounts:
            about = _unlike(account.target.about, found)
            try:
                if (warehouse := self.warehouse(account)) not in asked:  # the same for the same target
                    asked.append(warehouse)
                    await self._without_exports(account)
                    found[about] = dict(await warehouse.erase(ids))
            except (Lost, TowpathError) as error:
                found[about] = f"not erased: {error}; erase again when it is there"
        return found

    # -- parts -----------------------------------------------------------------------------------------

    async def _without_exports(self, account: WarehouseAccount) -> None:
        """Forget exports of people that were made and are not read to their end."""
        warehouse = self.warehouse(account)
        for entry in self._entries.values():
            if self.warehouse(entry.target) is warehouse:
                for workspace in entry.sources:
                    await without_export(warehouse, entry.name, workspace)

    def _job(self, entry: ReplicationEntry, table: str) -> ReplicateJob:
        name = f"{entry.name}.replicate"
        what = table or "the tables"
        return ReplicateJob(
            f"{name}.{table}" if table else name,
            f"Copy {what} of {', '.join(entry.sources)} into {entry.settings.to}.",
            partial(self._asked, entry.name, table),
            lambda: self.warehouse(self.entry(entry.name).target),
            key=name,
            clear=self.clear,
            after=partial(self._keep, entry.name),
            readings=self._readings,
        )

    def _asked(self, name: str, table: str, asked: ReplicateSettings) -> list[Workspace]:
        """What a run of one job reads: a table with a schedule of its own is left to that."""
        if not asked.tables:
            entry = self.entry(name)
            apart = () if table else _apart(entry.settings)
            mine = [table] if table else [one for one in self.tables(entry, ()) if one not in apart]
            asked = asked.model_copy(update={"tables": tuple(mine)})
        return self.workspaces(name, asked)

    def _keep(self, name: str, report: Report) -> None:
        self.reports[name, report.workspace] = report

    def _workspace(
        self,
        entry: ReplicationEntry,
        account: str,
        chosen: Mapping[str, TableBlock],
        asked: ReplicateSettings,
    ) -> Workspace:
        settings = entry.settings
        start = settings.start_date
        options = Options(
            replication=entry.name,
            workspace=account,
            shapes=tuple(_shape(name, block, settings) for name, block in chosen.items()),
            start_at=start.timestamp() if start else None,
            starts={name: one.start_date.timestamp() for name, one in chosen.items() if one.start_date},
            look_back=_look_back(settings, chosen),
            guard=settings.guard,
            approved=tuple(chosen) if asked.accept_deletes else (),
            people=settings.people,
            domains=settings.domains,
            since=asked.since.timestamp() if asked.since else None,
        )
        return Workspace(account, partial(self._app_api, account), options)


def _unlike(about: str, others: Mapping[str, Any]) -> str:
    """What a target is called beside others that are called the same: passwords are not shown."""
    return about if about not in others else f"{about} ({len(others) + 1})"


def _apart(settings: ReplicationSettings) -> Mapping[str, TableBlock]:
    """The tables with a schedule of their own (R006)."""
    return {name: block for name, block in settings.chosen().items() if block.repeats and block.enabled}


def _look_back(
    settings: ReplicationSettings, chosen: Mapping[str, TableBlock]
) -> Mapping[str, tuple[Tier, ...]]:
    """How far each table is read again: messages by tiers, others as they are told to, if at all."""
    tiers = settings.look_back
    late = (
        Tier(tiers.each.total_seconds()),
        Tier(tiers.daily.total_seconds(), DAY_S),
        Tier(tiers.weekly.total_seconds(), WEEK_S),
    )
    told = {name: one.look_back for name, one in chosen.items() if one.look_back is not None}
    return {"messages": late, **{name: (Tier(span.total_seconds()),) for name, span in told.items()}}


def _shape(name: str, block: TableBlock, settings: ReplicationSettings) -> Shape:
    table = REPLICATED[name].table
    kept = block.columns or tuple(one.name for one in table.columns)
    return Shape(
        table,
        columns=tuple(one for one in kept if one not in block.exclude),
        hashed=block.hash,
        contract=block.contract or settings.contract,
        called=block.called,
        remove=settings.deletes == "remove",
    )
