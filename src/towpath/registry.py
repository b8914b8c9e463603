"""The kinds of destination and source there are: built in, of other packages, or beside the configuration."""

from __future__ import annotations

import importlib
import pkgutil
import sys
from collections.abc import Iterator, Mapping
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from importlib.util import module_from_spec, spec_from_file_location
from pathlib import Path
from types import ModuleType
from typing import Any

from pydantic import BaseModel

from .errors import TowpathError

FOLDER = "destinations"
"""Where a configuration keeps destinations of its own, beside towpath.yaml."""


class Kinds(Mapping[str, type[Any]]):
    """Classes by their `name`; each is imported when it is first asked for, never before.

    A built-in lives in the module of its name, a third party's class in an entry point of its name, and one
    of the user's own in a file of its name in `folder`. Looking up a broken or doubly defined one raises
    `TowpathError` that names the package or file at fault.
    """

    def __init__(
        self,
        group: str,
        plugins: Mapping[str, tuple[EntryPoint, ...]] | None = None,
        folder: Path | None = None,
    ) -> None:
        self.group = group
        self._own = {} if folder is None else _files(folder)
        self._built_in = _modules(group)
        self._plugins = _plugins(group) if plugins is None else plugins
        self._found: dict[str, type[Any]] = {}

    def __iter__(self) -> Iterator[str]:
        return iter(sorted({*self._built_in, *self._plugins, *self._own}))

    def __len__(self) -> int:
        return len({*self._built_in, *self._plugins, *self._own})

    def __contains__(self, name: object) -> bool:
        return name in self._built_in or name in self._plugins or name in self._own

    def __getitem__(self, name: str) -> type[Any]:
        if name not in self:
            raise KeyError(name)
        if name not in self._found:
            self._found[name] = self._load(name)
        return self._found[name]

    def built_in(self) -> list[str]:
        """The names that come with towpath."""
        return sorted(self._built_in)

    def _load(self, name: str) -> type[Any]:
        plugins = self._plugins.get(name, ())
        if name in self._own:
            return self._load_own(name, self._own[name])
        if name in self._built_in and not plugins:
            return _class_in(importlib.import_module(self._built_in[name]), name)
        if name in self._built_in or len(plugins) > 1:
            owners = ["towpath"] * (name in self._built_in) + [_owner(plugin) for plugin in plugins]
            raise TowpathError(
                f'"{name}" of {self.group} is defined by {" and ".join(owners)}',
                code="E2113",
                fix=f"uninstall {_owner(plugins[-1])}, or ask its author for another name",
            )
        return self._load_plugin(name, plugins[0])

    def _load_plugin(self, name: str, plugin: EntryPoint) -> type[Any]:
        try:
            found = plugin.load()
        except Exception as error:  # a third party's module may raise anything at import
            why = f"{type(error).__name__}: {error}"
            raise self._broken(name, plugin, why) from error
        if not _is_kind(found) or found.name != name:
            raise self._broken(name, plugin, f"{plugin.value} is no class with name {name!r} and Settings")
        return found  # type: ignore[no-any-return]

    def _load_own(self, name: str, file: Path) -> type[Any]:
        if name in self._built_in or name in self._plugins:
            title = f'"{name}" of {self.group} is there already; {file} would be a second one'
            raise TowpathError(title, code="E2113", fix=f"rename {file.name}, and the class's `name` in it")
        try:
            return _class_in(_module(file, file.stat().st_mtime_ns), name)
        except TowpathError:
            title = f"{file} has no class with name {name!r} and Settings"
            raise TowpathError(title, code="E2113", fix="see  towpath new destination") from None
        except Exception as error:  # a user's module may raise anything at import
            title = f"{file} cannot be loaded: {type(error).__name__}: {error}"
            raise TowpathError(title, code="E2113", fix="correct the file") from error

    def _broken(self, name: str, plugin: EntryPoint, why: str) -> TowpathError:
        title = f'"{name}" of the package {_owner(plugin)} cannot be loaded: {why}'
        return TowpathError(title, code="E2113", fix=f"update or uninstall {_owner(plugin)}")


@cache
def destinations() -> Kinds:
    """Every kind of destination by name; the values are `Destination` classes."""
    return Kinds("towpath.destinations")


def destinations_beside(directory: Path) -> Kinds:
    """The same, with those of the folder `destinations` beside a configuration in `directory`."""
    folder = directory / FOLDER
    return Kinds("towpath.destinations", folder=folder) if folder.is_dir() else destinations()


@cache
def sources() -> Kinds:
    """Every kind of source by name; the values have a `name`, and settings by `settings_of`."""
    return Kinds("towpath.sources")


def settings_of(kind: type[Any]) -> type[BaseModel]:
    """The settings model of a kind; a source that has nothing but settings is its own model."""
    found: type[BaseModel] = getattr(kind, "Settings", kind)
    return found


def _modules(package: str) -> dict[str, str]:
    paths = importlib.import_module(package).__path__
    names = [module.name for module in pkgutil.iter_modules(paths) if not module.name.startswith("_")]
    return {name: f"{package}.{name}" for name in names}


def _plugins(group: str) -> dict[str, tuple[EntryPoint, ...]]:
    found = entry_points(group=group)
    return {name: tuple(found.select(name=name)) for name in found.names}


def _files(folder: Path) -> dict[str, Path]:
    """The user's own modules by name; tests lie beside them."""
    names = {file.stem: file for file in sorted(folder.glob("*.py"))}
    return {name: file for name, file in names.items() if not name.startswith(("_", "test_"))}


_own_modules: dict[Path, tuple[int, ModuleType]] = {}
"""Of each file of the users' own, the newest module made of it, and when the file was changed for it."""


def _module(file: Path, changed_ns: int) -> ModuleType:
    """A user's file as a module, anew when the file has changed; then nothing here keeps the old one."""
    known = _own_modules.get(file)
    if known is not None and known[0] == changed_ns:
        return known[1]
    module = _read_module(file, f"towpath_destinations_{file.stem}_{changed_ns}")
    if known is not None:
        sys.modules.pop(known[1].__name__, None)
    _own_modules[file] = changed_ns, module
    return module


def _read_module(file: Path, name: str) -> ModuleType:
    spec = spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} is no Python file")
    module = sys.modules[name] = module_from_spec(spec)  # its annotations are looked up there
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _class_in(module: ModuleType, name: str) -> type[Any]:
    for value in vars(module).values():
        if _is_kind(value) and value.__module__ == module.__name__ and value.name == name:
            return value  # type: ignore[no-any-return]
    raise TowpathError(f"{module.__name__} has no class with name {name!r} and Settings", code="E2113")


def _is_kind(value: Any) -> bool:
    named = isinstance(value, type) and isinstance(getattr(value, "name", None), str)
    return named and (hasattr(value, "Settings") or issubclass(value, BaseModel))


def _owner(plugin: EntryPoint) -> str:
    return plugin.dist.name if plugin.dist else plugin.value
