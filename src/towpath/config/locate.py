"""Where a configuration's data and admin socket are, whatever else is wrong with it in this shell."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from msgspec import Struct

from .document import Document
from .interpolate import Interpolation
from .places import absolute, default_socket
from .reading import text_of


class Location(Struct, frozen=True):
    """Absolute paths of the data directory and the admin socket."""

    storage: Path
    socket: Path


def locate(file: Path, env: Mapping[str, str] | None = None) -> Location:
    """Find the running server of a file; its other values need not resolve here. Raises `ConfigError`."""
    document, base = Document(text_of(file), str(file)), file.absolute().parent
    fill = Interpolation(document, base, os.environ if env is None else env, None).fill
    written = fill(document.data.get("storage"), ("storage",))
    storage = absolute(base, written if isinstance(written, str) else "data")
    door = document.data.get("admin")
    named = fill(door.get("socket"), ("admin", "socket")) if isinstance(door, dict) else None
    return Location(storage, absolute(base, named) if isinstance(named, str) else default_socket(storage))
