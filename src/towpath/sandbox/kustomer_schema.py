"""What Kustomer accepts: its closed request bodies as rules that say what is wrong, and where.

Source: Kustomer's OpenAPI document "Core Resources" 1.0; the suffix rules of `meta` from RudderStack's page
about Kustomer. Only "Additional properties not allowed" was seen in a recorded reply; it is a sentence of the
JSON-schema validator tv4, so the other titles are worded as tv4 words them (not verified).
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping
from datetime import datetime
from typing import Any, TypeAlias

import msgspec

Rule: TypeAlias = Callable[[Any], None]

EVENT_NAME = re.compile(r"[a-zA-Z][a-zA-Z0-9\-_.]+")
_TAG = re.compile(r"[0-9a-zA-ZÀ-ÿ_/<>\-.][0-9a-zA-ZÀ-ÿ _/<>\-.]{0,63}")
_DATE_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:\d\d)")
_FORMATS = {
    "email": re.compile(r"[^@\s]+@[^@\s.]+(\.[^@\s.]+)+"),
    "email-relaxed": re.compile(r"[^@\s]+@[^@\s]+"),
    "phone-number": re.compile(r"\+?[0-9(][0-9 ().\-]{1,28}[0-9]"),
    "whatsapp-number": re.compile(r"\+?[1-9][0-9]{5,14}"),
    "uri": re.compile(r"[a-zA-Z][a-zA-Z0-9+.\-]*:\S+"),
    "url": re.compile(r"https?://[^\s/?#]+\S*"),
}


class Invalid(ValueError):
    """A body Kustomer refuses. `parameter` is the offending key, `path` the broken place in the schema."""

    def __init__(self, title: str, path: str, parameter: str = "") -> None:
        super().__init__(title)
        self.title = title
        self.path = path
        self.parameter = parameter

    def under(self, step: str, parameter: str = "") -> Invalid:
        """Prefix the path by where this happened; the innermost key stays the parameter."""
        self.path = step + self.path
        self.parameter = self.parameter or parameter
        return self


def is_date_time(value: str) -> bool:
    """Whether it is a full RFC 3339 date-time of a day that exists (a bare date is none)."""
    if not _DATE_TIME.fullmatch(value):
        return False
    try:
        datetime.fromisoformat(value.upper())
    except ValueError:
        return False
    return True


def _wrong_type(value: Any, expected: str) -> Invalid:
    return Invalid(f"Invalid type: {_type_of(value)} (expected {expected})", "/type")


def _type_of(value: Any) -> str:
    names = {type(None): "null", bool: "boolean", str: "string", dict: "object", list: "array"}
    return names.get(type(value), "number")


def text(
    longest: int = 0, *, shortest: int = 0, form: str = "", pattern: re.Pattern[str] | None = None
) -> Rule:
    """Accept a string within its lengths, its format and its pattern."""

    def check(value: Any) -> None:
        if type(value) is not str:
            raise _wrong_type(value, "string")
        if longest and len(value) > longest:
            raise Invalid(f"String is too long ({len(value)} chars), maximum {longest}", "/maxLength")
        if len(value) < shortest:
            raise Invalid(f"String is too short ({len(value)} chars), minimum {shortest}", "/minLength")
        if pattern is not None and not pattern.fullmatch(value):
            raise Invalid(f"String does not match pattern: ^{pattern.pattern}$", "/pattern")
        if form and not _has_form(value, form):
            raise Invalid(f"Format validation failed ({form})", "/format")

    return check


def _has_form(value: str, form: str) -> bool:
    return is_date_time(value) if form == "date-time" else bool(_FORMATS[form].fullmatch(value))


def number(low: float = -math.inf, high: float = math.inf) -> Rule:
    """Accept a JSON number within bounds."""

    def check(value: Any) -> None:
        if type(value) not in {int, float}:
            raise _wrong_type(value, "number")
        if value < low:
            raise Invalid(f"Value {value} is less than minimum {low}", "/minimum")
        if value > high:
            raise Invalid(f"Value {value} is greater than maximum {high}", "/maximum")

    return check


def boolean(value: Any) -> None:
    """Accept true and false."""
    if type(value) is not bool:
        raise _wrong_type(value, "boolean")


def choice(*options: str | int) -> Rule:
    """Accept one of an enumeration."""

    def check(value: Any) -> None:
        if type(value) is bool or value not in options:
            shown = msgspec.json.encode(value).decode()
            raise Invalid(f"No enum match for: {shown}", "/enum")

    return check


def nullable(rule: Rule) -> Rule:
    """Accept null beside what the rule accepts."""

    def check(value: Any) -> None:
        if value is not None:
            rule(value)

    return check


def listing(item: Rule, most: int = 10) -> Rule:
    """Accept an array of at most so many different items."""

    def check(value: Any) -> None:
        if type(value) is not list:
            raise _wrong_type(value, "array")
        if len(value) > most:
            raise Invalid(f"Array is too long ({len(value)}), maximum {most}", "/maxItems")
        for element in value:
            try:
                item(element)
            except Invalid as problem:
                raise problem.under("/items") from None
        _check_unique(value)

    return check


def _check_unique(values: list[Any]) -> None:
    seen: dict[bytes, int] = {}
    for index, value in enumerate(values):
        first = seen.setdefault(msgspec.json.encode(value, order="deterministic"), index)
        if first != index:
            raise Invalid(f"Array items are not unique (indices {first} and {index})", "/uniqueItems")


def closed(properties: Mapping[str, Rule], required: Collection[str] = ()) -> Rule:
    """Accept an object of these keys and no other."""

    def check(value: Any) -> None:
        if type(value) is not dict:
            raise _wrong_type(value, "object")
        for key in required:
            if key not in value:
                raise Invalid(f"Missing required property: {key}", "/required", key)
        for key, inner in value.items():
            rule = properties.get(key)
            if rule is None:
                raise Invalid("Additional properties not allowed", "/additionalProperties", key)
            try:
                rule(inner)
            except Invalid as problem:
                raise problem.under(f"/properties/{key}", key) from None

    return check


_CUSTOM_SUFFIXES: Mapping[str, Rule] = {
    "Str": text(1024),
    "Txt": text(1024),
    "Num": number(),
    "At": text(form="date-time"),
    "Bool": boolean,
    "Url": text(form="url"),
    "Id": text(),
}


def _object_of_at_most_100(value: Any) -> None:
    if type(value) is not dict:
        raise _wrong_type(value, "object")
    if len(value) > 100:
        raise Invalid(f"Too many properties defined ({len(value)}), maximum 100", "/maxProperties")


def custom(value: Any) -> None:
    """Accept custom attributes: at most 100, typed by the suffix of the key; null clears one."""
    _object_of_at_most_100(value)
    for key, inner in value.items():
        rule = next((rule for suffix, rule in _CUSTOM_SUFFIXES.items() if key.endswith(suffix)), None)
        if rule is None:
            raise Invalid("Additional properties not allowed", "/additionalProperties", key)
        try:
            nullable(rule)(inner)
        except Invalid as problem:
            raise problem.under(f"/properties/{key}", key) from None


class Meta:
    """The rules of an event's `meta`. Booleans and nulls are not documented: two switches."""

    def __init__(self, *, booleans: bool = False, nulls: bool = True) -> None:
        self._others: dict[type, bool] = {bool: booleans, type(None): nulls}

    def __call__(self, value: Any) -> None:
        """Refuse what Kustomer refuses: nesting, a number without `Num`, a string under `…Num`."""
        _object_of_at_most_100(value)
        for key, inner in value.items():
            kind = type(inner)
            if kind is str:
                if key.endswith("Num"):
                    raise _wrong_type(inner, "number").under(f"/properties/{key}", key)
            elif kind is int or kind is float:
                if not key.endswith("Num"):
                    raise Invalid("Additional properties not allowed", "/additionalProperties", key)
            elif not self._others.get(kind, False):
                raise _wrong_type(inner, "string").under(f"/properties/{key}", key)


