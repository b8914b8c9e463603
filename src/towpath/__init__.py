"""towpath: a self-hosted customer-data hub. The names a destination author needs, loaded on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .destination import Call, Check, Destination, Limits, Payload, Scope, Settings
    from .errors import TowpathError, Unauthorized
    from .http import Http, Reply, Undelivered
    from .message import Message
    from .outcome import Delivered, Outcome, Paused, Rejected, Retry, Skipped

__version__ = "0.1.0.dev0"
__all__ = [
    "Call",
    "Check",
    "Delivered",
    "Destination",
    "Http",
    "Limits",
    "Message",
    "Outcome",
    "Paused",
    "Payload",
    "Rejected",
    "Reply",
    "Retry",
    "Scope",
    "Settings",
    "Skipped",
    "TowpathError",
    "Unauthorized",
    "Undelivered",
]
_HOMES = {
    "destination": ("Call", "Check", "Destination", "Limits", "Payload", "Scope", "Settings"),
    "errors": ("TowpathError", "Unauthorized"),
    "http": ("Http", "Reply", "Undelivered"),
    "message": ("Message",),
    "outcome": ("Delivered", "Outcome", "Paused", "Rejected", "Retry", "Skipped"),
}


def __getattr__(name: str) -> Any:
    home = next((home for home, names in _HOMES.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{home}", __name__), name)
