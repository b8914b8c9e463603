"""Filters, consent and field mapping: pure, total, bounded; what happens before a destination prepares."""

from __future__ import annotations

from .consent import ConsentRule
from .expression import BadExpression, Expression
from .filters import Filter
from .paths import BadPath
from .rules import FieldMap, Mapped, MapRule

__all__ = [
    "BadExpression",
    "BadPath",
    "ConsentRule",
    "Expression",
    "FieldMap",
    "Filter",
    "MapRule",
    "Mapped",
]
