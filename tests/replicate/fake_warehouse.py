"""A warehouse in a dict that keeps the contract of `warehouse.loading`, and can be cut off at any call."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import msgspec

from towpath.warehouse import Counted, Gone, Load, Page, Shape, Table, Wrote, faults

Row = dict[str, Any]


class FakeWarehouse:
    """Rows by table, workspace and key. After `lose_after` calls that write, one raises what a loading
    process that ended does; the next call finds another process, as `LoadingProcess` starts it.
    """

    def __init__(self) -> None:
        self.tables: dict[str, Table] = {}
        self.rows: dict[tuple[str, str], dict[tuple[Any, ...], Row]] = {}
        self.states: dict[str, str] = {}
        self.seen: dict[tuple[str, str], tuple[str, set[tuple[Any, ...]]]] = {}
        self.loads: list[Load] = []
        self.lose_after: int | None = None
        self.load_s = 0.0
        self.clock: Any = None

    def table(self, name: str, workspace: str = "main", *, gone: bool = False) -> list[Row]:
        """The rows that are there, or those that are marked."""
        rows = self.rows.get((name, workspace), {}).values()
        return [row for row in rows if bool(row["_deleted_at"]) == gone]

    async def prepare(self, shapes: Sequence[Shape]) -> None:
        self.tables |= {shape.table.name: shape.table for shape in shapes}

    async def state(self, prefix: str) -> Mapping[str, str]:
        return {key: value for key, value in self.states.items() if key.startswith(prefix)}

    async def keep(self, state: Mapping[str, str | None]) -> None:
        self._write()
        self._keep(state)

    def _keep(self, state: Mapping[str, str | None]) -> None:
        for key, value in state.items():
            self.states.pop(key, None)
            if value is not None:
                self.states[key] = value

    def _write(self) -> None:
        if self.lose_after is not None:
            if self.lose_after <= 0:
                self.lose_after = None
                raise faults.ended("cut off by the test")
            self.lose_after -= 1

    async def load(self, load: Load) -> Wrote:
        if self.load_s:
            await self.clock.sleep(self.load_s)
        self._write()
        self.loads.append(load)
        table = self.tables[load.table]
        counts = {"read": 0, "written": 0, "unchanged": 0, "passed": 0, "refused": 0}
        newest: list[float] = []
        drift: dict[str, int] = {}
        for page in load.pages:
            for record in records(page):
                counts["read"] += 1
                row = read(table, record, drift)
                key = tuple(row[name] for name in table.key)
                if None in key:
                    counts["refused"] += 1
                    continue
                cursor = row.get(table.cursor) if table.cursor else None
                if cursor is not None:
                    newest.append(cursor)
                if load.seen:
                    self.seen[load.table, load.workspace][1].add(key)
                old = cursor is not None and load.since is not None and cursor < load.since
                counts["passed" if old else self._put(load, key, row)] += 1
        self._keep(load.state)
        return Wrote(newest=max(newest, default=None), drift=drift, **counts)  # type: ignore[arg-type]

    def _put(self, load: Load, key: tuple[Any, ...], row: Row) -> str:
        rows = self.rows.setdefault((load.table, load.workspace), {})
        known = rows.get(key)
        same = known is not None and not known["_deleted_at"] and all(known[k] == v for k, v in row.items())
        if same:
            return "unchanged"
        rows[key] = {**row, "_run_id": load.run, "_deleted_at": None}
        return "written"

    async def begin(self, table: str, workspace: str, run: str) -> None:
        self._write()
        if self.seen.get((table, workspace), ("", set()))[0] != run:
            self.seen[table, workspace] = (run, set())

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
        self._write()
        known, seen = self.seen[table, workspace]
        assert known == run
        there = {k: r for k, r in self.rows.get((table, workspace), {}).items() if not r["_deleted_at"]}
        left = [
            row
            for key, row in there.items()
            if key not in seen and not any(all(row[n] == v for n, v in one.items()) for one in unread)
        ]
        if left and len(left) / len(there) > most:
            return Gone(len(left), len(there), held=True)
        for row in left:
            row["_deleted_at"] = run
        del self.seen[table, workspace]
        self._keep(state)
        return Gone(len(left), len(there))

    async def erase(self, ids: Sequence[str]) -> Mapping[str, int]:
        raise AssertionError("no test erases here")

    async def counts(self) -> Sequence[Counted]:
        return [
            Counted(
                name, workspace, len(self.table(name, workspace)), len(self.table(name, workspace, gone=True))
            )
            for name, workspace in self.rows
        ]

    async def execute(self, statements: Sequence[str]) -> None:
        raise AssertionError("no test executes here")

    async def reset(self, tables: Sequence[str], workspace: str | None, prefixes: Sequence[str]) -> None:
        for name in [name for name in self.rows if name[0] in tables and workspace in (None, name[1])]:
            del self.rows[name]
        for key in [key for key in self.states if key.startswith(tuple(prefixes))]:
            del self.states[key]


def records(page: Page) -> list[Any]:
    found = msgspec.json.decode(page.records)
    assert isinstance(found, list)
    return [{**(one if isinstance(one, dict) else {page.wrap: one}), **page.constants} for one in found]


def read(table: Table, record: Row, drift: dict[str, int]) -> Row:
    row: Row = {}
    used: set[str] = set()
    for column in table.columns:
        path = column.path or (column.name,)
        value: Any = record
        for part in path:
            value = value.get(part) if isinstance(value, dict) else None
        used.add(path[0])
        if column.name in table.key and isinstance(value, str | int):
            value = str(value) if column.kind in ("text", "date") else value
        row[column.name] = None if column.blank_is_null and value == "" else value
    extra = {key: value for key, value in record.items() if key not in used}
    for key in extra:
        drift[key] = drift.get(key, 0) + 1
    row["_extra"] = extra
    return row
