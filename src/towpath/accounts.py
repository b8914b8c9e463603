"""Accounts: one vendor workspace each, with those who share its credentials and budgets."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from msgspec import Struct

from .config import Config, DestinationEntry


class Account(Struct, frozen=True):
    """One vendor workspace. `destinations` share its budgets; `fields` is what was written under `accounts`.

    A destination with credentials of its own is an account of its own name, without fields.
    """

    name: str
    type: str
    destinations: tuple[DestinationEntry, ...] = ()
    fields: Mapping[str, Any] = {}

    def __repr__(self) -> str:
        shared = ", ".join(entry.name for entry in self.destinations)
        return f"Account({self.name!r}, {self.type!r}, destinations=[{shared}])"


def resolve(config: Config) -> Mapping[str, Account]:
    """Every account by name, the ones nobody uses yet too."""
    accounts = {name: Account(name, entry.type, (), entry.fields) for name, entry in config.accounts.items()}
    for entry in config.destinations.values():
        known = accounts.get(entry.account, Account(entry.account, entry.type))
        accounts[entry.account] = Account(known.name, known.type, (*known.destinations, entry), known.fields)
    return accounts
