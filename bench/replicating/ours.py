"""towpath's side: `ours.py URL TARGET RUN PER_S TABLES`, all through what the program itself calls.

TARGET is a DuckDB file or a PostgreSQL URL; PER_S 0 leaves out the budget of requests. A RUN that is called
`forgetful` begins without what the runs before remembered, like `replicate run --full`.
"""

from __future__ import annotations

import gc
import sys
import time

import msgspec
import uvloop
from pydantic import SecretStr

from towpath.budget import Budget, Patient
from towpath.clock import SystemClock
from towpath.http import Http
from towpath.replicate.extract import replicate
from towpath.replicate.report import DAY_S, Options, Report
from towpath.replicate.tables import REPLICATED
from towpath.transport_http1 import Http1Transport
from towpath.vendors.customerio import AppApi, app_credentials
from towpath.warehouse import Shape
from towpath.warehouse.desk import Desk
from towpath.warehouse.settings import DuckDbTarget, PostgresTarget

FORGETFUL = "forgetful"


async def run(url: str, target: str, name: str, per_s: float, tables: list[str]) -> Report:
    """Bring the tables up to date."""
    clock, transport = SystemClock(), Http1Transport()
    throttles = {"app": Patient(Budget(clock, per_s * 60))} if per_s else {}
    api = AppApi(Http(transport, clock, throttles=throttles), url, app_credentials("key"))
    shapes = tuple(Shape(REPLICATED[table].table) for table in tables)
    start_at = time.time() - 361 * DAY_S
    options = Options(replication="bench", workspace="bench", shapes=shapes, start_at=start_at, run=name)
    desk = Desk(clock)
    postgres = target.startswith(("postgres", "host="))
    warehouse = desk.warehouse(
        PostgresTarget(url=SecretStr(target)) if postgres else DuckDbTarget(path=target)
    )
    try:
        await warehouse.prepare(shapes)
        if name == FORGETFUL:
            await warehouse.keep(dict.fromkeys(await warehouse.state("bench/")))
        return await replicate(api, warehouse, options, clock=clock)
    finally:
        await desk.close()
        await transport.close()


def main() -> None:
    """Print the report as JSON; 1 where a table is not as it should be."""
    gc.set_threshold(50_000, 20, 50)  # as the server does
    url, target, name, per_s, tables = sys.argv[1:]
    report = uvloop.run(run(url, target, name, float(per_s), tables.split(",")))
    print(msgspec.json.encode(report).decode())
    sys.exit(0 if report.good else 1)


if __name__ == "__main__":
    main()
