"""The pixel: an event written as a query, answered with an image."""

from __future__ import annotations

from typing import Any
from urllib.parse import parse_qsl

import msgspec

from .answers import Answer
from .parse import Bad

GIF = Answer(
    200,
    b"GIF89a\x01\x00\x01\x00\x80\x00\x00\x00\x00\x00\xff\xff\xff!\xf9\x04\x01\x00\x00\x00\x00,\x00\x00\x00\x00"
    b"\x01\x00\x01\x00\x00\x02\x02D\x01\x00;",
    ((b"content-type", b"image/gif"), (b"cache-control", b"no-store")),
)
_FIELDS = 1000


def event(query: bytes) -> bytes:
    """Turn query parameters into a JSON event; `properties.price=3` is a member of `properties`.

    The write key stays out. Values are strings; where a name is both a value and a parent, the later
    one wins. Raises `Bad`.
    """
    fields: dict[str, Any] = {}
    try:
        pairs = parse_qsl(query.decode(), keep_blank_values=True, errors="strict", max_num_fields=_FIELDS)
    except ValueError as error:
        raise Bad("invalid_query", "query is not valid UTF-8 or has too many fields") from error
    for name, value in pairs:
        if name != "writeKey":
            _place(fields, name.split(".", 2), value)
    return msgspec.json.encode(fields)


def _place(fields: dict[str, Any], path: list[str], value: str) -> None:
    *parents, leaf = path
    for name in parents:
        inner = fields.get(name)
        if not isinstance(inner, dict):
            inner = fields[name] = {}
        fields = inner
    fields[leaf] = value