def oddities(meta: Mapping[str, Any]) -> list[str]:
    """Name what Kustomer takes although it is "not semantically correct": dates and `At` that disagree."""
    found = []
    for key, value in meta.items():
        if type(value) is str and key.endswith("At") != is_date_time(value):
            found.append(f"{key}: a date-time belongs under a key ending in At, and nothing else does")
    return found


def _items(required: str, rule: Rule, kinds: tuple[str, ...], *, verified: bool = True) -> Rule:
    properties: dict[str, Rule] = {required: rule, "type": choice(*kinds)}
    if verified:
        properties["verified"] = boolean
    return listing(closed(properties, [required]))


_NAME = text(256)
_MOMENT = text(form="date-time")
_TAGS = listing(text(64, shortest=1, pattern=_TAG), 20)
_GENDER = choice("m", "f")
_EXTERNAL_IDS = listing(
    closed({"externalId": text(255, shortest=1), "verified": boolean}, required=["externalId"])
)
_EMAILS = _items("email", text(form="email-relaxed"), ("home", "work", "other"))
_PHONES = _items("phone", text(form="phone-number"), ("mobile", "home", "work", "fax", "other"))
_WHATSAPPS = _items("phone", text(form="whatsapp-number"), ("mobile",))
_FACEBOOK = closed({key: text(255) for key in ("pageId", "userId", "name")}, ["pageId", "userId"])
_INSTAGRAM = closed(
    {key: text(255) for key in ("pageId", "threadId", "username", "instagramId")},
    ["pageId", "threadId", "username"],
)
_SOCIAL = closed(
    {
        "type": choice("twitter", "facebook", "instagram", "linkedin", "pinterest"),
        "username": text(256, shortest=1),
        "userid": text(256),
        "url": text(form="uri"),
        "verified": boolean,
    },
    ["type", "username"],
)
_LOCATION = closed(
    {
        key: nullable(rule)
        for key, rule in {
            "type": choice("home", "work", "other"),
            "name": text(),
            "address": text(256),
            "address2": text(256),
            "address3": text(256),
            "latitude": number(),
            "longitude": number(),
            "countryCode": text(2, shortest=2),
            "countryName": text(64),
            "regionCode": text(2),
            "regionName": text(128),
            "cityName": text(128),
            "zipCode": text(30),
            "areaCode": text(30),
        }.items()
    }
)
_SENTIMENT = closed({"polarity": choice(-1, 0, 1), "confidence": number(-1, 1)}, ["polarity", "confidence"])

