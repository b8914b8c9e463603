"""Which requirement ids of docs/spec.md no test names: `python -m tools.uncovered D F`."""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parent.parent
SPEC = ROOT / "docs" / "spec.md"
# The contract suites carry marks too; what inherits them proves them.
MARKED = (ROOT / "tests", ROOT / "src" / "towpath" / "testing")
ID = re.compile(r"\*\*([DEKFCR]\d{2,3}|P\d{1,3})\*\*")
PROMISE = re.compile(r"P\d{1,2}")
LATER = "\n## Later steps\n"


def defined() -> list[str]:
    """Every id docs/spec.md defines, in its order."""
    return ID.findall(SPEC.read_text(encoding="utf-8"))


def required() -> list[str]:
    """Those that this release claims."""
    return ID.findall(SPEC.read_text(encoding="utf-8").partition(LATER)[0])


@cache
def named() -> Mapping[str, Sequence[str]]:
    """Id → the places (file:line) of the spec marks that name it."""
    places: dict[str, list[str]] = {}
    for folder in MARKED:
        for path in sorted(folder.rglob("*.py")):
            for identifier, line in marks(path.read_text(encoding="utf-8")):
                places.setdefault(identifier, []).append(f"{path.relative_to(ROOT)}:{line}")
    return places


def marks(source: str) -> Iterator[tuple[str, int]]:
    """List the ids of every `pytest.mark.spec(...)` in a Python source, with their lines."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Call) and ast.unparse(node.func).endswith("mark.spec"):
            yield from (
                (str(word.value), word.lineno) for word in node.args if isinstance(word, ast.Constant)
            )


def section(identifier: str) -> str:
    """Tell the letter of an id; the promises P1 to P10 are a section of their own."""
    return "promises" if PROMISE.fullmatch(identifier) else identifier[0]


def report(name: str) -> str:
    """One line: how many ids of a section a test names, and which have none."""
    mine = [identifier for identifier in required() if section(identifier) == name]
    places = named()
    missing = [identifier for identifier in mine if identifier not in places]
    rest = f"; not: {' '.join(missing)}" if missing else ""
    return f"{name}: {len(mine) - len(missing)}/{len(mine)} named by a test{rest}"


if __name__ == "__main__":
    for wanted in sys.argv[1:] or ["promises", "D", "E", "K", "F", "C", "P", "R"]:
        print(report(wanted))
