"""A registry on a disk of its own, and short words for what messages tell it."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import msgspec

from towpath.device import Address, Device, DeviceEvent, Noted, Platform, Registered, Unregistered
from towpath.push.registry import Registry
from towpath.push.settings import PushSettings
from towpath.state.devices import OutboxRows
from towpath.state.engine import open_engine
from towpath.state.tables import devices, metadata, push_outbox, push_people
from towpath.testing.fakes import FakeClock

DAY_S = 86400.0
START = FakeClock().now()


def registered(
    device: str, person: str, token: str, at: float = START, *, platform: Platform | None = "ios", **more: Any
) -> Registered:
    """A register push; without a user where the person is the device itself."""
    more = {"history": device == person, **more}
    return Registered(
        device=device, person=person, address=Address("token", token), platform=platform, at=at, **more
    )


def unregistered(device: str, at: float = START) -> Unregistered:
    return Unregistered(device=device, at=at)


class Stage:
    """A registry, its clock and its outbox."""

    def __init__(self, path: Path, settings: PushSettings | None = None, project: str = "shop") -> None:
        self.clock = FakeClock()
        self.engine = open_engine(path / "state.db")
        with self.engine.begin() as connection:
            metadata.create_all(connection, [devices, push_people, push_outbox])
        self.registry = Registry(self.engine, project, self.clock, settings)
        self.outbox = OutboxRows(self.engine)
        self._numbers = itertools.count(1)

    async def apply(self, *events: DeviceEvent) -> list[str]:
        """Apply events, each a message of its own; what there is to report."""
        noted = [Noted(f"m{next(self._numbers)}", (event,), self.clock.now()) for event in events]
        return [said for reports in await self.registry.apply(noted) for said in reports]

    async def device(self, name: str) -> Device:
        found = await self.registry.find(name)
        assert found is not None, f"there is no device {name}"
        return found

    async def owners(self, *names: str) -> list[str | None]:
        return [(await self.device(name)).person for name in names]

    async def reach(self, person: str) -> list[str]:
        """The tokens a person is reached at."""
        devices = await self.registry.of_person(person)
        return [device.address.value for device in devices if device.address]

    def told(self) -> list[dict[str, Any]]:
        """What was told since the last time."""
        rows = self.outbox.read(500)
        self.outbox.delete([row.id for row in rows])
        return [{"messageId": row.message_id, **msgspec.json.decode(row.body)} for row in rows]

    def news(self) -> list[tuple[str, ...]]:
        """The same in short: the event, whose, and which token; or alias, old, new."""
        return [_short(message) for message in self.told()]

    def close(self) -> None:
        self.engine.dispose()


def _short(message: dict[str, Any]) -> tuple[str, ...]:
    if message["type"] == "alias":
        return ("alias", message["previousId"], message["userId"])
    token: Sequence[str] = [message["context"]["device"]["token"]] if "context" in message else []
    return (message["event"], message["userId"], *token)
