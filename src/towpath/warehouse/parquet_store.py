"""Parquet files of a directory and the manifest that says which are in force: one rename is a transaction."""

# ruff: noqa: S608 - names are quoted and texts are literals or values
from __future__ import annotations

import fcntl
import os
import re
import shutil
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from urllib.parse import quote

import msgspec
from msgspec import Struct, field

from towpath.errors import TowpathError

from .faults import Hindered
from .table import Kind, Shape

MANIFEST = "manifest.json"
VIEWS = "views.sql"
CURRENT = "current"
LOCK = ".lock"
SPILL = ".spill"
VERSION = 1
LONGEST_NAME = 200
OURS = re.compile(r"(rows|head|seen)-\d{8}-\d{8}\.parquet")
OPEN_ELSEWHERE = "E5650"
UNREADABLE = "E5651"
UNWRITABLE = "E5652"


class File(Struct, frozen=True):
    """One immutable file: its path below the directory, and how many rows it has."""

    path: str
    rows: int


class Seen(Struct, frozen=True):
    """The keys that a run saw of one workspace."""

    run: str
    files: tuple[File, ...] = ()


class Stored(Struct):
    """A table: its shape as it was last prepared, the kinds its columns have, its files, what runs saw.

    `head` is a file without rows that has every column, so that a table without rows can be read as well.
    """

    shape: Shape
    kinds: dict[str, Kind]
    head: File
    files: list[File] = []
    seen: dict[str, Seen] = {}


class Manifest(Struct):
    """All there is: `number` counts the commits, `tables` are by the name that loads use."""

    version: int = VERSION
    number: int = 0
    made: int = 0
    tables: dict[str, Stored] = field(default_factory=dict)
    states: dict[str, str] = field(default_factory=dict)
    views: list[str] = []

    def files(self) -> Iterator[File]:
        """Every file in force."""
        for stored in self.tables.values():
            yield from (stored.head, *stored.files)
            for seen in stored.seen.values():
                yield from seen.files


