"""identify as a Kustomer customer: which trait becomes which attribute (K041 to K059, K070)."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from typing import Any

from towpath.message import Message, identifier
from towpath.vendors import kustomer_schema as schema
from towpath.vendors.kustomer_schema import Rule, Unfit

from ._kustomer_event import emails

# None and what is empty count as absent; 0 and False are values.
_NUMBERS = (int, float, bool)
_NAMES = (("firstName", "firstname", "first_name"), ("lastName", "lastname", "last_name"))
_PARTS = ("street", "city", "state", "postalCode")
_text_256 = partial(schema.text, most=256)
_text_16 = partial(schema.text, most=16)

# Customer attribute, the traits it comes from (best first), and the rule its value must meet.
FIELDS: Sequence[tuple[str, tuple[str, ...], Rule]] = (
    ("username", ("userName",), _text_256),
    ("company", ("company",), schema.company),
    ("signedUpAt", ("createdAt", "signedUpAt"), schema.date_time),
    ("lastActivityAt", ("lastActivityAt",), schema.date_time),
    ("lastCustomerActivityAt", ("lastCustomerActivityAt",), schema.date_time),
    ("lastSeenAt", ("lastSeenAt",), schema.date_time),
    ("importedAt", ("importedAt",), schema.date_time),
    ("birthdayAt", ("dob", "birthday"), schema.birthday),
    ("avatarUrl", ("avatar",), schema.url),
    ("gender", ("gender",), schema.gender),
    ("sentiment", ("sentiment",), schema.sentiment),
    ("timeZone", ("timeZone",), partial(schema.text, most=64)),
    ("defaultLang", ("defaultLanguage",), partial(schema.text, most=100)),
    ("rev", ("rev",), schema.number),
)
_FIELD_OF = {trait: place for place, (_, traits, _) in enumerate(FIELDS) for trait in traits}
LISTS = ("socials", "whatsapps", "facebookIds", "instagramIds")
KNOWN_TRAITS = frozenset(
    {
        "userId",
        "id",
        "anonymousId",
        "name",
        "email",
        "emails",
        "phone",
        "phones",
        "tags",
        "website",
        "address",
    }
    | {"locale", "customObject", *LISTS, *_NAMES[0], *_NAMES[1]}
    | {trait for _, traits, _ in FIELDS for trait in traits}
)


class Profile:
    """One identify read field by field; `reports` names everything that was left out or changed."""

    def __init__(self, message: Message, reports: list[str]) -> None:
        self.message = message
        self.reports = reports
        properties = message.properties
        self._traits = (message.traits, message.context_traits)
        self._places = (*self._traits, properties if isinstance(properties, dict) else {})
        self._there = _present(self._traits)

    def attributes(self) -> dict[str, Any]:
        """The customer's attributes without externalId; only those that have a value that fits."""
        self._name_strays()
        found: dict[str, Any] = {"name": self._name()}
        for place in sorted({_FIELD_OF[trait] for trait in self._there.keys() & _FIELD_OF.keys()}):
            field, traits, rule = FIELDS[place]
            found[field] = self._first(self._given(*traits), rule)
        found["emails"] = self._contacts("emails", "email", emails(self.message))
        found["phones"] = self._contacts("phones", "phone", self._anywhere("phone"))
        for field in LISTS:
            if field in self._there:
                found[field] = self._list(field)
        found["tags"] = self._tags()
        found["urls"] = self._url()
        found["locations"] = self._location()
        found["locale"] = self._locale()
        found["custom"] = self._custom()
        return {field: value for field, value in found.items() if value is not None}

    def _given(self, *traits: str) -> list[tuple[str, Any]]:
        """The values that are there, each with its trait: traits first, context.traits second (E010)."""
        return [found for trait in traits if trait in self._there for found in self._there[trait]]

    def _anywhere(self, key: str) -> list[Any]:
        """The values of a key that may also stand in properties."""
        values = [place[key] for place in self._places if key in place]
        return [value for value in values if value or type(value) in _NUMBERS]

    def _first(self, given: Iterable[tuple[str, Any]], rule: Rule) -> Any:
        """The first value that fits; those before it are reported."""
        for trait, value in given:
            try:
                fitted = rule(value)
            except Unfit as error:
                self.reports.append(f"{trait} left out: {error}")
                continue
            if fitted != value and not isinstance(value, dict):
                self.reports.append(f"{trait} is sent as {fitted!r}")
            return fitted
        return None

    def _name_strays(self) -> None:
        strays = {trait: None for place in self._traits for trait in place if trait not in KNOWN_TRAITS}
        if strays:
            self.reports.append(
                f"no Kustomer attribute for: {', '.join(strays)} (custom attributes go into customObject)"
            )

    def _name(self) -> str | None:
        """`name`, else first and last name when both are there (K041)."""
        if (name := self._first(self._given("name"), _text_256)) is not None:
            return str(name)
        parts = [self._first(self._given(*variants), _text_256) for variants in _NAMES]
        if None in parts:
            return None
        return str(self._first([("firstName and lastName", " ".join(parts))], _text_256) or "") or None

    def _contacts(self, field: str, key: str, single: Iterable[Any]) -> list[dict[str, Any]] | None:
        """The list, or a list of the one e-mail or phone (K052, K053)."""
        for _, value in self._given(field):
            found = (
                self._items(field, value) if isinstance(value, list) else self._single(field, field, value)
            )
            if found:
                return found
        for value in single:
            if found := self._single(field, key, value):
                return found
        return None

    def _items(self, field: str, values: Sequence[Any]) -> list[dict[str, Any]]:
        return schema.items(field, [_text_of(value) for value in values], self.reports.append)

    def _single(self, field: str, trait: str, value: Any) -> list[dict[str, Any]]:
        try:
            return [schema.item(field, _text_of(value), trait, self.reports.append)]
        except Unfit as error:
            self.reports.append(f"{trait} left out: {error}")
            return []

    def _list(self, field: str) -> list[dict[str, Any]] | None:
        values = self._array(field)
        return schema.items(field, values, self.reports.append) or None

    def _tags(self) -> list[str] | None:
        return schema.tags(self._array("tags"), self.reports.append) or None

    def _array(self, trait: str) -> list[Any]:
        for _, value in self._given(trait):
            if isinstance(value, list):
                return value
            self.reports.append(f"{trait} left out: it is not an array")
        return []

    def _url(self) -> list[dict[str, str]] | None:
        found = self._first((("website", value) for value in self._anywhere("website")), schema.url)
        return None if found is None else [{"url": found}]

    def _location(self) -> list[dict[str, str]] | None:
        found = self._first(self._given("address"), _address)
        return None if found is None else [{"type": "home", "address": found}]

    def _locale(self) -> Any:
        value = self.message.context.get("locale")
        given = [("locale", value)] if value or type(value) in _NUMBERS else []
        return self._first([*given, *self._given("locale")], _text_16)

    def _custom(self) -> dict[str, Any] | None:
        for _, value in self._given("customObject"):
            if isinstance(value, dict):
                return schema.custom(value, self.reports.append) or None
            self.reports.append("customObject left out: it is not an object")
        return None


def _present(places: Iterable[Mapping[str, Any]]) -> dict[str, list[tuple[str, Any]]]:
    """The values that are there by trait, in the order of the places, each with its trait's name."""
    there: dict[str, list[tuple[str, Any]]] = {}
    for place in places:
        for trait, value in place.items():
            if value or type(value) in _NUMBERS:
                there.setdefault(trait, []).append((trait, value))
    return there


def _text_of(value: Any) -> Any:
    """A number as the string it was meant to be; anything else as it is."""
    return value if isinstance(value, bool) else identifier(value) or value


def _address(value: Any) -> str:
    """An address as one line: the string, or the object's parts that are there (K057). Raises `Unfit`."""
    if not isinstance(value, Mapping):
        return _text_256(value)
    line = " ".join(part for key in _PARTS if (part := identifier(value.get(key))))
    if not line:
        raise Unfit(f"the object has none of {', '.join(_PARTS)}")
    return _text_256(line)
