"""What attacks on the destination `warehouse` found: names that databases keep, too many tables, losses."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from towpath.destinations._warehouse_names import column_of, table_of
from towpath.errors import TowpathError
from towpath.message import Message
from towpath.outcome import Delivered, Rejected
from towpath.warehouse import Load, Lost, Wrote
from towpath.warehouse.duckdb import DuckDbLoader
from towpath.warehouse.faults import unforeseen
from towpath.warehouse.settings import DuckDbTarget

from .warehouse_world import FakeWarehouse, OpenedWarehouse, made, message, payload_of, records_of, scope_of

pytestmark = pytest.mark.spec("R056")


@pytest.mark.parametrize("key", ["rowid", "ROWID", "ctid", "xmin", "xmax", "cmin", "cmax", "tableoid"])
def test_a_property_named_like_a_column_that_databases_keep_gets_an_underscore(key: str) -> None:
    assert column_of((key,)) == f"_{key.lower()}"
    assert column_of((key,), "property_") == f"property_{key.lower()}"


@pytest.mark.parametrize("event", ["pg_class", "pgType", "PG Stat Activity"])
def test_an_event_named_like_a_catalogue_of_postgresql_is_none(event: str) -> None:
    assert table_of(event).startswith("event_pg_")
    assert table_of(event, "web_").startswith("web_event_pg_")


def test_a_prefix_makes_no_event_a_table_of_customer_io() -> None:
    assert table_of("Events", "message_") == "message_event_events"
    assert table_of("Tracks", "web_") == "web_event_tracks"


async def test_a_property_rowid_takes_no_row_for_another(tmp_path: Path) -> None:
    loader = DuckDbLoader(DuckDbTarget(path=str(tmp_path / "w.duckdb")))
    destination = made()
    for first in (0, 2):
        told = [
            message(event="E", message_id=f"m{number}", properties={"rowid": 100, "v": number})
            for number in range(first, first + 4)
        ]
        payloads = [payload_of(destination, one) for one in told]
        await destination.deliver_batch(payloads, scope_of(OpenedWarehouse(loader)))
    found = loader.run('SELECT id, v, _rowid FROM "e" ORDER BY id')
    assert found == [(f"m{number}", number, 100) for number in range(6)]
    loader.close()


class CutWarehouse(FakeWarehouse):
    """Its next load is cancelled when it is `cut`."""

    cut = False

    async def load(self, load: Load) -> Wrote:
        if self.cut:
            self.cut = False
            raise asyncio.CancelledError
        return await super().load(load)


@pytest.mark.spec("D05")
async def test_a_message_that_the_loader_stumbles_over_alone_is_not_delivered() -> None:
    destination, warehouse = made(), FakeWarehouse()
    warehouse.fails = [unforeseen("KeyError (sql.py:1)")]
    with pytest.raises(TowpathError):
        await destination.deliver(payload_of(destination, message(event="A")), scope_of(warehouse))
    await destination.deliver(payload_of(destination, message(event="A")), scope_of(warehouse))
    assert len(warehouse.records("a")) == 1


async def test_what_was_learnt_by_a_load_that_is_cut_off_is_learnt_again() -> None:
    destination, warehouse = made(), CutWarehouse()
    payload = payload_of(destination, message(event="A", properties={"n": 1}))
    await destination.deliver(payload_of(destination, message("page")), scope_of(warehouse))
    warehouse.cut = True
    with pytest.raises(asyncio.CancelledError):
        await destination.deliver(payload, scope_of(warehouse))
    await destination.deliver(payload, scope_of(warehouse))
    assert "events/a" in warehouse.states


async def test_events_beyond_the_tables_there_may_be_are_kept_in_tracks() -> None:
    destination, warehouse = made(max_tables=2, hash=["email"], hash_key="k" * 16), FakeWarehouse()
    own = {"n": 1, "address": {"city": "Ulm"}, "email": "a@b.test"}
    told = [message(event=name, message_id=name, properties=own) for name in ("A", "B", "C", "D")]
    for batch in (told, told[2:]):
        ended = await destination.deliver_batch(
            [payload_of(destination, one) for one in batch], scope_of(warehouse)
        )
        assert [isinstance(one, Delivered) and bool(one.reports) for one in ended][-2:] == [True, True]
    assert set(warehouse.shapes) == {"tracks", "a", "b"}
    kept = {one["id"]: one.get("properties") for one in warehouse.records("tracks")}
    without = {"n": 1, "address": {"city": "Ulm"}}
    assert kept == {"A": None, "B": None, "C": without, "D": without}


async def test_events_without_a_place_become_dead_letters() -> None:
    destination, warehouse = made(max_tables=1, tables={"tracks": False}), FakeWarehouse()
    told = [message(event=name, message_id=name) for name in ("A", "B")]
    ended = await destination.deliver_batch(
        [payload_of(destination, one) for one in told], scope_of(warehouse)
    )
    assert isinstance(ended[0], Delivered)
    assert isinstance(ended[1], Rejected)
    assert "max_tables" in ended[1].reason


async def test_a_replication_called_events_is_no_table_of_events() -> None:
    destination, warehouse = made(), FakeWarehouse()
    warehouse.states["events/acme/campaigns"] = '{"cursor":{"at":1}}'
    payload = payload_of(destination, message(event="A"))
    assert await destination.deliver(payload, scope_of(warehouse)) == Delivered()


class OrderedWarehouse(FakeWarehouse):
    """Notes what it was asked for, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.asked: list[str] = []

    async def load(self, load: Load) -> Wrote:
        if load.table == "pages":
            self.asked += [record["id"] for record in records_of(load)]
        return await super().load(load)

    async def erase(self, ids: Sequence[str]) -> Mapping[str, int]:
        self.asked += [f"-{one}" for one in ids]
        return await super().erase(ids)


