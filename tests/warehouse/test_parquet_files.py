"""Parquet files: what a crash leaves, what readers see, who may write, what an erase leaves of a person."""

from __future__ import annotations

import contextlib
import errno
import random
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import pytest

from towpath.errors import TowpathError
from towpath.warehouse import Column, Load, Page, Shape, Table
from towpath.warehouse import parquet as target
from towpath.warehouse.parquet import ParquetLoader
from towpath.warehouse.parquet_sql import Engine
from towpath.warehouse.parquet_store import Store, folder_of

PEOPLE = Table(
    "people",
    columns=(Column("id", "text"), Column("email", "text", personal=True), Column("n", "integer")),
    key=("id",),
    persons=("id", "email"),
)


class Crash(BaseException):
    """The process ends here."""


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "files"


@pytest.fixture
def loader(directory: Path) -> Iterator[ParquetLoader]:
    made = opened(directory)
    yield made
    made.close()


def opened(directory: Path) -> ParquetLoader:
    made = ParquetLoader(directory, "key")
    made.prepare([Shape(PEOPLE)])
    return made


def load(loader: ParquetLoader, *records: Mapping[str, Any], run: str = "r", **more: Any) -> int:
    page = Page(msgspec.json.encode(records))
    return loader.load(Load("people", "acme", run, (page,), **more)).written


def read(directory: Path, table: str = "people") -> dict[str, Any]:
    with duckdb.connect() as database:
        files = str(directory / folder_of(table) / "current" / "*.parquet")
        query = "SELECT id, n FROM read_parquet(?, union_by_name = true) WHERE _deleted_at IS NULL"
        return dict(database.execute(query, [files]).fetchall())


def files_of(directory: Path, pattern: str = "*/rows-*.parquet") -> list[Path]:
    return sorted(directory.glob(pattern))


@pytest.mark.spec("R049")
def test_one_writer_at_a_time(loader: ParquetLoader, directory: Path) -> None:
    with pytest.raises(TowpathError, match="another program") as raised:
        ParquetLoader(directory)
    assert raised.value.fix


@pytest.mark.spec("R044", "R049")
@pytest.mark.parametrize("step", ["copy", "_sync", "_replace", "_publish", "_remove"])
@pytest.mark.parametrize("number", [1, 2])
def test_a_crash_at_any_step_leaves_all_of_a_batch_or_nothing(
    directory: Path, monkeypatch: pytest.MonkeyPatch, step: str, number: int
) -> None:
    """Rows and state are in together or not at all, and nothing else is left in the directory."""
    loader = opened(directory)
    load(loader, {"id": "1", "n": 1}, {"id": "2", "n": 1}, state={"place": "1"})
    owner: Any = Engine if step == "copy" else Store
    with monkeypatch.context() as patched:
        patched.setattr(owner, step, crashing(getattr(owner, step), number))
        # A crash cleans nothing up:
        patched.setattr(Store, "discard", lambda _: None)
        with contextlib.suppress(Crash):
            load(loader, {"id": "2", "n": 2}, {"id": "3", "n": 2}, state={"place": "2"})
    loader.close()
    loader = opened(directory)
    place = loader.state("")["place"]
    assert read(directory) == ({"1": 1, "2": 1} if place == "1" else {"1": 1, "2": 2, "3": 2})
    manifest = loader._store.manifest
    known = {directory / file.path for file in manifest.files()}
    assert set(directory.glob("*/*.parquet")) == known
    assert len(list((directory / "people").glob(".0*"))) == 1
    load(loader, {"id": "2", "n": 2}, {"id": "3", "n": 2}, state={"place": "2"})
    assert read(directory) == {"1": 1, "2": 2, "3": 2}
    loader.close()


def crashing(function: Callable[..., Any], number: int) -> Callable[..., Any]:
    """The same, but its `number`-th call is the last of the process."""
    left = [number]

    def crash(*given: Any, **named: Any) -> Any:
        left[0] -= 1
        if left[0] == 0:
            raise Crash
        return function(*given, **named)

    return crash


@pytest.mark.spec("R049")
def test_files_of_others_are_left_alone(directory: Path) -> None:
    theirs = directory / "people" / "part-0001.parquet"
    theirs.parent.mkdir(parents=True)
    theirs.write_bytes(b"theirs")
    for _ in range(2):
        loader = opened(directory)
        load(loader, {"id": "1", "n": 1})
        loader.close()
    assert theirs.read_bytes() == b"theirs"
    assert read(directory) == {"1": 1}


