"""Settings of a `type: segment` source: the event API that Segment and RudderStack SDKs speak."""

from __future__ import annotations

import re
from typing import ClassVar, Literal, Self

from pydantic import Field, SecretStr, field_validator, model_validator

from ..source import SourceSettings

_RATE = re.compile(r"(\d+(?:\.\d+)?)\s*/\s*(s|m|h)")
_SECONDS = {"s": 1, "m": 60, "h": 3600}


class SegmentSource(SourceSettings):
    """A source that SDKs and browsers post to under `/v1/*` (the calls themselves are read by `ingest`)."""

    name: ClassVar[str] = "segment"

    write_keys: list[SecretStr] = Field(
        min_length=1,
        description="Keys that senders authenticate with. List the new one beside the old to rotate; "
        "remove a key to revoke it, effective at once.",
    )
    rate: str | None = Field(
        default=None,
        description="Most events taken in, as `500/s`, `3000/m` or `10000/h`; above it senders get 429 with "
        "Retry-After. Unset is unlimited.",
    )
    verify: Literal["off", "optional", "required"] = Field(
        default="off",
        description="Whether a userId must be proven by `userHash` or `userToken`. `optional` refuses a "
        "wrong proof and takes a missing one; `required` refuses both.",
    )
    verify_secret: SecretStr | None = Field(
        default=None,
        description="Secret shared with your server: `userHash` is the hex HMAC-SHA256 of the userId with "
        "it, `userToken` a JWT (HS256) signed with it.",
    )

    @field_validator("write_keys")
    @classmethod
    def _usable(cls, keys: list[SecretStr]) -> list[SecretStr]:
        # A colon ends the user name in HTTP Basic, so such a key could never be sent.
        if any(not key.get_secret_value().strip() or ":" in key.get_secret_value() for key in keys):
            raise ValueError("a write key must not be blank and must not contain a colon")
        return keys

    @field_validator("rate")
    @classmethod
    def _readable(cls, rate: str | None) -> str | None:
        if rate is not None and (not (found := _RATE.fullmatch(rate.strip())) or float(found[1]) <= 0):
            raise ValueError("write a rate as a number above 0 per s, m or h, for example 500/s")
        return rate

    @model_validator(mode="after")
    def _provable(self) -> Self:
        if self.verify != "off" and not (self.verify_secret and self.verify_secret.get_secret_value()):
            raise ValueError(f"verify: {self.verify} needs verify_secret")
        return self

    @property
    def events_per_s(self) -> float | None:
        """The rate per second; None is unlimited."""
        found = _RATE.fullmatch(self.rate.strip()) if self.rate else None
        return float(found[1]) / _SECONDS[found[2]] if found else None
