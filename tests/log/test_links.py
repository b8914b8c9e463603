"""Links of many identifiers at once: what `links` says of each, in one look."""

from __future__ import annotations

from pathlib import Path

import pytest

from towpath.log.sqlite import SqliteStore
from towpath.testing.fakes import FakeClock


@pytest.mark.spec("E026")
async def test_links_of_many_are_those_of_each(tmp_path: Path) -> None:
    async with SqliteStore.open(tmp_path, FakeClock(), inline=True, durable=False) as store:
        for n in range(0, 700, 2):
            await store.link(f"a:{n}", n + 10, f"u:{n}")
        await store.link("a:0", 3, "u:before")
        names = [f"a:{n}" for n in range(700)]
        found = await store.links_of(names)
        assert found["a:0"] == [(3, "u:before"), (10, "u:0")]
        assert {name: list(found.get(name, ())) for name in names} == {
            name: list(await store.links(name)) for name in names
        }
        assert await store.links_of(()) == {}
