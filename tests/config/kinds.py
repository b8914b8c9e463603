"""Two made-up destinations and a source, so that these tests depend on no vendor's settings."""

from __future__ import annotations

from typing import Any, ClassVar, Literal

from pydantic import AliasChoices, Field, SecretStr, field_validator, model_validator

from towpath.destination import Settings
from towpath.source import SourceSettings


class Nested(Settings):
    depth: int = Field(default=1, description="How deep.")


class ParcelSettings(Settings):
    """Where parcels go."""

    api_key: SecretStr = Field(validation_alias=AliasChoices("api_key", "apiKey"), description="The key.")
    region: Literal["us", "eu"] = Field(default="us", description="Where the account is.")
    base_url: str = Field(default="https://parcels.example.com", description="The API's address.")
    nested: Nested = Field(default=Nested(), description="More.")
    labels: tuple[str, ...] = Field(default=(), description="Labels.")
    hasty: bool = Field(default=False, description="No waiting.")
    patient: bool = Field(default=False, description="Much waiting.")

    @field_validator("base_url")
    @classmethod
    def _is_web(cls, value: str) -> str:
        if not value.startswith("http"):
            raise ValueError(f"must be a web address, not {value}")
        return value

    @model_validator(mode="after")
    def _decided(self) -> ParcelSettings:
        if self.hasty and self.patient:
            raise ValueError("cannot be hasty and patient at once")
        return self


class Parcel:
    name: ClassVar[str] = "parcel"
    Settings = ParcelSettings


class PigeonSettings(Settings):
    """Where pigeons go."""

    loft: str = Field(description="The loft.")

    @field_validator("loft")
    @classmethod
    def _breaks(cls, value: str) -> str:
        if value == "collapsed":
            raise RuntimeError("the loft collapsed")
        return value


class Pigeon:
    name: ClassVar[str] = "pigeon"
    Settings = PigeonSettings


class Drum(SourceSettings):
    """A drum."""

    name: ClassVar[str] = "drum"

    write_keys: list[str] = Field(min_length=1, description="Keys.")


DESTINATIONS: dict[str, Any] = {"parcel": Parcel, "pigeon": Pigeon}
SOURCES: dict[str, Any] = {"drum": Drum}
