"""What towpath says a read of all people would take: `planned.py URL DATABASE`; JSON, a line for each way."""

from __future__ import annotations

import sys
from typing import Literal

import msgspec
import uvloop

from towpath.clock import SystemClock
from towpath.http import Http
from towpath.replicate.plan import Plan, plan
from towpath.replicate.report import Options
from towpath.replicate.tables import REPLICATED
from towpath.transport_http1 import Http1Transport
from towpath.vendors.customerio import AppApi, app_credentials
from towpath.warehouse import Shape
from towpath.warehouse.desk import Desk
from towpath.warehouse.settings import DuckDbTarget


async def planned(url: str, database: str, by: Literal["search", "export"]) -> Plan:
    """Ask for the plan of the table of people, read so."""
    clock, transport = SystemClock(), Http1Transport()
    desk, shapes = Desk(clock), (Shape(REPLICATED["customers"].table),)
    warehouse = desk.warehouse(DuckDbTarget(path=database))
    api = AppApi(Http(transport, clock), url, app_credentials("key"))
    options = Options(replication="bench", workspace="bench", shapes=shapes, people=by)
    try:
        return await plan(api, warehouse, options, clock=clock)
    finally:
        await desk.close()
        await transport.close()


def main() -> None:
    """Print both plans."""
    for by in ("search", "export"):
        print(msgspec.json.encode(uvloop.run(planned(sys.argv[1], sys.argv[2], by))).decode())


if __name__ == "__main__":
    main()
