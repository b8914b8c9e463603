"""Sample traffic: seeded journeys of made-up people, as Segment-spec calls."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from typing import Any, TypeAlias

from msgspec import Struct

from towpath.message import format_time

STARTED_AT = 1767261600.0
"""When a journey starts unless told: 2026-01-01 10:00 UTC, in Unix seconds."""

Call: TypeAlias = dict[str, Any]

_PEOPLE = ("Ada", "Bilal", "Chen", "Divya", "Emeka", "Freya", "Goran", "Hana")
_GOODS = (("Tea", 4.5), ("Lamp", 39.0), ("Desk", 249.9), ("Chair", 119.0), ("Plant", 12.25))
_PAGES = ("Home", "Pricing", "Docs", "Blog", "Contact", "About")


class Journey:
    """Calls in the order they happened. `chance` is seeded; each call is some seconds after the last."""

    def __init__(self, name: str, seed: int, at: float) -> None:
        self.calls: list[Call] = []
        self.count = 0
        self.chance = random.Random(f"{name}/{seed}")  # noqa: S311
        self._id = f"{name}-{seed}"
        self._at = at

    def person(self, number: int = 0) -> Mapping[str, str]:
        """Return the ids of the journey's n-th person."""
        return {"userId": f"{self._id}-user-{number}", "anonymousId": f"{self._id}-visitor-{number}"}

    def traits(self, number: int = 0) -> dict[str, Any]:
        """Return what the n-th person says of themself."""
        name = _PEOPLE[number % len(_PEOPLE)]
        return {
            "name": f"{name} Example",
            "email": f"{name.lower()}.{self._id}.{number}@example.com",
            "createdAt": self._now(),
            "plan": self.chance.choice(("free", "team", "business")),
        }

    def add(self, kind: str, ids: Mapping[str, str], **fields: Any) -> None:
        """Add a call of a person."""
        call = {"type": kind, "messageId": f"{self._id}-{self.count:05d}", **ids, **fields}
        self.calls.append({**call, "timestamp": self._now()})
        self.count += 1
        self._at += self.chance.uniform(1.0, 20.0)

    def track(self, ids: Mapping[str, str], event: str, **properties: Any) -> None:
        """Add an event; its `step` makes every event of a journey different."""
        self.add("track", ids, event=event, properties={**properties, "step": self.count})

    def page(self, ids: Mapping[str, str], name: str) -> None:
        """Add a page view."""
        properties = {"path": f"/{name.lower()}", "title": name, "step": self.count}
        self.add("page", ids, name=name, properties=properties)

    def _now(self) -> str:
        return format_time(datetime.fromtimestamp(self._at, UTC))


class Scenario(Struct, frozen=True):
    """A journey by name. `description` is one line for people."""

    name: str
    description: str
    write: Callable[[Journey], None]

    def calls(self, *, seed: int = 0, at: float = STARTED_AT) -> list[Call]:
        """Return its calls: equal for an equal seed and start, ids included."""
        journey = Journey(self.name, seed, at)
        self.write(journey)
        return journey.calls


def mixed(count: int, people: int, seed: int = 0, at: float = STARTED_AT) -> Iterator[Call]:
    """Yield `count` calls of so many people, mixed: an identify first for each, then pages and events."""
    journey = Journey("mixed", seed, at)
    known: set[int] = set()
    for _ in range(count):
        _step(journey, journey.chance.randrange(people), known)
        yield journey.calls.pop()


def _step(journey: Journey, number: int, known: set[int]) -> None:
    ids = journey.person(number)
    if number not in known:
        known.add(number)
        journey.add("identify", ids, traits=journey.traits(number))
    elif journey.chance.random() < 0.4:
        journey.page(ids, journey.chance.choice(_PAGES))
    else:
        good, price = journey.chance.choice(_GOODS)
        journey.track(
            ids, journey.chance.choice(("Product Viewed", "Product Added")), product=good, price=price
        )


def _signup(journey: Journey) -> None:
    ids = journey.person()
    visitor, user = {"anonymousId": ids["anonymousId"]}, {"userId": ids["userId"]}
    for name in ("Home", "Pricing", "Signup"):
        journey.page(visitor, name)
    journey.add("identify", ids, traits=journey.traits())
    journey.add("alias", user, previousId=ids["anonymousId"])
    journey.track(user, "Signed Up", plan="team", seats=3)
    journey.track(user, "Subscription Started", revenue=49.0, currency="EUR", trial=False)


def _purchase(journey: Journey) -> None:
    ids = journey.person()
    journey.add("identify", ids, traits=journey.traits())
    total = 0.0
    for good, price in journey.chance.sample(_GOODS, 3):
        journey.track(ids, "Product Viewed", product=good, price=price)
        journey.track(ids, "Product Added", product=good, price=price)
        total += price
    journey.track(ids, "Checkout Started", value=total, currency="EUR")
    order = f"order-{journey.chance.randrange(100_000):05d}"
    journey.track(ids, "Order Completed", order_id=order, revenue=total, currency="EUR")


def _support(journey: Journey) -> None:
    ids = journey.person()
    journey.add("identify", ids, traits={**journey.traits(), "phone": "+15550100123"})
    journey.add("screen", ids, name="Help", properties={"section": "Billing", "step": 1})
    journey.track(ids, "Article Viewed", article="refunds", helpful=False)
    journey.track(ids, "Ticket Opened", subject="Refund", priority=2)
    journey.track(ids, "Ticket Solved", rating=5, solved="2026-01-01T12:30:00.000Z")


def _poison(journey: Journey) -> None:
    ids = journey.person()
    journey.add("identify", ids, traits=journey.traits())
    journey.track(ids, "Before")
    journey.track(ids, "x")
    journey.track(ids, "2nd Visit")
    journey.track(ids, "After")


def _hot_person(journey: Journey) -> None:
    hot = journey.person()
    journey.add("identify", hot, traits=journey.traits())
    for number in range(1, 201):
        journey.track(hot, "Clicked", position=number)
        if number % 20 == 0:
            journey.track(journey.person(number // 20), "Clicked", position=number)


def _mixed(journey: Journey) -> None:
    known: set[int] = set()
    for _ in range(100):
        _step(journey, journey.chance.randrange(10), known)


SCENARIOS: Mapping[str, Scenario] = {
    scenario.name: scenario
    for scenario in (
        Scenario("signup", "A visitor reads pages, signs up, is joined to an account and pays.", _signup),
        Scenario("purchase", "A known customer looks at three goods and buys them.", _purchase),
        Scenario(
            "support", "A customer on the app reads help, opens a ticket and rates the answer.", _support
        ),
        Scenario("poison", "Two event names no Kustomer takes, between events that must arrive.", _poison),
        Scenario("hot_person", "One person clicks 200 times while ten others click once.", _hot_person),
        Scenario("mixed", "A hundred calls of ten people, mixed.", _mixed),
    )
}
