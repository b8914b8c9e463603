"""From a message to what Customer.io's Track API takes: v2 items, and v1 calls where v2 has none."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from typing import Any, Literal, TypeAlias

import msgspec
from msgspec import Struct

from towpath.message import Message, identifier
from towpath.outcome import Skipped

from ._customerio_profile import Identification, attributes_of, identification_of, typed_created_at
from ._customerio_values import (
    EVENT_DATA_BYTES,
    IDENTIFIER_BYTES,
    ITEM_BYTES,
    Unfit,
    bytes_over,
    email_of,
    event_id,
    fitting_name,
    occurred_s,
    person,
)

Item: TypeAlias = dict[str, Any]
Apart: TypeAlias = Literal["", "events", "metrics", "alias"]
REFUSED_TO_CLIENTS = ("User Deleted", "User Suppressed", "User Unsuppressed", "Object Deleted")
APPLE = frozenset({"ios", "ipados", "tvos", "watchos", "visionos"})
METRICS = ("bounced", "clicked", "converted", "deferred", "delivered", "dropped", "opened", "spammed")
GROUP_ACTIONS = ("identify", "delete", "add_relationships", "delete_relationships")
_OF_THE_CALL = frozenset(
    {
        *("action", "objectTypeId", "object_type_id", "objectAttributes"),
        *("relationshipAttributes", "relationship_attributes"),
    }
)
_is_object_type = re.compile(r"[1-9][0-9]{0,17}", re.ASCII).fullmatch
_encode = msgspec.json.Encoder().encode


class Post(Struct, frozen=True):
    """What one message writes: v2 items, or where `call` is given the body of that one call.

    `encoded` are the bodies as JSON. `people` are the ids it names: whatever shares one of them keeps its
    order. `apart` goes into a later request than what its person did before: Customer.io may not see that
    yet within one request.
    """

    bodies: tuple[Item, ...]
    encoded: tuple[bytes, ...]
    people: tuple[str, ...]
    call: Apart = ""
    apart: bool = False
    identification: Identification | None = None

    @property
    def merges(self) -> bool:
        """Whether it makes two people one."""
        return self.apart and self.bodies[0].get("action") == "merge"


class Rules(Struct, frozen=True):
    """The settings that decide what a message becomes."""

    device_token_event: str = ""
    device_events: bool = True
    anonymous: Literal["skip", "send"] = "skip"


def post_of(message: Message, rules: Rules, report: Callable[[str], None]) -> Post | Skipped:
    """Return what a message writes, or why it writes nothing. Raises `Unfit` for what can never be sent."""
    if message.trust != "server" and (refused := _untrusted(message)) is not None:
        return refused
    make = _KINDS.get(message.type)
    if make is None:
        return Skipped("unsupported", f"{message.type!r} is not a call of the Segment spec")
    return make(message, rules, report)


def of_item(message: Message, body: Item, *, apart: bool = False) -> Post:
    """Make a post of a v2 item. Raises `Unfit` for one that is too big."""
    people = _people(message)
    if message.user_id is None and body["type"] == "person":
        people = (*people, *body["identifiers"].values())
    return Post((body,), (fitting(body),), people, apart=apart)


def of_identification(found: Identification, people: tuple[str, ...]) -> Post:
    """Make a post of an identify. Raises `Unfit` for one that is too big."""
    bodies = found.items()
    return Post(bodies, tuple([fitting(body) for body in bodies]), people, identification=found)


def fitting(body: Item) -> bytes:
    """Return a body as JSON. Raises `Unfit` for more than Customer.io takes."""
    encoded = _encode(body)
    if len(encoded) > ITEM_BYTES:
        raise Unfit(f"it has {len(encoded)} bytes as JSON; Customer.io takes {ITEM_BYTES}")
    return encoded


def _fitting_id(text: str, what: str) -> str:
    if size := bytes_over(text, IDENTIFIER_BYTES):
        raise Unfit(f"{what} has {size} bytes; Customer.io takes {IDENTIFIER_BYTES}")
    return text


def _people(message: Message) -> tuple[str, ...]:
    names = (message.user_id, message.anonymous_id, message.previous_id)
    return tuple([name for name in names if name])


def _untrusted(message: Message) -> Skipped | None:
    """What a copied client key must not do (D13), beyond what the connection holds back already."""
    if message.type == "track" and message.event in REFUSED_TO_CLIENTS:
        detail = f"a client source cannot send {message.event!r}; send it from a source with trust: server"
        return Skipped("untrusted", detail)
    if message.type == "group" and message.traits.get("action") == "delete":
        return Skipped("untrusted", "a client source cannot delete objects")
    if message.user_id is not None and message.user_id.startswith("cio_"):
        return Skipped("untrusted", "a client source cannot address people by cio_id: it could rename them")
    return None


# -- who -----------------------------------------------------------------------------------------------


def known(message: Message) -> dict[str, str] | None:
    """Return the person's one identifier: userId, else the traits' e-mail; None for nobody known (C122)."""
    if message.user_id is not None:
        return person(message.user_id)
    email = email_of(message.traits) if message.type != "group" else None
    email = email or email_of(message.context_traits)
    return None if email is None else {"email": email}


def _named(message: Message, what: str) -> dict[str, str]:
    found = known(message)
    if found is None:
        raise Unfit(f"{what} needs a userId, or an e-mail among the traits")
    return found


# -- identify, alias, delete ---------------------------------------------------------------------------


def _identify(message: Message, rules: Rules, report: Callable[[str], None]) -> Post | Skipped:
    who = known(message)
    if who is None:
        if message.anonymous_id is None:
            raise Unfit("an identify needs a userId, an e-mail among the traits or an anonymousId")
        if rules.anonymous == "skip":
            detail = "an identify of nobody known would make a billable profile; `anonymous: send` sends it"
            return Skipped("anonymous", detail)
        who = {"id": _fitting_id(message.anonymous_id, "the anonymousId")}
    found = identification_of(message, who, report)
    email = found.attributes.get("email")  # who has it next comes behind the end of who had it before
    people = (*_people(message), *who.values(), *([str(email)] if email else []))
    return of_identification(found, people)


def _alias(message: Message, rules: Rules, report: Callable[[str], None]) -> Post | Skipped:
    if message.user_id is None or message.previous_id is None:
        raise Unfit("an alias needs a userId and a previousId")
    primary = person(message.user_id)
    if message.previous_id == message.user_id:
        return Skipped("unsupported", "an alias of an id to itself changes nothing")
    if message.previous_id == message.anonymous_id:
        joined = Identification(
            primary, {"anonymous_id": message.previous_id}, math.floor(occurred_s(message))
        )
        return of_identification(joined, _people(message))
    body = {"type": "person", "action": "merge", "primary": primary, "secondary": person(message.previous_id)}
    return of_item(message, body, apart=True)


def _delete(message: Message, rules: Rules, report: Callable[[str], None]) -> Post | Skipped:
    who = known(message)
    if who is None:
        return Skipped("unsupported", "Customer.io has no call that deletes what an anonymousId did")
    return _act(message, who, "delete")


def _act(message: Message, who: dict[str, str], action: str) -> Post:
    return of_item(message, {"type": "person", "action": action, "identifiers": who}, apart=True)


# -- events --------------------------------------------------------------------------------------------


def _track(message: Message, rules: Rules, report: Callable[[str], None]) -> Post | Skipped:
    name = message.event
    if isinstance(name, str):
        special = _SEMANTIC.get(name)
        if special is not None:
            return special(message, report)
        if (name in _APPLICATION and rules.device_events) or (name and name == rules.device_token_event):
            made = _device_of_event(message, report)
            if made is not None:
                return made
    fitting = fitting_name(name, "the event name")
    if fitting in _SEMANTIC:  # Pipelines would obey; neither trust nor the delete guard knew it for an order
        raise Unfit(f"{fitting!r} with blanks around it is no order to Customer.io: send it without them")
    return _event(message, "event", fitting)


def _page(message: Message, rules: Rules, report: Callable[[str], None]) -> Post:
    return _event(message, "page", _page_name(message, report))


def _screen(message: Message, rules: Rules, report: Callable[[str], None]) -> Post:
    properties = _properties(message) or {}
    names = (message.name, message.event, properties.get("name"))
    name = next((name for name in names if name), None)
    return _event(message, "screen", fitting_name(name, "the screen's name"))


def _page_name(message: Message, report: Callable[[str], None]) -> str:
    """Return the name; where none is given, the first of address, path and title that fits."""
    if message.name:
        return fitting_name(message.name, "the page's name")
    properties, page = _properties(message) or {}, message.context.get("page")
    shown = {**page, **properties} if isinstance(page, dict) else properties
    url = shown.get("url")
    bare = url.partition("?")[0].partition("#")[0] if isinstance(url, str) else None
    for candidate in (shown.get("name"), url, bare, shown.get("path"), shown.get("title")):
        try:
            name = fitting_name(candidate, "the page's name")
        except Unfit:
            continue
        if url and name is not url and candidate is not shown.get("name"):
            report("the page's address is longer than a name may be: named without its query, or by path")
        return name
    raise Unfit("the page has no name and no address, path or title of at most 100 bytes to name it by")


def _properties(message: Message) -> dict[str, Any] | None:
    properties = message.properties
    if properties is not None and not isinstance(properties, dict):
        raise Unfit("properties must be an object")
    return properties


def _event(message: Message, action: str, name: str) -> Post:
    at_s = occurred_s(message)
    data = _properties(message)
    who = known(message)
    if who is None:
        return _anonymous_event(message, action, name, at_s, data)
    body: Item = {
        "type": "person",
        "action": action,
        "identifiers": who,
        "name": name,
        "id": event_id(message, at_s),
        "timestamp": math.floor(at_s),
    }
    if data is not None:
        body["attributes"] = data
    return of_item(message, body)


def _anonymous_event(
    message: Message, kind: str, name: str, at_s: float, data: dict[str, Any] | None
) -> Post:
    """Make the v1 call for an event of nobody known: v2 documents no anonymous events."""
    if message.anonymous_id is None:
        raise Unfit("an event needs a userId, an e-mail among the traits or an anonymousId")
    body: Item = {
        "name": name,
        "type": kind,
        "id": event_id(message, at_s),
        "timestamp": math.floor(at_s),
        "anonymous_id": _fitting_id(message.anonymous_id, "the anonymousId"),
    }
    if data is not None:
        body["data"] = data
        if (size := len(_encode(data))) > EVENT_DATA_BYTES:
            raise Unfit(f"the properties have {size} bytes; Customer.io takes {EVENT_DATA_BYTES}")
    return Post((body,), (_encode(body),), _people(message), "events")


# -- devices -------------------------------------------------------------------------------------------


def _device_of_event(message: Message, report: Callable[[str], None]) -> Post | None:
    """Make the device write of RudderStack's device events; None for one that tells of no device."""
    if known(message) is None:
        report("no device was added or removed: the event names nobody known")
        return None
    if message.event == "Application Uninstalled":
        return _delete_device(message, report)
    token, device = _device(message)
    if token is None:
        return None
    if _platform(message, device) is None:
        report("context.device.type is neither ios nor android: sent as an event, no device was added")
        return None
    return _add_device(message, report)


