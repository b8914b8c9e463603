"""From what the Track API would be sent to calls of Customer.io's Pipelines API: the same in other words."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Any

from msgspec.structs import replace

from towpath.message import Message, format_time

from ._customerio_items import Item, Post, fitting
from ._customerio_values import event_id, occurred_s

_KINDS = {"event": "track", "page": "page", "screen": "screen"}
_PERSON_EVENTS = {"delete": "User Deleted", "suppress": "User Suppressed", "unsuppress": "User Unsuppressed"}
_REPORTED = {"delivery_id": "deliveryId", "action_name": "actionName", "action_value": "actionValue"}


def pipelines_post(post: Post, message: Message) -> Post:
    """Return the same writes as Pipelines calls. Raises `Unfit` for one of more than 32 KB.

    Times are ISO 8601. The messageId, by which Customer.io knows a repeated call, is made of the source and
    the messageId as Track's is, since two sources may use the same ones; the second of two calls for one
    message has one of its own. An alias cannot be part of a batch.
    """
    calls = tuple([_call(post, body) for body in post.bodies])
    moment, repeated = format_time(message.occurred_at), event_id(message, occurred_s(message))
    for number, call in enumerate(calls):
        call["messageId"] = f"{repeated}-{number}" if number else repeated
        call["timestamp"] = moment
        if "userId" not in call and "anonymousId" not in call:
            call |= _sender(message)
        context = {**message.context, **call.pop("context", {})}
        context.pop("traits", None)
        if context:
            call["context"] = context
    alone = "alias" if calls[0]["type"] == "alias" else ""
    encoded = tuple([fitting(call) for call in calls])
    return replace(post, bodies=calls, encoded=encoded, call=alone)


def _sender(message: Message) -> Item:
    """Return somebody for a call that concerns nobody: Pipelines wants an id on every one."""
    if message.user_id is not None:
        return {"userId": message.user_id}
    return {"anonymousId": message.anonymous_id or message.message_id}


def _call(post: Post, body: Item) -> Item:
    if post.call == "events":
        return _anonymous_event(body)
    if post.call == "metrics":
        return _delivery(body)
    return _OBJECTS[body["action"]](body) if body["type"] == "object" else _PEOPLE[body["action"]](body)


def _who(identifiers: Mapping[str, str]) -> Item:
    """Return the person as Pipelines names one: an e-mail and `cio_…` are told by their shape there."""
    if "anonymous_id" in identifiers:
        return {"anonymousId": identifiers["anonymous_id"]}
    if "cio_id" in identifiers:
        return {"userId": f"cio_{identifiers['cio_id']}"}
    return {"userId": identifiers.get("id") or identifiers["email"]}


def _event(name: str, who: Item, properties: Item | None = None) -> Item:
    return {"type": "track", **who, "event": name, "properties": properties or {}}


def _traits(attributes: Mapping[str, Any]) -> Item:
    """Return attributes as traits, with `createdAt` as Pipelines wants it: ISO 8601."""
    traits = dict(attributes)
    if "created_at" in traits:
        traits["createdAt"] = format_time(datetime.fromtimestamp(traits.pop("created_at"), UTC))
    return traits


def _identify(body: Item) -> Item:
    traits = _traits(body["attributes"])
    anonymous_id = traits.pop("anonymous_id", None)
    who = _who(body["identifiers"])
    if anonymous_id is not None:
        who["anonymousId"] = anonymous_id
    return {"type": "identify", **who, "traits": traits}


def _of_person(body: Item) -> Item:
    who, properties = _who(body["identifiers"]), body.get("attributes", {})
    if body["action"] == "event":
        return _event(body["name"], who, properties)
    return {"type": _KINDS[body["action"]], **who, "name": body["name"], "properties": properties}


def _act(body: Item) -> Item:
    return _event(_PERSON_EVENTS[body["action"]], _who(body["identifiers"]))


def _device(body: Item) -> Item:
    device = body["device"]
    told = {"token": device["token"]}
    if body["action"] == "delete_device":
        return {**_event("Device Deleted", _who(body["identifiers"])), "context": {"device": told}}
    told["type"] = device["platform"]
    call = _event("Device Created or Updated", _who(body["identifiers"]), device.get("attributes"))
    return {**call, "context": {"device": told}}


def _merge(body: Item) -> Item:
    return {
        "type": "alias",
        **_who(body["primary"]),
        "previousId": _who(body["secondary"])["userId"],
    }


def _anonymous_event(body: Item) -> Item:
    who, properties = {"anonymousId": body["anonymous_id"]}, body.get("data", {})
    if body["type"] == "event":
        return _event(body["name"], who, properties)
    return {"type": _KINDS[body["type"]], **who, "name": body["name"], "properties": properties}


def _delivery(body: Item) -> Item:
    told = {**body, **body.get("metadata", {})}
    del told["timestamp"]
    told.pop("metadata", None)
    named = {_REPORTED.get(name, name): value for name, value in told.items()}
    return _event("Report Delivery Event", {}, named)


def _group(body: Item) -> Item:
    """Make a group call: an object, whom it relates to, and how."""
    object_type, group_id = body["identifiers"]["object_type_id"], body["identifiers"]["object_id"]
    related = body.get("cio_relationships", [{}])[0]
    traits = {**_traits(body.get("attributes", {})), "objectTypeId": object_type}
    if "relationship_attributes" in related:
        traits["relationshipAttributes"] = related["relationship_attributes"]
    who = _who(related["identifiers"]) if related else {}
    return {"type": "group", **who, "groupId": group_id, "traits": traits}


def _unrelate(body: Item) -> Item:
    who = _who(body["cio_relationships"][0]["identifiers"])
    return _event("Relationship Deleted", who, _object(body))


def _object_deleted(body: Item) -> Item:
    return _event("Object Deleted", {}, _object(body))


def _object(body: Item) -> Item:
    identifiers = body["identifiers"]
    return {"objectId": identifiers["object_id"], "objectTypeId": identifiers["object_type_id"]}


_PEOPLE: Mapping[str, Callable[[Item], Item]] = {
    "identify": _identify,
    **dict.fromkeys(_KINDS, _of_person),
    **dict.fromkeys(_PERSON_EVENTS, _act),
    "add_device": _device,
    "delete_device": _device,
    "merge": _merge,
}
_OBJECTS: Mapping[str, Callable[[Item], Item]] = {
    "identify": _group,
    "identify_anonymous": _group,
    "add_relationships": _group,
    "delete_relationships": _unrelate,
    "delete": _object_deleted,
}