@pytest.mark.spec("R049")
def test_a_full_disk_is_told_and_leaves_nothing(
    loader: ParquetLoader, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load(loader, {"id": "1", "n": 1}, state={"place": "1"})
    before = files_of(directory)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patched:
        patched.setattr(Store, "_replace", full)
        with pytest.raises(TowpathError, match="No space left") as raised:
            load(loader, {"id": "2", "n": 2}, state={"place": "2"})
    assert "make room" in raised.value.fix
    assert (files_of(directory), loader.state("")) == (before, {"place": "1"})
    assert load(loader, {"id": "2", "n": 2}) == 1


@pytest.mark.spec("R049")
def test_whoever_has_read_the_manifest_still_finds_its_files(loader: ParquetLoader, directory: Path) -> None:
    load(loader, {"id": "1", "n": 1})
    (old,) = files_of(directory)
    load(loader, {"id": "1", "n": 2})
    assert old.exists()
    load(loader, {"id": "1", "n": 3})
    assert not old.exists()
    assert read(directory) == {"1": 3}


@pytest.mark.spec("R041", "R049")
def test_a_second_run_without_changes_writes_no_file(loader: ParquetLoader, directory: Path) -> None:
    load(loader, {"id": "1", "n": 1})
    before = files_of(directory, "**/*")
    assert load(loader, {"id": "1", "n": 1}) == 0
    assert files_of(directory, "**/*") == before


@pytest.mark.spec("R049")
def test_only_files_that_hold_a_key_are_written_anew(
    loader: ParquetLoader, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(target, "SMALL_ROWS", 2)
    load(loader, {"id": "1", "n": 1}, {"id": "2", "n": 1})
    load(loader, {"id": "3", "n": 1}, {"id": "4", "n": 1})
    first, second = files_of(directory)
    load(loader, {"id": "4", "n": 2})
    load(loader, {"id": "5", "n": 1})
    assert first.exists()
    assert not second.exists()
    assert read(directory) == {"1": 1, "2": 1, "3": 1, "4": 2, "5": 1}


@pytest.mark.spec("R049")
def test_many_small_files_become_one(loader: ParquetLoader, directory: Path) -> None:
    for number in range(30):
        load(loader, {"id": str(number), "n": number})
        assert len(loader._store.manifest.tables["people"].files) <= target.MOST_SMALL
    assert read(directory) == {str(number): number for number in range(30)}


@pytest.mark.spec("R051", "D10", "R049")
def test_an_erase_leaves_no_byte_of_a_person(loader: ParquetLoader, directory: Path) -> None:
    people = [{"id": f"person-{i}", "email": f"mail{i}@example.com", "n": i} for i in range(50)]
    load(loader, *people)
    loader.begin("people", "acme", "r")
    load(loader, *people, {"note": "of person-7"}, seen=True)
    load(loader, {"id": "person-7", "email": "mail7@example.com", "n": 8})
    needles = (b"person-7", b"mail7@example.com")
    assert any(needle in path.read_bytes() for path in files_of(directory) for needle in needles)
    assert loader.erase(["mail7@example.com"]) == {"people": 1}
    left = [path for path in directory.rglob("*") if path.is_file()]
    texts = [(path, needle) for path in left for needle in needles if needle in raw_of(path)]
    assert not texts
    assert len(read(directory)) == 49


def raw_of(path: Path) -> bytes:
    """Everything that a file says: Parquet pages are compressed, so their values are read too."""
    said = path.read_bytes()
    if path.suffix == ".parquet":
        with duckdb.connect() as database:
            rows = database.execute("SELECT COLUMNS(*)::VARCHAR FROM read_parquet(?)", [str(path)]).fetchall()
        said += str(rows).encode()
    return said


@pytest.mark.spec("R049", "R055")
def test_views_are_kept_for_whoever_reads(loader: ParquetLoader, directory: Path) -> None:
    load(loader, {"id": "1", "n": 1})
    loader.execute(["CREATE OR REPLACE VIEW plain AS SELECT id FROM people"])
    loader.execute(["CREATE OR REPLACE VIEW plain AS SELECT id FROM people"])
    with duckdb.connect() as database:
        database.execute((directory / "views.sql").read_text())
        assert database.sql("SELECT * FROM plain").fetchall() == [("1",)]
    load(loader, {"id": "2", "n": 1})
    assert (directory / "views.sql").read_text().count("plain") == 1


@pytest.mark.spec("R049")
@pytest.mark.parametrize("name", ["../up", ".", "..", "a/b", "é" * 150, "", "a b", "con~1"])
def test_any_name_is_a_directory_of_its_own_here(name: str) -> None:
    folder = folder_of(name)
    assert "/" not in folder
    assert not folder.startswith(".")
    assert len(folder) <= 200


@pytest.mark.spec("R049")
def test_a_manifest_that_cannot_be_read_is_told(directory: Path) -> None:
    opened(directory).close()
    (directory / "manifest.json").write_text("{")
    with pytest.raises(TowpathError, match=r"manifest\.json"):
        ParquetLoader(directory)
    (directory / "manifest.json").unlink()
    ParquetLoader(directory).close()


@pytest.mark.spec("R044", "R049")
@pytest.mark.parametrize("seed", range(4))
def test_any_splits_changes_and_crashes_come_to_the_same_rows(
    directory: Path, monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    """Against a dict, with a loader that dies now and then and is opened again."""
    monkeypatch.setattr(target, "SMALL_ROWS", 8)
    chance = random.Random(seed)
    expected: dict[str, Any] = {}
    loader = opened(directory)
    for number in range(25):
        records: list[dict[str, Any]] = [
            {"id": str(chance.randrange(40)), "n": number} for _ in range(chance.randrange(1, 8))
        ]
        with monkeypatch.context() as patched:
            crash = chance.random() < 0.3
            if crash:
                step = chance.choice(["_sync", "_replace", "_publish"])
                patched.setattr(Store, step, crashing(getattr(Store, step), chance.randrange(1, 4)))
                patched.setattr(Store, "discard", lambda _: None)
            with contextlib.suppress(Crash):
                load(loader, *records, state={"at": str(number)})
        if crash:
            loader.close()
            loader = opened(directory)
            if loader.state("").get("at") != str(number):
                load(loader, *records, state={"at": str(number)})
        expected |= {record["id"]: record["n"] for record in records}
        if chance.random() < 0.1:
            gone = str(chance.randrange(40))
            loader.erase([gone])
            expected.pop(gone, None)
    assert read(directory) == expected
    loader.close()