def _device(message: Message) -> tuple[str | None, dict[str, Any]]:
    """Return the token, and what is told of the device in the context or the properties."""
    for place in (message.context, _properties(message) or {}):
        device = place.get("device")
        if isinstance(device, dict) and (token := identifier(device.get("token"))):
            return token, device
    return None, {}


def _platform(message: Message, device: Mapping[str, Any]) -> str | None:
    """Return ios or android, the two platforms there are."""
    system = message.context.get("os")
    for told in (device.get("type"), system.get("name") if isinstance(system, dict) else None):
        word = told.strip().lower() if isinstance(told, str) else ""
        if word in APPLE:
            return "ios"
        if word == "android":
            return word
    return None


def _add_device(message: Message, report: Callable[[str], None]) -> Post:
    who = _named(message, "a device")
    token, device = _device(message)
    if token is None:
        raise Unfit("context.device.token is missing")
    platform = _platform(message, device)
    if platform is None:
        raise Unfit("context.device.type must be ios or android, the platforms Customer.io knows")
    told = {name: value for name, value in (_properties(message) or {}).items() if name != "device"}
    if message.event == "Device Created or Updated":
        told = {**{name: device[name] for name in device if name not in ("id", "token", "type")}, **told}
    entry: Item = {"token": token, "platform": platform, "last_used": math.floor(occurred_s(message))}
    if told:
        entry["attributes"] = told
    body = {"type": "person", "action": "add_device", "identifiers": who, "device": entry}
    return of_item(message, body)


