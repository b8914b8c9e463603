"""DuckDB as a target: the contract of loaders, and what is its own."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import duckdb
import pytest

import towpath.warehouse.duckdb as module
from towpath.errors import TowpathError
from towpath.testing.loader import HASH_KEY, PEOPLE, SENT, WORDS, LoaderContract, page, person
from towpath.warehouse import Load, Lost, Shape, faults
from towpath.warehouse.duckdb import DuckDbLoader
from towpath.warehouse.settings import DuckDbTarget

HOLDS = "import duckdb, sys; held = duckdb.connect(sys.argv[1]); print('held', flush=True); sys.stdin.read()"


class TestDuckDb(LoaderContract):
    loader: DuckDbLoader

    def begin(self, directory: Path) -> DuckDbLoader:
        return DuckDbLoader(DuckDbTarget(path=str(directory / "w.duckdb")), HASH_KEY)

    def rows(self, table: str) -> Sequence[Mapping[str, Any]]:
        found = self.loader._connection.sql(f"SELECT * FROM {self.loader.quoted(table)}")
        return found.to_arrow_table().to_pylist()  # type: ignore[no-any-return]


class TestDuckDbSchema(TestDuckDb):
    """The same in a schema of its own."""

    def begin(self, directory: Path) -> DuckDbLoader:
        return DuckDbLoader(DuckDbTarget(path=str(directory / "w.duckdb"), schema="my cio"), HASH_KEY)


def opened(path: Path) -> DuckDbLoader:
    return DuckDbLoader(DuckDbTarget(path=str(path)), HASH_KEY)


def raised(path: Path) -> TowpathError:
    with pytest.raises(TowpathError) as found:
        opened(path)
    assert str(path) in found.value.title
    assert found.value.fix
    assert found.value.data
    return found.value


def test_a_file_that_another_process_has_open_can_be_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    other = subprocess.Popen(
        [sys.executable, "-c", HOLDS, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert other.stdout is not None
    assert other.stdout.readline() == b"held\n"
    error = raised(path)
    assert (isinstance(error, Lost), error.code) == (True, faults.LOCKED)
    other.communicate(b"")
    opened(path).close()


def test_a_path_that_cannot_be_a_file(tmp_path: Path) -> None:
    for path in (tmp_path / "missing" / "w.duckdb", tmp_path):
        error = raised(path)
        assert (isinstance(error, Lost), error.code) == (False, faults.OUT_OF_REACH)


def test_a_file_that_is_something_else_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    path.write_bytes(b"precious" * 5000)
    assert raised(path).code == faults.UNREADABLE
    assert path.read_bytes() == b"precious" * 5000


def test_a_file_of_a_newer_version_is_left_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "w.duckdb"
    opened(path).close()
    header = bytearray(path.read_bytes())
    assert header[8:12] == b"DUCK"
    header[12] = 250
    path.write_bytes(header)
    assert raised(path).code == faults.UNREADABLE
    assert path.read_bytes() == header


@pytest.mark.parametrize(
    ("said", "code", "passes"),
    [
        ('IO Error: Could not write file "x": No space left on device', faults.FULL, True),
        ("IO Error: Cannot open file: Permission denied", faults.OUT_OF_REACH, False),
    ],
)
def test_what_the_disk_says_is_told(tmp_path: Path, said: str, code: str, passes: bool) -> None:
    loader = opened(tmp_path / "w.duckdb")
    with pytest.raises(TowpathError) as found, loader._told():
        raise duckdb.IOException(said)
    assert (found.value.code, isinstance(found.value, Lost)) == (code, passes)
    loader.close()


# Erasing


def filled(path: Path) -> DuckDbLoader:
    """A file in which ann was loaded, changed, refused and marked, and things of a user's own."""
    loader = opened(path)
    loader.prepare([Shape(PEOPLE), Shape(SENT), Shape(WORDS)])
    ann = person("cio-of-ann", id="id-of-ann", identifiers={"email": "ann-before@example.com"})
    others = [person(f"c{i}", identifiers={"email": f"p{i}@example.com"}) for i in range(3000)]
    loader.load(Load("people", "acme", "r1", (page(ann, *others),), seen=True))
    loader._connection.execute("CHECKPOINT")
    ann |= {
        "identifiers": {"email": "ann@example.com"},
        "attributes": {"note": "note-of-ann"},
        "odd": "odd-of-ann",
    }
    loader.load(Load("people", "acme", "r2", (page(ann),)))
    loader.load(
        Load("sent", "acme", "r2", (page({"id": 1, "cio_id": "cio-of-ann", "subject": "Hi of-ann"}),))
    )
    loader.load(Load("sent", "acme", "r2", (page({"recipient": "ann@example.com", "x": "of-ann"}),)))
    loader.execute(
        [
            "CREATE VIEW ours AS SELECT cio_id, email FROM people",
            "COMMENT ON VIEW ours IS 'who there is'",
            "CREATE TABLE theirs (a INTEGER PRIMARY KEY, b VARCHAR DEFAULT 'x')",
            "CREATE SCHEMA own",
            "CREATE VIEW own.count AS SELECT count(*) AS n FROM main.people",
            "CREATE MACRO twice(a) AS a * 2",
            "INSERT INTO theirs (a) VALUES (1)",
        ]
    )
    loader._connection.execute("CHECKPOINT")
    return loader


