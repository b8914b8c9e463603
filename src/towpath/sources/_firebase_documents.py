"""A Firestore document as a person: which collection it is of, whom it names, and with which attributes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import Any

from msgspec import Struct

from ._firebase_kinds import Fields
from ._firebase_settings import ANY_ATTRIBUTE, WHOLE_DOCUMENT, Collection, FirebaseSettings
from ._firebase_values import DROPPED, Unreadable, attribute

IDENTIFIERS = frozenset({"id", "email"})
CREATED = frozenset({"created_at", "createdAt"})
FAR_S = 10**11
"""The year 5138: in a created_at, which may come in seconds or milliseconds, more is taken for the latter."""


class Wrong(ValueError):
    """A document that names no person or holds no attributes: what is wrong, without its values."""


class Profile(Struct, frozen=True, gc=False):
    """What a document says of its person.

    `user_id` is an id, or the e-mail of a person known by it. `left_out` are attributes, or parts of them,
    that could not be sent.
    """

    user_id: str
    attributes: dict[str, Any]
    left_out: tuple[str, ...] = ()

    @property
    def by_email(self) -> bool:
        """Whether the person is known by an e-mail; Customer.io tells by the same sign."""
        return "@" in self.user_id


class Watched(Struct, frozen=True):
    """A collection of the settings, ready to match; of one without wildcards (`plain`) paths are known."""

    collection: Collection
    pattern: re.Pattern[str]
    plain: bool


class Documents:
    """Reads documents by the settings of their collection."""

    def __init__(self, settings: FirebaseSettings) -> None:
        self.watched = [_watched(collection) for collection in settings.collections]
        self._iso = {name for name, form in settings.timestamps.items() if form == "iso"}
        self._unix = settings.timestamps.keys() - self._iso
        self._found: dict[tuple[str, str], Watched | None] = {}

    def of(self, database: str, path: str) -> Watched | None:
        """The first of the settings' collections that a document is in."""
        parent = path.rpartition("/")[0]
        key = (database, parent)
        if key not in self._found:
            if len(self._found) > 10_000:
                self._found.clear()
            self._found[key] = self._search(database, parent)
        return self._found[key]

    def plain_paths(self, document_id: str) -> Iterator[tuple[str, str]]:
        """Where documents of this id can be, as (database, path), of collections without wildcards."""
        for watched in self.watched:
            if watched.plain:
                yield watched.collection.database, f"{watched.collection.path}/{document_id}"

    def profile(self, watched: Watched, path: str, fields: Fields) -> Profile:
        """The person of a document. Raises `Wrong`."""
        collection = watched.collection
        document_id = path.rpartition("/")[2]
        found = _identifier(collection.identifiers, fields.get(collection.identifiers))
        attributes, left_out = self._attributes(collection, fields)
        user_id = document_id if found is None else found[1]
        if found is not None and found[0] == "email":
            attributes.setdefault("id", document_id)
        reserved = "email" if "@" in user_id else "id"
        # The identifier itself: another value would detach the person from this document.
        if reserved in attributes and attributes.pop(reserved) != user_id:
            left_out.append(reserved)
        return Profile(user_id, attributes, tuple(left_out))

    def _search(self, database: str, parent: str) -> Watched | None:
        for watched in self.watched:
            if watched.collection.database == database and watched.pattern.fullmatch(parent):
                return watched
        return None

    def _attributes(self, collection: Collection, fields: Fields) -> tuple[dict[str, Any], list[str]]:
        attributes: dict[str, Any] = {}
        left_out: list[str] = []
        for name, value in _chosen(collection, fields).items():
            try:
                decoded = attribute(value, iso=bool(self._iso) and self._is_iso(name))
                if name in CREATED and "timestampValue" in value and _is_far(decoded):
                    decoded = attribute(value, iso=True)
            except Unreadable as error:
                raise Wrong(f"attribute {name!r} has {error}") from error
            if decoded is DROPPED:
                left_out.append(name)
            else:
                attributes[name] = decoded
                if type(decoded) in (dict, list) and _holds_bytes(value):
                    left_out.append(name)
        return attributes, left_out

    def _is_iso(self, name: str) -> bool:
        return name in self._iso or (ANY_ATTRIBUTE in self._iso and name not in self._unix)


def _watched(collection: Collection) -> Watched:
    names = "/".join(
        "[^/]+" if part.startswith("{") else re.escape(part) for part in collection.path.split("/")
    )
    pattern = f"(?:.*/)?{names}" if collection.group else names
    return Watched(collection, re.compile(pattern), not collection.group and "{" not in collection.path)


def _identifier(field: str, value: Any) -> tuple[str, str] | None:
    """`("id" | "email", value)`, or None where the document names none."""
    named = _map(field, value)
    if len(named) > 1:
        raise Wrong(f"{field} must provide only one of id or email, and has {len(named)} keys")
    for key, held in named.items():
        kind = key.lower()
        if kind not in IDENTIFIERS:
            raise Wrong(f"{field} must provide one of id or email, and has another key")
        text = held.get("stringValue") if isinstance(held, dict) else None
        if not isinstance(text, str) or not text.strip():
            raise Wrong(f"{field}.{key} must be a text that is not empty")
        if kind == "email" and "@" not in text:
            raise Wrong(f"{field}.{key} is no e-mail address")
        return kind, text.strip()
    return None


def _map(field: str, value: Any) -> dict[str, Any]:
    """The fields of a map; none where the field is missing or null."""
    if value is None or (isinstance(value, dict) and "nullValue" in value):
        return {}
    inside = value.get("mapValue") if isinstance(value, dict) else None
    fields = (inside.get("fields") or {}) if isinstance(inside, dict) else None
    if not isinstance(fields, dict):
        raise Wrong(f"{field} must be a map")
    return fields


def _chosen(collection: Collection, fields: Fields) -> Fields:
    """Attributes by name, still typed; the document's own map last, so that it wins."""
    if collection.attributes == WHOLE_DOCUMENT:
        own = {name: value for name, value in fields.items() if name != collection.identifiers}
    else:
        own = _map(collection.attributes, fields.get(collection.attributes))
    if not collection.fields:
        return own
    mapped = ((name, _inner(path.split("."), fields)) for path, name in collection.fields.items())
    return {**{name: value for name, value in mapped if value is not None}, **own}


def _inner(path: Sequence[str], fields: Fields) -> Any:
    value = fields.get(path[0])
    for name in path[1:]:
        inside = value.get("mapValue") if isinstance(value, dict) else None
        held = inside.get("fields") if isinstance(inside, dict) else None
        value = held.get(name) if isinstance(held, dict) else None
    return value


def _is_far(decoded: Any) -> bool:
    return isinstance(decoded, int) and decoded >= FAR_S


def _holds_bytes(value: Any) -> bool:
    ((kind, held),) = value.items()
    if kind == "mapValue":
        return any(map(_holds_bytes, (held.get("fields") or {}).values()))
    if kind == "arrayValue":
        return any(map(_holds_bytes, held.get("values") or ()))
    return bool(kind == "bytesValue")
