"""What a connection does to messages on their way: expressions, paths and functions, each checked."""

from __future__ import annotations

from pathlib import Path as FilePath
from typing import Any

import msgspec

from towpath.mapping import BadPath, Expression, FieldMap

from . import errors
from .document import Path
from .functions import Unfound, version
from .model import ConnectionBlock
from .resolved import TransformEntry
from .settings import Checker


class Flow:
    """Checks the flow of one connection at a time; what is wrong goes to the checker."""

    def __init__(self, checker: Checker, directory: FilePath) -> None:
        self._checker = checker
        self._directory = directory

    def transform(self, block: ConnectionBlock, path: Path) -> TransformEntry | None:
        """Check the rules, and find the transform."""
        for number, mistake in FieldMap(block.map).mistakes:
            place = (*path, "map", number, *mistake.place)
            self._point(mistake.title, place, mistake.hint, mistake.column, at_key=mistake.of_key)
        return self._find(block, (*path, "transform"))

    def filter(self, written: object, path: Path) -> None:
        """Check a filter, also that of a connection with other mistakes."""
        if not isinstance(written, str):
            return
        try:
            Expression(written)
        except BadPath as error:
            self._point(str(error), path, error.hint, error.column)

    def _find(self, block: ConnectionBlock, path: Path) -> TransformEntry | None:
        written = block.transform
        if written is None:
            return None
        try:
            state = version(written.function, self._directory)
        except Unfound as error:
            self._checker.add(errors.FUNCTION, f"the transform cannot be found: {error}", path, error.hint)
            return None
        timeout_s = written.timeout.total_seconds()
        return TransformEntry(written.function, self._directory, timeout_s, state, written.env)

    def _point(self, title: str, path: Path, hint: str, column: int, *, at_key: bool = False) -> None:
        """Keep a problem with the caret under the character it is about, where the line shows the text."""
        known = len(self._checker.problems)
        self._checker.add(errors.MAPPING, title, path, hint, at_key=at_key)
        for number, problem in enumerate(self._checker.problems[known:], known):
            quoted = problem.excerpt[problem.column - 1 : problem.column] in ("'", '"')
            changes: dict[str, Any] = {}
            if 0 < column < problem.width - quoted:
                changes = {"column": problem.column + column + quoted, "width": 1}
            elif column:
                changes = {"title": f"{title}, at its character {column + 1}"}
            self._checker.problems[number] = msgspec.structs.replace(problem, **changes)
