"""The simulated Customer.io's App API: people, segments, activities, objects; and its routes as a whole."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterator, Mapping
from itertools import islice
from typing import Any

from .customerio_catalog import Catalog
from .customerio_exchange import Answered, Call, Endpoint, Routes, app_error
from .customerio_exports import Exports
from .customerio_identity import PREFERENCES, Profiles
from .customerio_limits import Invalid
from .customerio_objects import Objects
from .customerio_paging import page
from .customerio_search import Search
from .customerio_sends import Sends
from .customerio_settings import WorkspaceSettings
from .customerio_state import Activity, CustomerIoState, Person, Record, Segment, Thing, shown, ulid

SEARCH_PAGE, SEARCH_LARGEST = 50, 1000
MEMBERS_PAGE, MEMBERS_LARGEST = 1000, 30_000
ACTIVITIES_PAGE, ACTIVITIES_LARGEST = 10, 100
RELATED_PAGE, RELATED_LARGEST = 100, 1000
IDS_LIMIT = 100
DAY_S = 86_400
NEXT_ACTIVITY = 900_000_000_000_000_000
"""Tokens of activities are numbers; this only makes them look like the vendor's."""


class App:
    """The App API's endpoints about people, and those of the other parts."""

    def __init__(
        self, state: CustomerIoState, profiles: Profiles, objects: Objects, export_delay_s: float
    ) -> None:
        self._state = state
        self._profiles = profiles
        self._objects = objects
        self._search = Search(state)
        catalog = Catalog(state)
        exports = Exports(state, self._search, export_delay_s)
        parts = (catalog, exports, Sends(state, profiles), WorkspaceSettings(state))
        self.download = exports.download
        self.routes = Routes(
            [
                ("GET", "/v1/customers", self._by_email),
                ("POST", "/v1/customers", self._find),
                ("POST", "/v1/customers/attributes", self._many),
                ("GET", "/v1/customers/*/attributes", self._one),
                ("GET", "/v1/customers/*/segments", self._segments_of),
                ("GET", "/v1/customers/*/messages", self._messages_of),
                ("GET", "/v1/customers/*/activities", self._activities_of),
                ("GET", "/v1/customers/*/relationships", self._relationships_of),
                ("GET", "/v1/customers/*/subscription_preferences", self._preferences_of),
                ("GET", "/v1/activities", self._activities),
                ("GET", "/v1/segments", self._segments),
                ("POST", "/v1/segments", self._create_segment),
                ("GET", "/v1/segments/*", self._segment),
                ("DELETE", "/v1/segments/*", self._delete_segment),
                ("GET", "/v1/segments/*/customer_count", self._count),
                ("GET", "/v1/segments/*/membership", self._membership),
                ("GET", "/v1/segments/*/used_by", self._used_by),
                ("POST", "/v1/objects", self._find_objects),
                ("GET", "/v1/objects/*/*/attributes", self._object),
                ("GET", "/v1/objects/*/*/relationships", self._people_of),
                *(route for part in parts for route in part.endpoints),
            ]
        )
        self._messages_page = catalog.messages_page

    def answer(self, call: Call, endpoint: Endpoint) -> Answered:
        """Call an endpoint; a body that is no JSON, or that cannot be, is a 400."""
        try:
            status, document = endpoint(call)
        except (Invalid, ValueError) as problem:
            raise app_error(400, str(problem)) from None
        if self._state.switches.null_lists and isinstance(document, dict):
            document = {name: None if value == [] else value for name, value in document.items()}
        return status, document

    # -- people ----------------------------------------------------------------------------------------

    def _by_email(self, call: Call) -> Answered:
        wanted = call.query("email").lower()
        if not wanted:
            raise app_error(400, "email is required")
        kept = self._state.people.values()
        found = [person for person in kept if str(person.attributes.get("email", "")).lower() == wanted]
        return 200, {"results": [person.identifiers for person in found]}

    def _find(self, call: Call) -> Answered:
        people = self._search.people(_object_body(call).get("filter"))
        return 200, self._listed(people, call, SEARCH_PAGE, SEARCH_LARGEST)

    def _listed(self, people: list[Person], call: Call, default: int, largest: int) -> dict[str, Any]:
        """List people as the live API does: ids are "" where there is none, both lists null when empty."""
        empty_pages = self._state.switches.empty_pages
        rows, more = page(people, call, default, largest, empty_pages=empty_pages)
        ids = [person.attributes.get("id", "") for person in rows]
        named = [person.identifiers for person in rows]
        return {"identifiers": named or None, "ids": ids or None, "next": more}

    def _person(self, call: Call) -> Person:
        person = self._named(call.values[0], call.query("id_type", "id"))
        if person is None:
            raise app_error(404, "not found")
        return person

    def _named(self, value: Any, kind: str) -> Person | None:
        if kind not in {"id", "email", "cio_id"}:
            raise app_error(400, "id_type must be one of id, email, cio_id")
        text = str(value)
        if kind == "cio_id":
            return self._profiles.find(kind, text.removeprefix("cio_")) if text.startswith("cio_") else None
        return self._profiles.find(kind, text)

    def _one(self, call: Call) -> Answered:
        return 200, {"customer": _customer(self._person(call))}

    def _many(self, call: Call) -> Answered:
        # None given are none found: published readers ask so whether they may.
        ids, kind = _object_body(call).get("ids") or [], call.query("id_type", "id")
        if not isinstance(ids, list):
            raise app_error(400, "ids must be a list")
        if len(ids) > IDS_LIMIT:
            raise app_error(400, f"ids cannot have more than {IDS_LIMIT} entries")
        # Only in a path does a cio_id need its prefix.
        found = [self._profiles.find(kind, str(each).removeprefix("cio_")) for each in ids]
        return 200, {"customers": [_customer(person) for person in found if person is not None]}

    def _segments_of(self, call: Call) -> Answered:
        person, segments = self._person(call), self._state.segments.values()
        found = [each for each in segments if person in self._search.members(each)]
        rows = [{"id": each.id, "name": each.name, "description": each.description} for each in found]
        return 200, {"segments": rows}

    def _messages_of(self, call: Call) -> Answered:
        cio_id = self._person(call).cio_id

        return self._messages_page(call, lambda message: message.cio_id == cio_id)

    def _relationships_of(self, call: Call) -> Answered:
        person = self._person(call)
        repeated = self._state.switches.repeated_relationships
        kept = list(person.relationships.items())
        rows, more = page(kept, call, RELATED_PAGE, RELATED_LARGEST, repeated=repeated)
        related = [self._related(self._state.objects[key], attributes) for key, attributes in rows]
        return 200, {"cio_relationships": related, "next": more}

    def _related(self, thing: Thing, attributes: Mapping[str, Any]) -> dict[str, Any]:
        named = {"object_id": thing.object_id, "cio_object_id": thing.cio_object_id}
        written = {name: shown(value) for name, value in attributes.items()}
        kind = int(thing.object_type_id)
        return {"object_type_id": kind, "identifiers": named, "attributes": written, "timestamps": {}}

    def _preferences_of(self, call: Call) -> Answered:
        person = self._person(call)
        chosen = person.attributes.get(PREFERENCES) or {}
        topics = chosen.get("topics") or {} if isinstance(chosen, dict) else {}
        listed = [_topic(topic, topics.get(topic["identifier"])) for topic in self._state.topics]
        customer = {
            "id": person.attributes.get("id", ""),
            "identifiers": person.identifiers,
            "topics": listed,
        }
        return 200, {"customer": {**customer, "unsubscribed": person.unsubscribed}}

    # -- activities ------------------------------------------------------------------------------------

    def _activities_of(self, call: Call) -> Answered:
        return self._activities_page(call, self._person(call))

    def _activities(self, call: Call) -> Answered:
        named = call.query("customer_id")
        person = self._named(named, call.query("id_type", "id")) if named else None
        if named and person is None:
            return 200, {"activities": [], "next": ""}
        return self._activities_page(call, person)

    def _activities_page(self, call: Call, person: Person | None) -> Answered:
        """List activities, those that came last first. A token names the one that a page begins below.

        So new activities do not move the pages. Back-dated ones lie where they came.
        """
        limit = max(1, call.number("limit", ACTIVITIES_PAGE, ACTIVITIES_LARGEST))
        start = call.query("start")
        if start and not start.isdecimal():
            raise app_error(400, "start is not a valid page")
        below = self._below(int(start) - NEXT_ACTIVITY) if start else len(self._state.activities)
        found = list(islice(self._matching(call, person, below), limit + 1))
        rows, more = found[:limit], len(found) > limit
        goes_on = bool(rows) and (more or self._state.switches.tail_tokens)
        return 200, {
            "activities": [_activity(each) for each in rows],
            "next": str(NEXT_ACTIVITY + rows[-1].serial) if goes_on else "",
        }

    def _below(self, serial: int) -> int:
        return bisect_left(self._state.activities, serial, key=lambda each: each.serial)

    def _matching(self, call: Call, person: Person | None, below: int) -> Iterator[Activity]:
        kind, name, deleted = call.query("type"), call.query("name"), call.query("deleted") == "true"
        kept, switches = self._state.activities, self._state.switches
        since = self._state.now() - switches.activity_days * DAY_S
        for activity in islice(reversed(kept), len(kept) - below, None):
            if activity.came_at < since:
                return
            theirs = activity.person
            if kind not in {"", activity.type} or (person is not None and theirs is not person):
                continue
            gone = theirs is not None and theirs.deleted and not deleted
            if not gone and (not name or name == activity.name or name in activity.data):
                yield activity

    # -- segments --------------------------------------------------------------------------------------

    def _named_segment(self, call: Call) -> Segment:
        segment = self._state.segments.get(int(call.values[0])) if call.values[0].isdecimal() else None
        if segment is None:
            raise app_error(404, "not found")
        return segment

    def _segments(self, call: Call) -> Answered:
        return 200, {
            "segments": [_segment(each) for each in self._state.segments.values() if not each.archived]
        }

    def _segment(self, call: Call) -> Answered:
        return 200, {"segment": _segment(self._named_segment(call))}

    def _create_segment(self, call: Call) -> Answered:
        given = _object_body(call).get("segment")
        if not isinstance(given, dict) or not given.get("name"):
            raise app_error(400, "segment.name is required")
        now, number = self._state.now(), max(self._state.segments, default=0) + 1
        made = Segment(id=number, name=given["name"], description=given.get("description") or "")
        made.created_at = made.updated_at = now
        self._state.segments[number] = made
        return 200, {"segment": _segment(made)}

    def _delete_segment(self, call: Call) -> Answered:
        del self._state.segments[self._named_segment(call).id]
        return 204, None

    def _count(self, call: Call) -> Answered:
        segment = self._named_segment(call)
        return 200, {"segment_id": segment.id, "count": len(self._search.members(segment))}

    def _membership(self, call: Call) -> Answered:
        segment = self._named_segment(call)
        listed = self._listed(self._search.members(segment), call, MEMBERS_PAGE, MEMBERS_LARGEST)
        return 200, {"segment_id": segment.id, **listed}

    def _used_by(self, call: Call) -> Answered:
        number = self._named_segment(call).id
        keys = ("trigger_segment_ids", "filter_segment_ids")
        campaigns = [
            each["id"]
            for each in self._state.campaigns
            if any(number in (each.get(key) or ()) for key in keys)
        ]
        letters = [
            each for each in self._state.newsletters if number in (each.get("recipient_segment_ids") or ())
        ]
        used = {
            "campaigns": campaigns,
            "sent_newsletters": [each["id"] for each in letters if each.get("sent_at")],
            "draft_newsletters": [each["id"] for each in letters if not each.get("sent_at")],
        }
        return 200, {"segment_id": number, "used_by": used}

    # -- objects ---------------------------------------------------------------------------------------

    def _find_objects(self, call: Call) -> Answered:
        body = _object_body(call)
        things = self._search.things(str(body.get("object_type_id")), body.get("filter"))
        rows, more = page(things, call, SEARCH_PAGE, SEARCH_LARGEST)
        named = [{"cio_object_id": thing.cio_object_id, "object_id": thing.object_id} for thing in rows]
        ids = [thing.object_id for thing in rows]
        return 200, {"identifiers": named or None, "ids": ids or None, "next": more}

    def _thing(self, call: Call) -> Thing:
        kind, name = call.values[:2]
        if call.query("id_type", "object_id") == "cio_object_id":
            thing = self._state.objects.get(name)
        else:
            thing = self._objects.find(kind, name)
        if thing is None:
            raise app_error(404, "not found")
        return thing

    def _object(self, call: Call) -> Answered:
        thing = self._thing(call)
        rows = {
            "attributes": {name: shown(value) for name, value in thing.attributes.items()},
            "timestamps": {name: int(at) for name, at in thing.stamps.items()},
            "identifiers": {"cio_object_id": thing.cio_object_id, "object_id": thing.object_id},
            "object_type_id": thing.object_type_id,
        }
        return 200, {"object": rows}

    def _people_of(self, call: Call) -> Answered:
        thing = self._thing(call)
        people = [each for each in self._state.people.values() if thing.cio_object_id in each.relationships]
        rows, more = page(people, call, RELATED_PAGE, RELATED_LARGEST)
        kind = {"object_type_id": thing.object_type_id, "object_type_disabled": False}
        return 200, {
            "cio_relationships": [{"identifiers": each.identifiers, **kind} for each in rows],
            "next": more,
        }


