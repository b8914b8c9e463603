"""Marks for contract suites, so that they run whatever the inheriting project's pytest settings are."""

from __future__ import annotations

from inspect import iscoroutinefunction
from typing import TypeVar

import pytest

C = TypeVar("C", bound=type)


def asynchronous(contract: C) -> C:
    """Mark the coroutine tests of a class for pytest-asyncio, which else runs none in its strict mode."""
    for name, test in list(vars(contract).items()):
        if name.startswith("test_") and iscoroutinefunction(test):
            setattr(contract, name, pytest.mark.asyncio(test))
    return contract