def _delete_device(message: Message, report: Callable[[str], None]) -> Post:
    who = _named(message, "a device")
    token, _ = _device(message)
    if token is None:
        raise Unfit("context.device.token is missing: which device is gone?")
    body = {"type": "person", "action": "delete_device", "identifiers": who, "device": {"token": token}}
    return of_item(message, body)


# -- objects and relationships -------------------------------------------------------------------------


def _group(message: Message, rules: Rules, report: Callable[[str], None]) -> Post:
    traits = message.traits
    action = traits.get("action", "identify")
    if action not in GROUP_ACTIONS:
        raise Unfit(f"traits.action is {action!r}; it is one of {', '.join(GROUP_ACTIONS)}")
    identifiers = _object(message, message.group_id, "groupId")
    if action == "delete":
        return of_item(
            message, {"type": "object", "action": "delete", "identifiers": identifiers}, apart=True
        )
    relationship = _relationship(message)
    body: Item = {"type": "object", "action": action, "identifiers": identifiers}
    if action == "identify":
        body["attributes"] = _object_attributes(traits, report)
        if relationship is not None and "anonymous_id" in relationship["identifiers"]:
            # Customer.io's document shows the id both beside and within the relationships.
            body |= {"action": "identify_anonymous", "anonymous_id": message.anonymous_id}
    elif relationship is None or "anonymous_id" in relationship["identifiers"]:
        raise Unfit(f"{action} needs a userId, or an e-mail in context.traits")
    if relationship is not None:
        body["cio_relationships"] = [relationship]
    return of_item(message, body)


