"""What a replication remembers in the warehouse: keys and values, and how a person sees and sets them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec
from msgspec import Struct

from ..vendors.customerio import Id
from ..warehouse import Warehouse
from .reading import Wanted


class Chains(Struct, omit_defaults=True):
    """How far a run's chains are, by their names: done; at a page's token; or given up, and why."""

    done: set[str] = set()
    places: dict[str, str] = {}
    unread: dict[str, str] = {}

    def over(self, name: str) -> bool:
        """Whether there is nothing more to read."""
        return name in self.done or name in self.unread

    def move(self, name: str, place: str | None) -> None:
        """Note where a chain goes on; None is its end."""
        if place is None:
            self.places.pop(name, None)
            self.done.add(name)
        else:
            self.places[name] = place

    def give_up(self, name: str, reason: str) -> None:
        """Note that a chain cannot be read."""
        self.places.pop(name, None)
        self.unread[name] = reason


class TableRun(Struct, frozen=True):
    """A table's run that is not at its end: its name, when it began (Unix seconds), what it reads.

    `back_s` is how far behind the cursor it began, None without one; `by` the way, where there are several.
    """

    id: str
    at: float
    wanted: Wanted
    back_s: float | None = None
    by: str = ""


class Ids(Struct, frozen=True):
    """The ids that a run read, for the tables below."""

    run: str
    ids: tuple[Id, ...] = ()
    unready: tuple[Id, ...] = ()


class Last(Struct, frozen=True):
    """What a table's last complete run took; a run's plan goes by it."""

    at: float
    requests: int
    rows: int
    seconds: float
    back_s: float | None = None


class OpenRun(Struct, frozen=True):
    """A run over several tables that has begun and not ended."""

    id: str
    at: float


class TableState:
    """The keys of one table, `<replication>/<workspace>/<table>/…`, and the values they had."""

    def __init__(self, prefix: str, known: Mapping[str, str]) -> None:
        self.prefix = prefix
        self._known = {key[len(prefix) :]: value for key, value in known.items() if key.startswith(prefix)}

    def key(self, name: str) -> str:
        """The whole key."""
        return f"{self.prefix}{name}"

    def find(self, name: str, kind: type[Any]) -> Any:
        """Return a value, or None where there is none or it cannot be read any more."""
        try:
            return msgspec.json.decode(self._known[name], type=kind)
        except (KeyError, msgspec.DecodeError):
            return None

    def entry(self, name: str, value: Any) -> dict[str, str | None]:
        """Make the change that keeps a value, to be written with rows; None drops it."""
        return {self.key(name): None if value is None else encoded(value)}

    @property
    def cursor(self) -> float | None:
        """Where the table's next run goes on, Unix seconds."""
        found: float | None = self.find("cursor", float)
        return found

    def chains(self) -> Chains:
        """How far the chains of the open run are."""
        return self.find("chains", Chains) or Chains()

    def without_run(self) -> dict[str, str | None]:
        """Make the change that forgets the open run."""
        return dict.fromkeys(map(self.key, ("run", "chains", "newest")))


def encoded(value: Any) -> str:
    """Write a value as it is kept."""
    return msgspec.json.encode(value).decode()


def state_prefix(replication: str, workspace: str, table: str) -> str:
    """Where the keys of a table begin."""
    return f"{workspace_prefix(replication, workspace)}{table}/"


def workspace_prefix(replication: str, workspace: str) -> str:
    """Where the keys of a workspace begin."""
    return f"{replication}/{workspace}/"


class Standing(Struct, frozen=True):
    """How far a table is: its `cursor` (Unix seconds), what its last run took, and what is cut off.

    `open_run` names a run that did not come to its end, begun at `open_since`; of the `chains` it had begun
    so many are `done`, those that are `unread` included.
    """

    table: str
    cursor: float | None = None
    last: Last | None = None
    open_run: str = ""
    open_since: float | None = None
    chains: int = 0
    done: int = 0
    unread: tuple[str, ...] = ()


def standings(state: Mapping[str, str], replication: str, workspace: str) -> tuple[Standing, ...]:
    """Read what `Warehouse.state` gave: one for every table of a workspace that anything is known of."""
    prefix = workspace_prefix(replication, workspace)
    keys = (key[len(prefix) :] for key in state if key.startswith(prefix))
    tables = dict.fromkeys(key.partition("/")[0] for key in keys if "/" in key)
    return tuple(_standing(table, TableState(f"{prefix}{table}/", state)) for table in sorted(tables))


def _standing(table: str, state: TableState) -> Standing:
    run: TableRun | None = state.find("run", TableRun)
    chains = state.chains()
    return Standing(
        table=table,
        cursor=state.cursor,
        last=state.find("last", Last),
        open_run=run.id if run else "",
        open_since=run.at if run else None,
        chains=len(chains.done) + len(chains.places) + len(chains.unread),
        done=len(chains.done) + len(chains.unread),
        unread=tuple(f"{name}: {reason}" for name, reason in chains.unread.items()),
    )


def with_cursor(replication: str, workspace: str, table: str, cursor: float) -> dict[str, str | None]:
    """Make the change for `Warehouse.keep` that lets a table's next run go on at a moment (Unix seconds).

    A run that was cut off is forgotten with it: it would go on where it was.
    """
    prefix = state_prefix(replication, workspace, table)
    return {f"{prefix}cursor": encoded(float(cursor)), f"{prefix}run": None, f"{prefix}newest": None}


async def reset(
    warehouse: Warehouse, replication: str, workspace: str, tables: Sequence[str], *, rows: bool = False
) -> None:
    """Forget how far tables are: their next run reads everything. With `rows` these go as well."""
    prefixes = [state_prefix(replication, workspace, table) for table in tables]
    await warehouse.reset(tables if rows else (), workspace, prefixes)
