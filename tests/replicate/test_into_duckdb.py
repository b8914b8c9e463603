"""Every table, through the loading process into a DuckDB file: all records fit, a second run writes none."""

from __future__ import annotations

from pathlib import Path

import duckdb
import pytest

from tests.replicate.world import NAMES, URL, World, asked
from towpath.clock import SystemClock
from towpath.http import Http
from towpath.replicate.extract import replicate
from towpath.replicate.report import Report
from towpath.sandbox.customerio import DEFAULT
from towpath.vendors.customerio import AppApi, app_credentials
from towpath.warehouse.desk import Desk
from towpath.warehouse.settings import DuckDbTarget

FEW = {
    "people": 60, "messages": 90, "message_days": 20, "activities": 120, "activity_days": 10,
    "newsletters": 6, "actions": 8, "campaigns": 4, "broadcasts": 2, "senders": 10, "suppressions": 9,
    "objects": 6,
}  # fmt: skip


@pytest.mark.spec("R041", "R048", "R049")
async def test_every_record_fits_its_table(tmp_path: Path) -> None:
    world, clock = World(**FEW), SystemClock()
    api = AppApi(Http(world.wire, world.clock), URL, app_credentials(DEFAULT.app_api_key))
    desk = Desk(clock)
    warehouse = desk.warehouse(DuckDbTarget(path=str(tmp_path / "warehouse.duckdb")))
    options = asked((), start_at=world.clock.now() - 30 * 86_400)
    try:
        first: Report = await replicate(api, warehouse, options, clock=clock)
        second = await replicate(api, warehouse, options, clock=clock)
    finally:
        await desk.close()
    assert {one.table: one.reason for one in first.tables if one.outcome != "ok"} == {}
    assert {one.table: (one.refused, one.drift) for one in first.tables if one.refused or one.drift} == {}
    assert {one.table: one.written for one in second.tables if one.written or one.gone} == {}
    with duckdb.connect(str(tmp_path / "warehouse.duckdb"), read_only=True) as connection:
        counts = {name: connection.execute(f"SELECT count(*) FROM {name}").fetchone() for name in NAMES}
    assert counts == {one.table: (one.written,) for one in first.tables}
    assert all(one.written for one in first.tables)
