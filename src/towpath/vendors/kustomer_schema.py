"""What Kustomer's own schema takes: pure rules that turn one value into one that fits, or say why none does.

Source: Kustomer's OpenAPI document "Core Resources" 1.0 and its developer pages. Bodies there are closed: one
unknown key, wrong enum or bad format refuses a whole request, so every value passes one of these rules.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime
from typing import Any, TypeAlias
from urllib.parse import quote

import msgspec

from towpath.message import format_time, identifier

MOST_BODY_BYTES = 100 * 1024
MOST_META_KEYS = 100
MOST_CUSTOM_KEYS = 100
MOST_EXTERNAL_ID = 256
MOST_NAME = 255
MOST_ITEMS = 10
MOST_TAGS = 20
MOST_CUSTOM_TEXT = 1024

Rule: TypeAlias = Callable[[Any], Any]
Report: TypeAlias = Callable[[str], None]


class Unfit(ValueError):
    """A value that Kustomer cannot take; the text says why, without the value."""


encode = msgspec.json.Encoder().encode
event_name_fits = re.compile(rf"[a-zA-Z][a-zA-Z0-9\-_.]{{1,{MOST_NAME - 1}}}").fullmatch
is_e164 = re.compile(r"\+?[1-9][0-9]{1,14}").fullmatch
_ISO = re.compile(
    r"(?P<date>[0-9]{4}-[0-9]{2}-[0-9]{2})"
    r"(?P<time>[Tt](?:[01][0-9]|2[0-3]):[0-5][0-9](?P<seconds>:[0-5][0-9](?:\.[0-9]+)?)?"
    r"(?P<zone>[Zz]|[+-](?:[01][0-9]|2[0-3]):[0-5][0-9])?)?"
).fullmatch
_DAY_MONTH_YEAR = re.compile(r"([0-9]{1,2})([-/. ])([0-9]{1,2})\2([0-9]{4})").fullmatch
_YEAR_MONTH_DAY = re.compile(r"([0-9]{4})([-/. ])([0-9]{1,2})\2([0-9]{1,2})").fullmatch
_ORDINAL = re.compile(r"(?<=[0-9])(?:st|nd|rd|th)\b|,", re.IGNORECASE)
_NAMED_MONTHS = ("%d %b %Y", "%d %B %Y", "%b %d %Y", "%B %d %Y")
_RELAXED_EMAIL = re.compile(r"[^\s@<>()\[\]\\,;:\"]+@[^\s@<>()\[\]\\,;:\"]+").fullmatch
_STRICT_EMAIL = re.compile(
    r"[a-zA-Z0-9!#$%&'*+/=?^_`{|}~-]+(?:\.[a-zA-Z0-9!#$%&'*+/=?^_`{|}~-]+)*"
    r"@(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?\.)+[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?"
).fullmatch
_PHONE = re.compile(r"\+?[0-9(][0-9 ().\-]{1,28}[0-9]").fullmatch
_WHATSAPP = re.compile(r"\+?[1-9][0-9]{5,14}").fullmatch
_HOST = r"(?:(?:[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?\.)+[a-z]{2,63}|[0-9]{1,3}(?:\.[0-9]{1,3}){3})"
_URL = re.compile(
    rf"(https?)(://{_HOST}(?::[0-9]{{1,5}})?)((?:[/?#].*)?)", re.IGNORECASE | re.DOTALL
).fullmatch
_SCHEME = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE).match
_TAG = re.compile(r"[0-9a-zA-ZÀ-ÿ_/<>\-.][0-9a-zA-ZÀ-ÿ _/<>\-.]{0,63}").fullmatch
_GENDERS = {"m": "m", "male": "m", "f": "f", "female": "f"}


def is_date_time(value: str) -> bool:
    """Tell whether a string is an ISO 8601 full date or date-time of the real calendar (K034)."""
    if len(value) < 10 or value[4] != "-":
        return False
    return (found := _ISO(value)) is not None and _on_calendar(found["date"])


def _on_calendar(day: str) -> bool:
    try:
        date.fromisoformat(day)
    except ValueError:
        return False
    return True


def text(value: Any) -> str:
    """A scalar as a string. Raises `Unfit`."""
    found = value if isinstance(value, str) else identifier(value)
    if found is None:
        raise Unfit("it is not a string")
    if not found.strip():
        raise Unfit("it is empty")
    return found


def text_up_to(most: int) -> Callable[[Any], str]:
    """A rule for a scalar as a string of at most `most` characters."""

    def rule(value: Any) -> str:
        found = text(value)
        if len(found) > most:
            raise Unfit(f"it has {len(found)} characters, Kustomer takes {most}")
        return found

    return rule


def date_time(value: Any) -> str:
    """A full date-time: full ones verbatim, a bare date as midnight UTC, no zone as UTC. Raises `Unfit`."""
    found = _ISO(value) if isinstance(value, str) else None
    if found is None or not _on_calendar(found["date"]):
        raise Unfit("it is not an ISO 8601 date-time")
    if found["time"] is None:
        return f"{value}T00:00:00.000Z"
    return f"{found['date']}{found['time'][:6]}{found['seconds'] or ':00'}{found['zone'] or 'Z'}"


def birthday(value: Any) -> str:
    """A date-time, or another form that can be read in one way only, as ISO. Raises `Unfit` (K055)."""
    try:
        return date_time(value)
    except Unfit:
        if not isinstance(value, str) or len(value) > 40:
            raise
    return format_time(_read_date(value.strip()))


def _read_date(value: str) -> datetime:
    try:
        if found := _DAY_MONTH_YEAR(value):
            return _in_one_way(int(found[1]), int(found[3]), int(found[4]))
        if found := _YEAR_MONTH_DAY(value):
            return datetime(int(found[1]), int(found[3]), int(found[4]), tzinfo=UTC)
        return _read_words(value)
    except (ValueError, OverflowError) as error:
        raise error if isinstance(error, Unfit) else Unfit("it is not a date that can be read") from error


def _in_one_way(first: int, second: int, year: int) -> datetime:
    if first != second and first <= 12 and second <= 12:
        raise Unfit("it could be day-month or month-day; send YYYY-MM-DD")
    day, month = (first, second) if first > 12 else (second, first)
    return datetime(year, month, day, tzinfo=UTC)


def _read_words(value: str) -> datetime:
    for form in _NAMED_MONTHS:
        try:
            return datetime.strptime(_ORDINAL.sub("", value), form).replace(tzinfo=UTC)
        except ValueError:
            continue
    found = datetime.fromisoformat(value)
    return found.replace(tzinfo=UTC) if found.tzinfo is None else found.astimezone(UTC)


def url(value: Any) -> str:
    """An http(s) address; `https://` is added where only the scheme is missing. Raises `Unfit`."""
    given = text(value).strip()
    if given.startswith("//"):
        given = f"https:{given}"
    elif not _SCHEME(given):
        given = f"https://{given}"
    if (found := _URL(given)) is None:
        raise Unfit("it is not a URL")
    return found[1].lower() + found[2] + quote(found[3], safe="%/:?#[]@!$&'()*+,;=~")


def email(value: Any) -> str:
    """An e-mail address as customers take it (Kustomer's `email-relaxed`). Raises `Unfit`."""
    found = text(value).strip()
    if not _RELAXED_EMAIL(found):
        raise Unfit("it is not an e-mail address")
    return found


def strict_email(value: Any) -> str:
    """An e-mail address as a tracking identity takes it (format `email`). Raises `Unfit`."""
    found = text(value).strip()
    if not _STRICT_EMAIL(found):
        raise Unfit("it is not an e-mail address")
    return found


def phone(value: Any) -> str:
    """A phone number as given, 3 to 30 characters; no country code is ever guessed. Raises `Unfit`.

    How strict Kustomer's format is, is not published: letters, slashes and extensions are not risked.
    """
    found = text(value).strip()
    if not _PHONE(found):
        raise Unfit("it is not a phone number")
    return found


def whatsapp(value: Any) -> str:
    """A WhatsApp number: country code and number, digits only, maybe with a plus. Raises `Unfit`."""
    found = text(value).strip()
    if not _WHATSAPP(found):
        raise Unfit("it is not a WhatsApp number")
    return found


def gender(value: Any) -> str:
    """`m` or `f`; male and female in any case become these. Raises `Unfit`."""
    found = _GENDERS.get(text(value).strip().lower())
    if found is None:
        raise Unfit("Kustomer knows only m and f")
    return found


def tag(value: Any) -> str:
    """One tag: 1 to 64 letters, digits, blanks or `_/<>-.`, no leading blank. Raises `Unfit`."""
    found = text(value)
    if not _TAG(found):
        raise Unfit("Kustomer takes 1 to 64 letters, digits, blanks and _/<>-. in a tag")
    return found


def number(value: Any) -> int | float:
    """A JSON number. Raises `Unfit`."""
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise Unfit("it is not a number")
    return value


def truth(value: Any) -> bool:
    """A JSON boolean. Raises `Unfit`."""
    if not isinstance(value, bool):
        raise Unfit("it is not true or false")
    return value


def sentiment(value: Any) -> dict[str, Any]:
    """`{polarity: -1|0|1, confidence: -1..1}` and nothing else. Raises `Unfit`."""
    if not isinstance(value, dict) or value.keys() != {"polarity", "confidence"}:
        raise Unfit("Kustomer takes {polarity, confidence}")
    polarity, confidence = number(value["polarity"]), number(value["confidence"])
    if polarity not in (-1, 0, 1) or not -1 <= confidence <= 1:
        raise Unfit("polarity is -1, 0 or 1 and confidence between -1 and 1")
    return {"polarity": int(polarity), "confidence": confidence}


def company(value: Any) -> str:
    """A company's name: the string, or the object's `name`. Raises `Unfit` (K044)."""
    if isinstance(value, dict):
        if value.get("name") is None:
            raise Unfit("the object has no name")
        return text(value["name"])
    return text(value)


def one_of(*kinds: str, otherwise: str | None = None) -> Rule:
    """A rule for an enum, in any case; an unknown value becomes `otherwise`, or is unfit without one."""

    def rule(value: Any) -> str:
        found = value.lower() if isinstance(value, str) else value
        if isinstance(found, str) and found in kinds:
            return found
        if otherwise is None:
            raise Unfit(f"Kustomer knows {', '.join(kinds)}")
        return otherwise

    return rule


class Shape(msgspec.Struct, frozen=True):
    """The closed object of one list: its keys with rules, those it must have, the key of a bare string."""

    keys: Mapping[str, Rule]
    required: tuple[str, ...]
    from_text: str = ""


_text_255 = text_up_to(255)
_text_256 = text_up_to(256)
_place = one_of("home", "work", "other", otherwise="other")
SHAPES: Mapping[str, Shape] = {
    "emails": Shape({"email": email, "type": _place, "verified": truth}, ("email",), "email"),
    "phones": Shape(
        {
            "phone": phone,
            "type": one_of("mobile", "home", "work", "fax", "other", otherwise="other"),
            "verified": truth,
        },
        ("phone",),
        "phone",
    ),
    "whatsapps": Shape({"phone": whatsapp, "type": one_of("mobile"), "verified": truth}, ("phone",)),
    "socials": Shape(
        {
            "type": one_of("twitter", "facebook", "instagram", "linkedin", "pinterest"),
            "username": _text_256,
            "userid": _text_256,
            "url": url,
            "verified": truth,
        },
        ("type", "username"),
    ),
    "facebookIds": Shape({"pageId": _text_255, "userId": _text_255, "name": _text_255}, ("pageId", "userId")),
    "instagramIds": Shape(
        {"pageId": _text_255, "threadId": _text_255, "username": _text_255, "instagramId": _text_255},
        ("pageId", "threadId", "username"),
    ),
}


def items(field: str, values: Sequence[Any], report: Report) -> list[dict[str, Any]]:
    """At most ten unique objects of a list field, with known keys only; what does not fit is reported."""
    kept: dict[tuple[Any, ...], dict[str, Any]] = {}
    for index, value in enumerate(values):
        where = f"{field}[{index}]"
        try:
            found = item(field, value, where, report)
            handle = tuple(found[key] for key in SHAPES[field].required)
            _one_more(kept, handle, MOST_ITEMS)
            kept[handle] = found
        except Unfit as error:
            report(f"{where} left out: {error}")
    return list(kept.values())


def item(field: str, value: Any, where: str, report: Report) -> dict[str, Any]:
    """One object of a list field with known keys only; `where` is its name in reports. Raises `Unfit`."""
    shape = SHAPES[field]
    if isinstance(value, str) and shape.from_text:
        return {"type": "home", shape.from_text: _member(shape, shape.from_text, value, where, report)}
    if not isinstance(value, dict):
        raise Unfit("it is not an object")
    found = {}
    for key, given in value.items():
        fitted = _member(shape, key, given, where, report)
        if fitted is not None:
            found[key] = fitted
    if missing := [key for key in shape.required if key not in found]:
        raise Unfit(f"it has no {', '.join(missing)}")
    return found


def _member(shape: Shape, key: str, given: Any, where: str, report: Report) -> Any:
    rule = shape.keys.get(key)
    if rule is None or given is None:
        report(f"{where}.{key} left out: {'it is null' if rule else 'Kustomer has no such key'}")
        return None
    try:
        fitted = rule(given)
    except Unfit as error:
        if key in shape.required:
            raise Unfit(f"{key}: {error}") from error
        report(f"{where}.{key} left out: {error}")
        return None
    if fitted != given:
        report(f"{where}.{key} changed to fit")
    return fitted


def tags(values: Sequence[Any], report: Report) -> list[str]:
    """The first twenty valid unique tags; the rest is reported."""
    kept: dict[str, None] = {}
    for index, value in enumerate(values):
        try:
            found = tag(value)
            _one_more(kept, found, MOST_TAGS)
            kept[found] = None
        except Unfit as error:
            report(f"tags[{index}] left out: {error}")
    return list(kept)


def _one_more(kept: Mapping[Any, Any], handle: Any, most: int) -> None:
    if handle in kept:
        raise Unfit("it is there already")
    if len(kept) == most:
        raise Unfit(f"Kustomer takes {most}")


_custom_text = text_up_to(MOST_CUSTOM_TEXT)
_CUSTOM: Mapping[str, Rule] = {
    "Str": _custom_text,
    "Txt": _custom_text,
    "Num": number,
    "At": date_time,
    "Bool": truth,
    "Url": url,
    "Id": text,
}


def custom(values: Mapping[str, Any], report: Report) -> dict[str, Any]:
    """Custom attributes whose key ends with the suffix of their type; null clears; the rest is reported."""
    kept: dict[str, Any] = {}
    for key, value in values.items():
        try:
            fitted = _custom_value(key, value)
            _one_more(kept, key, MOST_CUSTOM_KEYS)
            kept[key] = fitted
        except Unfit as error:
            report(f"customObject.{key} left out: {error}")
    return kept


def _custom_value(key: str, value: Any) -> Any:
    rule = next((rule for suffix, rule in _CUSTOM.items() if key.endswith(suffix) and key != suffix), None)
    if rule is None:
        raise Unfit(f"its key ends with none of {', '.join(_CUSTOM)}")
    return None if value is None else rule(value)
