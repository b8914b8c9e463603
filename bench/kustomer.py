"""Transforms per CPU-second of the Kustomer destination: a track with ten properties, advanced mode."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

import msgspec

from towpath.destination import Payload
from towpath.destinations.kustomer import Kustomer
from towpath.message import Envelope, Message, Record, read

FLOOR_PER_S = 150_000
EVENTS = 2_000
REPEATS = 2
ROUNDS = 30

encode = msgspec.json.Encoder().encode


def event(number: int) -> dict[str, Any]:
    """Make one order of a web shop: ten properties of every kind, a session id in the context."""
    return {
        "type": "track",
        "userId": f"user-{number % 500}",
        "anonymousId": f"anonymous-{number % 500}",
        "event": ("Product Viewed", "Order Completed", "Cart Viewed")[number % 3],
        "timestamp": "2026-01-01T10:00:00.000Z",
        "context": {"sessionId": 1_767_000_000 + number, "library": {"name": "bench", "version": "1"}},
        "properties": {
            "order_id": f"o{number}",
            "total": 25.5 + number,
            "currency": "EUR",
            "coupon": "SPRING",
            "quantity": number % 9,
            "category": "shoes/run",
            "name": "Runner € 42",
            "nested": {"a": 1, "b": "x"},
            "tags": ["a", "b"],
            "vip": True,
        },
    }


def records() -> list[Record]:
    """Make the records as the log keeps them."""
    envelope = Envelope("web", 1_767_261_600.0)
    return [Record(number, f"m-{number}", envelope, encode(event(number))) for number in range(EVENTS)]


def per_cpu_s(work: Callable[[], None]) -> float:
    """Run it many times and return the best rate in events per CPU-second: the machine may be shared."""
    best = float("inf")
    for _ in range(ROUNDS):
        began = time.process_time()
        for _ in range(REPEATS):
            work()
        best = min(best, time.process_time() - began)
    return EVENTS * REPEATS / best


def sent(destination: Kustomer, message: Message) -> bytes:
    """Transform one message to the bytes that `deliver` sends."""
    payload = destination.prepare(message)
    if not isinstance(payload, Payload):
        raise TypeError(payload)
    return bytes(payload.data)


def main() -> None:
    """Print the rates and whether the floor holds."""
    destination = Kustomer(Kustomer.Settings.model_validate({"api_key": "bench-key"}))
    kept = records()
    messages = [read(record) for record in kept]

    def transform() -> None:
        for message in messages:
            sent(destination, message)

    def whole() -> None:
        for record in kept:
            sent(destination, read(record))

    rate = per_cpu_s(transform)
    print(f"prepare + encode:        {rate:>9,.0f} events per CPU-second (floor {FLOOR_PER_S:,})")
    print(f"read + prepare + encode: {per_cpu_s(whole):>9,.0f} events per CPU-second")
    print("floor holds" if rate >= FLOOR_PER_S else "BELOW THE FLOOR")


if __name__ == "__main__":
    main()
