"""A simulated Customer.io workspace full of records: every list longer than a page, the same for a seed."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

from msgspec import Struct

from .customerio import CustomerIoSimulator
from .customerio_messages import Record
from .customerio_state import Activity, CustomerIoState, Device, Person, Segment, Thing, object_type

DAY_S = 86_400
_NAMES = ("Ada", "Bilal", "Chen", "Divya", "Emeka", "Frëya", "Goran", "Hana")
_PLANS = ("free", "team", "business")
_TYPES = ("email", "email", "email", "push", "in_app", "twilio")
_HEADERS = '[{"name":"X-Sample","value":"1"}]'
_WEBHOOK = "https://hub:s3cret@hooks.example.com/customerio"


class Sizes(Struct, frozen=True, kw_only=True):
    """How many there are of each; the defaults are more than the API answers at once, where it has pages.

    Messages are spread over `message_days` up to now, activities over `activity_days`.
    """

    people: int = 1100
    messages: int = 2300
    message_days: int = 400
    activities: int = 250
    activity_days: int = 28
    campaigns: int = 12
    broadcasts: int = 4
    newsletters: int = 130
    transactional: int = 5
    segments: int = 8
    actions: int = 60
    senders: int = 130
    suppressions: int = 1100
    snippets: int = 4
    collections: int = 3
    exports: int = 3
    objects: int = 70


def populate(simulator: CustomerIoSimulator, *, seed: int = 0, **sizes: int) -> Sizes:
    """Fill a workspace, by the fields of `Sizes`; equal for an equal seed and time. Returns the sizes.

    Among the records are what trips readers: people without an id or an e-mail, tags that are the text
    "nil", action ids that are text, a segment that is being built and an archived one, an endpoint with a
    password, empty lists, letters beyond ASCII.
    """
    sown = _Seed(simulator, Sizes(**sizes), random.Random(seed))  # noqa: S311
    sown.sow()
    return sown.sizes


class _Seed:
    def __init__(self, simulator: CustomerIoSimulator, sizes: Sizes, chance: random.Random) -> None:
        self.simulator = simulator
        self.state: CustomerIoState = simulator.state
        self.sizes = sizes
        self.chance = chance
        self.now = self.state.now()
        self.people: list[Person] = []

    def sow(self) -> None:
        self._people()
        self._segments()
        self._objects()
        self._campaigns()
        self._broadcasts()
        self._newsletters()
        self._transactional()
        self._workspace()
        self._suppressions()
        self.state.messages.seed(self._messages())
        self._activities()

    # -- people ----------------------------------------------------------------------------------------

    def _people(self) -> None:
        for number in range(self.sizes.people):
            person = Person(self.state.new_id("a3"), self.now - (400 - number % 400) * DAY_S)
            person.attributes = self._attributes(number)
            person.stamps = dict.fromkeys(person.attributes, float(person.created_at))
            if number % 3 == 0:
                platform = "ios" if number % 2 else "android"
                person.devices[f"token-{number}"] = Device(f"token-{number}", platform, self.now - number)
            self.simulator.profiles.adopt(person)
            self.people.append(person)

    def _attributes(self, number: int) -> dict[str, Any]:
        """Every fifth person has no id, every seventh of the others no e-mail."""
        name = _NAMES[number % len(_NAMES)]
        found: dict[str, Any] = {"first_name": name, "plan": self.chance.choice(_PLANS), "visits": number}
        if number % 5:
            found["id"] = f"u{number}"
        if number % 5 == 0 or number % 7:
            found["email"] = f"person{number}@example.com"
        if number % 11 == 0:
            found["unsubscribed"] = True
        if number % 13 == 0:
            found["address"] = {"city": "Graz", "lines": ["Hauptplatz 1"]}
        return found

    def _person(self) -> Person | None:
        return self.chance.choice(self.people) if self.people else None

    def _segments(self) -> None:
        for number in range(1, self.sizes.segments + 1):
            members = {person.cio_id for person in self.people[number % 3 :: number]}
            self.state.segments[number] = Segment(
                id=number,
                name=f"Segment {number}",
                members=set() if number == 2 else members,
                tags=["vip"] if number % 2 else None,
                created_at=self.now - 300 * DAY_S,
                updated_at=self.now - number * DAY_S,
                state="build" if number == 3 else "finished",
                archived=number == 4,
            )

    def _objects(self) -> None:
        self.state.object_types.append(object_type(2, "Subscriptions", "Subscription"))
        for number in range(self.sizes.objects):
            thing = Thing(self.state.new_id("ob"), "2" if number % 4 == 0 else "1", f"o{number}")
            thing.attributes = {"name": f"Company {number}", "seats": number}
            thing.stamps = dict.fromkeys(thing.attributes, float(self.now - DAY_S))
            self.simulator.objects.adopt(thing)
            for person in self.people[number :: self.sizes.objects][:3]:
                person.relationships[thing.cio_object_id] = {"role": "admin"}

    # -- what was made in the vendor's pages -----------------------------------------------------------

    def _made(self, number: int, name: str, kind: str, *, age_days: int) -> Record:
        updated = self.now - age_days * DAY_S
        return {
            "id": number,
            "deduplicate_id": f"{number}:{updated}",
            "name": f"{name} {number}",
            "type": kind,
            "created": self.now - 300 * DAY_S,
            "updated": updated,
            "tags": ["sample"],
        }

    def _series(self, path: str) -> None:
        days = [self.chance.randrange(100) for _ in range(40)]
        self.state.metrics[path] = {"sent": days, "opened": [each // 3 for each in days]}

    def _campaigns(self) -> None:
        for number in range(1, self.sizes.campaigns + 1):
            made = self._made(number, "Campaign", "segment", age_days=number)
            made |= {"active": True, "state": "running", "description": None, "created_by": "a@example.com"}
            made |= {"actions": [], "first_started": self.now - 200 * DAY_S, "trigger_segment_ids": [1]}
            if number == 2:
                made |= {"type": "object", "object_type_id": 1, "tags": None}
            self.state.campaigns.append(made)
            count = self.sizes.actions if number == 1 else number % 3
            self.state.actions[f"campaigns/{number}"] = self._actions("campaign_id", number, count)
            self._series(f"campaigns/{number}")

    def _broadcasts(self) -> None:
        for number in range(1, self.sizes.broadcasts + 1):
            made = self._made(number, "Broadcast", "triggered_broadcast", age_days=number)
            made |= {"active": True, "state": "running", "msg_template_ids": [number], "actions": []}
            self.state.broadcasts.append({**made, "tags": "nil"} if number == 1 else made)
            count = self.sizes.actions if number == 1 else 1
            self.state.actions[f"broadcasts/{number}"] = self._actions("broadcast_id", number, count)
            self._series(f"broadcasts/{number}")

    def _actions(self, parent: str, number: int, count: int) -> list[Record]:
        return [
            {
                "id": number * 1000 + index,
                parent: number,
                "deduplicate_id": f"{number * 1000 + index}:{self.now - DAY_S}",
                "type": "email",
                "name": f"Step {index}",
                "created": self.now - 200 * DAY_S,
                "updated": self.now - DAY_S,
                "body": "<p>Hello</p>",
                "headers": _HEADERS,
            }
            for index in range(count)
        ]

    def _newsletters(self) -> None:
        for number in range(1, self.sizes.newsletters + 1):
            made = self._made(number, "Newsletter", "email", age_days=1 + number // 2)
            made |= {"sent_at": None if number % 10 == 0 else made["updated"], "content_ids": [number * 10]}
            made |= {"recipient_segment_ids": [1, 2], "subscription_topic_id": 1}
            self.state.newsletters.append(made)
            path = f"newsletters/{number}"
            if number <= 3:
                self._series(path)
            self.state.contents[path] = [
                _content(number * 10 + index, number, language) for index, language in enumerate(("", "de"))
            ]
            # Their ids begin at 0 in every newsletter.
            self.state.test_groups[path] = [
                {"id": index, "name": name, "label": f"test {name}", "winner": False, "content_ids": [number]}
                for index, name in enumerate("AB")
            ]

    def _transactional(self) -> None:
        for number in range(1, self.sizes.transactional + 1):
            at = {"created_at": self.now - 100 * DAY_S, "updated_at": self.now - number * DAY_S}
            tracked = {"link_tracking": True, "open_tracking": True, "hide_message_body": False}
            made = {"id": number, "name": f"Receipt {number}", "description": "", **tracked, **at}
            self.state.transactional.append({**made, "send_to_unsubscribed": True, "queue_drafts": False})

    # -- the workspace ---------------------------------------------------------------------------------

    def _workspace(self) -> None:
        state, sizes = self.state, self.sizes
        state.snippets += [
            {"name": f"snippet {n}", "value": f"Grüße {n}", "updated_at": self.now - n * DAY_S}
            for n in range(sizes.snippets)
        ]
        state.sender_identities += [_sender(n, hidden=n % 2 == 1) for n in range(1, 2 * sizes.senders + 1)]
        state.topics += [
            {"id": n, "identifier": f"topic_{n}", "name": f"Topic {n}", "subscribed_by_default": n == 1}
            for n in (1, 2)
        ]
        state.reporting_webhooks.append(
            {"id": 1, "name": "hub", "type": "webhook", "endpoint": _WEBHOOK, "disabled": False}
            | {"full_resolution": True, "with_content": False, "events": ["email_sent"]}
        )
        for number in range(1, sizes.collections + 1):
            at = {"created_at": self.now - 9 * DAY_S, "updated_at": self.now - number * DAY_S}
            rows = [{"sku": f"s{index}", "price": index} for index in range(number)]
            made = {"id": number, "name": f"goods{number}", "schema": ["price", "sku"], "rows": number}
            state.collections.append({**made, "bytes": 27 * number, "data": rows, **at})
        state.exports += [self._export(number) for number in range(1, sizes.exports + 1)]

    def _export(self, number: int) -> Record:
        at = self.now - number * DAY_S
        made = {"id": self.state.serial(), "user_id": 1, "user_email": "a@example.com", "total": number}
        told = {"type": "customers", "failed": False, "status": "done", "description": "Customers"}
        times = {"created_at": at, "updated_at": at, "deduplicate_id": f"{made['id']}:{at}"}
        return {**made, **told, **times, "downloads": 0}

    def _suppressions(self) -> None:
        """Lists of three of the four types; the one of invalid addresses is empty."""
        for kind, count in (("bounces", self.sizes.suppressions), ("blocks", 3), ("spam_reports", 2)):
            self.state.suppressions[kind] = [
                {
                    "created": self.now - index,
                    "email": f"gone{index}@example.net",
                    "reason": "550 5.1.1 no such user",
                    "status": "5.1.1",
                    "domain": "mail.example.com",
                }
                for index in range(count)
            ]

    # -- what happened ---------------------------------------------------------------------------------

    def _messages(self) -> Iterator[Record]:
        count, span_s = self.sizes.messages, self.sizes.message_days * DAY_S
        for number in range(count):
            yield self._message(number, self.now - span_s + (number + 1) * span_s // (count or 1) - 1)

    def _message(self, number: int, created: int) -> Record:
        chance, person = self.chance, self._person()
        kind, by_campaign = chance.choice(_TYPES), chance.random() < 0.7 and self.sizes.campaigns
        metrics = {"created": created, "sent": created + 1, "delivered": created + 3}
        if chance.random() < 0.4:
            metrics["opened"] = created + 500
        message_id = f"dgSC{number:012d}=="
        return {
            "id": message_id,
            "deduplicate_id": f"{message_id}:{max(metrics.values())}",
            "msg_template_id": chance.randrange(1, 400),
            "action_id": 1000 + chance.randrange(60) if by_campaign else None,
            "parent_action_id": None,
            "customer_id": None if person is None else person.attributes.get("id"),
            "customer_identifiers": None if person is None else person.identifiers,
            "recipient": None if person is None else person.attributes.get("email"),
            "subject": f"Hello, your weekly update #{number % 52}",
            "metrics": metrics,
            "created": created,
            "failure_message": None,
            "newsletter_id": None if by_campaign else 1,
            "content_id": None if by_campaign else 10,
            "campaign_id": 1 + chance.randrange(self.sizes.campaigns) if by_campaign else None,
            "broadcast_id": None,
            "trigger_event_id": None,
            "type": kind,
            "forgotten": False,
        }

    def _activities(self) -> None:
        count, span_s = self.sizes.activities, self.sizes.activity_days * DAY_S
        for number in range(count):
            at = self.now - span_s + (number + 1) * span_s // count - 1
            kind = self.chance.choice(("event", "page", "opened_email", "attribute_change"))
            data: dict[str, Any] = {"n": number}
            if kind == "opened_email":
                data |= {"delivery_id": f"dgSC{number:012d}==", "delivery_type": "email"}
            name = "purchase" if kind == "event" else ""
            person = None if number % 17 == 0 else self._person()
            self.state.activities.append(Activity(self.state.serial(), kind, at, person, data, name, at))


def _content(number: int, newsletter: int, language: str) -> Record:
    named = {"id": number, "newsletter_id": newsletter, "deduplicate_id": f"{number}:1", "name": "Variant"}
    told = {"type": "email", "from": "team@example.com", "from_id": 1, "recipient": "{{customer.email}}"}
    shown = {"subject": "Grüße", "body": "<p>Hello</p>", "language": language, "headers": _HEADERS}
    return {**named, **told, **shown}


def _sender(number: int, *, hidden: bool) -> Record:
    address = f"team{number}@example.com"
    named = {"id": number, "deduplicate_id": f"{number}:1", "name": f"Team {number}", "email": address}
    told = {"address": f"Team <{address}>", "template_type": "email", "auto_generated": hidden}
    return {**named, **told, "phone": None, "hidden": hidden}
