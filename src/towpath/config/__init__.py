"""towpath.yaml: read, checked, resolved; every problem at its line. The names are loaded on first use."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .errors import ConfigError, Problem
    from .json_schema import schema
    from .loading import SecretSource, load, parse
    from .page import reference
    from .resolved import AccountEntry, Config, ConnectionEntry, DestinationEntry, RetryRule, SourceEntry

__all__ = [
    "AccountEntry",
    "Config",
    "ConfigError",
    "ConnectionEntry",
    "DestinationEntry",
    "Problem",
    "RetryRule",
    "SecretSource",
    "SourceEntry",
    "load",
    "parse",
    "reference",
    "schema",
]
_HOMES = {
    "errors": ("ConfigError", "Problem"),
    "loading": ("SecretSource", "load", "parse"),
    "page": ("reference",),
    "resolved": (
        "AccountEntry",
        "Config",
        "ConnectionEntry",
        "DestinationEntry",
        "RetryRule",
        "SourceEntry",
    ),
    "json_schema": ("schema",),
}


def __getattr__(name: str) -> Any:
    home = next((home for home, names in _HOMES.items() if name in names), None)
    if home is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f".{home}", __name__), name)
    return value
