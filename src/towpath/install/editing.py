"""Adding to a YAML text without touching what stands there: every other byte, and every comment, is kept."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from ruamel.yaml import YAML
from ruamel.yaml.error import YAMLError
from ruamel.yaml.nodes import MappingNode, Node, ScalarNode, SequenceNode
from ruamel.yaml.scalarstring import DoubleQuotedScalarString

from ..config import ConfigError
from ..config.document import Document
from ..errors import TowpathError

INDENT = 2
UNPLACED = "E2402"

Pair: TypeAlias = tuple[Node, Node]


def with_entry(text: str, section: str, name: str, fields: Mapping[str, Any]) -> str:
    """The text with an entry in a section, in place of one of that name. Raises `TowpathError`."""
    return with_value(text, section, name, dict(fields))


def with_value(text: str, section: str, name: str, value: Any) -> str:
    """The text with a key of a section set to a value, whatever it was. Raises `TowpathError`."""
    block = {name: value}

    def added(standing: Any) -> Any:
        return {**(standing or {}), **block} if isinstance(standing, dict | None) else None

    found = _find(text, section)
    inside = found[1] if found else None
    held = _find_in(inside, name) if isinstance(inside, MappingNode) and not inside.flow_style else None
    if held is None:
        edited = _added(text, section, found, block)
    else:
        start = text.rfind("\n", 0, held[0].start_mark.index) + 1
        column = held[0].start_mark.column
        edited = text[:start] + _broken(text, _rendered(block, column)) + text[_after(text, held) :]
    return _checked(text, edited, section, block, added)


def with_connection(text: str, fields: Mapping[str, Any]) -> str:
    """The text with one more item under `connections`. Raises `TowpathError`."""
    block = [dict(fields)]

    def added(standing: Any) -> Any:
        return [*(standing or []), *block] if isinstance(standing, list | None) else None

    edited = _added(text, "connections", _find(text, "connections"), block)
    return _checked(text, edited, "connections", block, added)


def _added(text: str, section: str, pair: Pair | None, block: Any) -> str:
    """Put a block at the end of a section, or make the section at the end of the text."""
    if pair is None:
        return _ended(text) + _broken(text, f"\n{section}:\n{_rendered(block, INDENT)}")
    found = pair[1]
    if isinstance(found, MappingNode | SequenceNode) and found.flow_style:
        place = found.end_mark.index - 1
        comma = ", " if found.value else ""
        return text[:place] + comma + _inline(block) + text[place:]
    place = _after(text, pair)
    column = _column(text, found)
    return _ended(text[:place]) + _broken(text, _rendered(block, column)) + text[place:]


def _find(text: str, section: str) -> Pair | None:
    """A key of the file and what stands under it; None when the key is not there."""
    try:
        root = YAML(typ="safe", pure=True).compose(text)
    except YAMLError:
        return None  # the check of the edited text says what is wrong
    return _find_in(root, section) if isinstance(root, MappingNode) else None


def _find_in(mapping: MappingNode, name: str) -> Pair | None:
    """The key of that name and what stands under it."""
    pairs = ((key, value) for key, value in mapping.value if isinstance(key, ScalarNode))
    return next(((key, value) for key, value in pairs if key.value == name), None)


def _after(text: str, pair: Pair) -> int:
    """Where the line behind a key and its value begins: behind the last thing that is written of them.

    A block is said to end at what follows its comments, and an empty value to stand there.
    """
    key, node = pair
    while isinstance(node, MappingNode | SequenceNode) and not node.flow_style and node.value:
        last = node.value[-1]
        key, node = last if isinstance(last, tuple) else (last, last)
    if isinstance(node, ScalarNode) and not node.value and not node.style:
        node = key
    index: int = node.end_mark.index
    if isinstance(node, ScalarNode) and node.style in ("|", ">") and text[index - 1] == "\n":
        return index
    line_end = text.find("\n", index)
    return len(text) if line_end < 0 else line_end + 1


def _column(text: str, found: Node) -> int:
    """Where the keys or the dashes of a block stand."""
    if isinstance(found, MappingNode):
        first: int = found.value[0][0].start_mark.column
        return first
    if isinstance(found, SequenceNode):
        dash = text.rfind("-", 0, found.value[0].start_mark.index)
        return dash - text.rfind("\n", 0, dash) - 1
    return INDENT


def _ended(text: str) -> str:
    return text if not text or text.endswith("\n") else _broken(text, text + "\n")


def _broken(text: str, block: str) -> str:
    """A block with the line breaks of the text."""
    return block.replace("\r\n", "\n").replace("\n", "\r\n") if "\r\n" in text else block


def _rendered(block: Any, column: int) -> str:
    """A block as YAML lines, from a column on."""
    yaml = YAML()
    yaml.width = 4096
    yaml.indent(mapping=INDENT, sequence=2 * INDENT, offset=INDENT)
    written = io.StringIO()
    yaml.dump(_quoted(block), written)
    lines = written.getvalue().splitlines()
    if isinstance(block, list):
        lines = [line.removeprefix(" " * INDENT) for line in lines]
    return "".join(f"{' ' * column}{line}\n" for line in lines)


def _quoted(value: Any) -> Any:
    """Put what holds a placeholder or a URL in quotes, as the documentation writes it."""
    if isinstance(value, Mapping):
        return {key: _quoted(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_quoted(item) for item in value]
    if isinstance(value, str) and any(sign in value for sign in ("${", "://", "{")):
        return DoubleQuotedScalarString(value)
    return value


def _inline(block: Any) -> str:
    """A block inside { } or [ ]: JSON is YAML there."""
    return json.dumps(block, ensure_ascii=False)[1:-1]


def _checked(text: str, edited: str, section: str, block: Any, added: Callable[[Any], Any]) -> str:
    """The edited text, when it says exactly what was there and the block. Raises `TowpathError`."""
    before = Document(text, "towpath.yaml").data
    wanted = {**before, section: added(before.get(section))}
    try:
        said = Document(edited, "towpath.yaml").data
    except ConfigError:
        said = {}
    if said == wanted:
        return edited
    raise TowpathError(
        f"the section {section} is written in a way that cannot be added to",
        code=UNPLACED,
        fix=f"put this there by hand:\n{section}:\n{_rendered(block, INDENT)}".rstrip(),
        data="Nothing was changed.",
    )
