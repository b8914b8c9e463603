"""What the CLI prints: tables for people, JSON for programs, errors with a fix; and its exit codes."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

import typer

from ..config import ConfigError
from ..errors import TowpathError, Unauthorized

OK, FAILURE, USAGE, PARTIAL, AUTH, UNREACHABLE = 0, 1, 2, 3, 4, 5
"""Exit codes: 0 done, 1 failed, 2 wrong usage or configuration, 3 partly done, 4 not allowed, 5 not reachable."""


class Unreachable(TowpathError):
    """Nothing answers where it should."""


def show_json(value: Any) -> None:
    """Print a value as JSON, indented on a terminal."""
    print(json.dumps(value, indent=2 if sys.stdout.isatty() else None, ensure_ascii=False))


def show_rows(
    rows: Sequence[Mapping[str, Any]], columns: Sequence[str], empty: str, *, as_json: bool
) -> None:
    """Print rows as a table of these columns, or all of them as JSON; `empty` is said when there are none."""
    if as_json:
        show_json(list(rows))
        return
    if not rows:
        typer.echo(empty)
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
    width = None if sys.stdout.isatty() else 160
    Console(width=width, highlight=False).print(table)


def show_fields(value: Mapping[str, Any], *, as_json: bool) -> None:
    """Print one thing, field by field."""
    if as_json:
        show_json(value)
        return
    width = max((len(name) for name in value), default=0)
    for name, field in value.items():
        shown = (
            json.dumps(field, indent=2, ensure_ascii=False)
            if isinstance(field, dict | list)
            else _cell(field)
        )
        typer.echo(f"{name.ljust(width)}  {shown}")


def _cell(value: Any) -> str:
    if value is None:
        return ""
    if isinstance(value, dict):
        return ", ".join(f"{key} {number}" for key, number in value.items())
    if isinstance(value, list):
        return ", ".join(_cell(item) for item in value)
    return " ".join(str(value).split())[:200]


def fail(error: TowpathError, *, as_json: bool = False) -> NoReturn:
    """Print an error and leave with its exit code."""
    if as_json:
        fields = {
            "code": error.code,
            "title": error.title,
            "why": error.why,
            "fix": error.fix,
            "data": error.data,
        }
        show_json(error.json() if isinstance(error, ConfigError) else fields)
    else:
        text = error.render() if isinstance(error, ConfigError) else "\n".join(error.lines())
        typer.echo(text, err=True)
    raise typer.Exit(exit_code(error))


def exit_code(error: TowpathError) -> int:
    """Return the exit code of an error."""
    if isinstance(error, ConfigError):
        return USAGE
    if isinstance(error, Unauthorized):
        return AUTH
    return UNREACHABLE if isinstance(error, Unreachable) else FAILURE


def numbered(lines: Iterable[str]) -> str:
    """Join lines for a message of several."""
    return "\n".join(f"  {line}" for line in lines)
