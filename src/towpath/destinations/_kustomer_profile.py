"""identify as a Kustomer customer: which trait becomes which attribute (K041 to K059, K070)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import chain
from typing import Any, TypeAlias

from towpath.message import Message, identifier
from towpath.vendors import kustomer_schema as schema
from towpath.vendors.kustomer_schema import Rule, Unfit

from ._kustomer_event import Remembered, emails

Given: TypeAlias = tuple[str, Any]
"""A value that is there, with the name of its trait."""

# None and what is empty count as absent; 0 and False are values.
_NUMBERS = (int, float, bool)
_FIRST_NAMES = ("firstName", "firstname", "first_name")
_LAST_NAMES = ("lastName", "lastname", "last_name")
_PARTS = ("street", "city", "state", "postalCode")
_IDS = ("userId", "id", "anonymousId")  # read for externalId
_IN_PROPERTIES = ("email", "phone", "website")
_text_256 = schema.text_up_to(256)
_text_16 = schema.text_up_to(16)


class Profile:
    """One identify read attribute by attribute; `reports` names everything that was left out or changed."""

    def __init__(self, message: Message, reports: list[str]) -> None:
        self.message = message
        self.reports = reports
        self._traits = [traits for traits in (message.traits, message.context_traits) if traits]
        properties = message.properties
        self._properties = properties if type(properties) is dict else {}

    def attributes(self) -> dict[str, Any]:
        """The customer's attributes without externalId; only those that have a value that fits."""
        steps, report = _PLANS[self._names()]
        if report:
            self.reports.append(report)
        found: dict[str, Any] = {}
        for attribute, traits, read in steps:
            if (value := read(self, traits)) is not None:
                found[attribute] = value
        return found

    def _names(self) -> tuple[str, ...]:
        """The names of all traits, and of what counts as one elsewhere."""
        names = tuple(chain(*self._traits))
        if self._properties:
            names += tuple([key for key in _IN_PROPERTIES if key in self._properties])
        return (*names, "locale") if "locale" in self.message.context else names

    def given(self, *traits: str) -> list[Given]:
        """The values that are there: trait by trait, of each traits first, context.traits second (E010)."""
        return [
            (trait, value)
            for trait in traits
            for place in self._traits
            if (value := place.get(trait)) or type(value) in _NUMBERS
        ]

    def _anywhere(self, key: str) -> list[Any]:
        """The values of a key that may also stand in properties."""
        values = [place[key] for place in (*self._traits, self._properties) if key in place]
        return [value for value in values if value or type(value) in _NUMBERS]

    def first(self, traits: Iterable[str], rule: Rule) -> Any:
        """The first value that is there and fits; those before it are reported."""
        for trait in traits:
            for place in self._traits:
                value = place.get(trait)
                if value or type(value) in _NUMBERS:
                    fitted = self._fitted(trait, value, rule)
                    if fitted is not None:
                        return fitted
        return None

    def _fitted(self, trait: str, value: Any, rule: Rule) -> Any:
        """The value as it fits; None, and a report, when it does not."""
        try:
            fitted = rule(value)
        except Unfit as error:
            self.reports.append(f"{trait} left out: {error}")
            return None
        if fitted != value and not isinstance(value, dict):
            self.reports.append(f"{trait} is sent as {fitted!r}")
        return fitted

    def name(self, _: Sequence[str]) -> Any:
        """`name`, else first and last name when both are there (K041)."""
        if (name := self.first(("name",), _text_256)) is not None:
            return name
        first, last = self.first(_FIRST_NAMES, _text_256), self.first(_LAST_NAMES, _text_256)
        if first is None or last is None:
            return None
        return self._fitted("firstName and lastName", f"{first} {last}", _text_256)

    def emails(self, traits: Sequence[str]) -> list[dict[str, Any]] | None:
        """Return the e-mails, or a list of the one e-mail (K052)."""
        listed = self.given("emails") if "emails" in traits else ()
        return self._contacts("emails", "email", listed, emails(self.message))

    def phones(self, traits: Sequence[str]) -> list[dict[str, Any]] | None:
        """Return the phones, or a list of the one phone (K053)."""
        listed = self.given("phones") if "phones" in traits else ()
        return self._contacts("phones", "phone", listed, self._anywhere("phone"))

    def _contacts(
        self, field: str, key: str, listed: Iterable[Given], singles: Iterable[Any]
    ) -> list[dict[str, Any]] | None:
        for _, value in listed:
            found = (
                self._items(field, value) if isinstance(value, list) else self._single(field, field, value)
            )
            if found:
                return found
        for value in singles:
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

    def items(self, traits: Sequence[str]) -> list[dict[str, Any]] | None:
        """Return the objects of a list that is named as its trait (K054)."""
        return schema.items(traits[0], self._array(traits), self.reports.append) or None

    def tags(self, traits: Sequence[str]) -> list[str] | None:
        """Return the tags (K051)."""
        return schema.tags(self._array(traits), self.reports.append) or None

    def _array(self, traits: Sequence[str]) -> list[Any]:
        for trait, value in self.given(*traits):
            if isinstance(value, list):
                return value
            self.reports.append(f"{trait} left out: it is not an array")
        return []

    def urls(self, _: Sequence[str]) -> list[dict[str, str]] | None:
        """Return the website (K056)."""
        for value in self._anywhere("website"):
            if (found := self._fitted("website", value, schema.url)) is not None:
                return [{"url": found}]
        return None

    def locations(self, traits: Sequence[str]) -> list[dict[str, str]] | None:
        """Return the address as the home (K057)."""
        found = self.first(traits, _address)
        return None if found is None else [{"type": "home", "address": found}]

    def locale(self, traits: Sequence[str]) -> Any:
        """`context.locale`, else the trait (K058)."""
        value = self.message.context.get("locale")
        if value or type(value) in _NUMBERS:
            found = self._fitted("locale", value, _text_16)
            if found is not None:
                return found
        return self.first(traits, _text_16)

    def custom(self, traits: Sequence[str]) -> dict[str, Any] | None:
        """Return the custom attributes (K059)."""
        for _, value in self.given(*traits):
            if isinstance(value, dict):
                return schema.custom(value, self.reports.append) or None
            self.reports.append("customObject left out: it is not an object")
        return None


