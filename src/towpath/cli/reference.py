"""docs/cli.md, made from the commands themselves: `python -m towpath.cli.reference > docs/cli.md`."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import typer

from . import app
from .output import EXIT_CODES

HEAD = """\
# Commands

This page is made from the commands themselves: `python -m towpath.cli.reference > docs/cli.md`.

Every command takes `--json` for programs. Those that need a configuration take `--config FILE` after their
name; without it they take `TOWPATH_CONFIG`, else `towpath.yaml`. While a server runs, commands are its
clients over the admin socket in its data directory (mode 0600, so only its own user may); while none runs,
they take the data directory's lock and do the work themselves, without taking events in or delivering.
Standard output carries the result, standard error what went wrong: what, where, why, how to fix it, and what
became of the data; with `--json` the error, too, is JSON on standard output. `TOWPATH_DEBUG=1` shows a
traceback where something failed inside towpath.

## Exit codes

| Code | Meaning |
|---|---|
"""


def reference() -> str:
    """Return the whole page."""
    codes = "".join(f"| {code} | {meaning} |\n" for code, meaning in EXIT_CODES.items())
    return f"{HEAD}{codes}\n" + "\n".join(_sections())


def _sections() -> Iterator[str]:
    for name, command in commands():
        if not name:
            continue
        if hasattr(command, "commands"):
            yield f"## `{name}`\n\n{command.help}\n"
        else:
            yield f"{'###' if ' ' in name else '##'} `towpath {name}`\n\n{_body(name, command)}"


def commands() -> Iterator[tuple[str, Any]]:
    """Every group and command as it is typed after `towpath`, groups before what is in them."""

    def walk(name: str, command: Any) -> Iterator[tuple[str, Any]]:
        yield name, command
        for word, child in getattr(command, "commands", {}).items():
            if child.hidden:  # another word for one that is shown
                continue
            yield from walk(f"{name} {word}".strip(), child)

    return walk("", typer.main.get_command(app))


def _body(name: str, command: Any) -> str:
    text, _, example = (command.help or "").partition("Example:")
    arguments = [parameter for parameter in command.params if parameter.param_type_name == "argument"]
    options = [parameter for parameter in command.params if parameter.param_type_name == "option"]
    usage = " ".join(["towpath", name, *(_usage(argument) for argument in arguments)])
    parts = [" ".join(text.split()), f"```sh\n{example.strip() or usage}\n```"]
    rows = [_row(_usage(parameter), parameter) for parameter in arguments]
    rows += [_row(", ".join(_spelled(option)), option) for option in options if not option.hidden]
    rows = [row for row in rows if row]
    if rows:
        parts.append("\n".join(["| | |", "|---|---|", *rows]))
    return "\n\n".join(parts) + "\n"


def _usage(argument: Any) -> str:
    shown = (argument.metavar or argument.name).upper()
    shown = f"{shown}..." if argument.nargs == -1 else shown
    return shown if argument.required else f"[{shown}]"


def _spelled(option: Any) -> list[str]:
    return sorted([*option.opts, *option.secondary_opts], key=len)


def _row(spelled: str, parameter: Any) -> str:
    if "--json" in spelled or "--config" in spelled or "--help" in spelled:
        return ""
    about = re.sub(r"\|", "\\|", parameter.help or "")
    default = parameter.default
    shown = "" if default in (None, False, "", ()) or callable(default) else f" Default: `{default}`."
    return f"| `{spelled}` | {about}{shown} |"


if __name__ == "__main__":
    print(reference(), end="")
