"""The configuration as the program uses it: names resolved, defaults filled in, settings validated."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any, Literal

from msgspec import Struct

from towpath.connection import DeleteLimit
from towpath.mapping import ConsentRule, MapRule
from towpath.push.settings import PushSettings
from towpath.replicate.settings import ReplicationSettings
from towpath.warehouse.settings import WarehouseAccount

from .model import Admin, IdentityBlock, Jobs, Privacy, Retention, Server


class RetryRule(Struct, frozen=True):
    """How one destination's deliveries are retried, in seconds."""

    schedule_s: tuple[float, ...]
    timeout_s: float


class SourceEntry(Struct, frozen=True):
    """A source of the file; `settings` is an instance of its kind's `Settings`."""

    name: str
    type: str
    settings: Any

    def __repr__(self) -> str:
        return f"SourceEntry({self.name!r}, {self.type!r})"


class DestinationEntry(Struct, frozen=True):
    """A destination of the file: `kind` is its class, `settings` an instance of the class's `Settings`."""

    name: str
    kind: type[Any]
    account: str
    settings: Any
    retry: RetryRule

    @property
    def type(self) -> str:
        """What the file says after `type:`."""
        return str(self.kind.name)

    def __repr__(self) -> str:
        return f"DestinationEntry({self.name!r}, {self.type!r}, account={self.account!r})"


class TransformEntry(Struct, frozen=True):
    """A Python function, `module:function`; `state` changes with its code: a reload starts it anew.

    `environment` names the variables it may read besides those every function sees.
    """

    function: str
    directory: Path
    timeout_s: float
    state: str = ""
    environment: tuple[str, ...] = ()


class ConnectionEntry(Struct, frozen=True):
    """One pair of a set of sources and a destination; `max_age_s` is by event name, message type or "*"."""

    name: str
    sources: frozenset[str]
    destination: str
    only: frozenset[str] = frozenset()
    events: frozenset[str] = frozenset()
    start: Literal["now", "earliest"] = "now"
    max_age_s: Mapping[str, float] = {}
    enabled: bool = True
    filter: str = ""
    consent: ConsentRule | None = None
    transform: TransformEntry | None = None
    map: tuple[MapRule, ...] = ()
    delete_limit: DeleteLimit | None = DeleteLimit()


class AccountEntry(Struct, frozen=True):
    """An entry of `accounts`: what was written there, by field name."""

    name: str
    type: str
    fields: Mapping[str, Any]

    def __repr__(self) -> str:
        return f"AccountEntry({self.name!r}, {self.type!r})"


class ReplicationEntry(Struct, frozen=True):
    """A replication: the accounts it reads, by name, and the warehouse it writes, with absolute paths."""

    name: str
    settings: ReplicationSettings
    sources: Mapping[str, AccountEntry]
    target: WarehouseAccount

    @property
    def type(self) -> str:
        """Which tool is copied."""
        return "customerio"

    def __repr__(self) -> str:
        return f"ReplicationEntry({self.name!r}, from={list(self.sources)!r}, to={self.settings.to!r})"


class Config(Struct, frozen=True):
    """towpath.yaml, read and checked. Paths are absolute; nothing secret is in its repr."""

    file: Path
    server: Server
    admin: Admin
    storage: Path
    socket: Path
    durability: Literal["strict", "relaxed"]
    accounts: Mapping[str, AccountEntry]
    sources: Mapping[str, SourceEntry]
    destinations: Mapping[str, DestinationEntry]
    connections: Sequence[ConnectionEntry]
    retry: RetryRule
    retention: Retention
    privacy: Privacy
    jobs: Jobs = Jobs()
    identity: IdentityBlock = IdentityBlock()
    push: PushSettings | None = None
    replications: Mapping[str, ReplicationEntry] = {}


def seconds(values: Sequence[timedelta]) -> tuple[float, ...]:
    """Durations as seconds."""
    return tuple(value.total_seconds() for value in values)
