"""Crashes before and after any commit: what a run resumes to is what a model says, row by row."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from towpath.warehouse import DELETED, RUN, Column, Load, Page, Shape, Table
from towpath.warehouse.duckdb import DuckDbLoader
from towpath.warehouse.settings import DuckDbTarget

ROWS = Table(
    "rows",
    columns=(Column("id", "integer"), Column("value", "text"), Column("at", "time")),
    key=("id",),
    cursor="at",
)
RECORDS = st.lists(st.tuples(st.integers(0, 12), st.sampled_from(["a", "b", None])), max_size=14)
RUNS = st.lists(RECORDS, min_size=1, max_size=3)
CUTS = st.lists(st.integers(1, 5), min_size=1, max_size=6)
CRASHES = st.lists(st.sampled_from(["", "", "before", "after"]), max_size=14)


class Crash(Exception):
    """The process is gone."""


class Crashing(DuckDbLoader):
    """A loader whose commits may be the last thing it does, or not even that."""

    plan: list[str]

    def run(self, sql: str, *values: Any) -> list[tuple[Any, ...]]:
        how = self.plan.pop(0) if sql == "COMMIT" and getattr(self, "plan", None) else ""
        if how == "before":
            raise Crash
        found = super().run(sql, *values)
        if how == "after":
            raise Crash
        return found


class Stage:
    """A source of which each run reads everything, batch by batch, and goes on where the state says."""

    def __init__(self, path: Path, plan: Sequence[str]) -> None:
        self._path = path
        self._plan = list(plan)
        self.loader = self._opened()

    def _opened(self) -> Crashing:
        loader = Crashing(DuckDbTarget(path=str(self._path)))
        loader.plan = []
        loader.prepare([Shape(ROWS)])
        loader.plan = self._plan
        return loader

    def replicate(self, run: str, batches: Sequence[Sequence[dict[str, Any]]]) -> None:
        """Do one run, however often it is cut off."""
        while True:
            try:
                self._try(run, batches)
            except Crash:
                self.loader.close()
                self.loader = self._opened()
            else:
                return

    def _try(self, run: str, batches: Sequence[Sequence[dict[str, Any]]]) -> None:
        state = self.loader.state("")
        if state.get("done") == run:
            return
        self.loader.begin("rows", "acme", run)
        name, _, place = state.get("place", "").partition("/")
        first = int(place) if name == run else 0
        for number, batch in enumerate(batches[first:], first + 1):
            pages = (Page(msgspec.json.encode(batch)),)
            state_after: dict[str, str | None] = {"place": f"{run}/{number}"}
            self.loader.load(Load("rows", "acme", run, pages, seen=True, state=state_after))
        self.loader.finish("rows", "acme", run, state={"done": run, "place": None})

    def found(self) -> dict[int, tuple[str | None, bool, str]]:
        """Key to value, whether it is marked, and the run that last changed it."""
        rows = self.loader.run(f"SELECT id, value, {DELETED} IS NOT NULL, {RUN} FROM rows")
        assert len({row[0] for row in rows}) == len(rows)
        return {row[0]: (row[1], row[2], row[3]) for row in rows}


def expected(
    before: dict[int, tuple[str | None, bool, str]], records: Sequence[tuple[int, str | None]], run: str
) -> dict[int, tuple[str | None, bool, str]]:
    """What a run without any crash would leave."""
    after = dict(before)
    for key, value in dict(records).items():
        if before.get(key, ("", True, ""))[:2] != (value, False):
            after[key] = (value, False, run)
    for key in before.keys() - dict(records).keys():
        if not before[key][1]:
            after[key] = (before[key][0], True, run)
    return after


@pytest.mark.spec("R041", "R042", "R044")
@settings(max_examples=10, deadline=None)
@given(runs=RUNS, cuts=CUTS, crashes=CRASHES)
def test_whatever_crashes_the_rows_are_those_of_an_undisturbed_run(
    runs: list[list[tuple[int, str | None]]], cuts: list[int], crashes: list[str]
) -> None:
    with TemporaryDirectory() as directory:
        stage = Stage(Path(directory) / "w.duckdb", crashes)
        model: dict[int, tuple[str | None, bool, str]] = {}
        for number, records in enumerate(runs):
            run = f"r{number}"
            # A batch changes a row at most once, and so does a run: the source gives each record once.
            unique = list(dict(records).items())
            stage.replicate(run, batched(unique, cuts))
            model = expected(model, unique, run)
            assert stage.found() == model
        stage.loader.close()


def batched(records: Sequence[tuple[int, str | None]], cuts: Sequence[int]) -> list[list[dict[str, Any]]]:
    """The records in batches of these sizes, over and over."""
    batches: list[list[dict[str, Any]]] = []
    place = 0
    while place < len(records):
        size = cuts[len(batches) % len(cuts)]
        batches.append([{"id": key, "value": value} for key, value in records[place : place + size]])
        place += size
    return batches
