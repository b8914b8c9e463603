"""What destination authors test with: contract suites and fakes, loaded on first use (pytest is optional)."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .destination import DestinationContract as DestinationContract
    from .fakes import FakeClock as FakeClock
    from .fakes import FakeMemory as FakeMemory
    from .fakes import FakeTransport as FakeTransport

_HOMES = {
    "DestinationContract": "destination",
    "FakeClock": "fakes",
    "FakeMemory": "fakes",
    "FakeTransport": "fakes",
}
__all__ = ["DestinationContract", "FakeClock", "FakeMemory", "FakeTransport"]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{home}", __name__), name)
