"""The YAML file as plain data with the place of every key and value, and with its secrets masked."""

from __future__ import annotations

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn, TypeAlias

from msgspec import Struct
from ruamel.yaml import YAML
from ruamel.yaml.error import MarkedYAMLError, YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode

from .errors import DUPLICATE_KEY, NOT_A_MAPPING, SYNTAX, TOO_COMPLEX, ConfigError, Problem

Path: TypeAlias = tuple[str | int, ...]

DEEPEST = 40
LARGEST = 100_000
_SENSITIVE = re.compile(r"^headers$|auth|cookie|passw|secret|token|key|credential", re.IGNORECASE).search
_USER_INFO = re.compile(r"//[^\s/?#]*@").search
_KEY_ONLY = re.compile(r"[\s→]*(?:- +)*[\w.+\"'-]+:(?= |$)")
_REFERENCE = re.compile(r"\$\{(?:\w+|(?:file|secret):[^{}]*)\}").fullmatch
_BREAKS = re.compile("\r\n|[\n\r\x85\u2028\u2029]")
_YAML_TAG = "tag:yaml.org,2002:"


class Span(Struct, frozen=True):
    """A stretch of the text; lines and columns count from 0."""

    line: int
    column: int
    end_line: int
    end_column: int


class Document:
    """One YAML text: `data` is plain dicts, lists and scalars; `problems` what is wrong with the text."""

    def __init__(self, text: str, file: str) -> None:
        self.file = file
        self.data: dict[str, Any] = {}
        self.problems: list[Problem] = []
        self._lines = _BREAKS.split(text)
        self._keys: dict[Path, Span] = {}
        self._values: dict[Path, Span] = {}
        self._scalars: set[Path] = set()
        self._masks: dict[int, list[Span]] = {}
        self._sensitive: set[Span] = set()
        self._literals: dict[Path, str] = {}
        self._size = 0
        self._open: set[int] = set()
        root = _compose(text, file, self._lines)
        self._hide(root)
        self._read(root)

    def problem(self, code: str, title: str, path: Path, hint: str = "", *, at_key: bool = False) -> Problem:
        """A problem at the value (or key) of a path, or at its nearest parent that is in the file."""
        while path and path not in self._values:
            path = path[:-1]
            at_key = path not in self._scalars
        span = self._values.get(path)
        if path in self._keys and (at_key or span is None or span.end_line > span.line):
            span = self._keys[path]
        if span is None or not path:
            return Problem(code, title, self.file, hint=hint)
        harmless = path in self._scalars and span not in self._sensitive and span == self._values[path]
        return self._at(code, title, span, hint, span if harmless else None)

    def child(self, path: Path, step: str | int) -> str | int | None:
        """The key below a path as the file spells it (`apiKey` for api_key); None when it is not there."""
        if (*path, step) in self._values:
            return step
        wanted = _folded(step)
        return next((key[-1] for key in self._keys if key[:-1] == path and _folded(key[-1]) == wanted), None)

    def literals_under(self, path: Path) -> Iterator[str]:
        """The sensitive values written out in the file at, above or below a path."""
        for place, value in self._literals.items():
            if place[: len(path)] == path or path[: len(place)] == place:
                yield value

    def _at(self, code: str, title: str, span: Span, hint: str, shown: Span | None = None) -> Problem:
        """A problem at a span; of the line's values only the one at `shown` can be read."""
        line = self._masked_line(span.line, shown)
        end = span.end_column if span.end_line == span.line else len(line.rstrip())
        width = max(1, min(end, len(line)) - span.column)
        return Problem(code, title, self.file, span.line + 1, span.column + 1, hint, line.rstrip(), width)

    def _masked_line(self, number: int, shown: Span | None) -> str:
        line = self._lines[number] if number < len(self._lines) else ""
        for span in self._masks.get(number, ()):
            if span != shown:
                start = span.column if number == span.line else 0
                end = span.end_column if number == span.end_line else len(line)
                line = line[:start] + "*" * (end - start) + line[end:]
        return line.replace("\t", " ")

    def _hide(self, root: Node | None) -> None:
        """Mask every value, before anything can be complained of; names of variables and secrets stay."""
        waiting, seen = [root] if root is not None else [], set[int]()
        while waiting:
            node = waiting.pop()
            if id(node) in seen:
                continue
            seen.add(id(node))
            if isinstance(node, ScalarNode) and not _REFERENCE(node.value):
                span = _span(node)
                for number in range(span.line, span.end_line + 1):
                    self._masks.setdefault(number, []).append(span)
            waiting += _values_in(node)

    def _read(self, root: Node | None) -> None:
        if isinstance(root, MappingNode):
            self._values[()] = _span(root)
            self.data = self._mapping(root, ())
        elif root is not None:
            hint = "write keys and values, like  version: 1"
            raise ConfigError(
                [self._at(NOT_A_MAPPING, "the file must hold keys and values", _span(root), hint)]
            )

    def _plain(self, node: Node, path: Path) -> Any:
        self._size += 1
        if len(path) > DEEPEST or self._size > LARGEST:
            self._refuse(node, "the file is nested too deeply or too large", "do without some aliases")
        self._values[path] = _span(node)
        if isinstance(node, MappingNode):
            return self._mapping(node, path)
        if isinstance(node, SequenceNode):
            with self._inside(node):
                return [self._plain(item, (*path, index)) for index, item in enumerate(node.value)]
        self._scalars.add(path)
        self._classify(node, path)
        return _scalar(node)

    def _mapping(self, node: MappingNode, path: Path) -> dict[str, Any]:
        merged: dict[str, Any] = {}
        own: dict[str, Any] = {}
        with self._inside(node):
            for key_node, value_node in node.value:
                if key_node.tag == _YAML_TAG + "merge":
                    merged = {**self._merged(value_node, path), **merged}
                else:
                    self._entry(key_node, value_node, path, own)
        return {**merged, **own}

    @contextmanager
    def _inside(self, node: Node) -> Iterator[None]:
        """Refuse a node that holds itself."""
        if id(node) in self._open:
            self._refuse(node, "an alias refers to itself", "name another value")
        self._open.add(id(node))
        yield
        self._open.remove(id(node))

    def _entry(self, key_node: Node, value_node: Node, path: Path, own: dict[str, Any]) -> None:
        if not isinstance(key_node, ScalarNode):
            self.problems.append(self._at(SYNTAX, "a key must be a word", _span(key_node), ""))
            return
        key: str = key_node.value
        if key in own:
            self._duplicate(key_node, (*path, key))
            return
        self._keys[(*path, key)] = _span(key_node)
        own[key] = self._plain(value_node, (*path, key))

    def _merged(self, node: Node, path: Path) -> dict[str, Any]:
        """What `<<:` brings in; the earlier of several mappings wins, as YAML says."""
        parts = reversed(node.value) if isinstance(node, SequenceNode) else [node]
        merged: dict[str, Any] = {}
        for part in parts:
            if isinstance(part, MappingNode):
                merged.update(self._mapping(part, path))
            else:
                self.problems.append(self._at(SYNTAX, "<<: must name a mapping", _span(part), ""))
        return merged

    def _refuse(self, node: Node, title: str, hint: str) -> NoReturn:
        raise ConfigError([self._at(TOO_COMPLEX, title, _span(node), hint)])

    def _duplicate(self, key_node: ScalarNode, path: Path) -> None:
        first = self._keys[path].line + 1
        title = f'the key "{key_node.value}" is given twice'
        self.problems.append(
            self._at(DUPLICATE_KEY, title, _span(key_node), f"it is already on line {first}")
        )

    def _classify(self, node: Node, path: Path) -> None:
        """Whether a value may be shown where it is complained of, and named in the complaint."""
        named = any(_SENSITIVE(part) for part in path if isinstance(part, str))
        if (named or _USER_INFO(node.value)) and not _REFERENCE(node.value):
            self._sensitive.add(_span(node))
            self._literals[path] = node.value


