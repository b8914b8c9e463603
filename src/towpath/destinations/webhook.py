"""The webhook destination: every message as signed JSON to one URL, by the Standard Webhooks rules."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any

import msgspec
from pydantic import Field, SecretStr, field_validator

from towpath.destination import Call, Check, Destination, Payload, Scope
from towpath.destination import Settings as SettingsModel
from towpath.http import Undelivered
from towpath.message import KINDS, Message, in_spec_shape
from towpath.outcome import Paused, Skipped
from towpath.signature import signed, signing_key


class Settings(SettingsModel):
    """Where to post, and how to sign."""

    url: str = Field(
        pattern=r"^https?://[^\s/?#@]+([/?#]\S*)?$",
        description="Where to POST, http or https; credentials belong into `headers`, not into the URL.",
    )
    secret: SecretStr = Field(
        description="The signing secret the receiver verifies with: `whsec_` and 24 to 64 bytes in base64."
    )
    headers: dict[Annotated[str, Field(pattern=r"^[A-Za-z0-9-]+$")], SecretStr] = Field(
        default={}, description="Further request headers, for example an Authorization the receiver asks for."
    )
    allow_private: bool = Field(
        default=False, description="Allow private and loopback addresses: a receiver inside your own network."
    )

    @field_validator("secret")
    @classmethod
    def _is_a_signing_secret(cls, secret: SecretStr) -> SecretStr:
        signing_key(secret.get_secret_value())
        return secret


class Webhook(Destination[Settings]):
    """Posts each message as it is. A receiver that answers 410 (gone) is paused, not retried."""

    name = "webhook"
    Settings = Settings

    def headers(self) -> Mapping[str, str]:
        """Return the further headers, which may be credentials."""
        return {name: value.get_secret_value() for name, value in self.settings.headers.items()}

    def allow_private(self) -> bool:
        """Return the setting: people other than the operator may choose URLs."""
        return self.settings.allow_private

    def prepare(self, message: Message) -> Payload | Skipped:
        """Every kind of the spec is posted; `timestamp` is the moment by the server's clock."""
        if message.type not in KINDS:
            return Skipped("unsupported", f"{message.type!r} is not a call of the Segment spec")
        return Payload((Call("POST", self.settings.url, in_spec_shape(message)),), data=message.message_id)

    async def deliver(self, payload: Payload, scope: Scope) -> None:
        """Sign and post."""
        await self._post(payload.data, payload.requests[0].json, scope)

    async def check(self, scope: Scope) -> Sequence[Check]:
        """Post a signed ping of type `towpath.check`, which is no call of the spec, so receivers ignore it.

        HEAD or OPTIONS would change even less, but few receivers verify signatures there: a wrong secret
        would look fine, and the 401s after it would cost messages instead of pausing (P6). A receiver may
        refuse the ping's body (400, 422): then it has accepted the signature.
        """
        ping = f"check_{scope.clock.token(12).hex()}"
        try:
            await self._post(ping, {"type": "towpath.check", "messageId": ping}, scope, allow=(400, 422))
        except Undelivered as error:
            return [Check.failed("webhook", error)]
        return [Check("webhook", ok=True, detail="the receiver accepts the signature")]

    async def _post(self, identifier: str, json: Any, scope: Scope, allow: Sequence[int] = ()) -> None:
        body = msgspec.json.encode(json)
        proof = signed(self.settings.secret.get_secret_value(), identifier, int(scope.clock.now()), body)
        headers = {"content-type": "application/json", **proof}
        try:
            await scope.http.request("POST", self.settings.url, body=body, headers=headers, allow=allow)
        except Undelivered as error:
            if error.exchange is not None and error.exchange.status == 410:
                raise Undelivered(Paused("endpoint gone (410)", 410), error.exchange) from error
            raise
