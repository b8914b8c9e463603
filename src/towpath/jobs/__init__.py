"""Jobs: long or scheduled work that survives a restart, runs once at a time, and shows how far it is.

An author needs these names; what runs them is `towpath.jobs.runner.Jobs`.
"""

from __future__ import annotations

from .job import GiveUp, Job, NoSettings, Snooze
from .run import Counts, LeaseLost, Measure, Part, Progress, Run
from .schedule import Schedule

__all__ = [
    "Counts",
    "GiveUp",
    "Job",
    "LeaseLost",
    "Measure",
    "NoSettings",
    "Part",
    "Progress",
    "Run",
    "Schedule",
    "Snooze",
]
