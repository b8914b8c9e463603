"""What the registry tells: messages of the source `push`, stored with the change they tell of."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from datetime import UTC, datetime
from functools import lru_cache
from hashlib import blake2b

import msgspec
from msgspec import Struct
from sqlalchemy import Engine

from ..clock import Clock
from ..device import PUSH
from ..log import Entry, Group, Log
from ..message import Envelope, format_time
from ..state.devices import DeviceRow, OutboxRows, Told

CREATED = "Device Created or Updated"
REMOVED = "Device Deleted"
MOVED = "Device Moved"
WEB_CREATED = "Web Device Created or Updated"
WEB_REMOVED = "Web Device Deleted"
"""Browsers have names of their own: Customer.io would refuse a device that is neither ios nor android."""
PAGE = 500

_encode = msgspec.json.Encoder().encode


class Outbox:
    """Carries what the registry tells into the log, in order; once, as the log knows its ids."""

    def __init__(self, engine: Engine, clock: Clock) -> None:
        self._rows = OutboxRows(engine)
        self._clock = clock
        self._carrying = asyncio.Lock()

    async def drain(self, log: Log) -> int:
        """Append everything that waits, page by page, and delete it. Returns how many. Raises as the log."""
        total = 0
        while carried := await self._carry_some(log):
            total += carried
        return total

    async def _carry_some(self, log: Log) -> int:
        async with self._carrying:
            told = await asyncio.to_thread(self._rows.read, PAGE)
            if told:
                envelope = Envelope(source=PUSH, received_at=self._clock.now(), trust="server")
                await log.append([Group(envelope, [Entry(one.message_id, one.body) for one in told])], ())
                await asyncio.to_thread(self._rows.delete, [one.id for one in told])
            return len(told)

    async def forget(self, ids: Collection[str]) -> None:
        """Forget what names these ids: when it returns, it is neither here nor on its way into the log."""
        async with self._carrying:
            await asyncio.to_thread(self._rows.forget, ids)

    async def count(self) -> int:
        """How many messages wait."""
        return await asyncio.to_thread(self._rows.count)


class _Device(Struct, frozen=True, omit_defaults=True):
    id: str
    token: str | None = None
    type: str | None = None


class _App(Struct, frozen=True, omit_defaults=True):
    name: str | None = None
    version: str | None = None


class _Context(Struct, frozen=True, omit_defaults=True):
    device: _Device
    app: _App = _App()
    locale: str | None = None
    timezone: str | None = None


class _Properties(Struct, frozen=True, omit_defaults=True, rename="camel"):
    device_id: str
    device_type: str | None = None
    app: str | None = None
    app_version: str | None = None
    locale: str | None = None
    timezone: str | None = None
    previous_user_id: str | None = None


class _Message(Struct, frozen=True, omit_defaults=True, rename="camel"):
    """A message as the log keeps it: the spec's fields that it has.

    `sent_at` is when that was heard of its person which it follows from: a deletion received later stands.
    """

    type: str
    user_id: str | None
    timestamp: str
    sent_at: str
    event: str | None = None
    previous_id: str | None = None
    properties: _Properties | None = None
    context: _Context | None = None


class Cause(Struct, frozen=True):
    """Why something is told: the message it follows from, when that happened, and when it was received."""

    message_id: str
    at: float
    received_at: float


def created(cause: Cause, row: DeviceRow) -> Told:
    """Tell that a device is reached at an address, or still is."""
    return _of_device(cause, WEB_CREATED if row.platform == "web" else CREATED, row, cause.received_at)


def removed(cause: Cause, row: DeviceRow) -> Told:
    """Tell that a device, as it was, is not reached at its address any more.

    The cause may be another person's: of this one it says nothing newer than what was known.
    """
    return _of_device(cause, WEB_REMOVED if row.platform == "web" else REMOVED, row, row.received_at)


def moved(cause: Cause, before: DeviceRow, after: DeviceRow) -> Told:
    """Tell the new owner's tools that a device was somebody else's."""
    properties = _properties(after, before.person)
    message = _Message(
        "track", after.person, _time(cause.at), _time(cause.received_at), MOVED, properties=properties
    )
    return _told(cause, MOVED, after, message)


def aliased(cause: Cause, old: str, row: DeviceRow) -> Told:
    """Tell that a provisional person turned out to be the device's owner."""
    message = _Message("alias", row.person, _time(cause.at), _time(cause.received_at), previous_id=old)
    return _told(cause, "alias", row, message)


def _of_device(cause: Cause, event: str, row: DeviceRow, heard_at: float) -> Told:
    device, app = _Device(row.id, row.address, row.platform), _App(row.app, row.app_version)
    context = _Context(device, app, row.locale, row.timezone)
    message = _Message(
        "track",
        row.person,
        _time(cause.at),
        _time(heard_at),
        event,
        properties=_properties(row),
        context=context,
    )
    return _told(cause, event, row, message)


def _properties(row: DeviceRow, previous: str | None = None) -> _Properties:
    return _Properties(row.id, row.platform, row.app, row.app_version, row.locale, row.timezone, previous)


def _told(cause: Cause, what: str, row: DeviceRow, message: _Message) -> Told:
    """Make a message whose id depends on its cause alone, so that it is told once."""
    parts = "\0".join((cause.message_id, what, row.id, row.person or "", row.kind or "", row.address or ""))
    name = blake2b(parts.encode("utf-8", "replace"), digest_size=16).hexdigest()
    return Told(f"push-{name}", _encode(message))


@lru_cache(maxsize=256)
def _time(at: float) -> str:
    return format_time(datetime.fromtimestamp(at, UTC))
