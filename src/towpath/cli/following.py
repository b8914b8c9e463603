"""A run as it goes on: what it says, and on a terminal a bar with its rate and the time that is left."""

from __future__ import annotations

import sys
from datetime import timedelta
from types import TracebackType
from typing import Any

from .output import FAILURE, OK, PARTIAL, plain, say, show_json

FINAL = frozenset({"succeeded", "failed", "cancelled"})
OUTCOMES = {"succeeded": OK, "failed": FAILURE, "cancelled": FAILURE}


def measured(run: dict[str, Any]) -> str:
    """How far a run, or a part of one, is: done of total, rate, time left."""
    total = "" if run["total"] is None else f" of {run['total']:,.12g}"
    parts = [f"{run['done']:,.12g}{total} {run['unit']}".rstrip()] if run["done"] or total else []
    parts += [f"{run['rate_per_s']:,.4g}/s"] if run["rate_per_s"] else []
    over = run["ended"] if "part" in run else run["state"] in FINAL
    left_s = None if over else run["eta_s"]
    parts += [f"{timedelta(seconds=round(left_s))} left"] if left_s is not None else []
    return ", ".join(parts)


def outcome(run: dict[str, Any]) -> str:
    """A run's state as one line."""
    counts = ", ".join(f"{name} {number:,}" for name, number in run["counts"].items() if number)
    later = f"goes on at {run['due_at']}" if run["state"] == "snoozed" else ""
    parts = [part for part in (measured(run), counts, later, run["error"]) if part]
    return f"run {run['run']} of {run['job']}: {run['state']}{'; ' if parts else ''}{'; '.join(parts)}"


def exit_code(run: dict[str, Any]) -> int:
    """Return the exit code for what became of a run; one that waits for its next attempt is done in part."""
    return OUTCOMES.get(run["state"], PARTIAL)


class Following:
    """Shows a run until the block ends; call `show` with each new answer."""

    def __init__(self, *, as_json: bool) -> None:
        self._as_json = as_json
        self._bar: Any = None
        self._task: Any = None
        self._parts: dict[str, Any] = {}

    def __enter__(self) -> Following:
        if sys.stdout.isatty() and not self._as_json:
            from rich.progress import BarColumn, Progress, TextColumn

            columns = (TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[measured]}"))
            self._bar = Progress(*columns)
            self._task = self._bar.add_task("", total=None, measured="")
            self._bar.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        if self._bar is not None:
            self._bar.stop()

    def show(self, run: dict[str, Any], lines: list[dict[str, Any]]) -> None:
        """Print new lines, and how far it is."""
        for line in lines:
            self._say(line)
        if self._bar is not None:
            described = f"{run['job']} {run['state']}"
            self._bar.update(
                self._task, description=described, completed=run["done"], total=run["total"],
                measured=measured(run),
            )  # fmt: skip
            for part in run.get("parts", ()):
                self._show_part(part)

    def _show_part(self, part: dict[str, Any]) -> None:
        name = part["part"]
        if name not in self._parts:
            self._parts[name] = self._bar.add_task(f"  {name}", total=None, measured="")
        total = part["done"] if part["ended"] else part["total"]
        # A bar without any total would go on moving after its part has ended.
        self._bar.update(
            self._parts[name], completed=part["done"] or int(part["ended"]),
            total=total or int(part["ended"]) or None, measured=measured(part),
        )  # fmt: skip

    def _say(self, line: dict[str, Any]) -> None:
        text = f"{line['at']}  {line['level']:<7}  {line['text']}"
        if self._as_json:
            show_json(line)
        elif self._bar is None:
            say(text)
        else:
            self._bar.console.print(plain(text), markup=False, highlight=False)
