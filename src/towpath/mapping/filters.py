"""Filters: a CEL expression that says which messages a connection takes."""

from __future__ import annotations

from ..message import Message
from ..outcome import Skipped
from .expression import Expression, Failure
from .paths import Draft


class Filter:
    """Lets the messages through of which its expression is true. Raises `BadExpression`."""

    def __init__(self, text: str) -> None:
        self._expression = Expression(text)

    def verdict(self, message: Message) -> Skipped | None:
        """Why a message does not pass; None when it does. What cannot be answered counts as false."""
        try:
            if self._expression.holds(Draft(message)):
                return None
        except Failure as why:
            if why.missing:
                return Skipped("filtered", f"the filter asks for {why.missing}, which is not there")
            return Skipped("filtered", f"the filter failed, which counts as false: {why}")
        return Skipped("filtered", "the filter is false")
