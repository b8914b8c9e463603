"""The tables of what was sent and what came of it: deliveries, activities, metrics, exports."""

from __future__ import annotations

from ..vendors.customerio import AppApi
from ..warehouse import Column, Table
from .metrics import SERIES, STATUSES, Metrics
from .reading_lists import Listed, NewestFirst, PerParent, Windows
from .report import DAY_S, Tier
from .table import Replicated
from .table_content import CREATED_AT, DEDUPLICATE, ID, TYPE, UPDATED_AT

LATE = (Tier(2 * DAY_S), Tier(30 * DAY_S, DAY_S), Tier(180 * DAY_S, 7 * DAY_S))
"""Opens and clicks are counted up to 180 days after sending, conversions up to 90."""

_PERSON = (
    Column(
        "customer_id",
        "text",
        "The person's id; null in workspaces that know people by e-mail too",
        personal=True,
    ),
    Column(
        "cio_id",
        "text",
        "The person, as Customer.io numbers it",
        ("customer_identifiers", "cio_id"),
        personal=True,
    ),
    Column(
        "person_id",
        "text",
        "The person's id",
        ("customer_identifiers", "id"),
        personal=True,
        blank_is_null=True,
    ),
    Column("email", "text", "The person's e-mail", ("customer_identifiers", "email"), personal=True),
)


def _metrics(kind: str, ask: object, parent: str) -> Replicated:
    column = f"{kind}_id"
    return Replicated(
        table=Table(
            f"{kind}_metrics",
            (
                Column(column, "integer", f"The {kind}"),
                Column("resolution", "text", "How wide a bucket is: `days`"),
                Column("bucket", "time", "When it begins, UTC"),
                *(Column(name, "integer", f"How many were `{name}`") for name in SERIES),
                *(
                    Column(f"status_{name}", "integer", f"Webhooks answered with {name}", (name,))
                    for name in STATUSES
                ),
            ),
            key=(column, "resolution", "bucket"),
            cursor="bucket",
            about=f"What came of {parent}, per day; days on which nothing happened have no row.",
        ),
        endpoint=f"GET /v1/{parent}/{{id}}/metrics",
        reading=PerParent(column, Metrics(ask)),  # type: ignore[arg-type]
        parent=parent,
        vanishes=False,
        look_back=(Tier(45 * DAY_S),),
        optional=True,
    )


DELIVERIES = (
    Replicated(
        table=Table(
            "messages",
            (
                Column("id", "text", "The delivery"),
                DEDUPLICATE,
                TYPE,
                Column("created", "time", "When it was made"),
                *_PERSON,
                Column("recipient", "text", "Where it went: an address, a number, a device", personal=True),
                Column("subject", "text", "The subject", personal=True),
                Column("metrics", "json", "When it was `sent`, `opened`, …: Unix seconds by metric"),
                Column("failure_message", "text", "Why it failed", personal=True),
                Column("campaign_id", "integer", "The campaign it comes from"),
                Column("action_id", "integer", "The campaign's or broadcast's action"),
                Column("parent_action_id", "integer", "The action that one is a variant of"),
                Column("newsletter_id", "integer", "The newsletter it comes from"),
                Column("content_id", "integer", "The newsletter's variant"),
                Column("broadcast_id", "integer", "The broadcast it comes from"),
                Column("transactional_message_id", "integer", "The transactional template it comes from"),
                Column("trigger_event_id", "text", "The event that triggered it"),
                Column("msg_template_id", "integer", "Its template"),
                Column("message_template_id", "integer", "Its template, by its newer name"),
                Column("forgotten", "boolean", "Whether what it said is gone, as of a person deleted"),
            ),
            key=("id",),
            cursor="created",
            persons=("cio_id", "person_id", "customer_id", "email"),
            blank=True,
            about="Deliveries: every message sent to a person, and what came of it so far.",
        ),
        endpoint="GET /v1/messages",
        reading=Windows(AppApi.messages, "messages", limit=1000),
        vanishes=False,
        look_back=LATE,
        aliases=("deliveries",),
    ),
    Replicated(
        table=Table(
            "activities",
            (
                Column("id", "text", "The activity"),
                TYPE,
                Column("timestamp", "time", "When it happened"),
                *_PERSON,
                Column("delivery_id", "text", "The delivery it concerns"),
                Column("delivery_type", "text", "The kind of that delivery"),
                Column("name", "text", "The event, page or attribute"),
                Column("url", "text", "The page", personal=True),
                Column("data", "json", "What it is about, in a shape by its type", personal=True),
            ),
            key=("id",),
            cursor="timestamp",
            persons=("cio_id", "person_id", "customer_id", "email"),
            about="What happened to people and what they did; Customer.io keeps about 30 days of it.",
        ),
        endpoint="GET /v1/activities",
        reading=NewestFirst(
            AppApi.activities, "activities", limit=100, stamp="timestamp", query={"deleted": True}
        ),
        passes=True,
        vanishes=False,
        mode="append",
        kept_s=30 * DAY_S,
    ),
    Replicated(
        table=Table(
            "exports",
            (
                ID,
                DEDUPLICATE,
                TYPE,
                Column("user_id", "integer", "Who asked for it"),
                Column("user_email", "text", "Their e-mail", personal=True),
                Column("total", "integer", "How many rows it has"),
                Column("failed", "boolean", "Whether it failed"),
                Column("status", "text", "`pending`, `done` or `failed`"),
                Column("description", "text", "What it is of"),
                Column("downloads", "integer", "How often it was fetched"),
                CREATED_AT,
                UPDATED_AT,
            ),
            key=("id",),
            cursor="updated_at",
            about="Exports; those that Customer.io drops after a while stay here.",
        ),
        endpoint="GET /v1/exports",
        reading=Listed(AppApi.exports, "exports"),
        passes=True,
        vanishes=False,
    ),
    _metrics("campaign", AppApi.campaign_metrics, "campaigns"),
    _metrics("broadcast", AppApi.broadcast_metrics, "broadcasts"),
    _metrics("newsletter", AppApi.newsletter_metrics, "newsletters"),
)
