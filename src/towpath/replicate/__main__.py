"""Prints docs/replication-tables.md: every table, from its declaration."""

from __future__ import annotations

from .table_docs import document

if __name__ == "__main__":
    print(document(), end="")
