"""What is to be written: entries, connections between them, and the secrets that they name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypeAlias

from msgspec import Struct

Section: TypeAlias = Literal["sources", "destinations", "accounts"]


class Entry(Struct, frozen=True):
    """One source, destination or account; `fields` as the file shall hold them, `type` among them."""

    section: Section
    name: str
    fields: Mapping[str, Any]


class Setting(Struct, frozen=True):
    """One key of a section that has no entries, like `push`."""

    section: str
    key: str
    value: str


class Plan(Struct, frozen=True):
    """What one command adds to a configuration.

    `secrets` are values for the encrypted store, by the names that `${secret:…}` calls them. `missing` are
    such names whose values only the user has. `notes` is what people should read.
    """

    entries: Sequence[Entry] = ()
    connections: Sequence[Mapping[str, Any]] = ()
    secrets: Mapping[str, str] = {}
    missing: Sequence[str] = ()
    notes: Sequence[str] = ()
    settings: Sequence[Setting] = ()

    @property
    def wrote(self) -> list[str]:
        """The places of the file that it is about."""
        entries = [f"{entry.section}.{entry.name}" for entry in self.entries]
        return entries + [f"{setting.section}.{setting.key}" for setting in self.settings]


def kept_as(entry: str, key: str) -> str:
    """What the store calls a key of an entry: entries may have longer names, and a `+` in them."""
    return f"{entry.replace('+', '-')[:90]}_{key}"


def secret(name: str) -> str:
    """How the file names a secret of the store."""
    return f"${{secret:{name}}}"


def connection(source: str, destination: str) -> Mapping[str, Any]:
    """A connection of one source to one destination."""
    return {"from": source, "to": [destination]}
