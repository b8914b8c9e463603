"""Functions that the file names, `package.module:function`: found and read, never run, while checking."""

from __future__ import annotations

import ast
import sys
from collections.abc import Iterator, Sequence
from difflib import get_close_matches
from hashlib import blake2b
from importlib import invalidate_caches
from importlib.machinery import ModuleSpec, PathFinder
from pathlib import Path

WAYS = "write  package.module:function , beside this file or on PYTHONPATH"


class Unfound(Exception):
    """There is no such function; says why, and in `hint` what to do."""

    def __init__(self, why: str, hint: str) -> None:
        super().__init__(why)
        self.hint = hint


def version(target: str, directory: Path) -> str:
    """Look a function up, and name the state of the code it is part of. Raises `Unfound`.

    The code is the file of its module, or every file of the package it is in: when one changes, so does this.
    """
    module, colon, name = target.partition(":")
    if not colon or not all(part.isidentifier() for part in [*module.split("."), name]):
        raise Unfound(f'"{target}" names no function', WAYS)
    invalidate_caches()
    spec = _spec(module, directory)
    if spec.origin and spec.origin.endswith(".py"):
        _check(Path(spec.origin), module, name)
    return _state(_files(spec, module, directory))


def _spec(module: str, directory: Path) -> ModuleSpec:
    """Where a module would be loaded from, without running the packages it is in."""
    search: Sequence[str] | None = [str(directory), *sys.path]
    spec: ModuleSpec | None = None
    parts = module.split(".")
    for number, part in enumerate(parts, 1):
        name = ".".join(parts[:number])
        spec = PathFinder.find_spec(part, search)  # by its last part: the whole name would load the packages
        if spec is None:
            raise Unfound(f'there is no Python module "{name}"', _nearby(part, search))
        search = spec.submodule_search_locations
        if search is None and number < len(parts):
            raise Unfound(f'"{name}" is a module, not a package', WAYS)
    if spec is None:
        raise Unfound(f'there is no Python module "{module}"', WAYS)
    return spec


def _nearby(name: str, search: Sequence[str] | None) -> str:
    places = [Path(place) for place in (search or [])[:1]]
    names = [each.stem for place in places if place.is_dir() for each in place.iterdir() if _is_module(each)]
    near = get_close_matches(name, names, n=1)
    return f'did you mean "{near[0]}"?' if near else f"put {name}.py beside this file, or set PYTHONPATH"


def _is_module(path: Path) -> bool:
    return path.suffix == ".py" or (path.is_dir() and (path / "__init__.py").exists())


def _check(file: Path, module: str, name: str) -> None:
    """A function must be in the module's text. Raises `Unfound`."""
    try:
        tree = ast.parse(file.read_bytes(), str(file))
    except SyntaxError as error:
        raise Unfound(
            f"{file.name} is not Python: {error.msg}", f"see line {error.lineno} of {file}"
        ) from None
    except (OSError, ValueError) as error:
        raise Unfound(f"{file.name} cannot be read: {error}", f"check {file}") from None
    names = dict(_names(tree.body))
    if name not in names and "*" not in names:
        near = get_close_matches(name, names, n=1)
        hint = f'did you mean "{near[0]}"?' if near else f"define  def {name}(message):  in {file}"
        raise Unfound(f'{module} has no function "{name}"', hint)
    if isinstance(names.get(name), ast.AsyncFunctionDef):
        raise Unfound(f"{name} is async; a transform is a plain function", f"write  def {name}(message):")


def _names(body: Sequence[ast.stmt]) -> Iterator[tuple[str, ast.stmt]]:
    """What a module's text defines at its top level, also inside if, try and with."""
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, node
        elif isinstance(node, ast.Import | ast.ImportFrom):
            yield from ((each.asname or each.name, node) for each in node.names)
        else:
            found = (each.id for each in ast.walk(node) if isinstance(each, ast.Name))
            yield from ((name, node) for name in found)
            yield from _names([each for each in ast.iter_child_nodes(node) if isinstance(each, ast.stmt)])


def _files(spec: ModuleSpec, module: str, directory: Path) -> Iterator[Path]:
    """The files of the outermost package, or the modules beside a single one in the file's directory."""
    package = _spec(module.split(".")[0], directory)
    for place in package.submodule_search_locations or ():
        yield from Path(place).rglob("*.py")
    if spec.origin:
        yield Path(spec.origin)
    yield from directory.glob("*.py")


def _state(files: Iterator[Path]) -> str:
    digest = blake2b(digest_size=8)
    for file in sorted(set(files)):
        try:
            about = file.stat()
        except OSError:
            continue
        digest.update(f"{file}\0{about.st_mtime_ns}\0{about.st_size}\n".encode("utf-8", "surrogateescape"))
    return digest.hexdigest()
