"""Delivering events to a warehouse: tables and their columns, contracts, latest traits, erasing, failures."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from towpath.destination import Ended
from towpath.destinations.warehouse import EventsToWarehouse
from towpath.errors import TowpathError
from towpath.http import Undelivered
from towpath.message import Message
from towpath.outcome import Delivered, Rejected, Retry
from towpath.warehouse import Load, Lost, Wrote
from towpath.warehouse.faults import unforeseen
from towpath.warehouse.message_events import MESSAGE_EVENTS

from .warehouse_world import FakeWarehouse, made, message, payload_of, records_of, scope_of

pytestmark = pytest.mark.spec("R056")


async def deliver(
    warehouse: FakeWarehouse, *told: Message, destination: EventsToWarehouse | None = None, **settings: Any
) -> list[Ended]:
    sender = destination or made(**settings)
    return [*await sender.deliver_batch([payload_of(sender, one) for one in told], scope_of(warehouse))]


def paid(total: Any, number: int = 1, **more: Any) -> Message:
    return message(event="Paid", message_id=f"m{number}", properties={"total": total, **more})


async def test_rows_are_keyed_by_message_and_source() -> None:
    warehouse = FakeWarehouse()
    assert await deliver(warehouse, message(event="A"), message(event="A", source="web")) == [Delivered()] * 2
    assert {(load.table, load.workspace, load.mode) for load in warehouse.loads} == {
        (table, source, "append") for table in ("a", "tracks") for source in ("app", "web")
    }
    assert warehouse.shapes["a"].table.key == ("id",)
    assert warehouse.shapes["a"].table.apart


@pytest.mark.parametrize(
    ("values", "kind", "kept"),
    [
        ([1, 2], "integer", [1, 2]),
        ([1, 1.5], "number", [1, 1.5]),
        ([1, "x"], "text", ["1", "x"]),
        ([True, False], "boolean", [True, False]),
        ([True, 1], "text", ["true", "1"]),
        (["2026-01-02T03:04:05Z"], "time", ["2026-01-02T03:04:05Z"]),
        (["2026-01-02"], "text", ["2026-01-02"]),
        (["2026-01-02T03:04:05"], "text", ["2026-01-02T03:04:05"]),
        (["2026-13-02T03:04:05Z"], "text", ["2026-13-02T03:04:05Z"]),
        (["2026-01-02T03:04:05Z", "x"], "text", ["2026-01-02T03:04:05Z", "x"]),
        ([[1], {"a": 1}], "json", [[1], None]),
    ],
)
async def test_kinds_by_value(values: list[Any], kind: str, kept: list[Any]) -> None:
    warehouse = FakeWarehouse()
    await deliver(warehouse, *[paid(value, number) for number, value in enumerate(values)])
    assert warehouse.kinds("paid")["total"] == kind
    assert [record.get("total") for record in warehouse.records("paid")] == kept


@pytest.mark.parametrize(
    ("first", "then", "kind", "fits"),
    [
        (1, 1.5, "number", True),
        (1.5, 2, "number", True),
        (1.5, 2**60, "number", False),
        (1, "x", "integer", False),
        (1, "2", "integer", False),
        (True, 1, "boolean", False),
        ("x", 1, "text", True),
        ("x", [1], "text", False),
        ("2026-01-02T03:04:05Z", "soon", "time", False),
        ("2026-01-02T03:04:05Z", 5, "time", False),
        ([1], "x", "json", True),
        (1, 2**70, "integer", False),
    ],
)
@pytest.mark.parametrize("again", [True, False])
async def test_a_column_keeps_its_kind_and_nothing_is_lost(
    first: Any, then: Any, kind: str, fits: bool, again: bool
) -> None:
    """Also after a restart, as the columns are kept with the rows."""
    warehouse, destination = FakeWarehouse(), made()
    await deliver(warehouse, paid(first), destination=destination)
    (ended,) = await deliver(warehouse, paid(then, 2), destination=destination if again else made())
    record = warehouse.records("paid")[1]
    assert warehouse.kinds("paid")["total"] == kind
    assert record["total" if fits else "properties.total"] in (then, str(then))
    assert isinstance(ended, Delivered)
    assert [kind in report for report in ended.reports] == ([] if fits else [True])


async def test_a_number_that_no_column_holds_is_kept_beside() -> None:
    warehouse = FakeWarehouse()
    await deliver(warehouse, paid(2**70))
    assert "total" not in warehouse.kinds("paid")
    assert warehouse.records("paid")[0]["properties.total"] == 2**70


async def test_a_table_has_so_many_columns_at_most() -> None:
    warehouse = FakeWarehouse()
    many = {f"p{number}": number for number in range(30)}
    (ended,) = await deliver(warehouse, message(event="Wide", properties=many), max_columns=20)
    assert len(warehouse.kinds("wide")) == 20
    record = warehouse.records("wide")[0]
    assert all(number in record.values() for number in range(30))
    assert isinstance(ended, Delivered)
    assert len(ended.reports) == 19
    await deliver(warehouse, message(event="Wide", properties={"new": 1}), max_columns=20)
    assert len(warehouse.kinds("wide")) == 20


async def test_frozen_tables_get_no_columns() -> None:
    warehouse = FakeWarehouse()
    await deliver(warehouse, paid(1))
    ended = await deliver(warehouse, paid(2, 2), paid(3, 3, new=1), message(event="New"), contract="freeze")
    assert [type(one) for one in ended] == [Delivered, Rejected, Rejected]
    assert "paid.new" in str(ended[1])
    assert "table new" in str(ended[2])
    assert [record["id"] for record in warehouse.records("paid")] == ["m1", "m2"]


async def test_discarded_properties_are_told() -> None:
    warehouse = FakeWarehouse()
    (ended,) = await deliver(warehouse, paid(1), contract="discard")
    assert warehouse.shapes["paid"].contract == "discard"
    assert "total" not in warehouse.kinds("paid")
    assert ended == Delivered(reports=("properties.total has no column in paid and is left out",))


async def test_hashed_columns_are_texts_whatever_comes() -> None:
    warehouse = FakeWarehouse()
    secret: dict[str, Any] = {"hash": ["email", "user_id"], "hash_key": "k" * 16, "max_columns": 20}
    many: dict[str, Any] = {f"p{number}": number for number in range(30)}
    odd = many | {"email": {"work": "a@example.com", "all": ["b@example.com"], "n": 5}}
    await deliver(warehouse, message("identify", traits=odd), **secret)
    shape = warehouse.shapes["users"]
    assert set(shape.hashed) == {"id", "email_work", "email_all", "email_n"}
    assert {warehouse.kinds("users")[name] for name in shape.hashed} == {"text"}
    assert set(warehouse.shapes["identifies"].hashed) == {"user_id", "email_work", "email_all", "email_n"}
    record = warehouse.records("users")[0]
    assert (record["email_all"], record["email_n"]) == ('["b@example.com"]', "5")
    assert [key for key, value in record.items() if "example.com" in str(value)] == [
        "email_work",
        "email_all",
    ]


async def test_a_column_that_is_hashed_from_now_on_gives_nothing_away() -> None:
    warehouse = FakeWarehouse()
    await deliver(warehouse, paid(1))
    (ended,) = await deliver(warehouse, paid(77, 2), hash=["total"], hash_key="k" * 16)
    assert 77 not in warehouse.records("paid")[1].values()
    assert "77" not in warehouse.records("paid")[1].values()
    assert "is left out" in str(ended)


async def test_users_are_patched_with_the_latest_traits() -> None:
    warehouse = FakeWarehouse()
    told = [
        message("identify", message_id="m1", timestamp="2026-01-02T00:00:00Z", traits={"plan": "new"}),
        message(
            "identify", message_id="m2", timestamp="2026-01-01T00:00:00Z", traits={"plan": "old", "a": 1}
        ),
    ]
    await deliver(warehouse, *told)
    (load,) = [load for load in warehouse.loads if load.table == "users"]
    assert load.mode == "patch"
    assert warehouse.shapes["users"].table.cursor == "timestamp"
    (user,) = warehouse.records("users")
    assert (user["plan"], user["a"], user["timestamp"]) == ("new", 1, "2026-01-02T00:00:00.000Z")
    assert len(warehouse.records("identifies")) == 2


async def test_a_delete_erases_exactly_whom_it_names() -> None:
    warehouse = FakeWarehouse()
    ended = await deliver(
        warehouse,
        message(event="A"),
        message("delete", anonymous_id="shared", trust="server"),
        message(event="A", user_id="u2", message_id="m2"),
    )
    assert warehouse.erased == ["u1"]
    assert ended[1] == Delivered(reports=("2 rows of tracks erased",))
    assert [len(warehouse.records("a")), len(warehouse.loads)] == [2, 2]


async def test_refused_rows_are_told_by_message() -> None:
    warehouse = FakeWarehouse()
    warehouse.refuses = {"m2"}
    ended = await deliver(warehouse, paid(1, 1), paid(2, 2), paid(3, 3))
    assert [type(one) for one in ended] == [Delivered, Rejected, Delivered]


@pytest.mark.parametrize("error", [Lost("gone"), TowpathError("the disk is full", fix="make room")])
async def test_a_lost_warehouse_is_tried_again(error: Exception) -> None:
    warehouse, destination = FakeWarehouse(), made()
    warehouse.fails = [error]
    with pytest.raises(Undelivered) as raised:
        await deliver(warehouse, paid(1), paid(2, 2), destination=destination)
    assert isinstance(raised.value.outcome, Retry)
    assert ("make room" in raised.value.outcome.reason) == isinstance(error, TowpathError)
    assert await deliver(warehouse, paid(1), paid(2, 2), destination=destination) == [Delivered()] * 2


async def test_what_was_in_before_a_failure_is_delivered() -> None:
    warehouse = FakeWarehouse()
    destination = made()
    batch = [payload_of(destination, one) for one in (paid(1), message("delete", trust="server"), paid(2, 2))]
    await deliver(warehouse, paid(0, 9), destination=destination)

    async def erase(ids: Any) -> Any:
        raise Lost("gone")

    warehouse.erase = erase  # type: ignore[method-assign]
    assert await destination.deliver_batch(batch, scope_of(warehouse)) == [Delivered(), None, None]


async def test_a_message_that_the_loader_does_not_know_stands_alone() -> None:
    """Whatever it is about it, the others go on, but not those of its person."""
    warehouse, destination = FakeWarehouse(), made()
    load = warehouse.load

    async def choosy(given: Load) -> Wrote:
        if any(record["id"] == "m3" for record in records_of(given)):
            raise unforeseen("ValueError")
        return await load(given)

    warehouse.load = choosy  # type: ignore[assignment,method-assign]
    people = ["ann", "bob", "ann", "bob", "ann", "eve"]
    batch = [
        msgspec.structs.replace(payload_of(destination, paid(1, number)), person=person)
        for number, person in enumerate(people, 1)
    ]
    ended = await destination.deliver_batch(batch, scope_of(warehouse))
    assert [type(one).__name__ for one in ended] == [
        "Delivered", "Delivered", "TowpathError", "Delivered", "NoneType", "Delivered",
    ]  # fmt: skip


async def test_columns_learnt_for_a_load_that_failed_are_not_taken_for_kept() -> None:
    warehouse, destination = FakeWarehouse(), made()
    await deliver(warehouse, paid(1), destination=destination)
    warehouse.fails = [Lost("gone")]
    with pytest.raises(Undelivered):
        await deliver(warehouse, paid(2, 2, new="x"), destination=destination)
    await deliver(warehouse, paid(2, 2, new="x"), destination=destination)
    kept = msgspec.json.decode(warehouse.states["events/paid"])
    assert kept == {"new": "text", "total": "integer"}


async def test_check_opens_the_target_and_says_what_it_is() -> None:
    warehouse = FakeWarehouse()
    (line,) = await made().check(scope_of(warehouse))
    assert line.ok
    assert "DuckDB events.duckdb" in line.name
    warehouse.fails = [TowpathError("the file is open elsewhere", fix="close it")]
    (line,) = await made().check(scope_of(warehouse))
    assert (line.ok, line.reached) == (False, True)
    assert "close it" in line.detail
    warehouse.fails = [Lost("gone")]
    (line,) = await made().check(scope_of(warehouse))
    assert (line.ok, line.reached) == (False, False)


# -- reporting webhooks ------------------------------------------------------------------------------------


def told_by_customerio(**more: Any) -> Message:
    properties = {"delivery_id": "d1", "metric": "opened", "object_type": "email", "recipient": "a@b.c"}
    return message(event="Email Opened", properties=properties, context={"source": "customerio"}, **more)


def reported(warehouse: FakeWarehouse) -> list[dict[str, Any]]:
    return [row for load in warehouse.loads if load.table == "message_events" for row in records_of(load)]


@pytest.mark.spec("R017")
async def test_a_reporting_webhook_is_a_row_of_message_events_as_well() -> None:
    warehouse = FakeWarehouse()
    assert await deliver(warehouse, told_by_customerio(trust="server")) == [Delivered()]
    (record,) = reported(warehouse)
    assert {"delivery_id": "d1", "metric": "opened", "recipient": "a@b.c"}.items() <= record.items()
    assert warehouse.shapes["message_events"].table is MESSAGE_EVENTS
    assert "email_opened" in warehouse.shapes


@pytest.mark.spec("R017", "D13")
async def test_a_page_s_key_cannot_claim_that_a_mail_was_opened() -> None:
    warehouse = FakeWarehouse()
    await deliver(warehouse, told_by_customerio(trust="client"))
    assert "message_events" not in warehouse.shapes
    await deliver(warehouse, told_by_customerio(trust="server"), tables={"deliveries": False})
    assert "message_events" not in warehouse.shapes


@pytest.mark.spec("R051")
async def test_columns_of_reports_are_hashed_and_left_out_like_others() -> None:
    warehouse = FakeWarehouse()
    told = told_by_customerio(trust="server")
    await deliver(warehouse, told, hash=["recipient"], hash_key="k" * 16, exclude=["object_type"])
    (record,) = reported(warehouse)
    assert "object_type" not in record
    assert warehouse.shapes["message_events"].hashed == ("recipient",)


@pytest.mark.spec("R051", "R056")
@pytest.mark.parametrize("vague", [False, True])
async def test_a_refused_user_whose_id_is_hashed_is_told_of_by_his_message(vague: bool) -> None:
    warehouse = FakeWarehouse()
    warehouse.refuses, warehouse.vague = {"u2"}, vague
    told = [message("identify", message_id=f"m{n}", user_id=f"u{n}", traits={"plan": n}) for n in (1, 2, 3)]
    ended = await deliver(warehouse, *told, hash=["user_id"], hash_key="k" * 16)
    assert [type(one) for one in ended] == [Delivered, Rejected, Delivered]
