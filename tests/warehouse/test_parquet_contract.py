"""The Parquet target, by the contract of every loader."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb

from towpath.testing.loader import HASH_KEY, LoaderContract
from towpath.warehouse.loading import Loader
from towpath.warehouse.parquet import ParquetLoader
from towpath.warehouse.parquet_store import folder_of


class TestParquet(LoaderContract):
    """Read as anybody would read it: by the pattern of the files in force."""

    def begin(self, directory: Path) -> Loader:
        return ParquetLoader(directory / "files", HASH_KEY)

    def rows(self, table: str) -> Sequence[Mapping[str, Any]]:
        files = self.directory / "files" / folder_of(table) / "current" / "*.parquet"
        place = str(files).replace("'", "''")
        with duckdb.connect() as database:
            found = database.sql(f"SELECT * FROM read_parquet('{place}', union_by_name = true)")
            rows: list[dict[str, Any]] = found.to_arrow_table().to_pylist()
        return rows
