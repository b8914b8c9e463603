"""Whatever JSON a message holds, its rows load, and every value is found again in the warehouse."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from towpath.destinations.warehouse import EventsToWarehouse
from towpath.message import Message
from towpath.outcome import Delivered
from towpath.warehouse.duckdb import DuckDbLoader
from towpath.warehouse.settings import DuckDbTarget

from .warehouse_world import OpenedWarehouse, made, message, payload_of, scope_of

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
    | st.sampled_from(["2026-01-02T03:04:05Z", "2026-01-02T03:04:05.5+02:00", "2026-01-02", "12", "", "\x00"])
)
ODD_KEYS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
KEYS = ODD_KEYS | st.sampled_from(
    ["a", "A", "id", "event", "user_id", "context_ip", "_extra", "a_b", "a.b", "timestamp", "order", "email"]
)
JSON = st.recursive(
    SCALARS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=4),
    max_leaves=12,
)
ALIKE = st.dictionaries(st.sampled_from(["a", "A", "a b", "a_b", "id", "property_id"]), SCALARS, min_size=3)
OBJECTS = st.dictionaries(KEYS, JSON, max_size=5) | ALIKE
MESSAGES = st.builds(
    lambda kind, event, one, two, context: message(
        kind, event=event, properties=one, traits=two, context=context, group_id="g", name=event
    ),
    st.sampled_from(["track", "identify", "page", "screen", "group"]),
    st.sampled_from(["Order Completed", "Users", "🛶", "select"]) | st.text(max_size=8) | JSON,
    OBJECTS | JSON,
    OBJECTS,
    OBJECTS,
)


@pytest.mark.spec("R056", "D05")
@settings(max_examples=6, deadline=None, suppress_health_check=list(HealthCheck))
@given(told=st.lists(MESSAGES, min_size=1, max_size=6), levels=st.integers(1, 4))
def test_every_value_is_found_again(
    tmp_path_factory: pytest.TempPathFactory, told: list[Message], levels: int
) -> None:
    place = tmp_path_factory.mktemp("any") / "events.duckdb"
    told = [msgspec.structs.replace(one, message_id=f"m{number}") for number, one in enumerate(told)]
    loader = DuckDbLoader(DuckDbTarget(path=str(place)), "key")
    try:
        asyncio.run(_deliver(made(levels=levels), told, loader))
    finally:
        loader.close()
    kept = rows_by_message(place)
    for one in told:
        lost = [
            value for value in _sent(one) if not any(_same(value, found) for found in kept[one.message_id])
        ]
        assert not lost, (lost, kept[one.message_id])


async def _deliver(destination: EventsToWarehouse, told: list[Message], loader: DuckDbLoader) -> None:
    """As the loop would: one after another, so that columns meet values that they do not fit."""
    scope = scope_of(OpenedWarehouse(loader))
    for one in told:
        ended = await destination.deliver_batch([payload_of(destination, one)], scope)
        assert all(isinstance(end, Delivered) for end in ended), ended


def rows_by_message(place: Path) -> dict[str, list[Any]]:
    """Every value in the warehouse by the message it came from; JSON taken apart."""
    found: dict[str, list[Any]] = {}
    with duckdb.connect(str(place), read_only=True) as database:
        tables = [name for (name,) in database.execute("SELECT table_name FROM duckdb_tables()").fetchall()]
        for table in tables:
            if table.startswith("_towpath") or table == "users":
                continue
            relation = database.sql(f'SELECT * FROM "{table}"')
            kinds = dict(zip(relation.columns, map(str, relation.types), strict=True))
            for row in relation.to_arrow_table().to_pylist():
                values = found.setdefault(row["id"], [])
                for name, value in row.items():
                    plain = (
                        msgspec.json.decode(value) if kinds[name] == "JSON" and value is not None else value
                    )
                    values.extend(_leaves(plain))
    return found


def _sent(one: Message) -> Iterator[Any]:
    traits = one.traits if one.type in ("identify", "group") else {}
    properties = one.properties if one.type in ("track", "page", "screen") else None
    yield from _leaves([traits, one.context, properties])
    if one.type == "track" and type(one.event) is str:
        yield from _leaves(one.event)


def _leaves(value: Any) -> Iterator[Any]:
    if isinstance(value, dict):
        for inner in value.values():
            yield from _leaves(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _leaves(inner)
    elif value is not None:
        yield value


def _same(sent: Any, found: Any) -> bool:
    """A value as it was sent, as its own text, or as the moment it names."""
    if isinstance(found, datetime):
        return isinstance(sent, str) and _is_moment(sent, found)
    if type(sent) is bool or type(found) is bool:
        return sent is found or found == ("true" if sent else "false")
    if isinstance(sent, int | float) and isinstance(found, int | float):
        return sent == found and not math.isnan(found)
    return bool(sent == found) or (not isinstance(sent, str) and found == msgspec.json.encode(sent).decode())


def _is_moment(sent: str, found: datetime) -> bool:
    try:
        return datetime.fromisoformat(sent) == found
    except (ValueError, TypeError):
        return False
