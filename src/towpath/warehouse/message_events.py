"""What reporting webhooks tell of deliveries, as rows: at once, where the App API is asked now and then."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..message import Message
from .table import Column, Table

MESSAGE_EVENTS = Table(
    "message_events",
    (
        Column("id", "text", "The report's event_id"),
        Column("delivery_id", "text", "The delivery: `messages.id`"),
        Column("object_type", "text", "`email`, `push`, …"),
        Column("metric", "text", "What happened: `sent`, `opened`, …"),
        Column("at", "time", "When"),
        Column("person_id", "text", "The person's id, else e-mail, else cio_id", personal=True),
        Column("cio_id", "text", "The person, as Customer.io numbers it", personal=True),
        Column("email", "text", "The person's e-mail", personal=True),
        Column("recipient", "text", "Where it went", personal=True),
        Column("campaign_id", "integer", "The campaign it comes from"),
        Column("action_id", "integer", "The campaign's or broadcast's action"),
        Column("broadcast_id", "integer", "The broadcast it comes from"),
        Column("newsletter_id", "integer", "The newsletter it comes from"),
        Column("content_id", "integer", "The newsletter's variant"),
        Column("transactional_message_id", "integer", "The transactional template it comes from"),
        Column("href", "text", "The link that was clicked", personal=True),
        Column("failure_message", "text", "Why it failed", personal=True),
        Column("machine", "boolean", "Whether a machine clicked, not a person"),
        Column("prefetched", "boolean", "Whether a mail program opened it, not a person"),
        Column("proxied", "boolean", "Whether it was opened through a proxy"),
    ),
    key=("id",),
    persons=("cio_id", "person_id", "email"),
    blank=True,
    anywhere=True,
    about="What reporting webhooks told of deliveries as it happened, without a request of ours.",
)
"""A table of its own: a report names one metric, where a delivery's record has all of them."""

_SAID = frozenset(one.name for one in MESSAGE_EVENTS.columns) - {"id", "at", "person_id", "cio_id", "email"}


def row_of(message: Message) -> dict[str, Any] | None:
    """Make a record of what `sources.customerio_webhooks` heard; None for what is about no delivery."""
    said = _object(message.properties)
    if message.type != "track" or message.context.get("source") != "customerio":
        return None
    if not all(said.get(name) for name in ("delivery_id", "metric", "object_type")):
        return None
    row = {name: value for name, value in said.items() if name in _SAID}
    row |= {"id": message.message_id, "at": message.occurred_at.isoformat(), "person_id": message.user_id}
    row |= {"cio_id": _cio_id(message.context), "email": message.context_traits.get("email")}
    return row


def _cio_id(context: Mapping[str, Any]) -> str | None:
    listed = context.get("externalIds")
    for one in listed if isinstance(listed, list) else ():
        if _object(one).get("type") == "cio_id":
            return str(one.get("id"))
    return None


def _object(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}
