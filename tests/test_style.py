"""The figures the code keeps to, and the public names: whoever changes them does so on purpose."""

from __future__ import annotations

import ast
import io
import statistics
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

import towpath

SOURCE = Path(__file__).parent.parent / "src" / "towpath"
FILES = sorted(SOURCE.rglob("*.py"))
NAMES = [str(path.relative_to(SOURCE)) for path in FILES]
LAYOUT = frozenset(
    {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
)
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)

PUBLIC = [
    "Call",
    "Check",
    "Delivered",
    "Destination",
    "Http",
    "Limits",
    "Message",
    "Outcome",
    "Paused",
    "Payload",
    "Rejected",
    "Reply",
    "Retry",
    "Scope",
    "Settings",
    "Skipped",
    "TowpathError",
    "Unauthorized",
    "Undelivered",
]


def functions() -> Iterator[tuple[int, str]]:
    """(lines, place) of every function in the package."""
    for path in FILES:
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                size = (node.end_lineno or node.lineno) - node.lineno + 1
                yield size, f"{path.relative_to(SOURCE)}:{node.lineno} {node.name}"


def code_lines(source: str) -> int:
    """Lines that hold code: neither blank nor comment nor docstring."""
    lines: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in LAYOUT:
            lines.update(range(token.start[0], token.end[0] + 1))
    return len(lines - set(docstring_lines(ast.parse(source))))


def docstring_lines(tree: ast.Module) -> Iterator[int]:
    """Line numbers of the docstrings of a module, its classes and functions."""
    for node in ast.walk(tree):
        if isinstance(node, DOCUMENTED) and ast.get_docstring(node, clean=False) is not None:
            text = node.body[0]
            yield from range(text.lineno, (text.end_lineno or text.lineno) + 1)


def test_functions_are_short() -> None:
    sizes = sorted(functions())
    lengths = [size for size, _ in sizes]
    assert statistics.median(lengths) <= 9
    assert lengths[int(0.9 * len(lengths))] <= 30
    assert [place for size, place in sizes if size > 70] == []


@pytest.mark.parametrize("path", FILES, ids=NAMES)
def test_a_file_is_short_and_says_its_purpose(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert code_lines(source) <= 600
    assert ast.get_docstring(ast.parse(source))


def test_code_lines_are_counted_without_prose() -> None:
    prose, value = '"""Prose.\n\nMore."""\n\n# why\n', 'X = """two\nlines"""\n\n'
    assert code_lines(f'{prose}{value}def f():\n    """Prose."""\n    return X\n') == 4


def test_public_names() -> None:
    assert sorted(towpath.__all__) == PUBLIC
    assert len(PUBLIC) <= 20
    assert all(hasattr(towpath, name) for name in PUBLIC)
