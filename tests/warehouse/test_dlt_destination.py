"""The target behind dlt: which destinations it takes, what it leaves on this machine, and what it says."""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from pathlib import Path

import msgspec
import pytest
from pydantic import SecretStr

from towpath.errors import TowpathError
from towpath.warehouse import Column, Load, Lost, Page, Shape, Table
from towpath.warehouse import dlt_database as database
from towpath.warehouse.dlt import DltLoader
from towpath.warehouse.settings import DltTarget

WORDS = Table("words", columns=(Column("word", "text"),), key=("word",))


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The system's directory of temporary files."""
    place = tmp_path / "temporary"
    place.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(place))
    return place


def target_in(directory: Path, **options: object) -> DltTarget:
    place = SecretStr(str(directory / "s3cretname.duckdb"))
    return DltTarget(destination="duckdb", credentials=place, options=options)


@pytest.mark.spec("R049", "D08")
def test_nothing_is_left_on_this_machine(temporary: Path, tmp_path: Path) -> None:
    """Not the rows, not the credentials; what a killed process left is removed by the next."""
    left = temporary / f"{database.DIRECTORY}-999999999-x"
    left.mkdir()
    loader = DltLoader(target_in(tmp_path))
    assert not left.exists()
    loader.prepare([Shape(WORDS)])
    page = Page(msgspec.json.encode([{"word": "somebody@example.com"}]))
    assert loader.load(Load("words", "acme", "r", (page,))).written == 1
    files = [path for path in temporary.rglob("*") if path.is_file()]
    assert files
    for needle in (b"s3cretname", b"somebody@example.com"):
        assert not [path for path in files if needle in path.read_bytes()]
    loader.close()
    assert list(temporary.iterdir()) == []


@pytest.mark.spec("R049")
def test_a_destination_that_cannot_merge_is_refused(temporary: Path, tmp_path: Path) -> None:
    files = DltTarget(destination="filesystem", options={"bucket_url": str(tmp_path)})
    with pytest.raises(TowpathError, match="cannot merge") as raised:
        DltLoader(files)
    assert "parquet" in raised.value.fix
    assert list(temporary.iterdir()) == []


@pytest.mark.spec("R049")
@pytest.mark.parametrize("name", ["bigqueri", "duckdb.x", "__doc__"])
def test_a_destination_that_dlt_does_not_know_is_told(name: str) -> None:
    with pytest.raises(TowpathError, match="knows no destination"):
        DltLoader(DltTarget(destination=name))


@pytest.mark.spec("R049")
def test_a_destination_out_of_reach_is_tried_again_later(tmp_path: Path) -> None:
    with pytest.raises(Lost) as raised:
        DltLoader(target_in(tmp_path / "nowhere" / "at all"))
    assert isinstance(raised.value, TowpathError)
    assert raised.value.fix


@pytest.mark.spec("R049")
def test_telemetry_is_off_before_dlt_is_imported() -> None:
    script = (
        "import towpath.warehouse.dlt_database as d\n"
        "from dlt.common.runtime import run_context\n"
        "print(run_context.active().runtime_config.dlthub_telemetry)"
    )
    environment = {key: value for key, value in os.environ.items() if not key.startswith("RUNTIME__")}
    said = subprocess.run([sys.executable, "-c", script], env=environment, capture_output=True, check=True)
    assert said.stdout.split() == [b"False"]
