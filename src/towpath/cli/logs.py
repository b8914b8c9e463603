"""The program's own log: for people on a terminal, JSON lines elsewhere, and without people in it (D08)."""

from __future__ import annotations

import logging
import sys
from typing import Any


def without_people(_: Any, __: str, line: Any) -> Any:
    """Take out what a vendor said, which may name a person, and every e-mail address.

    What is left is towpath's own words: events of the log, names of the configuration, counts, exceptions of
    the disk and the network.
    """
    if isinstance(line.get("reason"), str):
        line["reason"] = line["reason"].partition(":")[0]
    from ..jobs.words import without_addresses

    for name, value in line.items():
        if isinstance(value, str):
            line[name] = without_addresses(value)
    return line


def begin(level: int = logging.INFO, *, log_pii: bool = False) -> None:
    """Log to standard error; tracebacks show places, never the values there."""
    import structlog

    shown: list[Any] = [structlog.processors.format_exc_info]
    shown += [] if log_pii else [without_people]
    if sys.stderr.isatty():
        shown.append(structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback))
    else:
        shown.append(structlog.processors.JSONRenderer())
    stamp = structlog.processors.TimeStamper(fmt="iso", utc=True)
    structlog.configure(
        processors=[structlog.processors.add_log_level, stamp, *shown],
        wrapper_class=structlog.make_filtering_bound_logger(level),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
