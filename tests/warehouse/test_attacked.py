"""What attacks on the loaders found: rows that a database takes for themselves, but not in a table."""

from __future__ import annotations

import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from pydantic import SecretStr

from tests.log.postgres import schema_of, server
from towpath.clock import SystemClock
from towpath.warehouse import Column, Load, Page, Shape, Table
from towpath.warehouse.desk import Desk, LoadingProcess
from towpath.warehouse.postgres import PostgresLoader
from towpath.warehouse.settings import DuckDbTarget, PostgresTarget

NAMES = [f"p{number}" for number in range(480)]
WIDE = Table("wide", (Column("id", "text"), *(Column(name, "text") for name in NAMES)), ("id",))


@pytest.fixture
def loader(tmp_path: Path) -> Iterator[PostgresLoader]:
    target = PostgresTarget(url=SecretStr(server().dsn), schema=schema_of(tmp_path))
    found = PostgresLoader(target)
    found.prepare([Shape(WIDE)])
    yield found
    found.close()


def load(*records: dict[str, Any], **more: Any) -> Load:
    return Load("wide", "acme", "r1", (Page(msgspec.json.encode(records)),), **more)


def ids(loader: PostgresLoader) -> list[str]:
    return [row[0] for row in loader.run("SELECT id FROM wide ORDER BY id")]


@pytest.mark.spec("R049", "R056")
def test_a_row_that_no_page_of_postgresql_holds_stops_no_other(loader: PostgresLoader) -> None:
    wide = dict.fromkeys(NAMES, "x" * 20)
    wrote = loader.load(load({"id": "a"}, {"id": "b", **wide}, {"id": "c"}, {"id": "d"}, state={"k": "v"}))
    assert (wrote.written, wrote.refused, loader.state("k")) == (3, 1, {"k": "v"})
    assert "too big" in wrote.refusals[0].reason
    assert ids(loader) == ["a", "c", "d"]


@pytest.mark.spec("R049", "R056")
def test_a_row_that_grows_too_wide_where_it_lies_stops_no_other(loader: PostgresLoader) -> None:
    first, second = (dict.fromkeys(NAMES[part::2], "x" * 20) for part in (0, 1))
    loader.load(load({"id": "b", **first}, mode="patch"))
    wrote = loader.load(load({"id": "a"}, {"id": "b", **second}, {"id": "c"}, mode="patch"))
    assert (wrote.written, wrote.refused) == (2, 1)
    assert ids(loader) == ["a", "b", "c"]


@pytest.mark.spec("R049", "R056")
def test_a_key_that_no_index_of_postgresql_holds_stops_no_other(loader: PostgresLoader) -> None:
    long = "".join(random.Random(1).choices("abcdefghijklmnopqrstuvwxyz0123456789", k=8000))
    wrote = loader.load(load({"id": "a"}, {"id": long}, {"id": "c"}))
    assert (wrote.written, wrote.refused) == (2, 1)
    assert ids(loader) == ["a", "c"]


def environment(process: int | None) -> list[str]:
    return Path(f"/proc/{process}/environ").read_text().split("\0")


@pytest.mark.spec("D08")
async def test_the_loading_process_is_not_given_the_key_of_the_secrets(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TOWPATH_KEY", "the key that unseals every secret")
    monkeypatch.setenv("PGPASSFILE", "pgpass")
    desk = Desk(SystemClock(), idle_s=3600.0)
    warehouse = desk.warehouse(DuckDbTarget(path=str(tmp_path / "w.duckdb")), "hash-key")
    await warehouse.state("")
    assert isinstance(warehouse, LoadingProcess)
    given = environment(warehouse.process_id)
    assert "PGPASSFILE=pgpass" in given
    assert not [one for one in given if "unseals" in one or "hash-key" in one]
    await desk.close()


@pytest.mark.spec("R051", "R056")
async def test_a_warehouse_whose_hash_key_was_changed_is_opened_anew(tmp_path: Path) -> None:
    desk = Desk(SystemClock(), idle_s=3600.0)
    target, other = (DuckDbTarget(path=str(tmp_path / name)) for name in ("w.duckdb", "x.duckdb"))
    before, stays = desk.warehouse(target, "old"), desk.warehouse(other, "old")
    await before.state("")
    await desk.retain([(target, "new"), (other, "old")])
    assert desk.warehouse(other, "old") is stays
    assert await desk.warehouse(target, "new").state("") == {}
    await desk.close()
