"""Watching code that must be pure: whatever asks a clock or chance, by whichever name, is noticed."""

from __future__ import annotations

import gc
import random
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date
from types import FrameType
from typing import Any

CLOCKS = frozenset({"time", "monotonic", "perf_counter", "process_time", "thread_time", "clock_gettime"})
CALENDARS = frozenset({"strftime", "gmtime", "localtime", "ctime", "asctime"})
"""They mean now unless told a time; told one, most of them ask for the machine's zone or language."""
CHANCE = frozenset({"urandom", "getrandom", "RAND_bytes", "uuid_generate_time_safe", "generate_time_safe"})


@contextmanager
def watching() -> Iterator[list[str]]:
    """List the clocks that are read and the chance that is asked for, in this thread, by any code at all.

    The interpreter itself tells of each call of a built-in function, so it does not matter how a module
    came by it.
    """
    noticed: list[str] = []

    def notice(_: FrameType, event: str, function: Any) -> None:
        if event == "c_call" and (named := impure(function)):
            noticed.append(named)

    before, collecting = sys.getprofile(), gc.isenabled()
    gc.disable()  # whoever hears of collections may time them: Hypothesis does
    sys.setprofile(notice)
    try:
        yield noticed
    finally:
        sys.setprofile(before)
        if collecting:
            gc.enable()


def impure(function: Any) -> str:
    """Name a built-in function that gives something else at each call; empty for all others."""
    name, owner = function.__name__, getattr(function, "__self__", None)
    if owner is time and (name.removesuffix("_ns") in CLOCKS or name in CALENDARS):
        return f"time.{name}"
    if isinstance(owner, type) and issubclass(owner, date) and name in ("now", "utcnow", "today"):
        return f"{owner.__name__}.{name}"
    if isinstance(owner, random.Random) and name in ("random", "getrandbits"):
        return f"random.{name}"
    return str(name) if name in CHANCE else ""
