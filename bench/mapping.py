"""CPU per message of what a connection does before its destination: filter, map of 10 rules, transform."""

from __future__ import annotations

import asyncio
import resource
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from towpath.mapping import FieldMap, Filter, MapRule
from towpath.message import Message
from towpath.transform import ProcessTransform

ROUNDS = 5
MESSAGES = 2_000
CHUNK = 256
FILTERS = {
    'type == "track"': "one comparison",
    'type == "track" && properties.total > 100.0 && has(properties.coupon)': "three on properties",
    'properties.tags.exists(tag, tag == "b") || "vip" in properties': "a comprehension, a whole object",
}
RULES = [
    {"rename_event": {"Order Completed": "Purchase"}},
    {"rename": {"properties.order_id": "properties.id"}},
    {"set": {"properties.channel": "web"}},
    {"set": {"properties.title": "{event} of {properties.currency}"}},
    {"default": {"properties.country": "DE"}},
    {"event": "Purchase", "set": {"properties.paid": True}},
    {"when": "properties.total > 100.0", "set": {"properties.large": True}},
    {"compute": {"properties.cents": "int(properties.total * 100.0)"}},
    {"hash": {"fields": ["userId"], "key": "a key of this benchmark"}},
    {"drop": ["properties.coupon", "context.sessionId"]},
]
CODE = 'def change(message):\n    message["properties"]["seen"] = True\n    return message\n'


def order(number: int) -> Message:
    """Make one order of a web shop: ten properties of every kind, a session id in the context."""
    return Message(
        type="track",
        message_id=f"m-{number}",
        user_id=f"user-{number % 500}",
        anonymous_id=f"anonymous-{number % 500}",
        event=("Product Viewed", "Order Completed", "Cart Viewed")[number % 3],
        timestamp="2026-01-01T10:00:00.000Z",
        context={"sessionId": 1_767_000_000 + number, "library": {"name": "bench", "version": "1"}},
        properties={
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
        received_at=1_767_261_600.0,
    )


def per_message_us(messages: list[Message], work: Callable[[Message], object]) -> float:
    """Run it over all messages a few times; the best CPU time of one in microseconds."""
    best = float("inf")
    for _ in range(ROUNDS):
        began = time.process_time()
        for message in messages:
            work(message)
        best = min(best, time.process_time() - began)
    return best / len(messages) * 1e6


async def transform_us(messages: list[Message]) -> tuple[float, float, float]:
    """CPU of this process, CPU of the child, and wall time of one message in microseconds."""
    with tempfile.TemporaryDirectory() as directory:
        (Path(directory) / "shop.py").write_text(CODE)
        transform = ProcessTransform("shop:change", Path(directory))
        await transform.make(messages[:CHUNK])
        began, wall = time.process_time(), time.perf_counter()
        for first in range(0, len(messages), CHUNK):
            await transform.make(messages[first : first + CHUNK])
        spent, wall = time.process_time() - began, time.perf_counter() - wall
        await transform.close()
    child = resource.getrusage(resource.RUSAGE_CHILDREN)
    each = 1e6 / len(messages)
    return spent * each, (child.ru_utime + child.ru_stime) * each, wall * each


def main() -> None:
    """Print microseconds of CPU per message."""
    messages = [order(number) for number in range(MESSAGES)]
    for text, what in FILTERS.items():
        print(f"filter, {what:<36} {per_message_us(messages, Filter(text).verdict):6.1f} µs")
    one = FieldMap([MapRule.model_validate(RULES[0])])
    ten = FieldMap([MapRule.model_validate(rule) for rule in RULES])
    print(f"map of one rule {'':<28} {per_message_us(messages, one.apply):6.1f} µs")
    print(f"map of {len(RULES)} rules {'':<28} {per_message_us(messages, ten.apply):6.1f} µs")
    here, child, wall = asyncio.run(transform_us(messages * 10))
    print(
        f"transform, {CHUNK} at a time: {here:.1f} µs here, {child:.1f} µs in the child, {wall:.1f} µs wall"
    )


if __name__ == "__main__":
    main()