def _values_in(node: Node) -> Iterator[Node]:
    """The nodes inside a node, but for keys that are words."""
    if isinstance(node, MappingNode):
        for key, value in node.value:
            if not isinstance(key, ScalarNode):
                yield key
            yield value
    elif isinstance(node, SequenceNode):
        yield from node.value


def _compose(text: str, file: str, lines: list[str]) -> Node | None:
    """The node tree of the text. Raises `ConfigError` with the one place where the syntax breaks."""
    try:
        root: Node | None = YAML(typ="safe", pure=True).compose(text)
    except MarkedYAMLError as error:
        raise ConfigError([_syntax(error, file, lines)]) from None
    except YAMLError:
        raise ConfigError([Problem(SYNTAX, "the file holds characters that YAML forbids", file)]) from None
    except RecursionError:
        raise ConfigError([Problem(TOO_COMPLEX, "the file is nested too deeply", file)]) from None
    except Exception:  # the parser leaks IndexError, OverflowError and others on strange input
        raise ConfigError([Problem(SYNTAX, "the file is not YAML", file)]) from None
    return root


def _syntax(error: MarkedYAMLError, file: str, lines: list[str]) -> Problem:
    mark = error.problem_mark or error.context_mark
    said = str(error.problem or error.context or "").replace("'<stream end>'", "the end of the file")
    line = lines[mark.line] if mark and mark.line < len(lines) else ""
    hint = _syntax_hint(said, line)
    shown = _key_only(line.replace("\t", "→"))
    number, column = (mark.line + 1, min(mark.column, len(shown)) + 1) if mark else (0, 0)
    return Problem(SYNTAX, f"YAML syntax: {said}", file, number, column, hint, shown)


def _key_only(line: str) -> str:
    """The line's key: the rest may hold a secret, whose extent is unknown while the syntax is broken."""
    key = _KEY_ONLY.match(line)
    if key is None:
        return line[: len(line) - len(line.lstrip("→ "))] + "…" * bool(line.strip("→ "))
    return key[0] + " …" * bool(line[key.end() :].strip())


def _syntax_hint(said: str, line: str) -> str:
    if "\\t" in said:
        return "indent with blanks, not tabs"
    if "${" in line:
        return 'put ${…} in quotes inside { } and [ ]: "${NAME}"'
    if "mapping values" in said:
        return "a value that holds a colon and a blank needs quotes"
    if "another document" in said:
        return "keep one document: remove the line ---"
    return ""


def _folded(key: str | int) -> str:
    return re.sub(r"[_-]", "", str(key)).lower()


def _span(node: Node) -> Span:
    start, end = node.start_mark, node.end_mark
    return Span(start.line, start.column, end.line, end.column)


def _scalar(node: Node) -> Any:
    """A scalar as YAML 1.2 reads it; a tag that is not YAML's own leaves the text."""
    text: str = node.value
    match str(node.tag).removeprefix(_YAML_TAG):
        case "null":
            return None
        case "bool":
            return text.lower() in ("true", "yes", "on", "y")
        case "int":
            return _number(text, int)
        case "float":
            return _number(text.lower().replace(".inf", "inf").replace(".nan", "nan"), float)
    return text


def _number(text: str, kind: type[int] | type[float]) -> int | float | str:
    try:
        if kind is int and re.match(r"[-+]?0[xob]", text):
            return int(text, 0)
        return kind(text)
    except ValueError:
        return text
