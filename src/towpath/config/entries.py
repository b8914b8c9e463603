"""Accounts, sources and destinations: each entry's settings checked by the model of its kind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

from pydantic import BaseModel

from towpath.errors import TowpathError
from towpath.registry import Kinds, settings_of, sources

from . import errors
from .document import Path
from .model import AccountBlock, DestinationBlock, RetryChange, SourceBlock
from .resolved import AccountEntry, SourceEntry
from .settings import Checker, Within, keys_of, spellings, suggestion

B = TypeVar("B", bound=BaseModel)


class Fields(NamedTuple):
    """Settings as written, by field name, and where each stands, under every spelling it has."""

    values: dict[str, Any]
    places: dict[str, Path]


class Account(NamedTuple):
    """An entry of `accounts` while the file is read."""

    entry: AccountEntry
    fields: Fields


class DestinationParts(NamedTuple):
    """A destination of the file before the file's own retry rule is filled in."""

    name: str
    kind: type[Any]
    account: str
    settings: Any
    retry: RetryChange


class Entries:
    """Reads the three sections of one file; what is wrong goes to the checker."""

    def __init__(self, data: Mapping[str, Any], checker: Checker, destinations: Kinds) -> None:
        self._data = data
        self._destinations = destinations
        self._checker = checker
        self._accounts = {account.entry.name: account for account in self._read_accounts()}

    def accounts(self) -> dict[str, AccountEntry]:
        """The accounts by name."""
        return {name: account.entry for name, account in self._accounts.items()}

    def sources(self) -> Iterator[SourceEntry]:
        """The sources that are right."""
        for name, block, path in self._blocks("sources"):
            kind = self._kind(sources(), "source", block, path)
            if kind is None:
                continue
            fields = self._fields(settings_of(kind), block, path, SourceBlock)
            settings = self._settings(settings_of(kind), fields, path, SourceBlock)
            if settings is not None:
                yield SourceEntry(name, kind.name, settings)

    def destinations(self) -> Iterator[DestinationParts]:
        """The destinations that are right."""
        for name, block, path in self._blocks("destinations"):
            kind = self._kind(self._destinations, "destination", block, path)
            common = self._common(DestinationBlock, block, path)
            if kind is None or common is None:
                continue
            account = self._account(name, common.account, kind.name, path)
            fields = self._fields(settings_of(kind), block, path, DestinationBlock)
            if account is not None:
                fields = self._joined(account, fields)
            partial = common.account is not None and account is None
            settings = self._settings(settings_of(kind), fields, path, DestinationBlock, partial=partial)
            if settings is not None:
                yield DestinationParts(
                    name, kind, common.account or name, settings, common.retry or RetryChange()
                )

    def _read_accounts(self) -> Iterator[Account]:
        for name, block, path in self._blocks("accounts"):
            kind = self._kind(self._destinations, "destination", block, path)
            if kind is None:
                continue
            fields = self._fields(settings_of(kind), block, path, AccountBlock)
            self._settings(settings_of(kind), fields, path, AccountBlock, partial=True)
            yield Account(AccountEntry(name, kind.name, fields.values), fields)

    def _blocks(self, section: str) -> Iterator[tuple[str, dict[str, Any], Path]]:
        blocks = self._data.get(section)
        for name, block in blocks.items() if isinstance(blocks, dict) else ():
            if isinstance(block, dict):
                yield name, block, (section, name)

    def _kind(self, kinds: Kinds, what: str, block: Mapping[str, Any], path: Path) -> type[Any] | None:
        name = block.get("type")
        if name is None:
            hint = f"add  type: one of {', '.join(kinds)}"
            self._checker.add(
                errors.MISSING, f'{".".join(map(str, path))} needs "type"', path, hint, at_key=True
            )
        elif not isinstance(name, str) or name not in kinds:
            title = f'there is no {what} of the type "{name}"'
            self._checker.add(errors.UNKNOWN_TYPE, title, (*path, "type"), suggestion(str(name), list(kinds)))
        else:
            return self._loaded(kinds, name, (*path, "type"))
        return None

    def _loaded(self, kinds: Kinds, name: str, path: Path) -> type[Any] | None:
        try:
            return kinds[name]
        except TowpathError as error:
            self._checker.add(error.code, error.title, path, error.fix)
        return None

    def _common(self, model: type[B], block: Mapping[str, Any], path: Path) -> B | None:
        keys = _keys(model)
        return self._checker.validate(model, {key: block[key] for key in keys if key in block}, Within(path))

    def _fields(
        self, model: type[BaseModel], block: Mapping[str, Any], path: Path, common: type[BaseModel]
    ) -> Fields:
        """The block without the common keys, every alias replaced by its field's name."""
        names = {
            spelling: name
            for name, field in model.model_fields.items()
            for spelling in spellings(name, field)
        }
        fields = Fields({}, {})
        for key, value in block.items():
            name = names.get(key, key)
            if key in _keys(common):
                continue
            if name in fields.values:
                title = f'"{key}" is another spelling of "{fields.places[name][-1]}"'
                self._checker.add(
                    errors.DUPLICATE_KEY, title, (*path, key), "keep one of the two", at_key=True
                )
            fields.values[name] = value
            for spelling in (name, *(spelled for spelled in names if names[spelled] == name)):
                fields.places[spelling] = (*path, key)
        return fields

    def _account(self, name: str, account: str | None, kind: str, path: Path) -> Account | None:
        """The account a destination names, if it is of the same type."""
        if account is None:
            if name in self._accounts:
                title = f'the account "{name}" exists, but the destination "{name}" does not name it'
                self._checker.add(
                    errors.ACCOUNT, title, path, f"add  account: {name}  or rename one", at_key=True
                )
            return None
        place = (*path, "account")
        written = [other for other, _, _ in self._blocks("accounts")]
        if account not in written:
            hint = suggestion(account, written)
            self._checker.add(errors.UNKNOWN_NAME, f'there is no account "{account}"', place, hint)
        if account not in self._accounts:
            return None
        found = self._accounts[account]
        if found.entry.type != kind:
            title = f'the account "{account}" is of the type {found.entry.type}, not {kind}'
            same = [other for other, each in self._accounts.items() if each.entry.type == kind]
            hint = f"accounts of this type: {', '.join(same)}" if same else f"define one of the type {kind}"
            self._checker.add(errors.ACCOUNT, title, place, hint)
            return None
        return found

    def _joined(self, account: Account, own: Fields) -> Fields:
        for name in own.values.keys() & account.fields.values.keys():
            title = f'"{own.places[name][-1]}" is given here and in accounts.{account.entry.name}'
            self._checker.add(errors.ACCOUNT, title, own.places[name], "keep one of the two", at_key=True)
        return Fields({**account.fields.values, **own.values}, {**account.fields.places, **own.places})

    def _settings(
        self, model: type[B], fields: Fields, path: Path, common: type[BaseModel], *, partial: bool = False
    ) -> B | None:
        within = Within(path, _keys(common), fields.places, partial)
        return self._checker.validate(model, fields.values, within)


def _keys(model: type[BaseModel]) -> list[str]:
    return keys_of(model, ())
