"""Push at work: the registry of devices, what it tells, the senders, and campaigns."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import msgspec
import structlog

from ..clock import Clock
from ..config import Config, DestinationEntry
from ..destinations.fcm import FcmAccount, FcmSettings
from ..device import PUSH, REGISTRY, Device, Noted
from ..errors import TowpathError
from ..http import Http, Transport
from ..jobs import Schedule
from ..jobs.runner import Jobs
from ..log import Log
from ..notice import Notice
from ..push.campaigns import CampaignDesk
from ..push.mailing import CampaignJob
from ..push.outbox import Outbox
from ..push.pace import Pace
from ..push.parts import Parts
from ..push.pusher import Pushes
from ..push.registry import NO_PROJECT, Registry
from ..push.sender import Account, Sender
from ..push.settings import PushSettings
from ..push.sweep import Sweep
from ..state import State
from ..views import moment
from .accounts import Accounts

SWEEP_CRON = "17 4 * * *"
AGAIN_S = 5.0
LOOK_S = 30.0

log = structlog.get_logger("towpath.push")


class Push:
    """Everything of the section `push:`. `apply` puts a configuration in force, `begin` starts what runs.

    `held_back` says of a person that they are suppressed, `accounts` opens what segments are read from.
    """

    def __init__(
        self,
        store: Log,
        state: State,
        clock: Clock,
        transport: Transport,
        jobs: Jobs,
        held_back: Callable[[str], bool],
        accounts: Accounts,
    ) -> None:
        self._log = store
        self._state = state
        self._clock = clock
        self._transport = transport
        self._jobs = jobs
        self._held_back = held_back
        self._accounts = accounts
        self._parts: Parts | None = None
        self._senders: dict[tuple[str, str, float, str], Sender] = {}
        self._paces: dict[tuple[str, str, float], Pace] = {}
        self._outbox = Outbox(state.engine, clock)
        self._told = asyncio.Event()
        self._carrying: asyncio.Task[None] | None = None
        self._campaigns = CampaignJob(lambda: self.parts)
        self.desk = CampaignDesk(lambda: self.parts, jobs, clock)

    @property
    def on(self) -> bool:
        """Whether the configuration has the section."""
        return self._parts is not None

    @property
    def parts(self) -> Parts:
        """What is in force. Raises `TowpathError` without the section."""
        if self._parts is None:
            raise TowpathError(
                "push is not configured",
                code="E5300",
                fix="add a section  push:  to the configuration (docs/push.md)",
                data="Nothing was changed.",
            )
        return self._parts

    @property
    def registry(self) -> Registry:
        """The devices."""
        return self.parts.registry

    async def apply(self, config: Config) -> None:
        """Put a configuration in force. Raises `TowpathError` with nothing changed."""
        settings = config.push
        if settings is None:
            await self._leave()
            return
        account = _account(config, settings)
        sender = None if account is None else self._sender(account)
        project = NO_PROJECT if account is None else account.project_id
        registry = self._registry(project, settings, config.identity.junk)
        await registry.adopt()
        notices = {code: Notice(made, code) for code, made in settings.campaigns.items()}
        self._parts = Parts(
            registry, self._state.campaigns, sender, settings, notices, self._held_back, self._accounts
        )
        await self._jobs.register(self._campaigns)
        await self._jobs.register(Sweep(lambda: self.registry), Schedule(cron=SWEEP_CRON))
        if self._carrying is not None and sender is not None:
            # Campaigns whose runs gave up while there was nothing to send them with.
            await self.desk.revive()

    async def begin(self) -> None:
        """Carry what the registry tells into the log, and go on with campaigns."""
        self._carrying = asyncio.create_task(self._carry())
        if self.on:
            await self.desk.revive()

    async def halt(self) -> None:
        """Send nothing more: what waits for its place stays waiting, on disk."""
        for sender in self._senders.values():
            await sender.stop()

    async def stop(self) -> None:
        """End the senders; after the connections, and the jobs."""
        if self._carrying is not None:
            self._carrying.cancel()
            await asyncio.gather(self._carrying, return_exceptions=True)
        for sender in self._senders.values():
            await sender.close()

    def ports(self, entry: DestinationEntry, connection: str) -> Mapping[str, Any]:
        """What a destination asked for by name. Raises `TowpathError` for what is not configured."""
        wanted: Mapping[str, Callable[[], Any]] = {
            REGISTRY: lambda: _Current(lambda: self.registry),
            PUSH: lambda: self._pusher(entry, connection),
        }
        return {name: wanted[name]() for name in entry.kind.ports if name in wanted}

    async def let_go(self, ids: frozenset[str]) -> None:
        """Tell nothing more to these ids, nor anything of them: they are about to be erased."""
        await self._campaigns.let_go(ids)
        await self._outbox.forget(ids)

    async def standing(self) -> Mapping[str, Any]:
        """How it stands, for people."""
        parts = self.parts
        counted = await parts.registry.counts()
        active = sum(counted.platforms.values())
        sender = parts.sender
        return {
            "project": parts.registry.project or None,
            "devices": dict(counted.statuses),
            "active_by_type": dict(counted.platforms),
            "provisional": counted.provisional,
            "not_refreshed": counted.late,
            "not_refreshed_share": round(counted.late / active, 4) if active else 0.0,
            "last_report": moment(counted.newest),
            "untold": await self._outbox.count(),
            "sending": None if sender is None else _health(sender),
        }

    # -- parts -----------------------------------------------------------------------------------------

    async def _leave(self) -> None:
        if self._parts is not None:
            self._parts = None
            for name in (CampaignJob.kind, Sweep.kind):
                await self._jobs.forget(name)

    def _registry(self, project: str, settings: PushSettings, junk: Collection[str]) -> Registry:
        """The registry of a project: the one there is, with other settings, or another."""
        known = None if self._parts is None else self._parts.registry
        if known is not None and known.project == project:
            known.settings, known.junk = settings, junk
            return known
        return Registry(self._state.engine, project, self._clock, settings, junk=junk, told=self._tell)

    def _tell(self) -> None:
        """Hear, from any thread, that there is something in the outbox."""
        if self._carrying is not None:
            self._carrying.get_loop().call_soon_threadsafe(self._told.set)

    async def _carry(self) -> None:
        while True:
            try:
                await self._outbox.drain(self._log)
                pause_s = LOOK_S
            except Exception as error:
                log.error("what devices did could not be written; again in a moment", error=repr(error)[:300])
                pause_s = AGAIN_S
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._told.wait(), pause_s)
            self._told.clear()

    def _sender(self, account: FcmAccount) -> Sender:
        """The sender of an account; all of one project keep one pace, whoever's key they show."""
        key = account.service_account.get_secret_value()
        told = Account(key, account.project_id, account.fcm_url, account.rate / 60, headroom=account.headroom)
        project = (account.project_id, account.fcm_url, account.rate_per_s)
        if (*project, key) not in self._senders:
            door = Http(self._transport, self._clock, secrets=(key,))
            pace = self._paces.get(project)
            sender = Sender(told, door, self._clock, pace=pace)
            self._paces[project] = sender.pace
            self._senders[*project, key] = sender
        return self._senders[*project, key]

    def _pusher(self, entry: DestinationEntry, connection: str) -> Pushes:
        if not isinstance(entry.settings, FcmAccount):
            raise TowpathError(f"{entry.name} asks for pushes and has no FCM account", code="E5304")
        sender = self._sender(entry.settings)
        return Pushes(connection, self._state.campaigns, sender, lambda: self.parts, self._clock)


class _Current:
    """Implements `device.Devices` by whatever registry is in force."""

    def __init__(self, registry: Callable[[], Registry]) -> None:
        self._registry = registry

    async def apply(self, noted: Sequence[Noted]) -> Sequence[tuple[str, ...]]:
        """Apply messages in order."""
        return await self._registry().apply(noted)

    async def of_person(self, person: str) -> Sequence[Device]:
        """Find a person's devices."""
        return await self._registry().of_person(person)


def _account(config: Config, settings: PushSettings) -> FcmAccount | None:
    """The account that campaigns are sent with."""
    if settings.account is None:
        return None
    fields = config.accounts[settings.account].fields
    return FcmSettings.model_validate(dict(fields))


def _health(sender: Sender) -> dict[str, Any]:
    return {
        "per_s": round(sender.pace.level_per_s, 1),
        "paused_s": round(sender.pace.paused_s, 1),
        "p95_ms": round(1000 * sender.health.p95_s, 1),
        "failed_share": round(sender.health.failed_share, 4),
        "alarm": sender.health.alarm,
        "verdicts": msgspec.to_builtins(dict(sender.health.counts)),
    }
