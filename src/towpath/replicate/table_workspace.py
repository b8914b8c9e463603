"""The tables of the workspace itself."""

from __future__ import annotations

from ..vendors.customerio import AppApi
from ..warehouse import Column, Table
from .reading_lists import Listed
from .reading_snapshots import Daily
from .table import Replicated
from .table_content import ID, NAME, TYPE

_WORKSPACE = (
    Column("id", "text", "The workspace"),
    NAME,
    Column("messages_sent", "integer", "Messages sent so far"),
    Column("billable_messages_sent", "integer", "Those that are paid for"),
    Column("people", "integer", "How many people it has"),
    Column("object_types", "integer", "How many types of objects"),
    Column("objects", "integer", "How many objects"),
)

WORKSPACE = (
    Replicated(
        table=Table(
            "workspaces",
            _WORKSPACE,
            key=("id",),
            about="All workspaces of the account; the counts may be two hours old.",
        ),
        endpoint="GET /v1/workspaces",
        reading=Listed(AppApi.workspaces, "workspaces"),
    ),
    Replicated(
        table=Table(
            "workspace_days",
            (Column("day", "date", "The day, UTC"), *_WORKSPACE),
            key=("day", "id"),
            about="The workspaces' counts day by day, from the first run on.",
        ),
        endpoint="GET /v1/workspaces",
        reading=Daily(Listed(AppApi.workspaces, "workspaces")),
        vanishes=False,
        snapshot=True,
    ),
    Replicated(
        table=Table(
            "reporting_webhooks",
            (
                ID,
                NAME,
                TYPE,
                Column("endpoint", "text", "Where it posts, without user and password"),
                Column("disabled", "boolean", "Whether it is off"),
                Column("full_resolution", "boolean", "Whether every open and click is reported"),
                Column("with_content", "boolean", "Whether what was sent is reported"),
                Column("events", "json", "What it reports"),
            ),
            key=("id",),
            about="Where Customer.io reports deliveries to.",
        ),
        endpoint="GET /v1/reporting_webhooks",
        reading=Listed(AppApi.reporting_webhooks, "reporting_webhooks", private_url="endpoint"),
    ),
    Replicated(
        table=Table(
            "ip_addresses",
            (Column("ip", "text", "The address"),),
            key=("ip",),
            about="Addresses that Customer.io calls from.",
        ),
        endpoint="GET /v1/info/ip_addresses",
        reading=Listed(AppApi.ip_addresses, "ip_addresses", wrap="ip"),
        aliases=("info",),
    ),
)