def _object(message: Message, object_id: str | None, field: str) -> dict[str, str]:
    """Return an object's identifiers; the type is 1 unless traits, properties or context name another."""
    if object_id is None:
        raise Unfit(f"{field} is missing")
    places = (message.traits, _properties(message) or {}, message.context)
    names = ("objectTypeId", "object_type_id")
    given = next((place[name] for place in places for name in names if name in place), "1")
    kind = identifier(given)
    if kind is None or _is_object_type(kind) is None:
        raise Unfit(f"objectTypeId is {given!r}; Customer.io numbers object types from 1")
    return {"object_type_id": kind, "object_id": _fitting_id(object_id, field)}


def _relationship(message: Message) -> dict[str, Any] | None:
    """Return who is related, and how; None where the message names nobody."""
    who = known(message)
    if who is None and message.anonymous_id is not None:
        who = {"anonymous_id": message.anonymous_id}
    if who is None:
        return None
    traits = message.traits
    told = traits.get("relationshipAttributes", traits.get("relationship_attributes"))
    related: dict[str, Any] = {"identifiers": who}
    return {**related, "relationship_attributes": told} if isinstance(told, dict) else related


def _object_attributes(traits: Mapping[str, Any], report: Callable[[str], None]) -> dict[str, Any]:
    given = {name: value for name, value in traits.items() if name not in _OF_THE_CALL}
    listed = traits.get("objectAttributes")
    if isinstance(listed, dict):
        given |= listed
    typed_created_at(given, report)
    return attributes_of(given, "object attribute")


# -- Customer.io's own events --------------------------------------------------------------------------


def _user_deleted(message: Message, report: Callable[[str], None]) -> Post:
    return _act(message, _named(message, "User Deleted"), "delete")


def _user_suppressed(message: Message, report: Callable[[str], None]) -> Post:
    return _act(message, _named(message, "User Suppressed"), "suppress")


def _user_unsuppressed(message: Message, report: Callable[[str], None]) -> Post:
    return _act(message, _named(message, "User Unsuppressed"), "unsuppress")


def _object_named(message: Message) -> dict[str, str]:
    """Return the object of a semantic event: `objectId` of its properties, else the group it names."""
    properties = _properties(message) or {}
    given = (properties.get("objectId"), properties.get("object_id"), message.group_id)
    found = next(
        (name for each in (*given, message.context.get("groupId")) if (name := identifier(each))), None
    )
    return _object(message, found, "properties.objectId")


def _relationship_deleted(message: Message, report: Callable[[str], None]) -> Post:
    relationship = {"identifiers": _named(message, "Relationship Deleted")}
    body = {
        "type": "object",
        "action": "delete_relationships",
        "identifiers": _object_named(message),
        "cio_relationships": [relationship],
    }
    return of_item(message, body)


def _object_deleted(message: Message, report: Callable[[str], None]) -> Post:
    body = {"type": "object", "action": "delete", "identifiers": _object_named(message)}
    return of_item(message, body, apart=True)


def _delivery_reported(message: Message, report: Callable[[str], None]) -> Post:
    """Make the v1 metrics call: v2 knows three of the metrics only."""
    properties = _properties(message) or {}
    delivery, metric = identifier(properties.get("deliveryId")), properties.get("metric")
    if delivery is None:
        raise Unfit("properties.deliveryId is missing")
    if metric not in METRICS:
        raise Unfit(f"properties.metric is {metric!r}; it is one of {', '.join(METRICS)}")
    body: Item = {"delivery_id": delivery, "metric": metric, "timestamp": math.floor(occurred_s(message))}
    for name in ("recipient", "reason", "href"):
        if isinstance(value := properties.get(name), str) and value:
            body[name] = value
    clicked = {"action_name": properties.get("actionName"), "action_value": properties.get("actionValue")}
    if told := {name: value for name, value in clicked.items() if isinstance(value, str)}:
        body["metadata"] = told
    return Post((body,), (fitting(body),), _people(message), "metrics")


_KINDS: Mapping[str, Callable[[Message, Rules, Callable[[str], None]], Post | Skipped]] = {
    "identify": _identify,
    "track": _track,
    "page": _page,
    "screen": _screen,
    "group": _group,
    "alias": _alias,
    "delete": _delete,
}
_APPLICATION = frozenset({"Application Installed", "Application Opened", "Application Uninstalled"})
_SEMANTIC: Mapping[str, Callable[[Message, Callable[[str], None]], Post]] = {
    "Device Created or Updated": _add_device,
    "Device Deleted": _delete_device,
    "User Deleted": _user_deleted,
    "User Suppressed": _user_suppressed,
    "User Unsuppressed": _user_unsuppressed,
    "Relationship Deleted": _relationship_deleted,
    "Object Deleted": _object_deleted,
    "Report Delivery Event": _delivery_reported,
}
