"""Transforms per CPU-second of the Kustomer destination: track (advanced and plain), page, identify."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from typing import Any

import msgspec

from towpath.destination import Payload
from towpath.destinations.kustomer import Kustomer
from towpath.message import Envelope, Message, Record, read

FLOORS = {"track": 150_000, "track, plain": 300_000, "page": 150_000, "identify": 60_000}
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


def page(number: int) -> dict[str, Any]:
    """Make a page call of the same shop."""
    shown = {
        "url": f"https://shop.example/p/{number}",
        "path": f"/p/{number}",
        "title": "Runner",
        "search": "",
    }
    return {**event(number), "type": "page", "name": "Product", "properties": {**shown, "referrer": ""}}


def identify(number: int) -> dict[str, Any]:
    """Make an identify call with the traits a shop knows of a customer."""
    address = {"street": "Main 1", "city": "Berlin", "postalCode": "10115", "country": "DE"}
    traits = {
        "email": f"user{number}@example.com",
        "phone": "+4915112345678",
        "firstName": "Ann",
        "lastName": f"Lee {number}",
        "birthday": "1990-04-01",
        "address": address,
        "plan": "gold",
        "orders": number % 50,
        "vip": True,
    }
    return {**event(number), "type": "identify", "traits": traits}


def records(make: Callable[[int], dict[str, Any]]) -> list[Record]:
    """Make the records as the log keeps them."""
    envelope = Envelope("web", 1_767_261_600.0)
    return [Record(number, f"m-{number}", envelope, encode(make(number))) for number in range(EVENTS)]


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
    return bytes(payload.data) if isinstance(payload.data, bytes) else encode(payload.data.body)


def rates(destination: Kustomer, kept: list[Record]) -> tuple[float, float]:
    """Rates of prepare and encode, without reading the record first and with it."""
    messages = [read(record) for record in kept]

    def transform() -> None:
        for message in messages:
            sent(destination, message)

    def whole() -> None:
        for record in kept:
            sent(destination, read(record))

    return per_cpu_s(transform), per_cpu_s(whole)


def main() -> int:
    """Print the rates beside their floors; 1 when one is missed."""
    missed = 0
    shapes = {"track": event, "track, plain": event, "page": page, "identify": identify}
    for name, make in shapes.items():
        settings = {"api_key": "bench-key", "advanced_transform": name != "track, plain"}
        destination = Kustomer(Kustomer.Settings.model_validate(settings))
        rate, whole = rates(destination, records(make))
        missed |= rate < FLOORS[name]
        beside = f"(floor {FLOORS[name]:,}{'' if rate >= FLOORS[name] else ' MISSED'})"
        print(f"{name:14} {rate:>9,.0f} per CPU-second {beside}, with reading {whole:,.0f}")
    return int(missed)


if __name__ == "__main__":
    sys.exit(main())
