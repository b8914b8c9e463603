"""Fixtures of the ingest tests."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from .support import Hub, served

Serve = Callable[[Any], int]


@pytest.fixture
def hub() -> Hub:
    """A hub with one source `web` and its key."""
    return Hub()


@pytest.fixture
def serve() -> Iterator[Serve]:
    """Serve ASGI applications on loopback, in threads; gives the port."""
    with ExitStack() as running:
        yield lambda app: running.enter_context(served(app))
