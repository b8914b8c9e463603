"""track, page and screen as Kustomer's identityEvent, in plain and in advanced mode."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, TypeAlias, TypeVar

from towpath.message import Message, identifier
from towpath.vendors.kustomer_schema import (
    MOST_BODY_BYTES,
    MOST_EXTERNAL_ID,
    MOST_META_KEYS,
    MOST_NAME,
    Unfit,
    encode,
    event_name_fits,
    is_date_time,
    strict_email,
)

K = TypeVar("K")
T = TypeVar("T")
# The key of a property as a text, a number and a date-time need it, and the doubt about a text under it.
_Keys: TypeAlias = tuple[str, str, str, str]
TITLES = {"page": "Web-Page-Viewed", "screen": "Screen-Viewed"}
_SESSION_KEYS = ("kustomerSessionId", "kustomer_session_id")
_TRACKING_KEYS = ("kustomerTrackingId", "kustomer_tracking_id")
_TIME = datetime  # the kind of a string that is a date-time
OWN_KEYS = frozenset(_SESSION_KEYS + _TRACKING_KEYS)
_OTHER_CHARACTERS = re.compile(r"[^a-zA-Z0-9\-_.]+").sub


class Remembered(dict[K, T]):
    """The answers of a pure function for short keys that come again and again, a few thousand at most.

    A key with a `size` of more than `most` is answered each time anew.
    """

    def __init__(self, answer: Callable[[K], T], size: Callable[[K], int], most: int = 64) -> None:
        super().__init__()
        self._answer = answer
        self._size = size
        self._most = most

    def __missing__(self, key: K) -> T:
        found = self._answer(key)
        if self._size(key) <= self._most:
            if len(self) == 4096:
                self.clear()
            self[key] = found
        return found


def external_id(message: Message) -> str:
    """The id Kustomer knows the person by (K012). Raises `Unfit` when there is none or it is too long."""
    found = user_id(message) or message.anonymous_id
    if not found:
        raise Unfit("Kustomer needs a userId or an anonymousId; the message has neither")
    if len(found) > MOST_EXTERNAL_ID:
        raise Unfit(
            f"the person's id has {len(found)} characters, Kustomer takes {MOST_EXTERNAL_ID} (externalId)"
        )
    return found


def user_id(message: Message) -> str | None:
    """userId, else the first of traits.userId, traits.id and the same two of context.traits (K012)."""
    if message.user_id:
        return message.user_id
    for traits in (message.traits, message.context_traits):
        if traits:
            found = identifier(traits.get("userId")) or identifier(traits.get("id"))
            if found:
                return found
    return None


def emails(message: Message) -> list[Any]:
    """What stands where an e-mail may stand, best first; never context.externalId (K013)."""
    return [
        found
        for place in (message.traits, message.context_traits, message.properties)
        if type(place) is dict and (found := place.get("email")) not in (None, "")
    ]


def encoded(body: Mapping[str, Any]) -> bytes:
    """The body as JSON. Raises `Unfit` for more than Kustomer's 100 KB."""
    written = encode(body)
    if len(written) > MOST_BODY_BYTES:
        raise Unfit(f"the request would have {len(written):,} bytes, Kustomer takes {MOST_BODY_BYTES:,}")
    return written


def event_of(
    message: Message, reports: list[str], *, advanced: bool, generic: bool, leave: frozenset[str]
) -> dict[str, Any]:
    """The event of a tracking call: name, meta without the keys in `leave`, ids. Raises `Unfit`."""
    given = properties_of(message)
    properties = given or {}
    name = name_of(message, properties, generic=generic)
    event: dict[str, Any] = {}
    if not properties.keys().isdisjoint(leave):
        event = ids_of(properties, reports)
        properties = {key: value for key, value in properties.items() if key not in leave}
    if "sessionId" not in event and (session := _id_in(message.context.get("sessionId"))):
        event["sessionId"] = session
    if advanced:
        event["name"] = fitting_name(name, reports)
        event["meta"] = advanced_meta(properties, reports)
    else:
        event["name"] = name
        if doubt := _NAME_DOUBTS[name]:
            reports.append(doubt)
        if given is not None:
            event["meta"] = properties
            doubt_meta(properties, reports)
    if (count := len(event.get("meta", ()))) > MOST_META_KEYS:
        raise Unfit(f"the event has {count} properties, Kustomer takes {MOST_META_KEYS}")
    return event


def identity_of(message: Message, reports: list[str], *, with_email: bool) -> dict[str, str]:
    """The identity of a tracking call: externalId, and email where the settings ask for it (K003)."""
    identity = {"externalId": external_id(message)}
    if with_email and (given := emails(message)):
        try:
            identity["email"] = strict_email(given[0])
        except Unfit as error:
            reports.append(f"identity.email left out: {error}")
    return identity


def properties_of(message: Message) -> dict[str, Any] | None:
    """The properties, or None when there are none. Raises `Unfit` when they are not an object (K020)."""
    properties = message.properties
    if properties is None or type(properties) is dict:
        return properties
    raise Unfit(f"properties must be an object, not {type(properties).__name__}")


def name_of(message: Message, properties: Mapping[str, Any], *, generic: bool) -> str:
    """The event's name as given, page and screen with their title first. Raises `Unfit` (K016 to K018)."""
    title = TITLES.get(message.type)
    if title is None:
        name = message.event
        if not isinstance(name, str) or not name.strip():
            raise Unfit("track needs a name: `event` must be a string that is not empty")
        return name
    if generic:
        return title
    for given in (message.event, properties.get("event"), message.name, properties.get("name")):
        label = given if isinstance(given, str) else identifier(given)
        if label and not label.isspace():
            return f"{title}-{label}".rstrip()
    return title


