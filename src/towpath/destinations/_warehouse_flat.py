"""Flattening: the values of nested JSON by the column that each of them gets."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeAlias

import msgspec
from msgspec import Struct

from ._warehouse_names import column_of

Path: TypeAlias = tuple[str, ...]
TRAITS = "context_traits_"


class Privacy(Struct, frozen=True):
    """Columns left out or hashed; a name covers what lies below it, and the same in `context.traits`."""

    excluded: frozenset[str] = frozenset()
    hashed: frozenset[str] = frozenset()

    def excludes(self, column: str) -> bool:
        """Whether a column is left out."""
        return column in self.excluded or column.removeprefix(TRAITS) in self.excluded

    def hashes(self, column: str) -> bool:
        """Whether a column holds hashes."""
        return column in self.hashed or column.removeprefix(TRAITS) in self.hashed


class Flat(Struct, frozen=True):
    """One value with its column, the path it was found at, and whether it may only be kept as a hash."""

    column: str
    path: Path
    value: Any
    hashed: bool = False


class Flattening(Struct, frozen=True):
    """How one object of a message becomes columns.

    `named` is where it lies in the message; `prefix` comes before all its columns, and `apart` before those
    whose name is `taken`. Objects are entered `levels` deep; what is deeper, and every array, stays JSON.
    """

    named: str
    levels: int
    privacy: Privacy
    prefix: str = ""
    apart: str = ""
    taken: frozenset[str] = frozenset()

    def flatten(self, given: Mapping[str, Any]) -> Iterator[Flat]:
        """Walk an object; nulls and empty objects say nothing."""
        for key, value in given.items():
            yield from self._walk((key,), value, hashed=False)

    def _walk(self, path: Path, value: Any, *, hashed: bool) -> Iterator[Flat]:
        plain = column_of(path, self.prefix)
        if value is None or value == {} or self.privacy.excludes(plain):
            return
        hashed = hashed or self.privacy.hashes(plain)
        if type(value) is dict and len(path) < self.levels:
            for key, inner in value.items():
                yield from self._walk((*path, key), inner, hashed=hashed)
            return
        if type(value) in (dict, list):
            value = self._pruned(path, value, everything=hashed)
        if hashed and type(value) is not str:
            value = msgspec.json.encode(value).decode()
        yield Flat(self._column(path, plain), (self.named, *path), value, hashed)

    def _column(self, path: Path, plain: str) -> str:
        if plain in self.taken or (self.apart and plain.startswith("context_")):
            return column_of(path, self.apart)
        return plain

    def _pruned(self, path: Path, value: Any, *, everything: bool = False) -> Any:
        """JSON without what must not be shown: inside it nothing can be hashed."""
        if everything or not (self.privacy.excluded or self.privacy.hashed):
            return value
        if type(value) is list:
            return [self._pruned(path, item) for item in value]
        if type(value) is not dict:
            return value
        return {
            key: self._pruned((*path, key), inner)
            for key, inner in value.items()
            if not self._is_private((*path, key))
        }

    def _is_private(self, path: Path) -> bool:
        column = column_of(path, self.prefix)
        return self.privacy.excludes(column) or self.privacy.hashes(column)

    def shown(self, given: Any) -> Any:
        """The whole object as JSON, without what must not be shown in it."""
        return self._pruned((), given)
