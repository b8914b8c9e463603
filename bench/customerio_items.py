"""Messages prepared per CPU-second by the Customer.io destination, by kind; batches put together as well."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

from kustomer import event, identify, page, per_cpu_s, records

from towpath.destination import Payload
from towpath.destinations._customerio_carriers import framed
from towpath.destinations.customerio import CustomerIo
from towpath.message import Record, read

FLOORS = {"track": 100_000, "page": 100_000, "anonymous": 100_000, "identify": 50_000, "group": 50_000}
BATCH = 1000


def anonymous(number: int) -> dict[str, Any]:
    """Make an order of somebody not known."""
    return {name: value for name, value in event(number).items() if name != "userId"}


def group(number: int) -> dict[str, Any]:
    """Make a company of the same shop's customer."""
    return {**identify(number), "type": "group", "groupId": f"company-{number % 50}"}


SHAPES: dict[str, Callable[[int], dict[str, Any]]] = {
    "track": event,
    "page": page,
    "anonymous": anonymous,
    "identify": identify,
    "group": group,
}


def rates(destination: CustomerIo, kept: list[Record]) -> tuple[float, float, float]:
    """Rates of preparing, of reading and preparing, and of the latter with the bodies of the batches."""
    messages = [read(record) for record in kept]

    def prepare() -> None:
        for message in messages:
            destination.prepare(message)

    def whole() -> None:
        for record in kept:
            destination.prepare(read(record))

    def batched() -> None:
        prepared = [destination.prepare(read(record)) for record in kept]
        posts = [payload.data for payload in prepared if isinstance(payload, Payload)]
        for start in range(0, len(posts), BATCH):
            framed(posts[start : start + BATCH])

    return per_cpu_s(prepare), per_cpu_s(whole), per_cpu_s(batched)


def main() -> int:
    """Print the rates beside their floors; 1 when one is missed."""
    missed = 0
    for name, make in SHAPES.items():
        destination = CustomerIo(CustomerIo.Settings.model_validate({"site_id": "s", "api_key": "k"}))
        # From a source of trust: server, as a backfill's are.
        kept = [
            Record(
                each.position,
                each.message_id,
                type(each.envelope)("web", 1_767_261_600.0, "server"),
                each.raw,
            )
            for each in records(make)
        ]
        rate, whole, batched = rates(destination, kept)
        missed |= rate < FLOORS[name]
        beside = f"(floor {FLOORS[name]:,}{'' if rate >= FLOORS[name] else ' MISSED'})"
        print(
            f"{name:10} {rate:>9,.0f} per CPU-second {beside}, "
            f"with reading {whole:,.0f}, in batches {batched:,.0f}"
        )
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
