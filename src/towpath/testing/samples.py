"""Sample messages of every kind, ordinary and odd, that every destination must cope with."""

from __future__ import annotations

from typing import Any

from towpath.message import Message

AWKWARD_ID = "a/b?c#d@é"
"""An id that breaks a URL unless it is percent-encoded (D11)."""


def message(kind: str, **fields: Any) -> Message:
    """Make a message of a kind with plausible ids and times; `fields` replace what is given here."""
    given: dict[str, Any] = {
        "type": kind,
        "message_id": f"sample-{kind}",
        "user_id": "user-1",
        "anonymous_id": "anonymous-1",
        "original_timestamp": "2026-01-01T10:00:00.000Z",
        "sent_at": "2026-01-01T10:00:01.000Z",
        "received_at": 1_767_261_601.5,
        "source": "web",
        "trust": "server",
    }
    return Message(**{**given, **fields})


TRAITS = {"email": "ada@example.com", "firstName": "Ada", "lastName": "Lovelace", "phone": "+15005550006"}
PRODUCT = {"product_id": "p1", "sku": "s-1", "name": "Lantern", "price": 12.5, "quantity": 2}

SAMPLES: tuple[Message, ...] = (
    message("identify", traits=TRAITS),
    message("identify", message_id="sample-anonymous", user_id=None, traits={"plan": "free"}),
    message("identify", message_id="sample-client", trust="client", context={"traits": TRAITS}),
    message(
        "track", event="Order Completed", properties={"order_id": "o1", "products": [PRODUCT], "total": 25.0}
    ),
    message("track", message_id="sample-bare", event="Signed Up"),
    message(
        "page", name="Home", category="Shop", properties={"url": "https://example.com/", "title": "Home"}
    ),
    message("screen", name="Cart", properties={"items": 2}),
    message("group", group_id="company-1", traits={"name": "Example Ltd", "employees": 12}),
    message("alias", previous_id="anonymous-1"),
    message("delete"),
)

_HUGE = {f"key {number}": "x" * 500 for number in range(400)}
_DEEP: dict[str, Any] = {}
for _ in range(60):
    _DEEP = {"deeper": [_DEEP]}

_ODD_FIELDS: dict[str, dict[str, Any]] = {
    "empty": {"user_id": None, "anonymous_id": None, "message_id": ""},
    "properties-string": {"event": "Odd", "properties": "none", "name": "Odd"},
    "properties-list": {"event": "Odd", "properties": [1, None, {"a": 1}], "name": "Odd"},
    "properties-null-values": {"event": "Odd", "properties": {"": None, " ": "", "a.b": {}, "$c": []}},
    "event-number": {"event": 42, "name": 42},
    "event-object": {"event": {"name": "Odd"}, "name": ["Odd"]},
    "event-empty": {"event": "   ", "name": ""},
    "huge": {"event": "E" * 5_000, "properties": _HUGE, "traits": _HUGE},
    "deep": {"event": "Odd", "properties": _DEEP, "traits": _DEEP, "context": _DEEP},
    "unicode": {
        "user_id": "ünï-\U0001d4b9-\u202e\u0000",
        "event": "🛶\u0000",
        "traits": {"naïve\u2028": "👩\u200d🚀"},
    },
    "line-breaks": {
        "user_id": "a\r\nx-injected: 1",
        "anonymous_id": "b\nc",
        "message_id": "m\r\nx-injected: 1",
        "event": "Odd\r\nName",
        "group_id": "g\r\n",
        "previous_id": "p\r\n",
    },
    "numbers": {"properties": {"big": 2**70, "tiny": 1e-300, "minus": -0.0, "yes": True}, "event": "Odd"},
    "traits-odd": {"traits": {"email": 5, "phone": {}, "name": [], "address": "here", "createdAt": "never"}},
    "times-odd": {"timestamp": 5, "original_timestamp": {}, "sent_at": "yesterday", "event": "Odd"},
    "context-odd": {"context": {"traits": "none", "ip": 4, "device": [], "page": 1}, "event": "Odd"},
    "long-id": {"user_id": "u" * 4_000, "event": "Odd"},
}
KINDS_AND_MORE = ("identify", "track", "page", "screen", "group", "alias", "delete", "no-such-kind", "")

ODD: dict[str, tuple[Message, ...]] = {
    name: tuple(message(kind, **{"message_id": f"odd-{name}", **fields}) for kind in KINDS_AND_MORE)
    for name, fields in _ODD_FIELDS.items()
}
