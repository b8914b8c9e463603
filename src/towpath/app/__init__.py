"""The program: configuration in, running parts out: store, ingest, one delivery loop per connection."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import structlog
from msgspec import Struct

from ..budget import Budget
from ..bus import Bus
from ..clock import Clock, SystemClock
from ..config import Config, ConnectionEntry, DestinationEntry
from ..deliver import DeliveryLoop
from ..destination import Destination, Scope
from ..errors import TowpathError
from ..guard import GuardedTransport
from ..http import Http, Throttle, Transport
from ..identity import Identity
from ..ingest import Ingest, IngestLimits
from ..jobs.runner import Jobs
from ..jobs.words import without_addresses
from ..lanes import Item
from ..log import LogFull
from ..log.sqlite import SqliteStore
from ..outcome import Outcome, Rejected
from ..redaction import redact, setting_secrets
from ..retry import RetryPolicy
from ..secrets import Secrets
from ..state import Reserve, State
from ..transport_http1 import Http1Transport
from ..wiring import allowances, connection_of
from .accounts import Accounts
from .leaving import Leaving
from .people import Mentions, People
from .push import Push
from .replications import Replications
from .running import Running
from .sources import Sources
from .trim import Trim

__all__ = ["App", "Mentions", "People", "Reloaded", "Running", "Sources"]

RESTORED_S = 5.0
log = structlog.get_logger("towpath.app")


class Reloaded(Struct, frozen=True):
    """What a reload did: connections started anew, connections ended, and keys that need a restart.

    `leaving` names by connection the sources that were taken off it and still have deliveries there,
    `waiting` counts what waits on connections that the file no longer has.
    """

    started: list[str]
    ended: list[str]
    needs_restart: list[str]
    leaving: Mapping[str, list[str]] = {}
    waiting: Mapping[str, int] = {}


class App:
    """Everything of one data directory. Use `async with App(config) as app`.

    `delivering=False` opens the stores without starting loops: what the CLI does while no server runs.
    `reread` reads the configuration again for `reload`.
    """

    store: SqliteStore
    state: State
    reserve: Reserve
    secrets: Secrets
    ingest: Ingest
    people: People
    jobs: Jobs
    sources: Sources
    push: Push
    replications: Replications
    leaving: Leaving

    def __init__(
        self,
        config: Config,
        *,
        clock: Clock | None = None,
        delivering: bool = True,
        reread: Callable[[], Config] | None = None,
    ) -> None:
        self.config = config
        self.clock = clock or SystemClock()
        self.bus = Bus()
        self.delivering = delivering
        self.connections: dict[str, Running] = {}
        self._reread = reread
        self._budgets: dict[tuple[str, str], Budget] = {}
        self._open_transport: Transport = Http1Transport()
        self._guarded_transport: Transport = GuardedTransport()
        self._reloading = asyncio.Lock()
        self._needs_restart: list[str] = []
        self._closing = contextlib.AsyncExitStack()

    async def __aenter__(self) -> App:
        await self.open()
        try:
            if self.delivering:
                await self.begin()
        except BaseException:
            await self.stop()
            raise
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    # -- life ------------------------------------------------------------------------------------------

    async def open(self) -> None:
        """Take the data directory and open its stores. Raises `TowpathError` when it is in use or damaged."""
        async with contextlib.AsyncExitStack() as undo:
            await self._open(undo)
            self._closing = undo.pop_all()

    async def _open(self, undo: contextlib.AsyncExitStack) -> None:
        config = self.config
        window_s, strict = config.retention.dedup.total_seconds(), config.durability == "strict"
        undo.push_async_callback(self._open_transport.close)
        undo.push_async_callback(self._guarded_transport.close)
        try:
            config.storage.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.reserve = Reserve(config.storage)
            self.reserve.release()
            self.store = await SqliteStore.begin(
                config.storage,
                self.clock,
                window_s=window_s,
                durable=strict,
                relieve=self.reserve.release,
            )
        except (OSError, LogFull) as error:
            raise _unusable(config, error) from error
        undo.push_async_callback(self.store.close)
        self.state = State.open(config.storage, self.clock)
        undo.callback(self.state.close)
        await asyncio.to_thread(self.reserve.keep)
        self.secrets = Secrets.open(self.state, clock=self.clock)
        caps = config.identity
        self.identity = Identity(
            self.store, junk=caps.junk, links_max=caps.links, identifiers_max=caps.identifiers
        )
        self.people = People(
            self.store,
            self.state,
            self.clock,
            lambda: [running.loop for running in self.connections.values()],
            self._before_erasing,
        )
        await self.people.load()
        self.jobs = Jobs(self.state.jobs, self.clock, redact=self._redact)
        undo.callback(self.jobs.close)
        self.ingest = self._make_ingest(config)
        self.sources = Sources(
            self.store, self.state, self.clock, self._open_transport, self.jobs, self.bus.tell
        )
        await self.sources.apply(config)
        self.accounts = Accounts(
            self.state, self.clock, self._open_transport, self._budget, lambda: self.config
        )
        held_back = self.people.holds_back
        self.push = Push(
            self.store, self.state, self.clock, self._open_transport, self.jobs, held_back, self.accounts
        )
        undo.push_async_callback(self.push.stop)
        await self.push.apply(config)
        self.replications = Replications(self.accounts, self.clock, self.jobs, config.storage)
        undo.push_async_callback(self.replications.close)
        await self.replications.apply(config)
        self.leaving = Leaving(self.store, self.state)
        await self._connect(config)
        await self._register_jobs(config)

    async def _before_erasing(self, ids: frozenset[str]) -> None:
        await self.sources.forget_journals()
        await self.push.let_go(ids)

    async def begin(self) -> None:
        """Start every connection, and the jobs."""
        if self.config.durability == "relaxed":
            log.warning("durability is relaxed: a power cut may lose the last accepted events")
        self._share_budgets(self.config)
        for entry in self.config.connections:
            if entry.enabled:
                self._start(self._make_running(entry, self.config))
        await self._warn_of_leftovers()
        self.sources.listen()
        await self.push.begin()
        await self.jobs.start()

    async def _warn_of_leftovers(self) -> dict[str, int]:
        """Name connections that the file no longer has: they hold their records, and the disk, for ever.

        How much waits on each.
        """
        configured = {entry.name for entry in self.config.connections}
        leftovers: dict[str, int] = {}
        for row in await self.store.balance():
            if row.connection not in configured:
                log.warning(
                    "not in the configuration any more: its records are kept until it is dropped",
                    connection=row.connection, waiting=row.waiting, fix="towpath connections drop",
                )  # fmt: skip
                leftovers[row.connection] = row.waiting
        return leftovers

    async def halt(self) -> None:
        """Stop delivering, within 10 seconds: calls under way end and are settled, jobs keep their place."""
        self.bus.close()
        await self.sources.stop()
        await self.push.halt()
        await asyncio.gather(self.jobs.stop(), *(running.stop() for running in self.connections.values()))

    async def stop(self) -> None:
        """Stop delivering, and close everything."""
        try:
            await self.halt()
        finally:
            await self._closing.aclose()

    # -- reloading -------------------------------------------------------------------------------------

    async def reload(self) -> Reloaded:
        """Read the configuration again; what changed starts anew, the rest goes on.

        Raises `ConfigError` or another `TowpathError` with nothing changed.
        """
        if self._reread is None:
            raise TowpathError("this program was started without a configuration file", code="E5004")
        async with self._reloading:
            config = await asyncio.to_thread(self._reread)
            fresh = [
                self._make_running(entry, config)
                for entry in config.connections
                if entry.enabled and not self._runs(entry, config)
            ]
            self._put_in_force(config)
            await self.sources.apply(config)
            await self.push.apply(config)
            await self.replications.apply(config)
            await self._register_jobs(config)
            return await self._replace(fresh)

    def _put_in_force(self, config: Config) -> None:
        """Write keys and limits hold from the next request on (E031)."""
        if config.server == self.config.server:
            self.ingest.replace(_segment_sources(config))
        else:
            self.ingest = self._make_ingest(config)
        self._needs_restart = _needs_restart(self.config, config)
        self.config = config
        self._share_budgets(config)
        log.info("configuration applied", file=str(config.file), needs_restart=self._needs_restart)

    async def _replace(self, fresh: list[Running]) -> Reloaded:
        wanted = {entry.name for entry in self.config.connections if entry.enabled}
        changed = {running.entry.name for running in fresh}
        stopping = [name for name in self.connections if name in changed or name not in wanted]
        await asyncio.gather(*(self.connections.pop(name).stop() for name in stopping))
        # Only now: a loop that still ran could pass records of a source that was added, and nobody would
        # deliver them.
        await self._connect(self.config)
        for running in fresh:
            # Made to see whether it can be; only now it is known what still runs dry there.
            known = running.loop.connection.leaving == self.leaving.of(running.entry.name)
            self._start(running if known else self._make_running(running.entry, self.config))
        ended = [name for name in stopping if name not in changed]
        leaving = {name: list(left) for name in self.connections if (left := self.leaving.of(name))}
        waiting = {name: count for name, count in (await self._warn_of_leftovers()).items() if count}
        return Reloaded(sorted(changed), ended, self._needs_restart, leaving, waiting)

    def _runs(self, entry: ConnectionEntry, config: Config) -> bool:
        running = self.connections.get(entry.name)
        if running is None or running.fenced:
            return False
        return running.entry == entry and running.destination == config.destinations[entry.destination]

    async def recheck(self) -> None:
        """Ask every destination that refused a credential again: a new one may be in force (P6)."""
        await asyncio.gather(*(self._recheck(running) for running in list(self.connections.values())))

    async def _recheck(self, running: Running) -> None:
        deadline_s = self.clock.monotonic() + RESTORED_S
        name = running.entry.name
        kept = {pause.capability for pause in await self.store.pauses() if pause.connection == name}
        # A loop that has just begun does not know yet what it was paused for.
        while not kept <= {pause.capability for pause in running.loop.pauses.in_force}:
            if self.clock.monotonic() > deadline_s:
                return
            await self.clock.sleep(0.02)
        running.loop.lift_throttle()
        await running.loop.pauses.recheck()

    async def refresh(self, connections: Iterable[str]) -> None:
        """Let connections notice deliveries that became due from outside: a replay, a retry by hand."""
        for name in connections:
            if (running := self.connections.get(name)) is not None:
                running.loop.lift_throttle()
                await running.loop.refresh()

    # -- parts -----------------------------------------------------------------------------------------

    async def _connect(self, config: Config) -> None:
        for entry in config.connections:
            if entry.name not in self.connections:  # one that runs on is unchanged
                await self.leaving.connect(entry)

    def _make_ingest(self, config: Config) -> Ingest:
        limits = config.server.limits
        return Ingest(
            self.store,
            _segment_sources(config),
            self.clock,
            limits=IngestLimits(event_bytes=limits.event, request_bytes=limits.request, depth=limits.depth),
            trusted_proxies=config.server.trusted_proxies,
            public_url=config.server.public_url or "",
        )

    def _start(self, running: Running) -> None:
        self.connections[running.entry.name] = running
        running.start()

    def _make_running(self, entry: ConnectionEntry, config: Config) -> Running:
        destination = config.destinations[entry.destination]
        return Running(entry, destination, self.clock, lambda: self._make_loop(entry, destination))

    def _make_loop(self, entry: ConnectionEntry, destination: DestinationEntry) -> DeliveryLoop:
        connection = connection_of(entry, destination, self.leaving.of(entry.name))
        return DeliveryLoop(
            connection,
            self.store,
            self.store,
            self.identity,
            self.scope(destination, connection.destination, entry.name),
            policy=RetryPolicy(schedule_s=destination.retry.schedule_s),
            owner=f"pid-{os.getpid()}",
            suppressed=self.people.suppressed,
            observe=self._observe,
            persons=lambda: self.sources.persons(entry.sources),
        )

    def _observe(self, connection: str, item: Item, outcome: Outcome) -> None:
        self.bus.observe(connection, item, outcome)
        if isinstance(outcome, Rejected):
            self.sources.undelivered(item.record.source, item.message)

    def scope(
        self,
        entry: DestinationEntry,
        destination: Destination[Any],
        connection: str,
        *,
        budgeted: bool = True,
    ) -> Scope:
        """What a connection's destination may touch: its own door, on its account's budgets.

        `budgeted=False` is for a person's own check, which must not queue behind a throttled account.
        """
        http = Http(
            self._open_transport if destination.allow_private() else self._guarded_transport,
            self.clock,
            headers=destination.headers(),
            throttles=self._throttles(entry, destination) if budgeted else {},
            timeout_s=entry.retry.timeout_s,
            secrets=setting_secrets(entry.settings),
        )
        ports = {**self.push.ports(entry, connection), **self.replications.ports(entry)}
        return Scope(http, self.clock, self.state.memory(connection), ports)

    def _throttles(self, entry: DestinationEntry, destination: Destination[Any]) -> Mapping[str, Throttle]:
        return {
            bucket: self._budget(entry.account, bucket, per_minute)
            for bucket, per_minute in destination.budgets().items()
        }

    def _budget(self, account: str, bucket: str, per_minute: float) -> Budget:
        """What an account is allowed: one budget for all that use it."""
        return self._budgets.setdefault((account, bucket), Budget(self.clock, per_minute))

    def _share_budgets(self, config: Config) -> None:
        """Who shares an account shares its budget, at the lowest rate that any of them names."""
        for key, per_minute in allowances(config).items():
            self._budgets.setdefault(key, Budget(self.clock, per_minute)).change(per_minute)

    # -- jobs ------------------------------------------------------------------------------------------

    async def _register_jobs(self, config: Config) -> None:
        trim = Trim(self.store, self.state, self.jobs, self.reserve, lambda: self.config.retention)
        await self.jobs.register(trim, config.jobs.trim.times())

    def _redact(self, text: str) -> str:
        """What a job may say of itself (D08)."""
        entries: list[Any] = [*self.config.destinations.values(), *self.config.sources.values()]
        secrets = {secret for entry in entries for secret in setting_secrets(entry.settings)}
        secrets |= self.accounts.secrets() | self.replications.secrets()
        shown = redact(text, secrets)
        return shown if self.config.privacy.log_pii else without_addresses(shown)


def _segment_sources(config: Config) -> dict[str, Any]:
    return {name: entry.settings for name, entry in config.sources.items() if entry.type == "segment"}


def _needs_restart(old: Config, new: Config) -> list[str]:
    """Keys that changed and hold only from the next start on."""
    fixed: dict[str, Callable[[Config], object]] = {
        "storage": lambda config: config.storage,
        "durability": lambda config: config.durability,
        "admin": lambda config: (config.admin, config.socket),
        "server.listen": lambda config: config.server.listen,
        "server.tls": lambda config: config.server.tls,
        "retention.dedup": lambda config: config.retention.dedup,
        "identity": lambda config: config.identity,
    }
    return [key for key, value in fixed.items() if value(old) != value(new)]


def _unusable(config: Config, error: OSError | LogFull) -> TowpathError:
    why = error.strerror or error if isinstance(error, OSError) else error
    return TowpathError(
        f"the data directory {config.storage} cannot be used: {why}",
        code="E5005",
        why=f"storage of {config.file}",
        fix="make it writable for this user, make room on its disk, or name another directory as storage",
        data="Nothing was read or changed.",
    )