def holding(directory: Path, text: str) -> list[str]:
    """The files below a directory that hold these bytes."""
    files = [path for path in directory.rglob("*") if path.is_file()]
    return [path.name for path in files if text.encode() in path.read_bytes()]


@pytest.mark.spec("R051", "D10")
def test_after_an_erase_no_byte_of_a_person_is_left(tmp_path: Path) -> None:
    loader = filled(tmp_path / "w.duckdb")
    assert holding(tmp_path, "of-ann") == ["w.duckdb"]
    loader.erase(["ann@example.com"])
    for told in ("of-ann", "ann@example.com", "ann-before"):
        assert holding(tmp_path, told) == []
    assert len(loader.run("SELECT * FROM people")) == 3000
    loader.close()
    assert [path.name for path in tmp_path.iterdir()] == ["w.duckdb"]
    assert holding(tmp_path, "of-ann") == []


@pytest.mark.spec("R051", "R055")
def test_an_erase_keeps_views_comments_and_what_others_made(tmp_path: Path) -> None:
    loader = filled(tmp_path / "w.duckdb")
    described = "SELECT table_name, column_name, comment FROM duckdb_columns() WHERE comment IS NOT NULL"
    before = (
        loader.run(f"{described} ORDER BY ALL"),
        loader.run("SELECT view_name, comment FROM duckdb_views()"),
    )
    assert ("people", "updated", "When it was last changed.") in before[0]
    loader.erase(["ann@example.com"])
    after = (
        loader.run(f"{described} ORDER BY ALL"),
        loader.run("SELECT view_name, comment FROM duckdb_views()"),
    )
    assert (after[0], sorted(after[1], key=repr)) == (before[0], sorted(before[1], key=repr))
    assert loader.run("SELECT comment FROM duckdb_tables() WHERE table_name = 'people'") == [
        ("Who there is.",)
    ]
    assert loader.run("SELECT count(*) FROM ours") == loader.run("SELECT n FROM own.count") == [(3000,)]
    assert loader.run("SELECT a, b, twice(a) FROM theirs") == [(1, "x", 2)]
    with pytest.raises(TowpathError):
        loader.run("INSERT INTO theirs VALUES (1, 'again')")
    loader.keep({"a": "1"})
    loader.keep({"a": "2"})
    loader.close()


def test_a_file_that_cannot_be_written_anew_can_be_erased_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    loader = filled(tmp_path / "w.duckdb")

    def full(old: Path, new: Path) -> None:
        new.write_bytes(b"half")
        raise duckdb.IOException("No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(module, "_copy", full)
        with pytest.raises(faults.Hindered) as found:
            loader.erase(["ann@example.com"])
    assert found.value.code == faults.NOT_REWRITTEN
    assert not (tmp_path / "w.duckdb.rewriting").exists()
    assert len(loader.run("SELECT * FROM people")) == 3000
    loader.erase(["ann@example.com"])
    assert holding(tmp_path, "of-ann") == []
    loader.close()


def test_a_rewriting_that_was_cut_off_is_cleared_by_the_next(tmp_path: Path) -> None:
    loader = filled(tmp_path / "w.duckdb")
    (tmp_path / "w.duckdb.rewriting").write_bytes(b"of-ann")
    loader.erase(["ann@example.com"])
    loader.close()
    assert [path.name for path in tmp_path.iterdir()] == ["w.duckdb"]
