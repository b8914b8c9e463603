"""The page of all tables, made from their declarations."""

from __future__ import annotations

from collections.abc import Iterator

from ..warehouse import Table
from ..warehouse.message_events import MESSAGE_EVENTS
from .report import DAY_S, HOUR_S, Tier
from .table import Replicated
from .tables import REPLICATED

HEAD = """# Tables of a replication

<!-- Made by `python -m towpath.replicate`; do not edit. -->

Each table has, beside its own columns, `_workspace` (part of every key), `_extra` (keys that no column has,
as JSON), `_run_id`, `_loaded_at` and `_deleted_at` (see [replication](replication.md)). All times are UTC.
*Personal* columns may tell who somebody is: `hash` or `exclude` them where they are not needed.

| table | also called | endpoint | key | how it is kept up to date | rows that vanish |
|---|---|---|---|---|---|
"""


def document() -> str:
    """Return the page as Markdown."""
    rows = "".join(map(_row, REPLICATED.values()))
    heard = f"| `{MESSAGE_EVENTS.name}` | | reporting webhooks | `id` | as they come | never |\n"
    parts = [_part(one.table, list(_facts(one))) for one in REPLICATED.values()]
    parts.append(_part(MESSAGE_EVENTS, ["It is filled by the source `customerio_webhooks`."]))
    return HEAD + rows + heard + "\n" + "\n".join(parts)


def _row(one: Replicated) -> str:
    also = ", ".join(f"`{alias}`" for alias in one.aliases)
    key = ", ".join(f"`{name}`" for name in one.table.key)
    optional = " (optional)" if one.optional else ""
    gone = "marked or removed" if one.vanishes else "stay"
    return f"| `{one.name}`{optional} | {also} | {one.endpoint} | {key} | {one.method} | {gone} |\n"


def _facts(one: Replicated) -> Iterator[str]:
    if one.parent:
        yield f"Read under each record of `{one.parent}`."
    if one.table.cursor:
        yield f"Looks back {_spans(one.look_back)}."
    if one.ready_parents:
        yield "Segments that Customer.io is still building are left as they are."
    if one.optional:
        yield "Read only where it is named."


def _spans(tiers: tuple[Tier, ...]) -> str:
    return ", ".join(f"{_span(one.back_s)} {_often(one.every_s)}" for one in tiers)


def _span(seconds: float) -> str:
    return f"{seconds / DAY_S:g} days" if seconds >= DAY_S else f"{seconds / HOUR_S:g} hours"


def _often(seconds: float) -> str:
    return f"every {seconds / DAY_S:g} days" if seconds else "in each run"


def _part(table: Table, facts: list[str]) -> str:
    lines = [
        f"## {table.name}\n",
        f"{' '.join([table.about, *facts])}\n",
        "| column | kind | |",
        "|---|---|---|",
    ]
    for column in table.columns:
        personal = " *Personal.*" if column.personal else ""
        lines.append(f"| `{column.name}` | {column.kind} | {column.about}.{personal} |")
    return "\n".join(lines) + "\n"
