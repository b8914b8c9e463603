"""Writing sources, destinations and connections into towpath.yaml, with their secrets kept apart from it."""

from __future__ import annotations

from .pairs import pairs
from .plan import Entry, Plan, Setting, connection
from .writing import Draft, draft, named

__all__ = ["Draft", "Entry", "Plan", "Setting", "connection", "draft", "named", "pairs"]
