"""The target behind dlt, on its DuckDB: what of the contract of loaders is dlt's own affair."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pytest
from pydantic import SecretStr

from towpath.errors import TowpathError
from towpath.testing.loader import HASH_KEY, LoaderContract, hashed, page
from towpath.warehouse import Column, Load, Shape, Table
from towpath.warehouse.dlt import DltLoader
from towpath.warehouse.loading import Loader
from towpath.warehouse.settings import DltTarget

CHOSEN = {
    "test_every_kind_of_column_comes_back",
    "test_equal_rows_are_left_alone",
    "test_patch_keeps_what_a_record_lacks_and_the_newer_of_two",
    "test_everything_is_there_after_reopening",
    "test_rows_that_vanished_are_marked_and_lose_the_mark_when_they_return",
    "test_a_record_without_its_key_is_refused_and_kept",
    "test_erase_follows_a_persons_ids_through_the_tables",
}
"""Every load package takes half a second or more, so these run always."""
OTHERWISE = {
    "test_an_integer_column_widens_to_numbers_and_nothing_else_is_altered",
    "test_a_column_that_grew_widens_or_gives_way_and_loses_nothing",
    "test_hashed_columns_join_and_give_nothing_away",
    "test_a_table_with_rows_does_not_change_what_it_hashes",
    "test_names_that_need_quoting",
}
"""What dlt does in its own way: it changes no column's type, and spells names in snake case."""


class TestDlt(LoaderContract):
    """Read as anybody would read what dlt has written. With TOWPATH_ALL_OF_DLT set, all of the contract."""

    def begin(self, directory: Path) -> Loader:
        place = str(directory / "dlt.duckdb")
        return DltLoader(
            DltTarget(destination="duckdb", dataset="acme", credentials=SecretStr(place)), HASH_KEY
        )

    def rows(self, table: str) -> Sequence[Mapping[str, Any]]:
        with duckdb.connect(str(self.directory / "dlt.duckdb")) as database:
            found = database.sql(f'SELECT * FROM acme."{table}"').to_arrow_table()
            rows: list[dict[str, Any]] = found.to_pylist()
        return rows


for _name in dir(LoaderContract):
    wanted = _name not in OTHERWISE if "TOWPATH_ALL_OF_DLT" in os.environ else _name in CHOSEN
    if _name.startswith("test_") and not wanted:
        setattr(TestDlt, _name, None)


@pytest.mark.spec("R049", "R048", "R044")
def test_what_dlt_does_in_its_own_way_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Numbers in an integer column stay in `_extra`, names are in snake case, rows go before the state."""
    place = tmp_path / "dlt.duckdb"
    target = DltTarget(destination="duckdb", dataset="acme", credentials=SecretStr(str(place)))
    columns = (Column("id", "text"), Column("n", "integer"), Column("eMail", "text"))
    loader = DltLoader(target, HASH_KEY)
    loader.prepare([Shape(Table("Odd Names", columns, ("id",)), hashed=("eMail",))])
    wider = (columns[0], Column("n", "number"), columns[2])
    loader.prepare([Shape(Table("Odd Names", wider, ("id",)), hashed=("eMail",))])
    given = [{"id": "1", "n": 1, "eMail": "ann@example.com"}, {"id": "2", "n": 1.5}]
    load = Load("Odd Names", "acme", "r", (page(*given),), state={"place": "1"})

    def crash(_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(loader, "keep", crash)
        with pytest.raises(KeyboardInterrupt):
            loader.load(load)
    assert loader.state("") == {}
    wrote = loader.load(load)
    assert (wrote.written, wrote.unchanged, [*wrote.drift]) == (0, 2, ["n: number"])
    assert loader.state("") == {"place": "1"}
    with pytest.raises(TowpathError) as caught:
        loader.prepare([Shape(Table("Odd Names", wider, ("id",)), hashed=("eMail",), called="mine")])
    assert caught.value.code == "E5659"
    loader.close()
    with duckdb.connect(str(place)) as database:
        rows = database.sql('SELECT id, n, e_mail, _extra FROM acme."odd_names" ORDER BY id').fetchall()
    assert rows == [("1", 1, hashed("ann@example.com"), None), ("2", None, None, '{"n":1.5}')]
