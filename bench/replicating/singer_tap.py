"""A tap as singer-sdk's template has it, run in the peers' environment: `singer_tap.py URL`."""

from __future__ import annotations

import sys
from typing import Any

from singer_sdk import RESTStream, Tap  # type: ignore[import-not-found]
from singer_sdk import typing as th

TEXT, WHOLE, YES, ANY = (
    th.StringType,
    th.IntegerType,
    th.BooleanType,
    th.ObjectType(additional_properties=True),
)
COLUMNS: dict[str, dict[str, Any]] = {
    "messages": {
        **dict.fromkeys(("id", "deduplicate_id", "customer_id", "recipient", "subject", "type"), TEXT),
        **dict.fromkeys(("failure_message", "trigger_event_id"), TEXT),
        **dict.fromkeys(("msg_template_id", "action_id", "created", "newsletter_id", "content_id"), WHOLE),
        **dict.fromkeys(("campaign_id", "broadcast_id", "parent_action_id"), WHOLE),
        "customer_identifiers": ANY,
        "metrics": ANY,
        "forgotten": YES,
    },
    "activities": {
        **dict.fromkeys(("id", "customer_id", "delivery_id", "delivery_type", "type", "name"), TEXT),
        "timestamp": WHOLE,
        "customer_identifiers": ANY,
        "data": ANY,
    },
    "campaigns": {
        **dict.fromkeys(("deduplicate_id", "name", "type", "state", "created_by"), TEXT),
        **dict.fromkeys(("id", "created", "updated", "first_started"), WHOLE),
        "active": YES,
        "tags": th.ArrayType(TEXT),
        "actions": th.ArrayType(ANY),
        "trigger_segment_ids": th.ArrayType(WHOLE),
    },
    "segments": {
        **dict.fromkeys(("name", "type", "state"), TEXT),
        **dict.fromkeys(("id", "created_at", "updated_at"), WHOLE),
        "tags": th.ArrayType(TEXT),
        "conditions": ANY,
    },
}


class Listed(RESTStream):  # type: ignore[misc]
    """One list of the API."""

    url_base = f"{sys.argv[1]}/v1"
    primary_keys = ("id",)
    next_page_token_jsonpath = "$.next"
    limit = 1000

    def get_url_params(self, context: Any, next_page_token: Any) -> dict[str, Any]:
        return {"limit": self.limit, **({"start": next_page_token} if next_page_token else {})}


def stream(table: str, size: int) -> type[Listed]:
    """Make the stream of a table."""
    schema = th.PropertiesList(*(th.Property(name, kind) for name, kind in COLUMNS[table].items())).to_dict()
    given = {"name": table, "path": f"/{table}", "records_jsonpath": f"$.{table}[*]", "schema": schema}
    return type(table.title(), (Listed,), {**given, "limit": size})


STREAMS = [stream(table, 100 if table == "activities" else 1000) for table in COLUMNS]


class CustomerIoTap(Tap):  # type: ignore[misc]
    """The four lists of the benchmark."""

    name = "tap-bench"
    config_jsonschema = th.PropertiesList().to_dict()

    def discover_streams(self) -> list[Any]:
        return [each(tap=self) for each in STREAMS]


if __name__ == "__main__":
    CustomerIoTap(config={}).sync_all()
