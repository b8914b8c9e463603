"""Cut a batch into its items: fast for sound JSON, item by item where one of them is not."""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import islice

import msgspec
from msgspec import Raw, Struct

_OPEN, _CLOSE = b"{[", b"}]"
_BLANK = b" \t\r\n"
_STRING = rb'"(?:[^"\\]++|\\.)*+"'  # possessive: a long string takes no memory
# What is flat is passed over in one step, up to a run of brackets, the end, or a quote that never closes.
_WITHIN = re.compile(rb'(?:[^"\[\]{}]++|%s)*+([\[{]++|[\]}]++|"|$)' % _STRING, re.DOTALL)
_BETWEEN = re.compile(rb'(?:[^"\[\]{},]++|%s)*+([\[{]++|[\]}]++|,|"|$)' % _STRING, re.DOTALL)
_MEMBER = re.compile(rb"(%s)\s*+:" % _STRING, re.DOTALL)
_MEMBERS = 1000
_KEY = re.compile(rb'"writeKey"\s*+:\s*+(%s|[-+.\w]++)' % _STRING, re.DOTALL)
_KEYS = 100


class Broken(ValueError):
    """The request is no JSON object whose parts can be told from each other."""


class TooMany(Exception):
    """The batch has more items than it may."""


class Batch(Struct, frozen=True):
    """A batch in parts: raw items, and the raw values that stand beside them (empty when absent)."""

    items: Sequence[Raw | bytes]
    write_key: bytes = b""
    sent_at: bytes = b""
    context: bytes = b""
    integrations: bytes = b""


class _Sound(Struct, rename="camel"):
    batch: list[Raw] = []
    write_key: Raw = Raw(b"")
    sent_at: Raw = Raw(b"")
    context: Raw = Raw(b"")
    integrations: Raw = Raw(b"")


_decode = msgspec.json.Decoder(_Sound).decode
_decode_name = msgspec.json.Decoder(str).decode


class Counter:
    """Counts the items of a batch before one of them is made, and stops at one over `most`."""

    def __init__(self, most: int) -> None:
        self._most = most
        self._left = 0
        item = msgspec.defstruct("Item", [], namespace={"__post_init__": lambda _: self._count()})
        items = msgspec.defstruct("Items", [("batch", list[item], [])])  # type: ignore[valid-type]
        self._decode = msgspec.json.Decoder(items).decode

    def check(self, body: bytes) -> bool:
        """Whether a batch can be cut at once; False where it is not of objects only. Raises `TooMany`."""
        # An item takes two bytes with its comma: small bodies can hold no number of items worth counting.
        if len(body) <= 8 * self._most or body.count(b",") < self._most:
            return True
        self._left = self._most
        try:
            self._decode(body)
        except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
            return False
        return True

    def _count(self) -> None:
        self._left -= 1
        if self._left < 0:
            raise TooMany


def likely_keys(body: bytes) -> list[bytes]:
    """Return what could be the write key of a body that may be no JSON, as raw values; cheap."""
    return [found[1] for found in islice(_KEY.finditer(body), _KEYS)]


def sound(body: bytes) -> Batch | None:
    """Return the parts of a batch that is JSON throughout; None where some of it is not."""
    try:
        found = _decode(body)
    except (msgspec.DecodeError, RecursionError, UnicodeDecodeError):
        return None
    beside = (bytes(part) for part in (found.write_key, found.sent_at, found.context, found.integrations))
    return Batch(found.batch, *beside)


def salvaged(body: bytes, most: int) -> Batch:
    """Return the parts of a batch of which some are no JSON, at most one item over `most`.

    Raises `Broken`.
    """
    members = _members(body)
    items = members.get("batch", b"[]")
    if items[:1] != b"[":
        raise Broken("batch must be an array of events")
    beside = (members.get(name, b"") for name in ("writeKey", "sentAt", "context", "integrations"))
    return Batch(_parts(items, most), *beside)


def _members(body: bytes) -> dict[str, bytes]:
    text = body.strip(_BLANK)
    if text[:1] != b"{":
        raise Broken("the body must be a JSON object")
    parts = _parts(text, _MEMBERS)
    if len(parts) > _MEMBERS:
        raise Broken("the body has too many members")
    members: dict[str, bytes] = {}
    for part in parts:
        if not (named := _MEMBER.match(part)):
            raise Broken("the body has a member without a name")
        try:
            members[_decode_name(named[1])] = part[named.end() :].strip(_BLANK)
        except (msgspec.DecodeError, UnicodeDecodeError):
            continue  # a name that is no text is none of ours
    return members


def _parts(text: bytes, most: int) -> list[bytes]:
    """Cut one object or array at the commas of its own level; stop when there are more than `most` parts."""
    parts: list[bytes] = []
    start, end, at, depth = 1, len(text), 1, 1
    while depth and len(parts) <= most:
        found = (_BETWEEN if depth == 1 else _WITHIN).match(text, at)
        mark = found[1] if found else b""
        at = found.end() if found else end
        depth += _step(mark)
        if mark == b",":
            parts.append(text[start : at - 1].strip(_BLANK))
            start = at
    if not depth and at != end:
        raise Broken("the body goes on after its JSON value")
    last = text[start : end - 1].strip(_BLANK)
    return [*parts, last] if last or parts else []


def _step(mark: bytes) -> int:
    """Levels that a run of brackets goes down or up."""
    if not mark or mark == b'"':
        raise Broken("brackets do not match, or a string does not end")
    return len(mark) * ((mark[0] in _OPEN) - (mark[0] in _CLOSE))


def deeper(raw: bytes, limit: int) -> bool:
    """Whether JSON nests deeper than `limit` levels."""
    # Brackets counted by what is left without them: twice as fast as `count`, which looks at every byte.
    if 2 * len(raw) - len(raw.replace(b"{", b"")) - len(raw.replace(b"[", b"")) <= limit:
        return False
    depth, at, end = 0, 0, len(raw)
    while at < end and depth <= limit:
        found = _WITHIN.match(raw, at)
        if not found or not found[1] or found[1] == b'"':
            return False  # no JSON: that is for the decoder to say
        depth += _step(found[1])
        at = found.end()
    return depth > limit
