"""From a plan to a file in force: drafted and checked first, then replaced in one step, with a backup."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path

from msgspec import Struct

from ..clock import Clock
from ..config import Config, parse
from ..config.document import Document
from ..errors import TowpathError
from .editing import with_connection, with_entry, with_value
from .plan import Plan, Section, Setting

NEW = """\
# Written by towpath. Every key:  towpath schema  or the documentation of the configuration.
version: 1
server: {listen: "127.0.0.1:8080"}
storage: ./data
"""
UNSET = "not-set-yet"
"""Stands for a secret that only the user has, while the rest of the file is checked."""
TAKEN = "E2403"
UNWRITTEN = "E2404"


class Draft(Struct, frozen=True):
    """A configuration file as it will be: checked, not written. `before` is None where there is no file.

    `unset` names the secrets that the file will refer to and nobody has given yet.
    """

    file: Path
    before: str | None
    after: str
    config: Config
    unset: Sequence[str]

    def begin(self) -> None:
        """Make the file where there is none yet, so that secrets have a place. Raises `TowpathError`."""
        if self.before is None:
            self.file.parent.mkdir(parents=True, exist_ok=True)
            _replace(self.file, NEW)

    def save(self, clock: Clock) -> Path | None:
        """Replace the file in one step; where the file as it was is kept. Raises `TowpathError`."""
        standing = _read(self.file)
        if standing != (NEW if self.before is None else self.before):
            raise TowpathError(
                f"{self.file} was changed meanwhile",
                code=UNWRITTEN,
                fix="run the command again",
                data="The file was not touched; secrets that were stored are not used yet.",
            )
        kept = None if self.before is None else _back_up(self.file, clock.now())
        _replace(self.file, self.after)
        return kept


def draft(
    file: Path,
    plan: Plan,
    *,
    stored: Callable[[Path], Mapping[str, str]],
    replace: bool = False,
    env: Mapping[str, str] | None = None,
) -> Draft:
    """Add a plan to a file, or to a new one, and check the whole; nothing is written.

    `stored` gives the secrets of a data directory. A name that is taken is refused unless `replace`. Raises
    `TowpathError`, and `ConfigError` for a file that is or would be invalid.
    """
    before = _read(file)
    mark, text = _without_mark(NEW if before is None else before)
    for entry in plan.entries:
        _check_name(text, file, entry.section, entry.name, replace=replace)
        text = with_entry(text, entry.section, entry.name, entry.fields)
    for setting in plan.settings:
        text = _set(text, file, setting, replace=replace)
    for fields in plan.connections:
        text = _connected(text, dict(fields))
    held: dict[str, str] = {}

    def secrets(storage: Path) -> Mapping[str, str]:
        held.update(stored(storage))
        return {**dict.fromkeys(plan.missing, UNSET), **held, **plan.secrets}

    config = parse(text, file, os.environ if env is None else env, secrets)
    unset = [name for name in plan.missing if name not in {**held, **plan.secrets}]
    return Draft(file, before, mark + text, config, unset)


def named(file: Path, section: Section, kind: str) -> list[str]:
    """The names of a file's entries of a type. Raises `TowpathError`."""
    _, text = _without_mark(_read(file) or "")
    entries = Document(text, str(file)).data.get(section)
    found = entries.items() if isinstance(entries, dict) else ()
    return [name for name, fields in found if isinstance(fields, dict) and fields.get("type") == kind]


def _without_mark(text: str) -> tuple[str, str]:
    """The byte order mark some editors begin a file with, and the rest."""
    return ("\ufeff", text[1:]) if text.startswith("\ufeff") else ("", text)


def _check_name(text: str, file: Path, section: Section, name: str, *, replace: bool) -> None:
    """Refuse a name that another entry has, but for the one to be replaced."""
    data = Document(text, str(file)).data
    for where in (section,) if section == "accounts" else ("sources", "destinations"):
        if name in (data.get(where) or {}) and not (replace and where == section):
            also = ", or --replace" if where == section else ""
            raise TowpathError(
                f'{file} has a {where.removesuffix("s")} "{name}" already',
                code=TAKEN,
                fix=f"choose another name with --name{also}",
                data="Nothing was changed.",
            )


def _set(text: str, file: Path, setting: Setting, *, replace: bool) -> str:
    """Set a key; one that says something else is refused unless it is to be replaced."""
    held = (Document(text, str(file)).data.get(setting.section) or {}).get(setting.key)
    if held == setting.value:
        return text
    if held is not None and not replace:
        raise TowpathError(
            f"{setting.section}.{setting.key} of {file} is {held} already",
            code=TAKEN,
            fix=f"use that name with --name {held} --replace, or --replace alone to change it",
            data="Nothing was changed.",
        )
    return with_value(text, setting.section, setting.key, setting.value)


def _connected(text: str, fields: dict[str, object]) -> str:
    """Add a connection, unless one does the same; a second one to a destination gets a name of its own."""
    data = Document(text, "").data
    standing = [line for line in data.get("connections") or [] if isinstance(line, dict)]
    source, destinations = fields["from"], _names(fields["to"])
    same = [line for line in standing if set(destinations) & set(_names(line.get("to")))]
    if any(source in _names(line.get("from")) for line in same):
        return text
    named = {"name": f"{source}-{destinations[0]}"} if same else {}
    return with_connection(text, {**named, **fields})


def _names(value: object) -> list[object]:
    return [value] if isinstance(value, str) else value if isinstance(value, list) else []


def _read(file: Path) -> str | None:
    """The text of a file with its line breaks; None when there is none. Raises `TowpathError`."""
    try:
        return file.read_bytes().decode()
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise _failed(file, "read", error) from None


def _back_up(file: Path, now: float) -> Path:
    stamp = datetime.fromtimestamp(now, UTC).strftime("%Y%m%dT%H%M%S%f")
    kept = file.with_name(f"{file.name}.{stamp}.bak")
    try:
        shutil.copy2(file, kept)
    except OSError as error:
        raise _failed(kept, "written", error) from None
    return kept


def _replace(file: Path, text: str) -> None:
    """Replace a file by way of a neighbour that is on disk first; owner, mode and a symlink's place stay."""
    target = file.resolve()
    neighbour = target.with_name(f".{target.name}.{os.getpid()}.new")
    try:
        with neighbour.open("wb") as opened:
            opened.write(text.encode())
            opened.flush()
            os.fsync(opened.fileno())
        if target.exists():
            shutil.copymode(target, neighbour)
            owner = target.stat()
            with suppress(PermissionError):
                os.chown(neighbour, owner.st_uid, owner.st_gid)
        neighbour.replace(target)
    except OSError as error:
        neighbour.unlink(missing_ok=True)
        raise _failed(file, "written", error) from None


def _failed(file: Path, what: str, error: OSError | ValueError) -> TowpathError:
    why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
    return TowpathError(
        f"{file} cannot be {what}: {why}",
        code=UNWRITTEN,
        fix="check the path, its owner and the free space",
        data="The configuration was not changed.",
    )
