"""Import graph of the package at module level: no cycles, and arrows that point one way."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterable, Iterator, Mapping
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from typing import TypeAlias

PACKAGE = Path(__file__).parent.parent / "src" / "towpath"

# From the ground up. A module stands where its longest dotted prefix stands, so a new file of a listed
# package needs no line here. Modules of one line may import each other.
LAYERS: tuple[tuple[str, ...], ...] = (
    # "" is towpath/__init__.py: it loads its public names on first use, so anything may ask for the version.
    ("", "message", "outcome", "clock", "errors", "signature", "units"),
    (
        "http",
        "url",
        "http1",
        "http2",
        "transport",
        "transport_http1",
        "transport_http2",
        "transport_aiohttp",
        "guard",
        "budget",
        "redaction",
    ),
    ("vendors",),
    ("destination", "device", "source", "mapping", "notice", "transform", "transforming", "warehouse"),
    ("destinations", "sources"),
    ("connection", "retry"),
    ("log", "state"),
    (
        "courier",
        "deliver",
        "deletes",
        "dispatch",
        "feed",
        "health",
        "identity",
        "ingest",
        "intake",
        "jobs",
        "lanes",
        "making",
        "outage",
        "overtaking",
        "parking",
        "pauses",
        "push",
        "replicate",
        "settler",
    ),
    ("config", "registry", "secrets", "scaffold"),
    ("bus", "client", "fixtures", "inspection", "install", "preview", "server", "views", "wiring"),
    ("app",),
    ("api", "serve"),
    ("cli", "__main__"),
)
ASIDE = frozenset({"sandbox", "testing"})
MAY_LOOK_ASIDE = frozenset({"cli", "sandbox", "testing"})
EXTENSIONS = frozenset({"destinations", "sources"})
FOR_EXTENSIONS = frozenset(
    {
        "message",
        "outcome",
        "clock",
        "errors",
        "http",
        "destination",
        "device",
        "source",
        "mapping",
        "notice",
        "signature",
        "units",
        "vendors",
        "warehouse",
    }
)

Graph: TypeAlias = Mapping[str, frozenset[str]]


def modules(package: Path) -> dict[str, Path]:
    """Dotted name within the package → file; the package itself is the empty name."""
    return {".".join(_parts(path.relative_to(package))): path for path in sorted(package.rglob("*.py"))}


def graph(package: Path = PACKAGE, *, everything: bool = False) -> Graph:
    """Map each module to those it imports when loaded; `everything` adds imports inside functions."""
    files = modules(package)
    return {
        name: frozenset(_imported(name, path, package.name, files, everything=everything)) - {name}
        for name, path in files.items()
    }


def cycle(arrows: Graph) -> list[str]:
    """One import cycle, first and last the same; empty when there is none."""
    try:
        TopologicalSorter(arrows).prepare()
    except CycleError as error:
        return [str(name) for name in error.args[1]]
    return []


def layer(module: str) -> int | None:
    """Find the row of `LAYERS` a module stands in; None for one that is in no row."""
    rows = {name: row for row, names in enumerate(LAYERS) for name in names}
    parts = module.split(".")
    prefixes = (".".join(parts[:size]) for size in range(len(parts), 0, -1))
    return next((rows[prefix] for prefix in prefixes if prefix in rows), None)


def unplaced(arrows: Graph) -> list[str]:
    """Modules the table does not know."""
    return [name for name in arrows if _top(name) not in ASIDE and layer(name) is None]


def upward(arrows: Graph) -> list[str]:
    """List imports that point from a lower layer to a higher one."""
    placed = ((source, target, layer(source), layer(target)) for source, target in _pairs(arrows))
    return [
        f"{_say(a)} imports {_say(b)}"
        for a, b, low, high in placed
        if low is not None and high is not None and low < high
    ]


def astray(arrows: Graph) -> list[str]:
    """List product modules that import sandbox or testing, and extensions that import more than they may."""
    found, allowed = [], ", ".join(sorted(FOR_EXTENSIONS))
    for source, target in _pairs(arrows):
        if _top(target) in ASIDE and _top(source) not in MAY_LOOK_ASIDE:
            found.append(f"{_say(source)} imports {_say(target)}, which no product module may")
        if _top(source) in EXTENSIONS and _top(target) not in FOR_EXTENSIONS | {_top(source)}:
            found.append(f"{_say(source)} imports {_say(target)}; it may import only {allowed}")
    return found


def _pairs(arrows: Graph) -> Iterator[tuple[str, str]]:
    return ((source, target) for source, targets in arrows.items() for target in sorted(targets))


def _top(module: str) -> str:
    return module.partition(".")[0]


def _say(module: str) -> str:
    return f"towpath.{module}" if module else "towpath"


def _parts(path: Path) -> tuple[str, ...]:
    parts = path.with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" else parts


def _imported(
    name: str, path: Path, root: str, files: Mapping[str, Path], *, everything: bool
) -> Iterator[str]:
    here = name.split(".") if name else []
    package = here if path.stem == "__init__" else here[:-1]
    tree = ast.parse(path.read_text(encoding="utf-8"))
    for node in ast.walk(tree) if everything else _at_load(tree.body):
        for base, member in _named(node, root, package):
            inner = f"{base}.{member}".strip(".")
            if inner in files:
                yield inner
            elif base in files:
                yield base


def _at_load(body: Iterable[ast.stmt]) -> Iterator[ast.stmt]:
    """Walk the statements that run at load: not those in functions or behind TYPE_CHECKING."""
    for node in body:
        yield node
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            yield from _at_load(node.orelse)
        elif isinstance(node, ast.If | ast.Try | ast.With | ast.ClassDef | ast.For | ast.While):
            yield from _at_load(child for child in _inside(node))


def _inside(node: ast.stmt) -> Iterator[ast.stmt]:
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.stmt):
            yield child
        elif isinstance(child, ast.ExceptHandler):
            yield from child.body


def _named(node: ast.AST, root: str, package: list[str]) -> Iterator[tuple[str, str]]:
    """List the (module, member) pairs an import statement names, both within the package."""
    if isinstance(node, ast.Import):
        for alias in node.names:
            if alias.name.split(".")[0] == root:
                yield alias.name[len(root) + 1 :], ""
    elif isinstance(node, ast.ImportFrom):
        base = _base(node, root, package)
        if base is not None:
            yield from ((base, alias.name) for alias in node.names)


def _base(node: ast.ImportFrom, root: str, package: list[str]) -> str | None:
    if node.level:
        return ".".join([*package[: len(package) - node.level + 1], *([node.module] if node.module else [])])
    whole = node.module or ""
    return whole[len(root) + 1 :] if whole.split(".")[0] == root else None


def main() -> int:
    """Print every breach; 1 when there is one."""
    arrows = graph()
    looped = cycle(arrows)
    breaches = [f"import cycle: {' → '.join(map(_say, looped))}"] if looped else []
    breaches += [f"{_say(name)} is in no row of LAYERS in tools/layers.py" for name in unplaced(arrows)]
    breaches += upward(arrows) + astray(graph(everything=True))
    print(
        "\n".join(breaches)
        or f"layers: {len(arrows)} modules, {sum(map(len, arrows.values()))} imports, no breach"
    )
    return 1 if breaches else 0


if __name__ == "__main__":
    sys.exit(main())
