"""dlt fed with Arrow tables of a fixed schema, merged by key: `dlt_arrow.py URL DATABASE`.

The fastest way with dlt, which leaves reading, parsing and typing to whoever writes it.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from typing import Any

os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"

import dlt
import msgspec
import pyarrow as pa
import requests

TEXT, WHOLE, YES = pa.string(), pa.int64(), pa.bool_()
NESTED = None
"""A column that holds JSON text."""
SCHEMAS: Mapping[str, Mapping[str, Any]] = {
    "messages": {
        **dict.fromkeys(("id", "deduplicate_id", "customer_id", "recipient", "subject", "type"), TEXT),
        **dict.fromkeys(("failure_message", "trigger_event_id"), TEXT),
        **dict.fromkeys(("msg_template_id", "action_id", "created", "newsletter_id", "content_id"), WHOLE),
        **dict.fromkeys(("campaign_id", "broadcast_id", "parent_action_id"), WHOLE),
        "customer_identifiers": NESTED,
        "metrics": NESTED,
        "forgotten": YES,
    },
    "activities": {
        **dict.fromkeys(("id", "customer_id", "delivery_id", "delivery_type", "type", "name"), TEXT),
        "timestamp": WHOLE,
        "customer_identifiers": NESTED,
        "data": NESTED,
    },
    "campaigns": {
        **dict.fromkeys(("deduplicate_id", "name", "type", "state", "created_by"), TEXT),
        **dict.fromkeys(("id", "created", "updated", "first_started"), WHOLE),
        "active": YES,
        "tags": NESTED,
        "actions": NESTED,
        "trigger_segment_ids": NESTED,
    },
    "segments": {
        **dict.fromkeys(("name", "type", "state"), TEXT),
        **dict.fromkeys(("id", "created_at", "updated_at"), WHOLE),
        "tags": NESTED,
        "conditions": NESTED,
    },
}


def column(rows: list[dict[str, Any]], name: str, kind: Any) -> pa.Array:
    """Make one column; what is nested becomes JSON text."""
    if kind is not NESTED:
        return pa.array([row.get(name) for row in rows], kind)
    values = (row.get(name) for row in rows)
    return pa.array(
        [None if value is None else msgspec.json.encode(value).decode() for value in values], TEXT
    )


def arrow(table: str, rows: list[dict[str, Any]]) -> pa.Table:
    """Make a table of records; keys that no column has go to `_extra`."""
    schema = SCHEMAS[table]
    columns = {name: column(rows, name, kind) for name, kind in schema.items()}
    extra = [row.keys() - schema.keys() for row in rows]
    texts = [
        json.dumps({key: row[key] for key in keys}) if keys else None
        for row, keys in zip(rows, extra, strict=True)
    ]
    return pa.table({**columns, "_extra": pa.array(texts, TEXT)})


def batches(session: requests.Session, table: str, limit: int, size: int) -> Iterator[pa.Table]:
    """Read a list to its end, in tables of about so many rows."""
    token, kept = "", list[dict[str, Any]]()
    while True:
        query = {"limit": str(limit), **({"start": token} if token else {})}
        page = msgspec.json.decode(session.get(f"{sys.argv[1]}/v1/{table}", params=query).content)
        kept += page[table]
        token = page.get("next")
        if len(kept) >= size or not token:
            yield arrow(table, kept)
            kept = []
        if not token:
            return


def main() -> None:
    """Read everything once."""
    session = requests.Session()
    resources = [
        dlt.resource(
            batches(session, table, limit, size),
            name=table,
            primary_key="id",
            write_disposition={"disposition": "merge", "strategy": "upsert"},
            parallelized=True,
        )
        for table, limit, size in (
            ("messages", 1000, 20_000),
            ("activities", 100, 10_000),
            ("campaigns", 1000, 10_000),
            ("segments", 1000, 10_000),
        )
    ]
    pipeline = dlt.pipeline(
        "bench",
        destination=dlt.destinations.duckdb(sys.argv[2]),
        dataset_name="cio",
        pipelines_dir=f"{sys.argv[2]}.state",
    )
    pipeline.run(resources, loader_file_format="parquet")


if __name__ == "__main__":
    main()
