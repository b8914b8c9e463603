"""The SQLite engine of state.db: which library, which pragmas, which kind of transaction."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

from sqlalchemy import Connection, Engine, create_engine, event
from sqlalchemy.engine import URL

WAL_SAFE = (
    3,
    51,
    3,
)  # before it, two connections in WAL mode can corrupt a file (sqlite.org, "WAL-reset bug")


def library() -> ModuleType:
    """pysqlite3, which brings a recent SQLite; else the standard library's (no wheel for Linux on ARM)."""
    try:
        return importlib.import_module("pysqlite3")
    except ImportError:
        return importlib.import_module("sqlite3")


def open_engine(path: Path, sqlite: ModuleType | None = None) -> Engine:
    """An engine whose transactions take the write lock when they begin, so that none fails halfway."""
    sqlite = sqlite or library()
    journal = "WAL" if sqlite.sqlite_version_info >= WAL_SAFE else "TRUNCATE"
    engine = create_engine(URL.create("sqlite", database=str(path)), module=sqlite)

    @event.listens_for(engine, "connect")
    def _prepare(connection: Any, _: Any) -> None:
        connection.isolation_level = None  # SQLAlchemy begins, not the driver
        for pragma in (
            "busy_timeout=5000",
            f"journal_mode={journal}",
            "synchronous=FULL",
            "secure_delete=ON",
        ):
            connection.execute(f"PRAGMA {pragma}").close()

    @event.listens_for(engine, "begin")
    def _begin(connection: Any) -> None:
        reads = connection.get_execution_options().get("reads", False)
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")

    return engine


def reading(engine: Engine) -> Connection:
    """A connection that only reads: however long that takes, others write meanwhile."""
    return engine.execution_options(reads=True).connect()
