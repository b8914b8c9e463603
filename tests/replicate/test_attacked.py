"""What an attack on replication found: names, lost tables, clocks, vendors that lie, pages without an end."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import SecretStr, ValidationError

from tests.log.postgres import schema_of, server
from tests.replicate.test_erased_everywhere import Direct
from tests.replicate.test_people_export import FEW, attributes
from tests.replicate.world import Cut, World, unchained
from towpath.clock import SystemClock
from towpath.errors import TowpathError
from towpath.http import Reply, Request
from towpath.jobs import Snooze
from towpath.replicate import gathering, people_export
from towpath.replicate.extract import replicate
from towpath.replicate.job import Readings
from towpath.replicate.people_course import without_export
from towpath.replicate.people_export import whole_records
from towpath.replicate.report import DAY_S, Options, Report, TableReport, Tier
from towpath.replicate.settings import ReplicationSettings
from towpath.replicate.tables import REPLICATED
from towpath.warehouse import Load, Lost, Shape, Wrote
from towpath.warehouse.duckdb import DuckDbLoader
from towpath.warehouse.open import open_loader
from towpath.warehouse.settings import DuckDbTarget, PostgresTarget
from towpath.warehouse.sql import SqlLoader

SOME = {"people": 20, "messages": 50, "activities": 0, "newsletters": 0, "suppressions": 0, "senders": 0}
JSON = {"content-type": "application/json"}


def shape(name: str, **more: Any) -> Shape:
    return Shape(REPLICATED[name].table, **more)


class Filed:
    """A world that is replicated into a DuckDB file, which can be left and opened again."""

    def __init__(self, path: Path, target: DuckDbTarget | PostgresTarget | None = None) -> None:
        self.path = path
        self.target = target or DuckDbTarget(path=str(path))
        self.world = World(**SOME)
        self.open()

    def open(self) -> None:
        found = open_loader(self.target)
        assert isinstance(found, SqlLoader)
        self.loader = found
        self.world.warehouse = Direct(self.loader)  # type: ignore[assignment]

    def reopen(self) -> None:
        self.loader.close()
        self.open()

    async def run(self, *shapes: Shape) -> list[TableReport]:
        options = Options(replication="cio", workspace="main", shapes=shapes, people="search")
        world = self.world
        work = replicate(world.api, world.warehouse, options, clock=world.clock)
        return list((await world.clock.drive(unchained(work))).tables)

    def count(self, table: str, where: str = "true") -> int:
        ((count,),) = self.loader.run(f"SELECT count(*) FROM {self.loader.quoted(table)} WHERE {where}")
        return int(count)


@pytest.fixture
def filed(tmp_path: Path) -> Iterator[Filed]:
    found = Filed(tmp_path / "w.duckdb")
    yield found
    found.loader.close()


@pytest.fixture(params=["duckdb", "postgres"])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Filed]:
    """In each kind of database."""
    target = None
    if request.param == "postgres":
        target = PostgresTarget(url=SecretStr(server().dsn), schema=schema_of(tmp_path))
    found = Filed(tmp_path / "w.duckdb", target)
    yield found
    found.loader.close()


@pytest.fixture
def world() -> World:
    return World(**SOME)


# -- tables that are renamed, dropped, changed by somebody --------------------------------------------------


@pytest.mark.spec("R041", "R051", "D10")
async def test_a_table_that_is_called_otherwise_keeps_its_rows_and_its_erases(kept: Filed) -> None:
    await kept.run(shape("messages"))
    kept.reopen()
    (report,) = await kept.run(shape("messages", called="deliveries_of_cio"))
    assert (report.outcome, report.written) == ("ok", 0)
    assert kept.count("deliveries_of_cio") == 50
    assert not kept.loader.found("messages")
    assert [one.rows for one in kept.loader.counts()] == [50]
    kept.reopen()
    ((person,),) = kept.loader.run("SELECT cio_id FROM deliveries_of_cio LIMIT 1")
    kept.loader.erase([person])
    assert kept.count("deliveries_of_cio", f"cio_id = '{person}'") == 0


@pytest.mark.spec("R041", "R044")
async def test_a_table_that_somebody_dropped_is_read_from_its_beginning(kept: Filed) -> None:
    await kept.run(shape("messages"), shape("campaigns"))
    kept.loader.run("DROP TABLE messages")
    kept.reopen()
    assert [one.table for one in kept.loader.counts()] == ["campaigns"]
    kept.loader.erase(["nobody"])
    await kept.run(shape("messages"), shape("campaigns"))
    assert kept.count("messages") == 50


@pytest.mark.spec("R041", "R044")
async def test_a_table_that_is_dropped_while_it_is_loaded_is_made_by_the_next_run(kept: Filed) -> None:
    await kept.run(shape("campaigns"), shape("segments"))
    kept.loader.run("DROP TABLE campaigns")
    first, second = await kept.run(shape("campaigns"), shape("segments"))
    assert (first.outcome, second.outcome) == ("failed", "ok")
    assert "nobody foresaw" not in first.reason
    (report,) = await kept.run(shape("campaigns"))
    assert (report.outcome, report.written) == ("ok", len(kept.world.state.campaigns))


@pytest.mark.spec("R041", "D05")
@pytest.mark.parametrize("exchanged", [False, True])
async def test_nothing_is_confirmed_that_is_written_to_a_file_that_is_gone(
    filed: Filed, tmp_path: Path, exchanged: bool
) -> None:
    await filed.run(shape("segments"))
    filed.path.unlink()
    if exchanged:
        DuckDbLoader(DuckDbTarget(path=str(filed.path))).close()
    with pytest.raises(Lost):
        await filed.run(shape("campaigns"))
    filed.reopen()
    await filed.run(shape("campaigns"), shape("segments"))
    assert filed.count("campaigns") == len(filed.world.state.campaigns)
    assert filed.count("segments") > 0


@pytest.mark.spec("R048")
async def test_a_column_that_comes_later_is_filled_in_old_rows_too(kept: Filed) -> None:
    await kept.run(shape("campaigns", columns=("id", "updated")))
    kept.reopen()
    await kept.run(shape("campaigns"))
    assert kept.count("campaigns", "name IS NULL") == 0


@pytest.mark.spec("R006")
async def test_one_name_is_for_one_table(kept: Filed) -> None:
    await kept.run(shape("campaigns", called="lists"))
    for table, called in (("segments", "lists"), ("segments", "Lists"), ("segments", "_towpath_state")):
        with pytest.raises(TowpathError, match="cannot be called") as found:
            kept.loader.prepare([shape(table, called=called)])
        assert found.value.fix
    assert kept.count("lists") > 0


@pytest.mark.parametrize("schema", ['we"ird', "a.b", "main.x", "a'b"])
def test_a_schema_may_have_any_name(tmp_path: Path, schema: str) -> None:
    for _ in range(2):
        loader = DuckDbLoader(DuckDbTarget(path=str(tmp_path / "w.duckdb"), schema=schema))
        loader.prepare([shape("campaigns")])
        found = loader.run("SELECT schema_name FROM duckdb_tables() WHERE table_name = 'campaigns'")
        loader.erase(["nobody"])
        loader.close()
        assert found == [(schema,)]


@pytest.mark.parametrize(
    ("tables", "said"),
    [
        ({"campaigns": {"called": "x"}, "segments": {"called": "X"}}, "calls two tables"),
        ({"campaigns": {"called": "segments"}, "segments": None}, "calls two tables"),
        ({"campaigns": {"called": "message_events"}}, "calls two tables"),
        ({"campaigns": {"called": "_towpath_state"}}, "cannot call"),
        ({"campaigns": {"called": "a\nb"}}, "cannot call"),
        ({"topics": None, "subscription_topics": {"every": "1h"}}, "twice"),
    ],
)
def test_names_that_clash_are_told_of(tables: Any, said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        ReplicationSettings.model_validate({"from": "cio", "to": "wh", "tables": tables})


# -- start dates and clocks ---------------------------------------------------------------------------------


@pytest.mark.spec("R002")
async def test_a_start_date_that_is_moved_back_reads_what_lies_between(world: World) -> None:
    other = World(**SOME)
    await other.one("messages")
    middle = sorted(row["created"] for row in other.warehouse.table("messages"))[25]
    await world.one("messages", start_at=middle)
    few = len(world.warehouse.table("messages"))
    assert few < 50
    await world.one("messages", start_at=None)
    assert len(world.warehouse.table("messages")) == 50
    again = await world.one("messages", start_at=None)
    assert again.read < 50


@pytest.mark.spec("R017")
async def test_after_a_clock_that_was_wrong_messages_are_looked_back_at_again(world: World) -> None:
    tiers = {"messages": (Tier(2 * DAY_S), Tier(180 * DAY_S, DAY_S))}
    await world.one("messages", look_back=tiers)
    key = "cio/main/messages/tiers"
    world.warehouse.states[key] = json.dumps(
        dict.fromkeys(json.loads(world.warehouse.states[key]), world.clock.now() + 3650 * DAY_S)
    )
    report = await world.one("messages", look_back=tiers)
    assert report.read > 1


# -- deletions ----------------------------------------------------------------------------------------------


@pytest.mark.spec("R042", "D14")
async def test_where_a_record_is_no_row_nothing_is_taken_for_gone(world: World) -> None:
    await world.one("campaigns")
    world.state.campaigns[0]["number"] = world.state.campaigns[0].pop("id")
    report = await world.one("campaigns", approved=("campaigns",))
    assert (report.outcome, report.refused, report.gone) == ("ok", 1, 0)
    assert any("was not looked at" in note for note in report.notes)
    assert all(row["_deleted_at"] is None for row in world.warehouse.table("campaigns"))
    del world.state.campaigns[0]
    assert (await world.one("campaigns")).gone == 1


# -- a vendor who lies --------------------------------------------------------------------------------------


def answering(path: str, body: Any) -> Any:
    """Answer requests of a path with the body that `body` makes of how many came."""
    count = 0

    def instead(request: Request) -> Reply | None:
        nonlocal count
        if path not in request.url:
            return None
        count += 1
        return Reply(200, JSON, body(count))

    return instead


@pytest.mark.spec("R047")
@pytest.mark.parametrize(
    ("table", "path", "body"),
    [
        ("segments", "/segments", lambda count: b'{"segments":[],"next":"t%d"}' % count),
        ("segments", "/segments", lambda count: b'{"segments":[{"id":1}],"next":"t%d"}' % count),
        (
            "esp_suppressions",
            "/suppression/",
            lambda count: json.dumps(
                {"suppressions": [{"email": f"{one}@x.io"} for one in range(1000)]}
            ).encode(),
        ),
    ],
)
async def test_pages_without_an_end_end_the_table(world: World, table: str, path: str, body: Any) -> None:
    world.wire.instead = answering(path, body)
    report = await world.one(table)
    assert (report.outcome, report.gone) == ("failed", 0)
    assert "page" in report.reason


@pytest.mark.spec("R021")
@pytest.mark.parametrize("more", [b'"x":1e999', b'"y":' + b"9" * 500, b'"name":"\xff"'])
async def test_odd_values_of_a_webhook_hide_no_password(filed: Filed, more: bytes) -> None:
    record = b'{"id":7,"endpoint":"https://user:hunter2@example.com/",' + more + b"}"
    whole = b'{"reporting_webhooks":[%s]}' % record
    filed.world.wire.instead = answering("/reporting_webhooks", lambda count: whole)
    (report,) = await filed.run(shape("reporting_webhooks"))
    assert report.outcome == "ok"
    assert filed.loader.run("SELECT endpoint FROM reporting_webhooks") == [("https://example.com/",)]
    assert "hunter2" not in repr(filed.loader.run("SELECT * FROM reporting_webhooks"))


@pytest.mark.spec("R053", "D14")
async def test_a_server_that_sends_less_of_an_export_than_asked_loses_nobody(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    world = World(**FEW)
    await world.one("customers", people="search")
    known = attributes(world)
    send = world.wire.send

    async def sparing(request: Request, *, timeout_s: float) -> Reply:
        reply = await send(request, timeout_s=timeout_s)
        if reply.status != 206:
            return reply
        first = int(request.headers["range"].removeprefix("bytes=").partition("-")[0])
        size = first + len(reply.body)
        part = reply.body[:1500]
        given = {"content-range": f"bytes {first}-{first + len(part) - 1}/{size}"}
        return Reply(206, given, part)

    monkeypatch.setattr(world.wire, "send", sparing)
    report = await world.one("customers", people="export")
    assert (report.outcome, report.notes, report.gone) == ("ok", (), 0)
    assert attributes(world).keys() == known.keys()


def test_a_quote_that_is_never_closed_costs_no_minutes() -> None:
    body = b'"' + b"a,b\n" * (people_export.PIECE_BYTES // 4)
    began = time.process_time()
    assert whole_records(body) == 0
    assert time.process_time() - began < 5


# -- erasing ------------------------------------------------------------------------------------------------


@pytest.mark.spec("D10", "R051", "R053")
async def test_an_export_made_before_an_erase_is_not_gone_on_with(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(people_export, "PIECE_BYTES", 2000)
    monkeypatch.setattr(gathering, "ROWS", 1)
    world = World(**FEW)
    world.wire.cut_after = 5
    with pytest.raises(Cut):
        await world.one("customers", people="export")
    world.wire.cut_after = None
    gone = list(world.state.people)[-1]
    del world.state.people[gone]
    await without_export(world.warehouse, "cio", "main")
    report = await world.one("customers", people="export")
    assert (report.outcome, report.resumed) == ("ok", False)
    assert gone not in attributes(world)


@pytest.mark.spec("D10", "R051")
async def test_pages_that_were_read_before_an_erase_do_not_bring_the_person_back(filed: Filed) -> None:
    readings, world = Readings(), filed.world
    held, everybody = asyncio.Event(), list(world.state.people)
    gone = everybody[0]
    load = world.warehouse.load

    async def withheld(loaded: Load) -> Wrote:
        held.set()
        await asyncio.Event().wait()
        return await load(loaded)

    options = Options(replication="cio", workspace="main", shapes=(shape("customers"),), people="search")
    world.warehouse.load = withheld  # type: ignore[method-assign, assignment]
    reading = asyncio.create_task(
        readings.read(replicate(world.api, world.warehouse, options, clock=SystemClock()))
    )
    await held.wait()
    del world.state.people[gone]
    await readings.break_off()
    filed.loader.erase([gone])
    with pytest.raises(Snooze):
        await reading
    world.warehouse.load = load  # type: ignore[method-assign]
    report = await readings.read(replicate(world.api, world.warehouse, options, clock=SystemClock()))
    assert report.tables[0].read == len(everybody) - 1
    assert filed.count("customers", f"cio_id = '{gone}'") == 0


async def test_a_reading_ends_with_the_run_that_waits_for_it() -> None:
    readings, ended = Readings(), asyncio.Event()

    async def endless() -> Report:
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()
        raise AssertionError

    waiting = asyncio.create_task(readings.read(endless()))
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    assert ended.is_set()
    await readings.break_off()
