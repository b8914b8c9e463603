"""What the section `push:` brings with it: the registry's connection, and the source of what devices do."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from towpath.connection import DeleteLimit
from towpath.device import PUSH, REGISTRY
from towpath.push.settings import PushSettings
from towpath.registry import Kinds, settings_of
from towpath.source import SourceSettings

from . import errors
from .document import Path
from .resolved import AccountEntry, ConnectionEntry, DestinationEntry, RetryRule, SourceEntry
from .settings import Checker, suggestion

FCM = "fcm"
CUSTOMERIO = "customerio"


FIXES = {
    FCM: "name one with the key of a Firebase project",
    CUSTOMERIO: "name one of a Customer.io workspace",
}


class PushParts:
    """The built-in parts, for a file that has the section; none for one that has not.

    `sources` are those of the file. What is wrong with the section goes to the checker.
    """

    def __init__(
        self,
        settings: PushSettings | None,
        data: Mapping[str, Any],
        checker: Checker,
        kinds: Kinds,
        sources: Mapping[str, SourceEntry],
    ) -> None:
        self._settings = settings
        self._checker = checker
        self._kinds = kinds
        self._sources = sources
        if settings is not None:
            self._check_names(data)

    def sources(self) -> dict[str, SourceEntry]:
        """The source `push`."""
        if self._settings is None:
            return {}
        return {PUSH: SourceEntry(PUSH, PUSH, SourceSettings(trust="server"))}

    def destinations(self, rule: RetryRule) -> dict[str, DestinationEntry]:
        """The destination `devices`."""
        if self._settings is None:
            return {}
        kind = self._kinds[REGISTRY]
        proving = [
            name for name, one in self._sources.items() if getattr(one.settings, "verify", "") == "required"
        ]
        settings = settings_of(kind).model_validate({"proving": proving})
        return {REGISTRY: DestinationEntry(REGISTRY, kind, REGISTRY, settings, rule)}

    def connections(self) -> list[ConnectionEntry]:
        """The connection `devices`, from the sources that the section names, or all."""
        if self._settings is None:
            return []
        named = self._settings.from_ or tuple(self._sources)
        # The registry forgets a person and no more: nothing that somebody would have to confirm.
        limit: DeleteLimit | None = None
        return [ConnectionEntry(REGISTRY, frozenset(named), REGISTRY, delete_limit=limit)]

    def check_accounts(self, accounts: Mapping[str, AccountEntry]) -> None:
        """Keep the problems of accounts that are none of FCM's, or have no segments to read."""
        self._check_fcm(accounts)
        for code, campaign in (self._settings.campaigns if self._settings else {}).items():
            if (segment := campaign.audience.segment) is not None:
                place = ("push", "campaigns", code, "audience", "segment", "account")
                self._check_app(segment.account, accounts, place)

    def _check_fcm(self, accounts: Mapping[str, AccountEntry]) -> None:
        name = None if self._settings is None else self._settings.account
        if name is None:
            return
        entry = self._account(name, FCM, accounts, ("push", "account"))
        if entry is not None and "service_account" not in entry.fields:
            title = f'the account "{name}" has no service_account'
            hint = "add the project's key:  service_account: ${secret:fcm}"
            self._checker.add(errors.MISSING, title, ("accounts", name), hint)

    def _check_app(self, name: str, accounts: Mapping[str, AccountEntry], place: Path) -> None:
        entry = self._account(name, CUSTOMERIO, accounts, place)
        if entry is not None and not entry.fields.get("app_api_key"):
            title = f'the account "{name}" has no app_api_key, which reading a segment needs'
            hint = "add the App API key (Account settings, API credentials):  app_api_key: ${secret:cio_app}"
            self._checker.add(errors.MISSING, title, ("accounts", name), hint, at_key=True)

    def _account(
        self, name: str, kind: str, accounts: Mapping[str, AccountEntry], place: Path
    ) -> AccountEntry | None:
        """An account of this type; where there is none, that is a problem."""
        entry = accounts.get(name)
        if entry is None:
            hint = suggestion(name, list(accounts))
            self._checker.add(errors.UNKNOWN_NAME, f'there is no account "{name}"', place, hint)
        elif entry.type != kind:
            title = f'the account "{name}" is of the type {entry.type}, not {kind}'
            self._checker.add(errors.VALUE, title, place, FIXES[kind])
            return None
        return entry

    def _check_names(self, data: Mapping[str, Any]) -> None:
        for section, name in (("sources", PUSH), ("destinations", REGISTRY), ("destinations", PUSH)):
            block = data.get(section)
            if isinstance(block, dict) and name in block:
                title = f'"{name}" is the name of a part of push'
                self._checker.add(errors.NAME, title, (section, name), "give it another name", at_key=True)
        for index, name in enumerate((self._settings and self._settings.from_) or ()):
            if name not in self._sources:
                title, hint = f'there is no source "{name}"', suggestion(name, list(self._sources))
                self._checker.add(errors.UNKNOWN_NAME, title, ("push", "from", index), hint)
