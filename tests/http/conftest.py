"""Tests of transports run on both loops: the server's (uvloop), and the one of a machine without it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from typing import Any

import pytest
import uvloop

Loops = Mapping[str, Callable[[], asyncio.AbstractEventLoop]]
_ONE: Loops = {"asyncio": asyncio.new_event_loop}
_BOTH: Loops = {**_ONE, "uvloop": uvloop.new_event_loop}
_OF_TRANSPORTS = frozenset(
    {"test_http1", "test_transport", "test_transport_http2", "test_http2_node", "test_kept_connections"}
)


def pytest_asyncio_loop_factories(config: Any, item: pytest.Item) -> Loops:
    """Name the loops that a test runs on."""
    return _BOTH if item.path.stem in _OF_TRANSPORTS else _ONE
