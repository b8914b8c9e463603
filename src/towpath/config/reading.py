"""The file's text, or why there is none."""

from __future__ import annotations

from pathlib import Path

from .errors import TOO_COMPLEX, UNREADABLE, ConfigError, Problem

LARGEST_BYTES = 1 << 20


def text_of(path: Path) -> str:
    """Read a configuration file. Raises `ConfigError` when it cannot be read, or is far too large."""
    try:
        with path.open("rb") as file:
            given = file.read(LARGEST_BYTES + 1)
        text = given.decode("utf-8-sig")
    except (OSError, ValueError) as error:
        raise ConfigError([_unreadable(path, error)]) from None
    if len(given) > LARGEST_BYTES:
        title = f"{path} is larger than {LARGEST_BYTES >> 20} MiB"
        hint = "a configuration is a few pages; name the right file with  --config FILE"
        raise ConfigError([Problem(TOO_COMPLEX, title, str(path), hint=hint)])
    return text


def _unreadable(path: Path, error: OSError | ValueError) -> Problem:
    if isinstance(error, FileNotFoundError):
        hint = "write one with  towpath init  or name another with  --config FILE"
        return Problem(UNREADABLE, f"there is no file {path}", str(path), hint=hint)
    why = error.strerror if isinstance(error, OSError) else "it is not UTF-8 text"
    return Problem(UNREADABLE, f"{path} cannot be read: {why}", str(path))
