"""The simulated Customer.io's Pipelines API: Segment's calls, permissive unless asked to be strict."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, TypeAlias

import msgspec

from .customerio_entity import PLATFORMS
from .customerio_exchange import Answered, Call, Routes
from .customerio_identity import Profiles, Who, of_path
from .customerio_limits import (
    BATCH_LIMIT_BYTES,
    ITEM_LIMIT_BYTES,
    Invalid,
    check_attributes,
    check_id,
    event_data,
    event_name,
    one_of,
    required,
)
from .customerio_objects import Objects
from .customerio_state import CustomerIoState, Device, Event

Item: TypeAlias = Mapping[str, Any]
CALLS = ("identify", "track", "page", "screen", "group", "alias", "batch")
STRICT_HEADER = b"x-strict-mode"
_DONE: Answered = (200, {})
_RENAMED = {"createdAt": "created_at"}


class Pipelines:
    """The seven calls. What is wrong with one raises `Invalid`; the front answers 200 all the same or 400."""

    def __init__(
        self,
        state: CustomerIoState,
        profiles: Profiles,
        objects: Objects,
        report: Callable[[str, str, int | None], None],
    ) -> None:
        self._state = state
        self._profiles = profiles
        self._objects = objects
        self._report = report
        self.routes = Routes([("POST", f"/v1/{name}", self.post) for name in CALLS])
        self._calls: Mapping[str, Callable[[Item], None]] = {
            "identify": self._identify,
            "track": self._track,
            "page": self._view,
            "screen": self._view,
            "group": self._group,
            "alias": self._alias,
        }
        self._semantic: Mapping[str, Callable[[Item], None]] = {
            "Device Created or Updated": self._add_device,
            "Device Deleted": self._delete_device,
            "User Deleted": lambda item: self._profiles.delete(self._who(item)),
            "User Suppressed": lambda item: self._profiles.suppress(self._who(item)),
            "User Unsuppressed": lambda item: self._profiles.unsuppress(self._who(item)),
            "Relationship Deleted": self._delete_relationship,
            "Object Deleted": lambda item: self._objects.delete(_object(item)),
            "Report Delivery Event": self._report_delivery,
        }

    def post(self, call: Call) -> Answered:
        """Take one call, or the good ones of a batch. Raises `Invalid`; `ValueError` for what is no JSON."""
        name = call.request.path.rpartition("/")[2]
        if call.request.size > (BATCH_LIMIT_BYTES if name == "batch" else ITEM_LIMIT_BYTES):
            raise Invalid("", "the request is too large")
        body = call.body()
        if not isinstance(body, dict):
            raise Invalid("", "the body must be an object")
        if name == "batch":
            return self._batch(body)
        self._apply(name, body)
        return _DONE

    def _batch(self, body: dict[str, Any]) -> Answered:
        items = body.get("batch")
        if not isinstance(items, list):
            raise required("batch")
        shared: dict[str, Any] = {name: body[name] for name in ("context", "integrations") if name in body}
        problems = []
        for index, item in enumerate(items):
            try:
                if not isinstance(item, dict):
                    raise Invalid("", "a call must be an object")
                name = one_of(item.get("type"), self._calls, "type")
                if len(msgspec.json.encode(item)) > ITEM_LIMIT_BYTES:
                    raise Invalid("", "a call cannot be larger than 32 KB")
                self._apply(name, {**shared, **item})
            except Invalid as problem:
                problems.append(f"batch[{index}]: {problem.text}")
        if problems:
            raise Invalid("batch", "; ".join(problems))
        return _DONE

    def _apply(self, name: str, item: Item) -> None:
        if name != "alias" and not (item.get("userId") or item.get("anonymousId")):
            raise required("userId or anonymousId")
        self._calls[name]({**item, "type": name})

    def _who(self, item: Item) -> Who:
        user = item.get("userId")
        if not isinstance(user, str):
            raise Invalid("userId", "userId must be a string")
        check_id(user, "userId")
        return of_path(user, self._state.kinds)

    def _identify(self, item: Item) -> None:
        traits = _hash(item.get("traits"), "traits")
        given = {_RENAMED.get(name, name): value for name, value in traits.items()}
        check_attributes(given, "traits")
        if isinstance(given.get("created_at"), str):
            given["created_at"] = _moment(given["created_at"])
        if item.get("anonymousId"):
            given["anonymous_id"] = item["anonymousId"]
        if item.get("userId"):
            self._profiles.identify(self._who(item), given, _moment(item.get("timestamp")))

    def _track(self, item: Item) -> None:
        semantic = self._semantic.get(str(item.get("event")))
        if semantic is not None:
            semantic(item)
        else:
            self._keep(item, "event", event_name("event", item.get("event")))

    def _view(self, item: Item) -> None:
        kind = str(item["type"])
        given = item.get("name") or (item.get("properties") or {}).get("url")
        self._keep(item, kind, event_name(kind, given))

    def _keep(self, item: Item, kind: str, name: str) -> None:
        data = event_data(item.get("properties"), 0, "properties")
        at = _moment(item.get("timestamp"))
        event = Event(
            kind, name, data, self._state.now() if at is None else at, str(item.get("messageId") or "")
        )
        if item.get("userId"):
            self._profiles.track(self._who(item), event)
        else:
            self._profiles.track_anonymous(str(item["anonymousId"]), event)

    def _group(self, item: Item) -> None:
        traits = _hash(item.get("traits"), "traits")
        thing = {**_object({**item, "properties": traits}), "object_id": item.get("groupId")}
        plain = {name: value for name, value in traits.items() if name != "objectTypeId"}
        made = self._objects.identify(thing, plain, self._state.clock.now())
        if made is None:
            return
        if item.get("userId"):
            self._objects.relate(self._who(item), [{"identifiers": thing}], add=True)
        else:
            self._profiles.await_person(str(item["anonymousId"]), made.cio_object_id, {})

    def _alias(self, item: Item) -> None:
        if not isinstance(item.get("previousId"), str):
            raise required("previousId")
        self._profiles.merge(self._who(item), of_path(item["previousId"], self._state.kinds))

    def _add_device(self, item: Item) -> None:
        device = _device(item)
        platform = one_of(device.get("type"), PLATFORMS, "context.device.type")
        attributes = _hash(item.get("properties"), "properties")
        self._profiles.add_device(
            self._who(item), Device(device["token"], platform, self._state.now(), dict(attributes))
        )

    def _delete_device(self, item: Item) -> None:
        self._profiles.delete_device(self._who(item), _device(item)["token"])

    def _delete_relationship(self, item: Item) -> None:
        self._objects.relate(self._who(item), [{"identifiers": _object(item)}], add=False)

    def _report_delivery(self, item: Item) -> None:
        properties = _hash(item.get("properties"), "properties")
        for name in ("deliveryId", "metric"):
            if not properties.get(name):
                raise required(f"properties.{name}")
        self._report(str(properties["deliveryId"]), str(properties["metric"]), _moment(item.get("timestamp")))


def _hash(value: Any, field: str) -> dict[str, Any]:
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise Invalid(field, f"{field} must be an object")
    return value


def _object(item: Item) -> dict[str, Any]:
    properties = _hash(item.get("properties"), "properties")
    kind = properties.get("objectTypeId") or item.get("objectTypeId") or "1"
    return {"object_type_id": kind, "object_id": properties.get("objectId")}


def _device(item: Item) -> dict[str, Any]:
    device = (_hash(item.get("context"), "context")).get("device")
    if not isinstance(device, dict) or not isinstance(device.get("token"), str) or not device["token"]:
        raise required("context.device.token")
    return device


def _moment(value: Any) -> int | None:
    """Read an ISO 8601 time as Unix seconds; None where there is none. Raises `Invalid`."""
    if value is None:
        return None
    try:
        return int(datetime.fromisoformat(value).timestamp())
    except (TypeError, ValueError):
        raise Invalid("timestamp", "timestamp must be ISO 8601") from None
