"""What the simulated Customer.io refuses: sizes, names, shapes; in the vendor's words where known."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import msgspec

ATTRIBUTES_LIMIT = 300
NAME_LIMIT_BYTES = 150
VALUE_LIMIT_BYTES = 1000
IDENTIFIER_LIMIT_BYTES = 150
EVENT_NAME_LIMIT_BYTES = 100
PAGE_NAME_LIMIT = 500
EVENT_DATA_LIMIT_BYTES = 100_000
ITEM_LIMIT_BYTES = 32 * 1024
BATCH_LIMIT_BYTES = 500 * 1024
SEGMENT_IDS_LIMIT = 1000
RELATED_LIMIT_BYTES = 100 * 1024

_encode = msgspec.json.Encoder().encode


class Invalid(Exception):
    """A call, or an item of one, that is refused.

    `text` is what Track v1 and the Pipelines API say; v2 says `reason`, `field` and `message`.
    """

    def __init__(self, field: str, text: str, message: str = "", reason: str = "invalid") -> None:
        super().__init__(text)
        self.field = field
        self.text = text
        self.message = message or text
        self.reason = reason

    def item(self) -> dict[str, str]:
        """Return the error as v2 writes it."""
        return {"reason": self.reason, "field": self.field, "message": self.message}


def one_of(value: Any, known: Collection[str], field: str) -> str:
    """Return a word. Raises `Invalid` when it is none of the known ones."""
    if not isinstance(value, str) or value not in known:
        raise Invalid(field, f"{field} must be one of {', '.join(known)}")
    return value


def required(field: str) -> Invalid:
    """Return the error of a field that is missing."""
    return Invalid(field, f"{field} is required", reason="required")


def check_attributes(attributes: Any, field: str = "attributes") -> None:
    """Refuse what a profile or object cannot hold in one call. Raises `Invalid`."""
    if not isinstance(attributes, dict):
        raise Invalid(field, f"{field} must be a hash")
    if len(attributes) > ATTRIBUTES_LIMIT:
        raise Invalid(field, f"cannot identify more than {ATTRIBUTES_LIMIT} attributes in one request")
    for name, value in attributes.items():
        # A character is at most 4 bytes, so most names and values need not be encoded.
        if len(name) > 37 and len(name.encode()) > NAME_LIMIT_BYTES:
            text = f"attribute name cannot be longer than {NAME_LIMIT_BYTES} bytes"
            raise Invalid(f"{field}.{name}", text)
        if isinstance(value, str):
            too_long = len(value) > 250 and len(value.encode()) > VALUE_LIMIT_BYTES
        else:
            nested = isinstance(value, dict | list) and name != "cio_relationships"
            too_long = nested and len(_encode(value)) > VALUE_LIMIT_BYTES
        if too_long:
            raise _long_value(name, field)


def _long_value(name: str, field: str) -> Invalid:
    text = f"value for attribute '{name}' cannot be longer than {VALUE_LIMIT_BYTES} bytes"
    return Invalid(f"{field}.{name}", text, f"property value cannot be longer than {VALUE_LIMIT_BYTES} bytes")


def check_person(attributes: Mapping[str, Any], field: str = "attributes") -> None:
    """Refuse identifiers among the attributes that are none. Raises `Invalid`."""
    if "id" in attributes:
        value = attributes["id"]
        if not isinstance(value, str):
            raise Invalid(f"{field}.id", "id attribute must be a string value")
        check_id(value, f"{field}.id")
    email = attributes.get("email")
    if email is not None and not isinstance(email, str):
        raise Invalid(f"{field}.email", "email attribute must be a string value")


def check_id(value: str, field: str = "id") -> None:
    """Refuse an identifier that is empty or too long. Raises `Invalid`."""
    if not value:
        raise Invalid(field, "id attribute cannot be an empty string")
    if len(value) > 37 and len(value.encode()) > IDENTIFIER_LIMIT_BYTES:
        raise Invalid(field, f"id attribute cannot be longer than {IDENTIFIER_LIMIT_BYTES} bytes")


def event_name(kind: str, name: Any) -> str:
    """Return an event's name, trimmed. Raises `Invalid`.

    The vendor knows two limits, 100 bytes and 500 characters; the second must be that of pages and screens.
    """
    if name is None:
        raise Invalid("name", "name cannot be blank", reason="required")
    text = name.strip() if isinstance(name, str) else ""
    if not text:
        raise Invalid("name", "event name must not be blank")
    if kind == "event" and len(text.encode()) > EVENT_NAME_LIMIT_BYTES:
        raise Invalid("name", f"event name cannot be longer than {EVENT_NAME_LIMIT_BYTES} bytes")
    if len(text) >= PAGE_NAME_LIMIT:
        raise Invalid("name", f"event name must be less than {PAGE_NAME_LIMIT} characters")
    return text


def event_data(data: Any, size: int, field: str = "data") -> dict[str, Any]:
    """Return an event's data; `size` is that of the call, which bounds it. Raises `Invalid`."""
    if data is None:
        return {}
    if not isinstance(data, dict):
        raise Invalid(field, "event data must be a hash")
    if size > EVENT_DATA_LIMIT_BYTES and len(_encode(data)) > EVENT_DATA_LIMIT_BYTES:
        raise Invalid(field, f"event data cannot be longer than {EVENT_DATA_LIMIT_BYTES} bytes")
    return data


def seconds(value: Any, field: str = "timestamp") -> int | None:
    """Return a time in Unix seconds, None where there is none. Raises `Invalid` for what is no integer."""
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool):
        raise Invalid(field, f"{field} must be an integer")
    return value