def page(number: int, **fields: Any) -> Message:
    return message("page", message_id=f"m{number}", **fields)


def delete(**fields: Any) -> Message:
    return message("delete", **fields)


@pytest.mark.spec("D10")
@pytest.mark.parametrize(
    ("told", "asked"),
    [
        ([page(1), delete(user_id="a"), page(2), delete(user_id="b"), page(3)], "m1 m2 m3 -a -b"),
        ([page(1, user_id="a"), delete(user_id="a"), page(2, user_id="a")], "m1 -a m2"),
        ([delete(user_id="a"), page(1), page(2, anonymous_id="a"), delete(user_id="b")], "m1 -a m2 -b"),
        ([delete(user_id="a"), message("alias", previous_id="a"), page(1)], "-a m1"),
        ([delete(user_id=None, anonymous_id="a"), page(1, user_id=None, anonymous_id="a")], "-a m1"),
    ],
)
async def test_deletes_go_together_as_far_as_nobody_loses_his_order(told: list[Message], asked: str) -> None:
    destination, warehouse = made(), OrderedWarehouse()
    ended = await destination.deliver_batch(
        [payload_of(destination, one) for one in told], scope_of(warehouse)
    )
    assert all(isinstance(one, Delivered) for one in ended)
    assert warehouse.asked == asked.split()


async def test_where_a_later_part_of_a_batch_fails_the_places_of_what_is_in_are_right() -> None:
    destination, warehouse = made(), FakeWarehouse()
    told = [page(1), delete(user_id="a"), page(2)]
    payloads = [payload_of(destination, one) for one in told]
    erase, warehouse.erase = warehouse.erase, _lost  # type: ignore[method-assign]
    ended = await destination.deliver_batch(payloads, scope_of(warehouse))
    assert [type(one) for one in ended] == [Delivered, type(None), Delivered]
    warehouse.erase = erase  # type: ignore[method-assign]


async def _lost(ids: Sequence[str]) -> Mapping[str, int]:
    raise Lost(f"{len(ids)} ids")
