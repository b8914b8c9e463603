"""Where things lie: absolute paths of a configuration, and an admin socket the operating system accepts."""

from __future__ import annotations

import hashlib
import os
import tempfile
from pathlib import Path

LONGEST_SOCKET = 100


def absolute(base: Path, name: str) -> Path:
    """Make a path absolute, from `base` where it is relative; `~` is the home. Never raises."""
    return Path(os.path.abspath(base / os.path.expanduser(name)))  # noqa: PTH100, PTH111


def fits_a_socket(path: Path) -> bool:
    """Whether the operating system takes a Unix socket at this path (108 bytes on Linux, 104 on macOS)."""
    return len(_bytes(path)) <= LONGEST_SOCKET


def default_socket(storage: Path) -> Path:
    """Return `admin.sock` in the data directory, or a short path of this user's own when that is too deep."""
    beside = storage / "admin.sock"
    if fits_a_socket(beside):
        return beside
    name = hashlib.sha256(_bytes(storage)).hexdigest()[:16]
    return runtime_directory() / f"{name}.sock"


def runtime_directory() -> Path:
    """Return the directory of this user's sockets; the server makes it, mode 0700."""
    given = os.environ.get("XDG_RUNTIME_DIR")
    if given and len(given) < LONGEST_SOCKET // 2:
        return Path(given) / "towpath"
    temporary = tempfile.gettempdir()
    short = temporary if len(temporary) < LONGEST_SOCKET // 2 else "/tmp"  # noqa: S108 - checked to be ours
    return Path(short) / f"towpath-{os.getuid()}"


def _bytes(path: Path) -> bytes:
    """Encode a path without failing: a configuration may hold text that no file system takes."""
    return str(path).encode("utf-8", "surrogatepass")
