"""Fault scenarios keep the key file of their hubs in a directory of their own."""

from __future__ import annotations

from ..app.conftest import key_file, own_log

__all__ = ["key_file", "own_log"]
