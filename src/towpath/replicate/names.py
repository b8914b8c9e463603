"""What Qlik, Stitch, the Singer tap and Airbyte call our tables, and which `messages` is meant (R040)."""

from __future__ import annotations

import difflib
from collections.abc import Sequence

from msgspec import Struct

from .tables import HEARD, REPLICATED

TEMPLATES, DELIVERIES = "transactional_messages", "messages"
ALIASES = {alias: one.name for one in REPLICATED.values() for alias in one.aliases}
"""Our names by those of others."""

TWICE = (
    "`messages` is listed twice, as in Qlik's table list: the first is read as `transactional_messages` (the "
    "templates, by updated_at), the second as `messages` (the deliveries)"
)


class Canonical(Struct, frozen=True):
    """Tables by our names, each once, and what should be said about how they were understood."""

    names: tuple[str, ...]
    notes: tuple[str, ...] = ()


def canonical(names: Sequence[str]) -> Canonical:
    """Return our names for tables, in their order. Raises `ValueError` for a name that no table has.

    `messages` alone are the deliveries; listed twice, as in Qlik's list, the first are the templates.
    """
    twice = sum(_plain(name) == DELIVERIES for name in names) > 1
    found: dict[str, None] = {}
    for name in names:
        known = ours(name)
        first = twice and known == DELIVERIES and TEMPLATES not in found
        found[TEMPLATES if first else known] = None
    renamed = [f"`{name}` is `{ours(name)}` here" for name in names if ours(name) != name]
    return Canonical(tuple(found), (*([TWICE] if twice else []), *dict.fromkeys(renamed)))


def ours(name: str) -> str:
    """Return our name of a table that others may call otherwise. Raises `ValueError` with a suggestion."""
    plain = _plain(name)
    known = ALIASES.get(plain, plain)
    if known in REPLICATED or known in HEARD:
        return known
    near = difflib.get_close_matches(plain, [*REPLICATED, *HEARD, *ALIASES], n=1)
    hint = f"; did you mean {near[0]}?" if near else f"; there are {', '.join(REPLICATED)}"
    raise ValueError(f"there is no table {name}{hint}")


def _plain(name: str) -> str:
    return name.strip().lower().replace(" ", "_").replace("-", "_")
