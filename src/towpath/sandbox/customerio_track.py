"""The simulated Customer.io's Track API: v1's paths, v2's entity and batch."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import Struct

from .customerio_entity import BatchBody, Entities, device_of
from .customerio_exchange import Answered, Call, Refusal, Routes, decode, track_error
from .customerio_identity import Profiles, Who, of_path
from .customerio_limits import (
    BATCH_LIMIT_BYTES,
    ITEM_LIMIT_BYTES,
    SEGMENT_IDS_LIMIT,
    Invalid,
    check_attributes,
    check_id,
    check_person,
    event_data,
    event_name,
    one_of,
    required,
    seconds,
)
from .customerio_messages import touch
from .customerio_objects import Objects
from .customerio_state import CustomerIoState, Event, Segment

KINDS_OF_EVENT = ("event", "page", "screen")
METRICS = ("bounced", "clicked", "converted", "deferred", "delivered", "dropped", "opened", "spammed")
_PUSH_METRICS = ("opened", "converted", "delivered")
_DONE: Answered = (200, {})
_JSON_TYPE = "application/json"
_batch = msgspec.json.Decoder(BatchBody).decode


class ItemFault(Struct, frozen=True, kw_only=True):
    """A v2 item that is refused though nothing is wrong with it: the `index`-th (from 0) of a batch."""

    index: int
    reason: str = "invalid"
    field: str = "attributes"
    message: str = "refused by the sandbox"


class Track:
    """The endpoints that write people, events, devices, objects and segment members."""

    def __init__(self, state: CustomerIoState, profiles: Profiles, objects: Objects) -> None:
        self._state = state
        self._profiles = profiles
        self._objects = objects
        self._entities = Entities(state, profiles, objects, self.report)
        self.item_faults: list[ItemFault] = []
        """Each meets the next batch that is long enough, once."""
        person = "/api/v1/customers/*"
        self.routes = Routes(
            [
                ("POST", "/api/v2/batch", self._post_batch),
                ("POST", "/api/v2/entity", self._post_entity),
                ("POST", f"{person}/events", self._track),
                ("PUT", person, self._identify),
                ("DELETE", person, self._delete),
                ("PUT", f"{person}/devices", self._add_device),
                ("DELETE", f"{person}/devices/*", self._delete_device),
                ("POST", f"{person}/suppress", self._suppress),
                ("POST", f"{person}/unsuppress", self._unsuppress),
                ("POST", "/api/v1/events", self._track_anonymous),
                ("POST", "/api/v1/merge_customers", self._merge),
                ("POST", "/api/v1/metrics", self._metric),
                ("POST", "/api/v1/push/events", self._push_metric),
                ("POST", "/api/v1/segments/*/add_customers", self._add_to_segment),
                ("POST", "/api/v1/segments/*/remove_customers", self._remove_from_segment),
                ("POST", "/api/v1/forms/*/submit", self._submit_form),
                ("POST", "/unsubscribe/*", self._unsubscribe),
            ]
        )

    def answer(self, call: Call, endpoint: Any) -> Answered:
        """Call an endpoint; what is invalid becomes a 400 in the envelope of its version."""
        try:
            answered: Answered = endpoint(call)
        except (Invalid, ValueError) as problem:
            error = problem if isinstance(problem, Invalid) else Invalid("", str(problem))
            if call.request.path.startswith("/api/v2/"):
                raise Refusal(400, {"errors": [error.item()]}) from None
            raise track_error(
                400, error.text, single=error.field.startswith(("primary", "secondary"))
            ) from None
        return answered

    # -- v2 --------------------------------------------------------------------------------------------

    def _post_entity(self, call: Call) -> Answered:
        if call.request.size > ITEM_LIMIT_BYTES:
            raise Invalid("", "the request cannot be larger than 32 KB")
        self._entities.apply(call.body())
        return _DONE

    def _post_batch(self, call: Call) -> Answered:
        if call.request.size > BATCH_LIMIT_BYTES:
            raise Invalid("batch", "the request cannot be larger than 500 KB")
        try:
            items = _batch(call.request.body).batch
        except msgspec.ValidationError as error:
            raise Invalid("batch", f"batch is invalid: {error}") from None
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise ValueError("the body is no JSON") from None
        if not items:
            raise required("batch")
        errors = []
        faults = self._faults(len(items))
        for index, raw in enumerate(items):
            try:
                if index in faults:
                    fault = faults[index]
                    raise Invalid(fault.field, fault.message, reason=fault.reason)
                self._apply(raw)
            except Invalid as problem:
                errors.append({"batch_index": index, **problem.item()})
        return (207, {"errors": errors}) if errors else _DONE

    def _apply(self, raw: msgspec.Raw) -> None:
        if len(memoryview(raw)) > ITEM_LIMIT_BYTES:
            raise Invalid("", "an item cannot be larger than 32 KB")
        try:
            item = decode(raw)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            raise Invalid("", "the item is no JSON") from None
        self._entities.apply(item)

    def _faults(self, length: int) -> dict[int, ItemFault]:
        if not self.item_faults:
            return {}
        met = {fault.index: fault for fault in self.item_faults if fault.index < length}
        self.item_faults = [fault for fault in self.item_faults if fault.index >= length]
        return met

    # -- v1 --------------------------------------------------------------------------------------------

    def _who(self, call: Call) -> Who:
        who = of_path(call.values[0], self._state.kinds)
        check_id(who[1])
        return who

    def _identify(self, call: Call) -> Answered:
        who, body = self._who(call), _hash(call.body())
        check_attributes(body, "attributes")
        check_person(body)
        at, related = seconds(body.get("_timestamp"), "_timestamp"), body.get("cio_relationships")
        add, relationships = _relationships(related)
        self._objects.check(relationships)
        person = self._profiles.identify(who, body, at, only_update=body.get("_update") is True)
        if person is not None and relationships:
            self._objects.relate(("cio_id", person.cio_id), relationships, add=add)
        return _DONE

    def _delete(self, call: Call) -> Answered:
        self._profiles.delete(self._who(call))
        return _DONE

    def _suppress(self, call: Call) -> Answered:
        self._profiles.suppress(self._who(call))
        return _DONE

    def _unsuppress(self, call: Call) -> Answered:
        self._profiles.unsuppress(self._who(call))
        return _DONE

    def _add_device(self, call: Call) -> Answered:
        who, body = self._who(call), _hash(call.body())
        device = device_of(body.get("device"), "id")
        self._profiles.add_device(who, device)
        return _DONE

    def _delete_device(self, call: Call) -> Answered:
        self._profiles.delete_device(self._who(call), call.values[1])
        return _DONE

    def _track(self, call: Call) -> Answered:
        who = self._who(call)
        self._profiles.track(who, self._event(call, _hash(call.body())))
        return _DONE

    def _track_anonymous(self, call: Call) -> Answered:
        body = _hash(call.body())
        event = self._event(call, body)
        anonymous_id = body.get("anonymous_id")
        if anonymous_id:
            self._profiles.track_anonymous(str(anonymous_id), event)
        elif not event.data.get("recipient"):
            raise Invalid("data", "an event without anonymous_id needs data.recipient")
        return _DONE

    def _event(self, call: Call, body: dict[str, Any]) -> Event:
        kind = one_of(body.get("type") or "event", KINDS_OF_EVENT, "type")
        name = event_name(kind, body.get("name"))
        data, at = event_data(body.get("data"), call.request.size), seconds(body.get("timestamp"))
        return Event(kind, name, data, self._state.now() if at is None else at, str(body.get("id") or ""))

    def _merge(self, call: Call) -> Answered:
        body = _hash(call.body())
        sides = [self._entities.who(body.get(side), side) for side in ("primary", "secondary")]
        self._profiles.merge(*sides)
        return _DONE

    def _metric(self, call: Call) -> Answered:
        return self._reported(_hash(call.body()), "metric", METRICS)

    def _push_metric(self, call: Call) -> Answered:
        return self._reported(_hash(call.body()), "event", _PUSH_METRICS)

    def _reported(self, body: dict[str, Any], field: str, known: tuple[str, ...]) -> Answered:
        if not body.get("delivery_id"):
            raise required("delivery_id")
        metric = one_of(body.get(field), known, field)
        self.report(str(body["delivery_id"]), metric, seconds(body.get("timestamp")))
        return _DONE

    def report(self, delivery_id: str, metric: str, at: int | None) -> None:
        """Note what a recipient did with a message, also on the message where it is known."""
        moment = self._state.now() if at is None else at
        self._state.reported.append({"delivery_id": delivery_id, "metric": metric, "timestamp": moment})
        message = self._state.messages.find(delivery_id)
        if message is not None:
            message.setdefault("metrics", {}).setdefault(metric, moment)
            touch(message, self._state.now())

    def _add_to_segment(self, call: Call) -> Answered:
        segment, members = self._members(call)
        segment.members |= members
        return _DONE

    def _remove_from_segment(self, call: Call) -> Answered:
        segment, members = self._members(call)
        segment.members -= members
        return _DONE

    def _members(self, call: Call) -> tuple[Segment, set[str]]:
        segment = self._state.segments.get(int(call.values[0])) if call.values[0].isdecimal() else None
        if segment is None:
            raise track_error(404, "segment not found")
        if segment.type != "manual":
            raise Invalid("segment_id", "people can only be added to or removed from a manual segment")
        ids, kind = _hash(call.body()).get("ids"), call.query("id_type", "id")
        if not isinstance(ids, list) or kind not in {"id", "email", "cio_id"}:
            raise Invalid("ids", "ids must be an array, id_type one of id, email, cio_id")
        if len(ids) > SEGMENT_IDS_LIMIT:
            raise Invalid("ids", f"ids cannot have more than {SEGMENT_IDS_LIMIT} entries")
        found = [self._profiles.find(kind, str(each)) for each in ids]
        return segment, {person.cio_id for person in found if person is not None}

    def _submit_form(self, call: Call) -> Answered:
        data = _hash(_hash(call.body()).get("data"))
        kind = next((kind for kind in ("id", "email") if data.get(kind)), None)
        if kind is None:
            raise Invalid("data", "data must have an id or an email")
        check_attributes(data, "data")
        person = self._profiles.identify((kind, str(data[kind])), data)
        if person is not None:
            self._state.record("event", person, {"form_id": call.values[0], **data}, "form_submit")
        return 204, None

    def _unsubscribe(self, call: Call) -> Answered:
        content_type = call.request.header(b"content-type").lower()
        wanted = _hash(call.body()).get("unsubscribe") if content_type.startswith(_JSON_TYPE) else None
        if not isinstance(wanted, bool):
            raise Invalid(
                "unsubscribe", f"unsubscribe must be true or false, with Content-Type: {_JSON_TYPE}"
            )
        message = self._state.messages.find(call.values[0])
        if message is not None:
            cio_id = (message.get("customer_identifiers") or {}).get("cio_id", "")
            self._profiles.identify(("cio_id", cio_id), {"unsubscribed": wanted})
            if wanted:
                message.setdefault("metrics", {}).setdefault("unsubscribed", self._state.now())
        return _DONE


def _hash(body: Any) -> dict[str, Any]:
    if not isinstance(body, dict):
        raise Invalid("", "the body must be a hash")
    return body


def _relationships(related: Any) -> tuple[bool, Any]:
    """Read v1's `cio_relationships`: whether they are added, and which."""
    if related is None:
        return True, []
    actions = {"add_relationships": True, "delete_relationships": False}
    if not isinstance(related, dict):
        raise Invalid("cio_relationships", "cio_relationships must be a hash")
    action = one_of(related.get("action"), actions, "cio_relationships.action")
    return actions[action], related.get("relationships") or []
