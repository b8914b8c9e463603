"""towpath.yaml: read, checked, resolved; every problem at its line."""

from __future__ import annotations

from .errors import ConfigError, Problem
from .load import SecretSource, load, parse
from .reference import reference
from .resolved import AccountEntry, Config, ConnectionEntry, DestinationEntry, RetryRule, SourceEntry
from .schema import schema

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
