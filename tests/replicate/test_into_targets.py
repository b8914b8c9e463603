"""Every table, through the loading process, into each kind of target: records fit, then only what changed."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
from pydantic import SecretStr

from tests.log.postgres import schema_of, server
from tests.replicate.test_changes import CHANGED, REMOVED
from tests.replicate.world import NAMES, URL, World, asked
from towpath.clock import SystemClock
from towpath.http import Http
from towpath.replicate.extract import replicate
from towpath.replicate.report import Report
from towpath.sandbox.customerio import DEFAULT
from towpath.vendors.customerio import AppApi, app_credentials
from towpath.warehouse import Counted, Warehouse
from towpath.warehouse.desk import Desk
from towpath.warehouse.settings import DltTarget, DuckDbTarget, ParquetTarget, PostgresTarget, Target

FEW = {
    "people": 60, "messages": 90, "message_days": 20, "activities": 120, "activity_days": 10,
    "newsletters": 6, "actions": 8, "campaigns": 4, "broadcasts": 2, "senders": 10, "suppressions": 9,
    "objects": 6,
}  # fmt: skip
ACTED = (
    "campaigns",
    "newsletters",
    "snippets",
    "transactional_messages",
    "segments",
    "customers",
    "messages",
)
"""Of these a record is changed, and of those that tell one is taken away."""
GONE = tuple(name for name in ACTED if name in REMOVED)
BY_DLT = ("campaigns", "messages", "customers", "snippets", "segments")
"""Each table costs dlt a second or more in each run, so these do unless TOWPATH_ALL_OF_DLT is set."""

TARGETS: Mapping[str, Callable[[Path], Target]] = {
    "duckdb": lambda place: DuckDbTarget(path=str(place / "warehouse.duckdb")),
    "parquet": lambda place: ParquetTarget(path=str(place / "lake")),
    "postgres": lambda place: PostgresTarget(url=SecretStr(server().dsn), schema=schema_of(place)),
    "dlt": lambda place: DltTarget(
        destination="duckdb", dataset="copy", credentials=SecretStr(str(place / "dlt.duckdb"))
    ),
}


class Copying:
    """A workspace, and a target it is copied into."""

    def __init__(self, target: str, place: Path) -> None:
        self.world = World(**FEW)
        self.clock = SystemClock()
        self.desk = Desk(self.clock, place)
        self.warehouse: Warehouse = self.desk.warehouse(TARGETS[target](place))
        few = target == "dlt" and not os.environ.get("TOWPATH_ALL_OF_DLT")
        self.tables = BY_DLT if few else NAMES

    async def run(self) -> Report:
        door = Http(self.world.wire, self.world.clock)
        api = AppApi(door, URL, app_credentials(DEFAULT.app_api_key))
        options = asked(self.tables, start_at=self.world.clock.now() - 30 * 86_400, guard=1.0)
        return await replicate(api, self.warehouse, options, clock=self.clock)

    async def counts(self) -> dict[str, Counted]:
        return {one.table: one for one in await self.warehouse.counts()}


@pytest.mark.spec("R041", "R042", "R048", "R049")
@pytest.mark.parametrize("target", TARGETS)
async def test_every_record_fits_and_then_only_what_changed_is_written(target: str, tmp_path: Path) -> None:
    copying = Copying(target, tmp_path)
    world, acted = copying.world, [name for name in ACTED if name in copying.tables]
    gone = [name for name in GONE if name in copying.tables]
    try:
        first = await copying.run()
        before = await copying.counts()
        second = await copying.run()
        for name in acted:
            CHANGED[name](world)
        third = await copying.run()
        for name in gone:
            REMOVED[name](world)
        await copying.run()
        after = await copying.counts()
    finally:
        await copying.desk.close()
    assert {one.table: one.reason for one in first.tables if one.outcome != "ok"} == {}
    assert {one.table: (one.refused, one.drift) for one in first.tables if one.refused or one.drift} == {}
    assert {name: one.rows for name, one in before.items()} == {
        one.table: one.written for one in first.tables
    }
    assert all(one.rows for one in before.values())
    assert {one.table: one.written for one in second.tables if one.written or one.gone} == {}
    assert {one.table for one in third.tables if one.written} >= set(acted)
    assert {name for name, one in after.items() if one.deleted} >= set(gone)
