"""Templates: text with paths in braces, `"{properties.first} {properties.last}"`."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from .paths import MISSING, BadPath, Draft, Path, Unusable, parse

LONGEST = 64 * 1024
_PART = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")


class Template:
    """A value with every text in it filled from a message; constants are themselves. Raises `BadPath`.

    A text that is one path alone, `"{properties.total}"`, gives the value there with its JSON type.
    """

    def __init__(self, value: Any) -> None:
        self._value = _read(value)

    def fill(self, draft: Draft) -> Any:
        """The value for a message. Raises `Unusable`."""
        return _fill(self._value, draft)


class _Text:
    """Text and paths in turn."""

    def __init__(self, parts: list[str | Path]) -> None:
        self.parts = parts

    def fill(self, draft: Draft) -> Any:
        if len(self.parts) == 1 and isinstance(self.parts[0], Path):
            return _found(draft, self.parts[0])
        text = "".join(_part(draft, part) for part in self.parts)
        if len(text) > LONGEST:
            raise Unusable(f"the text would be longer than {LONGEST:,} characters")
        return text


def _read(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _read(each) for key, each in value.items()}
    if isinstance(value, list | tuple):
        return [_read(each) for each in value]
    return _parsed(value) if isinstance(value, str) and ("{" in value or "}" in value) else value


def _parsed(text: str) -> _Text:
    parts, at = list[str | Path](), 0
    for match in _PART.finditer(text):
        parts.append(text[at : match.start()])
        at = match.end()
        if match[0] in ("{{", "}}"):
            parts.append(match[0][0])
        elif match[1] is None:
            raise BadPath(f"a {match[0]} stands alone", "double it to write it", match.start())
        else:
            parts.append(_path(match))
    parts.append(text[at:])
    return _Text([part for part in parts if part != ""])


def _path(match: re.Match[str]) -> Path:
    try:
        return parse(match[1].strip())
    except BadPath as error:
        raise BadPath(str(error), error.hint, match.start() + 1 + error.column) from None


def _fill(value: Any, draft: Draft) -> Any:
    if isinstance(value, _Text):
        return value.fill(draft)
    if isinstance(value, dict):
        return {key: _fill(each, draft) for key, each in value.items()}
    if isinstance(value, list):
        return [_fill(each, draft) for each in value]
    return value


def _part(draft: Draft, part: str | Path) -> str:
    return part if isinstance(part, str) else _as_text(_found(draft, part))


def _found(draft: Draft, path: Path) -> Any:
    value = draft.find(path)
    if value is MISSING or value is None:
        raise Unusable(f"there is no {path.text}")
    return value


def _as_text(value: Any) -> str:
    if isinstance(value, str):
        return value
    return msgspec.json.encode(value).decode()
