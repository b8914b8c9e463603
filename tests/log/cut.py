"""Halves of a store behind which the process dies at a random call."""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Any

from towpath.log.apart import ApartStore

CHANCE = 0.25
CHANGING = frozenset(
    {"trim", "erase", "change", "intend_trim", "intend_erase", "trimmed", "mark", "strike", "erased"}
)


class Cut(BaseException):
    """The process is gone."""


class _Half:
    def __init__(self, half: Any, random: Random) -> None:
        self._half = half
        self._random = random

    def __getattr__(self, name: str) -> Any:
        call = getattr(self._half, name)
        return self._cut(call) if name in CHANGING else call

    def _cut(self, call: Callable[..., Any]) -> Callable[..., Any]:
        async def cut(*arguments: Any, **named: Any) -> Any:
            if self._random.random() < CHANCE:
                raise Cut
            result = await call(*arguments, **named)
            if self._random.random() < CHANCE:
                raise Cut
            return result

        return cut


def cut_log(store: ApartStore, random: Random) -> Any:
    """The store's log."""
    return _Half(store._log, random)


def cut_ledger(store: ApartStore, random: Random) -> Any:
    """The store's ledger."""
    return _Half(store._ledger, random)
