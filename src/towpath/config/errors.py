"""What is wrong with the file: every problem at its line, with a caret and one thing to do."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from msgspec import Struct

from towpath.errors import TowpathError

UNREADABLE = "E2000"
SYNTAX = "E2001"
DUPLICATE_KEY = "E2002"
NOT_A_MAPPING = "E2003"
TOO_COMPLEX = "E2004"
VARIABLE = "E2101"
FILE = "E2102"
STORED = "E2103"
UNKNOWN_KEY = "E2104"
INTERPOLATION = "E2105"
VALUE = "E2106"
MISSING = "E2107"
UNKNOWN_TYPE = "E2108"
UNKNOWN_NAME = "E2109"
ACCOUNT = "E2110"
NOT_BUILT = "E2111"
NAME = "E2112"
PLUGIN = "E2113"
MAPPING = "E2114"
FUNCTION = "E2115"

WIDEST = 160  # characters of a line that are shown
BEFORE = 40  # of them before the marked place
LONGEST_TEXT = 400
MOST_SHOWN = 100


class Problem(Struct, frozen=True):
    """One thing wrong. `line` and `column` count from 1; 0 means the file as a whole.

    `excerpt` is the line as it stands with secrets masked; `width` is how much of it is marked.
    """

    code: str
    title: str
    file: str
    line: int = 0
    column: int = 0
    hint: str = ""
    excerpt: str = ""
    width: int = 1

    @property
    def location(self) -> str:
        """Where it is, as editors and terminals link it: `file:line:column`."""
        return f"{self.file}:{self.line}:{self.column}" if self.line else self.file

    def render(self) -> str:
        """The problem in the style of a compiler."""
        head = [f"error {self.code}: {_brief(self.title)}", f"     ┌ {self.location}"]
        if not self.excerpt:
            return "\n".join([*head, *self._fix("     ")])
        shown, before, width = self._window()
        caret = f"     │ {' ' * before}{'^' * width}"
        return "\n".join([*head, f"{self.line:>4} │ {shown}", f"{caret} {_brief(self.hint)}".rstrip()])

    def _window(self) -> tuple[str, int, int]:
        """As much of the line as can be read, and where in it how much is marked."""
        first = max(0, self.column - 1 - BEFORE) if len(self.excerpt) > WIDEST else 0
        shown = self.excerpt[first : first + WIDEST]
        before = self.column - 1 - first
        left, right = "…" if first else "", "…" if first + WIDEST < len(self.excerpt) else ""
        return f"{left}{shown}{right}", before + len(left), max(1, min(self.width, len(shown) - before))

    def _fix(self, indent: str) -> list[str]:
        return [f"{indent}{_brief(self.hint)}"] if self.hint else []


def _brief(text: str) -> str:
    """Text that may hold what the file holds, no longer than anybody reads."""
    return text if len(text) <= LONGEST_TEXT else f"{text[:LONGEST_TEXT]}…"


class ConfigError(TowpathError):
    """The file cannot be used. `problems` holds everything that is wrong with it, in line order."""

    def __init__(self, problems: Sequence[Problem]) -> None:
        self.problems = sorted(problems, key=lambda problem: (problem.line, problem.column))
        first = self.problems[0]
        count = len(self.problems)
        title = first.title if count == 1 else f"{first.file} has {count} problems"
        super().__init__(
            title, code=first.code, why=first.location, fix=first.hint, data="Nothing was changed."
        )
        self.file, self.line, self.hint = first.file, first.line, first.hint

    def render(self) -> str:
        """Every problem with its line and caret, and what became of the data."""
        count = len(self.problems)
        foot = f"{count} problem{'s' if count > 1 else ''}. Nothing was changed."
        if count > MOST_SHOWN:
            foot = f"{count} problems, of which these are the first {MOST_SHOWN}. Nothing was changed."
        return "\n\n".join([*(problem.render() for problem in self.problems[:MOST_SHOWN]), foot])

    def lines(self) -> list[str]:
        """The same as a terminal's lines."""
        return self.render().splitlines()

    def json(self) -> list[dict[str, Any]]:
        """The same for programs: code, title, fix, file, line and column of each problem."""
        return [
            {
                "code": problem.code,
                "title": problem.title,
                "fix": problem.hint,
                "file": problem.file,
                "line": problem.line,
                "column": problem.column,
            }
            for problem in self.problems
        ]
