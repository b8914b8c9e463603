"""What an attack on `towpath replicate` found: the way out of a changed hash."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from towpath.sandbox.customerio import DEFAULT

from .support import Shell
from .test_replicate import CONFIG, Workspace, place, rows, workspace

__all__ = ["place"]


@pytest.fixture(scope="module")
def cio() -> Iterator[Workspace]:
    with workspace(people=5, messages=5, activities=0) as found:
        yield found


def configure(cio: Workspace, directory: Path, tables: str, more: str = "") -> Path:
    text = CONFIG.format(key=DEFAULT.app_api_key, url=cio.url, tables=tables, more=more)
    file = directory / "towpath.yaml"
    key = "{type: warehouse, duckdb: ./wh.duckdb, hash_key: 0123456789abcdef0123}"
    file.write_text(text.replace("{type: warehouse, duckdb: ./wh.duckdb}", key))
    return file


@pytest.mark.spec("R048", "R050")
def test_a_table_that_is_to_be_hashed_can_be_emptied_for_it(
    shell: Shell, place: Path, cio: Workspace
) -> None:
    configure(cio, place, "{customers: {}, snippets: {}}")
    assert shell("replicate", "run").code == 0
    configure(cio, place, "{customers: {hash: [email]}, snippets: {}}")
    refused = shell("replicate", "run", "--json")
    assert "replicate reset" in refused.out
    emptied = shell("replicate", "reset", "customers", "--yes")
    assert emptied.code == 0, emptied.err
    assert shell("replicate", "run").code == 0
    hashes = rows(place, "select distinct length(email) from customers where email is not null")
    assert hashes == [(64,)]
