"""`KEY=value` lines, as .env files hold them."""

from __future__ import annotations


def pairs(text: str) -> dict[str, str]:
    """The values by their names: comments and blank lines aside, quotes around a value taken off."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        name, equals, value = line.strip().removeprefix("export ").partition("=")
        if equals and not name.startswith("#"):
            found[name.strip()] = _unquoted(value.strip())
    return found


def _unquoted(value: str) -> str:
    quoted = len(value) > 1 and value[0] == value[-1] and value[0] in "\"'"
    return value[1:-1] if quoted else value