CUSTOMER_PROPERTIES: Mapping[str, Rule] = {
    "name": nullable(_NAME),
    "username": nullable(_NAME),
    "company": nullable(text()),
    "externalId": nullable(text(256, shortest=1)),
    "signedUpAt": nullable(_MOMENT),
    "lastActivityAt": nullable(_MOMENT),
    "lastCustomerActivityAt": nullable(_MOMENT),
    "lastSeenAt": nullable(_MOMENT),
    "birthdayAt": nullable(_MOMENT),
    "createdAt": _MOMENT,
    "importedAt": _MOMENT,
    "avatarUrl": nullable(text(form="uri")),
    "externalIds": _EXTERNAL_IDS,
    "sharedExternalIds": _EXTERNAL_IDS,
    "emails": _EMAILS,
    "sharedEmails": _EMAILS,
    "phones": _PHONES,
    "sharedPhones": _PHONES,
    "whatsapps": _WHATSAPPS,
    "facebookIds": listing(_FACEBOOK),
    "instagramIds": listing(_INSTAGRAM),
    "socials": listing(_SOCIAL),
    "sharedSocials": listing(_SOCIAL),
    "urls": _items("url", text(form="url"), ("website", "blog", "other"), verified=False),
    "locations": listing(_LOCATION),
    "locale": nullable(text(16)),
    "timeZone": nullable(text(64)),
    "defaultLang": nullable(text(100)),
    "tags": _TAGS,
    "sentiment": _SENTIMENT,
    "gender": nullable(_GENDER),
    "custom": custom,
    "rev": number(),
}

IDENTITY_PROPERTIES: Mapping[str, Rule] = {
    "remember": boolean,
    "trackingId": text(),
    "sessionId": text(),
    "name": text(),
    "company": text(),
    "externalId": text(256),
    "username": text(256),
    "signedUpAt": _MOMENT,
    "birthdayAt": _MOMENT,
    "gender": _GENDER,
    "locale": text(16),
    "timeZone": text(),
    "email": text(form="email"),
    "phone": text(form="phone-number"),
    "location": _LOCATION,
    "tags": listing(text(), 20),
    "custom": custom,
}

check_customer = closed(CUSTOMER_PROPERTIES)
check_identity = closed(IDENTITY_PROPERTIES)
check_merge = closed({"source": text(24, shortest=24), "target": text(24, shortest=24)}, ["source", "target"])


def event_rule(meta: Meta) -> Rule:
    """Return the rule of one tracking event with these rules for its `meta`."""
    properties: dict[str, Rule] = {
        "name": text(255, pattern=EVENT_NAME),
        "trackingId": text(),
        "sessionId": text(),
        "meta": meta,
    }
    return closed(properties, ["name"])


def identity_event_rule(meta: Meta) -> Rule:
    """Return the rule of the body of `POST /v1/tracking/identityEvent`."""
    return closed({"identity": check_identity, "event": event_rule(meta)}, ["identity", "event"])