class Store:
    """The directory, locked against others. `manifest` is what is committed; work on a `draft` of it.

    Beside the manifest, `TABLE/current/` has hard links to a table's files, for those who read by a pattern;
    it is exchanged as a whole. A file that went out of force stays until the commit after, so that whoever
    has just read the manifest still finds it. Raises `TowpathError`.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._lock = os.open(directory / LOCK, os.O_RDWR | os.O_CREAT, 0o600)
        except OSError as error:
            raise _unwritable(directory, error) from error
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self.manifest = self._read()
            self._retired: list[Path] = []
            self._made: list[str] = []
            self._sweep()
        except BaseException as error:
            os.close(self._lock)
            if isinstance(error, BlockingIOError):
                raise _open_elsewhere(directory) from None
            raise

    def close(self) -> None:
        """Leave the directory to others."""
        shutil.rmtree(self.directory / SPILL, ignore_errors=True)
        os.close(self._lock)

    def draft(self) -> Manifest:
        """A copy of the manifest to change."""
        return msgspec.msgpack.decode(msgspec.msgpack.encode(self.manifest), type=Manifest)

    def new_path(self, draft: Manifest, shape: Shape, kind: str = "rows") -> str:
        """A path for another file of a table."""
        draft.made += 1
        folder = folder_of(shape.name)
        (self.directory / folder).mkdir(exist_ok=True)
        self._made.append(f"{folder}/{kind}-{draft.number + 1:08}-{draft.made:08}.parquet")
        return self._made[-1]

    def commit(self, draft: Manifest, *, at_once: bool = False) -> None:
        """Bring a draft into force. With `at_once`, nothing that it no longer names is left behind."""
        before, after = set(self.manifest.files()), set(draft.files())
        try:
            for file in after - before:
                self._sync(self.directory / file.path)
            for folder in {Path(file.path).parent for file in after - before}:
                self._sync(self.directory / folder)
            draft.number += 1
            self._replace(MANIFEST, msgspec.json.format(msgspec.json.encode(draft), indent=1))
        except OSError as error:
            raise _unwritable(self.directory, error) from error
        changed = [stored for name, stored in draft.tables.items() if self._changed(name, stored)]
        views = draft.views != self.manifest.views or draft.tables.keys() != self.manifest.tables.keys()
        self.manifest = draft
        old = [self.directory / file.path for file in before - after]
        old += self._publish(changed, views=views)
        self.discard()
        self._remove(self._retired + old if at_once else self._retired)
        self._retired = [] if at_once else old

    def discard(self) -> None:
        """Remove files that were made since the last commit and are not in force."""
        known = {file.path for file in self.manifest.files()}
        for path in self._made:
            if path not in known:
                (self.directory / path).unlink(missing_ok=True)
        self._made.clear()

    def _changed(self, name: str, stored: Stored) -> bool:
        known = self.manifest.tables.get(name)
        if known is None or known.shape.name != stored.shape.name:
            return True
        return (known.head, known.files) != (stored.head, stored.files)

    def _read(self) -> Manifest:
        path = self.directory / MANIFEST
        try:
            return msgspec.json.decode(path.read_bytes(), type=Manifest) if path.exists() else Manifest()
        except (OSError, msgspec.MsgspecError) as error:
            raise TowpathError(
                f"the manifest {path} cannot be read: {error}",
                code=UNREADABLE,
                why="it was changed by hand, or by a later version of towpath",
                fix="restore it from a backup, or use the towpath that wrote it",
                data="nothing was changed; the rows are in the Parquet files beside it",
            ) from error

    def _replace(self, name: str, content: bytes) -> None:
        beside = self.directory / f".{name}.new"
        with beside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        beside.replace(self.directory / name)
        self._sync(self.directory)

    def _sync(self, path: Path) -> None:
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _publish(self, tables: list[Stored], *, views: bool) -> list[Path]:
        """Exchange `TABLE/current`, and `views.sql`; return the directories of links that went out of use."""
        old: list[Path] = []
        for stored in tables:
            folder = self.directory / folder_of(stored.shape.name)
            fresh = folder / f".{self.manifest.number:08}"
            shutil.rmtree(fresh, ignore_errors=True)
            fresh.mkdir(parents=True)
            for file in (stored.head, *stored.files):
                os.link(self.directory / file.path, fresh / Path(file.path).name)
            beside = folder / f".{CURRENT}.new"
            beside.unlink(missing_ok=True)
            beside.symlink_to(fresh.name)
            beside.replace(folder / CURRENT)
            old += [one for one in folder.glob(".0*") if one != fresh]
        if views:
            self._replace(VIEWS, "\n".join(self._views()).encode())
        return old

    def _views(self) -> Iterator[str]:
        for stored in self.manifest.tables.values():
            name = stored.shape.name.replace('"', '""')
            files = str(self.directory / folder_of(stored.shape.name) / CURRENT / "*.parquet")
            place = files.replace("'", "''")
            selected = f"SELECT * FROM read_parquet('{place}', union_by_name = true)"
            yield f'CREATE OR REPLACE VIEW "{name}" AS {selected};'
        yield from (f"{one.rstrip().rstrip(';')};" for one in self.manifest.views)

    def _remove(self, paths: list[Path]) -> None:
        for path in paths:
            if path.suffix == ".parquet":
                path.unlink(missing_ok=True)
            else:
                shutil.rmtree(path, ignore_errors=True)

    def _sweep(self) -> None:
        """Remove what a crash left behind, and make anew what it may have kept from being made."""
        shutil.rmtree(self.directory / SPILL, ignore_errors=True)
        known = {self.directory / file.path for file in self.manifest.files()}
        for path in self.directory.glob("*/*.parquet"):
            if path not in known and OURS.fullmatch(path.name):
                path.unlink()
        self._remove(self._publish(list(self.manifest.tables.values()), views=bool(self.manifest.tables)))


def folder_of(table: str) -> str:
    """The directory of a table: its name, with what a file system may not like percent-encoded."""
    name = quote(table, safe=" ").replace("~", "%7E")
    name = f"%2E{name[1:]}" if name.startswith(".") else name
    return name if len(name) <= LONGEST_NAME else f"{name[:100]}-{sha256(table.encode()).hexdigest()[:16]}"


def _open_elsewhere(directory: Path) -> Hindered:
    return Hindered(
        f"another program writes to {directory}",
        code=OPEN_ELSEWHERE,
        why="only one may write at a time; reading is free to everybody",
        fix="stop the other towpath, or give this one a directory of its own",
        data="nothing was written; it is tried again",
    )


def _unwritable(directory: Path, error: OSError) -> Hindered:
    return Hindered(
        f"{directory} cannot be written: {error.strerror or error}",
        code=UNWRITABLE,
        why="the disk is full, or the directory belongs to somebody else",
        fix="make room, or give the directory to the user who runs towpath",
        data="nothing of this batch is in; it is tried again",
    )
