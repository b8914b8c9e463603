"""What authors of destinations and sources test with, loaded on first use (pytest is optional)."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .destination import DestinationContract as DestinationContract
    from .fakes import FakeClock as FakeClock
    from .fakes import FakeKnown as FakeKnown
    from .fakes import FakeMemory as FakeMemory
    from .fakes import FakeTransport as FakeTransport
    from .source import InboundContract as InboundContract
    from .source import ListeningContract as ListeningContract
    from .source import PolledContract as PolledContract

_HOMES = {
    "DestinationContract": "destination",
    "FakeClock": "fakes",
    "FakeKnown": "fakes",
    "FakeMemory": "fakes",
    "FakeTransport": "fakes",
    "InboundContract": "source",
    "ListeningContract": "source",
    "PolledContract": "source",
}
__all__ = [
    "DestinationContract",
    "FakeClock",
    "FakeKnown",
    "FakeMemory",
    "FakeTransport",
    "InboundContract",
    "ListeningContract",
    "PolledContract",
]


def __getattr__(name: str) -> Any:
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{home}", __name__), name)
