"""`${VAR}`, `${VAR:-default}`, `${file:path}`, `${secret:name}` in values; `$${` writes a plain `${`."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path as FilePath
from typing import Any

from towpath.errors import TowpathError
from towpath.redaction import MASK, SHORTEST_SECRET

from . import errors
from .document import Document, Path
from .errors import Problem

_PLACE = re.compile(r"\$\$\{|\$\{([^{}]*)\}?")
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


LARGEST_FILE_BYTES = 1024 * 1024


class Unresolved(Exception):
    """A placeholder has no value; carries the problem's code, title and hint."""

    def __init__(self, code: str, title: str, hint: str) -> None:
        super().__init__(title)
        self.code, self.title, self.hint = code, title, hint


class Interpolation:
    """Fills placeholders in and remembers what came from where, so that no error shows a value."""

    def __init__(
        self,
        document: Document,
        directory: FilePath,
        env: Mapping[str, str],
        secrets: Callable[[], Mapping[str, str]] | None,
    ) -> None:
        self.problems: list[Problem] = []
        self._unresolved: set[Path] = set()
        self._document = document
        self._directory = directory
        self._env = env
        self._open_secrets = secrets
        self._secrets: Mapping[str, str] | None = None
        self._filled: list[tuple[Path, str, str]] = []

    def fill(self, value: Any, path: Path) -> Any:
        """The value with every placeholder filled in; problems are kept, never raised."""
        if isinstance(value, dict):
            return {key: self.fill(item, (*path, key)) for key, item in value.items()}
        if isinstance(value, list):
            return [self.fill(item, (*path, index)) for index, item in enumerate(value)]
        return self._text(value, path) if isinstance(value, str) and "${" in value else value

    def failed(self, path: Path) -> bool:
        """Whether a placeholder at a path, or around it, has no value: that is complained of already."""
        return any(path[: len(bad)] == bad for bad in self._unresolved)

    def failed_below(self, path: Path) -> bool:
        """Whether a placeholder inside the value at a path has no value."""
        return any(bad[: len(path)] == path for bad in self._unresolved)

    def redact(self, text: str, path: Path) -> str:
        """The text without any value that a placeholder brought in, or that the file gives as a secret."""
        for place, source, value in self._filled:
            if place[: len(path)] == path or path[: len(place)] == place:
                text = _without(text, value, source)
        for literal in self._document.literals_under(path):
            if len(literal) >= SHORTEST_SECRET:
                text = _without(text, literal, MASK)
        return text

    def _text(self, text: str, path: Path) -> str:
        filled = _PLACE.sub(lambda match: self._place(match, path), text)
        self._filled.insert(0, (path, text, filled))
        return filled

    def _place(self, match: re.Match[str], path: Path) -> str:
        if match[0] == "$${":
            return "${"
        try:
            if not match[0].endswith("}"):
                hint = "close it with }, or write $${ for a plain ${"
                raise Unresolved(errors.INTERPOLATION, "a ${ is not closed", hint)
            value = self._value(match[1])
        except Unresolved as why:
            self._unresolved.add(path)
            self.problems.append(self._document.problem(why.code, why.title, path, why.hint))
            return ""
        self._filled.append((path, match[0], value))
        return value

    def _value(self, inner: str) -> str:
        if inner.startswith("file:"):
            return self._file(inner.removeprefix("file:").strip())
        if inner.startswith("secret:"):
            return self._secret(inner.removeprefix("secret:").strip())
        name, has_default, default = inner.partition(":-")
        if not _NAME.fullmatch(name):
            hint = "write ${NAME}, ${NAME:-default}, ${file:path} or ${secret:name}"
            raise Unresolved(errors.INTERPOLATION, f"${{{name}}} names no variable", hint)
        value = self._env.get(name, "")
        if not value and not has_default:
            state = "is empty" if name in self._env else "is not set"
            hint = f"export {name}=…, or give a default: ${{{name}:-…}}"
            raise Unresolved(errors.VARIABLE, f"the environment variable {name} {state}", hint)
        return value or default

    def _file(self, name: str) -> str:
        try:
            path = self._directory / FilePath(name).expanduser()
            if (not path.is_file() and path.exists()) or path.stat().st_size > LARGEST_FILE_BYTES:
                raise ValueError(name)
            return path.read_text("utf-8").rstrip("\r\n")
        except (OSError, ValueError, RuntimeError) as error:
            why = error.strerror if isinstance(error, OSError) and error.strerror else "it is not a text file"
            raise Unresolved(
                errors.FILE, f"the file {name} cannot be read: {why}", "check the path and its permissions"
            ) from None

    def _secret(self, name: str) -> str:
        if self._open_secrets is None:
            raise Unresolved(errors.STORED, "a secret cannot be used here", "use ${VAR} or ${file:path}")
        try:
            if self._secrets is None:
                self._secrets = self._open_secrets()
            return self._secrets[name]
        except KeyError:
            hint = f"towpath secrets set {name}"
            raise Unresolved(errors.STORED, f'the secret "{name}" is not in the store', hint) from None
        except TowpathError as error:
            raise Unresolved(
                errors.STORED, f'the secret "{name}" cannot be read: {error.title}', error.fix
            ) from None


def _without(text: str, value: str, source: str) -> str:
    if not value:
        return text
    if len(value) >= 6:
        return text.replace(value, source)
    return re.sub(rf"(?<!\w){re.escape(value)}(?!\w)", lambda _: source, text)