def _text_of(value: Any) -> Any:
    """A number as the string it was meant to be; anything else as it is."""
    return value if isinstance(value, bool) else identifier(value) or value


def _address(value: Any) -> str:
    """An address as one line: the string, or the object's parts that are there (K057). Raises `Unfit`."""
    if not isinstance(value, dict):
        return _text_256(value)
    line = " ".join([part for key in _PARTS if (part := identifier(value.get(key)))])
    if not line:
        raise Unfit(f"the object has none of {', '.join(_PARTS)}")
    return _text_256(line)


Read: TypeAlias = Callable[[Profile, Sequence[str]], Any]
Step: TypeAlias = tuple[str, Sequence[str], Read]
"""An attribute, the traits it comes from (best first), and how it is read from them."""


def _fitting(rule: Rule) -> Read:
    return lambda profile, traits: profile.first(traits, rule)


ATTRIBUTES: Sequence[Step] = (
    ("name", ("name", *_FIRST_NAMES, *_LAST_NAMES), Profile.name),
    ("username", ("userName",), _fitting(_text_256)),
    ("company", ("company",), _fitting(schema.company)),
    ("signedUpAt", ("createdAt", "signedUpAt"), _fitting(schema.date_time)),
    ("lastActivityAt", ("lastActivityAt",), _fitting(schema.date_time)),
    ("lastCustomerActivityAt", ("lastCustomerActivityAt",), _fitting(schema.date_time)),
    ("lastSeenAt", ("lastSeenAt",), _fitting(schema.date_time)),
    ("importedAt", ("importedAt",), _fitting(schema.date_time)),
    ("birthdayAt", ("dob", "birthday"), _fitting(schema.birthday)),
    ("avatarUrl", ("avatar",), _fitting(schema.url)),
    ("gender", ("gender",), _fitting(schema.gender)),
    ("sentiment", ("sentiment",), _fitting(schema.sentiment)),
    ("timeZone", ("timeZone",), _fitting(schema.text_up_to(64))),
    ("defaultLang", ("defaultLanguage",), _fitting(schema.text_up_to(100))),
    ("rev", ("rev",), _fitting(schema.number)),
    ("emails", ("emails", "email"), Profile.emails),
    ("phones", ("phones", "phone"), Profile.phones),
    ("socials", ("socials",), Profile.items),
    ("whatsapps", ("whatsapps",), Profile.items),
    ("facebookIds", ("facebookIds",), Profile.items),
    ("instagramIds", ("instagramIds",), Profile.items),
    ("tags", ("tags",), Profile.tags),
    ("urls", ("website",), Profile.urls),
    ("locations", ("address",), Profile.locations),
    ("locale", ("locale",), Profile.locale),
    ("custom", ("customObject",), Profile.custom),
)
KNOWN_TRAITS = frozenset(_IDS).union(*(traits for _, traits, _ in ATTRIBUTES))


def _plan(names: tuple[str, ...]) -> tuple[Sequence[Step], str]:
    """The steps for traits of these names, and the report of those that no step reads; empty for none."""
    steps = [
        (attribute, [trait for trait in traits if trait in names], read)
        for attribute, traits, read in ATTRIBUTES
        if not set(traits).isdisjoint(names)
    ]
    strays = ", ".join(dict.fromkeys(trait for trait in names if trait not in KNOWN_TRAITS))
    hint = "custom attributes go into customObject"
    return steps, f"no Kustomer attribute for: {strays} ({hint})" if strays else ""


_PLANS = Remembered(_plan, lambda names: sum(map(len, names)), most=1024)
