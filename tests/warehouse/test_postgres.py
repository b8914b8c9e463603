"""PostgreSQL as a target: the contract of loaders, and what is its own."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg.rows import dict_row
from pydantic import SecretStr

from tests.log.postgres import schema_of, server
from towpath.errors import TowpathError
from towpath.testing.loader import HASH_KEY, PEOPLE, WORDS, LoaderContract, page, person
from towpath.testing.postgres import PostgresServer
from towpath.warehouse import Column, Load, Lost, Page, Shape, Table, Wrote, faults
from towpath.warehouse.postgres import PostgresLoader
from towpath.warehouse.settings import PostgresTarget


def target(directory: Path) -> PostgresTarget:
    """A schema of its own for each directory."""
    return PostgresTarget(url=SecretStr(server().dsn), schema=schema_of(directory))


class TestPostgres(LoaderContract):
    loader: PostgresLoader

    def begin(self, directory: Path) -> PostgresLoader:
        return PostgresLoader(target(directory), HASH_KEY)

    def rows(self, table: str) -> Sequence[Mapping[str, Any]]:
        with self.loader._connection.cursor(row_factory=dict_row) as cursor:
            return cursor.execute(f"SELECT * FROM {self.loader.quoted(table)}".encode()).fetchall()


@pytest.fixture
def loader(tmp_path: Path) -> Iterator[PostgresLoader]:
    found = PostgresLoader(target(tmp_path), HASH_KEY)
    found.prepare([Shape(PEOPLE), Shape(WORDS)])
    yield found
    found.close()


def loaded(loader: PostgresLoader, raw: bytes) -> Wrote:
    return loader.load(Load("people", "acme", "r1", (Page(raw),)))


@pytest.mark.spec("R048", "R049")
def test_a_nul_character_is_shown_and_told_of(loader: PostgresLoader) -> None:
    raw = (
        rb'[{"cio_id":"c1","id":"a\u0000b","attributes":{"a\u0000":"x\u0000","b":"\\u0000"}},'
        rb'{"cio_id":"c2","odd":"\u0000"}]'
    )
    wrote = loaded(loader, raw)
    assert wrote.written == 2
    assert {name: count for name, count in wrote.drift.items() if "NUL" in name} == {
        "id: NUL character": 1, "attributes: NUL character": 1, "_extra: NUL character": 1,
    }  # fmt: skip
    rows = loader.run("SELECT id, attributes, _extra FROM people ORDER BY cio_id")
    assert rows[0][:2] == ("a\ufffdb", {"a\ufffd": "x\ufffd", "b": "\\u0000"})
    assert rows[1][2] == {"odd": "\ufffd"}
    assert loaded(loader, raw).unchanged == 2
    assert loader.erase(["a\x00b"])["people"] == 1


@pytest.mark.spec("D05")
def test_a_value_the_server_does_not_take_refuses_its_row_alone(loader: PostgresLoader) -> None:
    records = [
        b'{"cio_id":"c%d","attributes":{"n":%s}}' % (i, b"1e200000" if i in (3, 7) else b"1")
        for i in range(9)
    ]
    wrote = loaded(loader, b"[" + b",".join(records) + b"]")
    assert (wrote.read, wrote.written, wrote.refused) == (9, 7, 2)
    assert all("1e200000" in one.record and "does not take" in one.reason for one in wrote.refusals)
    assert loader.run("SELECT count(*) FROM people") == [(7,)]
    assert loader.run("SELECT count(*) FROM _towpath_refused") == [(2,)]


def test_json_that_means_the_same_is_equal(loader: PostgresLoader) -> None:
    loaded(loader, b'[{"cio_id":"c1","attributes":{"a":1,"b":2}}]')
    assert loaded(loader, b'[{"cio_id":"c1","attributes":{ "b":2, "a":1.0 }}]').unchanged == 1


@pytest.mark.spec("R041")
def test_rows_that_are_equal_are_not_even_touched(loader: PostgresLoader) -> None:
    touched = "SELECT xmin, xmax, ctid FROM people"
    loaded(loader, b'[{"cio_id":"c1"}]')
    before = loader.run(touched)
    loaded(loader, b'[{"cio_id":"c1"}]')
    assert loader.run(touched) == before


def test_names_longer_than_the_server_keeps_stay_apart(loader: PostgresLoader) -> None:
    names = [f"{'a_long_name_é' * 6}_{i}" for i in range(3)]
    table = Table(
        f"{'a_table_' * 9}1", columns=tuple(Column(name, "text") for name in names), key=(names[0],)
    )
    twin = Table(f"{'a_table_' * 9}2", columns=table.columns, key=table.key)
    for one in (table, twin):
        loader.prepare([Shape(one)])
        loader.prepare([Shape(one, contract="discard")])
        loader.load(Load(one.name, "acme", "r1", (page({name: name[-1] for name in names}),)))
    found = loader.run(f"SELECT * FROM {loader.quoted(twin.name)}")
    assert [row[:3] for row in found] == [("0", "1", "2")]
    assert {one.table: one.rows for one in loader.counts()}[table.name] == 1


@pytest.mark.spec("R048")
def test_tables_and_columns_are_described(loader: PostgresLoader) -> None:
    assert loader.run("SELECT obj_description('people'::regclass)") == [("Who there is.",)]
    described = (
        "SELECT col_description('people'::regclass, attnum) FROM pg_attribute WHERE attname = 'updated'"
    )
    assert ("When it was last changed.",) in loader.run(described)


@pytest.mark.spec("R055")
def test_views_stay_through_a_reset(loader: PostgresLoader) -> None:
    loader.execute(["CREATE VIEW ours AS SELECT cio_id FROM people"])
    loaded(loader, b'[{"cio_id":"c1"}]')
    loader.reset(["people"], None, [])
    assert loader.run("SELECT count(*) FROM ours") == [(0,)]


def test_a_server_that_is_not_there_can_be_tried_again(tmp_path: Path) -> None:
    nowhere = PostgresTarget(url=SecretStr(f"postgresql://me:hidden-password@/x?host={tmp_path}"))
    with pytest.raises(faults.Hindered) as found:
        PostgresLoader(nowhere, "")
    assert found.value.code == faults.UNREACHABLE
    assert "hidden-password" not in "".join(found.value.lines())


def test_a_database_that_does_not_exist_needs_somebody(tmp_path: Path) -> None:
    wrong = PostgresTarget(url=SecretStr(server().dsn.replace("dbname=postgres", "dbname=nothing_here")))
    with pytest.raises(TowpathError) as found:
        PostgresLoader(wrong, "")
    assert (found.value.code, isinstance(found.value, Lost)) == (faults.REFUSED, False)
    assert "nothing_here" in found.value.why


@pytest.mark.spec("R044")
def test_a_connection_lost_in_the_middle_leaves_nothing(loader: PostgresLoader, tmp_path: Path) -> None:
    def cut(at: float = 0.0) -> float:
        with psycopg.connect(server().dsn, autocommit=True) as other:
            other.execute(b"SELECT pg_terminate_backend(%d)" % loader._connection.info.backend_pid)
        return at

    loader._now = cut  # asked for in the middle of a load
    with pytest.raises(faults.Hindered) as found:
        loaded(loader, b'[{"cio_id":"c1"}]')
    assert found.value.code == faults.UNREACHABLE
    again = PostgresLoader(target(tmp_path), HASH_KEY)
    assert (again.run("SELECT * FROM people"), again.state("")) == ([], {})
    again.close()


@pytest.mark.spec("R044")
def test_a_server_that_crashes_keeps_what_was_confirmed() -> None:
    server()  # skips where there is none
    own = PostgresServer()
    try:
        own.create()
        own.start()
        where = PostgresTarget(url=SecretStr(own.dsn))
        loader = PostgresLoader(where, "")
        loader.prepare([Shape(WORDS)])
        loader.load(Load("words", "acme", "r1", (page({"word": "one"}),), state={"place": "1"}))
        own.crash()
        with pytest.raises(faults.Hindered):
            loader.load(Load("words", "acme", "r1", (page({"word": "two"}),), state={"place": "2"}))
        again = PostgresLoader(where, "")
        assert (again.run("SELECT word FROM words"), again.state("")) == ([("one",)], {"place": "1"})
        again.close()
    finally:
        own.remove()


def test_a_record_of_the_contract_reads_back(loader: PostgresLoader) -> None:
    loader.load(Load("people", "acme", "r1", (page(person("c1", attributes={"quote": 'a "b", \\ \n c'})),)))
    assert loader.run("SELECT attributes FROM people") == [({"quote": 'a "b", \\ \n c'},)]
