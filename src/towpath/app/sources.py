"""The sources at work beside the event API: those that call us, that we ask, that we listen to."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterable, Mapping
from functools import partial
from typing import Any

import structlog
from msgspec import Struct

from .. import registry
from ..budget import Budget
from ..clock import Clock
from ..config import Config, SourceEntry
from ..destination import Check
from ..feed import Feed
from ..http import Http, Transport
from ..ingest import IngestLimits
from ..ingest.inbound import Door, Webhooks
from ..jobs import Schedule
from ..jobs.runner import Jobs
from ..log import Log
from ..message import Message
from ..redaction import setting_secrets
from ..source import Heard, Inbound, Known, Listening, Page, Polled, Source, SourceScope
from ..state import State
from .line import Line
from .polls import PollJob, take

BACK_OFF_S = (1.0, 5.0, 15.0, 60.0, 300.0)
STEADY_S = 600.0

log = structlog.get_logger("towpath.sources")


class Station(Struct):
    """One source at work; `hearing` is the task that listens on `line`, where it does."""

    entry: SourceEntry
    source: Source[Any]
    feed: Feed
    budgets: Mapping[str, Budget]
    hearing: asyncio.Task[None] | None = None
    line: Line | None = None


class Sources:
    """Every source of the configuration but the event API's. `apply` puts a configuration in force."""

    def __init__(
        self,
        log: Log,
        state: State,
        clock: Clock,
        transport: Transport,
        jobs: Jobs,
        tell: Callable[[Mapping[str, Any]], None] = lambda _: None,
    ) -> None:
        self.stations: dict[str, Station] = {}
        self.webhooks = Webhooks({}, clock)
        self._log = log
        self._state = state
        self._clock = clock
        self._transport = transport
        self._jobs = jobs
        self._tell = tell  # who listens to what happens
        self._listening = False
        self._telling: set[asyncio.Task[None]] = set()
        self._feeds: dict[str, Feed] = {}  # one for each name as long as we live: it keeps the turns apart

    async def apply(self, config: Config) -> None:
        """Put a configuration's sources in force: what did not change goes on.

        Raises `TowpathError` for a kind that cannot be loaded, with nothing changed.
        """
        wanted = {
            name: made for name, entry in config.sources.items() if (made := _source(entry)) is not None
        }
        leaving = [
            name
            for name, station in self.stations.items()
            if name not in wanted or station.entry != config.sources[name]
        ]
        for name in leaving:
            await self._leave(name)
        for name, source in wanted.items():
            if name not in self.stations:
                self.stations[name] = await self._station(config.sources[name], source)
                await self._register(name)
        self._open_doors(config)
        for name in await self.left_behind(config):
            log.warning(
                "not in the configuration any more: what it remembers of people is kept until it is dropped",
                source=name, fix=f"towpath sources drop {name}",
            )  # fmt: skip
        if self._listening:
            self.listen()

    def listen(self) -> None:
        """Begin listening, where sources do."""
        self._listening = True
        for name, station in self.stations.items():
            if not station.entry.settings.enabled or station.hearing is not None:
                continue
            if isinstance(station.source, Listening):
                station.hearing = asyncio.create_task(self._keep_listening(name, station))

    async def stop(self) -> None:
        """End listening; what was heard and not kept is heard again at the next start."""
        self._listening = False
        tasks = [station.hearing for station in self.stations.values() if station.hearing is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def check(self, name: str) -> list[Check]:
        """Ask a source whether its settings work."""
        station = self.stations.get(name)
        found = [] if station is None else await station.source.check(self._scope(station, {}))
        return list(found) or [Check(f"{name} is configured", ok=True)]

    def undelivered(self, name: str, message: Message) -> None:
        """Tell a source that one of its messages became a dead letter."""
        station = self.stations.get(name)
        if station is not None and type(station.source).undelivered is not Source.undelivered:
            task = asyncio.create_task(_tell(station, message))
            self._telling.add(task)
            task.add_done_callback(self._telling.discard)

    async def persons(self, names: Iterable[str]) -> int:
        """How many people these sources know together; they are counted on the disk, off the loop."""
        stations = [self.stations[name] for name in names if name in self.stations]
        counts = [
            asyncio.to_thread(station.source.persons, station.feed.facts.view()) for station in stations
        ]
        return sum(await asyncio.gather(*counts))

    async def left_behind(self, config: Config) -> list[str]:
        """The sources that remember something, and that a configuration does not have."""
        found = await asyncio.to_thread(self._state.remembering)
        return [name for name in found if name not in config.sources]

    async def drop(self, name: str) -> int:
        """Forget what a removed source remembers; how many facts. One of its name begins anew."""
        self._feeds.pop(name, None)
        await self._log.append((), (), (name, {}))
        return await asyncio.to_thread(self._state.forget_source, name)

    async def forget_journals(self) -> None:
        """Take what the last turns learnt out of the log: an erase is about to begin."""
        for feed in self._feeds.values():
            await feed.forget_journal()

    def standing(self) -> Mapping[str, dict[str, Any]]:
        """What each source ignored and refused since the start, and how its line is, where it listens."""
        return {
            name: {
                "ignored": dict(station.feed.counts),
                "unauthorized": self.webhooks.refused[name],
                "line": None if station.line is None else station.line.shown(),
            }
            for name, station in self.stations.items()
        }

    # -- parts -----------------------------------------------------------------------------------------

    async def _station(self, entry: SourceEntry, source: Source[Any]) -> Station:
        feed = self._feeds.get(entry.name)
        if feed is None:
            facts = self._state.facts(entry.name)
            feed = Feed(entry.name, entry.settings.trust, self._log, facts, self._clock)
            await feed.recover()
            self._feeds[entry.name] = feed
        feed.trust = entry.settings.trust
        budgets = {bucket: Budget(self._clock, rate) for bucket, rate in source.budgets().items()}
        return Station(entry, source, feed, budgets)

    def _scope(self, station: Station, options: Mapping[str, str]) -> SourceScope:
        source = station.source
        http = Http(
            self._transport,
            self._clock,
            headers=source.headers(),
            throttles=station.budgets,
            secrets=setting_secrets(station.entry.settings),
        )
        return SourceScope(http, self._clock, station.feed.facts.view(), options)

    async def _register(self, name: str) -> None:
        station = self.stations[name]
        if not isinstance(station.source, Polled) or not station.entry.settings.enabled:
            return
        for poll in station.source.polls():
            job = PollJob(name, station.source, poll, station.feed, partial(self._scope, station))
            schedule = None if poll.every_s is None else Schedule(every_s=poll.every_s)
            await self._jobs.register(job, schedule)

    async def _leave(self, name: str) -> None:
        station = self.stations.pop(name)
        if station.hearing is not None:
            station.hearing.cancel()
            await asyncio.gather(station.hearing, return_exceptions=True)
        if isinstance(station.source, Polled):
            for poll in station.source.polls():
                await self._jobs.forget(f"{name}.{poll.name}")

    def _open_doors(self, config: Config) -> None:
        doors = {
            name: Door(station.source, station.feed)
            for name, station in self.stations.items()
            if isinstance(station.source, Inbound)
        }
        limits = IngestLimits(request_bytes=config.server.limits.request)
        self.webhooks.replace(doors, limits=limits, trusted_proxies=config.server.trusted_proxies)

    async def _keep_listening(self, name: str, station: Station) -> None:
        """Listen for ever; begin again after a pause when it ends or fails."""
        failures, line = 0, Line(name, self._clock, self._tell)
        while True:
            began_s = self._clock.monotonic()
            try:
                pages = _pages(station.source, station.feed.state, self._scope(station, {}))
                if pages is None:
                    return
                station.line = line
                await self._hear(station, line, pages)
                why = "the connection ended"
            except Exception as error:
                why = f"{type(error).__name__}: {str(error)[:300]}"
            failures = 0 if self._clock.monotonic() - began_s >= STEADY_S else failures + 1
            pause_s = BACK_OFF_S[min(failures, len(BACK_OFF_S)) - 1] if failures else BACK_OFF_S[0]
            line.failed(why, pause_s)
            await self._clock.sleep(pause_s)

    async def _hear(self, station: Station, line: Line, pages: AsyncIterator[Page]) -> None:
        line.begin()
        holding = asyncio.create_task(line.hold())
        try:
            async for page in pages:
                await take(station.feed, station.source, page, state=page.state)
                line.heard()
        finally:
            holding.cancel()
            if isinstance(pages, AsyncGenerator):
                await pages.aclose()


async def _tell(station: Station, message: Message) -> None:
    def make(known: Known) -> Iterable[Heard]:
        station.source.undelivered(message, known)
        return ()

    try:
        await station.feed.take(make)
    except Exception as error:  # `firebase backfill --full` and its like are for what this misses
        why = repr(error)[:200]
        log.warning("a source did not hear of a dead letter", source=station.entry.name, error=why)


def _pages(source: Source[Any], state: Mapping[str, Any], scope: SourceScope) -> AsyncIterator[Page] | None:
    return source.listen(state, scope) if isinstance(source, Listening) else None


def _source(entry: SourceEntry) -> Source[Any] | None:
    """The source of an entry; None for the event API, no class of its own, and for what is built in."""
    kind: Callable[[Any], Any] | None = registry.sources().get(entry.type)
    return kind(entry.settings) if isinstance(kind, type) and issubclass(kind, Source) else None
