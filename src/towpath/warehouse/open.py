"""The loader of a target: what each kind needs is imported when it is asked for."""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from . import faults
from .loading import Loader
from .settings import DltTarget, DuckDbTarget, ParquetTarget, PostgresTarget


def open_loader(
    target: DuckDbTarget | PostgresTarget | ParquetTarget | DltTarget, hash_key: str = ""
) -> Loader:
    """Open a target for writing. Raises `TowpathError`, a `Lost` too where trying again may help."""
    loader: Loader
    match target:
        case DuckDbTarget():
            loader = _part("duckdb", "duckdb", "warehouse").DuckDbLoader(target, hash_key)
        case PostgresTarget():
            loader = _part("postgres", "psycopg", "warehouse").PostgresLoader(target, hash_key)
        case ParquetTarget():
            loader = _part("parquet", "pyarrow", "warehouse").ParquetLoader(Path(target.path), hash_key)
        case DltTarget():
            loader = _part("dlt", "dlt", "dlt").DltLoader(target, hash_key)
    return loader


def _part(module: str, needed: str, extra: str) -> Any:
    try:
        return import_module(f".{module}", __package__)
    except ModuleNotFoundError as error:
        if (error.name or "").partition(".")[0] == "towpath":
            raise
        raise faults.extra_missing(error.name or needed, extra) from error
