"""The warehouse: tables, and how records get into DuckDB, PostgreSQL, Parquet files or dlt."""

from __future__ import annotations

from .loading import Counted, Gone, Load, Loader, Lost, Page, Refusal, Warehouse, Wrote
from .table import (
    DELETED,
    EXTRA,
    LINEAGE,
    LOADED,
    RUN,
    WORKSPACE,
    Column,
    Contract,
    Kind,
    Shape,
    Table,
)

__all__ = [
    "DELETED",
    "EXTRA",
    "LINEAGE",
    "LOADED",
    "RUN",
    "WORKSPACE",
    "Column",
    "Contract",
    "Counted",
    "Gone",
    "Kind",
    "Load",
    "Loader",
    "Lost",
    "Page",
    "Refusal",
    "Shape",
    "Table",
    "Warehouse",
    "Wrote",
]
