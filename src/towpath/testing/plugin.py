"""The pytest plugin: fixtures for destination authors. Loads nothing of towpath until a fixture is used."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    from .fakes import FakeClock, FakeMemory, FakeTransport


@pytest.fixture
def fake_clock() -> FakeClock:
    """Virtual time that a test moves."""
    from .fakes import FakeClock

    return FakeClock()


@pytest.fixture
def fake_transport() -> FakeTransport:
    """Return a network without rules; add them with `on`."""
    from .fakes import FakeTransport

    return FakeTransport()


@pytest.fixture
def fake_memory(fake_clock: FakeClock) -> FakeMemory:
    """Return an empty memory on the same clock."""
    from .fakes import FakeMemory

    return FakeMemory(fake_clock)
