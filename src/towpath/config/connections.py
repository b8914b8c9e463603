"""Connections: every pair of a set of sources and a destination, with a name that its queue belongs to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path as FilePath
from typing import Any

from towpath.connection import DeleteLimit
from towpath.device import PUSH

from . import errors
from .document import Path
from .flow import Flow
from .model import ConnectionBlock, DeleteGuardBlock
from .resolved import ConnectionEntry, TransformEntry
from .settings import Checker, Within, suggestion


def connections(
    data: Mapping[str, Any], checker: Checker, directory: FilePath, guard: DeleteGuardBlock | None = None
) -> list[ConnectionEntry]:
    """The connections of a file in this directory; what is wrong with them goes to the checker.

    `guard` is the file's own, for those that have none.
    """
    blocks, flow = data.get("connections"), Flow(checker, directory)
    taken: dict[str, int] = {}
    found: list[ConnectionEntry] = []
    for index, item in enumerate(blocks if isinstance(blocks, list) else ()):
        path: Path = ("connections", index)
        block = checker.validate(ConnectionBlock, item, Within(path))
        flow.filter(item.get("filter") if isinstance(item, dict) else None, (*path, "filter"))
        if block is None:
            continue
        _check_ends(data, checker, path, block)
        for entry in _entries(block, flow.transform(block, path), guard):
            if entry.name in taken:
                _complain(checker, path, block, entry, taken[entry.name])
            taken.setdefault(entry.name, index)
            found.append(entry)
    return found


def _entries(
    block: ConnectionBlock, transform: TransformEntry | None, guard: DeleteGuardBlock | None
) -> Iterator[ConnectionEntry]:
    for destination in block.to:
        yield ConnectionEntry(
            name=_name(block, destination),
            sources=frozenset(block.from_),
            destination=destination,
            only=frozenset(block.only or ()),
            events=frozenset(block.events or ()),
            start=block.start,
            max_age_s={event: age.total_seconds() for event, age in block.max_age.items()},
            enabled=block.enabled,
            filter=block.filter or "",
            consent=block.consent,
            transform=transform,
            map=block.map,
            delete_limit=_delete_limit(block.delete_guard or guard or DeleteGuardBlock()),
        )


def _delete_limit(guard: DeleteGuardBlock) -> DeleteLimit | None:
    if not guard.enabled:
        return None
    return DeleteLimit(guard.share, guard.count, guard.within.total_seconds())


def _name(block: ConnectionBlock, destination: str) -> str:
    """Without the sources: adding one to `from` must keep the connection, its queue and its cursor."""
    if block.name is None:
        return destination
    return block.name if len(block.to) == 1 else f"{block.name}-{destination}"


def _complain(
    checker: Checker, path: Path, block: ConnectionBlock, entry: ConnectionEntry, first: int
) -> None:
    """Keep the problem of a second connection by the same name."""
    if block.name is None:
        title = (
            f'a second connection to "{entry.destination}" needs a name (connections[{first}] is the first)'
        )
        checker.add(errors.NAME, title, path, "add  name: …  to one of the two")
    else:
        title = f'two connections are called "{entry.name}" (connections[{first}] is the first)'
        checker.add(errors.NAME, title, (*path, "name"), "give each a name of its own")


def _check_ends(data: Mapping[str, Any], checker: Checker, path: Path, block: ConnectionBlock) -> None:
    _check_names(data, checker, (*path, "from"), "source", block.from_)
    _check_names(data, checker, (*path, "to"), "destination", block.to)


def _check_names(
    data: Mapping[str, Any], checker: Checker, path: Path, what: str, names: Sequence[str]
) -> None:
    section = data.get(what + "s")
    known = list(section) if isinstance(section, dict) else []
    if what == "source" and data.get("push") is not None:
        known.append(PUSH)
    for index, name in enumerate(names):
        if name not in known:
            hint = suggestion(name, known)
            checker.add(errors.UNKNOWN_NAME, f'there is no {what} "{name}"', (*path, index), hint)
