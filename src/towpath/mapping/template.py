"""Templates: text with paths in braces, `"{properties.first} {traits.last_name|Smith}"`."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import msgspec

from .paths import MISSING, BadPath, Draft, Path, Unusable, parse

LONGEST = 64 * 1024
_PART = re.compile(r"\{\{|\}\}|\{([^{}]*)\}|[{}]")
# A path, in whose quoted keys a | is one of the key, and after the first other | the default.
_TAG = re.compile(r"""((?:[^|"']|"(?:[^"\\]|\\.)*"|'(?:[^'\\]|\\.)*')*)\|(.*)""", re.DOTALL)


def as_text(value: Any) -> str:
    """A value as it stands in the middle of text: text as it is, everything else as JSON."""
    if isinstance(value, str):
        return value
    return msgspec.json.encode(value).decode()


class Template:
    """A value with every text in it filled from a message; constants are themselves. Raises `BadPath`.

    A text that is one path alone, `"{properties.total}"`, gives the value there with its JSON type. After a
    `|` follows what stands there when the message has nothing, null or empty text: `"{traits.name|there}"`.
    What a message brings is never read as a template. `written` makes text of a value among other text.
    """

    def __init__(self, value: Any, written: Callable[[Any], str] = as_text) -> None:
        self._value = _read(value)
        self._written = written
        self.paths = tuple(_paths(self._value))

    def fill(self, draft: Draft) -> Any:
        """The value for a message. Raises `Unusable`."""
        return _fill(self._value, draft, self._written)


class _Tag(NamedTuple):
    """A path in braces; without a default a message has to have something there."""

    path: Path
    default: str | None

    def find(self, draft: Draft) -> Any:
        value = draft.find(self.path)
        if value is MISSING or value is None or (value == "" and self.default is not None):
            if self.default is None:
                raise Unusable(f"there is no {self.path.text}")
            return self.default
        return value


class _Text:
    """Text and tags in turn."""

    def __init__(self, parts: list[str | _Tag]) -> None:
        self.parts = parts

    def fill(self, draft: Draft, written: Callable[[Any], str]) -> Any:
        if len(self.parts) == 1 and isinstance(self.parts[0], _Tag):
            return self.parts[0].find(draft)
        text = "".join(part if isinstance(part, str) else written(part.find(draft)) for part in self.parts)
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
    parts, at = list[str | _Tag](), 0
    for match in _PART.finditer(text):
        parts.append(text[at : match.start()])
        at = match.end()
        if match[0] in ("{{", "}}"):
            parts.append(match[0][0])
        elif match[1] is None:
            raise BadPath(f"a {match[0]} stands alone", "double it to write it", match.start())
        else:
            parts.append(_tag(match))
    parts.append(text[at:])
    return _Text([part for part in parts if part != ""])


def _tag(match: re.Match[str]) -> _Tag:
    cut = _TAG.fullmatch(match[1])
    path, default = (match[1], None) if cut is None else (cut[1], cut[2])
    try:
        return _Tag(parse(path.strip()), default)
    except BadPath as error:
        raise BadPath(str(error), error.hint, match.start() + 1 + error.column) from None


def _paths(value: Any) -> Iterator[Path]:
    if isinstance(value, _Text):
        yield from (part.path for part in value.parts if isinstance(part, _Tag))
    elif isinstance(value, dict | list):
        for each in value.values() if isinstance(value, dict) else value:
            yield from _paths(each)


def _fill(value: Any, draft: Draft, written: Callable[[Any], str]) -> Any:
    if isinstance(value, _Text):
        return value.fill(draft, written)
    if isinstance(value, dict):
        return {key: _fill(each, draft, written) for key, each in value.items()}
    if isinstance(value, list):
        return [_fill(each, draft, written) for each in value]
    return value