def _object_body(call: Call) -> dict[str, Any]:
    body = call.body()
    if not isinstance(body, dict):
        raise app_error(400, "the body must be an object")
    return body


def _customer(person: Person) -> dict[str, Any]:
    """Return a person as the API shows it: every value of an attribute is a string."""
    attributes = {name: shown(value) for name, value in person.attributes.items()}
    attributes["cio_id"] = person.cio_id
    stamps = person.stamps.items()
    timestamps = {name: int(at) or person.created_at for name, at in stamps if name in person.attributes}
    devices = [
        {
            "id": each.token,
            "platform": each.platform,
            "last_used": each.last_used,
            "attributes": each.attributes,
        }
        for each in person.devices.values()
    ]
    return {
        "id": person.attributes.get("id", ""),
        "identifiers": person.identifiers,
        "attributes": attributes,
        "timestamps": {**timestamps, "cio_id": person.created_at},
        "unsubscribed": person.unsubscribed,
        "devices": devices,
    }


def _activity(activity: Activity) -> dict[str, Any]:
    person = activity.person
    rows: dict[str, Any] = {
        "id": ulid(activity.serial, activity.at),
        "type": activity.type,
        "timestamp": activity.at,
        "customer_id": None if person is None else person.attributes.get("id"),
        "customer_identifiers": None if person is None else person.identifiers,
        "data": {name: _change(value) for name, value in activity.data.items()},
    }
    told = ("delivery_id", "delivery_type", "url")
    rows |= {name: activity.data[name] for name in told if name in activity.data}
    return {**rows, "name": activity.name} if activity.name else rows


def _change(value: Any) -> Any:
    return {"from": value[0], "to": value[1]} if isinstance(value, tuple) else value


def _segment(segment: Segment) -> dict[str, Any]:
    return {
        "id": segment.id,
        "deduplicate_id": f"{segment.id}:{segment.updated_at}",
        "name": segment.name,
        "description": segment.description,
        "state": segment.state,
        "progress": segment.progress,
        "type": segment.type,
        "tags": segment.tags,
        "created_at": segment.created_at,
        "updated_at": segment.updated_at,
    }


def _topic(topic: Record, chosen: Any) -> dict[str, Any]:
    subscribed = topic.get("subscribed_by_default", True) if chosen in (None, "") else bool(chosen)
    plain = {"id": topic["id"], "name": topic["name"], "description": topic.get("description", "")}
    return {**plain, "subscribed": subscribed}
