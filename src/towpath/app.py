"""The program: configuration in, running parts out: store, ingest, one delivery loop per connection."""

from __future__ import annotations

import asyncio
import contextlib
import os
from collections.abc import Callable, Mapping
from typing import Any

import structlog

from . import registry
from .budget import Budget
from .bus import Bus
from .clock import Clock, SystemClock
from .config import Config, ConnectionEntry, DestinationEntry
from .connection import Connection
from .deliver import DeliveryLoop
from .destination import Destination, Scope
from .errors import TowpathError
from .guard import GuardedTransport
from .http import Http, Throttle, Transport
from .identity import Identity
from .ingest import Ingest, IngestLimits
from .inspection import flying
from .log.sqlite import SqliteStore
from .message import Message
from .redaction import setting_secrets
from .retry import RetryPolicy
from .secrets import Secrets
from .state import State
from .transport import PyreqwestTransport

CHORES_S = 3600.0
log = structlog.get_logger("towpath.app")


class Running:
    """One connection at work: its loop, the task that runs it, and the entries it was made from."""

    def __init__(self, entry: ConnectionEntry, destination: DestinationEntry, loop: DeliveryLoop) -> None:
        self.entry = entry
        self.destination = destination
        self.loop = loop
        self.task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin delivering."""
        self.task = asyncio.create_task(self.loop.run())
        self.task.add_done_callback(self._ended)

    async def stop(self) -> None:
        """End gracefully."""
        await self.loop.stop()
        if self.task is not None:
            await asyncio.gather(self.task, return_exceptions=True)

    def _ended(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            log.error("a delivery loop ended", connection=self.entry.name, error=repr(error))


class App:
    """Everything of one data directory. Use `async with App(config) as app`.

    `delivering=False` opens the stores without starting loops: what the CLI does while no server runs.
    """

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
        self._suppressed: frozenset[str] = frozenset()
        self._budgets: dict[tuple[str, str], Budget] = {}
        self._open_transport: Transport = PyreqwestTransport()
        self._guarded_transport: Transport = GuardedTransport()
        self._chores: asyncio.Task[None] | None = None
        self._reloading = asyncio.Lock()
        self.store: SqliteStore
        self.state: State
        self.secrets: Secrets
        self.ingest: Ingest

    async def __aenter__(self) -> App:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    # -- life ------------------------------------------------------------------------------------------

    async def start(self) -> None:
        """Open the stores and, if delivering, start every connection."""
        config = self.config
        config.storage.mkdir(parents=True, exist_ok=True)
        window_s = config.retention.dedup.total_seconds()
        strict = config.durability == "strict"
        self.store = await SqliteStore.begin(config.storage, self.clock, window_s=window_s, durable=strict)
        self.state = State.open(config.storage, self.clock)
        self.secrets = Secrets.open(self.state, clock=self.clock)
        self.identity = Identity(self.store)
        self._suppressed = await self.store.suppressed()
        self.ingest = self._make_ingest(config)
        for entry in config.connections:
            await self.store.connect(entry.name, entry.sources, entry.start)
            if self.delivering and entry.enabled:
                await self._start_connection(entry)
        if self.delivering:
            self._chores = asyncio.create_task(self._do_chores())

    async def stop(self) -> None:
        """Stop gracefully: calls under way end and are settled; then everything is closed."""
        if self._chores is not None:
            self._chores.cancel()
        await asyncio.gather(*(running.stop() for running in self.connections.values()))
        await self._open_transport.close()
        await self._guarded_transport.close()
        await self.store.close()
        self.state.close()

    async def reload(self) -> None:
        """Read the configuration again; what changed starts anew, the rest goes on. Raises `ConfigError`."""
        if self._reread is None:
            raise TowpathError("this program was started without a configuration file", code="E5004")
        async with self._reloading:
            config = self._reread()
            old, self.config = self.config, config
            self.ingest.replace(_segment_sources(config))
            wanted = {entry.name: entry for entry in config.connections if entry.enabled}
            for name, running in list(self.connections.items()):
                if name not in wanted or not self._same(running, wanted[name]):
                    await self.connections.pop(name).stop()
            for name, entry in wanted.items():
                if name not in self.connections:
                    await self.store.connect(entry.name, entry.sources, entry.start)
                    await self._start_connection(entry)
            log.info("configuration applied", file=str(config.file), changed=old != config)

    def _same(self, running: Running, entry: ConnectionEntry) -> bool:
        return running.entry == entry and running.destination == self.config.destinations.get(
            entry.destination
        )

    # -- parts -----------------------------------------------------------------------------------------

    def _make_ingest(self, config: Config) -> Ingest:
        return Ingest(
            self.store,
            _segment_sources(config),
            self.clock,
            limits=IngestLimits(
                event_bytes=config.server.limits.event,
                request_bytes=config.server.limits.request,
                depth=config.server.limits.depth,
            ),
            trusted_proxies=config.server.trusted_proxies,
            public_url=config.server.public_url or "",
        )

    async def _start_connection(self, entry: ConnectionEntry) -> None:
        destination = self.config.destinations[entry.destination]
        connection = connection_of(entry, destination)
        loop = DeliveryLoop(
            connection,
            self.store,
            self.store,
            self.identity,
            self.scope(destination, connection.destination, entry.name),
            policy=RetryPolicy(schedule_s=destination.retry.schedule_s),
            owner=f"pid-{os.getpid()}",
            suppressed=self.is_suppressed,
            observe=self.bus.observe,
        )
        running = self.connections[entry.name] = Running(entry, destination, loop)
        running.start()

    def scope(self, entry: DestinationEntry, destination: Destination[Any], connection: str) -> Scope:
        """What a connection's destination may touch: its own door, on its account's budgets."""
        http = Http(
            self._open_transport if destination.allow_private() else self._guarded_transport,
            self.clock,
            headers=destination.headers(),
            throttles=self._throttles(entry, destination),
            timeout_s=entry.retry.timeout_s,
            secrets=setting_secrets(entry.settings),
        )
        return Scope(http, self.clock, self.state.memory(connection))

    def _throttles(self, entry: DestinationEntry, destination: Destination[Any]) -> Mapping[str, Throttle]:
        budgets: dict[str, Throttle] = {}
        for bucket, per_minute in destination.budgets().items():
            known = self._budgets.get((entry.account, bucket))
            if known is None or known.per_minute != per_minute:
                known = self._budgets[entry.account, bucket] = Budget(self.clock, per_minute)
            budgets[bucket] = known
        return budgets

    # -- people ----------------------------------------------------------------------------------------

    def is_suppressed(self, message: Message) -> bool:
        """Whether a message concerns a suppressed person."""
        if not self._suppressed:
            return False
        return message.user_id in self._suppressed or message.anonymous_id in self._suppressed

    async def suppress(self, ids: frozenset[str], *, on: bool) -> None:
        """Deliver nothing more of these exact ids, or deliver again; effective with the next request."""
        await (self.store.suppress(ids) if on else self.store.unsuppress(ids))
        self._suppressed = await self.store.suppressed()

    async def erase(self, ids: frozenset[str]) -> Mapping[str, int]:
        """Remove every trace of these exact ids here (D10). Deliveries under way end first."""
        before = self._suppressed
        self._suppressed = before | ids
        try:
            await self._quiet(ids)
            erased = await self.store.erase(ids)
            for running in self.connections.values():
                running.loop.forget(ids)
            self.state.forget_memories()
        finally:
            self._suppressed = before
        return {"records": erased.records, "copies": erased.copies}

    async def _quiet(self, ids: frozenset[str]) -> None:
        """Wait until no call for these persons is under way."""
        while any(flying(running.loop, ids) for running in self.connections.values()):
            await self.clock.sleep(0.02)

    # -- chores ----------------------------------------------------------------------------------------

    async def _do_chores(self) -> None:
        while True:
            with contextlib.suppress(OSError):
                await self.tidy()
            await self.clock.sleep(CHORES_S)

    async def tidy(self) -> None:
        """Drop what is past its retention (D19)."""
        now, keep = self.clock.now(), self.config.retention
        trimmed = await self.store.trim(now - keep.log.total_seconds())
        pruned = await self.store.prune(now - keep.dead_letters.total_seconds())
        if trimmed or pruned:
            log.info("retention applied", records=trimmed, dead_letters=pruned)


def connection_of(entry: ConnectionEntry, destination: DestinationEntry) -> Connection:
    """The connection of an entry, with its destination made from its settings."""
    return Connection(
        name=entry.name,
        sources=entry.sources,
        destination_name=destination.name,
        destination=registry.destinations()[destination.type](destination.settings),
        only=entry.only,
        events=entry.events,
        max_age_s=entry.max_age_s,
        start=entry.start,
    )


def _segment_sources(config: Config) -> dict[str, Any]:
    return {name: entry.settings for name, entry in config.sources.items() if entry.type == "segment"}