def fitting_name(name: str, reports: list[str]) -> str:
    """The name in Kustomer's characters. Raises `Unfit` for what still does not fit (K027, K031)."""
    fitted, report = _NAMES[name]
    if report:
        reports.append(report)
    return fitted


def _fit_name(name: str) -> tuple[str, str]:
    """The name that fits, and the report of its change; empty when there is none. Raises `Unfit`."""
    if event_name_fits(name):
        return name, ""
    fitted = "-".join(name.split())
    if not event_name_fits(fitted):
        fitted = _OTHER_CHARACTERS("-", name.strip())
    if event_name_fits(fitted):
        return fitted, f"event name {name!r} is sent as {fitted!r}"
    if len(fitted) > MOST_NAME:
        raise Unfit(
            f"the event name has {len(fitted)} characters, Kustomer takes {MOST_NAME}; "
            "for page and screen titles turn on generic_page or generic_screen"
        )
    raise Unfit(
        f"the event name {fitted!r} does not fit: Kustomer wants a letter first, then one or more "
        "letters, digits, '-', '_' or '.'"
    )


_NAMES = Remembered(_fit_name, len)


def _doubt_name(name: str) -> str:
    """Plain mode sends any name; say beforehand what Kustomer will not take (K019, K027)."""
    if event_name_fits(name):
        return ""
    return (
        f"event name {name!r} will be refused: a letter first, then letters, digits, '-', '_', '.', "
        f"2 to {MOST_NAME} in all, no spaces; advanced_transform repairs most names"
    )


_NAME_DOUBTS = Remembered(_doubt_name, len)


def ids_of(properties: Mapping[str, Any], reports: list[str]) -> dict[str, Any]:
    """`sessionId` and `trackingId` as strings, where the properties have them (K015)."""
    found = {
        "sessionId": _first_id(properties, _SESSION_KEYS, reports),
        "trackingId": _first_id(properties, _TRACKING_KEYS, reports),
    }
    return {key: value for key, value in found.items() if value}


def _id_in(value: Any) -> str | None:
    return str(value) if type(value) is int else identifier(value)


def _first_id(properties: Mapping[str, Any], keys: tuple[str, ...], reports: list[str]) -> str | None:
    for key in keys:
        if (value := properties.get(key)) is not None:
            if found := _id_in(value):
                return found
            reports.append(f"{key} left out: it is not a string")
    return None


def advanced_meta(properties: Mapping[str, Any], reports: list[str]) -> dict[str, Any]:
    """Properties as Kustomer types them: flat, numbers under `…Num`, date-times under `…At` (K031…K037)."""
    meta: dict[str, Any] = {}
    renamed: dict[str, str] = {}
    for key, value in properties.items():
        # Inline and remembered by key: this loop is most of what a track costs.
        name, as_number, as_time, doubt = _KEYS[key]
        kind = type(value)
        if kind is str:
            if len(value) > 9 and value[4] == "-" and is_date_time(value):
                name = as_time
            elif doubt:
                reports.append(f"property {key!r} {doubt}")
        elif kind is int or kind is float:
            name = as_number
        elif value is not None:
            value = _flat(value)
            if doubt:
                reports.append(f"property {key!r} {doubt}")
        if name == key:
            if name in renamed:
                reports.append(_collision(renamed.pop(name), name))
        elif name in meta:
            reports.append(_collision(key, name))
            continue
        else:
            renamed[name] = key
        meta[name] = value
    if renamed:
        reports.append("renamed: " + ", ".join([f"{key} → {name}" for name, key in renamed.items()]))
    return meta


def _keys(key: str) -> _Keys:
    name = "-".join(key.split())
    return (
        name,
        name if name.endswith("Num") else f"{name}Num",
        name if name.endswith("At") else f"{name}At",
        _misnamed(name) if name.endswith(("Num", "At")) else "",
    )


_KEYS = Remembered(_keys, len)


def _collision(key: str, name: str) -> str:
    return f"property {key!r} left out: {name!r} is there already"


def _flat(value: Any) -> str:
    """A boolean, object or array as a string; an array's elements are joined by commas (K036)."""
    if value is True or value is False:
        return "true" if value else "false"
    written = encode(value).decode()
    return written[1:-1] if type(value) is list else written


def _misnamed(key: str) -> str:
    kind = "numbers" if key.endswith("Num") else "date-times"
    return f"holds a string, but Kustomer reads keys that end like this as {kind}: rename it"


def doubt_meta(meta: Mapping[str, Any], reports: list[str]) -> None:
    """Plain mode sends properties as given; say beforehand what Kustomer will not take (K022 to K026)."""
    for key, value in meta.items():
        # Inline and remembered by key, like `advanced_meta`.
        doubts, kind = _DOUBTS[key], type(value)
        if kind is str and len(value) > 9 and value[4] == "-" and is_date_time(value):
            kind = _TIME
        if kind in doubts:
            reports.append(doubts[kind])


def _doubts(key: str) -> dict[type, str]:
    """What Kustomer would say of a property, by the kind of its value; nothing for a kind it takes."""
    adds, converts = "(advanced_transform adds it)", "(advanced_transform converts it)"
    number = "" if key.endswith("Num") else f"is a number: its key must end with Num {adds}"
    nested = f"is nested: Kustomer takes flat values only {converts}"
    found = {
        bool: f"is a boolean: Kustomer takes numbers, strings and date-times {converts}",
        dict: nested,
        list: nested,
        int: number,
        float: number,
        _TIME: "" if key.endswith("At") else f"is a date-time: its key must end with At {adds}",
        str: _misnamed(key) if key.endswith(("Num", "At")) else "",
    }
    return {kind: f"property {key!r} {doubt}" for kind, doubt in found.items() if doubt}


_DOUBTS = Remembered(_doubts, len)
