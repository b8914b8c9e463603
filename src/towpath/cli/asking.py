"""How a command comes by values it needs: an option, a variable, a question, or lines of standard input."""

from __future__ import annotations

import sys
from collections.abc import Iterable

import typer

from .output import WrongUse, say


class Asking:
    """Finds values under the names of their variables; standard input is read only when one is missing."""

    def __init__(self) -> None:
        self._piped: dict[str, str] | None = None

    def need(self, variable: str, label: str, given: str, *, hidden: bool = False) -> str:
        """A value without which nothing can be done. Raises `WrongUse` where it cannot be had."""
        found = given.strip() or self._asked(variable, label, hidden=hidden, required=True)
        if not found:
            option = "--" + variable.partition("_")[2].lower().replace("_", "-")
            raise WrongUse(
                f"the {label} is missing",
                code="E5050",
                fix=f"set {variable}, say {option}, or pipe in a line  {variable}=…",
                data="Nothing was written.",
            )
        return found

    def want(self, variable: str, label: str, given: str, *, hidden: bool = False) -> str:
        """A value that may be left out."""
        return given.strip() or self._asked(variable, f"{label} (empty: none)", hidden=hidden)

    def _asked(self, variable: str, label: str, *, hidden: bool, required: bool = False) -> str:
        if sys.stdin.isatty():
            default = None if required else ""
            answer: str = typer.prompt(
                label, hide_input=hidden, default=default, show_default=False, err=True
            )
            return answer.strip()
        if self._piped is None and required:
            self._piped = _standard_input()
        return (self._piped or {}).get(variable, "").strip()


def _standard_input() -> dict[str, str]:
    from ..install import pairs

    try:
        return pairs(sys.stdin.buffer.read().decode())
    except UnicodeDecodeError:
        raise WrongUse(
            "standard input must be UTF-8 text", code="E5050", data="Nothing was written."
        ) from None


def warn_of_history(context: typer.Context, names: Iterable[str]) -> None:
    """Say that keys given as options are seen by others, once, on standard error."""
    given = [name for name in names if _is_option(context, name)]
    shown = [f"--{name.replace('_', '-')}" for name in given]
    if shown:
        listed = " and ".join(shown)
        say(
            f"note: {listed} stays in the shell's history and was in the list of processes; next time use a "
            "variable, the prompt, or standard input",
            err=True,
        )


def _is_option(context: typer.Context, name: str) -> bool:
    source = context.get_parameter_source(name)
    return source is not None and source.name == "COMMANDLINE"
