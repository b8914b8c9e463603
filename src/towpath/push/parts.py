"""What pushes are made of, as the configuration in force has it."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from msgspec import Struct

from ..notice import Notice
from ..state.campaigns import Campaigns
from .registry import Registry
from .segment import Accounts, NoAccounts
from .sender import Sender
from .settings import PushSettings


class Parts(Struct, frozen=True):
    """What pushes are made of.

    `sender` is None where no FCM account is configured, `notices` are by code, `held_back` says of a person
    that they are suppressed, `accounts` opens what segments are read from.
    """

    registry: Registry
    campaigns: Campaigns
    sender: Sender | None
    settings: PushSettings
    notices: Mapping[str, Notice] = {}
    held_back: Callable[[str], bool] = lambda _: False
    accounts: Accounts = NoAccounts()
