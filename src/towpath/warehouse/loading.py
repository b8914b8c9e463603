"""What goes to a warehouse and what comes back: batches, each with its state in one transaction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal, Protocol

from msgspec import Struct, field

from .table import Shape


class Page(Struct, frozen=True, omit_defaults=True, array_like=True):
    """Records of one answer: `records` is a JSON array as it came, of objects, or of texts or numbers.

    `constants` are columns that all of them have beside their own (the parent they were read under). Where
    records are no objects, `wrap` is the column they become.
    """

    records: bytes
    constants: dict[str, Any] = {}
    wrap: str = ""


class Load(Struct, frozen=True, omit_defaults=True):
    """Records of one table and one workspace, and the state that holds once they are in.

    `since` (Unix seconds) passes over records whose cursor is below; `seen` remembers their keys all the
    same, for `finish`. `merge` replaces rows of the same key, and leaves alone those that are equal already;
    `append` is for records that are never seen twice but after a crash, and merges those few. `patch` merges
    column by column: what a record lacks or has null stays as the row has it, and one whose cursor is below
    the row's only fills what is null there. A `state` of None drops that key.
    """

    table: str
    workspace: str
    run: str
    pages: tuple[Page, ...]
    mode: Literal["merge", "append", "patch"] = "merge"
    since: float | None = None
    seen: bool = False
    state: dict[str, str | None] = {}


class Refusal(Struct, frozen=True):
    """A record that could not become a row; it is kept in the table `_towpath_refused`.

    `record` is as it came, but for what the table hashes or leaves out; `place` counts the records of the
    `Load` from 0, and is -1 where only the target refused it.
    """

    reason: str
    record: str
    place: int = -1


class Wrote(Struct, frozen=True, omit_defaults=True):
    """What became of a `Load`: records read; rows added or changed, equal, below `since`, refused.

    `newest` is the largest cursor among the records, in Unix seconds; `drift` counts the records by unknown
    key, and by `column: what came` where a value did not fit its column and went to `_extra`.
    """

    read: int = 0
    written: int = 0
    unchanged: int = 0
    passed: int = 0
    refused: int = 0
    newest: float | None = None
    drift: dict[str, int] = field(default_factory=dict)
    refusals: tuple[Refusal, ...] = ()


class Gone(Struct, frozen=True, omit_defaults=True):
    """Rows the source no longer has: how many of how many. `held`: too many, so nothing was marked."""

    gone: int = 0
    rows: int = 0
    held: bool = False


class Counted(Struct, frozen=True, omit_defaults=True):
    """How full a table is for one workspace: rows that are there, rows marked as gone, the newest change."""

    table: str
    workspace: str
    rows: int
    deleted: int
    loaded_at: float | None = None


class Lost(Exception):
    """The loading process ended or the target is out of reach; what was not confirmed is not in."""


class Loader(Protocol):
    """A target, open for writing, inside the loading process: plain synchronous code.

    Every method is one transaction, or (where the target has none) ends in a state from which the same call
    again gives the same rows.
    """

    def prepare(self, shapes: Sequence[Shape]) -> None:
        """Make the tables there are not yet, and columns that are missing; nothing is ever dropped."""
        ...

    def state(self, prefix: str) -> Mapping[str, str]:
        """Every kept state whose key begins with `prefix`."""
        ...

    def keep(self, state: Mapping[str, str | None]) -> None:
        """Keep or drop states without rows."""
        ...

    def load(self, load: Load) -> Wrote:
        """Write a batch with its state."""
        ...

    def begin(self, table: str, workspace: str, run: str) -> None:
        """Begin to remember the keys that a run sees; those of the same run, resumed, stay remembered."""
        ...

    def finish(
        self,
        table: str,
        workspace: str,
        run: str,
        *,
        unread: Sequence[Mapping[str, Any]] = (),
        most: float = 1.0,
        state: Mapping[str, str | None],
    ) -> Gone:
        """Mark or remove the workspace's rows that this run did not see, and forget what it saw.

        Rows that equal one of `unread` in its columns are left alone: they were not read. When more than the
        share `most` of the rows there are would go, nothing is done but `held` said (and the seen keys stay).
        A row that comes back loses its mark when it is loaded.
        """
        ...

    def erase(self, ids: Sequence[str]) -> Mapping[str, int]:
        """Remove persons by any of their ids, and by every id that a table joins to them; rows by table.

        Afterwards the files of an embedded target hold nothing of them.
        """
        ...

    def counts(self) -> Sequence[Counted]:
        """How full every table is."""
        ...

    def execute(self, statements: Sequence[str]) -> None:
        """Run statements of ours (views)."""
        ...

    def reset(self, tables: Sequence[str], workspace: str | None, prefixes: Sequence[str]) -> None:
        """Empty tables (of one workspace, or whole), and drop the states whose keys begin so."""
        ...

    def close(self) -> None:
        """Leave the target to others."""
        ...


class Warehouse(Protocol):
    """A target as the program sees it: each method as `Loader` has it, done by the loading process.

    Raises `Lost` when that process or its target is gone: what was not confirmed can be done again.
    """

    async def prepare(self, shapes: Sequence[Shape]) -> None:
        """Make tables and columns."""
        ...

    async def state(self, prefix: str) -> Mapping[str, str]:
        """Return what is kept."""
        ...

    async def keep(self, state: Mapping[str, str | None]) -> None:
        """Keep or drop states."""
        ...

    async def load(self, load: Load) -> Wrote:
        """Write a batch with its state."""
        ...

    async def begin(self, table: str, workspace: str, run: str) -> None:
        """Begin to remember keys."""
        ...

    async def finish(
        self,
        table: str,
        workspace: str,
        run: str,
        *,
        unread: Sequence[Mapping[str, Any]] = (),
        most: float = 1.0,
        state: Mapping[str, str | None],
    ) -> Gone:
        """Mark or remove what was not seen."""
        ...

    async def erase(self, ids: Sequence[str]) -> Mapping[str, int]:
        """Remove persons."""
        ...

    async def counts(self) -> Sequence[Counted]:
        """How full every table is."""
        ...

    async def execute(self, statements: Sequence[str]) -> None:
        """Run statements of ours."""
        ...

    async def reset(self, tables: Sequence[str], workspace: str | None, prefixes: Sequence[str]) -> None:
        """Empty tables and drop states."""
        ...
