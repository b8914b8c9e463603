"""What the CLI prints: tables for people, JSON for programs, errors with a fix; and its exit codes."""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import typer

from ..errors import TowpathError, Unauthorized

OK, FAILURE, USAGE, PARTIAL, AUTH, UNREACHABLE, INTERRUPTED = 0, 1, 2, 3, 4, 5, 130
EXIT_CODES: Mapping[int, str] = {
    OK: "done",
    FAILURE: "it failed, or something is not as it should be: a check, the balance",
    USAGE: "the command line or the configuration is wrong; nothing was done",
    PARTIAL: "done in part: some items were refused, or a change is kept but not yet in force",
    AUTH: "this user is not allowed",
    UNREACHABLE: "no server answers where one is needed",
    INTERRUPTED: "interrupted",
}
CELL_MAX = 200
PIPE_WIDTH = 160
# Terminals obey control characters, and people's event names may hold them.
_CONTROLS: Mapping[int, str] = {code: f"\\x{code:02x}" for code in [*range(32), *range(127, 160)]}
_IN_JSON = {code: f"\\u{code:04x}" for code in range(127, 160)}
_KEEP_LINES = {**_CONTROLS, 10: "\n"}


class Unreachable(TowpathError):
    """Nothing answers where it should."""


class WrongUse(TowpathError):
    """The command was given something it cannot use."""


def plain(text: str) -> str:
    """Text without characters that a terminal would obey; line breaks stay."""
    return text.translate(_KEEP_LINES)


def say(text: str, *, err: bool = False) -> None:
    """Print a line for people."""
    typer.echo(plain(text), err=err)


def show_json(value: Any) -> None:
    """Print a value as JSON, indented on a terminal."""
    text = json.dumps(value, indent=2 if sys.stdout.isatty() else None, ensure_ascii=False)
    print(text.translate(_IN_JSON), flush=True)


def show_rows(
    rows: Sequence[Mapping[str, Any]], columns: Sequence[str], empty: str, *, as_json: bool
) -> None:
    """Print rows as a table of these columns, or all of them as JSON; `empty` is said when there are none."""
    if as_json:
        show_json(list(rows))
        return
    if not rows:
        say(empty)
        return
    from rich import box
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=box.SIMPLE_HEAD, pad_edge=False)
    for column in columns:
        table.add_column(column.replace("_", " "), overflow="fold")
    for row in rows:
        table.add_row(*(Text(_cell(row.get(column))) for column in columns))
    width = None if sys.stdout.isatty() else PIPE_WIDTH
    Console(width=width, highlight=False).print(table)


def show_fields(value: Mapping[str, Any], *, as_json: bool) -> None:
    """Print one thing, field by field."""
    if as_json:
        show_json(value)
        return
    width = max((len(name) for name in value), default=0)
    for name, field in value.items():
        nested = isinstance(field, dict | list) and field
        shown = json.dumps(field, indent=2, ensure_ascii=False) if nested else _cell(field)
        say(f"{name.ljust(width)}  {shown}".rstrip())


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, dict):
        return ", ".join(f"{key} {number}" for key, number in value.items())
    if isinstance(value, list):
        return ", ".join(_cell(item) for item in value)
    return " ".join(str(value).split()).translate(_CONTROLS)[:CELL_MAX]


def line_words(line: Mapping[str, Any]) -> str:
    """How a source's line is, in one phrase."""
    if line["state"] != "down":
        return f"{line['state']} since {line['since']}"
    then = f"next try {line['next_try']}" if line["next_try"] else "trying now"
    return f"down since {line['since']}: {line['why']}; {then}"


def confirm(question: str, *, yes: bool) -> None:
    """Return when it may be done. Where nobody can be asked, `--yes` must say so."""
    if yes:
        return
    if not sys.stdin.isatty():
        raise WrongUse(
            "this cannot be undone and there is nobody to ask",
            code="E5030",
            why="standard input is not a terminal",
            fix="look at what it would remove, then say --yes",
            data="Nothing was changed.",
        )
    if not typer.confirm(question):
        say("Nothing was changed.")
        raise typer.Exit(FAILURE)


def fail(error: TowpathError, *, as_json: bool = False) -> int:
    """Print an error; its exit code."""
    problems = getattr(error, "json", None)  # a configuration's, each with its line
    if not as_json:
        say("\n".join(error.lines()), err=True)
    elif problems is not None:
        show_json(problems())
    else:
        names = ("code", "title", "why", "fix", "data")
        show_json({name: getattr(error, name) for name in names})
    return exit_code(error)


def exit_code(error: TowpathError) -> int:
    """Return the exit code of an error."""
    if isinstance(error, WrongUse) or hasattr(error, "problems"):
        return USAGE
    if isinstance(error, Unauthorized):
        return AUTH
    return UNREACHABLE if isinstance(error, Unreachable) else FAILURE
