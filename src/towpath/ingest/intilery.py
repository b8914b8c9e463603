"""Tracking calls as Intilery's clients make them: their paths, their key, and fields that stand at the root.

Source: docs.intilery.com, "API": `POST /track/{client}/{account}/{brand}/v1/{action}` with an `auth-token`
header, and "Commands": an event's own fields may stand beside `event` instead of in `properties`.
"""

from __future__ import annotations

import re

import msgspec

from ..message import Message

HEADER = b"auth-token"
ACTIONS = ("identify", "track", "page", "screen")
_PATH = re.compile(rf"/track/[^/]+/[^/]+/[^/]+/v1/({'|'.join(ACTIONS)})/?", re.IGNORECASE)
_SPEC = {field.encode_name for field in msgspec.structs.fields(Message)} | {"writeKey"}


def template(action: str) -> str:
    """The path of a call, with names where clients put theirs."""
    return f"/track/{{clientId}}/{{accountId}}/{{brandId}}/v1/{action}"


def action(path: str) -> str | None:
    """The call that a path stands for; None when it is none of Intilery's."""
    found = _PATH.fullmatch(path)
    return None if found is None else found[1].lower()


def in_spec(raw: bytes) -> bytes:
    """An event with what is not of the spec's fields moved into `properties`, which win; else as it is."""
    try:
        fields = msgspec.json.decode(raw)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return raw  # whoever judges it says what is wrong
    if not isinstance(fields, dict) or not isinstance(fields.get("properties", {}), dict | None):
        return raw
    strays = fields.keys() - _SPEC
    if not strays:
        return raw
    kept = {name: value for name, value in fields.items() if name not in strays}
    moved = {name: value for name, value in fields.items() if name in strays}
    return msgspec.json.encode({**kept, "properties": {**moved, **(fields.get("properties") or {})}})
