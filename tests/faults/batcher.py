"""A destination that takes batches and refuses a whole batch for one bad item, as many vendors do."""

from __future__ import annotations

from collections.abc import Sequence

from towpath.destination import Call, Check, Destination, Ended, Limits, Payload, Scope
from towpath.destination import Settings as SettingsModel
from towpath.message import Message
from towpath.outcome import Delivered

BATCH = 1000


class Settings(SettingsModel):
    """Where to post."""

    url: str


class Batcher(Destination[Settings]):
    """Posts up to a thousand messages as one request."""

    name = "batcher"
    Settings = Settings

    def limits(self) -> Limits:
        return Limits(batch=BATCH, in_flight=1)

    def prepare(self, message: Message) -> Payload:
        item = {"id": message.message_id, "poison": "poison" in message.properties}
        return Payload((Call("POST", self.settings.url, item),))

    async def deliver(self, payload: Payload, scope: Scope) -> None:
        await self.deliver_batch([payload], scope)

    async def deliver_batch(self, payloads: Sequence[Payload], scope: Scope) -> Sequence[Ended]:
        items = [payload.requests[0].json for payload in payloads]
        await scope.http.request("POST", self.settings.url, json={"items": items})
        return [Delivered()] * len(payloads)

    async def check(self, scope: Scope) -> Sequence[Check]:
        return [Check("nothing", ok=True)]
