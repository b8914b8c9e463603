"""A user of Firebase Authentication as a person: the fields of every form that Google gives it in."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC
from email.utils import parsedate_to_datetime
from typing import Any, Final

from msgspec import Struct

from ._firebase_values import LAST_NS, NS, Unreadable, instant

NS_PER_MS: Final = 1_000_000
MOST_DIGITS: Final = 19
CREATED: Final = ("createTime", "createdAt", "creationTime")
SIGNED_IN: Final = ("lastSignInTime", "lastSignedInAt", "lastLoginAt")
TEXTS: Final = {
    "email": ("email",),
    "phone": ("phoneNumber",),
    "display_name": ("displayName",),
    "photo_url": ("photoURL", "photoUrl"),
}
SIGNS_OF_A_PERSON: Final = (
    "email", "phoneNumber", "displayName", "providerData", "providerUserInfo", "customClaims",
    "customAttributes", "customAuth", "passwordHash",
)  # fmt: skip


class Account(Struct, frozen=True, gc=False):
    """What an Auth user says of its person. `created_ns` is 0 where Google did not say.

    An anonymous user never signed up. No field says so: it is one with no way to sign in, no name and no
    claims of the project's own.
    """

    attributes: dict[str, Any]
    created_ns: int
    anonymous: bool


def account(user: Mapping[str, Any]) -> Account:
    """Read a UserRecord, a CloudEvent's data or an account of the Identity Toolkit API (F011–F019, F023)."""
    attributes: dict[str, Any] = {}
    for name, spellings in TEXTS.items():
        text = _first(user, spellings)
        if isinstance(text, str) and text:
            attributes[name] = text
    attributes["email_verified"] = user.get("emailVerified") is True
    attributes["disabled"] = user.get("disabled") is True
    created, signed_in = _time(user, CREATED), _time(user, SIGNED_IN)
    for name, moment in (("created_at", created), ("last_sign_in", signed_in)):
        if moment:
            attributes[name] = moment // NS
    return Account(attributes, created, not any(user.get(sign) for sign in SIGNS_OF_A_PERSON))


def _time(user: Mapping[str, Any], names: tuple[str, ...]) -> int:
    """Nanoseconds since 1970, or 0: from `metadata`, or beside it as the Identity Toolkit has it."""
    metadata = user.get("metadata")
    found = _first(metadata, names) if isinstance(metadata, Mapping) else None
    return _instant(_first(user, names) if found is None else found)


def _instant(value: Any) -> int:
    """RFC 3339, the form of HTTP dates (Admin SDK), or milliseconds as a number or text (REST)."""
    if isinstance(value, int) or (isinstance(value, str) and value.isascii() and value.isdigit()):
        moment = int(value) * NS_PER_MS if len(str(value)) <= MOST_DIGITS else 0
    else:
        try:
            moment = instant(value)
        except Unreadable:
            moment = _http_date(value)
    return moment if abs(moment) <= LAST_NS else 0


def _http_date(value: Any) -> int:
    try:
        moment = parsedate_to_datetime(value)
    except (AttributeError, TypeError, ValueError):
        return 0
    return int(moment.replace(tzinfo=moment.tzinfo or UTC).timestamp()) * NS


def _first(fields: Mapping[str, Any], names: tuple[str, ...]) -> Any:
    return next((fields[name] for name in names if fields.get(name) is not None), None)
