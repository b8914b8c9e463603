"""Devices: the built-in connection that keeps the registry of push addresses, and what is known of people."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import msgspec
from pydantic import Field

from towpath.destination import Call, Check, Destination, Ended, Limits, Payload, Scope, Settings
from towpath.device import PUSH, REGISTRY, Noted
from towpath.http import Stopping, Undelivered
from towpath.message import Message
from towpath.outcome import Delivered, Rejected, Skipped

from ._devices_reading import Reading, read_events

BATCH = 500
URL = "towpath:devices"
MOST_FAILURES = 3
"""When so many fail one by one, it is the database, and the rest is not tried."""


class DevicesSettings(Settings):
    """None of its own: the section `push:` has the registry's."""

    proving: tuple[str, ...] = Field(
        default=(), description="The sources that take no userId without a proof, as the file has them."
    )


class DeviceRegistry(Destination[DevicesSettings]):
    """Writes what messages tell of devices and people into the registry of this program."""

    name: ClassVar[str] = "devices"
    Settings: ClassVar[type[DevicesSettings]] = DevicesSettings
    ports: ClassVar[tuple[str, ...]] = (REGISTRY,)

    def limits(self) -> Limits:
        """Batches that fit a transaction; several at once, as those that meet are written together."""
        return Limits(batch=BATCH, in_flight=4, ordered_batch=True)

    def prepare(self, message: Message) -> Payload | Skipped | Rejected:
        """The events that a message tells; skipped where it tells nothing of devices or people."""
        if message.source == PUSH:
            return Skipped("own", "the registry told this itself")
        reading = read_events(message, self.settings.proving)
        if not isinstance(reading, Reading):
            return reading
        noted = Noted(message.message_id, reading.events, message.received_at)
        shown = [msgspec.to_builtins(event) for event in reading.events]
        return Payload((Call("APPLY", URL, shown),), reports=reading.reports, data=noted)

    async def deliver(self, payload: Payload, scope: Scope) -> Delivered:
        """Apply one message's events."""
        (reports,) = await scope.ports[REGISTRY].apply([payload.data])
        return Delivered(reports=tuple(reports))

    async def deliver_batch(self, payloads: Sequence[Payload], scope: Scope) -> Sequence[Ended]:
        """Apply many messages' events in one transaction; where that fails, message by message."""
        if not payloads:
            return []
        try:
            noted: list[Any] = [payload.data for payload in payloads]
            return [Delivered(reports=tuple(said)) for said in await scope.ports[REGISTRY].apply(noted)]
        except (Stopping, Undelivered):
            raise
        except Exception:
            return await self._one_by_one(payloads, scope)

    async def _one_by_one(self, payloads: Sequence[Payload], scope: Scope) -> list[Ended]:
        """Find the message at fault; whoever failed keeps the rest of his order for the next time."""
        ended: list[Ended] = []
        failed: set[str] = set()
        for payload in payloads:
            if payload.person in failed or len(failed) >= MOST_FAILURES:
                ended.append(None)
                continue
            try:
                ended.append(await self.deliver(payload, scope))
            except Exception as error:
                failed.add(payload.person or f"message {len(ended)}")
                ended.append(error)
        return ended

    async def check(self, scope: Scope) -> Sequence[Check]:
        """Ask the registry for somebody."""
        try:
            await scope.ports[REGISTRY].of_person("towpath check")
        except Undelivered as error:
            return [Check.failed("the registry answers", error)]
        return [Check("the registry answers", ok=True)]
