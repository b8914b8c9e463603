"""Replications of the file: their accounts exist, are of the right type, and have the keys they need."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

from pydantic import ValidationError

from towpath.replicate.settings import ReplicationSettings, TableBlock
from towpath.replicate.tables import usual
from towpath.warehouse.settings import WarehouseAccount

from . import errors
from .document import Path
from .resolved import AccountEntry, ReplicationEntry
from .settings import Checker, suggestion

CUSTOMERIO = "customerio"
WAREHOUSE = "warehouse"


class Replications:
    """Reads the section of one file; what is wrong goes to the checker."""

    def __init__(
        self,
        blocks: Mapping[str, ReplicationSettings],
        checker: Checker,
        accounts: Mapping[str, AccountEntry],
    ) -> None:
        self._blocks = blocks
        self._checker = checker
        self._accounts = accounts

    def entries(self) -> dict[str, ReplicationEntry]:
        """The replications that are right, by name."""
        found = {entry.name: entry for entry in self._read()}
        self._tell_shared(found.values())
        return found

    def _tell_shared(self, entries: Iterable[ReplicationEntry]) -> None:
        """Two replications of one table into one warehouse: each would take the other's rows for gone.

        Of other workspaces they may be, where both keep the table in the same way: it is one table there.
        """
        first: dict[tuple[str, str], ReplicationEntry] = {}
        for entry in entries:
            where = entry.target.target.about
            for table, block in (entry.settings.chosen() or dict.fromkeys(usual(), TableBlock())).items():
                other = first.setdefault((where, table), entry) if block.enabled else entry
                if other is entry:
                    continue
                if not {*entry.sources}.isdisjoint(other.sources):
                    title = f'the table {table} is read into "{entry.settings.to}" by "{other.name}" already'
                elif _kept(entry, table) != _kept(other, table):
                    title = f'"{other.name}" keeps the table {table} of "{entry.settings.to}" in another way'
                else:
                    continue
                hint = "name the table in one of them, or give one another warehouse or schema"
                self._checker.add(errors.VALUE, title, ("replications", entry.name), hint, at_key=True)

    def _read(self) -> Iterator[ReplicationEntry]:
        for name, settings in self._blocks.items():
            path: Path = ("replications", name)
            sources = {one: found for one in settings.from_ if (found := self._source(one, path))}
            target = self._target(settings, path)
            if target is not None and len(sources) == len(settings.from_):
                yield ReplicationEntry(name, settings, sources, target)

    def _source(self, name: str, path: Path) -> AccountEntry | None:
        entry = self._account(name, CUSTOMERIO, (*path, "from"))
        if entry is not None and not entry.fields.get("app_api_key"):
            title = f'the account "{name}" has no app_api_key, which reading needs'
            hint = "add the App API key (Account settings, API credentials):  app_api_key: ${secret:cio_app}"
            self._checker.add(errors.MISSING, title, ("accounts", name), hint, at_key=True)
            return None
        return entry

    def _target(self, settings: ReplicationSettings, path: Path) -> WarehouseAccount | None:
        entry = self._account(settings.to, WAREHOUSE, (*path, "to"))
        if entry is None:
            return None
        found = self._warehouse(entry)
        hashes = any(block.hash for block in settings.chosen().values())
        if found is not None and hashes and found.hash_key is None:
            title = f'a table hashes columns, and the account "{settings.to}" has no hash_key'
            hint = "add a secret that stays the same:  hash_key: ${secret:warehouse_hash}"
            self._checker.add(errors.MISSING, title, ("accounts", settings.to), hint, at_key=True)
        return found

    def _warehouse(self, entry: AccountEntry) -> WarehouseAccount | None:
        """The warehouse of an account; what is wrong with it is said here, as no destination may use it."""
        try:
            return WarehouseAccount.model_validate(_fields(entry))
        except ValidationError as error:
            # Without what was given: it may be a URL with a password.
            for one in error.errors(include_url=False, include_input=False):
                said = one["msg"].removeprefix("Value error, ")
                place = ("accounts", entry.name, *one["loc"][:1])
                self._checker.add(errors.VALUE, f'the account "{entry.name}": {said}', place)
            return None

    def _account(self, name: str, kind: str, place: Path) -> AccountEntry | None:
        entry = self._accounts.get(name)
        if entry is None:
            title, hint = f'there is no account "{name}"', suggestion(name, list(self._accounts))
            self._checker.add(errors.UNKNOWN_NAME, title, place, hint)
        elif entry.type != kind:
            title = f'the account "{name}" is of the type {entry.type}, not {kind}'
            self._checker.add(errors.ACCOUNT, title, place, f"name an account of the type {kind}")
            return None
        return entry


def _kept(entry: ReplicationEntry, table: str) -> tuple[object, ...]:
    """How a replication keeps a table, as far as a table of a warehouse can be kept in one way only."""
    settings = entry.settings
    block = settings.chosen().get(table) or TableBlock()
    columns = ({*block.columns}, {*block.exclude}, {*block.hash})
    return (*columns, block.called, block.contract or settings.contract, settings.deletes)


def warehouse_of(entry: AccountEntry) -> WarehouseAccount | None:
    """The warehouse of an account; None where the account is wrong, as is said of it elsewhere."""
    try:
        return WarehouseAccount.model_validate(_fields(entry))
    except ValidationError:
        return None


def _fields(entry: AccountEntry) -> dict[str, object]:
    return {key: value for key, value in entry.fields.items() if key in WarehouseAccount.model_fields}
