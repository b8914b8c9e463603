"""dlt's rest_api source into DuckDB, as its page for it says: `dlt_rest.py URL DATABASE default|tuned`."""

from __future__ import annotations

import os
import sys
from typing import Any

DATABASE, MODE = sys.argv[2:4]
TUNED = MODE == "tuned"
os.environ["RUNTIME__DLTHUB_TELEMETRY"] = "false"
if TUNED:
    os.environ |= {
        "NORMALIZE__WORKERS": "2",
        "EXTRACT__DATA_WRITER__FILE_MAX_ITEMS": "50000",
        "EXTRACT__DATA_WRITER__BUFFER_MAX_ITEMS": "20000",
        "NORMALIZE__DATA_WRITER__BUFFER_MAX_ITEMS": "20000",
        "DATA_WRITER__DISABLE_COMPRESSION": "true",
    }

import dlt  # noqa: E402
from dlt.sources.helpers.rest_client.paginators import JSONResponseCursorPaginator  # noqa: E402
from dlt.sources.rest_api import rest_api_source  # noqa: E402


def resource(name: str, limit: int = 0) -> dict[str, Any]:
    """Describe one list of the API."""
    endpoint: dict[str, Any] = {"path": name, "data_selector": name, "paginator": "single_page"}
    if limit:
        paginator = JSONResponseCursorPaginator(cursor_path="next", cursor_param="start")
        endpoint |= {"params": {"limit": limit}, "paginator": paginator}
    return {"name": name, "endpoint": endpoint}


def main() -> None:
    """Read everything once."""
    defaults: Any = {"primary_key": "id", "write_disposition": "append", "parallelized": True}
    if TUNED:
        defaults["max_table_nesting"] = 0
    resources: Any = [
        resource("messages", 1000),
        resource("activities", 100),
        resource("campaigns"),
        resource("segments"),
    ]
    source = rest_api_source(
        {"client": {"base_url": f"{sys.argv[1]}/v1/"}, "resource_defaults": defaults, "resources": resources}
    )
    pipeline = dlt.pipeline(
        "bench",
        destination=dlt.destinations.duckdb(DATABASE),
        dataset_name="cio",
        pipelines_dir=f"{DATABASE}.state",
    )
    pipeline.extract(source, loader_file_format="parquet" if TUNED else None)
    pipeline.normalize()
    pipeline.load()


if __name__ == "__main__":
    main()
